"""Routes over the audit log: keys, checkpoints, proofs, queries, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_audit as m
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.rest._stream import streamed
from strongroom.servers.wire import audit_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.engine import Session
    from strongroom.model import Checkpoint

_SEQ_MAX = 2**62
_parse_question = parser(m.AuditQuestion)
_parse_export = parser(m.AuditExportOrder)
_MEDIA = {
    "jsonl": "application/jsonl",
    "json": "application/jsonl",
    "ocsf": "application/jsonl",
    "csv": "text/csv",
}
_EXPORTED = {kind: {"schema": {"type": "string"}} for kind in sorted(set(_MEDIA.values()))}


def audit_log(caller: Caller) -> APIRouter:
    """The routes below ``/v1/audit``, for administrators with the grant ``*``."""
    router = APIRouter(dependencies=caller.checks())

    @router.get("/v1/audit/keys", **route(m.AuditKeysOut, "The public keys of the audit log", tag="audit"))
    async def keys(request: Request) -> Response:
        return await caller.call(request, lambda s: {"keys": s.audit_key()})

    @router.get(
        "/v1/audit/key-changes",
        **route(m.AuditKeyChangesOut, "By which documents keys of the audit log handed over", tag="audit"),
    )
    async def key_changes(request: Request) -> Response:
        return await caller.call(request, lambda s: {"changes": s.audit_key_changes()})

    @router.get("/v1/audit/checkpoint", **route(m.CheckpointOut, "Sign what is in the log now", tag="audit"))
    async def checkpoint(request: Request) -> Response:
        return await caller.call(request, lambda s: _checkpoint(s.audit_checkpoint()))

    @router.get("/v1/audit/proofs/{seq}", **route(m.InclusionOut, "Prove that an entry is in", tag="audit"))
    async def proof(request: Request, seq: Annotated[int, Path(ge=1, le=_SEQ_MAX)]) -> Response:
        return await caller.text(request, lambda s: s.audit_proof(seq).to_json())

    @router.get(
        "/v1/audit/consistency/{old_size}",
        **route(m.ConsistencyOut, "Prove that an older log is the beginning of today's", tag="audit"),
    )
    async def consistency(request: Request, old_size: Annotated[int, Path(ge=0, le=_SEQ_MAX)]) -> Response:
        return await caller.text(request, lambda s: s.audit_consistency(old_size).to_json())

    @router.post(
        "/v1/audit:query", **route(m.AuditFoundOut, "Look for entries", m.AuditQuestion, tag="audit")
    )
    async def query(request: Request) -> Response:
        def work(s: Session, q: m.AuditQuestion) -> object:
            found = s.audit_query(q.filter(), limit=q.limit, after=q.after)
            return {"entries": [audit_out(e) for e in found]}

        return await caller.call_with(request, _parse_question, work)

    @router.post(
        "/v1/audit:export",
        **route(None, "Export the log, line by line", m.AuditExportOrder, tag="audit", content=_EXPORTED),
    )
    async def export(request: Request) -> Response:
        """A body that ends early is no export: one of ``jsonl`` without its last line does not verify."""
        session, order = await caller.opened(request, _parse_export)

        def work(write: Callable[[str], object]) -> object:
            return session.audit_export(
                write, format=order.format, opened=order.opened, wanted=order.filter()
            )

        return await streamed(caller.waiters, work, _MEDIA[order.format])

    return router


def _checkpoint(found: Checkpoint) -> object:
    return {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "checkpoint": found.note,
    }
