# Generated from _async/_rotation.py by script/generate_sync.py; do not edit.
"""The methods that rotate keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from strongroom.client import _wire, _wire_audit
from strongroom.client._sync._calls import Calls
from strongroom.model import Rewrapped, Rotation, RotationKind, RotationState

_POLL_S = 0.25
_RESTING = (RotationState.MOVED, RotationState.RETURNED, RotationState.FINALISED)


class RotationCalls(Calls):
    """Rotate keys. All need the admin scope over the namespaces named; ``@system`` is the store's own."""

    def rotate(
        self,
        what: RotationKind | str = "data",
        *,
        namespaces: Sequence[str] = ("*",),
        suite: str | None = None,
        key_id: int | None = None,
        wait: bool = True,
        reason: str = "",
        progress: Callable[[Rotation], None] | None = None,
    ) -> list[Rotation]:
        """New data keys for namespaces, and every record sealed anew under them; the server works at it.

        Raises:
            ConflictError: a namespace has a rotation that is not ended. NamespaceNotFoundError,
            InvalidInputError.
        """
        body = _wire.encode(
            {"what": what, "namespaces": namespaces, "suite": suite, "key_id": key_id, "reason": reason}
        )
        made = _wire.decode(_wire.Rotations, self._send("POST", "/v1/rotations", body)).rotations
        if wait and made:
            return self.rotation_work([r.id for r in made], progress=progress)
        return made

    def rotate_master(
        self, *, namespaces: Sequence[str] = ("*",), to: Sequence[str] = (), reason: str = ""
    ) -> list[Rewrapped]:
        """Have namespace keys wrapped by the present version of their master key, or by the providers ``to``.

        Raises:
            KeyManagementError: a key management service refuses or does not answer; what was done stays.
            InvalidInputError: no such provider. NamespaceNotFoundError.
        """
        body = _wire.encode({"namespaces": namespaces, "to": to, "reason": reason})
        raw = self._send("POST", "/v1/rotations:master", body)
        return _wire.decode(_wire.RewrappedList, raw).rewrapped

    def rotate_namespace(
        self, *, namespaces: Sequence[str] = ("*",), reason: str = ""
    ) -> list[Rewrapped]:
        """New namespace keys; the data keys are wrapped anew, and the keys before are destroyed.

        Raises:
            KeyManagementError: a key management service refuses or does not answer; repeat it.
            NamespaceNotFoundError.
        """
        body = _wire.encode({"namespaces": namespaces, "reason": reason})
        raw = self._send("POST", "/v1/rotations:namespace", body)
        return _wire.decode(_wire.RewrappedList, raw).rewrapped

    def rotate_audit(self, *, reason: str = "") -> str:
        """New keys sign the audit log from now on; heads and exports from before verify with the keys before.

        Returns:
            The document of the change, signed by the keys before and by the new ones. Whoever verifies the
            log needs it, or the new keys (``audit_key``): ``strongroom.audit.verify.verify_key_change``.

        Raises:
            ConflictError: other processes do the same all the time. InvalidInputError: a reason too long.
        """
        raw = self._send("POST", "/v1/rotations:audit", _wire.encode({"reason": reason}))
        return _wire.decode(_wire_audit.AuditRotation, raw).change

    def rotation_work(
        self, rotations: Sequence[int] = (), *, progress: Callable[[Rotation], None] | None = None
    ) -> list[Rotation]:
        """Wait until rotations (all that are open when none is named) need no more work, or are paused."""
        wanted = set(rotations) or {r.id for r in self.rotation_status()}
        while True:
            found = [r for r in self.rotation_status(ended=True) if r.id in wanted]
            if progress is not None:
                for rotation in found:
                    progress(rotation)
            if all(r.paused or r.state in _RESTING for r in found):
                return found
            time.sleep(_POLL_S)

    def rotation_status(self, *, ended: bool = False) -> list[Rotation]:
        """The rotations that are not ended, oldest first; with ``ended`` also those that are."""
        params = {"ended": "true" if ended else "false"}
        raw = self._send("GET", "/v1/rotations", params=params, repeatable=True)
        return _wire.decode(_wire.Rotations, raw).rotations

    def rotation_pause(self, rotation: int) -> Rotation:
        """Let the workers stop after their batch.

        Raises:
            NotFoundError. ConflictError: it does not move.
        """
        return self._change_rotation(rotation, "pause")

    def rotation_resume(self, rotation: int) -> Rotation:
        """Let workers go on where they were.

        Raises:
            NotFoundError. ConflictError: it does not move.
        """
        return self._change_rotation(rotation, "resume")

    def rotation_rollback(self, rotation: int, *, wait: bool = True) -> Rotation:
        """Go back to the keys of the epoch before.

        Raises:
            NotFoundError. ConflictError: it was finalised, or a key was compromised.
        """
        found = self._change_rotation(rotation, "rollback")
        return (self.rotation_work([rotation]))[0] if wait else found

    def rotation_finalise(self, rotation: int, *, verify: bool = True) -> Rotation:
        """Destroy the keys of the epoch before; there is no way back, also not for older backups of the data.

        ``verify``: open every record once more before.

        Raises:
            NotFoundError. ConflictError: it has not moved everything. IntegrityError: a record does not
            open, and nothing was destroyed.
        """
        body = _wire.encode({"verify": verify})
        raw = self._send("POST", f"/v1/rotations/{int(rotation)}/finalise", body)
        return _wire.decode(Rotation, raw)

    def _change_rotation(self, rotation: int, order: str) -> Rotation:
        body = _wire.encode({"order": order})
        return _wire.decode(Rotation, self._send("PATCH", f"/v1/rotations/{int(rotation)}", body))
