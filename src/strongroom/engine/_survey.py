"""One pass over the rows of a namespace without opening them: do they match the head, and a snapshot?

Only headers are read: 62 bytes of each row take part in the head's sum. The pass is made in the
background, so it rests as long as it has worked, unless somebody waits for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._vault import Heads
from strongroom.ledger import RowHeader, SqliteLedger, element_of_header
from strongroom.model import Field, State

_PAGE = 250  # about a millisecond: a search that wants the interpreter waits no longer
_PRINT_BYTES = 8

Rest = Callable[[float], None]  # seconds that were worked; may raise to give up


@dataclass(slots=True)
class Survey:
    """What the rows of a namespace are, by their headers alone, at one moment."""

    seq: int
    head_sum: int
    matches: bool = False  # the rows and the head
    live: dict[bytes, int] = field(default_factory=dict)  # memory id -> place in the arrays
    seqs: array[int] = field(default_factory=lambda: array("q"))
    prints: array[int] = field(default_factory=lambda: array("Q"))
    removed: dict[bytes, int] = field(default_factory=dict)  # memory id -> seq of its tombstone
    unembedded: dict[bytes, int] = field(default_factory=dict)  # memory id -> version of its content

    def agrees(
        self, watermark: int, ids: Sequence[bytes], seqs: NDArray[np.int64], prints: NDArray[np.uint64] | None
    ) -> bool:
        """Whether an index of these memories is what the rows up to ``watermark`` make.

        ``seqs``, ``prints``: of each of ``ids``; shape (len(ids),). A memory that has changed since may
        have been anything; its change is read from the ledger again.
        """
        same = 0
        numbers = seqs.tolist()
        marks = None if prints is None else prints.tolist()
        for i, memory_id in enumerate(ids):
            at = self.live.get(memory_id)
            if at is None:
                if self.removed.get(memory_id, 0) <= watermark:
                    return False
            elif self.seqs[at] <= watermark:
                if self.seqs[at] != numbers[i] or (marks is not None and self.prints[at] != marks[i]):
                    return False
                same += 1
        return same == sum(1 for seq in self.seqs if seq <= watermark)

    def prints_of(self, watermark: int, ids: Sequence[bytes]) -> NDArray[np.uint64]:
        """The print of each of ``ids``; 0 where it has changed since ``watermark``."""
        places = (self.live.get(memory_id) for memory_id in ids)
        found = (0 if at is None or self.seqs[at] > watermark else self.prints[at] for at in places)
        return np.fromiter(found, dtype=np.uint64, count=len(ids))


def take_survey(ledger: SqliteLedger, heads: Heads, entry: NamespaceEntry, rest: Rest) -> Survey:
    """Read the headers of all rows in one snapshot of the ledger.

    Raises:
        TamperedError, DecryptionError: the head is not one of this namespace. StorageError.
    """
    vectors: dict[bytes, int] = {}
    with ledger.snapshot() as reader:
        seq, head = reader.head(entry.ns)
        made = Survey(seq, heads.open_head(entry.ns, head, seq))
        summed = heads.summer(entry.ns)
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
    made.live[row.memory_id] = len(made.seqs)
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
