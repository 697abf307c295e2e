"""The operations that respond to incidents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from strongroom.engine import _respond
from strongroom.engine._call import Call
from strongroom.engine._drill import drill_copy
from strongroom.engine._session_base import Operations
from strongroom.errors import AccessDeniedError
from strongroom.model import Action, ResponseReport


class RespondOperations(Operations):
    """Respond to incidents, on the directory of the store."""

    def respond_key_compromise(
        self,
        key: str,
        *,
        to: Sequence[str] = (),
        reason: str = "",
        dry_run: bool = False,
        revoke_credentials: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> ResponseReport:
        """A key was exposed: replace everything below it, seal records anew, destroy it, report signed.

        Args:
            key: ``master:URI``, ``namespace:NAME`` or ``data:N``, as ``keyring_list`` names it.
            to: providers of the configuration that take the place of an exposed master key.
            dry_run: only tell what would be done.
            revoke_credentials: also revoke every API key that reaches an affected namespace. Those of the
                whole store are revoked in any case when the store's own keys are affected.

        Raises:
            InvalidInputError, ConflictError, KeyManagementError, StorageError: repeat it, it goes on.
        """
        return self._run(
            "respond",
            lambda call: _respond.key_compromise(
                call, key, to, reason, dry_run, revoke_credentials, False, progress
            ),
        )

    def respond_drill(
        self,
        key: str,
        *,
        to: Sequence[str] = (),
        reason: str = "",
        revoke_credentials: bool = False,
        place: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ResponseReport:
        """``respond_key_compromise`` on a copy of the store, which is removed afterwards. For the owner.

        ``place``: directory for the copy, keys included; the temporary directory without one.

        Raises:
            As ``respond_key_compromise``. AccessDeniedError: the caller is not the owner of the directory.
        """
        from strongroom.engine._core import Engine

        engine = self._engine
        why = f"drill: {reason}" if reason else "drill"

        def allowed(call: Call) -> None:
            call.reason = f"drill: compromise of {key}"
            call.require(Action.ADMINISTER, None)
            if not call.principal.is_owner:
                raise AccessDeniedError
            engine.audit_log.signer()  # the copy signs with the store's keys: they must be there before it

        self._run("respond", allowed)
        with drill_copy(engine.directory, place) as directory:
            copy = Engine.open(directory, worker=False)
            try:
                return copy.owner_session(self._surface)._run(
                    "respond",
                    lambda call: _respond.key_compromise(
                        call, key, to, why, False, revoke_credentials, True, progress
                    ),
                )
            finally:
                copy.close()

    def respond_keys(self) -> tuple[str, str]:
        """The public keys, Ed25519 and ML-DSA-44, that reports of this store are verified with."""
        return self._run("respond", _respond.verifier_keys)
