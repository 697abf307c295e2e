"""The allow-list walk: every node of a statement is looked at, every name resolved, every relation replaced.

Relations resolve with exact lexical scoping. A common table expression gets a name that cannot be
guessed, and so does every relation that is offered: a name that this walk resolved wrongly would not be
found by the engine, instead of finding something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.errors import LimitExceededError, SqlForbiddenError, SqlSyntaxError, SqlUndefinedError
from strongroom.recall.sql import tree as t
from strongroom.recall.sql.functions import (
    AGGREGATES,
    FUNCTIONS,
    GROWING,
    RELATIONS,
    SEMANTIC,
    TABLE_FUNCTIONS,
    TYPES,
    WINDOWS,
)
from strongroom.recall.sql.scope import (
    Base,
    Cte,
    Derived,
    Narrow,
    Output,
    Relation,
    Scope,
    Score,
    Select,
    Text,
    Trace,
)
from strongroom.recall.sql.tree import Tree

__all__ = ["Offer", "Walk"]

DEPTH_MAX: Final = 200
LIST_MAX: Final = 10_000  # elements that range() makes in an expression
SCHEMAS: Final = frozenset({"public", "main"})
NARROWED: Final = frozenset({"memory_id", "agent_id", "subject", "session_id", "kind"})
_KINDS: Final[Mapping[str, Any]] = {
    "semantic_match": "semantic",
    "semantic_rank": "semantic",
    "keyword_match": "keyword",
    "keyword_rank": "keyword",
    "hybrid_rank": "hybrid",
}
_REDUCERS: Final = frozenset({"list_reduce", "array_reduce", "reduce"})


@dataclass(frozen=True, slots=True)
class Offer:
    """What a surface offers beside the relations of every surface.

    ``relations``: (schema, name) in lower case -> columns with their types. ``functions``: name in lower
    case -> an expression tree with the columns ``a1``, ``a2``, ... for its arguments.
    """

    relations: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    functions: Mapping[str, Tree] = field(default_factory=dict)
    schemas: frozenset[str] = SCHEMAS


@dataclass(slots=True)
class Walk:
    """Walks one statement and changes its tree in place.

    After ``statement``: ``bases`` are the references to memories, ``used`` the other relations,
    ``parameters`` the identifiers in the order in which they occur.
    """

    token: str
    offer: Offer
    nesting_max: int
    parts_max: int
    match_min: float
    bases: list[Base] = field(default_factory=list)
    used: dict[tuple[str, str], str] = field(default_factory=dict)
    parameters: dict[str, None] = field(default_factory=dict)
    ranks: dict[int, tuple[Base, Score]] = field(default_factory=dict)
    parameter_parents: list[tuple[str, Tree, Scope]] = field(default_factory=list)
    _stars: list[tuple[Tree, list[Relation]]] = field(default_factory=list)
    _depth: int = 0
    _queries: int = 0
    _parts: int = 0
    _ctes: int = 0
    _growing: int = 0
    _reducing: int = 0
    _met: int = 0  # parameters
    _semantics: int = 0
    _wholes: list[Relation] = field(default_factory=list)

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
            self._exprs(value.get("key_targets", []), scope)
            aliases = [str(a) for a in value.get("aliases", [])]
            if isinstance(query, dict) and query.get("type") == "RECURSIVE_CTE_NODE":
                output = self._recursive(query, scope, name, hidden, aliases)
            else:
                output = _renamed(self._query(query, scope), aliases)
            scope.ctes[name.lower()] = Cte(hidden, output)

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
        outputs = [self._query(child, scope) for child in _list(node.get("children"))]
        self._modifiers(node.get("modifiers"), scope)
        return Output(names=outputs[0].names if outputs else None)

    def _select(self, node: Tree, scope: Scope) -> Output:
        source = node.get("from_table")
        if source is not None:
            scope.relations.extend(self._table(source, scope))
        select = Select(node, scope.relations, _passes(node))
        if "sample" in node:
            self._sample(node["sample"], scope)
        items = _list(node.get("select_list"))
        for item in items:
            if isinstance(item, dict) and item.get("alias"):
                scope.aliases.setdefault(str(item["alias"]).lower(), item)
        self._optional(node.get("where_clause"), scope)
        for item in items:
            self._item(item, scope)
        self._exprs(node.get("group_expressions", []), scope)
        for group in _list(node.get("group_sets", [])):
            if not isinstance(group, list) or not all(isinstance(g, int) for g in group):
                raise t.unsupported("this form of GROUP BY")
        self._optional(node.get("having"), scope)
        self._optional(node.get("qualify"), scope)
        self._modifiers(node.get("modifiers"), scope)
        self._narrow(node.get("where_clause"), source, scope)
        return _output(select, items)

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
        for modifier in _list(modifiers or []):
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
            _point(node, [cte.name], alias)
            return [_relation(alias, cte.output, aliases)]
        schema = path[0].lower() if len(path) == 2 else ""
        if len(path) > 2 or (schema and schema not in self.offer.schemas):
            raise _undefined_table(path)
        if (not schema or schema in SCHEMAS) and name in RELATIONS:
            return [self._offered(node, name, alias, aliases)]
        for place in (schema,) if schema else ("", "pg_catalog"):
            columns = self.offer.relations.get((place, name))
            if columns is not None:
                self._use((place, name), node, alias)
                return [_relation(alias, Output(names=list(columns)), aliases, columns)]
        raise _undefined_table(path)

    def _offered(self, node: Tree, name: str, alias: str, aliases: list[str]) -> Relation:
        columns = list(RELATIONS[name])
        if name not in ("memories", "access_stats"):
            self._use(("", name), node, alias)
            return _relation(alias, Output(names=columns), aliases, RELATIONS[name])
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
        _point(node, ["temp", "main", hidden], alias)

    def _join(self, node: Tree, scope: Scope) -> list[Relation]:
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
        return [_relation(str(node.get("alias") or ""), output, _names(node))]

    def _table_function(self, node: Tree, scope: Scope) -> list[Relation]:
        function = node.get("function")
        if not isinstance(function, dict) or function.get("class") != "FUNCTION":
            raise t.unsupported("this form of table function")
        name = str(function.get("function_name")).lower()
        path = function.get("qualified_name", {}).get("path", [name])
        if name not in TABLE_FUNCTIONS or len(path) != 1:
            raise SqlForbiddenError(
                f"table function {_shown(name)} is not offered",
                hint="offered: " + ", ".join(sorted(TABLE_FUNCTIONS)),
                sqlstate="42501",
            )
        t.exactly(function, t.EXPRESSIONS["FUNCTION"], "this form of table function")
        self._arguments(function.get("arguments", []), scope)
        return [_relation(str(node.get("alias") or name), Output(), _names(node))]

    def _values(self, node: Tree, scope: Scope) -> list[Relation]:
        rows = _list(node.get("values"))
        for row in rows:
            self._exprs(row, scope)
        width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
        names = [f"col{i}" for i in range(width)]
        return [_relation(str(node.get("alias") or ""), Output(names=names), _names(node))]

    def _pivot(self, node: Tree, scope: Scope) -> list[Relation]:
        inner = Scope(parent=scope, opaque=True)
        inner.relations.extend(self._table(node.get("source"), inner))
        self._exprs(node.get("aggregates", []), inner)
        for pivot in _list(node.get("pivots", [])):
            keys = frozenset({"pivot_expressions", "entries", "unpivot_names"})
            part = t.exactly(pivot, keys, "this form of PIVOT")
            self._exprs(part.get("pivot_expressions", []), inner)
            for entry in _list(part.get("entries", [])):
                one = t.exactly(entry, frozenset({"star_expr", "values"}), "this form of PIVOT")
                if "star_expr" in one:
                    self._expr(one["star_expr"], inner)
                for value in _list(one.get("values", [])):
                    if isinstance(value, dict):
                        _plain_value(value)
        return [_relation(str(node.get("alias") or ""), Output(), _names(node))]

    # -- expressions ------------------------------------------------------------------------------------
    def _part(self, value: Any, kind: str, scope: Scope) -> None:
        """One key of a node, by the kind of walk that its table gives."""
        _PARTS[kind](self, value, scope)

    def _orders(self, value: Any, scope: Scope) -> None:
        for order in _list(value):
            keys = frozenset({"null_order", "expression"})
            self._expr(t.exactly(order, keys, "this form of ORDER BY").get("expression"), scope)

    def _cases(self, value: Any, scope: Scope) -> None:
        for case in _list(value):
            both = t.exactly(case, frozenset({"when_expr", "then_expr"}), "this form of CASE")
            self._expr(both.get("when_expr"), scope)
            self._expr(both.get("then_expr"), scope)

    def _replacements(self, value: Any, scope: Scope) -> None:
        for item in _list(value):
            pair = t.exactly(item, frozenset({"key", "value"}), "this form of REPLACE")
            self._expr(pair.get("value"), scope)

    def _subquery(self, value: Any, scope: Scope) -> None:
        self._query(t.exactly(value, frozenset({"node"}), "this form of subquery").get("node"), scope)

    def _optional(self, node: object, scope: Scope) -> None:
        if node is not None:
            self._expr(node, scope)

    def _exprs(self, nodes: object, scope: Scope) -> None:
        for node in _list(nodes):
            self._expr(node, scope)

    def _count(self) -> None:
        self._parts += 1
        if self._parts > self.parts_max:
            raise LimitExceededError("the statement has too many parts", hint=f"at most {self.parts_max}")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise LimitExceededError("an expression is nested too deeply", hint=f"at most {DEPTH_MAX} levels")

    def _expr(self, node: object, scope: Scope, *, top: bool = False) -> None:
        kind = str(node.get("class")) if isinstance(node, dict) else ""
        keys = t.EXPRESSIONS.get(kind)
        if keys is None:
            raise t.unsupported("this form of expression")
        expr = t.exactly(node, keys, "this form of expression")
        self._count()
        self._deeper()
        if kind == "FUNCTION":
            self._function(expr, scope, top=top)
        else:
            if kind == "PARAMETER":
                self._parameter(expr)
            elif kind == "OPERATOR" and expr.get("type") not in t.OPERATORS:
                raise t.unsupported("this operator")
            elif kind == "WINDOW":
                self._window(expr)
            elif kind == "STAR":
                self._star(expr, scope)
            elif kind == "COLUMN_REF":
                _check_path(expr)
                self._whole(expr["column_names"], scope)
            self._children(expr, keys, scope)
        self._depth -= 1

    def _children(self, expr: Tree, keys: Mapping[str, str], scope: Scope) -> None:
        for key, how in keys.items():
            if how != "leaf" and key in expr:
                value = expr[key]
                self._part(value, how, scope)
                if how in ("expr", "exprs", "arguments"):
                    self._note_parameters(expr, value, scope)

    def _note_parameters(self, parent: Tree, value: Any, scope: Scope) -> None:
        for child in value if isinstance(value, list) else [value]:
            node = child.get("expression", child) if isinstance(child, dict) else {}
            if node.get("class") == "PARAMETER":
                self.parameter_parents.append((str(node["identifier"])[1:], parent, scope))

    def _parameter(self, expr: Tree) -> None:
        name = str(expr.get("identifier"))
        if not name.isascii() or not name.isdigit():
            raise t.unsupported("a named parameter", "write ? or $1, $2, ...")
        self.parameters[name] = None
        self._met += 1
        expr["identifier"] = f"p{name}"  # by name, so that our own can stand beside them

    def _arguments(self, arguments: object, scope: Scope) -> None:
        for argument in _list(arguments):
            pair = t.exactly(argument, frozenset({"expression", "name"}), "this form of argument")
            self._expr(pair.get("expression"), scope)

    def _window(self, expr: Tree) -> None:
        name = str(expr.get("function_name")).lower()
        path = expr.get("qualified_name", {}).get("path", [name])
        if len(path) != 1 or (name not in WINDOWS and name not in AGGREGATES):
            raise _undefined_function(name)

    def _star(self, expr: Tree, scope: Scope) -> None:
        wanted = str(expr.get("relation_name", "")).lower()
        covered = [r for r in scope.relations if r.visible and (not wanted or r.alias.lower() == wanted)]
        self._stars.append((expr, covered))

    def _whole(self, path: list[str], scope: Scope) -> None:
        """Note relations that are named as a value: their hidden columns would be part of it."""
        name = path[0].lower()
        place: Scope | None = scope
        while place is not None:
            for relation in place.relations:
                if relation.alias.lower() != name:
                    continue
                if len(path) == 1 and (relation.columns is None or name not in relation.columns):
                    self._wholes.append(relation)
            place = place.parent

    def _hide(self, star: Tree, relations: list[Relation]) -> None:
        hidden = sorted(set().union(*(r.hidden() for r in relations)))
        if not hidden:
            return
        if "expr" in star:
            raise t.unsupported("COLUMNS(...) beside a function of meaning", "write the columns out")
        star["exclude_list"] = [*star.get("exclude_list", []), *hidden]

    def _type(self, node: object, _scope: Scope) -> None:
        keys = frozenset({"type_name", "children", "qualified_name"})
        given = t.exactly(node, keys, "this type")
        name = given.get("type_name")
        plain = given.get("qualified_name", {"path": [name]}) == {"path": [name]}
        if given.get("class") != "TYPE" or not plain or str(name).upper() not in TYPES:
            raise SqlUndefinedError(f"there is no type {_shown(name)}", sqlstate="42704")
        for child in _list(given.get("children", [])):
            if isinstance(child, dict) and child.get("class") == "TYPE":
                self._type(child, _scope)
            else:
                self._expr(child, Scope())

    # -- functions --------------------------------------------------------------------------------------
    def _function(self, expr: Tree, scope: Scope, *, top: bool) -> None:
        given = str(expr.get("function_name"))
        name = given.lower()
        path = [str(p).lower() for p in expr.get("qualified_name", {}).get("path", [name])]
        if len(path) > 1 and not (len(path) == 2 and path[0] in ("pg_catalog", "public")):
            raise t.unsupported("the form value.function(...)", "write function(value)")
        macro = self.offer.functions.get(name)
        if macro is not None:
            self._macro(expr, macro, scope)
            return
        if name in SEMANTIC and len(path) == 1:
            self._semantic(expr, name, scope, top=top)
            return
        if name not in FUNCTIONS:
            raise _undefined_function(given)
        if len(path) > 1:
            expr["qualified_name"] = {"path": [given]}
            expr.pop("schema", None)
        self._bounds(expr, name)
        reducing = name in _REDUCERS
        self._reducing += reducing
        self._children(expr, t.EXPRESSIONS["FUNCTION"], scope)
        self._reducing -= reducing

    def _bounds(self, expr: Tree, name: str) -> None:
        """What could make a long value of short ones."""
        if name in GROWING and self._reducing:
            raise t.unsupported(f"{name} inside a reduction")
        if name in ("range", "generate_series"):
            for argument in _list(expr.get("arguments", [])):
                literal = argument.get("expression", {}).get("literal", {})
                number = literal.get("text", "")
                if literal.get("kind") != "INTEGER" or len(number) > 6 or abs(int(number)) > LIST_MAX:
                    raise t.unsupported(
                        f"{name} of values that are not small constants",
                        f"up to {LIST_MAX}; for more use it in FROM",
                    )
        if name in ("replace", "regexp_replace", "translate"):
            for argument in _list(expr.get("arguments", []))[2:3]:
                inserted = argument.get("expression", {})
                if inserted.get("class") not in ("CONSTANT", "PARAMETER"):
                    raise t.unsupported(f"{name} with an insertion that is not constant")
        if name in GROWING:
            self._growing += 1
            if self._growing > 64:
                raise LimitExceededError("more than 64 calls that lengthen values")

    def _macro(self, expr: Tree, macro: Tree, scope: Scope) -> None:
        arguments = [a.get("expression") for a in _list(expr.get("arguments", []))]
        alias = expr.get("alias") or str(expr.get("function_name"))
        body = _substituted(macro, {f"a{i}": a for i, a in enumerate(arguments, start=1)})
        expr.clear()
        expr.update(body, alias=alias)
        self._expr(expr, scope)

    def _semantic(self, expr: Tree, name: str, scope: Scope, *, top: bool) -> None:
        plain = {"function_name", "qualified_name", "order_bys", "arguments"} | t.COMMON
        arguments = [a.get("expression") for a in _list(expr.get("arguments", []))]
        fewest, most = SEMANTIC[name]
        if not expr.keys() <= plain or expr.get("order_bys") != {"type": "ORDER_MODIFIER"}:
            raise t.unsupported(f"{name} in this form")
        if not fewest <= len(arguments) <= most:
            raise SqlUndefinedError(f"{name} takes {fewest} to {most} arguments", sqlstate="42883")
        self._semantics += 1
        base, trace = self._content(name, arguments[0], scope)
        score = Score(_KINDS[name], self._text(name, arguments[1]))
        hidden = trace[1].provide(score, self._hidden_names())
        value = t.column(trace[0], hidden)
        alias = expr.get("alias") or (name if top else None)
        threshold: Tree | None = None
        if len(arguments) == 3:
            self._expr(arguments[2], scope)
            threshold = arguments[2]
            self._note_parameters(t.compare("COMPARE_EQUAL", value, threshold), threshold, scope)
        expr.clear()
        if name == "semantic_match":
            least = threshold or {
                "class": "CONSTANT",
                "type": "VALUE_CONSTANT",
                "literal": {"kind": "NUMERIC", "text": repr(float(self.match_min))},
            }
            expr.update(t.compare("COMPARE_GREATERTHANOREQUALTO", value, least))
        elif name == "keyword_match":
            expr.update(t.compare("COMPARE_GREATERTHAN", value, t.integer(0)))
        else:
            expr.update(value)
            self.ranks[id(expr)] = (base, score)
        if alias is not None:
            expr["alias"] = alias

    def _hidden_names(self) -> Iterator[str]:
        yield f"{self.token}s{sum(len(b.scores) for b in self.bases)}"

    def _text(self, name: str, node: object) -> Text:
        if isinstance(node, dict) and node.get("class") == "PARAMETER":
            self._parameter(node)
            identifier = str(node["identifier"])[1:]
            self.parameter_parents.append((identifier, {"class": "TEXT"}, Scope()))
            return Text(parameter=identifier)
        while isinstance(node, dict) and node.get("class") == "CAST":
            node = node.get("child")
            if isinstance(node, dict) and node.get("class") == "PARAMETER":
                return self._text(name, node)
        literal = node.get("literal") if isinstance(node, dict) else None
        if not isinstance(literal, dict) or literal.get("kind") != "STRING":
            raise SqlSyntaxError(f"the text of {name} must be a literal or a parameter", sqlstate="42804")
        return Text(literal=str(literal.get("text", "")))

    def _content(self, name: str, node: object, scope: Scope) -> tuple[Base, tuple[str, Trace]]:
        """The reference to memories whose content the first argument is."""
        found = self._resolve(node, scope) if isinstance(node, dict) else None
        if found is None:
            raise SqlSyntaxError(
                f"the first argument of {name} must be the column content of memories",
                hint="call it where memories is read, before DISTINCT, GROUP BY, UNION or a computed column",
                sqlstate="42804",
            )
        return found[1].root(), found

    def _resolve(self, node: Tree, scope: Scope) -> tuple[str, Trace] | None:
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
                    return self._traced(named, path[1], place)
            elif len(path) == 1:
                owners = [r for r in place.relations if r.columns is None or path[0] in r.columns]
                if owners:
                    return self._traced(owners, path[0], place)
                item = place.aliases.get(path[0])
                if item is not None and item is not node and item.get("column_names") != [path[0]]:
                    return self._resolve(item, place)
            place = place.parent
        return None

    @staticmethod
    def _traced(relations: list[Relation], name: str, place: Scope) -> tuple[str, Trace] | None:
        if len(relations) != 1 or place.opaque:
            return None
        relation = relations[0]
        trace = relation.traces.get(name)
        if trace is None:
            return None
        return relation.alias, trace

    # -- conditions that narrow a reference ---------------------------------------------------------------
    def _narrow(self, where: object, source: object, scope: Scope) -> None:
        """Note ``column = text`` among the conditions of a WHERE, for references of inner and left joins."""
        bases = {r.alias.lower(): r.source for r in scope.relations if isinstance(r.source, Base)}
        if not bases or not isinstance(where, dict) or not _plain_joins(source):
            return
        alone = next(iter(bases)) if len(scope.relations) == 1 else None
        children = where["children"] if where.get("type") == "CONJUNCTION_AND" else [where]
        for condition in children:
            if condition.get("type") != "COMPARE_EQUAL":
                continue
            for one, other in (("left", "right"), ("right", "left")):
                name = condition[one].get("column_names")
                text, cast = _plain_text(condition[other])
                if condition[one].get("class") != "COLUMN_REF" or text is None:
                    continue
                path = [str(p).lower() for p in name]
                if cast == "UUID" and path[-1] != "memory_id":
                    continue
                alias = path[0] if len(path) == 2 else alone if len(path) == 1 else None
                base = bases.get(alias) if alias is not None else None
                if base is not None and path[-1] in NARROWED and "column_name_alias" not in base.node:
                    base.narrows.append(Narrow(path[-1], text))


# -- small things -----------------------------------------------------------------------------------------
def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise t.unsupported("this form of statement")
    return value


def _names(node: Tree) -> list[str]:
    return [str(a) for a in node.get("column_name_alias", [])]


def _shown(name: object) -> str:
    """A name of the caller's own text, short and printable."""
    text = str(name)[:60]
    return text if text.isascii() and text.isprintable() else "(not printable)"


def _undefined_table(path: list[str]) -> SqlUndefinedError:
    return SqlUndefinedError(
        f"there is no table {_shown('.'.join(path))}", hint="offered: " + ", ".join(RELATIONS)
    )


def _undefined_function(name: str) -> SqlUndefinedError:
    return SqlUndefinedError(
        f"there is no function {_shown(name)}", hint="docs/sql.md lists the functions", sqlstate="42883"
    )


def _check_path(expr: Tree) -> None:
    names = expr.get("column_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise t.unsupported("this form of column")
    if len(names) >= 3 and names[0].lower() in SCHEMAS:
        expr["column_names"] = names[1:]


def _plain_value(value: Tree) -> None:
    if not value.keys() <= {"type", "is_null", "value"}:
        raise t.unsupported("this form of PIVOT")


def _point(node: Tree, path: list[str], alias: str) -> None:
    """Let a table node name something else, and keep the name by which columns refer to it."""
    for key in ("schema_name", "catalog_name"):
        node.pop(key, None)
    node.update(t.table(path, alias))


def _passes(node: Tree) -> bool:
    modifiers = node.get("modifiers", [])
    distinct = any(isinstance(m, dict) and m.get("type") == "DISTINCT_MODIFIER" for m in modifiers)
    grouped = "group_expressions" in node or node.get("aggregate_handling") != "STANDARD_HANDLING"
    return not (distinct or grouped or "having" in node)


def _renamed(output: Output, aliases: list[str]) -> Output:
    if not aliases:
        return output
    if output.names is None:
        return Output(select=output.select)
    names = aliases + output.names[len(aliases) :]
    lowered = [n.lower() for n in output.names]
    traces = {names[lowered.index(name)].lower(): trace for name, trace in output.traces.items()}
    return Output(names, traces, output.select)


def _relation(
    alias: str, output: Output, aliases: list[str], types: Mapping[str, str] | None = None
) -> Relation:
    named = _renamed(output, aliases)
    columns = None if named.names is None else tuple(n.lower() for n in named.names)
    return Relation(alias, named.traces, columns, named.select, types=types or {})


def _output(select: Select, items: list[Tree]) -> Output:
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
        found = Walk._resolve(_RESOLVER, item, scope)
        if found is not None:
            relation = next(r for r in select.relations if r.alias == found[0])
            traces[str(label).lower()] = Derived(select, relation, found[1])
    if names is not None:
        lowered = [n.lower() for n in names]
        traces = {name: trace for name, trace in traces.items() if lowered.count(name) == 1}
    known = names is not None and select.passes and _plain_joins(select.node.get("from_table"))
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


def _plain_joins(source: object) -> bool:
    if not isinstance(source, dict):
        return False
    if source.get("type") != "JOIN":
        return source.get("type") != "PIVOT"
    plain = source.get("join_type", "INNER") in ("INNER", "LEFT") and source.get("ref_type") in (
        "REGULAR",
        "CROSS",
    )
    return plain and _plain_joins(source.get("left")) and _plain_joins(source.get("right"))


def _plain_text(node: Tree) -> tuple[Text | None, str]:
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


def _substituted(node: Any, arguments: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_substituted(n, arguments) for n in node]
    if not isinstance(node, dict):
        return node
    names = node.get("column_names")
    if node.get("class") == "COLUMN_REF" and names and names[0] in arguments:
        return _substituted(arguments[names[0]], {})
    return {key: _substituted(value, arguments) for key, value in node.items()}


def _check_literal(_walk: Walk, value: Any, _scope: Scope) -> None:
    t.exactly(value, frozenset({"kind", "text"}), "this form of constant")


def _check_collation(_walk: Walk, value: Any, _scope: Scope) -> None:
    if not isinstance(value, str) or not t.COLLATION.fullmatch(value):
        raise t.unsupported("this collation")


_PARTS: Final[Mapping[str, Callable[[Walk, Any, Scope], None]]] = {
    "expr": Walk._expr,
    "exprs": Walk._exprs,
    "orders": Walk._orders,
    "arguments": Walk._arguments,
    "modifier": Walk._modifier,
    "cases": Walk._cases,
    "replacements": Walk._replacements,
    "subquery": Walk._subquery,
    "type": Walk._type,
    "literal": _check_literal,
    "collation": _check_collation,
}
_RESOLVER: Final = Walk("", Offer(), 0, 0, 0.0)
