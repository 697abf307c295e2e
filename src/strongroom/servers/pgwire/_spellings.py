"""Operators, literals and casts that PostgreSQL writes in its own way, as the engine writes them.

Only forms whose meaning is the same are rewritten; where the operands of an operator cannot be told from the
tokens with certainty, it stays as it is and the engine refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._scan import Statement, Token, string_value

__all__ = ["Spellings", "array_list", "quoted"]

_HEX: Final = re.compile(r"\\x((?:[0-9a-fA-F]{2})*)")
_PARTS: Final = ("years", "months", "weeks", "days", "hours", "mins", "secs")
_LOCKS: Final = frozenset({"UPDATE", "SHARE", "NO", "KEY"})
_LISTS: Final = frozenset({"text", "varchar"})
_BEFORE: Final = frozenset(
    ["SELECT", "WHERE", "AND", "OR", "NOT", "ON", "WHEN", "THEN", "ELSE", "BY", "HAVING", "DISTINCT",
     "QUALIFY", "CASE"]
)  # fmt: skip
_AFTER: Final = frozenset(
    ["AS", "FROM", "WHERE", "AND", "OR", "THEN", "ELSE", "END", "ORDER", "GROUP", "LIMIT", "HAVING", "ASC",
     "DESC", "UNION", "IN", "IS", "WHEN", "OFFSET", "QUALIFY"]
)  # fmt: skip
_BOUNDS: Final = frozenset({"", "(", ")", ",", "=", "<", ">"})
_POINTER: Final = "lambda x: '/' || replace(replace(trim(x, ' \"'), '~', '~0'), '/', '~1')"
_DEPTH_MAX: Final = 8


def quoted(value: str | int) -> str:
    """A literal."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


class Spellings:
    """What a writer of statements knows of PostgreSQL's own spellings."""

    def __init__(self, statement: Statement, names: Sequence[str | None]) -> None:
        self._statement = statement
        self._tokens: tuple[Token, ...] = statement.tokens
        self._names = names
        self._out = [t.text for t in self._tokens]  # one text for each token; replaced ones become empty
        self._changed = False
        self._pairs: dict[int, int] | None = None

    def _put(self, index: int, text: str) -> None:
        self._out[index] = text
        self._changed = True

    def _clear(self, start: int, end: int) -> None:
        for index in range(start, end):
            self._put(index, "")

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _upper(self, index: int) -> str:
        return self._tokens[index].upper if 0 <= index < len(self._tokens) else ""

    def _touches(self, index: int, text: str) -> bool:
        """Whether ``text`` follows the token before without a space."""
        return self._text(index) == text and self._tokens[index].start == self._tokens[index - 1].end

    def _closing(self, index: int) -> int:
        """Where the bracket that opens at ``index`` closes; the end, if it does not."""
        return self._brackets().get(index, len(self._tokens))

    def _opening(self, index: int) -> int:
        """Where the bracket that closes at ``index`` opens; before the beginning, if it does not."""
        return self._brackets().get(index, -1)

    def _brackets(self) -> dict[int, int]:
        """Each bracket's other one; found once, for all who ask."""
        if self._pairs is None:
            self._pairs = {}
            opened = []
            for index, token in enumerate(self._tokens):
                if token.text in ("(", "["):
                    opened.append(index)
                elif token.text in (")", "]") and opened:
                    other = opened.pop()
                    self._pairs[other], self._pairs[index] = index, other
        return self._pairs

    # -- what is refused under its own name ---------------------------------------------------------------
    def _refuse(self, index: int) -> None:
        """Raises: PgError: 25006 for a lock on rows; 0A000 for WITH TIES."""
        word, after = self._upper(index), self._upper(index + 1)
        if word == "FOR" and after in _LOCKS and self._text(index - 1) != "(":
            raise PgError("25006", "cannot lock rows: this surface is read-only", hint="leave FOR UPDATE out")
        if word == "WITH" and after == "TIES":
            raise PgError("0A000", "WITH TIES is not supported", hint="use QUALIFY rank() OVER (...) <= n")

    # -- # and #>> ----------------------------------------------------------------------------------------
    def _hash(self, index: int) -> int:
        """``a # b``, ``json #> path``, ``json #>> path``; the index of the next token to look at."""
        if not self._touches(index + 1, ">"):
            return self._exclusive_or(index)
        length = 3 if self._touches(index + 2, ">") else 2
        made = self._path(index + length)
        if made is None:
            raise PgError("0A000", "the path of #> and #>> is a literal, a parameter or an ARRAY")
        text, end = made
        self._clear(index, end)
        self._put(index, f"{'->>' if length == 3 else '->'} {text}")
        return end

    def _path(self, index: int) -> tuple[str, int] | None:
        """A path as the engine takes it, a JSON pointer, and where it ends."""
        kind, text = (self._tokens[index].kind, self._text(index)) if index < len(self._tokens) else ("", "")
        if self._upper(index) == "ARRAY" and self._text(index + 1) == "[":
            end = self._closing(index + 1) + 1
            inner = "".join(
                self._statement.text[t.start : t.end] + " " for t in self._tokens[index + 1 : end]
            )
            if self._text(end) == "::" and self._names_at(end + 1) in _LISTS:
                end += 4 if self._text(end + 2) == "[" else 2
            return f"array_to_string(list_transform({inner}, {_POINTER}), '')", end
        end = index + 1
        cast = self._text(end) == "::" and self._names_at(end + 1) in _LISTS
        listed = cast and self._text(end + 2) == "[" and self._text(end + 3) == "]"
        if cast:
            end += 4 if listed else 2
        value = string_value(self._tokens[index]) if kind == "string" else None
        if value is not None:
            parts = array_parts(value)
            if parts is None or not all(isinstance(p, str) for p in parts):
                return None
            steps = (str(p).replace("~", "~0").replace("/", "~1") for p in parts)
            return quoted("".join("/" + s for s in steps)), end
        if kind != "param":
            return None
        words = text if listed else f"list_filter(string_split(trim({text}, '{{}}'), ','), lambda x: x <> '')"
        return f"array_to_string(list_transform({words}, {_POINTER}), '')", end

    def _names_at(self, index: int) -> str | None:
        return self._names[index] if 0 <= index < len(self._names) else None

    def _exclusive_or(self, index: int) -> int:
        """``a # b`` as ``xor(a, b)``, where nothing beside the operands could bind more tightly."""
        start, end = self._operand(index), self._operand_end(index + 1)
        before, after = self._text(start - 1), self._text(end)
        if end == index + 1 or start == index:
            return index + 1
        if not (before in _BOUNDS or self._upper(start - 1) in _BEFORE):
            return index + 1
        if not (after in _BOUNDS or self._upper(end) in _AFTER):
            return index + 1
        self._put(start, "xor(" + self._out[start])
        self._put(index, ",")
        self._put(end - 1, self._out[end - 1] + ")")
        return index + 1

    def _operand_end(self, index: int) -> int:
        """Where the primary expression that begins here ends; here, when there is none that is known."""
        if index >= len(self._tokens):
            return index
        token, end = self._tokens[index], index + 1
        if token.text == "(":
            end = self._closing(index) + 1
        elif token.kind in ("word", "quoted"):
            if token.upper in _BEFORE:
                return index
            while self._text(end) == "." and self._names_at(end + 1) is not None:
                end += 2
            if self._text(end) == "(":
                end = self._closing(end) + 1
        elif token.kind not in ("number", "param", "string"):
            return index
        while self._text(end) == "::" and self._names_at(end + 1) is not None:
            end += 2
        return min(end, len(self._tokens))

    def _operand(self, cast: int) -> int:
        """Where the operand of a postfix cast begins."""
        at = cast
        while True:
            at -= 1
            if self._text(at) in (")", "]"):
                at = self._opening(at)
                called = self._upper(at - 1) not in ("IN", "ANY", "AND", "OR", *_BEFORE)
                at -= self._names_at(at - 1) is not None and called
            while at >= 2 and self._text(at - 1) == "." and self._names[at - 2] is not None:
                at -= 2
            if at < 2 or self._tokens[at - 1].kind != "cast":
                return max(at, 0)
            at -= 1  # a::oid::regclass

    # -- literals that are cast ---------------------------------------------------------------------------
    def _literal(self, index: int, type_: int, end: int) -> None:
        """A string at ``index`` that is cast to the type at ``type_``, which ends before ``end``."""
        value = string_value(self._tokens[index]) if 0 <= index < len(self._tokens) else None
        if value is None:
            return
        if self._names_at(type_) == "bytea" and end == type_ + 1 and (found := _HEX.fullmatch(value)):
            self._put(index, f"from_hex({quoted(found[1])})")
        elif self._text(end - 2) == "[" and self._text(end - 1) == "]" and (made := array_list(value)):
            text, depth = made
            self._put(index, text)
            self._put(end - 1, "]" + "[]" * (depth - 1))

    def _precision(self, index: int) -> None:
        """``interval(6)``: intervals here have microseconds, and no precision."""
        digits = self._text(index + 2).isdecimal()
        if digits and self._text(index + 1) == "(" and self._text(index + 3) == ")":
            self._clear(index + 1, index + 4)

    def _as_subquery(self, index: int) -> None:
        """``FROM f(x) s`` as ``FROM (SELECT f(x) AS s) s``; a subquery gives the same among expressions."""
        end = self._closing(index + 1)
        alias = end + 2 if self._upper(end + 1) == "AS" else end + 1
        if self._names_at(alias) is None or self._upper(alias) in _AFTER:
            return
        if not self._in_from(index):
            return
        self._put(index, "(SELECT " + self._out[index])
        self._put(alias, f"AS {self._text(alias)}) {self._text(alias)}")
        self._put(alias - 1, ")")

    def _in_from(self, index: int) -> bool:
        """Whether a function that is called here stands for a relation."""
        before = index - 1
        while before > 0 and self._text(before) == ".":
            before -= 2
        return self._text(before) == "," or self._upper(before) in ("FROM", "JOIN")

    def _of_array(self, index: int) -> None:
        """``x = ANY (ARRAY (SELECT ...))`` as ``x = ANY (SELECT ...)``, and ``ANY ('{a,b}')`` as a list."""
        if self._upper(index) not in ("ANY", "SOME", "ALL") or self._text(index + 1) != "(":
            return
        if self._text(index + 3) == ")" and self._tokens[index + 2].kind == "string":
            value = string_value(self._tokens[index + 2])
            if value is not None and (made := array_list(value)) is not None and made[1] == 1:
                self._put(index + 2, made[0])
        elif self._upper(index + 2) == "ARRAY" and self._text(index + 3) == "(":
            end = self._closing(index + 3)
            if self._upper(index + 4) in ("SELECT", "WITH") and self._closing(index + 1) == end + 1:
                for at in (index + 2, index + 3, end):
                    self._put(at, "")

    def _unnest(self, index: int) -> None:
        """``FROM unnest(a, b) WITH ORDINALITY t(x, y, n)``: several arrays side by side, and their places."""
        end = self._closing(index + 1)
        commas = self._commas(index + 1, end)
        at = end + 1
        numbered = self._upper(at) == "WITH" and self._upper(at + 1) == "ORDINALITY"
        at += 2 * numbered
        at += self._upper(at) == "AS"
        last = self._closing(at + 1) if self._text(at + 1) == "(" else at
        columns = [self._text(i) for i in range(at + 2, last, 2)]
        plain = all(self._names_at(i) is not None for i in (at, *range(at + 2, last, 2)))
        plain = plain and all(self._text(i) == "," for i in range(at + 3, last, 2))
        if not plain or last >= len(self._tokens) or not self._in_from(index):
            return
        if not commas or len(columns) != len(commas) + 1 + numbered:
            return
        bounds = [index + 1, *commas, end]
        raw = [self._statement.text[self._tokens[a].end : self._tokens[b].start] for a, b in pairwise(bounds)]
        self._put(index, "(SELECT unnest")
        for comma, column in zip(commas, columns, strict=False):
            self._put(comma, f") AS {column}, unnest(")
        lengths = ", ".join(f"len({a})" for a in raw)
        places = f", unnest(range(1, greatest({lengths}) + 1)) AS {columns[-1]}" if numbered else ""
        self._put(end, f") AS {columns[len(commas)]}{places}) {self._text(at)}")
        self._clear(end + 1, last + 1)

    def _commas(self, start: int, end: int) -> list[int]:
        """The commas between what stands in the brackets from ``start`` to ``end``."""
        found, depth = [], 0
        for at in range(start, min(end, len(self._tokens))):
            depth += (self._text(at) in ("(", "[")) - (self._text(at) in (")", "]"))
            if self._text(at) == "," and depth == 1:
                found.append(at)
        return found

    def _date_bin(self, index: int) -> None:
        """``date_bin(stride, time, 'origin')``: a text as origin would be taken for a time zone."""
        self._put(index, "time_bucket")
        last = self._closing(index + 1) - 1
        if last < len(self._tokens) - 1 and self._tokens[last].kind == "string":
            self._put(last, f"CAST({self._out[last]} AS timestamptz)")

    # -- make_interval ------------------------------------------------------------------------------------
    def _make_interval(self, index: int) -> int:
        """``make_interval(days => x, ...)`` as a sum; the index of the next token to look at."""
        end = self._closing(index + 1)
        starts = [index + 2, *(comma + 1 for comma in self._commas(index + 1, end))]
        if end >= len(self._tokens) or end == index + 2 or len(starts) > len(_PARTS):
            return index + 1
        for number, start in enumerate(starts):
            name, first = _PARTS[number], start
            if self._text(start + 1) == "=" and self._touches(start + 2, ">"):
                name, first = self._names_at(start) or "", start + 3
                self._clear(start, first)
            if name not in _PARTS or first >= end:
                raise PgError("42883", "make_interval takes years, months, weeks, days, hours, mins and secs")
            stop = starts[number + 1] - 1 if number + 1 < len(starts) else end
            opens, closes = f"to_{_UNITS.get(name, name)}(", ")"
            if name == "secs":
                opens, closes = "to_microseconds(CAST(round((", ") * 1000000) AS BIGINT))"
            self._put(first, opens + self._out[first])
            self._put(stop, closes + (" + " if stop != end else ")"))
        self._put(index, "")
        return index + 2


_UNITS: Final = {"mins": "minutes"}


# -- arrays in the form of PostgreSQL ---------------------------------------------------------------------
Parts = list["str | Parts | None"]
_SPACE: Final = re.compile(r"\s*")
_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"|([^\s{},"\\]++(?:\s++[^\s{},"\\]++)*+)', re.DOTALL)


def array_parts(text: str) -> Parts | None:
    """``{a,"b c",NULL,{d}}`` as lists of texts and None; None: it is not such a text."""
    made, end = _array(text, _skip(text, 0), 1)
    return made if made is not None and _skip(text, end) == len(text) else None


def _skip(text: str, at: int) -> int:
    """Past the space that begins here."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _array(text: str, at: int, depth: int) -> tuple[Parts | None, int]:
    out: Parts = []
    if depth > _DEPTH_MAX or text[at : at + 1] != "{":
        return None, at
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return out, at + 1
    while True:
        if text[at : at + 1] == "{":
            inner, at = _array(text, at, depth + 1)
            if inner is None:
                return None, at
            out.append(inner)
        elif item := _ITEM.match(text, at):
            out.append(
                re.sub(r"\\(.)", r"\1", item[1], flags=re.DOTALL) if item[2] is None else _or_null(item[2])
            )
            at = item.end()
        else:
            return None, at
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return out, at + 1
        if text[at : at + 1] != ",":
            return None, at
        at = _skip(text, at + 1)


def _or_null(word: str) -> str | None:
    return None if word.upper() == "NULL" else word


def array_list(text: str) -> tuple[str, int] | None:
    """The same as a list of the engine, and how deep it is; None: it is not such a text."""
    parts = array_parts(text)
    return None if parts is None else (_listed(parts), _depth(parts))


def _listed(parts: Parts) -> str:
    shown = (_listed(p) if isinstance(p, list) else "NULL" if p is None else quoted(p) for p in parts)
    return "[" + ", ".join(shown) + "]"


def _depth(parts: Parts) -> int:
    return 1 + max((_depth(p) for p in parts if isinstance(p, list)), default=0)
