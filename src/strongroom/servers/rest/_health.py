"""Routes for probes and scrapers. They tell nothing about what is stored."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.http import MCP_PATH, METADATA_PATH
from strongroom.servers.rest import _models as m
from strongroom.servers.rest._call import Caller, known_parameters
from strongroom.servers.rest._spec import route
from strongroom.servers.wire import to_json

if TYPE_CHECKING:
    from strongroom.engine import Session

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OK = to_json({"status": "ok"})


def metadata(issuer: str) -> APIRouter:
    """What a client needs to get a token for this server (RFC 9728); without an issuer there is nothing."""
    router = APIRouter(dependencies=[known_parameters])
    if not issuer:
        return router

    def found(request: Request, path: str) -> Response:
        host = request.headers["host"]  # the guard takes our own names alone
        return Response(
            to_json(
                {
                    "resource": f"https://{host}{path}",
                    "authorization_servers": [issuer],
                    "bearer_methods_supported": ["header"],
                    "resource_name": "Strongroom",
                }
            ),
            media_type="application/json",
        )

    @router.get(METADATA_PATH, include_in_schema=False)
    async def of_rest(request: Request) -> Response:
        return found(request, "")

    @router.get(METADATA_PATH + MCP_PATH, include_in_schema=False)
    async def of_mcp(request: Request) -> Response:
        return found(request, MCP_PATH)

    return router


def health(caller: Caller, *, metrics_on_loopback: bool) -> APIRouter:
    """``/healthz``: the process answers; ``/readyz``: the store is open, its ledger reads; ``/metrics``."""
    router = APIRouter(dependencies=[known_parameters])

    @router.get("/healthz", **route(m.HealthOut, "The process answers", public=True, tag="probes"))
    async def healthz() -> Response:
        return Response(_OK, media_type="application/json")

    @router.get("/readyz", **route(m.HealthOut, "The store is open", public=True, tag="probes"))
    async def readyz() -> Response:
        def check() -> None:
            caller.engine.ensure_open()
            caller.engine.ledger.namespaces()

        await caller.workers.run(check)
        return Response(_OK, media_type="application/json")

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        if metrics_on_loopback and _is_loopback(request):
            text = await caller.workers.run(caller.engine.metrics.text)
        else:
            await caller.require_key(request)
            text = await caller.run(request, _metrics)
        return Response(text, media_type=_METRICS_TYPE)

    def _metrics(session: Session) -> bytes:
        session.audit(limit=1)  # the figures are over the whole store: the same right as its audit log
        return caller.engine.metrics.text()

    return router


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
