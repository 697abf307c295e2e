"""One pass over the rows of a namespace without opening them: do they match the head, and a snapshot?

Only headers are read: 62 bytes of each row take part in the head's sum. The pass is made in the
background, so it rests as long as it has worked, unless somebody waits for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import randbits
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._vault import Heads
from strongroom.ledger import RowHeader, SqliteLedger, element_of_header
from strongroom.model import Field, State

_PAGE = 250  # about a millisecond: a search that wants the interpreter waits no longer
_PRINT_BYTES = 8
_ID_BYTES = 16
_PLACES_ROWS = 1 << 18  # that are looked up in one go
_MIX = (np.uint64(randbits(64) | 1), np.uint64(randbits(64) | 1))

Rest = Callable[[float], None]  # seconds that were worked; may raise to give up


@dataclass(slots=True)
class Survey:
    """What the rows of a namespace are, by their headers alone, at one moment; 32 bytes a memory.

    ``agrees`` and ``prints_of`` take as much again for as long as they run.
    """

    seq: int
    head_sum: int
    matches: bool = False  # the rows and the head
    ids: bytearray = field(default_factory=bytearray)  # of the live memories, 16 bytes each
    seqs: array[int] = field(default_factory=lambda: array("q"))
    prints: array[int] = field(default_factory=lambda: array("Q"))
    removed: dict[bytes, int] = field(default_factory=dict)  # memory id -> seq of its tombstone
    unembedded: dict[bytes, int] = field(default_factory=dict)  # memory id -> version of its content

    def agrees(
        self,
        watermark: int,
        ids: NDArray[np.uint8],
        seqs: NDArray[np.int64],
        prints: NDArray[np.uint64] | None,
    ) -> bool:
        """Whether an index of these memories is what the rows up to ``watermark`` make.

        ``ids``: shape (n, 16); ``seqs``, ``prints``: of each of them. A memory that has changed since may
        have been anything; its change is read from the ledger again.
        """
        at = self._places(ids)
        for missing in np.flatnonzero(at < 0).tolist():
            if self.removed.get(ids[missing].tobytes(), 0) <= watermark:
                return False
        own = np.frombuffer(self.seqs, dtype=np.int64)
        known = np.flatnonzero(at >= 0)
        same = known[own[at[known]] <= watermark]
        if np.any(own[at[same]] != seqs[same]):
            return False
        if prints is not None and np.any(
            np.frombuffer(self.prints, dtype=np.uint64)[at[same]] != prints[same]
        ):
            return False
        return len(same) == int(np.count_nonzero(own <= watermark))

    def prints_of(self, watermark: int, ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """The print of each of ``ids``; 0 where it has changed since ``watermark``."""
        at = self._places(ids)
        known = np.flatnonzero(at >= 0)
        known = known[np.frombuffer(self.seqs, dtype=np.int64)[at[known]] <= watermark]
        out = np.zeros(len(ids), dtype=np.uint64)
        out[known] = np.frombuffer(self.prints, dtype=np.uint64)[at[known]]
        return out

    def _places(self, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Where each of ``ids`` (all different) stands among the live memories; -1: nowhere."""
        own = np.frombuffer(self.ids, dtype=np.uint8).reshape(-1, _ID_BYTES)
        keys = _mixed(own)
        order = np.argsort(keys)
        keys = keys[order]
        out = np.full(len(ids), -1, dtype=np.int64)
        if not len(own):
            return out
        if np.any(keys[1:] == keys[:-1]):  # two ids with one key: hardly ever
            known = {own[at].tobytes(): at for at in range(len(own))}
            return np.array([known.get(each.tobytes(), -1) for each in ids], dtype=np.int64)
        for start in range(0, len(ids), _PLACES_ROWS):
            part = ids[start : start + _PLACES_ROWS]
            at = order[np.minimum(np.searchsorted(keys, _mixed(part)), len(keys) - 1)]
            there = np.all(own[at] == part, axis=1)
            out[start : start + len(part)][there] = at[there]
        return out


def _mixed(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One number for each id, by which they are sorted; nobody outside this process can make two alike."""
    halves = np.ascontiguousarray(ids).view("<u8")
    with np.errstate(over="ignore"):
        mixed: NDArray[np.uint64] = halves[:, 0] * _MIX[0]
        mixed += halves[:, 1] * _MIX[1]
    return mixed


def take_survey(ledger: SqliteLedger, heads: Heads, entry: NamespaceEntry, rest: Rest) -> Survey:
    """Read the headers of all rows in one snapshot of the ledger.

    Raises:
        TamperedError, DecryptionError: the head is not one of this namespace. StorageError.
    """
    vectors: dict[bytes, int] = {}
    with ledger.snapshot() as reader:
        seq, head = reader.head(entry.ns)
        made = Survey(seq, heads.open_head(entry.ns, head, seq))
        summed = heads.summer(entry.ns, head)
        after = 0
        while True:
            started = perf_counter()
            rows = reader.headers(entry.ns, after, _PAGE)
            for row in rows:
                if row.field == Field.MEMORY:
                    summed.add(element_of_header(row))
                    _note_memory(made, row, vectors)
                elif row.field == Field.VECTOR:
                    _note_vector(made, row, vectors, entry.model_no)
                else:
                    summed.add(element_of_header(row))
            if len(rows) < _PAGE:
                break
            after = rows[-1].seq
            rest(perf_counter() - started)
    made.matches = summed.matches(made.head_sum)
    return made


def _note_memory(made: Survey, row: RowHeader, vectors: dict[bytes, int]) -> None:
    if row.state != State.LIVE:
        made.removed[row.memory_id] = row.seq
        return
    made.ids += row.memory_id
    made.seqs.append(row.seq)
    made.prints.append(int.from_bytes(row.prefix[-_PRINT_BYTES:], "little"))
    if vectors.pop(row.memory_id, None) != row.content_version:
        made.unembedded[row.memory_id] = row.content_version


def _note_vector(made: Survey, row: RowHeader, vectors: dict[bytes, int], model_no: int) -> None:
    if row.state != State.LIVE or row.model != model_no:
        return
    if made.unembedded.get(row.memory_id) == row.content_version:
        del made.unembedded[row.memory_id]
    else:
        vectors[row.memory_id] = row.content_version
