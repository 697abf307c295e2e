"""COPY ... TO STDOUT: the statement taken apart, and its three formats.

Source: PostgreSQL documentation, "COPY". Binary: signature, flags, then per row a count and values,
and a trailer of -1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._plan import Prepared, parse_declare
from strongroom.servers.pgwire._rows import CHUNK_ROWS, Column, Row, RowEncoder, Source, pulled
from strongroom.servers.pgwire._scan import Statement, Token, name_of, split, string_value

__all__ = ["CopyOut", "CopyWriter", "inner_query", "parse_copy", "query_inside"]

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_ESCAPES: Final = {
    0x5C: b"\\\\", 0x08: b"\\b", 0x0C: b"\\f", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x0B: b"\\v",
}  # fmt: skip


@dataclass(slots=True)
class CopyOut:
    """A COPY to the client. ``query``: the SELECT behind it."""

    query: str
    format: str = "text"
    delimiter: str = ""
    null: str | None = None
    header: bool = False
    quote: str = '"'
    escape: str = ""
    force_quote: frozenset[str] | None = frozenset()  # None: all columns

    def finish(self) -> CopyOut:
        """Fill in what depends on the format, and check it.

        Raises:
            PgError: 0A000 or 22023.
        """
        csv = self.format == "csv"
        self.delimiter = self.delimiter or ("," if csv else "\t")
        self.null = ("" if csv else "\\N") if self.null is None else self.null
        self.escape = self.escape or self.quote
        for name, value in (("delimiter", self.delimiter), ("quote", self.quote), ("escape", self.escape)):
            if len(value.encode()) != 1 or value in "\r\n":
                raise PgError("0A000", f"COPY {name} must be a single one-byte character")
        if "\n" in self.null or "\r" in self.null or self.delimiter in self.null:
            raise PgError("22023", "COPY null representation cannot hold the delimiter or line ends")
        return self


def _syntax(token: Token | None) -> PgError:
    if token is None:
        return PgError("42601", "syntax error at end of COPY")
    return PgError("42601", "syntax error in COPY", position=token.start + 1)


class _Parser:
    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self.tokens = statement.tokens
        self.at = 1

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def next(self) -> Token:
        token = self.peek()
        if token is None:
            raise _syntax(None)
        self.at += 1
        return token

    def accept(self, text: str) -> bool:
        token = self.peek()
        if token is not None and (token.upper or token.text) == text:
            self.at += 1
            return True
        return False

    def group(self) -> str:
        """The text inside parentheses, whose opening one was just read."""
        first = self.at
        depth = 1
        while depth:
            token = self.next()
            depth += (token.text == "(") - (token.text == ")")
        if self.at - 1 == first:
            raise _syntax(self.tokens[first])
        return self.statement.text[self.tokens[first].start : self.tokens[self.at - 2].end]

    def name(self) -> str:
        token = self.next()
        if name_of(token) is None:
            raise _syntax(token)
        return token.text

    def names(self) -> frozenset[str] | None:
        if self.accept("*"):
            return None
        parenthesised = self.accept("(")
        out = {name_of(self.next()) or ""}
        while self.accept(","):
            out.add(name_of(self.next()) or "")
        if parenthesised and not self.accept(")"):
            raise _syntax(self.peek())
        return frozenset(out)

    def text(self) -> str:
        token = self.next()
        value = string_value(token)
        if value is None:
            raise _syntax(token)
        return value


def parse_copy(statement: Statement) -> CopyOut:
    """Raises: PgError: 25006 COPY FROM; 42501 a file or program; 42601 syntax."""
    parser = _Parser(statement)
    if parser.accept("("):
        query = parser.group()
    else:
        table = parser.name()
        while parser.accept("."):
            table += "." + parser.name()
        columns = parser.group() if parser.accept("(") else "*"
        query = f"SELECT {columns} FROM {table}"  # noqa: S608  # checked by the front end like any other
    if parser.accept("FROM"):
        raise PgError("25006", "cannot execute COPY FROM in a read-only transaction")
    if not parser.accept("TO"):
        raise _syntax(parser.peek())
    if not parser.accept("STDOUT"):
        raise PgError("42501", "COPY goes to STDOUT only", hint="in psql, use \\copy")
    out = CopyOut(query)
    parser.accept("WITH")
    if parser.accept("("):
        _options(parser, out)
    else:
        _old_options(parser, out)
    if parser.peek() is not None:
        raise _syntax(parser.peek())
    return out.finish()


def _options(parser: _Parser, out: CopyOut) -> None:
    while True:
        option = parser.next()
        word = option.upper
        if word == "FORMAT":
            token = parser.next()
            out.format = string_value(token) or name_of(token) or ""
            if out.format not in ("text", "csv", "binary"):
                raise PgError("22023", "COPY format not recognized", position=token.start + 1)
        elif word == "HEADER":
            out.header = _boolean(parser)
        elif word in ("DELIMITER", "NULL", "QUOTE", "ESCAPE"):
            setattr(out, word.lower(), parser.text())
        elif word == "FORCE_QUOTE":
            out.force_quote = parser.names()
        elif word == "ENCODING":
            if parser.text().lower().replace("-", "") not in ("utf8", "unicode"):
                raise PgError("22023", "the only encoding is UTF8")
        else:
            raise PgError("42601", "COPY option not recognized", position=option.start + 1)
        if parser.accept(")"):
            return
        if not parser.accept(","):
            raise _syntax(parser.peek())


def _boolean(parser: _Parser) -> bool:
    token = parser.peek()
    if token is None or token.text in (",", ")"):
        return True
    parser.next()
    word = (string_value(token) or name_of(token) or token.text).lower()
    if word not in ("true", "on", "1", "false", "off", "0", "match"):
        raise _syntax(token)
    return word in ("true", "on", "1")


def _old_options(parser: _Parser, out: CopyOut) -> None:
    while (token := parser.peek()) is not None:
        parser.next()
        word = token.upper
        if word in ("CSV", "BINARY"):
            out.format = word.lower()
        elif word == "HEADER":
            out.header = True
        elif word in ("DELIMITER", "NULL", "QUOTE", "ESCAPE"):
            parser.accept("AS")
            setattr(out, word.lower(), parser.text())
        elif word == "FORCE" and parser.accept("QUOTE"):
            out.force_quote = parser.names()
        else:
            raise _syntax(token)


def inner_query(copy: CopyOut) -> Statement:
    """Raises: PgError: 42601: it is not one statement."""
    found = split(copy.query)
    if len(found) != 1:
        raise PgError("42601", "syntax error in COPY")
    return found[0]


class CopyWriter:
    """Rows as the payloads of CopyData messages."""

    def __init__(self, copy: CopyOut, columns: Sequence[Column]) -> None:
        self._copy = copy
        self._columns = columns
        self.binary = copy.format == "binary"
        self._encoder = RowEncoder(columns, (int(self.binary),) * len(columns))
        self._delimiter = copy.delimiter.encode()
        self._null = (copy.null or "").encode()
        self._header = _HEADER
        forced = copy.force_quote
        self._forced = [forced is None or c.name in forced for c in columns]

    def begin(self) -> list[bytes]:
        if self._copy.header and not self.binary:
            names: list[bytes | None] = [c.name.encode() for c in self._columns]
            return [self._line(names, [False] * len(names))]
        return []

    def pull(self, source: Source) -> list[bytes]:
        """Further rows, of about 64 KiB."""
        return pulled(source, CHUNK_ROWS, self.row)

    def row(self, row: Row) -> bytes:
        values = self._encoder.values(row)
        if not self.binary:
            return self._line(values, self._forced)
        out = [self._lead(), struct.pack("!h", len(values))]
        for value in values:
            out.append(b"\xff\xff\xff\xff" if value is None else struct.pack("!i", len(value)) + value)
        return b"".join(out)

    def end(self) -> list[bytes]:
        return [self._lead() + _TRAILER] if self.binary else []

    def _lead(self) -> bytes:
        """The header, once: clients expect it in one message with what comes first."""
        lead, self._header = self._header, b""
        return lead

    def _line(self, values: Sequence[bytes | None], forced: Sequence[bool]) -> bytes:
        if self._copy.format == "csv":
            cells = [self._csv(v, f) for v, f in zip(values, forced, strict=True)]
        else:
            cells = [self._null if v is None else self._escaped(v) for v in values]
        return self._delimiter.join(cells) + b"\n"

    def _escaped(self, value: bytes) -> bytes:
        delimiter = self._delimiter[0]
        if not any(b in _ESCAPES or b == delimiter for b in value):
            return value
        return b"".join(
            _ESCAPES.get(b) or (b"\\" + bytes([b]) if b == delimiter else bytes([b])) for b in value
        )

    def _csv(self, value: bytes | None, forced: bool) -> bytes:
        if value is None:
            return self._null
        quote, escape = self._copy.quote.encode(), self._copy.escape.encode()
        special = (quote, self._delimiter, b"\n", b"\r")
        lone = len(self._columns) == 1 and value == b"\\."
        if not (forced or value == self._null or lone or any(s in value for s in special)):
            return value
        body = value.replace(escape, escape * 2)
        if escape != quote:
            body = body.replace(quote, escape + quote)
        return quote + body + quote


def query_inside(prepared: Prepared) -> Statement:
    """The query that a statement carries: of DECLARE and COPY what stands in them, else itself."""
    if prepared.kind == "declare":
        return parse_declare(prepared.statement).query
    return inner_query(parse_copy(prepared.statement)) if prepared.kind == "copy" else prepared.statement
