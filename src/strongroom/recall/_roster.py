"""Which row stands for which memory, and what waits to be put into the lanes.

Every version of a memory gets a row id (rid) of its own: dense, only ever growing. Changes may come
twice, and the feed orders rows by their *last* change: the vector of a memory can come before the
memory, because the memory was touched again afterwards. Such early vectors wait for their memory.

Not thread-safe: the index holds its mutex around every call.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError
from strongroom.model import Memory
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._ids import ID_BYTES, IdTable
from strongroom.recall.changes import AccessPut, Change, Remove, Upsert, VectorDrop, VectorPut

MEMORY_BYTES = 1_500  # of a memory that waits, beside its content
REMOVED_MAX = 200_000  # removals that are remembered, so that an older change does not undo them


@dataclass(slots=True)
class Pending:
    """Work for the lanes, to be done in the order: rows, moves, removed, voided, vectors, access."""

    rows: dict[int, tuple[Memory, int]] = field(default_factory=dict)  # rid -> memory, seq
    terms: dict[int, Sequence[int]] = field(default_factory=dict)  # of rows whose content is not there
    moves: dict[int, int] = field(default_factory=dict)  # new rid -> old rid whose vector it takes over
    removed: list[int] = field(default_factory=list)
    voided: set[int] = field(default_factory=set)  # rids that lose their vector
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    access: dict[int, tuple[int, int | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return (
            len(self.rows)
            + len(self.removed)
            + len(self.vectors)
            + len(self.moves)
            + len(self.voided)
            + len(self.access)
        )

    def memory_bytes(self) -> int:
        """About what the memories and vectors take that wait here."""
        texts = sum(len(memory.content) for memory, _ in self.rows.values())
        vectors = sum(vector.nbytes for vector in self.vectors.values())
        return texts + MEMORY_BYTES * len(self.rows) + vectors + 200 * len(self)


_NEVER = np.iinfo(np.int64).min  # a memory that was never read
_NONE = -1  # seq of the counters of a memory that has none


@dataclass(frozen=True, slots=True, eq=False)
class FrozenRoster:
    """A copy of a roster at one moment, still by the rids of that moment."""

    ids: NDArray[np.uint8]
    seqs: NDArray[np.int64]
    content_versions: NDArray[np.int64]
    vector_seqs: NDArray[np.int64]
    has_vector: NDArray[np.uint8]
    access: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # count, last, seq
    early: list[VectorPut]
    early_access: list[AccessPut]

    def dump(self, out: BlockWriter, rids: NDArray[np.int64], dimensions: int) -> None:
        """Write the rows ``rids`` (ascending) as the rows 0, 1, 2 ..."""
        out.array("IDS ", self.ids[rids], "<u1")
        out.array("SEQ ", self.seqs[rids], "<i8")
        out.array("CVER", self.content_versions[rids], "<i8")
        out.array("VSEQ", self.vector_seqs[rids], "<i8")
        out.array("HASV", self.has_vector[rids], "<u1")
        early = self.early
        out.array("EIDS", _id_array(b"".join(e.memory_id for e in early)), "<u1")
        out.array("ECVE", _numbers([e.content_version for e in early]), "<i8")
        out.array("ESEQ", _numbers([e.seq for e in early]), "<i8")
        vectors = (
            np.stack([e.vector for e in early]) if early else np.empty((0, max(dimensions, 1)), np.float32)
        )
        out.array("EVEC", vectors, "<f4")
        count, last, seq = (values[rids] for values in self.access)
        read = np.flatnonzero(seq != _NONE)
        out.array("AROW", read, "<u4")
        for tag, values in (("ACNT", count), ("ALST", last), ("ASEQ", seq)):
            out.array(tag, values[read], "<i8")
        access = self.early_access
        out.array("BIDS", _id_array(b"".join(a.memory_id for a in access)), "<u1")
        out.array("BCNT", _numbers([a.count for a in access]), "<i8")
        out.array("BLST", _numbers([_NEVER if a.last_us is None else a.last_us for a in access]), "<i8")
        out.array("BSEQ", _numbers([a.seq for a in access]), "<i8")


def _id_array(joined: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, ID_BYTES)


def _numbers(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def rids_of(rids: Collection[int]) -> NDArray[np.int64]:
    """Row ids as an array, in their order."""
    return np.fromiter(rids, dtype=np.int64, count=len(rids))


def _array(source: BlockReader, tag: str, rows: int) -> array[int]:
    values = array("q", (0,)) * source.head(tag, "<i8", rows=rows)
    source.fill(memoryview(values).cast("B"))
    return values


def _cut_ids(values: NDArray[np.uint8]) -> list[bytes]:
    raw = values.tobytes()
    return [raw[at : at + ID_BYTES] for at in range(0, len(raw), ID_BYTES)]


class Roster:
    """The memories of one namespace by id, with the newest sequence number of each part.

    About 90 bytes a memory, and as much for each row that an update has left behind.
    """

    def __init__(self) -> None:
        self.table = IdTable()
        self.seqs = array("q")  # by rid
        self._content_versions = array("q")
        self._vector_seqs = array("q")  # of the last change of the vector; older ones are ignored
        self._has_vector = bytearray()
        self._access = (array("q"), array("q"), array("q"))  # count, last read, seq; by rid
        self._removed: dict[bytes, int] = {}  # memory id -> seq of its removal
        self.damaged: set[bytes] = set()  # ids of memories that do not open; they are not in the table
        self._early: dict[bytes, VectorPut] = {}
        self._early_before: set[bytes] = set()
        self._early_access: dict[bytes, AccessPut] = {}
        self.embedded = 0
        self.pending = Pending()

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, memory_id: bytes) -> bool:
        return self.table.get(memory_id) is not None

    def rid_of(self, memory_id: bytes) -> int | None:
        return self.table.get(memory_id)

    def seq_of(self, memory_id: bytes) -> int | None:
        rid = self.table.get(memory_id)
        return None if rid is None else self.seqs[rid]

    def has_vector(self, memory_id: bytes) -> bool:
        rid = self.table.get(memory_id)
        return rid is not None and bool(self._has_vector[rid])

    def unembedded(self) -> dict[bytes, int]:
        rids = self.table.live()
        missing = rids[np.array(self._has_vector, dtype=np.uint8)[rids] == 0]
        return {self.table.id_at(rid): self._content_versions[rid] for rid in missing.tolist()}

    def access_at(self, rid: int) -> tuple[int, int | None] | None:
        """How often the memory in a row was read, and when last (microseconds); None: never."""
        count, last, seq = self._access
        if seq[rid] == _NONE:
            return None
        return count[rid], None if last[rid] == _NEVER else last[rid]

    def take_pending(self) -> Pending:
        taken, self.pending = self.pending, Pending()
        return taken

    def known(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The ids of all memories, shape (memories, 16), and the seq of each."""
        rids = self.table.live()
        return self.table.ids[rids], np.array(self.seqs, dtype=np.int64)[rids]

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenRoster:
        """A copy; nothing may be pending. Removals are left out: all that comes later is newer."""
        count, last, seq = (np.array(values, dtype=np.int64) for values in self._access)
        return FrozenRoster(
            self.table.ids[: self.table.rows].copy(),
            np.array(self.seqs, dtype=np.int64),
            np.array(self._content_versions, dtype=np.int64),
            np.array(self._vector_seqs, dtype=np.int64),
            np.array(self._has_vector, dtype=np.uint8),
            (count, last, seq),
            list(self._early.values()),
            list(self._early_access.values()),
        )

    def restore(self, source: BlockReader, rows: int, dimensions: int) -> None:
        """Fill an empty roster with what ``FrozenRoster.dump`` wrote; ``check_restored`` has to follow.

        Raises:
            IntegrityError: it is of another form.
        """
        self.table.fill(source.array("IDS ", "<u1", rows=rows, columns=ID_BYTES))
        self.seqs = _array(source, "SEQ ", rows)
        self._content_versions = _array(source, "CVER", rows)
        self._vector_seqs = _array(source, "VSEQ", rows)
        has_vector = source.array("HASV", "<u1", rows=rows)
        self._has_vector = bytearray(has_vector)
        self.embedded = int(np.count_nonzero(has_vector))
        early = _cut_ids(source.array("EIDS", "<u1", columns=ID_BYTES))
        n = len(early)
        versions = source.array("ECVE", "<i8", rows=n).tolist()
        seqs = source.array("ESEQ", "<i8", rows=n).tolist()
        vectors = source.array("EVEC", "<f4", rows=n, columns=max(dimensions, 1))
        for memory_id, version, seq, vector in zip(early, versions, seqs, vectors, strict=True):
            self._early[memory_id] = VectorPut(memory_id, version, vector, seq)
        read = source.array("AROW", "<u4")
        if len(read) and int(read.max()) >= rows:
            raise IntegrityError("a snapshot counts reads of a memory that is not there")
        made = []
        for tag, nothing in (("ACNT", 0), ("ALST", _NEVER), ("ASEQ", _NONE)):
            values, known = array("q", (nothing,)) * rows, source.array(tag, "<i8", rows=len(read))
            if len(read):
                np.frombuffer(values, dtype=np.int64)[read] = known
            made.append(values)
        self._access = (made[0], made[1], made[2])
        waiting = _cut_ids(source.array("BIDS", "<u1", columns=ID_BYTES))
        n = len(waiting)
        counts = source.array("BCNT", "<i8", rows=n).tolist()
        lasts = source.array("BLST", "<i8", rows=n).tolist()
        seqs = source.array("BSEQ", "<i8", rows=n).tolist()
        for memory_id, count, last, seq in zip(waiting, counts, lasts, seqs, strict=True):
            self._early_access[memory_id] = AccessPut(memory_id, count, None if last == _NEVER else last, seq)

    def check_restored(self) -> None:
        """Raises: IntegrityError: what was restored names a memory twice. MemoryError."""
        if not self.table.is_distinct():
            raise IntegrityError("a snapshot names a memory twice")

    # -- changes ----------------------------------------------------------------------------------
    def note(self, change: Change) -> None:
        """Take over one change, unless something newer is known."""
        match change:
            case Upsert():
                self.upsert(change)
            case VectorPut():
                self.vector(change)
            case Remove():
                self.remove(change)
            case AccessPut():
                self.access(change)
            case VectorDrop():
                self.vector_drop(change)

    def upsert(self, change: Upsert) -> None:
        memory_id = change.memory.memory_id.bytes
        old = self.table.get(memory_id)
        newest = self._removed.get(memory_id, _NONE) if old is None else self.seqs[old]
        if change.seq <= newest:
            return
        self.damaged.discard(memory_id)
        floor = self._removed.pop(memory_id, 0) if old is None else self._vector_seqs[old]
        rid = self.table.add(memory_id)
        self.seqs.append(change.seq)
        self._content_versions.append(change.content_version)
        self._vector_seqs.append(floor)
        self._has_vector.append(0)
        for values, nothing in zip(self._access, (0, _NEVER, _NONE), strict=True):
            values.append(nothing if old is None else values[old])
        self.pending.rows[rid] = (change.memory, change.seq)
        if change.terms is not None:
            self.pending.terms[rid] = change.terms
        if old is not None:
            same_content = self._content_versions[old] == change.content_version
            self._retire(old, heir=rid if same_content else None)
        early = self._early.get(memory_id)
        if early is not None and early.content_version <= change.content_version:
            del self._early[memory_id]
            if early.content_version == change.content_version:
                self.vector(early)
        access = self._early_access.pop(memory_id, None)
        if access is not None:
            self.access(access)
        elif self._access[2][rid] != _NONE:
            self._show_access(rid)

    def _show_access(self, rid: int) -> None:
        count, last, _ = (values[rid] for values in self._access)
        self.pending.access[rid] = (count, None if last == _NEVER else last)

    def _retire(self, rid: int, heir: int | None) -> None:
        """Take ``rid`` out; its vector goes to ``heir``."""
        pending = self.pending
        if self._has_vector[rid]:
            self._has_vector[rid] = 0
            self.embedded -= 1
            vector = pending.vectors.pop(rid, None)
            source = pending.moves.pop(rid, rid)
            if heir is not None:
                self._has_vector[heir] = 1
                self.embedded += 1
                if vector is not None:
                    pending.vectors[heir] = vector
                else:
                    pending.moves[heir] = source
        pending.voided.discard(rid)
        pending.access.pop(rid, None)
        pending.terms.pop(rid, None)
        if pending.rows.pop(rid, None) is None:
            pending.removed.append(rid)
        self.table.retire(rid)

    def vector(self, change: VectorPut) -> None:
        memory_id = change.memory_id
        rid = self.table.get(memory_id)
        if rid is None and change.seq <= self._removed.get(memory_id, -1):
            return
        if rid is None or change.content_version > self._content_versions[rid]:
            early = self._early.get(memory_id)
            if early is None or early.seq < change.seq:
                self._early[memory_id] = change
            return
        if change.content_version < self._content_versions[rid] or change.seq <= self._vector_seqs[rid]:
            return
        self._vector_seqs[rid] = change.seq
        if not self._has_vector[rid]:
            self._has_vector[rid] = 1
            self.embedded += 1
        self.pending.moves.pop(rid, None)
        self.pending.voided.discard(rid)
        self.pending.vectors[rid] = change.vector

    def vector_drop(self, change: VectorDrop) -> None:
        early = self._early.get(change.memory_id)
        if early is not None and early.seq < change.seq:
            del self._early[change.memory_id]
        rid = self.table.get(change.memory_id)
        if rid is None or change.seq <= self._vector_seqs[rid]:
            return
        self._vector_seqs[rid] = change.seq
        if not self._has_vector[rid]:
            return
        self._has_vector[rid] = 0
        self.embedded -= 1
        self.pending.vectors.pop(rid, None)
        self.pending.moves.pop(rid, None)
        self.pending.voided.add(rid)

    def access(self, change: AccessPut) -> None:
        rid = self.table.get(change.memory_id)
        if rid is None:
            known = self._early_access.get(change.memory_id)
            before = self._removed.get(change.memory_id, _NONE) if known is None else known.seq
            if change.seq > before:
                self._early_access[change.memory_id] = change
        elif change.seq > self._access[2][rid]:
            last = _NEVER if change.last_us is None else change.last_us
            for values, value in zip(self._access, (change.count, last, change.seq), strict=True):
                values[rid] = value
            self._show_access(rid)

    def remove(self, change: Remove) -> None:
        memory_id = change.memory_id
        early = self._early.get(memory_id)
        if early is not None and early.seq < change.seq:
            del self._early[memory_id]
        access = self._early_access.get(memory_id)
        if access is not None and access.seq < change.seq:
            del self._early_access[memory_id]
        rid = self.table.get(memory_id)
        if change.seq > (self._removed.get(memory_id, _NONE) if rid is None else self.seqs[rid]):
            (self.damaged.add if change.damaged else self.damaged.discard)(memory_id)
        if rid is None:
            self._removed[memory_id] = max(change.seq, self._removed.get(memory_id, _NONE))
        elif change.seq > self.seqs[rid]:
            self._removed[memory_id] = change.seq
            counted = self._access[2][rid]
            if counted > change.seq:  # of a memory that comes again
                count, last = self._access[0][rid], self._access[1][rid]
                again = AccessPut(memory_id, count, None if last == _NEVER else last, counted)
                self._early_access[memory_id] = again
            self._retire(rid, heir=None)
        if len(self._removed) > REMOVED_MAX:
            self._forget_removed()

    def _forget_removed(self) -> None:
        """Keep the newest half: changes come in order, older ones than those do not come again."""
        middle = sorted(self._removed.values())[len(self._removed) // 2]
        self._removed = {m: seq for m, seq in self._removed.items() if seq >= middle}

    def settle(self) -> int:
        """Forget the early vectors that were already waiting at the call before; how many remain."""
        for memory_id in self._early_before & self._early.keys():
            del self._early[memory_id]
        self._early_before = set(self._early)
        return len(self._early)

    def memory_bytes(self) -> int:
        """Bytes of the arrays, and a close estimate of the entries that wait."""
        early = sum(change.vector.nbytes for change in self._early.values())
        waiting = (len(self._removed) + len(self._early_access)) * 150 + early
        tables = self.table.memory_bytes() + len(self.seqs) * (6 * 8 + 1)
        return tables + waiting + self.pending.memory_bytes()
