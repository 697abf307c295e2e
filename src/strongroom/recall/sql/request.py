"""One execution of a plan, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.model import Memory, SqlCancel, SqlColumn
from strongroom.model.rows import ALL, WHOLE, Reach
from strongroom.recall.columnar import ColumnarTable
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.sql.few import FewRows
from strongroom.recall.sql.plan import Plan
from strongroom.recall.sql.scope import Score
from strongroom.recall.sql.scoring import Scorer

__all__ = ["Answer", "Member", "Open", "Place", "Request"]


@dataclass(frozen=True, slots=True)
class Place:
    """A memory as an index knows it: the number of the member, its id and its ``seq``."""

    member: int
    memory_id: bytes
    seq: int


Open = Callable[[Sequence[Place]], list[Memory] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One namespace that a statement sees, as far as ``reach`` goes."""

    table: ColumnarTable
    index: NamespaceIndex
    reach: Reach = WHOLE

    def pool(self) -> NDArray[np.int64] | None:
        """The rows that may be ranked by what they hold; None: all. The index is locked for reading."""
        return None if self.reach.opened == ALL else np.flatnonzero(self.index.mask(self.reach.opened))

    def opened_of(self, rids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of ``rids`` that may be opened."""
        return rids if self.reach.opened == ALL else rids[self.index.mask(self.reach.opened)[rids]]


@dataclass(slots=True, eq=False)
class Request:
    """One execution.

    ``scorer`` makes one function per member for a score of the plan; it is called while the members are
    locked. ``tables``: the small relations of ``plan.walk.used`` as Arrow tables. ``vectors``: the text of
    ``plan.top`` as a vector, for each member, when the index may answer. ``open`` gives memories by their
    places, or None when one has changed since the index was asked; without it a statement is never answered
    directly, which is right for a caller from whom rows or contents of a member are held back.
    """

    plan: Plan
    statement: str
    members: Sequence[Member]
    parameters: Sequence[Any]
    now_us: int
    rows_max: int
    tables: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    scorer: Callable[[Score], Sequence[Scorer]] | None = None
    vectors: Sequence[NDArray[np.float32]] | None = None
    cancel: SqlCancel | None = None
    open: Open | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Columns, an Arrow table or ``FewRows`` in its place, and how it was found (``index`` or ``exact``)."""

    columns: tuple[SqlColumn, ...]
    table: Any
    plan: str

    def fits(self, bytes_max: int) -> bool:
        """Whether the table has at most so many bytes."""
        if isinstance(self.table, FewRows):
            return self.table.fits(bytes_max)
        return int(self.table.nbytes) <= bytes_max
