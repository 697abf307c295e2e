"""Answering the forms of ``direct``: rows are found in facets and vector lane, and opened from the ledger.

The order of things is that of a search: what passes is found first, and only the rows of the answer are
opened. Everything that is not certain gives None, and the columnar engine answers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strongroom.model import Memory
from strongroom.recall._columns import metadata_text, to_us
from strongroom.recall._facets import Condition, Facets, KeptMask
from strongroom.recall._held import reading
from strongroom.recall.sql.binding import number_of
from strongroom.recall.sql.direct import Direct, memory_id_of, resolved
from strongroom.recall.sql.few import few_rows
from strongroom.recall.sql.grouped import answer_grouped
from strongroom.recall.sql.plan import Learned, Plan
from strongroom.recall.sql.request import Answer, Member, Place, Request

__all__ = ["PlanMasks", "Pool", "answer_directly"]

MASKS_MAX: Final = 32
MASK_BYTES_MAX: Final = 32 << 20

Pool = NDArray[np.int64] | NDArray[np.bool_]
"""Sorted rids, or a mask by rid."""
Search = Callable[[Sequence[Pool | None]], list[tuple[int, int]] | None]


@dataclass(slots=True)
class _Found:
    """Rows of an answer in their order, and the score of each."""

    places: list[Place]
    scores: list[float] | None = None


class PlanMasks:
    """Which rows pass the conditions of the plans that were asked last, so that only new rows are looked at.

    They belong to a plan, which belongs to one caller: how long an answer takes tells nobody else of it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Plan, int], KeptMask] = OrderedDict()
        self._lock = threading.Lock()

    def passing(
        self, plan: Plan, number: int, facets: Facets, conditions: Sequence[Condition], now_us: int
    ) -> NDArray[np.bool_]:
        """A mask by rid for one member of a request, which is locked for reading; not to be changed. As long
        as no row comes, goes or expires it is the same array, so that the vector lane knows it again."""
        with self._lock:
            kept = self._kept.get((plan, number))
        made = facets.mask(conditions, now_us, kept)
        with self._lock:
            self._kept[plan, number] = made
            self._kept.move_to_end((plan, number))
            size = sum(k.passing.nbytes for k in self._kept.values())
            while size > MASK_BYTES_MAX or len(self._kept) > MASKS_MAX:
                size -= self._kept.popitem(last=False)[1].passing.nbytes
        return made.passing


@dataclass(frozen=True, slots=True)
class _Named:
    """A memory of which only the name is asked for: it stays sealed."""

    memory_id: UUID


_NAMED: Final = frozenset({"memory_id", None})


def answer_directly(request: Request, rows_max: int, search: Search, masks: PlanMasks) -> Answer | None:
    """The answer; None: the columnar engine has to give it.

    ``search``: the vector index, asked for the best rows within the given ones of each member.
    """
    direct, learned, open_rows = request.plan.direct, request.plan.learned, request.open
    if direct is None or learned is None or open_rows is None or not request.members:
        return None
    if request.plan.explain or (request.cancel is not None and request.cancel.cancelled):
        return None
    conditions = resolved(direct, request.parameters)
    if conditions is None or not all(m.table.facets.covers(conditions) for m in request.members):
        return None
    if direct.groups is not None:
        return answer_grouped(direct.groups, request, learned, conditions)
    if direct.kind == "count":
        with reading([m.index for m in request.members]):
            total = sum(m.table.facets.count(conditions, request.now_us) for m in request.members)
        return Answer(learned.columns, pa.table([pa.array([total], pa.int64())], learned.schema), "exact")
    with reading([m.index for m in request.members]):
        found = _find(direct, request, conditions, rows_max, search, masks)
    if found is None or len(found.places) > request.rows_max:
        return None
    if direct.kind == "top" and _NAMED.issuperset(direct.columns):  # nothing of what is sealed is asked for
        memories: Sequence[Any] | None = [_Named(UUID(bytes=place.memory_id)) for place in found.places]
    else:
        memories = open_rows(found.places)
    if memories is None:
        return None
    make = partial(_table, direct, learned, found, memories)
    types = [column.type for column in learned.columns]
    table = few_rows(direct.columns, types, memories, found.scores, make) or make()
    return Answer(learned.columns, table, "index" if direct.kind == "top" else "exact")


def _find(
    direct: Direct,
    request: Request,
    conditions: Sequence[Condition],
    rows_max: int,
    search: Search,
    masks: PlanMasks,
) -> _Found | None:
    """The rows; the members are locked."""
    members = request.members
    if direct.kind == "id":
        return _by_id(direct, request, conditions, rows_max)
    limit = number_of(direct.limit or 0, request.parameters)
    offset = number_of(direct.offset, request.parameters)
    if limit < 1 or offset < 0 or limit + offset > rows_max:
        return None
    if direct.kind == "newest":
        parts = [m.table.facets.newest(conditions, limit + offset, request.now_us) for m in members]
        numbers = np.repeat(np.arange(len(parts)), [len(rids) for rids, _ in parts])
        rids = np.concatenate([rids for rids, _ in parts])
        order = np.argsort(-np.concatenate([created for _, created in parts]), kind="stable")
        chosen = order[offset : offset + limit]
        return _Found([_place(members, int(numbers[i]), int(rids[i])) for i in chosen])
    return _best(request, conditions, search, masks, limit, offset)


def _by_id(direct: Direct, request: Request, conditions: Sequence[Condition], rows_max: int) -> _Found | None:
    memory_id = memory_id_of(direct, request.parameters)
    limit = len(request.members) if direct.limit is None else number_of(direct.limit, request.parameters)
    if memory_id is None or not 1 <= limit <= max(rows_max, len(request.members)):
        return None
    places = []
    for number, member in enumerate(request.members):
        rid = member.index.rid_of(memory_id)
        if rid is not None and member.table.facets.holds(rid, conditions, request.now_us):
            places.append(Place(number, memory_id, member.index.seq_at(rid)))
    return _Found(places[:limit])


def _best(
    request: Request,
    conditions: Sequence[Condition],
    search: Search,
    masks: PlanMasks,
    limit: int,
    offset: int,
) -> _Found | None:
    """By meaning, as the index has it; scores and their order are exact."""
    plan, members, now_us = request.plan, request.members, request.now_us
    if plan.top is None or request.vectors is None or request.scorer is None:
        return None
    whole = not conditions and not any(m.table.may_expire(now_us) for m in members)
    pools = [
        None if whole else masks.passing(plan, number, m.table.facets, conditions, now_us)
        for number, m in enumerate(members)
    ]
    nearest = search(pools)
    if nearest is None:
        return None
    scorers = request.scorer(plan.top.score)
    scored: list[tuple[float, int, int]] = []
    for number in range(len(members)):
        rids = np.array([rid for n, rid in nearest if n == number], dtype=np.int64)
        if len(rids):
            scored += [
                (s, number, r) for s, r in zip(scorers[number](rids).tolist(), rids.tolist(), strict=True)
            ]
    scored.sort(key=lambda item: -item[0])
    chosen = scored[offset : offset + limit]
    return _Found([_place(members, number, rid) for _, number, rid in chosen], [s for s, _, _ in chosen])


def _place(members: Sequence[Member], number: int, rid: int) -> Place:
    index = members[number].index
    return Place(number, index.id_at(rid), index.seq_at(rid))


# -- the answer -----------------------------------------------------------------------------------------
def _table(direct: Direct, learned: Learned, found: _Found, memories: Sequence[Memory]) -> Any:
    arrays = []
    for name, field in zip(direct.columns, learned.schema, strict=True):
        made = found.scores if name is None else list(map(_COLUMN.get(name) or attrgetter(name), memories))
        arrays.append(pa.array(made, field.type))
    return pa.Table.from_arrays(arrays, schema=learned.schema)


_COLUMN: Final[Mapping[str, Callable[[Memory], Any]]] = {
    "memory_id": lambda memory: str(memory.memory_id),
    "derived_from": lambda memory: [str(i) for i in memory.derived_from],
    "metadata": metadata_text,
    "tags": lambda memory: list(memory.tags),
    "created_at": lambda memory: to_us(memory.created_at),
    "updated_at": lambda memory: to_us(memory.updated_at),
    "expires_at": lambda memory: None if memory.expires_at is None else to_us(memory.expires_at),
}
"""Columns whose values are not the attributes as they are."""
