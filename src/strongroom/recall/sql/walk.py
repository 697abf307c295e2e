"""The allow-list walk: every node of a statement is looked at, every name resolved, every relation replaced.

Relations resolve with exact lexical scoping. A common table expression gets a name that cannot be
guessed, and so does every relation that is offered: a name that this walk resolved wrongly would not be
found by the engine, instead of finding something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.errors import LimitExceededError, SqlForbiddenError
from strongroom.recall.sql import tree as t
from strongroom.recall.sql.expressions import Expressions, Offer
from strongroom.recall.sql.functions import RELATIONS, TABLE_FUNCTIONS
from strongroom.recall.sql.outputs import (
    SCHEMAS,
    as_list,
    check_plain_value,
    names_of,
    output_of,
    passes,
    plain_joins,
    plain_text,
    point,
    relation_of,
    renamed,
    shown,
    undefined_table,
)
from strongroom.recall.sql.scope import Base, Cte, Narrow, Output, Relation, Scope, Select, Trace
from strongroom.recall.sql.tree import Tree

__all__ = ["Offer", "Walk"]

JOIN_WEIGHT: Final = 5  # the order of many joins is what takes the engine longest to find
NARROWED: Final = frozenset({"memory_id", "agent_id", "subject", "session_id"})


@dataclass(slots=True)
class Walk(Expressions):
    """Walks one statement and changes its tree in place."""

    def statement(self, node: object) -> Tree:
        """Check the query ``node``.

        Raises:
            SqlForbiddenError, SqlUndefinedError, SqlSyntaxError, LimitExceededError.
        """
        self._query(node, Scope())
        for star, relations in self._stars:
            self._hide(star, relations)
        if any(relation.hidden() for relation in self._wholes):
            raise t.unsupported("a whole row beside a function of meaning", "write the columns out")
        return node  # type: ignore[return-value]  # _query has seen that it is a tree

    # -- queries ------------------------------------------------------------------------------------
    def _query(self, node: object, scope: Scope) -> Output:
        kind = node.get("type") if isinstance(node, dict) else None
        keys = t.QUERIES.get(str(kind))
        if keys is None:
            raise t.unsupported("this form of query")
        query = t.exactly(node, keys, "this form of query")
        self._weigh()
        self._queries += 1
        if self._queries > self.nesting_max:
            raise LimitExceededError(
                "the statement is nested too deeply", hint=f"at most {self.nesting_max} queries deep"
            )
        inner = Scope(parent=scope)
        self._cte_map(query.get("cte_map"), inner)
        if kind == "SELECT_NODE":
            output = self._select(query, inner)
        elif kind == "SET_OPERATION_NODE":
            output = self._set_operation(query, inner)
        else:
            raise t.unsupported("a recursive query outside WITH RECURSIVE")
        self._queries -= 1
        return output

    def _cte_map(self, node: object, scope: Scope) -> None:
        if node is None:
            return
        for entry in t.exactly(node, frozenset({"map"}), "WITH").get("map", []):
            t.exactly(entry, frozenset({"key", "value"}), "WITH")
            value = t.exactly(
                entry.get("value"),
                frozenset({"aliases", "materialized", "query_node", "key_targets"}),
                "this form of WITH",
            )
            name = entry["key"]
            self._ctes += 1
            hidden = f"{self.token}c{self._ctes}"
            entry["key"] = hidden
            query = value.get("query_node")
            outside, self._weight = self._weight, 0
            self._exprs(value.get("key_targets", []), scope)
            aliases = [str(a) for a in value.get("aliases", [])]
            if isinstance(query, dict) and query.get("type") == "RECURSIVE_CTE_NODE":
                output = self._recursive(query, scope, name, hidden, aliases)
            else:
                output = renamed(self._query(query, scope), aliases)
            scope.ctes[name.lower()] = Cte(hidden, output, self._weight)
            self._weight = outside

    def _recursive(self, query: Tree, scope: Scope, name: str, hidden: str, aliases: list[str]) -> Output:
        t.exactly(query, t.QUERIES["RECURSIVE_CTE_NODE"], "this form of WITH RECURSIVE")
        query["cte_name"] = hidden
        inner = Scope(parent=scope)
        self._cte_map(query.get("cte_map"), inner)
        first = self._query(query.get("left"), inner)
        names = aliases + (first.names or [])[len(aliases) :] if first.names is not None else None
        output = Output(names=names)
        inner.ctes[name.lower()] = Cte(hidden, output)
        self._query(query.get("right"), inner)
        self._exprs(query.get("key_targets", []), inner)
        self._modifiers(query.get("modifiers"), inner)
        return output

    def _set_operation(self, node: Tree, scope: Scope) -> Output:
        outputs = [self._query(child, scope) for child in as_list(node.get("children"))]
        self._modifiers(node.get("modifiers"), scope)
        return Output(names=outputs[0].names if outputs else None)

    def _select(self, node: Tree, scope: Scope) -> Output:
        source = node.get("from_table")
        if source is not None:
            scope.relations.extend(self._table(source, scope))
        select = Select(node, scope.relations, passes(node))
        if "sample" in node:
            self._sample(node["sample"], scope)
        items = as_list(node.get("select_list"))
        for item in items:
            if isinstance(item, dict) and item.get("alias"):
                scope.aliases.setdefault(str(item["alias"]).lower(), item)
        self._optional(node.get("where_clause"), scope)
        for item in items:
            self._item(item, scope)
        self._exprs(node.get("group_expressions", []), scope)
        for group in as_list(node.get("group_sets", [])):
            if not isinstance(group, list) or not all(isinstance(g, int) for g in group):
                raise t.unsupported("this form of GROUP BY")
        self._optional(node.get("having"), scope)
        self._optional(node.get("qualify"), scope)
        self._modifiers(node.get("modifiers"), scope)
        self._narrow(node.get("where_clause"), source, scope)
        return output_of(select, items)

    def _item(self, item: Tree, scope: Scope) -> None:
        """One column of a SELECT; it never gets its name from a name or parameter of ours."""
        before = (self._met, self._semantics)
        name = item.get("function_name") if isinstance(item, dict) else None
        self._expr(item, scope, top=True)
        ours = (self._met, self._semantics) != before
        if ours and "alias" not in item and item.get("class") not in ("STAR", "COLUMN_REF"):
            plain = isinstance(name, str) and name.isidentifier()
            item["alias"] = name if plain else "column"

    def _modifiers(self, modifiers: object, scope: Scope) -> None:
        for modifier in as_list(modifiers or []):
            self._modifier(modifier, scope)

    def _modifier(self, modifier: object, scope: Scope) -> None:
        keys = t.MODIFIERS.get(str(modifier.get("type"))) if isinstance(modifier, dict) else None
        if keys is None:
            raise t.unsupported("this form of ORDER BY, LIMIT or DISTINCT")
        node = t.exactly(modifier, keys, "this form of ORDER BY, LIMIT or DISTINCT")
        for key, kind in keys.items():
            if key in node:
                self._part(node[key], kind, scope)
                if kind == "expr":
                    self._note_parameters(node, node[key], scope)

    def _sample(self, node: object, scope: Scope) -> None:
        keys = frozenset({"sample_size", "is_percentage", "method", "seed", "repeatable"})
        size = t.exactly(node, keys, "this form of SAMPLE").get("sample_size")
        t.exactly(size, frozenset({"is_null", "value"}), "this form of SAMPLE")

    # -- relations ------------------------------------------------------------------------------------
    def _table(self, node: object, scope: Scope) -> list[Relation]:
        kind = str(node.get("type")) if isinstance(node, dict) else ""
        keys = t.TABLES.get(kind)
        if keys is None:
            raise SqlForbiddenError(
                "this form of table is not offered", hint="docs/sql.md lists the tables", sqlstate="0A000"
            )
        table = t.exactly(node, keys, "this form of table")
        self._count()
        self._weigh()
        if "sample" in table:
            self._sample(table["sample"], scope)
        readers: Mapping[str, Callable[[Tree, Scope], list[Relation]]] = {
            "BASE_TABLE": self._base_table,
            "JOIN": self._join,
            "SUBQUERY": self._derived,
            "TABLE_FUNCTION": self._table_function,
            "EXPRESSION_LIST": self._values,
            "EMPTY": lambda _table, _scope: [],
            "PIVOT": self._pivot,
        }
        self._deeper()
        found = readers[kind](table, scope)
        self._depth -= 1
        return found

    def _base_table(self, node: Tree, scope: Scope) -> list[Relation]:
        path = [str(p) for p in node.get("qualified_name", {}).get("path", [node.get("table_name")])]
        alias = str(node.get("alias") or path[-1])
        aliases = [str(a) for a in node.get("column_name_alias", [])]
        name = path[-1].lower()
        if len(path) == 1 and (cte := scope.cte(name)) is not None:
            point(node, [cte.name], alias)
            self._weigh(cte.weight)
            return [relation_of(alias, cte.output, aliases)]
        schema = path[0].lower() if len(path) == 2 else ""
        if len(path) > 2 or (schema and schema not in self.offer.schemas):
            raise undefined_table(path)
        if (not schema or schema in SCHEMAS) and name in RELATIONS:
            return [self._offered(node, name, alias, aliases)]
        for place in (schema,) if schema else ("", "pg_catalog"):
            columns = self.offer.relations.get((place, name))
            if columns is not None:
                self._use((place, name), node, alias)
                return [relation_of(alias, Output(names=list(columns)), aliases, columns)]
        raise undefined_table(path)

    def _offered(self, node: Tree, name: str, alias: str, aliases: list[str]) -> Relation:
        columns = list(RELATIONS[name])
        if name not in ("memories", "access_stats"):
            self._use(("", name), node, alias)
            return relation_of(alias, Output(names=columns), aliases, RELATIONS[name])
        base = Base(node, alias, name, len(self.bases))
        self.bases.append(base)
        node["alias"] = alias
        names = aliases + columns[len(aliases) :]
        traces: dict[str, Trace] = {}
        if name == "memories":
            traces[names[columns.index("content")].lower()] = base
        return Relation(alias, traces, tuple(n.lower() for n in names), base)

    def _use(self, key: tuple[str, str], node: Tree, alias: str) -> None:
        hidden = self.used.setdefault(key, f"{self.token}t{len(self.used)}")
        point(node, ["temp", "main", hidden], alias)

    def _join(self, node: Tree, scope: Scope) -> list[Relation]:
        self._weigh(JOIN_WEIGHT - 1)
        left = self._table(node.get("left"), scope)
        lateral = Scope(parent=scope.parent, ctes=scope.ctes, relations=scope.relations + left)
        lateral.aliases = scope.aliases
        right = self._table(node.get("right"), lateral)
        both = left + right
        if "condition" in node:
            inner = Scope(parent=scope.parent, ctes=scope.ctes, relations=scope.relations + both)
            self._expr(node["condition"], inner)
        if node.get("join_type") in ("SEMI", "ANTI"):
            for relation in right:
                relation.visible = False
        return both

    def _derived(self, node: Tree, scope: Scope) -> list[Relation]:
        query = t.exactly(node.get("subquery"), frozenset({"node"}), "this form of subquery").get("node")
        output = self._query(query, scope)
        return [relation_of(str(node.get("alias") or ""), output, names_of(node))]

    def _table_function(self, node: Tree, scope: Scope) -> list[Relation]:
        function = node.get("function")
        if not isinstance(function, dict) or function.get("class") != "FUNCTION":
            raise t.unsupported("this form of table function")
        name = str(function.get("function_name")).lower()
        path = function.get("qualified_name", {}).get("path", [name])
        if name not in TABLE_FUNCTIONS or len(path) != 1:
            raise SqlForbiddenError(
                f"table function {shown(name)} is not offered",
                hint="offered: " + ", ".join(sorted(TABLE_FUNCTIONS)),
                sqlstate="42501",
            )
        t.exactly(function, t.EXPRESSIONS["FUNCTION"], "this form of table function")
        self._arguments(function.get("arguments", []), scope)
        return [relation_of(str(node.get("alias") or name), Output(), names_of(node))]

    def _values(self, node: Tree, scope: Scope) -> list[Relation]:
        rows = as_list(node.get("values"))
        for row in rows:
            self._exprs(row, scope)
        width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
        names = [f"col{i}" for i in range(width)]
        return [relation_of(str(node.get("alias") or ""), Output(names=names), names_of(node))]

    def _pivot(self, node: Tree, scope: Scope) -> list[Relation]:
        inner = Scope(parent=scope, opaque=True)
        inner.relations.extend(self._table(node.get("source"), inner))
        self._exprs(node.get("aggregates", []), inner)
        for pivot in as_list(node.get("pivots", [])):
            keys = frozenset({"pivot_expressions", "entries", "unpivot_names"})
            part = t.exactly(pivot, keys, "this form of PIVOT")
            self._exprs(part.get("pivot_expressions", []), inner)
            for entry in as_list(part.get("entries", [])):
                one = t.exactly(entry, frozenset({"star_expr", "values"}), "this form of PIVOT")
                if "star_expr" in one:
                    self._expr(one["star_expr"], inner)
                for value in as_list(one.get("values", [])):
                    if isinstance(value, dict):
                        check_plain_value(value)
        return [relation_of(str(node.get("alias") or ""), Output(), names_of(node))]

    # -- conditions that narrow a reference ---------------------------------------------------------------
    def _narrow(self, where: object, source: object, scope: Scope) -> None:
        """Note ``column = text`` among the conditions of a WHERE, for references of inner and left joins."""
        bases = {r.alias.lower(): r.source for r in scope.relations if isinstance(r.source, Base)}
        if not bases or not isinstance(where, dict) or not plain_joins(source):
            return
        alone = next(iter(bases)) if len(scope.relations) == 1 else None
        children = where["children"] if where.get("type") == "CONJUNCTION_AND" else [where]
        for condition in children:
            if condition.get("type") != "COMPARE_EQUAL":
                continue
            for one, other in (("left", "right"), ("right", "left")):
                name = condition[one].get("column_names")
                text, cast = plain_text(condition[other])
                if condition[one].get("class") != "COLUMN_REF" or text is None:
                    continue
                path = [str(p).lower() for p in name]
                if cast == "UUID" and path[-1] != "memory_id":
                    continue
                alias = path[0] if len(path) == 2 else alone if len(path) == 1 else None
                base = bases.get(alias) if alias is not None else None
                if base is not None and path[-1] in NARROWED and "column_name_alias" not in base.node:
                    base.narrows.append(Narrow(path[-1], text))
