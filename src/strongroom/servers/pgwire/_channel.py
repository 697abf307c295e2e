"""What a conversation writes and how it has work done: the lower half of ``_session``."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

from strongroom.errors import StrongroomError
from strongroom.model import SqlCancel
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._commands import Transaction
from strongroom.servers.pgwire._effects import Effect, Send, Steps, Work
from strongroom.servers.pgwire._errors import PgError, as_pg_error
from strongroom.servers.pgwire._settings import Settings

__all__ = ["Channel"]

T = TypeVar("T")
_OUT_BYTES: Final = 64 * 1024


class Channel:
    """Output in pieces, and work in other threads that can be cancelled."""

    def __init__(self, settings: Settings, statement_bytes_max: int) -> None:
        self._settings = settings
        self._statement_bytes_max = statement_bytes_max
        self._transaction = Transaction(settings)
        self._out: list[bytes] = []
        self._out_size = 0
        self._current: SqlCancel | None = None
        self._reason = ""

    def _measure(self, sql: str, times: int = 1) -> None:
        """Raises: PgError: 54000, before anything looks at a text that is too long."""
        if len(sql) > self._statement_bytes_max * times:
            hint = f"at most {self._statement_bytes_max} bytes"
            raise PgError("54000", "the statement is too long", hint=hint)

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)

    def _flush(self) -> Steps[None]:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            yield Send(data)

    def _relieve(self) -> Steps[None]:
        if self._out_size >= _OUT_BYTES:
            yield from self._flush()

    def _tell(self) -> None:
        """Changed settings and warnings."""
        for name, value in self._settings.changed:
            self._put(m.parameter_status(name, value))
        self._settings.changed.clear()
        for sqlstate, text in self._settings.warnings:
            self._put(m.notice(sqlstate, text))
        self._settings.warnings.clear()

    def _complete(self, tag: str) -> None:
        """The end of an answer, after what is to be said about it."""
        self._tell()
        self._put(m.complete(tag))

    def cancel(self, reason: str = "user request") -> None:
        """Stop the statement that runs, if one does."""
        current = self._current
        if current is not None:
            self._reason = reason
            current.cancel()

    def _work(
        self, cancel: SqlCancel, run: Callable[[], T], *, encodes: bool = False
    ) -> Generator[Effect, Any, T]:
        self._current = cancel
        self._reason = "user request"
        limit = self._settings.statement_timeout_ms
        try:
            result: T = yield Work(run, limit, encodes)
        except StrongroomError as e:
            if cancel.cancelled:
                raise PgError("57014", f"canceling statement due to {self._reason}") from None
            raise as_pg_error(e) from None
        finally:
            self._current = None
        self._tell()  # set_config may have changed a setting
        return result
