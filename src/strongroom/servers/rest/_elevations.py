"""Routes over rights for a while: short-lived tokens and elevations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_identity as mi
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.wire import granted_out

if TYPE_CHECKING:
    from strongroom.engine import Session
    from strongroom.model import ElevationInfo

_parse_token = parser(mi.NewToken)
_parse_request = parser(mi.ElevationRequest)
_parse_choice = parser(mi.ElevationChoice)


def elevations(caller: Caller) -> APIRouter:
    """The routes for tokens and elevations."""
    router = APIRouter(dependencies=caller.checks())

    @router.post(
        "/v1/tokens",
        **route(mi.NewTokenOut, "Mint a token of the caller's key", mi.NewToken, status=201, tag="identity"),
    )
    async def create_token(request: Request) -> Response:
        def work(s: Session, o: mi.NewToken) -> object:
            info, text = s.tokens_create(scope=o.scope, grants=o.grants, minutes=o.minutes)
            return {"token": granted_out(info), "access_token": text}

        return await caller.call_with(request, _parse_token, work, status=201)

    @router.get("/v1/elevations", **route(mi.ElevationsOut, "List elevations", tag="identity"))
    async def list_elevations(request: Request, all_states: bool = False) -> Response:
        return await caller.call(
            request,
            lambda s: {"elevations": [granted_out(e) for e in s.elevations_list(all_states=all_states)]},
        )

    @router.post(
        "/v1/elevations",
        **route(mi.ElevationOut, "Ask for an elevation", mi.ElevationRequest, status=201, tag="identity"),
    )
    async def ask(request: Request) -> Response:
        def work(s: Session, o: mi.ElevationRequest) -> object:
            return granted_out(s.elevations_request(o.scope, o.grants, o.reason, minutes=o.minutes))

        return await caller.call_with(request, _parse_request, work, status=201)

    def step(summary: str, work: Callable[[Session, str], ElevationInfo]) -> None:
        name = summary.split(maxsplit=1)[0].lower()

        async def take(request: Request) -> Response:
            return await caller.call_with(request, _parse_choice, lambda s, o: granted_out(work(s, o.id)))

        described = route(mi.ElevationOut, summary, mi.ElevationChoice, tag="identity")
        router.post(f"/v1/elevations:{name}", operation_id=f"elevation_{name}", **described)(take)

    step("Approve an elevation of somebody else", lambda s, i: s.elevations_approve(i))
    step("Deny an elevation", lambda s, i: s.elevations_deny(i))
    step("Revoke an elevation, at once", lambda s, i: s.elevations_revoke(i))
    return router
