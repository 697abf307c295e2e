"""What every group of operations stands on: the caller, and the frame that each operation runs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from strongroom.engine._call import Call, run
from strongroom.engine._sql import NO_EXTENSION, SqlExtension
from strongroom.errors import UnauthenticatedError
from strongroom.model import IN_PROCESS, Principal, RequestContext

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

T = TypeVar("T")


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
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._caller = caller
        self._surface = surface
        self._request_id = request_id
        self.context = context  # a surface may change what the caller says of later operations
        self._facts = facts or {}  # of the credential, for the audit log
        self.sql_extension: SqlExtension = NO_EXTENSION  # a surface may offer more, a catalogue for example

    def check_standing(self) -> None:
        """For a surface that hands out an answer in parts: whether the credential is good at this moment.

        The operation was audited when it began; only a refusal makes an entry of its own.

        Raises:
            UnauthenticatedError: it was revoked or has expired meanwhile.
        """
        try:
            self._principal()
        except UnauthenticatedError:
            self._run("whoami", lambda call: call.principal)

    def _run(self, action: str, work: Callable[[Call], T]) -> T:
        self._engine.doors.watch.operation(self._caller, self._surface, self.context)
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
