"""Names of columns as PostgreSQL would give them, where the engine makes names of its own.

A column without an alias is called after its expression by the engine (``count_star()``, ``CAST(a AS
DATE)``); PostgreSQL takes the function's name, the cast's column or type, or ``?column?``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from strongroom.servers.pgwire._scan import Statement, Token, name_of

__all__ = ["shown_names"]

_PLAIN: Final = re.compile(r"[^\W\d][\w$]*")
_UNNAMED: Final = "?column?"
_ENDS: Final = frozenset(
    [
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "WINDOW",
        "QUALIFY",
        "FETCH",
        "FOR",
    ]
)
_TYPE_NAMES: Final = {
    "INTEGER": "int4", "INT": "int4", "BIGINT": "int8", "SMALLINT": "int2", "REAL": "float4",
    "FLOAT": "float8", "DOUBLE": "float8", "BOOLEAN": "bool", "DECIMAL": "numeric", "STRING": "text",
}  # fmt: skip

_WORDS: Final = {"TRUE": "bool", "FALSE": "bool", "NULL": _UNNAMED}
_LITERALS: Final = frozenset({"DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL"})


def shown_names(statement: Statement, names: Sequence[str]) -> list[str]:
    """``names`` with those that the engine made up replaced."""
    doubtful = [i for i, n in enumerate(names) if not _PLAIN.fullmatch(n) or n.upper() in _WORDS]
    if not doubtful:
        return list(names)
    items = _select_list(statement)
    out = list(names)
    if items is None or len(items) != len(names):  # a star, or no plain SELECT
        quoted = {name_of(t) for t in statement.tokens if t.kind == "quoted"}
        for i in doubtful:
            if names[i] not in quoted:
                head = re.match(r'"?([a-z_][\w]*)"?\(', names[i])
                out[i] = _function(head[1]) if head else _UNNAMED
        return out
    for i in doubtful:
        out[i] = _name(items[i])
    return out


def _function(name: str) -> str:
    return {"count_star": "count"}.get(name, name)


def _select_list(statement: Statement) -> list[list[Token]] | None:
    """The items of the outermost SELECT, each as tokens; None when a star hides their number."""
    tokens = statement.tokens
    at = _main_select(tokens)
    if at is None:
        return None
    items: list[list[Token]] = [[]]
    depth = 0
    for token in tokens[at + 1 :]:
        if token.text in ("(", "["):
            depth += 1
        elif token.text in (")", "]"):
            depth -= 1
            if depth < 0:
                break
        if depth == 0 and token.upper in _ENDS and not (items[-1] and items[-1][-1].text == "."):
            break
        if depth == 0 and token.text == ",":
            items.append([])
        else:
            items[-1].append(token)
    if items[0] and items[0][0].upper in ("DISTINCT", "ALL"):
        items[0].pop(0)
    if any(not item or item[-1].text == "*" for item in items):
        return None
    return items


def _main_select(tokens: Sequence[Token]) -> int | None:
    depth = 0
    for index, token in enumerate(tokens):
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        elif depth == 0 and token.upper == "SELECT":
            return index
    return None


def _name(item: Sequence[Token]) -> str:
    last = item[-1]
    if len(item) > 2 and item[-2].upper == "AS":
        return name_of(last) or _UNNAMED
    if len(item) > 1 and last.kind == "quoted" and item[-2].text != ".":
        return name_of(last) or _UNNAMED
    for index in range(len(item) - 1, 0, -1):  # the last cast: its column, or else its type
        if item[index].kind == "cast":
            inner = _name(item[:index])
            if inner != _UNNAMED:
                return inner
            words = [t.upper for t in item[index + 1 :] if t.kind in ("word", "quoted")]
            return _TYPE_NAMES.get(words[-1], words[-1].lower()) if words and words[-1] else _UNNAMED
    if len(item) == 1 or (len(item) > 2 and item[-2].text == "."):
        return _WORDS.get(last.upper) or name_of(last) or _UNNAMED
    if len(item) == 2 and last.kind == "string" and item[0].upper in _LITERALS:
        return item[0].text.lower()
    if name_of(item[0]) is None:
        return _UNNAMED
    return _call_name(item)


def _call_name(item: Sequence[Token]) -> str:
    """Of an item that begins with a name and is no column."""
    if item[0].upper in ("CASE", "EXISTS"):
        return item[0].text.lower()
    if item[0].upper == "CAST" and item[1].text == "(":
        return _cast_name(item)
    at = 0
    while at + 2 < len(item) and item[at + 1].text == ".":
        at += 2
    if at + 1 < len(item) and item[at + 1].text == "(" and _closes(item, at + 1) in _last_or_over(item):
        return name_of(item[at]) or _UNNAMED
    return _UNNAMED


def _cast_name(item: Sequence[Token]) -> str:
    end = next((i for i in range(len(item) - 1, 0, -1) if item[i].upper == "AS"), None)
    if end is None:
        return _UNNAMED
    inner = _name(item[2:end]) if end > 2 else _UNNAMED
    if inner != _UNNAMED:
        return inner
    word = item[end + 1].upper if end + 1 < len(item) else ""
    return _TYPE_NAMES.get(word, word.lower()) or _UNNAMED


def _closes(item: Sequence[Token], opening: int) -> int:
    depth = 0
    for index in range(opening, len(item)):
        depth += (item[index].text == "(") - (item[index].text == ")")
        if not depth:
            return index
    return -1


def _last_or_over(item: Sequence[Token]) -> set[int]:
    """Where the call may end: at the end, or before OVER or FILTER."""
    ends = {len(item) - 1}
    ends.update(i - 1 for i, t in enumerate(item) if t.upper in ("OVER", "FILTER", "WITHIN"))
    return ends
