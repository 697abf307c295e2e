"""One namespace's index at one moment, to be written out while the index goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._blocks import BlockWriter, ByteSink
from strongroom.recall._roster import FrozenRoster
from strongroom.recall._vector_dump import FrozenVectors
from strongroom.recall.keywords import FrozenKeywords

LAYOUT_VERSION: Final = 3


class ColumnsToDump(Protocol):
    """The columns of one namespace at one moment."""

    def dump(self, out: BlockWriter, rids: NDArray[np.int64]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class FrozenIndex:
    """A ``NamespaceIndex`` at one moment. Close it soon: a transaction of the columns hangs on it.

    ``watermark``: everything up to this ``seq`` is inside, and nothing later. ``rids``: the live rows,
    ascending; the i-th of them is written as row i.
    """

    watermark: int
    dimensions: int | None
    rids: NDArray[np.int64]
    created_us: NDArray[np.int64]  # by rid
    expires_us: NDArray[np.int64]  # by rid
    roster: FrozenRoster
    keywords: FrozenKeywords
    vectors: FrozenVectors | None
    columns: ColumnsToDump

    @property
    def rows(self) -> int:
        return len(self.rids)

    def ids(self) -> NDArray[np.uint8]:
        """The ids of the rows in their order, shape (rows, 16)."""
        return self.roster.ids[self.rids]

    def seqs(self) -> NDArray[np.int64]:
        """The ``seq`` of each row, int64, shape (rows,)."""
        return self.roster.seqs[self.rids]

    def dump(self, sink: ByteSink) -> None:
        """Write everything to ``sink``; errors of the sink pass through.

        Raises:
            InternalError: the columnar engine failed. ClosedError: it was closed.
        """
        out = BlockWriter(sink)
        head = [LAYOUT_VERSION, self.watermark, self.rows, self.dimensions or 0, self.vectors is not None]
        out.array("META", np.array(head, dtype=np.int64), "<i8")
        self.roster.dump(out, self.rids, self.dimensions or 0)
        out.array("CRTD", self.created_us[self.rids], "<i8")
        out.array("EXPR", self.expires_us[self.rids], "<i8")
        self.keywords.dump(out, self.rids)
        if self.vectors is not None:
            self.vectors.dump(out, self.rids)
        self.columns.dump(out, self.rids)

    def close(self) -> None:
        """Let go of columns and vectors. May be called twice."""
        if self.vectors is not None:
            self.vectors.close()
        self.columns.close()
