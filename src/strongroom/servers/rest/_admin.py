"""Routes over the store: namespaces, keys, queue, statistics, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models as m
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.wire import audit_out, granted_out

if TYPE_CHECKING:
    from strongroom.engine import Session

Namespaces = Annotated[
    list[m.Pattern], Query(description="Names or patterns; repeat for several.", min_length=1)
]
Limit = Annotated[int, Query(ge=1)]
_EVERYTHING = ["*"]

_parse_flush = parser(m.FlushOrder)
_parse_namespace = parser(m.NewNamespace)


def _settings(given: m.NewNamespace) -> dict[str, Any]:
    return given.model_dump(include={"model", "language", "kms", "sealed_in_memory"})


_parse_key = parser(m.NewKey)
_parse_requeue = parser(m.RequeueOrder)


def store(caller: Caller) -> APIRouter:
    """The routes over the whole store."""
    router = APIRouter(dependencies=caller.checks())

    @router.post(
        "/v1/flush",
        **route(m.FlushedOut, "Wait until all stored so far is embedded", m.FlushOrder, tag="store"),
    )
    async def flush(request: Request) -> Response:
        def work(s: Session, order: m.FlushOrder) -> object:
            s.flush(order.timeout_s)
            return {"flushed": True}

        return await caller.call_with(request, _parse_flush, work, waits=lambda _: True)

    @router.get("/v1/stats", **route(m.StatsOut, "Counts", tag="store"))
    async def stats(request: Request, namespaces: Namespaces = _EVERYTHING) -> Response:
        return await caller.call(request, lambda s: s.stats(namespaces))

    @router.get("/v1/namespaces", **route(m.NamespacesOut, "List namespaces", tag="store"))
    async def list_namespaces(request: Request) -> Response:
        return await caller.call(request, lambda s: {"namespaces": s.namespaces()})

    @router.post(
        "/v1/namespaces", **route(m.NamespaceOut, "Make a namespace", m.NewNamespace, status=201, tag="store")
    )
    async def create_namespace(request: Request) -> Response:
        return await caller.call_with(
            request,
            _parse_namespace,
            lambda s, o: s.create_namespace(o.name, **_settings(o)),
            status=201,
        )

    @router.patch(
        "/v1/namespaces",
        **route(
            m.NamespaceOut,
            "Change a namespace's model, language or key management service",
            m.NewNamespace,
            tag="store",
        ),
    )
    async def update_namespace(request: Request) -> Response:
        return await caller.call_with(
            request,
            _parse_namespace,
            lambda s, o: s.update_namespace(o.name, **_settings(o)),
        )

    return router


def administration(caller: Caller) -> APIRouter:
    """The routes for operators: keys, the embedding queue, the audit log."""
    router = APIRouter(dependencies=caller.checks())

    @router.get("/v1/kms", **route(m.KmsOut, "Who holds the keys of the namespaces", tag="administration"))
    async def kms_status(request: Request) -> Response:
        return await caller.call(request, lambda s: {"namespaces": s.kms_status()})

    @router.get("/v1/keys", **route(m.KeysOut, "List API keys", tag="administration"))
    async def keys(request: Request) -> Response:
        return await caller.call(request, lambda s: {"keys": [granted_out(k) for k in s.keys_list()]})

    @router.post(
        "/v1/keys", **route(m.NewKeyOut, "Make an API key", m.NewKey, status=201, tag="administration")
    )
    async def create_key(request: Request) -> Response:
        def work(s: Session, o: m.NewKey) -> object:
            key, text = s.keys_create(
                o.name,
                o.scope,
                o.grants,
                o.expires_at,
                kind=o.kind,
                agent_id=o.agent_id,
                tenant=o.tenant,
                labels=o.labels,
            )
            return {"key": granted_out(key), "api_key": text}

        return await caller.call_with(request, _parse_key, work, status=201)

    @router.delete("/v1/keys/{key_id}", **route(m.KeyOut, "Revoke an API key, at once", tag="administration"))
    async def revoke_key(request: Request, key_id: Annotated[str, Path(max_length=64)]) -> Response:
        return await caller.call(request, lambda s: granted_out(s.keys_revoke(key_id)))

    @router.get(
        "/v1/queue", **route(m.QueueOut, "List memories that wait for their embedding", tag="administration")
    )
    async def queue(
        request: Request,
        namespaces: Namespaces = _EVERYTHING,
        dead: bool | None = None,
        limit: Limit = 100,
    ) -> Response:
        return await caller.call(request, lambda s: {"entries": s.queue(namespaces, dead=dead, limit=limit)})

    @router.post(
        "/v1/queue:requeue",
        **route(m.RequeuedOut, "Give dead letters another chance", m.RequeueOrder, tag="administration"),
    )
    async def requeue(request: Request) -> Response:
        return await caller.call_with(
            request, _parse_requeue, lambda s, o: {"requeued": s.requeue(o.namespaces)}
        )

    @router.get("/v1/audit", **route(m.AuditOut, "Read the audit log", tag="administration"))
    async def audit(request: Request, limit: Limit = 100, after: Annotated[int, Query(ge=0)] = 0) -> Response:
        return await caller.call(
            request, lambda s: {"entries": [audit_out(e) for e in s.audit(limit, after)]}
        )

    return router
