"""Groupings of everyday columns, counted and added up in the arrays beside the table (``direct``).

``GROUP BY`` columns of ``CODED`` and ``namespace``, by name or by their place in the select list. Selected
are grouped columns, ``count(*)``, and ``sum`` and ``avg`` of ``importance``; ordered by what is selected, or
not at all. Like the columnar engine, whose threads share the rows, this adds doubles in an order of its own:
sums of the same rows may differ in their last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from strongroom.recall._facets import CODED, Condition
from strongroom.recall._held import reading
from strongroom.recall.sql.binding import number_of
from strongroom.recall.sql.few import ROWS_MAX as FEW_ROWS_MAX
from strongroom.recall.sql.few import FewRows
from strongroom.recall.sql.plan import Learned, count_of, whole_number
from strongroom.recall.sql.request import Answer, Request
from strongroom.recall.sql.scope import Text
from strongroom.recall.sql.tree import COMMON, Tree, integer

__all__ = ["Groups", "answer_grouped", "find_groups", "is_count"]

NAMESPACE: Final = "namespace"
_GROUPED: Final = frozenset({*CODED, NAMESPACE})
_COUNT: Final = COMMON | {"function_name", "order_bys", "qualified_name"}
_TYPES: Final = {"column": "VARCHAR", "count": "BIGINT", "sum": "DOUBLE", "avg": "DOUBLE"}
_DIRECTIONS: Final = {"ORDER_DEFAULT": False, "ASCENDING": False, "DESCENDING": True}
_ROWS_MAX: Final = 2**31  # in LIMIT and OFFSET
_PLACES: Final = frozenset({"query_location", "query_location_length", "alias"})


@dataclass(frozen=True, slots=True)
class Item:
    """A selected value: the grouped column of that number, or an aggregate."""

    kind: Literal["column", "count", "sum", "avg"]
    column: int = 0


@dataclass(frozen=True, slots=True)
class Groups:
    """``orders``: (number of an item, whether descending), the first decides."""

    columns: tuple[str, ...]
    items: tuple[Item, ...]
    orders: tuple[tuple[int, bool], ...]
    limit: int | Text | None
    offset: int | Text

    @property
    def adds(self) -> bool:
        """Whether importance is to be added up."""
        return any(item.kind in ("sum", "avg") for item in self.items)


# -- the form ---------------------------------------------------------------------------------------------
def is_count(item: Tree) -> bool:
    return item.get("function_name") == "count_star" and item.keys() <= _COUNT


def find_groups(node: Tree, column_of: Callable[[object], str | None]) -> Groups | None:
    """What a checked statement with GROUP BY is, when it has the form; ``column_of``: the column of memories
    that a node names."""
    items = node["select_list"]
    named = [column_of(_at(expr, items)) for expr in node.get("group_expressions", [])]
    if not named or node.get("group_sets") != [list(range(len(named)))] or not _GROUPED.issuperset(named):
        return None
    columns = tuple(dict.fromkeys(str(name) for name in named))
    modifiers = {m["type"]: m for m in node.get("modifiers", [])}
    cut = modifiers.pop("LIMIT_MODIFIER", {})
    limit, offset = count_of(cut.get("limit")), count_of(cut.get("offset", integer(0)))
    if cut.keys() - {"type", "limit", "offset"} or offset is None or (cut and limit is None):
        return None
    made = [_item(item, columns, column_of) for item in items]
    orders = [_order(order, items) for order in modifiers.pop("ORDER_MODIFIER", {}).get("orders", [])]
    if None in made or None in orders or modifiers:
        return None
    return Groups(columns, tuple(filter(None, made)), tuple(filter(None, orders)), limit, offset)


def _at(node: Any, items: Sequence[Tree]) -> Any:
    """What a place in the select list stands for; anything else for itself."""
    place = whole_number(node)
    return items[place - 1] if place is not None and 0 < place <= len(items) else node


def _item(item: Tree, columns: Sequence[str], column_of: Callable[[object], str | None]) -> Item | None:
    if is_count(item):
        return Item("count")
    name = column_of(item)
    if name is not None:
        return Item("column", columns.index(name)) if name in columns else None
    function, given = str(item.get("function_name")).lower(), item.get("arguments", [])
    plain = item.get("class") == "FUNCTION" and item.keys() <= _COUNT | {"arguments"}
    if not plain or "orders" in item.get("order_bys", {}) or [g.keys() for g in given] != [{"expression"}]:
        return None
    if column_of(given[0]["expression"]) != "importance":
        return None
    return Item("sum") if function == "sum" else Item("avg") if function == "avg" else None


def _order(order: Tree, items: Sequence[Tree]) -> tuple[int, bool] | None:
    """The number of the item that is ordered by: named by its alias, by its place, or written again."""
    down = _DIRECTIONS.get(str(order.get("type")))
    if down is None or order.get("null_order") not in ("ORDER_DEFAULT", "NULLS LAST"):
        return None
    key = order["expression"]
    names = key.get("column_names") or []
    alias = names[0].lower() if key.get("class") == "COLUMN_REF" and len(names) == 1 else None
    found = [n for n, i in enumerate(items) if alias and str(i.get("alias", "")).lower() == alias]
    if not found:
        wanted = _at(key, items)
        found = [n for n, i in enumerate(items) if i is wanted] or [
            n for n, i in enumerate(items) if _same(i) == _same(wanted)
        ]
    return (found[0], down) if len(found) == 1 else None


def _same(node: Any) -> Any:
    """A node without where it stands and what it is called."""
    if isinstance(node, list):
        return [_same(n) for n in node]
    if not isinstance(node, dict):
        return node.lower() if isinstance(node, str) else node
    return {key: _same(value) for key, value in node.items() if key not in _PLACES}


# -- the answer -------------------------------------------------------------------------------------------
def answer_grouped(
    groups: Groups, request: Request, learned: Learned, conditions: Sequence[Condition]
) -> Answer | None:
    """The answer; None: the columnar engine has to give it."""
    if [column.type for column in learned.columns] != [_TYPES[item.kind] for item in groups.items]:
        return None
    limit = None if groups.limit is None else number_of(groups.limit, request.parameters)
    offset = number_of(groups.offset, request.parameters)
    if not all(0 <= number <= _ROWS_MAX for number in (limit or 0, offset)):
        return None
    counted = _counted(groups, request, conditions)
    if counted is None:
        return None
    rows = [tuple(_value(item, *group) for item in groups.items) for group in counted]
    for place, down in reversed(groups.orders):
        _sort(rows, place, down=down)
    rows = rows[offset : None if limit is None else offset + limit]
    if len(rows) > request.rows_max:
        return None

    def make() -> Any:
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(groups.items)
        arrays = [pa.array(v, f.type) for v, f in zip(columns, learned.schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=learned.schema)

    return Answer(learned.columns, FewRows(rows, make) if len(rows) <= FEW_ROWS_MAX else make(), "exact")


_Counted = tuple[tuple[str | None, ...], int, float]


def _counted(groups: Groups, request: Request, conditions: Sequence[Condition]) -> list[_Counted] | None:
    """The groups of all members: their texts, rows, and importance added up."""
    coded = [c for c in groups.columns if c != NAMESPACE]
    place = groups.columns.index(NAMESPACE) if NAMESPACE in groups.columns else None
    every: dict[tuple[str | None, ...], tuple[int, float]] = {}
    with reading([m.index for m in request.members]):
        for member in request.members:
            found = member.table.facets.groups(coded, conditions, request.now_us, adding=groups.adds)
            if found is None:
                return None
            for group in found:
                texts = group.texts
                if place is not None:
                    texts = (*texts[:place], member.table.namespace, *texts[place:])
                rows, importance = every.get(texts, (0, 0.0))
                every[texts] = rows + group.rows, importance + group.importance
    return [(texts, rows, importance) for texts, (rows, importance) in every.items()]


def _value(item: Item, texts: tuple[str | None, ...], rows: int, importance: float) -> Any:
    match item.kind:
        case "column":
            return texts[item.column]
        case "count":
            return rows
        case "sum":
            return importance
        case "avg":
            return importance / rows


def _sort(rows: list[tuple[Any, ...]], place: int, *, down: bool) -> None:
    """By one value; rows without it come last, whatever the direction."""
    without = [row for row in rows if row[place] is None]
    have = [row for row in rows if row[place] is not None]
    have.sort(key=lambda row: row[place], reverse=down)
    rows[:] = have + without
