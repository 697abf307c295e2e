"""The allow-list walk over expressions: columns, functions, and the functions of meaning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.errors import LimitExceededError, SqlSyntaxError, SqlUndefinedError
from strongroom.recall.sql import bounded
from strongroom.recall.sql import tree as t
from strongroom.recall.sql.functions import AGGREGATES, FUNCTIONS, GROWING, SEMANTIC, SHAPED, TYPES, WINDOWS
from strongroom.recall.sql.outputs import (
    SCHEMAS,
    as_list,
    check_path,
    filled,
    resolve,
    shown,
    substituted,
    undefined_function,
)
from strongroom.recall.sql.scope import Base, Output, Relation, Scope, Score, Text, Trace
from strongroom.recall.sql.tree import Tree

__all__ = ["Expressions", "Offer"]

DEPTH_MAX: Final = 200
SHAPE_PARTS_MAX: Final = 200  # of the structure that from_json takes, whose depth is taken from the stack
LIST_MAX: Final = 10_000  # elements that range() makes in an expression
_KINDS: Final[Mapping[str, Any]] = {
    "semantic_match": "semantic",
    "semantic_rank": "semantic",
    "keyword_match": "keyword",
    "keyword_rank": "keyword",
    "hybrid_rank": "hybrid",
}
_FRACTION: Final = {
    "class": "CONSTANT",
    "type": "VALUE_CONSTANT",
    "literal": {"kind": "NUMERIC", "text": "0.5"},
}
SEALABLE: Final = frozenset({"content", "metadata"})  # not there where a namespace is sealed in memory
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
class Expressions(ABC):
    """The state of a walk, and its part for expressions. ``Walk`` adds queries and relations.

    After ``Walk.statement``: ``bases`` are the references to memories, ``used`` the other relations,
    ``parameters`` the identifiers in the order in which they occur.
    """

    token: str
    offer: Offer
    nesting_max: int
    parts_max: int
    relations_max: int
    match_min: float
    bounded: Callable[[str, int], Tree]  # ``bounded.template_text`` as a tree
    bases: list[Base] = field(default_factory=list)
    used: dict[tuple[str, str], str] = field(default_factory=dict)
    parameters: dict[str, None] = field(default_factory=dict)
    ranks: dict[int, tuple[Base, Score]] = field(default_factory=dict)
    parameter_parents: list[tuple[str, Tree, Scope]] = field(default_factory=list)
    patterns: set[str] = field(default_factory=set)  # the parameters that are patterns of LIKE and its kin
    reads_content: bool = False  # content or metadata, otherwise than for a function of meaning
    _stars: list[tuple[Tree, list[Relation]]] = field(default_factory=list)
    _depth: int = 0
    _queries: int = 0
    _parts: int = 0
    _weight: int = 0  # queries and relations so far, as the engine will bind them
    _ctes: int = 0
    _growing: int = 0
    _reducing: int = 0
    _met: int = 0  # parameters
    _semantics: int = 0
    _wholes: list[Relation] = field(default_factory=list)

    @property
    def parts(self) -> int:
        """How many nodes there are."""
        return self._parts

    @abstractmethod
    def _query(self, node: object, scope: Scope) -> Output:
        """A query inside an expression."""

    @abstractmethod
    def _modifier(self, modifier: object, scope: Scope) -> None:
        """What a query node says beside its list: ORDER BY, LIMIT, DISTINCT."""

    # -- expressions ------------------------------------------------------------------------------------
    def _part(self, value: Any, kind: str, scope: Scope) -> None:
        """One key of a node, by the kind of walk that its table gives."""
        _PARTS[kind](self, value, scope)

    def _orders(self, value: Any, scope: Scope) -> None:
        for order in as_list(value):
            keys = frozenset({"null_order", "expression"})
            self._expr(t.exactly(order, keys, "this form of ORDER BY").get("expression"), scope)

    def _cases(self, value: Any, scope: Scope) -> None:
        for case in as_list(value):
            both = t.exactly(case, frozenset({"when_expr", "then_expr"}), "this form of CASE")
            self._expr(both.get("when_expr"), scope)
            self._expr(both.get("then_expr"), scope)

    def _replacements(self, value: Any, scope: Scope) -> None:
        for item in as_list(value):
            pair = t.exactly(item, frozenset({"key", "value"}), "this form of REPLACE")
            self._expr(pair.get("value"), scope)

    def _subquery(self, value: Any, scope: Scope) -> None:
        self._query(t.exactly(value, frozenset({"node"}), "this form of subquery").get("node"), scope)

    def _optional(self, node: object, scope: Scope) -> None:
        if node is not None:
            self._expr(node, scope)

    def _exprs(self, nodes: object, scope: Scope) -> None:
        for node in as_list(nodes):
            self._expr(node, scope)

    def _count(self) -> None:
        self._parts += 1
        if self._parts > self.parts_max:
            raise LimitExceededError("the statement has too many parts", hint=f"at most {self.parts_max}")

    def _weigh(self, weight: int = 1) -> None:
        """Count what the engine will bind, which no clock can stop once it has begun."""
        self._weight += weight
        if self._weight > self.relations_max:
            raise LimitExceededError(
                "the statement has too many queries and relations",
                hint=f"at most {self.relations_max}, those of a WITH counted for every reference to it",
            )

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
                check_path(expr)
                self._whole(expr["column_names"], scope)
                self.reads_content |= not SEALABLE.isdisjoint(map(str.lower, expr["column_names"]))
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
        for argument in as_list(arguments):
            pair = t.exactly(argument, frozenset({"expression", "name"}), "this form of argument")
            self._expr(pair.get("expression"), scope)

    def _window(self, expr: Tree) -> None:
        name = str(expr.get("function_name")).lower()
        path = expr.get("qualified_name", {}).get("path", [name])
        if len(path) != 1 or (name not in WINDOWS and name not in AGGREGATES):
            raise undefined_function(name)

    def _star(self, expr: Tree, scope: Scope) -> None:
        wanted = str(expr.get("relation_name", "")).lower()
        covered = [r for r in scope.relations if r.visible and (not wanted or r.alias.lower() == wanted)]
        self._stars.append((expr, covered))
        left_out = {str(name).lower() for name in as_list(expr.get("exclude_list", []))}
        for relation in covered:
            known = SEALABLE if relation.columns is None else SEALABLE.intersection(relation.columns)
            self.reads_content |= not known <= left_out

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
                    self.reads_content = True
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
            raise SqlUndefinedError(f"there is no type {shown(name)}", sqlstate="42704")
        for child in as_list(given.get("children", [])):
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
            raise undefined_function(given)
        if len(path) > 1:
            expr["qualified_name"] = {"path": [given]}
            expr.pop("schema", None)
        self._bounds(expr, name)
        reducing = name in _REDUCERS
        self._reducing += reducing
        self._children(expr, t.EXPRESSIONS["FUNCTION"], scope)
        self._reducing -= reducing
        if name in bounded.BOUNDED:
            self._bound(expr, name, top=top)

    def _bounds(self, expr: Tree, name: str) -> None:
        """What could make a long value of short ones."""
        if name in GROWING and self._reducing:
            raise t.unsupported(f"{name} inside a reduction")
        if name in ("range", "generate_series"):
            for argument in as_list(expr.get("arguments", [])):
                literal = argument.get("expression", {}).get("literal", {})
                number = literal.get("text", "")
                if literal.get("kind") != "INTEGER" or len(number) > 6 or abs(int(number)) > LIST_MAX:
                    raise t.unsupported(
                        f"{name} of values that are not small constants",
                        f"up to {LIST_MAX}; for more use it in FROM",
                    )
        if name in ("replace", "regexp_replace", "translate"):
            for argument in as_list(expr.get("arguments", []))[2:3]:
                inserted = argument.get("expression", {})
                while inserted.get("class") == "CAST":
                    inserted = inserted.get("child", {})
                if inserted.get("class") not in ("CONSTANT", "PARAMETER"):
                    raise t.unsupported(f"{name} with an insertion that is not constant")
        if name in SHAPED:
            _require_small_shape(expr, name)
        if name in GROWING:
            self._growing += 1
            if self._growing > 64:
                raise LimitExceededError("more than 64 calls that lengthen values")

    def _bound(self, expr: Tree, name: str, *, top: bool) -> None:
        """Write a call so that it takes a bounded time, once its arguments were looked at."""
        arguments = [a.get("expression") for a in as_list(expr.get("arguments", []))]
        if len(arguments) < 2:
            return  # no such function: the engine says so
        if len(arguments) > bounded.ARGUMENTS_MAX:
            raise t.unsupported(f"{name} of so many values", f"at most {bounded.ARGUMENTS_MAX}")
        parameter = bounded.parameter_of(name, arguments[1])
        if parameter is not None:
            self.patterns.add(parameter)
        if parameter is not None or bounded.is_short(name, arguments[1]):
            return
        call = dict(expr)
        self.parameter_parents = [
            (p, call if parent is expr else parent, scope) for p, parent, scope in self.parameter_parents
        ]
        made = filled(self.bounded(name, len(arguments)), arguments)
        alias = expr.get("alias") or (bounded.shown_name(name) if top else "")
        expr.clear()
        expr.update(made, alias=alias)

    def _macro(self, expr: Tree, macro: Tree, scope: Scope) -> None:
        arguments = [a.get("expression") for a in as_list(expr.get("arguments", []))]
        alias = expr.get("alias") or str(expr.get("function_name"))
        body = substituted(macro, {f"a{i}": a for i, a in enumerate(arguments, start=1)})
        expr.clear()
        expr.update(body, alias=alias)
        self._expr(expr, scope)

    def _semantic(self, expr: Tree, name: str, scope: Scope, *, top: bool) -> None:
        plain = {"function_name", "qualified_name", "order_bys", "arguments"} | t.COMMON
        arguments = [a.get("expression") for a in as_list(expr.get("arguments", []))]
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
            self._note_parameters(t.compare("COMPARE_EQUAL", _FRACTION, threshold), threshold, scope)
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
        found = resolve(node, scope) if isinstance(node, dict) else None
        if found is None:
            raise SqlSyntaxError(
                f"the first argument of {name} must be the column content of memories",
                hint="call it where memories is read, before DISTINCT, GROUP BY, UNION or a computed column",
                sqlstate="42804",
            )
        return found[1].root(), found


def _require_small_shape(expr: Tree, name: str) -> None:
    """The engine takes the depth of a structure from the stack."""
    for argument in as_list(expr.get("arguments", []))[1:2]:
        literal = argument.get("expression", {}).get("literal", {})
        shape = str(literal.get("text", ""))
        if literal.get("kind") != "STRING" or shape.count("[") + shape.count("{") > SHAPE_PARTS_MAX:
            raise t.unsupported(
                f"{name} with a structure that is not a small constant",
                f"at most {SHAPE_PARTS_MAX} lists and objects in it",
            )


def _check_literal(_walk: Expressions, value: Any, _scope: Scope) -> None:
    t.exactly(value, frozenset({"kind", "text"}), "this form of constant")


def _check_collation(_walk: Expressions, value: Any, _scope: Scope) -> None:
    if not isinstance(value, str) or not t.COLLATION.fullmatch(value):
        raise t.unsupported("this collation")


_PARTS: Final[Mapping[str, Callable[[Expressions, Any, Scope], None]]] = {
    "expr": Expressions._expr,
    "exprs": Expressions._exprs,
    "orders": Expressions._orders,
    "arguments": Expressions._arguments,
    "modifier": lambda walk, value, scope: walk._modifier(value, scope),
    "cases": Expressions._cases,
    "replacements": Expressions._replacements,
    "subquery": Expressions._subquery,
    "type": Expressions._type,
    "literal": _check_literal,
    "collation": _check_collation,
}
