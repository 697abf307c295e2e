"""PostgreSQL's tokens: enough to split statements, to know commands, and to find names that need rewriting.

Nothing here decides what a caller may do: what comes out is checked by the SQL front end as if the client
had written it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Statement", "Token", "name_of", "split", "string_value", "tokens"]

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s++|--[^\r\n]*+)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]++|\\.|'')*+' | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+')
    | (?P<quoted>(?:[uU]&)?"(?:[^"]++|"")*+")
    | (?P<dollar>\$(?:[^\W\d]\w*+)?\$)
    | (?P<param>\$\d++)
    | (?P<number>(?:\d[\d_]*+(?:\.(?!\.)\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)
    | (?P<word>[^\W\d][\w$]*+)
    | (?P<cast>::)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: space, string, quoted, param, number, word, cast or other. ``start`` counts characters."""

    kind: str
    text: str
    start: int

    @property
    def upper(self) -> str:
        """The word in capitals; empty for anything else."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its text, and its tokens without space and comments."""

    text: str
    tokens: tuple[Token, ...]
    start: int = 0

    def word(self, index: int) -> str:
        """The token at ``index`` in capitals, when it is a word."""
        return self.tokens[index].upper if index < len(self.tokens) else ""


def tokens(sql: str) -> Iterator[Token]:
    """All tokens in order; what does not end (a quote, a comment) is one last token of kind other."""
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:  # cannot be: the last branch takes any character
            return
        kind, end = match.lastgroup or "other", match.end()
        if kind == "comment":
            kind, end = "space", _comment_end(sql, end)
        elif kind == "dollar":
            close = sql.find(match[0], end)
            kind, end = ("string", close + len(match[0])) if close >= 0 else ("other", len(sql))
        elif kind == "other" and match[0] in "'\"":
            end = len(sql)
        yield Token(kind, sql[at:end], at)
        at = end


def _comment_end(sql: str, at: int) -> int:
    depth = 1
    for mark in _COMMENT.finditer(sql, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def split(sql: str) -> list[Statement]:
    """The statements between semicolons; empty ones are left out."""
    out: list[Statement] = []
    part: list[Token] = []

    def close(end: int) -> None:
        if part:
            start = part[0].start
            shifted = tuple(Token(t.kind, t.text, t.start - start) for t in part)
            out.append(Statement(sql[start:end], shifted, start))
            part.clear()

    for token in tokens(sql):
        if token.kind == "space":
            continue
        if token.text == ";" and token.kind == "other":
            close(part[-1].end if part else 0)
        else:
            part.append(token)
    close(part[-1].end if part else 0)
    return out


def name_of(token: Token) -> str | None:
    """The name that a word or a quoted identifier stands for; None for anything else."""
    if token.kind == "word":
        return token.text.lower()
    if token.kind == "quoted" and token.text.startswith('"'):
        return token.text[1:-1].replace('""', '"')
    return None


def string_value(token: Token) -> str | None:
    """The text of a plain string literal; None for anything else."""
    text = token.text
    if token.kind != "string":
        return None
    if text.startswith("$"):
        tag = text[: text.index("$", 1) + 1]
        return text[len(tag) : -len(tag)]
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text[0] in "eE":
        return re.sub(r"\\(.)|''", lambda m: m[1] or "'", text[2:-1], flags=re.DOTALL)
    return None


def joined(parts: Sequence[Token]) -> str:
    """Tokens as text again, with one space between."""
    return " ".join(t.text for t in parts)
