"""The operations that rotate keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strongroom.engine import _audit, _rewrap, _rotation
from strongroom.engine._session_base import Operations
from strongroom.errors import InvalidInputError
from strongroom.model import Rewrapped, Rotation, RotationKind


class RotationOperations(Operations):
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
        """New data keys for namespaces, and every record sealed anew under them, while the store is in use.

        Args:
            what: ``data``, ``suite`` (``suite`` names it) or ``compromise``; see ``docs/rotation.md``.
            namespaces: names or patterns; ``*`` is all, the store's own included.
            key_id: only what this one data key has sealed.
            wait: work at it until all has moved; otherwise servers on the directory do.
            progress: called about twice a second.

        Raises:
            ConflictError: a namespace has a rotation that is not ended. NamespaceNotFoundError,
            InvalidInputError.
        """
        kind = _kind(what, (RotationKind.DATA, RotationKind.SUITE, RotationKind.COMPROMISE))
        made = self._run(
            "rotate", lambda call: _rotation.begin(call, kind, namespaces, suite, key_id, reason)
        )
        if wait and made:
            return self.rotation_work([r.id for r in made], progress=progress)
        self._engine.rotations.wake()
        return made

    def rotate_master(
        self, *, namespaces: Sequence[str] = ("*",), to: Sequence[str] = (), reason: str = ""
    ) -> list[Rewrapped]:
        """Have namespace keys wrapped by the present version of their master key, or by the providers ``to``.

        Raises:
            KeyManagementError: a key management service refuses or does not answer; what was done stays.
            InvalidInputError: no such provider. NamespaceNotFoundError.
        """
        return self._run("rotate", lambda call: _rewrap.rotate_master(call, namespaces, to, reason))

    def rotate_namespace(self, *, namespaces: Sequence[str] = ("*",), reason: str = "") -> list[Rewrapped]:
        """New namespace keys; the data keys are wrapped anew, and the keys before are destroyed.

        Raises:
            KeyManagementError: a key management service refuses or does not answer; repeat it.
            NamespaceNotFoundError.
        """
        return self._run("rotate", lambda call: _rewrap.rotate_namespace(call, namespaces, reason))

    def rotate_audit(self, *, reason: str = "") -> str:
        """New keys sign the audit log from now on; heads and exports from before verify with the keys before.

        Returns:
            The document of the change, signed by the keys before and by the new ones. Whoever verifies the
            log needs it, or the new keys (``audit_key``): ``strongroom.audit.verify.verify_key_change``.

        Raises:
            ConflictError: other processes do the same all the time. InvalidInputError: a reason too long.
        """
        return self._run("rotate", lambda call: _audit.renew_keys(call, reason))

    def rotation_work(
        self, rotations: Sequence[int] = (), *, progress: Callable[[Rotation], None] | None = None
    ) -> list[Rotation]:
        """Work at rotations (all that are open when none is named) until they need no more work.

        Several threads and processes may; none does what another one does. Raises what stops it.
        """
        return self._run("rotate", lambda call: _rotation.work(call, tuple(rotations), progress))

    def rotation_status(self, *, ended: bool = False) -> list[Rotation]:
        """The rotations that are not ended, oldest first; with ``ended`` also those that are."""
        return self._run("rotate", lambda call: _rotation.status(call, ended))

    def rotation_pause(self, rotation: int) -> Rotation:
        """Let the workers stop after their batch.

        Raises:
            NotFoundError. ConflictError: it does not move.
        """
        return self._run("rotate", lambda call: _rotation.pause(call, rotation))

    def rotation_resume(self, rotation: int) -> Rotation:
        """Let workers go on where they were.

        Raises:
            NotFoundError. ConflictError: it does not move.
        """
        found = self._run("rotate", lambda call: _rotation.resume(call, rotation))
        self._engine.rotations.wake()
        return found

    def rotation_rollback(self, rotation: int, *, wait: bool = True) -> Rotation:
        """Go back to the keys of the epoch before.

        Raises:
            NotFoundError. ConflictError: it was finalised, or a key was compromised.
        """
        found = self._run("rotate", lambda call: _rotation.roll_back(call, rotation))
        if wait:
            return self.rotation_work([rotation])[0]
        self._engine.rotations.wake()
        return found

    def rotation_finalise(self, rotation: int, *, verify: bool = True) -> Rotation:
        """Destroy the keys of the epoch before; there is no way back, also not for older backups of the data.

        ``verify``: open every record once more before.

        Raises:
            NotFoundError. ConflictError: it has not moved everything. IntegrityError: a record does not
            open, and nothing was destroyed.
        """
        return self._run("rotate", lambda call: _rotation.finalise(call, rotation, verify))


def _kind(what: object, allowed: Sequence[RotationKind]) -> RotationKind:
    for kind in allowed:
        if kind == what:
            return kind
    raise InvalidInputError(
        "there is no such rotation", hint="one of: " + ", ".join(k.value for k in allowed)
    )
