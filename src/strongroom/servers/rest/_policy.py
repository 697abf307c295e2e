"""Routes over attribute policies."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_policy as mp
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route

_parse_question = parser(mp.ExplainQuestion)


def policies(caller: Caller) -> APIRouter:
    """The routes under ``/v1/policy``."""
    router = APIRouter(dependencies=caller.checks())

    @router.post(
        "/v1/policy:explain",
        **route(
            mp.ExplanationOut, "Say why a key may, or may not, do something", mp.ExplainQuestion, tag="store"
        ),
    )
    async def explain(request: Request) -> Response:
        return await caller.call_with(
            request,
            _parse_question,
            lambda s, q: s.policy_explain(
                q.key_id,
                q.action,
                namespace=q.namespace,
                memory_id=q.memory_id,
                context=q.context(),
                surface=q.surface,
            ),
        )

    return router
