"""One batch of a write transaction: everything is read and checked, and a list of statements is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from strongroom.errors import (
    ConflictError,
    DuplicateMemoryError,
    InvalidInputError,
    KeyMovedError,
    NamespaceNotFoundError,
    VersionConflictError,
)
from strongroom.ledger._types import (
    ELEMENT_PREFIX_BYTES,
    EXPECT_ABSENT,
    EXPECT_ANY,
    SKIPPED,
    Put,
    QueueItem,
    element,
)
from strongroom.ledger._waves import is_closed
from strongroom.model import Field, State

if TYPE_CHECKING:
    from strongroom.ledger._apply import Transaction

_MEMORY, _VECTOR, _ACCESS = int(Field.MEMORY), int(Field.VECTOR), int(Field.ACCESS)
_OF_MEMORY = frozenset((_MEMORY, _VECTOR, _ACCESS))
_LIVE, _TOMBSTONE = int(State.LIVE), int(State.TOMBSTONE)

Values = tuple[int | bytes, ...]
Added = tuple[int, bytes, int, int, int, int, int, int, int, bytes]  # the values of a row of ``record``

_ROW = (
    f"SELECT seq, version, content_version, state, substr(sealed, 1, {ELEMENT_PREFIX_BYTES})"  # noqa: S608
    " FROM record WHERE ns = ? AND memory_id = ? AND field = ?"
)
_PUT = (
    "INSERT INTO record (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ns, memory_id, field) DO UPDATE SET"
    " seq = excluded.seq, version = excluded.version, content_version = excluded.content_version,"
    " key_id = excluded.key_id, state = excluded.state, model = excluded.model, sealed = excluded.sealed"
)
ADD = (
    "INSERT INTO record (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP = "DELETE FROM record WHERE ns = ? AND memory_id = ? AND field = ?"
_QUEUED = "SELECT content_version FROM embedding_queue WHERE ns = ? AND memory_id = ?"
_UNQUEUE_ALL = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ?"
_UNQUEUE_OTHERS = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ? AND content_version <> ?"
DEQUEUE = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ? AND content_version = ?"
ENQUEUE = (
    "INSERT INTO embedding_queue (ns, memory_id, content_version, attempts, dead, error_code)"
    " VALUES (?, ?, ?, 0, 0, NULL) ON CONFLICT (ns, memory_id) DO UPDATE SET"
    " content_version = excluded.content_version, attempts = 0, dead = 0, error_code = NULL"
)
AUDIT = "INSERT INTO audit (seq, sealed) VALUES (?, ?)"
AUDIT_NODE = "INSERT OR REPLACE INTO audit_node (level, position, hash) VALUES (?, ?, ?)"


class Row(NamedTuple):
    """What has to be known of the row that stands at a key."""

    seq: int
    version: int
    content_version: int
    state: int
    prefix: bytes


class Space:
    """A namespace during the transaction: the state it had, and what happened since."""

    __slots__ = ("added", "head", "is_changed", "is_new", "ns", "removed", "seq", "seq_before")

    def __init__(self, ns: int, seq: int, head: bytes | None) -> None:
        self.ns = ns
        self.seq_before = self.seq = seq
        self.head = head
        self.is_new = self.is_changed = head is None
        self.removed: list[bytes] = []
        self.added: list[bytes] = []

    def start_anew(self, seq: int, elements: list[bytes]) -> None:
        """As if all rows had been written in this transaction, into an empty namespace."""
        self.seq_before, self.seq, self.head = 0, seq, None
        self.removed, self.added = [], elements
        self.is_changed = True


_Key = tuple[int, bytes, int]


class Plan:
    """One batch: reads and checks everything, writes nothing, and leaves a list of statements."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._is_trusting = transaction.is_trusting
        self._execute = transaction.connection.execute
        self._known: dict[_Key, Row | None] = {}
        self._fresh: dict[tuple[int, bytes], list[Added]] = {}  # memories that were not looked up, their rows
        self._closed: dict[tuple[int, int], bool] = {}
        self.spaces: dict[int, Space] = {}
        self.operations: list[tuple[str, list[Values]]] = []

    def emit(self, sql: str, values: Values) -> None:
        operations = self.operations
        if operations and operations[-1][0] is sql:
            operations[-1][1].append(values)
        else:
            operations.append((sql, [values]))

    def new_namespace(self, ns: int) -> None:
        if self._transaction.space(ns) is not None or ns in self.spaces:
            raise ConflictError("a namespace with that number exists already")
        self.spaces[ns] = Space(ns, 0, None)

    def space(self, ns: int) -> Space:
        """A scratch copy; the transaction takes it over only when the whole batch passes."""
        space = self.spaces.get(ns)
        if space is None:
            base = self._transaction.space(ns)
            if base is None:
                raise NamespaceNotFoundError()
            space = self.spaces[ns] = Space(ns, base.seq, base.head)
        return space

    def row(self, ns: int, memory_id: bytes, field: int) -> Row | None:
        key = (ns, memory_id, field)
        try:
            return self._known[key]
        except KeyError:
            pass
        fresh = self._fresh.get((ns, memory_id))
        if fresh is not None and field in _OF_MEMORY:
            row = self._known[key] = _row_among(fresh, field)
            return row
        self._transaction.catch_up()
        found: tuple[int, int, int, int, bytes] | None = self._execute(_ROW, key).fetchone()
        row = self._known[key] = Row(*found) if found else None
        return row

    def put_all(self, puts: Sequence[Put]) -> list[int]:
        """``put`` for each, in their order; their seqs.

        Most of a load are memories that must not be there yet, each with its vector behind it. There is
        nothing to look up for those, and what is known of them afterwards are the rows themselves.
        """
        seqs: list[int] = []
        spaces, known, fresh, trusting = self.spaces, self._known, self._fresh, self._is_trusting
        own: list[Added] = []  # the rows of the memory that came last, as long as its vector may follow
        adds: list[Values] | None = None
        for put in puts:
            ns, memory_id, field, version, content_version, key_id, state, model, sealed, expect, queued = put
            space = spaces.get(ns)
            is_plain = False
            if space is None or state != _LIVE or queued or len(memory_id) != 16:
                pass
            elif field == _MEMORY:
                is_plain = (
                    trusting
                    and expect == EXPECT_ABSENT
                    and (ns, memory_id) not in fresh
                    and (ns, memory_id, field) not in known
                )
            elif field == _VECTOR and own and expect <= EXPECT_ABSENT:
                is_plain = own[0][:2] == (ns, memory_id) and own[0][5] == content_version
            if space is None or not is_plain or self._transaction.may_be_closed(ns):
                seqs.append(self.put(put))
                own, adds = [], None
                continue
            seq = space.seq = space.seq + 1
            row = (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed)
            if field == _MEMORY:
                own = fresh[ns, memory_id] = [row]
            else:
                own.append(row)
                own = []
            if adds is None:
                self.emit(ADD, row)
                adds = self.operations[-1][1]
            else:
                adds.append(row)
            space.added.append(element(field, memory_id, seq, version, state, sealed))
            seqs.append(seq)
        return seqs

    def put(self, put: Put) -> int:
        """Check one put and note what it does; its seq, or 0 when it is left out."""
        ns, memory_id, field, version, content_version, key_id, state, model, sealed, expect, queued = put
        if len(memory_id) != 16:
            raise InvalidInputError("a memory id has 16 bytes")
        space = self.spaces.get(ns) or self.space(ns)
        if state == _LIVE and self._is_closed(ns, key_id):
            raise KeyMovedError()
        if field in (_VECTOR, _ACCESS) and not self._fits_memory(put):
            return SKIPPED
        if queued and not self._is_queued(put):
            return SKIPPED
        known = self._known
        if (
            expect == EXPECT_ABSENT
            and field == _MEMORY
            and self._is_trusting
            and (ns, memory_id, field) not in known
            and (ns, memory_id) not in self._fresh
        ):
            old = None  # no look: the index refuses a second one
        else:
            old = self.row(ns, memory_id, field)
        if expect != EXPECT_ANY:
            if expect == EXPECT_ABSENT:
                if old is not None:
                    raise DuplicateMemoryError()
            elif old is None or old.version != expect:
                raise VersionConflictError()
        space.seq += 1
        seq = space.seq
        if old is not None:
            self._replace(space, put, old)
        elif field == _MEMORY:
            known[ns, memory_id, _VECTOR] = known[ns, memory_id, _ACCESS] = None
        sql = ADD if old is None else _PUT
        self.emit(sql, (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed))
        space.added.append(element(field, memory_id, seq, version, state, sealed))
        known[ns, memory_id, field] = Row(seq, version, content_version, state, sealed[:ELEMENT_PREFIX_BYTES])
        return seq

    def _is_closed(self, ns: int, key_id: int) -> bool:
        if not self._transaction.may_be_closed(ns):
            return False
        closed = self._closed.get((ns, key_id))
        if closed is None:
            closed = self._closed[ns, key_id] = is_closed(self._transaction.connection, ns, key_id)
        return closed

    def _fits_memory(self, put: Put) -> bool:
        """Whether a vector or counter still belongs to a live memory, a vector to its very content."""
        memory = self.row(put.ns, put.memory_id, _MEMORY)
        if memory is None or memory.state != _LIVE:
            return False
        return put.field != _VECTOR or memory.content_version == put.content_version

    def _is_queued(self, put: Put) -> bool:
        self._transaction.catch_up()
        found = self._execute(_QUEUED, (put.ns, put.memory_id)).fetchone()
        return found is not None and found[0] == put.content_version

    def _replace(self, space: Space, put: Put, old: Row) -> None:
        """The old row leaves the head; a deleted memory takes its other rows and queue item along."""
        ns, memory_id = put.ns, put.memory_id
        space.removed.append(element(put.field, memory_id, old.seq, old.version, old.state, old.prefix))
        if put.field != _MEMORY:
            return
        if put.version <= old.version:
            raise VersionConflictError()
        if put.state == _TOMBSTONE:
            for field in (_VECTOR, _ACCESS):
                row = self.row(ns, memory_id, field)
                if row is not None:
                    space.removed.append(
                        element(field, memory_id, row.seq, row.version, row.state, row.prefix)
                    )
                    self.emit(_DROP, (ns, memory_id, field))
                    self._known[ns, memory_id, field] = None
            self.emit(_UNQUEUE_ALL, (ns, memory_id))
        elif old.content_version != put.content_version:
            self.emit(_UNQUEUE_OTHERS, (ns, memory_id, put.content_version))

    def enqueue(self, item: QueueItem) -> None:
        self.space(item.ns)
        memory = self.row(item.ns, item.memory_id, _MEMORY)
        if memory and memory.state == _LIVE and memory.content_version == item.content_version:
            self.emit(ENQUEUE, item)


def _row_among(rows: list[Added], field: int) -> Row | None:
    """What has to be known of the row of a field, among those that are to be added for one memory."""
    for _, _, found, seq, version, content_version, _, state, _, sealed in rows:
        if found == field:
            return Row(seq, version, content_version, state, sealed[:ELEMENT_PREFIX_BYTES])
    return None
