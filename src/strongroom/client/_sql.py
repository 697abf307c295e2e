"""The answer to a SQL statement out of an Arrow stream, and how a statement is stopped over the network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

from strongroom.errors import OperationTimeoutError, StrongroomError, TransportError
from strongroom.model import Notice, SqlCancel, SqlColumn, SqlResult
from strongroom.model.sql_values import to_rows

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_TYPES_KEY = b"strongroom.sql"


def result_of(raw: bytes) -> SqlResult:
    """The answer in an Arrow stream of a server.

    Raises:
        TransportError: it is not of the form that this client knows.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(raw).read_all()
        known = json.loads(table.schema.metadata[_TYPES_KEY])
        types = tuple(str(t) for t in known["types"])
        columns = tuple(SqlColumn(n, t) for n, t in zip(table.column_names, types, strict=True))
        notices = [Notice(**n) for n in known.get("notices", ())]
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError):
        raise TransportError("the answer is not of the form that this client knows") from None
    return SqlResult(columns, table, partial(_rows, types), str(known.get("plan", "")), notices)


def _rows(types: tuple[str, ...], table: Any, start: int, count: int) -> list[tuple[Any, ...]]:
    return to_rows(table, start, count, types)


# -- stopping a statement ---------------------------------------------------------------------------------
_TRIES = 100  # the order to stop may arrive before the statement itself
_PAUSE_S = 0.05


class _Ended:
    """What both kinds share: the statement's name, and whether it has ended."""

    def __init__(self, cancel: SqlCancel) -> None:
        self.statement_id: UUID = uuid4()
        self._cancel = cancel
        self._ended = False

    def _begin(self, interrupt: Callable[[], None]) -> None:
        self._cancel.watch(interrupt)
        if self._cancel.cancelled:
            self._cancel.watch(None)
            raise OperationTimeoutError("the statement was cancelled")

    def _end(self) -> None:
        self._ended = True
        self._cancel.watch(None)


class Interrupt(_Ended):
    """Stops the statement of a blocking client, from a thread of its own, when the handle is used."""

    def __init__(self, cancel: SqlCancel, stop: Callable[[UUID], bool]) -> None:
        super().__init__(cancel)
        self._stop = stop
        self._pause = threading.Event()

    def _try(self) -> None:
        for _ in range(_TRIES):
            try:
                if self._ended or self._stop(self.statement_id):
                    return
            except StrongroomError:  # whoever waits for the statement is told what is wrong
                return
            self._pause.wait(_PAUSE_S)

    def __enter__(self) -> Interrupt:
        self._begin(lambda: threading.Thread(target=self._try, daemon=True).start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._pause.set()


class AsyncInterrupt(_Ended):
    """The same for a client of asyncio; the handle may be used in another thread."""

    def __init__(self, cancel: SqlCancel, stop: Callable[[UUID], Awaitable[bool]]) -> None:
        super().__init__(cancel)
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    async def _try(self) -> None:
        for _ in range(_TRIES):
            try:
                if self._ended or await self._stop(self.statement_id):
                    return
            except StrongroomError:  # whoever waits for the statement is told what is wrong
                return
            await asyncio.sleep(_PAUSE_S)

    def _start(self) -> None:
        if not self._ended:
            self._tasks.add(asyncio.get_running_loop().create_task(self._try()))

    async def __aenter__(self) -> AsyncInterrupt:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            loop.call_soon_threadsafe(self._start)

        self._begin(interrupt)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        for task in self._tasks:
            task.cancel()
