"""Routes that rotate keys. What takes long is worked at in the background of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_rotation as r
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route

if TYPE_CHECKING:
    from strongroom.engine import Session

Number = Annotated[int, Path(ge=1, le=2**62)]
KeyId = Annotated[str, Query(max_length=2048)]
Targets = Annotated[
    list[str], Query(description="Names, patterns, `@system`; repeat for several.", min_length=1)
]
_EVERYTHING = ["*"]
_TAG = "rotation"
_parse_key = parser(r.KeyOrder)
_parse_new = parser(r.NewRotation)
_parse_master = parser(r.MasterRotation)
_parse_namespace = parser(r.NamespaceRotation)
_parse_audit = parser(r.AuditRotation)
_parse_order = parser(r.RotationOrder)
_parse_end = parser(r.EndOfRotation)


def rotation(caller: Caller) -> APIRouter:
    """The routes over rotations."""
    router = APIRouter(dependencies=caller.checks())

    @router.get("/v1/rotations", **route(r.RotationsOut, "List rotations", tag=_TAG))
    async def status(request: Request, ended: bool = False) -> Response:
        return await caller.call(request, lambda s: {"rotations": s.rotation_status(ended=ended)})

    @router.post(
        "/v1/rotations",
        **route(r.RotationsOut, "Begin to seal records anew", r.NewRotation, status=201, tag=_TAG),
    )
    async def begin(request: Request) -> Response:
        def work(s: Session, o: r.NewRotation) -> object:
            made = s.rotate(
                o.what, namespaces=o.namespaces, suite=o.suite, key_id=o.key_id, wait=False, reason=o.reason
            )
            return {"rotations": made}

        return await caller.call_with(request, _parse_new, work, status=201)

    @router.patch(
        "/v1/rotations/{rotation}",
        **route(r.RotationOut, "Pause a rotation, go on with it, or roll it back", r.RotationOrder, tag=_TAG),
    )
    async def change(request: Request, rotation: Number) -> Response:
        def work(s: Session, o: r.RotationOrder) -> object:
            if o.order == "rollback":
                return s.rotation_rollback(rotation, wait=False)
            return s.rotation_pause(rotation) if o.order == "pause" else s.rotation_resume(rotation)

        return await caller.call_with(request, _parse_order, work)

    @router.post(
        "/v1/rotations/{rotation}/finalise",
        **route(r.RotationOut, "Destroy the keys of the epoch before", r.EndOfRotation, tag=_TAG),
    )
    async def finalise(request: Request, rotation: Number) -> Response:
        def work(s: Session, o: r.EndOfRotation) -> object:
            return s.rotation_finalise(rotation, verify=o.verify)

        return await caller.call_with(request, _parse_end, work, waits=lambda _: True)

    _at_once(router, caller)
    _keyring(router, caller)
    return router


def _at_once(router: APIRouter, caller: Caller) -> None:
    """What touches keys alone and is done when it is answered."""

    @router.post(
        "/v1/rotations:master",
        **route(r.RewrappedListOut, "Have namespace keys wrapped anew", r.MasterRotation, tag=_TAG),
    )
    async def master(request: Request) -> Response:
        def work(s: Session, o: r.MasterRotation) -> object:
            return {"rewrapped": s.rotate_master(namespaces=o.namespaces, to=o.to, reason=o.reason)}

        return await caller.call_with(request, _parse_master, work, waits=lambda _: True)

    @router.post(
        "/v1/rotations:namespace",
        **route(r.RewrappedListOut, "Make new namespace keys", r.NamespaceRotation, tag=_TAG),
    )
    async def namespace(request: Request) -> Response:
        def work(s: Session, o: r.NamespaceRotation) -> object:
            return {"rewrapped": s.rotate_namespace(namespaces=o.namespaces, reason=o.reason)}

        return await caller.call_with(request, _parse_namespace, work, waits=lambda _: True)

    @router.post(
        "/v1/rotations:audit",
        **route(r.AuditRotationOut, "Sign the audit log with new keys", r.AuditRotation, tag=_TAG),
    )
    async def audit(request: Request) -> Response:
        def work(s: Session, o: r.AuditRotation) -> object:
            return {"change": s.rotate_audit(reason=o.reason)}

        return await caller.call_with(request, _parse_audit, work, waits=lambda _: True)


def _keyring(router: APIRouter, caller: Caller) -> None:
    @router.get("/v1/keyring", **route(r.KeyTreeOut, "The tree of encryption keys", tag=_TAG))
    async def tree(request: Request, namespaces: Targets = _EVERYTHING, destroyed: bool = False) -> Response:
        return await caller.call(request, lambda s: {"keys": s.keyring_list(namespaces, destroyed=destroyed)})

    @router.get("/v1/keyring:history", **route(r.KeyHistoryOut, "What happened to keys", tag=_TAG))
    async def history(
        request: Request, namespaces: Targets = _EVERYTHING, key: KeyId | None = None
    ) -> Response:
        return await caller.call(
            request, lambda s: {"history": s.keyring_history(key, namespaces=namespaces)}
        )

    @router.patch(
        "/v1/keyring/{key}",
        **route(r.EncryptionKeyOut, "Suspend a data key, or let it open again", r.KeyOrder, tag=_TAG),
    )
    async def change_key(request: Request, key: Annotated[str, Path(max_length=2048)]) -> Response:
        def work(s: Session, o: r.KeyOrder) -> object:
            if o.enabled:
                return s.keyring_enable(key, reason=o.reason)
            return s.keyring_disable(key, reason=o.reason)

        return await caller.call_with(request, _parse_key, work)
