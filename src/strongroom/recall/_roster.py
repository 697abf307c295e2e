"""Which row stands for which memory, and what waits to be put into the lanes.

Every version of a memory gets a row id (rid) of its own: dense, only ever growing. Changes may come
twice, and the feed orders rows by their *last* change: the vector of a memory can come before the
memory, because the memory was touched again afterwards. Such early vectors wait for their memory.

Not thread-safe: the index holds its mutex around every call.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError
from strongroom.model import Memory
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall.changes import AccessPut, Remove, Upsert, VectorDrop, VectorPut


@dataclass(slots=True)
class Pending:
    """Work for the lanes, to be done in the order: rows, moves, removed, voided, vectors, access."""

    rows: dict[int, tuple[Memory, int]] = field(default_factory=dict)  # rid -> memory, seq
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


ID_BYTES = 16
_NEVER = np.iinfo(np.int64).min  # a memory that was never read


@dataclass(frozen=True, slots=True, eq=False)
class FrozenRoster:
    """A copy of a roster at one moment, still by the rids of that moment."""

    ids: list[bytes | None]
    seqs: NDArray[np.int64]
    content_versions: NDArray[np.int64]
    vector_seqs: NDArray[np.int64]
    has_vector: NDArray[np.uint8]
    early: list[VectorPut]
    access: list[AccessPut]

    def ids_of(self, rids: NDArray[np.int64]) -> bytes:
        """The ids of live rows one after the other, 16 bytes each."""
        return b"".join(self.ids[rid] or bytes(ID_BYTES) for rid in rids.tolist())

    def dump(self, out: BlockWriter, rids: NDArray[np.int64], dimensions: int) -> None:
        """Write the rows ``rids`` (ascending) as the rows 0, 1, 2 ..."""
        out.array("IDS ", _id_array(self.ids_of(rids)), "<u1")
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
        access = self.access
        out.array("AIDS", _id_array(b"".join(a.memory_id for a in access)), "<u1")
        out.array("ACNT", _numbers([a.count for a in access]), "<i8")
        out.array("ALST", _numbers([_NEVER if a.last_us is None else a.last_us for a in access]), "<i8")
        out.array("ASEQ", _numbers([a.seq for a in access]), "<i8")


def _id_array(joined: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, ID_BYTES)


def _numbers(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _cut_ids(values: NDArray[np.uint8]) -> list[bytes]:
    raw = values.tobytes()
    return [raw[at : at + ID_BYTES] for at in range(0, len(raw), ID_BYTES)]


class Roster:
    """The memories of one namespace by id, with the newest sequence number of each part."""

    def __init__(self) -> None:
        self._rid_of: dict[bytes, int] = {}
        self.ids: list[bytes | None] = []  # by rid; None: a row that no search can meet any more
        self.seqs = array("q")  # by rid
        self._content_versions = array("q")
        self._vector_seqs = array("q")  # of the last change of the vector; older ones are ignored
        self._has_vector = bytearray()
        self._removed: dict[bytes, int] = {}  # memory id -> seq of its removal
        self._early: dict[bytes, VectorPut] = {}
        self._early_before: set[bytes] = set()
        self._access: dict[bytes, AccessPut] = {}
        self.embedded = 0
        self.pending = Pending()

    def __len__(self) -> int:
        return len(self._rid_of)

    def __contains__(self, memory_id: bytes) -> bool:
        return memory_id in self._rid_of

    def rid_of(self, memory_id: bytes) -> int | None:
        return self._rid_of.get(memory_id)

    def seq_of(self, memory_id: bytes) -> int | None:
        rid = self._rid_of.get(memory_id)
        return None if rid is None else self.seqs[rid]

    def has_vector(self, memory_id: bytes) -> bool:
        rid = self._rid_of.get(memory_id)
        return rid is not None and bool(self._has_vector[rid])

    def take_pending(self) -> Pending:
        taken, self.pending = self.pending, Pending()
        return taken

    def known(self) -> tuple[list[bytes], NDArray[np.int64]]:
        """The ids of all memories and the rid of each."""
        rids = np.fromiter(self._rid_of.values(), dtype=np.int64, count=len(self._rid_of))
        return list(self._rid_of), rids

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenRoster:
        """A copy; nothing may be pending. Removals are left out: all that comes later is newer."""
        return FrozenRoster(
            list(self.ids),
            np.array(self.seqs, dtype=np.int64),
            np.array(self._content_versions, dtype=np.int64),
            np.array(self._vector_seqs, dtype=np.int64),
            np.array(self._has_vector, dtype=np.uint8),
            list(self._early.values()),
            list(self._access.values()),
        )

    def restore(self, source: BlockReader, rows: int, dimensions: int) -> None:
        """Fill an empty roster with what ``FrozenRoster.dump`` wrote.

        Raises:
            IntegrityError: it is of another form.
        """
        ids = _cut_ids(source.array("IDS ", "<u1", rows=rows, columns=ID_BYTES))
        self._rid_of = dict(zip(ids, range(rows), strict=True))
        if len(self._rid_of) != rows:
            raise IntegrityError("a snapshot names a memory twice")
        self.ids = [*ids]
        self.seqs = array("q", source.array("SEQ ", "<i8", rows=rows).tobytes())
        self._content_versions = array("q", source.array("CVER", "<i8", rows=rows).tobytes())
        self._vector_seqs = array("q", source.array("VSEQ", "<i8", rows=rows).tobytes())
        self._has_vector = bytearray(source.array("HASV", "<u1", rows=rows).tobytes())
        self.embedded = sum(self._has_vector)
        early = _cut_ids(source.array("EIDS", "<u1", columns=ID_BYTES))
        n = len(early)
        versions = source.array("ECVE", "<i8", rows=n).tolist()
        seqs = source.array("ESEQ", "<i8", rows=n).tolist()
        vectors = source.array("EVEC", "<f4", rows=n, columns=max(dimensions, 1))
        for memory_id, version, seq, vector in zip(early, versions, seqs, vectors, strict=True):
            self._early[memory_id] = VectorPut(memory_id, version, vector, seq)
        read = _cut_ids(source.array("AIDS", "<u1", columns=ID_BYTES))
        n = len(read)
        counts = source.array("ACNT", "<i8", rows=n).tolist()
        lasts = source.array("ALST", "<i8", rows=n).tolist()
        seqs = source.array("ASEQ", "<i8", rows=n).tolist()
        for memory_id, count, last, seq in zip(read, counts, lasts, seqs, strict=True):
            self._access[memory_id] = AccessPut(memory_id, count, None if last == _NEVER else last, seq)

    # -- changes ----------------------------------------------------------------------------------
    def upsert(self, change: Upsert) -> None:
        memory_id = change.memory.memory_id.bytes
        old = self._rid_of.get(memory_id)
        newest = self._removed.get(memory_id, -1) if old is None else self.seqs[old]
        if change.seq <= newest:
            return
        floor = self._removed.pop(memory_id, 0) if old is None else self._vector_seqs[old]
        rid = len(self.ids)
        self.ids.append(memory_id)
        self.seqs.append(change.seq)
        self._content_versions.append(change.content_version)
        self._vector_seqs.append(floor)
        self._has_vector.append(0)
        self._rid_of[memory_id] = rid
        self.pending.rows[rid] = (change.memory, change.seq)
        if old is not None:
            same_content = self._content_versions[old] == change.content_version
            self._retire(old, heir=rid if same_content else None)
        early = self._early.get(memory_id)
        if early is not None and early.content_version <= change.content_version:
            del self._early[memory_id]
            if early.content_version == change.content_version:
                self.vector(early)
        access = self._access.get(memory_id)
        if access is not None:
            self.pending.access[rid] = (access.count, access.last_us)

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
        if pending.rows.pop(rid, None) is None:
            pending.removed.append(rid)
        else:
            self.ids[rid] = None  # no lane has seen it

    def vector(self, change: VectorPut) -> None:
        memory_id = change.memory_id
        rid = self._rid_of.get(memory_id)
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
        rid = self._rid_of.get(change.memory_id)
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
        known = self._access.get(change.memory_id)
        if known is not None and change.seq <= known.seq:
            return
        if change.memory_id not in self._rid_of and change.seq <= self._removed.get(change.memory_id, -1):
            return
        self._access[change.memory_id] = change
        rid = self._rid_of.get(change.memory_id)
        if rid is not None:
            self.pending.access[rid] = (change.count, change.last_us)

    def remove(self, change: Remove) -> None:
        memory_id = change.memory_id
        early = self._early.get(memory_id)
        if early is not None and early.seq < change.seq:
            del self._early[memory_id]
        access = self._access.get(memory_id)
        if access is not None and access.seq < change.seq:
            del self._access[memory_id]
        rid = self._rid_of.get(memory_id)
        if rid is None:
            self._removed[memory_id] = max(change.seq, self._removed.get(memory_id, -1))
        elif change.seq > self.seqs[rid]:
            del self._rid_of[memory_id]
            self._removed[memory_id] = change.seq
            self._retire(rid, heir=None)

    def settle(self) -> int:
        """Forget the early vectors that were already waiting at the call before; how many remain."""
        for memory_id in self._early_before & self._early.keys():
            del self._early[memory_id]
        self._early_before = set(self._early)
        return len(self._early)

    def memory_bytes(self) -> int:
        """A close estimate: dictionary entries and ids, and four numbers per row."""
        early = sum(change.vector.nbytes for change in self._early.values())
        return len(self._rid_of) * 150 + len(self._removed) * 150 + len(self.ids) * 33 + early
