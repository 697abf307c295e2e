"""From a checked statement to the text that runs.

The text is written by the engine from the checked tree, never taken from the caller; then it is parsed
again and every relation and function in it looked at once more. Relations are views of the cursor that
runs it, which hold the caller's namespaces only, under names that cannot be guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from strongroom.errors import InternalError
from strongroom.model import SqlColumn
from strongroom.recall.sql import tree as t
from strongroom.recall.sql.functions import AGGREGATES, FUNCTIONS, RELATIONS, TABLE_FUNCTIONS, WINDOWS
from strongroom.recall.sql.scope import Base, Score, Text
from strongroom.recall.sql.tree import Tree
from strongroom.recall.sql.walk import Walk

if TYPE_CHECKING:
    from strongroom.recall.sql.direct import Direct

__all__ = [
    "KEYS", "Learned", "Names", "Plan", "TopK", "Variant", "count_of", "find_top", "rewrite", "verify",
    "whole_number",
]  # fmt: skip

KEYS: Final[Mapping[str, str]] = {
    "kind": "kind_key",
    "subject": "subject_key",
    "agent_id": "agent_key",
    "session_id": "session_key",
}
"""Columns that have a hidden key beside them, with its name in a namespace's table."""
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one process that nobody can guess."""

    token: str

    @property
    def memories(self) -> str:
        return f"{self.token}m"

    @property
    def everything(self) -> str:
        """The view with the hidden columns."""
        return f"{self.token}h"

    @property
    def score(self) -> str:
        """The function that gives the score of a row."""
        return f"{self.token}f"

    @property
    def rid(self) -> str:
        return f"{self.token}rid"

    @property
    def place(self) -> str:
        """The number of the namespace among those of the view."""
        return f"{self.token}ns"

    @property
    def chosen(self) -> str:
        """Stands in a text where the rows chosen by the index go."""
        return f"{self.token}chosen"

    @property
    def expires(self) -> str:
        """When a row expires, also of one that may not be opened."""
        return f"{self.token}exp"

    @property
    def opened(self) -> str:
        """Whether a row may be opened."""
        return f"{self.token}open"

    def key(self, column: str) -> str:
        return f"{self.token}{KEYS[column]}"


@dataclass(frozen=True, slots=True)
class TopK:
    """``ORDER BY semantic_rank(...) DESC LIMIT k`` over one reference to memories."""

    base: Base
    score: Score
    limit: int | Text
    offset: int | Text


@dataclass(frozen=True, slots=True)
class Variant:
    """A text to run, and the parameters that it takes."""

    text: str
    parameters: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What the first run of a statement has shown: the names and types of its columns."""

    columns: tuple[SqlColumn, ...]
    schema: Any


@dataclass(slots=True, eq=False)
class Plan:
    """A checked statement. ``variants`` are made when they are first needed.

    ``direct``: one of the forms that need no columnar engine, used once ``learned`` is there.
    """

    node: Tree
    walk: Walk
    top: TopK | None
    originals: dict[int, Tree]
    explain: bool = False
    direct: Direct | None = None
    learned: Learned | None = None
    variants: dict[tuple[str, bool], Variant] = field(default_factory=dict)
    tables_seen: set[object] = field(default_factory=set)

    @property
    def scores(self) -> dict[str, Score]:
        """Hidden column -> the score that it holds."""
        return {name: score for base in self.walk.bases for score, name in base.scores.items()}


def rewrite(plan: Plan, names: Names, form: str, *, expiring: bool) -> Tree:
    """A tree that runs. ``form``: ``whole``, ``filter`` (rows that a TopK may choose from) or ``chosen``.

    It shares its nodes with the plan: the next call changes them.
    """
    top = plan.top
    for base in plan.walk.bases:
        here = top is not None and base is top.base and form != "whole"
        replacement = _reference(plan, base, names, form if here else "whole", expiring=expiring)
        base.node.clear()
        base.node.update(replacement)
    node = plan.node
    if form == "filter" and top is not None:
        where = node.get("where_clause")
        rows = [t.column(top.base.alias, names.rid), t.column(top.base.alias, names.place)]
        return t.select(rows, node["from_table"], where)
    return node


def _reference(plan: Plan, base: Base, names: Names, form: str, *, expiring: bool) -> Tree:
    """What stands for one reference to memories."""
    original = plan.originals[base.number]
    kept = {k: v for k, v in original.items() if k in ("column_name_alias", "sample")}
    plain = form == "whole" and base.relation == "memories" and not base.scores and not base.narrows
    if plain and not expiring:
        return t.table(["temp", "main", names.memories], base.alias) | kept
    columns = [t.column(name) for name in RELATIONS[base.relation]]
    for score, name in base.scores.items():
        arguments = (t.column(names.rid), t.column(names.place), t.parameter(_handle(plan, score)))
        columns.append(t.call(names.score, *arguments) | {"alias": name})
    if form == "filter":
        columns += [t.column(names.rid), t.column(names.place)]
    conditions = [c for n in base.narrows for c in _narrow(plan, names, n.column, n.text)]
    if expiring:
        ends = t.column(names.expires)
        never = {"class": "OPERATOR", "type": "OPERATOR_IS_NULL", "children": [ends]}
        now = t.call("make_timestamptz", t.parameter("now"))
        conditions.append(t.either([never, t.compare("COMPARE_GREATERTHAN", ends, now)]))
    if form == "chosen":
        mark = t.text(names.chosen)
        conditions.append(t.compare("COMPARE_EQUAL", mark, mark))
    source = t.table(["temp", "main", names.everything], names.everything)
    inner = t.select(columns, source, t.every(conditions) if conditions else None)
    return {"type": "SUBQUERY", "alias": base.alias, "subquery": {"node": inner}} | kept


def _handle(plan: Plan, score: Score) -> str:
    return f"s{list(dict.fromkeys(plan.scores.values())).index(score)}"


def handles(plan: Plan) -> dict[str, Score]:
    """The parameter of each score."""
    return {_handle(plan, score): score for score in plan.scores.values()}


def _narrow(plan: Plan, names: Names, column: str, text: Text) -> list[Tree]:
    """Conditions that follow from ``column = text`` and that the engine answers from its zone maps."""
    number = narrowings(plan).index((column, text))
    place = t.column(names.rid if column == "memory_id" else names.key(column))
    lowest, highest = t.parameter(f"l{number}"), t.parameter(f"h{number}")
    return [
        t.compare("COMPARE_GREATERTHANOREQUALTO", place, lowest),
        t.compare("COMPARE_LESSTHANOREQUALTO", place, highest),
    ]


def narrowings(plan: Plan) -> list[tuple[str, Text]]:
    """The narrowing conditions of a plan, numbered by their place."""
    return list(dict.fromkeys((n.column, n.text) for b in plan.walk.bases for n in b.narrows))


# -- the index ------------------------------------------------------------------------------------------
def find_top(node: Tree, walk: Walk) -> TopK | None:
    """Whether the vector index can answer: one SELECT of memories alone, by one rank, with a limit."""
    source = node.get("from_table", {})
    base = next((b for b in walk.bases if b.node is source), None)
    if node.get("type") != "SELECT_NODE" or base is None or base.relation != "memories":
        return None
    if {"group_expressions", "group_sets", "having", "qualify", "sample"} & node.keys() or "sample" in source:
        return None
    if node.get("cte_map", {}).get("map") or node.get("aggregate_handling") != "STANDARD_HANDLING":
        return None
    if _folds(node["select_list"]):
        return None
    modifiers = {m["type"]: m for m in node.get("modifiers", [])}
    if modifiers.keys() != {"ORDER_MODIFIER", "LIMIT_MODIFIER"}:
        return None
    score = _ranked(modifiers["ORDER_MODIFIER"]["orders"], node["select_list"], walk, base)
    cut = modifiers["LIMIT_MODIFIER"]
    limit, offset = count_of(cut.get("limit")), count_of(cut.get("offset", t.integer(0)))
    if score is None or limit is None or offset is None or "limit_type" in cut:
        return None
    return TopK(base, score, limit, offset)


def _ranked(orders: list[Tree], items: list[Tree], walk: Walk, base: Base) -> Score | None:
    order = orders[0]
    if order.get("type") != "DESCENDING" or order.get("null_order") not in ("ORDER_DEFAULT", "NULLS LAST"):
        return None
    key = order["expression"]
    place = whole_number(key)
    if place is not None:
        if not 0 < place <= len(items) or any(i.get("class") == "STAR" for i in items[:place]):
            return None
        key = items[place - 1]
    elif key.get("class") == "COLUMN_REF" and len(key["column_names"]) == 1 and id(key) not in walk.ranks:
        named = [i for i in items if str(i.get("alias", "")).lower() == key["column_names"][0].lower()]
        if len(named) != 1 or key["column_names"][0].lower() in RELATIONS["memories"]:
            return None
        key = named[0]
    found = walk.ranks.get(id(key))
    return found[1] if found is not None and found[0] is base and found[1].kind == "semantic" else None


def count_of(node: Any) -> int | Text | None:
    if isinstance(node, dict) and node.get("class") == "PARAMETER":
        return Text(parameter=str(node["identifier"])[1:])
    return whole_number(node)


def whole_number(node: Any) -> int | None:
    """A number written with as many digits as a place or a limit may need; of others the engine tells."""
    literal = node.get("literal", {}) if isinstance(node, dict) else {}
    text = str(literal.get("text", "")) if literal.get("kind") == "INTEGER" else ""
    return int(text) if text.isdigit() and len(text) <= _DIGITS_MAX else None


def _folds(node: Any) -> bool:
    """Whether an aggregate or window function, or a subquery, stands anywhere below."""
    if isinstance(node, list):
        return any(_folds(n) for n in node)
    if not isinstance(node, dict):
        return False
    name = str(node.get("function_name", "")).lower()
    if node.get("class") in ("WINDOW", "SUBQUERY") or name in AGGREGATES or name == "unnest":
        return True
    return any(_folds(v) for v in node.values())


# -- the second look --------------------------------------------------------------------------------------
def verify(node: Any, names: Names, allowed: frozenset[str]) -> frozenset[str]:
    """Look at the parsed form of a text that is about to run; the parameters that it takes.

    ``allowed``: the views and tables of the cursor that it may name.

    Raises:
        InternalError: it names something else. That is a fault of ours, and the statement does not run.
    """
    parameters: set[str] = set()
    _look(node, names, allowed, parameters)
    return frozenset(parameters)


def _look(node: Any, names: Names, allowed: frozenset[str], parameters: set[str]) -> None:
    if isinstance(node, list):
        for child in node:
            _look(child, names, allowed, parameters)
    elif isinstance(node, dict):
        if node.get("class") == "PARAMETER":
            parameters.add(str(node.get("identifier")))
        elif not _is_meant(node, names, allowed):
            raise InternalError("a statement was not rewritten as it should have been")
        for child in node.values():
            if isinstance(child, dict | list):
                _look(child, names, allowed, parameters)


def _is_meant(node: Tree, names: Names, allowed: frozenset[str]) -> bool:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        path = node.get("qualified_name", {}).get("path")
        if not isinstance(path, list) or "at_clause" in node:
            return False
        return (path[:2] == ["temp", "main"] and path[-1] in allowed and len(path) == 3) or (
            len(path) == 1 and path[0].startswith(f"{names.token}c")
        )
    if kind == "TABLE_FUNCTION":
        return node["function"].get("function_name") in TABLE_FUNCTIONS
    if node.get("class") in ("FUNCTION", "WINDOW"):
        name = str(node.get("function_name")).lower()
        path = node.get("qualified_name", {}).get("path", [name])
        known = FUNCTIONS | WINDOWS | TABLE_FUNCTIONS
        return len(path) == 1 and (name in known or name == names.score)
    return kind not in ("SHOW_REF", "COLUMN_DATA", "DELIM_GET")
