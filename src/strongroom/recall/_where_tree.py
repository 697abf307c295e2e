"""A ``where`` expression as typed nodes: read from the engine's tree, written out as SQL again.

``read`` is the allow-list: it takes one node of the parser's tree (a ``dict``), demands exactly the
keys that it knows with the values that it knows, and returns our own frozen node. What it does not
know it refuses, so a new version of the engine can only make it refuse more. ``write`` makes SQL from
our nodes alone: no text of the caller survives but names from the tables in ``functions`` and
constants, and those are written in one canonical form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.errors import InvalidFilterError
from strongroom.recall.functions import CLOCKS, COLUMNS, FUNCTIONS, INFIX, PREFIX, TYPES

__all__ = ["DEPTH_MAX", "NODES_MAX", "Clock", "Column", "Node", "Reader", "walk", "write"]

DEPTH_MAX: Final = 64
NODES_MAX: Final = 2000
CALLS_MAX: Final = 128  # each call and cast keeps a batch of its results while the query runs
DECIMAL_WIDTH_MAX: Final = 38

Tree = Mapping[str, Any]

_HINT_COLUMNS: Final = "the columns are: " + ", ".join(COLUMNS)
_HINT_TYPES: Final = "the types are: " + ", ".join(sorted(set(TYPES.values())))
_HINT_LAMBDA: Final = "use list_contains, list_has_any or list_has_all"
_HINT_ARROW: Final = (
    "write (metadata->'plan') = '\"x\"', or metadata->>'plan' = 'x', or metadata->>'$.a.b' = 'x'"
)
_COMPARISONS: Final[Mapping[str, str]] = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_DISTINCT_FROM": "IS DISTINCT FROM",
    "COMPARE_NOT_DISTINCT_FROM": "IS NOT DISTINCT FROM",
}
_JUNCTIONS: Final[Mapping[str, str]] = {"CONJUNCTION_AND": "AND", "CONJUNCTION_OR": "OR"}
_LITERALS: Final[Mapping[str, re.Pattern[str]]] = {
    "INTEGER": re.compile(r"-?[0-9]{1,80}", re.ASCII),
    "NUMERIC": re.compile(r"-?(?:[0-9]{1,80}\.?[0-9]{0,80}|\.[0-9]{1,80})(?:[eE][+-]?[0-9]{1,4})?", re.ASCII),
    "BOOLEAN": re.compile(r"true|false", re.ASCII),
    "NULL_LITERAL": re.compile(r""),
}
_COMMON: Final = frozenset({"class", "type", "query_location", "query_location_length"})


@dataclass(frozen=True, slots=True)
class Column:
    name: str


@dataclass(frozen=True, slots=True)
class Clock:
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Compare:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Junction:
    operator: str
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    name: str
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Between:
    value: Node
    lower: Node
    upper: Node


@dataclass(frozen=True, slots=True)
class Case:
    checks: tuple[tuple[Node, Node], ...]
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Cast:
    child: Node
    type: str
    quiet: bool  # TRY_CAST


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]


Node = Column | Clock | Constant | Compare | Junction | Operator | Between | Case | Cast | Call


def _refuse(what: str, hint: str | None = None) -> InvalidFilterError:
    return InvalidFilterError(f"where: {what}", hint=hint or "docs/filters.md shows what is allowed")


def _shown(name: object) -> str:
    """A name of the caller's own text, short and printable."""
    text = str(name)[:40]
    return text if text.isascii() and text.isprintable() else "(not printable)"


class Reader:
    """Reads one tree; counts its nodes and its depth."""

    __slots__ = ("_calls", "_depth", "_nodes")

    def __init__(self) -> None:
        self._calls = 0
        self._depth = 0
        self._nodes = 0

    def read(self, tree: object) -> Node:
        """The node for ``tree``.

        Raises:
            InvalidFilterError: something in it is not on the allow-list.
        """
        if not isinstance(tree, dict):
            raise _refuse("this form of expression is not supported")
        self._nodes += 1
        self._depth += 1
        if self._depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise _refuse(
                "the expression is too complex",
                f"at most {NODES_MAX} parts, nested at most {DEPTH_MAX} deep; use IN (...) for long lists",
            )
        reader = _READERS.get(str(tree.get("class")))
        if reader is None:
            raise _refuse("this form of expression is not supported", _hint_for(tree))
        node = reader(self, tree)
        self._calls += isinstance(node, Call | Cast)
        if self._calls > CALLS_MAX:
            raise _refuse(f"more than {CALLS_MAX} calls of functions and casts")
        self._depth -= 1
        return node

    def _all(self, trees: object) -> tuple[Node, ...]:
        if not isinstance(trees, list):
            raise _refuse("this form of expression is not supported")
        return tuple(self.read(t) for t in trees)

    def _column(self, tree: Tree) -> Node:
        _exactly(tree, "COLUMN_REF", {"column_names"})
        names = tree.get("column_names")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise _refuse("this form of expression is not supported")
        path = [n.lower() for n in names]
        if len(path) == 2 and path[0] == "memories":
            path = path[1:]
        elif len(path) == 1 and path[0] in CLOCKS:
            return Clock(path[0])
        if len(path) != 1 or path[0] not in COLUMNS:
            raise _refuse(f"there is no column {_shown('.'.join(names))}", _HINT_COLUMNS)
        return Column(path[0])

    def _constant(self, tree: Tree) -> Node:
        _exactly(tree, "VALUE_CONSTANT", {"literal"})
        literal = tree.get("literal")
        if not isinstance(literal, dict) or not literal.keys() <= {"kind", "text"}:
            raise _refuse("this form of constant is not supported")
        kind, text = literal.get("kind"), literal.get("text", "")
        if not isinstance(text, str):
            raise _refuse("this form of constant is not supported")
        if kind == "STRING":
            return Constant("STRING", text)
        pattern = _LITERALS.get(str(kind))
        if pattern is None or not pattern.fullmatch(text):
            raise _refuse("this form of constant is not supported", "write numbers as 12, 1.5 or 1e3")
        return Constant(str(kind), text)

    def _comparison(self, tree: Tree) -> Node:
        operator = _COMPARISONS.get(str(tree.get("type")))
        if operator is None:
            raise _refuse("this comparison is not supported")
        _exactly(tree, None, {"left", "right"})
        return Compare(operator, self.read(tree.get("left")), self.read(tree.get("right")))

    def _junction(self, tree: Tree) -> Node:
        operator = _JUNCTIONS.get(str(tree.get("type")))
        if operator is None:
            raise _refuse("this form of expression is not supported")
        _exactly(tree, None, {"children"})
        children = self._all(tree.get("children"))
        if len(children) < 2:
            raise _refuse("this form of expression is not supported")
        return Junction(operator, children)

    def _operator(self, tree: Tree) -> Node:
        name = str(tree.get("type"))
        if name not in _OPERATORS:
            raise _refuse("this operator is not supported", _hint_for(tree))
        _exactly(tree, None, {"children"})
        children = self._all(tree.get("children"))
        fewest, most, _ = _OPERATORS[name]
        if not fewest <= len(children) <= most:
            raise _refuse("this operator is not supported with so many operands")
        return Operator(name, children)

    def _between(self, tree: Tree) -> Node:
        _exactly(tree, "COMPARE_BETWEEN", {"input", "lower", "upper"})
        return Between(
            self.read(tree.get("input")), self.read(tree.get("lower")), self.read(tree.get("upper"))
        )

    def _case(self, tree: Tree) -> Node:
        _exactly(tree, "CASE_EXPR", {"case_checks", "else_expr"})
        checks: list[tuple[Node, Node]] = []
        given = tree.get("case_checks")
        for check in given if isinstance(given, list) else ():
            if not isinstance(check, dict) or not check.keys() <= {"when_expr", "then_expr"}:
                raise _refuse("this form of CASE is not supported")
            checks.append((self.read(check.get("when_expr")), self.read(check.get("then_expr"))))
        if not checks:
            raise _refuse("this form of CASE is not supported")
        return Case(tuple(checks), self.read(tree.get("else_expr")))

    def _cast(self, tree: Tree) -> Node:
        _exactly(tree, "OPERATOR_CAST", {"child", "try_cast", "type_expr"})
        return Cast(
            self.read(tree.get("child")), _read_type(tree.get("type_expr")), tree.get("try_cast") is True
        )

    def _arrow(self, tree: Tree) -> Node:
        """``column -> 'path'``: to the parser it is a lambda; we take it only as JSON extraction."""
        _exactly(tree, "LAMBDA", {"lhs", "expr", "syntax_type"})
        if tree.get("syntax_type") != "SINGLE_ARROW":
            raise _refuse("lambdas are not supported", _HINT_LAMBDA)
        document, path = self.read(tree.get("lhs")), self.read(tree.get("expr"))
        if not isinstance(path, Constant) or path.kind != "STRING":
            raise _refuse("-> takes everything to its right as the path", _HINT_ARROW)
        return Call("json_extract", (document, path))

    def _function(self, tree: Tree) -> Node:
        _exactly(
            tree,
            "FUNCTION",
            {"function_name", "order_bys", "is_operator", "arguments", "qualified_name"},
            function=tree.get("function_name"),
        )
        given = tree.get("function_name")
        plain_order = tree.get("order_bys", {"type": "ORDER_MODIFIER"}) == {"type": "ORDER_MODIFIER"}
        plain_name = tree.get("qualified_name", {"path": [given]}) == {"path": [given]}
        if not isinstance(given, str) or not plain_order or not plain_name:
            raise _refuse(f"function {_shown(given)} is not available in this form")
        name = given.lower()
        arguments: list[Node] = []
        for argument in tree.get("arguments", []):
            if not isinstance(argument, dict) or argument.keys() != {"expression"}:
                raise _refuse(f"function {_shown(given)} takes no named arguments")
            arguments.append(self.read(argument["expression"]))
        if name in CLOCKS and not arguments:
            return Clock(name)
        _check_call(name, given, len(arguments))
        if name == "list_value" and not all(isinstance(a, Constant) for a in arguments):
            raise _refuse("a list holds only constants", "a list of columns would copy their texts")
        return Call(name, tuple(arguments))


def _check_call(name: str, given: str, count: int) -> None:
    if name in INFIX and count == 2:
        return
    if name in PREFIX and count == 1:
        return
    arity = FUNCTIONS.get(name)
    if arity is None or name == "coalesce":
        raise _refuse(f"function {_shown(given)} is not available", "docs/filters.md lists the functions")
    if not arity[0] <= count <= arity[1]:
        takes = str(arity[0]) if arity[0] == arity[1] else f"{arity[0]} to {arity[1]}"
        raise _refuse(f"function {name} takes {takes} arguments")


def _exactly(tree: Tree, type_: str | None, keys: set[str], function: object = None) -> None:
    """Refuse keys that are not known: each would mean something that we would lose."""
    if type_ is not None and tree.get("type") != type_:
        raise _refuse("this form of expression is not supported")
    if not tree.keys() <= keys | _COMMON:
        name = f"function {_shown(function)}" if function is not None else "an expression"
        raise _refuse(
            f"{name} is not available in this form", "no alias, DISTINCT, FILTER, ORDER BY or schema"
        )


def _hint_for(tree: Tree) -> str | None:
    match tree.get("class"):
        case "SUBQUERY":
            return "no subqueries; for a list write list_contains(tags, 'x') or 'x' IN tags"
        case "PARAMETER":
            return "no parameters: write the value itself"
        case "STAR":
            return _HINT_COLUMNS
        case "WINDOW":
            return "no window functions"
    return None


def _read_type(tree: object, *, inner: bool = False) -> str:
    if not isinstance(tree, dict) or not tree.keys() <= _COMMON | {"type_name", "children", "qualified_name"}:
        raise _refuse("this type is not supported in CAST")
    given = tree.get("type_name")
    if tree.get("class") != "TYPE" or tree.get("type") != "TYPE" or not isinstance(given, str):
        raise _refuse("this type is not supported in CAST")
    if tree.get("qualified_name", {"path": [given]}) != {"path": [given]}:
        raise _refuse("this type is not supported in CAST")
    children = tree.get("children", [])
    if given == "list" and not inner and len(children) == 1:
        return _read_type(children[0], inner=True) + "[]"
    name = TYPES.get(given.upper())
    if name is None:
        raise _refuse(f"type {_shown(given)} is not available in CAST", _HINT_TYPES)
    if not children:
        return name
    sizes = [_read_size(c) for c in children]
    if name != "DECIMAL" or len(sizes) > 2 or sizes[0] > DECIMAL_WIDTH_MAX or sizes[-1] > sizes[0]:
        raise _refuse(f"type {name} takes no such modifiers")
    return f"{name}({', '.join(map(str, sizes))})"


def _read_size(tree: object) -> int:
    node = Reader().read(tree)
    if isinstance(node, Constant) and node.kind == "INTEGER" and node.text.isdigit() and len(node.text) <= 2:
        return int(node.text)
    raise _refuse("this type is not supported in CAST")


_READERS: Final[Mapping[str, Callable[[Reader, Tree], Node]]] = {
    "COLUMN_REF": Reader._column,
    "CONSTANT": Reader._constant,
    "COMPARISON": Reader._comparison,
    "CONJUNCTION": Reader._junction,
    "OPERATOR": Reader._operator,
    "BETWEEN": Reader._between,
    "CASE": Reader._case,
    "CAST": Reader._cast,
    "FUNCTION": Reader._function,
    "LAMBDA": Reader._arrow,
}


def _join(parts: list[str]) -> str:
    return ", ".join(parts)


_OPERATORS: Final[Mapping[str, tuple[int, int, Callable[[list[str]], str]]]] = {
    "OPERATOR_NOT": (1, 1, lambda c: f"(NOT {c[0]})"),
    "OPERATOR_IS_NULL": (1, 1, lambda c: f"({c[0]} IS NULL)"),
    "OPERATOR_IS_NOT_NULL": (1, 1, lambda c: f"({c[0]} IS NOT NULL)"),
    "COMPARE_IN": (2, NODES_MAX, lambda c: f"({c[0]} IN ({_join(c[1:])}))"),
    "COMPARE_NOT_IN": (2, NODES_MAX, lambda c: f"({c[0]} NOT IN ({_join(c[1:])}))"),
    "OPERATOR_COALESCE": (1, 64, lambda c: f"COALESCE({_join(c)})"),
    "ARRAY_EXTRACT": (2, 2, lambda c: f"({c[0]}[{c[1]}])"),
    "ARRAY_SLICE": (3, 3, lambda c: f"({c[0]}[{c[1]}:{c[2]}])"),
}
"""Name -> fewest and most operands, and how it is written."""


def write(node: Node, substitutes: Mapping[Column | Clock, str] | None = None) -> str:
    """``node`` as SQL, every operation in parentheses, every name quoted.

    ``substitutes`` replaces leaves: the columns and clocks that are parameters when the query runs. With them
    it is the form that runs, in which values are bounded where nothing else bounds them.
    """

    def text(n: Node) -> str:
        match n:
            case Column() | Clock() if substitutes and n in substitutes:
                return substitutes[n]
            case Column(name):
                return f'"{name}"'
            case Clock(name):
                return name if name.startswith("current_") else f'"{name}"()'
            case Constant(kind, value):
                return _write_constant(kind, value)
            case Compare(operator, left, right):
                return f"({text(left)} {operator} {text(right)})"
            case Junction(operator, children):
                return "(" + f" {operator} ".join(text(c) for c in children) + ")"
            case Operator(name, children):
                return _OPERATORS[name][2]([text(c) for c in children])
            case Between(value, lower, upper):
                return f"({text(value)} BETWEEN {text(lower)} AND {text(upper)})"
            case Case(checks, otherwise):
                whens = "".join(f" WHEN {text(w)} THEN {text(t)}" for w, t in checks)
                return f"(CASE{whens} ELSE {text(otherwise)} END)"
            case Cast(child, type_, quiet):
                return f"{'TRY_CAST' if quiet else 'CAST'}({text(child)} AS {type_})"
            case Call(name, arguments):
                texts = [text(a) for a in arguments]
                if substitutes is not None:
                    texts = [_bounded(name, i, a, texts[i]) for i, a in enumerate(arguments)]
                return _write_call(name, texts)

    return text(node)


_PATTERNS: Final = frozenset(
    {"~~", "!~~", "~~*", "!~~*", "~~~"} | {n for n in FUNCTIONS if "like_escape" in n}
)
PATTERN_CHARACTERS_MAX: Final = 1_000  # of LIKE, ILIKE and GLOB
JSON_CHARACTERS_MAX: Final = 65_536  # of what json_contains compares


def _bounded(name: str, place: int, node: Node, text: str) -> str:
    """``text`` as it stands, or so that a long value is an error: nothing stops the engine inside one value.

    LIKE takes time by the product of both lengths, and json_contains goes as deep into the stack as a
    document is nested, which ends the process. Metadata is never nested deeply.
    """
    is_pattern = name in _PATTERNS and place == 1
    if isinstance(node, Constant) or node == Column("metadata"):
        if is_pattern and isinstance(node, Constant) and len(node.text) > PATTERN_CHARACTERS_MAX:
            raise _refuse("a pattern is too long", f"at most {PATTERN_CHARACTERS_MAX} characters")
        return text
    if name == "json_contains":
        limit = JSON_CHARACTERS_MAX
    elif is_pattern:
        limit = PATTERN_CHARACTERS_MAX
    else:
        return text
    check = f"CASE WHEN length(CAST(g AS VARCHAR)) > {limit} THEN error('too long') ELSE g END"
    return f"(list_transform([{text}], lambda g: {check})[1])"


def _write_constant(kind: str, value: str) -> str:
    if kind == "STRING":
        return "'" + value.replace("'", "''") + "'"
    if kind == "NULL_LITERAL":
        return "NULL"
    return f"({value})" if value.startswith("-") else value


def _write_call(name: str, arguments: list[str]) -> str:
    if name in FUNCTIONS:
        return f'"{name}"({_join(arguments)})'
    if len(arguments) == 1:
        return f"({name} {arguments[0]})"
    return f"({arguments[0]} {name} {arguments[1]})"


def walk(node: Node) -> list[Column | Clock]:
    """The columns and clocks that ``node`` names, in order, repeated as they are."""
    match node:
        case Column() | Clock():
            return [node]
        case Constant():
            return []
        case Compare(_, left, right):
            children: tuple[Node, ...] = (left, right)
        case Junction(_, parts) | Operator(_, parts) | Call(_, parts):
            children = parts
        case Between(value, lower, upper):
            children = (value, lower, upper)
        case Case(checks, otherwise):
            children = (*(n for pair in checks for n in pair), otherwise)
        case Cast(child, _, _):
            children = (child,)
    return [leaf for c in children for leaf in walk(c)]
