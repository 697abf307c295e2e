"""What a statement is to this surface, decided by its first words, and the portal that carries it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.model import SqlCancel
from strongroom.servers.pgwire._commands import COMMANDS
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._rows import CHUNK_ROWS, Column, RowEncoder, Shape, Source
from strongroom.servers.pgwire._scan import Statement, Token, name_of, split

__all__ = ["Cursor", "Fetch", "Portal", "Prepared", "parse_declare", "parse_fetch", "plan"]

_ALL: Final = 2**62

_CHARACTER_BYTES: Final = 100
_TYPE_BYTES: Final = 40


@dataclass(slots=True)
class Prepared:
    """A parsed statement. ``kind``: empty, command, copy, declare, execute, fetch, prepare or query.

    ``types`` are the parameters' types: what the client declared, completed by what was inferred (0:
    not yet). ``columns``: None until described or for a statement without rows. ``shape``: of its last rows.
    """

    kind: str
    statement: Statement
    declared: tuple[int, ...] = ()
    types: tuple[int, ...] | None = None
    columns: tuple[Column, ...] | None = None
    described: bool = False
    shape: Shape | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Bytes that it holds, about: every character can be a word of its own."""
        return _CHARACTER_BYTES * len(self.statement.text) + _TYPE_BYTES * len(self.declared)


def plan(sql: str, declared: Sequence[int] = ()) -> Prepared:
    """Raises: PgError: 42601, several statements in one Parse."""
    found = split(sql)
    if len(found) > 1:
        raise PgError("42601", "cannot insert multiple commands into a prepared statement")
    return plan_statement(found[0], declared) if found else Prepared("empty", Statement("", ()))


def plan_statement(statement: Statement, declared: Sequence[int] = ()) -> Prepared:
    word = statement.word(0)
    if word in COMMANDS:
        kind = "command"
    elif word in ("COPY", "DECLARE") or word in ("PREPARE", "EXECUTE"):
        kind = word.lower()
    elif word in ("FETCH", "MOVE"):
        kind = "fetch"
    else:
        kind = "query"
    return Prepared(kind, statement, tuple(declared))


@dataclass(slots=True)
class Cursor:
    """Rows that DECLARE opened."""

    source: Source
    holds: bool
    cancel: SqlCancel


@dataclass(slots=True)
class Portal:
    """A statement with its parameters, half-way carried out or not begun."""

    prepared: Prepared
    values: tuple[Any, ...] = field(default=(), repr=False)
    formats: tuple[int, ...] = ()
    source: Source | None = None
    columns: tuple[Column, ...] | None = None
    encoder: RowEncoder | None = None
    waiting: deque[bytes] = field(default_factory=deque, repr=False)
    finished: bool = False
    cancel: SqlCancel = field(default_factory=SqlCancel)
    given: int = 0  # bytes of the message with its values
    turn: int = 0  # of the client, when its rows were last taken

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        return self.given + (0 if self.source is None else self.source.size)

    def pull(self, most: int) -> deque[bytes]:
        """The next rows as messages, or as nothing where they are only passed over; empty at the end."""
        if self.source is None:
            return deque()
        count = min(most, CHUNK_ROWS)
        if self.encoder is None:
            return deque(b"" for _ in self.source.take(count))
        return deque(self.encoder.pull(self.source, count))

    def close(self) -> None:
        self.waiting.clear()
        if self.source is not None:
            self.source.close()


@dataclass(frozen=True, slots=True)
class Declare:
    name: str
    holds: bool
    query: Statement


def _syntax(statement: Statement, index: int) -> PgError:
    at = statement.tokens[index].start + 1 if index < len(statement.tokens) else None
    return PgError("42601", "syntax error", position=at)


def parse_declare(statement: Statement) -> Declare:
    """DECLARE name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query.

    Raises:
        PgError: 42601; 0A000 for a cursor that can go backwards.
    """
    tokens = statement.tokens
    name = name_of(tokens[1]) if len(tokens) > 1 else None
    if name is None:
        raise _syntax(statement, 1)
    at = 2
    while statement.word(at) in ("INSENSITIVE", "ASENSITIVE", "NO", "SCROLL"):
        if statement.word(at) == "SCROLL" and statement.word(at - 1) != "NO":
            raise PgError("0A000", "scrollable cursors are not supported")
        at += 1
    if statement.word(at) == "BINARY":
        raise PgError("0A000", "binary cursors are not supported", hint="ask for binary results in Bind")
    if statement.word(at) != "CURSOR":
        raise _syntax(statement, at)
    at += 1
    holds = False
    if statement.word(at) in ("WITH", "WITHOUT") and statement.word(at + 1) == "HOLD":
        holds = statement.word(at) == "WITH"
        at += 2
    if statement.word(at) != "FOR" or at + 1 >= len(tokens):
        raise _syntax(statement, at)
    start = tokens[at + 1].start
    rest = tuple(Token(t.kind, t.text, t.start - start) for t in tokens[at + 1 :])
    return Declare(name, holds, Statement(statement.text[start:], rest))


@dataclass(frozen=True, slots=True)
class Fetch:
    name: str
    count: int
    move: bool


def parse_fetch(statement: Statement) -> Fetch:
    """FETCH | MOVE [NEXT | FORWARD [n | ALL] | n | ALL] [FROM | IN] name.

    Raises:
        PgError: 42601; 55000 for a backward direction.
    """
    tokens = statement.tokens
    name = name_of(tokens[-1]) if len(tokens) > 1 else None
    if name is None:
        raise _syntax(statement, len(tokens))
    middle = [t.upper or t.text for t in tokens[1:-1]]
    if middle and middle[-1] in ("FROM", "IN"):
        middle.pop()
    if middle and middle[0] in ("PRIOR", "BACKWARD", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "-"):
        raise PgError("55000", "cursor can only scan forward")
    if middle and middle[0] == "FORWARD":
        middle.pop(0)
    if middle in ([], ["NEXT"]):
        count = 1
    elif middle == ["ALL"]:
        count = _ALL
    elif len(middle) == 1 and middle[0].isdecimal() and len(middle[0]) < 16:
        count = int(middle[0])
    else:
        raise _syntax(statement, 1)
    return Fetch(name, count, statement.word(0) == "MOVE")
