"""One execution of a plan, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.model import Memory, SqlCancel, SqlColumn
from strongroom.recall.columnar import ColumnarTable
from strongroom.recall.index import NamespaceIndex
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
    """One namespace that a statement sees."""

    table: ColumnarTable
    index: NamespaceIndex


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
    """Columns, an Arrow table, and how it was found (``index`` or ``exact``)."""

    columns: tuple[SqlColumn, ...]
    table: Any
    plan: str
