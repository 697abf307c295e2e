"""Reads: the statements, a pool of connections, and snapshots."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import TypeVar

import apsw

from strongroom.errors import ClosedError, NamespaceNotFoundError, StorageError, StrongroomError
from strongroom.ledger._connect import translate
from strongroom.ledger._types import ELEMENT_PREFIX_BYTES, QueueItem, QueueRow, RowHeader
from strongroom.model import Field, QueueStats, SealedRecord

T = TypeVar("T")
_MEMORY = int(Field.MEMORY)
_IDLE_MAX = 16
_PARTS = (1, 10, 50, 100)  # memories asked for by one statement; each text is kept prepared
PARTS_MAX = _PARTS[-1]

_COLUMNS = "ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed"
_HEAD = "SELECT seq, head FROM namespace WHERE ns = ?"
_GET = f"SELECT {_COLUMNS} FROM record WHERE ns = ? AND memory_id = ? AND field = ?"  # noqa: S608
_CHANGES = f"SELECT {_COLUMNS} FROM record WHERE ns = ? AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
_HEADERS = (
    "SELECT field, memory_id, seq, version, content_version, key_id, state, model,"  # noqa: S608
    f" substr(sealed, 1, {ELEMENT_PREFIX_BYTES}) FROM record WHERE ns = ? AND seq > ? ORDER BY seq LIMIT ?"
)
_QUEUE_COLUMNS = "id, ns, memory_id, content_version, attempts, dead, error_code"
_COUNTS = (
    "SELECT count(*), coalesce(sum(EXISTS (SELECT 1 FROM record v WHERE v.ns = m.ns"
    " AND v.memory_id = m.memory_id AND v.field = 1 AND v.state = 1 AND v.model = ?2"
    " AND v.content_version = m.content_version AND v.key_id NOT IN (SELECT value FROM json_each(?3)))), 0)"
    " FROM record m WHERE m.ns = ?1 AND m.field = 0 AND m.state = 1"
    " AND m.key_id NOT IN (SELECT value FROM json_each(?3))"
)
_UNEMBEDDED = (
    "SELECT m.seq, m.ns, m.memory_id, m.content_version FROM record m"
    " WHERE m.ns = ?1 AND m.seq > ?2 AND m.field = 0 AND m.state = 1"
    " AND NOT EXISTS (SELECT 1 FROM record v WHERE v.ns = m.ns AND v.memory_id = m.memory_id"
    "  AND v.field = 1 AND v.state = 1 AND v.content_version = m.content_version)"
    " AND NOT EXISTS (SELECT 1 FROM embedding_queue q WHERE q.ns = m.ns AND q.memory_id = m.memory_id)"
    " ORDER BY m.seq LIMIT ?3"
)


def read_head(connection: apsw.Connection, ns: int) -> tuple[int, bytes]:
    row = connection.execute(_HEAD, (ns,)).fetchone()
    if row is None:
        raise NamespaceNotFoundError()
    return row  # type: ignore[no-any-return]


def read_changes(connection: apsw.Connection, ns: int, after: int, limit: int) -> list[SealedRecord]:
    return list(map(SealedRecord._make, connection.execute(_CHANGES, (ns, after, limit))))


def read_headers(connection: apsw.Connection, ns: int, after: int, limit: int) -> list[RowHeader]:
    return list(map(RowHeader._make, connection.execute(_HEADERS, (ns, after, limit))))


def read_one(connection: apsw.Connection, ns: int, memory_id: bytes, field: int) -> SealedRecord | None:
    row = connection.execute(_GET, (ns, memory_id, field)).fetchone()
    return SealedRecord._make(row) if row else None


def read_many(
    connection: apsw.Connection, ns: int, memory_ids: Sequence[bytes], field: int
) -> list[SealedRecord]:
    keys = [(ns, memory_id, field) for memory_id in memory_ids]
    return list(map(SealedRecord._make, connection.executemany(_GET, keys)))


def read_parts(
    connection: apsw.Connection, ns: int, memory_ids: Sequence[bytes], fields: Sequence[int]
) -> list[SealedRecord]:
    """The rows of one or two fields of at most ``PARTS_MAX`` memories, by one statement: in any order."""
    if not memory_ids:
        return []
    count = next(n for n in _PARTS if n >= len(memory_ids))
    more = (memory_ids[-1],) * (count - len(memory_ids))
    wanted = (ns, *memory_ids, *more, fields[0], fields[-1])
    return list(map(SealedRecord._make, connection.execute(_parts(count), wanted)))


@lru_cache(maxsize=8)
def _parts(count: int) -> str:
    ids = ", ".join("?" * count)
    return f"SELECT {_COLUMNS} FROM record WHERE ns = ? AND memory_id IN ({ids}) AND field IN (?, ?)"  # noqa: S608


def read_queue(
    connection: apsw.Connection, ns: int | None, dead: bool | None, after: int, limit: int
) -> list[QueueRow]:
    where, values = ["id > ?"], [after]
    if ns is not None:
        where.append("ns = ?")
        values.append(ns)
    if dead is not None:
        where.append("dead = 1" if dead else "dead = 0")
    sql = f"SELECT {_QUEUE_COLUMNS} FROM embedding_queue WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"  # noqa: S608
    rows = connection.execute(sql, (*values, limit))
    return [QueueRow(i, n, m, v, a, bool(d), e) for i, n, m, v, a, d, e in rows]


# The namespaces above one that have something queued, each found by one step down the index.
_QUEUED_NAMESPACES = """
WITH RECURSIVE n(ns) AS (
  SELECT min(ns) FROM embedding_queue WHERE ns > ?1
  UNION ALL SELECT (SELECT min(q.ns) FROM embedding_queue q WHERE q.ns > n.ns) FROM n WHERE n.ns IS NOT NULL
  LIMIT ?2
) SELECT ns FROM n WHERE ns IS NOT NULL
"""


def read_queue_turns(
    connection: apsw.Connection, after_ns: int, namespaces_max: int, limit: int
) -> tuple[list[QueueRow], int]:
    found = [ns for (ns,) in connection.execute(_QUEUED_NAMESPACES, (after_ns, namespaces_max))]
    each = max(1, limit // max(1, len(found)))
    sql = (
        f"SELECT {_QUEUE_COLUMNS} FROM embedding_queue INDEXED BY embedding_queue_key"  # noqa: S608
        " WHERE ns = ? AND dead = 0 LIMIT ?"
    )
    rows = [row for ns in found for row in connection.execute(sql, (ns, each))]
    reached = found[-1] if len(found) == namespaces_max else 0
    return [QueueRow(i, n, m, v, a, bool(d), e) for i, n, m, v, a, d, e in rows], reached


def read_queue_stats(connection: apsw.Connection, ns: int | None) -> QueueStats:
    scope, values = ("", ()) if ns is None else (" AND ns = ?", (ns,))
    every = " WHERE ns >= 0" if ns is None else " WHERE ns = ?"
    sql = (
        f"SELECT (SELECT count(*) FROM embedding_queue INDEXED BY embedding_queue_key{every}),"  # noqa: S608
        f" (SELECT count(*) FROM embedding_queue WHERE dead = 1{scope})"
    )
    ((total, dead),) = connection.execute(sql, values * 2)
    return QueueStats(pending=total - dead, dead=dead)


def read_counts(connection: apsw.Connection, ns: int, model: int, without: Sequence[int]) -> tuple[int, int]:
    ((memories, embedded),) = connection.execute(_COUNTS, (ns, model, json.dumps(list(without))))
    return memories, embedded


def read_unembedded(
    connection: apsw.Connection, ns: int, after: int, limit: int
) -> list[tuple[int, QueueItem]]:
    rows = connection.execute(_UNEMBEDDED, (ns, after, limit))
    return [(seq, QueueItem(*item)) for seq, *item in rows]


def read_namespaces(connection: apsw.Connection) -> list[int]:
    return [ns for (ns,) in connection.execute("SELECT ns FROM namespace ORDER BY ns")]


def read_audit(connection: apsw.Connection, after: int, limit: int) -> list[tuple[int, bytes]]:
    sql = "SELECT seq, sealed FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
    return list(connection.execute(sql, (after, limit)))


def read_audit_count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM audit").get)


def read_audit_nodes(
    connection: apsw.Connection, wanted: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    sql = "SELECT level, position, hash FROM audit_node WHERE level = ? AND position = ?"
    return {(level, position): h for level, position, h in connection.executemany(sql, wanted)}


class ReadPool:
    """Connections for reading, handed out last in first out; as many as there are readers at once."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._idle: deque[apsw.Connection] = deque()
        self._lent: set[apsw.Connection] = set()
        self._outworn: set[apsw.Connection] = set()  # lent, and not to be used again
        self._closed = False

    def take(self) -> apsw.Connection:
        """A connection, to be ended by ``give``, ``failed`` or ``end``."""
        if self._closed:
            raise ClosedError()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        self._lent.add(connection)
        return connection

    def end(self, connection: apsw.Connection) -> None:
        """Close a connection that was taken."""
        self._lent.discard(connection)
        self._outworn.discard(connection)
        connection.close(True)

    def give(self, connection: apsw.Connection) -> None:
        self._lent.discard(connection)
        if self._closed or len(self._idle) >= _IDLE_MAX or connection in self._outworn:
            self.end(connection)
        else:
            self._idle.append(connection)
            if self._closed:  # closed in between: nobody else will come for it
                self._drain()

    def failed(self, connection: apsw.Connection, error: apsw.Error) -> StorageError | ClosedError:
        """The translated error; the connection is not used again."""
        own = translate(error, connection)
        self.end(connection)
        return own

    def renew(self) -> None:
        """Use none of the present connections again; those that are lent are closed when they come back."""
        self._outworn |= set(self._lent)
        self._drain()

    def close(self) -> None:
        self._closed = True
        self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._idle.pop().close(True)
            except IndexError:
                return

    def run(self, read: Callable[..., T], *arguments: object) -> T:
        """``read(connection, *arguments)`` on a connection of the pool."""
        connection = self.take()
        try:
            result = read(connection, *arguments)
        except apsw.Error as e:
            raise self.failed(connection, e) from None
        except StrongroomError:
            self.give(connection)
            raise
        except BaseException:
            # Interrupted: a cursor that the traceback keeps alive would hold the connection at this
            # state, and whoever got it next would read the past.
            self.end(connection)
            raise
        self.give(connection)
        return result


class Snapshot:
    """Several reads of one and the same state; use in a ``with`` block, from one thread, not for long.

    While it is open the write-ahead log cannot start over.
    """

    def __init__(self, pool: ReadPool) -> None:
        self._pool = pool
        self._connection: apsw.Connection | None = None

    def __enter__(self) -> Snapshot:
        self._connection = self._pool.take()
        self._run(_begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if error is not None:  # see ReadPool.run: a cursor that is still alive outlasts a ROLLBACK
                self._pool.end(connection)
                return
            try:
                connection.execute("ROLLBACK")
            except apsw.Error as e:
                raise self._pool.failed(connection, e) from None
            self._pool.give(connection)

    def _run(self, read: Callable[..., T], *arguments: object) -> T:
        connection = self._connection
        if connection is None:
            raise ClosedError()
        try:
            return read(connection, *arguments)
        except apsw.Error as e:
            self._connection = None
            raise self._pool.failed(connection, e) from None

    def head(self, ns: int) -> tuple[int, bytes]:
        return self._run(read_head, ns)

    def changes(self, ns: int, after: int, limit: int) -> list[SealedRecord]:
        return self._run(read_changes, ns, after, limit)

    def headers(self, ns: int, after: int, limit: int) -> list[RowHeader]:
        """Rows above ``after`` in order of seq, at most ``limit``, without their contents."""
        return self._run(read_headers, ns, after, limit)

    def get(self, ns: int, memory_id: bytes, field: int = _MEMORY) -> SealedRecord | None:
        return self._run(read_one, ns, memory_id, field)

    def get_many(self, ns: int, memory_ids: Sequence[bytes], field: int = _MEMORY) -> list[SealedRecord]:
        return self._run(read_many, ns, memory_ids, field)

    def get_parts(self, ns: int, memory_ids: Sequence[bytes], fields: Sequence[int]) -> list[SealedRecord]:
        """The rows of one or two fields of each memory, in any order."""
        out: list[SealedRecord] = []
        for start in range(0, len(memory_ids), PARTS_MAX):
            out += self._run(read_parts, ns, memory_ids[start : start + PARTS_MAX], fields)
        return out

    def iter_changes(self, ns: int, after: int = 0, page: int = 2000) -> Iterator[SealedRecord]:
        while rows := self.changes(ns, after, page):
            yield from rows
            after = rows[-1].seq


def _begin(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM meta").fetchall()  # the state is fixed by the first read
