"""What the relations and queries of a statement give, and small readers of its tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from strongroom.errors import SqlUndefinedError
from strongroom.recall.sql import tree as t
from strongroom.recall.sql.functions import RELATIONS
from strongroom.recall.sql.scope import Derived, Output, Relation, Scope, Select, Text, Trace
from strongroom.recall.sql.tree import Tree

__all__ = [
    "SCHEMAS",
    "as_list",
    "check_path",
    "check_plain_value",
    "names_of",
    "output_of",
    "passes",
    "plain_joins",
    "plain_text",
    "point",
    "relation_of",
    "renamed",
    "resolve",
    "shown",
    "substituted",
    "undefined_function",
    "undefined_table",
]

SCHEMAS: Final = frozenset({"public", "main"})


def as_list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise t.unsupported("this form of statement")
    return value


def names_of(node: Tree) -> list[str]:
    return [str(a) for a in node.get("column_name_alias", [])]


def shown(name: object) -> str:
    """A name of the caller's own text, short and printable."""
    text = str(name)[:60]
    return text if text.isascii() and text.isprintable() else "(not printable)"


def undefined_table(path: list[str]) -> SqlUndefinedError:
    return SqlUndefinedError(
        f"there is no table {shown('.'.join(path))}", hint="offered: " + ", ".join(RELATIONS)
    )


def undefined_function(name: str) -> SqlUndefinedError:
    return SqlUndefinedError(
        f"there is no function {shown(name)}", hint="docs/sql.md lists the functions", sqlstate="42883"
    )


def check_path(expr: Tree) -> None:
    names = expr.get("column_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise t.unsupported("this form of column")
    if len(names) >= 3 and names[0].lower() in SCHEMAS:
        expr["column_names"] = names[1:]


def check_plain_value(value: Tree) -> None:
    if not value.keys() <= {"type", "is_null", "value"}:
        raise t.unsupported("this form of PIVOT")


def point(node: Tree, path: list[str], alias: str) -> None:
    """Let a table node name something else, and keep the name by which columns refer to it."""
    for key in ("schema_name", "catalog_name"):
        node.pop(key, None)
    node.update(t.table(path, alias))


def passes(node: Tree) -> bool:
    modifiers = node.get("modifiers", [])
    distinct = any(isinstance(m, dict) and m.get("type") == "DISTINCT_MODIFIER" for m in modifiers)
    grouped = "group_expressions" in node or node.get("aggregate_handling") != "STANDARD_HANDLING"
    return not (distinct or grouped or "having" in node)


def renamed(output: Output, aliases: list[str]) -> Output:
    if not aliases:
        return output
    if output.names is None:
        return Output(select=output.select)
    names = aliases + output.names[len(aliases) :]
    lowered = [n.lower() for n in output.names]
    traces = {names[lowered.index(name)].lower(): trace for name, trace in output.traces.items()}
    return Output(names, traces, output.select)


def relation_of(
    alias: str, output: Output, aliases: list[str], types: Mapping[str, str] | None = None
) -> Relation:
    named = renamed(output, aliases)
    columns = None if named.names is None else tuple(n.lower() for n in named.names)
    return Relation(alias, named.traces, columns, named.select, types=types or {})


def output_of(select: Select, items: list[Tree]) -> Output:
    """The columns of a SELECT, and those among them that are some memory's content."""
    names: list[str] | None = []
    traces: dict[str, Trace] = {}
    scope = Scope(relations=select.relations)
    for item in items:
        if item.get("class") == "STAR":
            made = _star_output(select, item)
            names = None if names is None or made is None else names + made[0]
            traces.update(made[1] if made is not None else {})
            continue
        label = item.get("alias") or (item.get("column_names") or [item.get("function_name") or "?"])[-1]
        if names is not None:
            names.append(str(label))
        found = resolve(item, scope)
        if found is not None:
            relation = next(r for r in select.relations if r.alias == found[0])
            traces[str(label).lower()] = Derived(select, relation, found[1])
    if names is not None:
        lowered = [n.lower() for n in names]
        traces = {name: trace for name, trace in traces.items() if lowered.count(name) == 1}
    known = names is not None and select.passes and plain_joins(select.node.get("from_table"))
    return Output(names, traces if known else {}, select if known else None)


def _star_output(select: Select, item: Tree) -> tuple[list[str], dict[str, Trace]] | None:
    wanted = str(item.get("relation_name", "")).lower()
    if item.keys() - {"class", "type", "relation_name", "exclude_list"} - t.COMMON:
        return None
    left_out = {str(e).lower() for e in item.get("exclude_list", [])}
    names: list[str] = []
    traces: dict[str, Trace] = {}
    for relation in select.relations:
        if not relation.visible or (wanted and relation.alias.lower() != wanted):
            continue
        if relation.columns is None:
            return None
        kept = [c for c in relation.columns if c not in left_out]
        names.extend(kept)
        for name, trace in relation.traces.items():
            if name in kept:
                traces[name] = Derived(select, relation, trace)
    return names, traces


def plain_joins(source: object) -> bool:
    if not isinstance(source, dict):
        return False
    if source.get("type") != "JOIN":
        return source.get("type") != "PIVOT"
    plain = source.get("join_type", "INNER") in ("INNER", "LEFT") and source.get("ref_type") in (
        "REGULAR",
        "CROSS",
    )
    return plain and plain_joins(source.get("left")) and plain_joins(source.get("right"))


def plain_text(node: Tree) -> tuple[Text | None, str]:
    """The text that a node is, and the type that it is cast to."""
    cast = ""
    if node.get("class") == "CAST" and not node.get("try_cast"):
        cast = str(node.get("type_expr", {}).get("type_name")).upper()
        node = node["child"]
    if cast not in ("", "UUID", "VARCHAR", "TEXT"):
        return None, cast
    if node.get("class") == "PARAMETER":
        return Text(parameter=str(node.get("identifier"))[1:]), cast
    literal = node.get("literal", {})
    if literal.get("kind") != "STRING":
        return None, cast
    return Text(literal=str(literal.get("text", ""))), cast


def substituted(node: Any, arguments: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [substituted(n, arguments) for n in node]
    if not isinstance(node, dict):
        return node
    names = node.get("column_names")
    if node.get("class") == "COLUMN_REF" and names and names[0] in arguments:
        return substituted(arguments[names[0]], {})
    return {key: substituted(value, arguments) for key, value in node.items()}


def filled(template: Any, arguments: Sequence[Any]) -> Any:
    """A copy of a tree with the very trees of ``arguments`` for its columns ``a1``, ``a2``, ..."""
    if isinstance(template, list):
        return [filled(node, arguments) for node in template]
    if not isinstance(template, dict):
        return template
    if template.get("class") == "COLUMN_REF" and len(name := template["column_names"][0]) == 2:
        return arguments[int(name[1]) - 1]
    return {key: filled(value, arguments) for key, value in template.items()}


def resolve(node: Tree, scope: Scope) -> tuple[str, Trace] | None:
    if node.get("class") != "COLUMN_REF":
        return None
    path = [str(p).lower() for p in node.get("column_names", [])]
    if len(path) == 3 and path[0] in SCHEMAS:
        path = path[1:]
    place: Scope | None = scope
    while place is not None:
        if len(path) == 2:
            named = [r for r in place.relations if r.visible and r.alias.lower() == path[0]]
            if named:
                return _traced(named, path[1], place)
        elif len(path) == 1:
            owners = [r for r in place.relations if r.columns is None or path[0] in r.columns]
            if owners:
                return _traced(owners, path[0], place)
            item = place.aliases.get(path[0])
            if item is not None and item is not node and item.get("column_names") != [path[0]]:
                return resolve(item, place)
        place = place.parent
    return None


def _traced(relations: list[Relation], name: str, place: Scope) -> tuple[str, Trace] | None:
    if len(relations) != 1 or place.opaque:
        return None
    relation = relations[0]
    trace = relation.traces.get(name)
    if trace is None:
        return None
    return relation.alias, trace
