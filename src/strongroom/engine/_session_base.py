"""What every group of operations stands on: the caller, and the frame that each operation runs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from strongroom.engine._call import Call, run
from strongroom.engine._policies import DIGEST_SHOWN
from strongroom.engine._sql import NO_EXTENSION, SqlExtension
from strongroom.errors import AccessDeniedError, UnauthenticatedError
from strongroom.model import IN_PROCESS, Principal, RequestContext

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller might do when it was looked at: its rights, and the policies in force, as entries name
    them."""

    principal: Principal
    policy_set: str = ""

    def holds(self, principal: Principal, policy_set: str) -> bool:
        """Whether these are the same; an elevation that has begun since takes nothing away."""
        lent = set(self.principal.elevations) <= set(principal.elevations)
        same = replace(principal, elevations=self.principal.elevations) == self.principal
        return lent and same and policy_set == self.policy_set


def _refuse_the_rest(call: Call) -> None:
    call.reason = "what the caller may do has changed since the statement began"
    raise AccessDeniedError(hint="begin again")


class Operations:
    """One caller of an opened store, and the frame of the operations."""

    def __init__(
        self,
        engine: Engine,
        principal: Callable[[], Principal],
        surface: str,
        request_id: str | None = None,
        caller: str = "owner",
        context: RequestContext = IN_PROCESS,
        facts: Mapping[str, str] | None = None,
        tenant: str = "",
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._caller = caller
        self._tenant = tenant  # when it came in
        self.share = (
            f"tenant {tenant}" if tenant else f"caller {caller}"
        )  # who has one turn of a server's workers
        self._surface = surface
        self._request_id = request_id
        self.context = context  # a surface may change what the caller says of later operations
        self._facts = facts or {}  # of the credential, for the audit log
        self.sql_extension: SqlExtension = NO_EXTENSION  # a surface may offer more, a catalogue for example
        self.stood: Standing | None = None  # when the last statement began, for ``check_standing``

    def check_standing(self, since: Standing | None = None) -> None:
        """For a surface that hands out an answer in parts: whether the credential is good at this moment.

        The operation was audited when it began; only a refusal makes an entry of its own. ``since``: what the
        caller might then.

        Raises:
            UnauthenticatedError: it was revoked or has expired meanwhile. AccessDeniedError: other policies
            are in force than ``since``, or the caller has lost something.
        """
        try:
            now = self._principal()
        except UnauthenticatedError:
            self._run("whoami", lambda call: call.principal)
            return
        if since is not None and not since.holds(now, self._policy_set(now)):
            self._run("sql", _refuse_the_rest)

    def _policy_set(self, principal: Principal) -> str:
        in_force = None if principal.is_owner else self._engine.policies.current()
        return "" if in_force is None else in_force.digest[:DIGEST_SHOWN]

    def _run(self, action: str, work: Callable[[Call], T]) -> T:
        self._engine.doors.watch.operation(self._caller, self._tenant, self._surface, self.context)
        request_id = self._request_id or os.urandom(8).hex()
        call = Call(
            self._engine,
            self._caller,
            self._surface,
            request_id,
            action,
            authenticate=self._principal,
            context=self.context,
            details=dict(self._facts),
        )
        with self._engine.telemetry.span(action, self._surface, request_id) as done:
            result = run(call, work)
            if done is not None:
                done(call)
            return result
