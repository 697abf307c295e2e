"""PREPARE and EXECUTE as statements: they share their names with the protocol's own prepared statements.

PREPARE name [(type, ...)] AS query; EXECUTE name [(expression, ...)]. The arguments are expressions without
tables and parameters; they are computed by one SELECT, and cast to the types of the parameters.
Source: PostgreSQL documentation, "PREPARE", "EXECUTE".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.servers.pgwire._channel import Channel
from strongroom.servers.pgwire._effects import Effect, Steps
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._holdings import Holdings
from strongroom.servers.pgwire._plan import Portal, Prepared, plan_statement
from strongroom.servers.pgwire._queries import Queries
from strongroom.servers.pgwire._scan import Statement, Token, name_of, split
from strongroom.servers.pgwire._types import array_of, duckdb_of, named

__all__ = ["ByName"]


@dataclass(frozen=True, slots=True)
class _Execute:
    name: str
    arguments: tuple[str, ...]


class ByName(Channel, ABC):
    """The part of a conversation that prepares and executes by statement."""

    _held: Holdings
    _queries: Queries

    @abstractmethod
    def _describe(self, prepared: Prepared) -> Steps[None]:
        """Fill in what a statement takes and gives."""

    def _prepare(self, statement: Statement) -> Steps[str]:
        """Carry out PREPARE; the command's tag."""
        name, prepared = _parse_prepare(statement)
        if name in self._held.statements:
            raise PgError("42P05", "prepared statement already exists")
        yield from self._describe(prepared)
        self._held.add_statement(name, prepared)
        return "PREPARE"

    def _named(self, prepared: Prepared) -> Prepared:
        """The statement that an EXECUTE names."""
        return self._held.statement(_parse_execute(prepared.statement).name)

    def _becomes_named(self, portal: Portal) -> Generator[Effect, Any, None]:
        """Let the portal of an EXECUTE carry the statement that it names, with values for it."""
        if portal.prepared.kind != "execute":
            return
        execute, prepared = _parse_execute(portal.prepared.statement), self._named(portal.prepared)
        yield from self._describe(prepared)
        types = prepared.types or ()
        if len(types) != len(execute.arguments):
            raise PgError(
                "42601",
                "wrong number of parameters for prepared statement",
                hint=f"expected {len(types)} parameters but got {len(execute.arguments)}",
            )
        if types:
            pairs = zip(execute.arguments, types, strict=True)
            casts = ", ".join(f"CAST(({text}) AS {duckdb_of(oid) or 'VARCHAR'})" for text, oid in pairs)
            found = split(f"SELECT {casts}")
            if len(found) != 1:
                raise PgError("42601", "syntax error in EXECUTE")

            def compute() -> tuple[Any, ...]:
                return tuple(self._queries.open(found[0], (), portal.cancel).take(1)[0])

            portal.values = yield from self._work(portal.cancel, compute)
        portal.prepared = prepared


def _syntax(statement: Statement, index: int) -> PgError:
    at = statement.tokens[index].start + 1 if index < len(statement.tokens) else None
    return PgError("42601", "syntax error", position=at)


def _name(statement: Statement) -> str:
    name = name_of(statement.tokens[1]) if len(statement.tokens) > 1 else None
    if name is None:
        raise _syntax(statement, 1)
    return name


def _parse_prepare(statement: Statement) -> tuple[str, Prepared]:
    """Raises: PgError: 42601; 42704 for a type that is not known."""
    name, tokens, at = _name(statement), statement.tokens, 2
    types: list[int] = []
    if at < len(tokens) and tokens[at].text == "(":
        groups, at = _groups(statement, at)
        types = [_type(group) for group in groups]
    if statement.word(at) != "AS" or at + 1 >= len(tokens):
        raise _syntax(statement, at)
    start = tokens[at + 1].start
    rest = tuple(Token(t.kind, t.text, t.start - start) for t in tokens[at + 1 :])
    prepared = plan_statement(Statement(statement.text[start:], rest), types)
    if prepared.kind != "query":
        raise _syntax(statement, at + 1)
    return name, prepared


def _type(group: Sequence[Token]) -> int:
    words = [name_of(t) for t in group if t.kind in ("word", "quoted")]
    text = " ".join(w for w in words if w and w != "pg_catalog")
    spelled = {"double precision": "float8", "timestamp with time zone": "timestamptz",
               "timestamp without time zone": "timestamp", "character varying": "varchar"}  # fmt: skip
    oid = named(spelled.get(text, text)) if text != "unknown" else 705
    if "".join(t.text for t in group[-2:]) == "[]":
        oid = array_of(oid) if oid else 0
    if not oid:
        raise PgError("42704", "a type of PREPARE is not known")
    return 0 if oid == 705 else oid


def _parse_execute(statement: Statement) -> _Execute:
    """Raises: PgError: 42601; 0A000 for a subquery; 42P02 for a parameter."""
    name, at = _name(statement), 2
    groups: list[list[Token]] = []
    if len(statement.tokens) > 2:
        if statement.tokens[2].text != "(":
            raise _syntax(statement, 2)
        groups, at = _groups(statement, at)
    if at != len(statement.tokens) and groups:
        raise _syntax(statement, at)
    for token in (t for group in groups for t in group):
        if token.upper in ("SELECT", "FROM", "VALUES", "TABLE", "WITH"):
            raise PgError("0A000", "cannot use subquery in EXECUTE parameter")
        if token.kind == "param":
            raise PgError("42P02", "there is no parameter in EXECUTE", hint="write values")
    texts = tuple(statement.text[group[0].start : group[-1].end] for group in groups)
    return _Execute(name, texts)


def _groups(statement: Statement, at: int) -> tuple[list[list[Token]], int]:
    """What stands between the brackets that open at ``at``, cut at its commas; and where it goes on."""
    groups: list[list[Token]] = [[]]
    depth = 0
    for index in range(at, len(statement.tokens)):
        token = statement.tokens[index]
        depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        if depth == 0:
            if token.text != ")" or not all(groups):
                break
            return groups, index + 1
        if token.text == "," and depth == 1:
            groups.append([])
        elif index > at:
            groups[-1].append(token)
    raise _syntax(statement, at)
