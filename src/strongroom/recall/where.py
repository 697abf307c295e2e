"""``where``: one boolean SQL expression over the columns of a memory, checked and written anew.

The caller's text is never part of a statement that runs. It is read in five steps:

1. limits on bytes, brackets and prefix signs, before any parser sees it;
2. the engine's own parser makes a tree of ``SELECT rid FROM memories WHERE <text>``, which must be
   one statement and equal to the tree of ``... WHERE true`` in all but the condition, so that no
   UNION, GROUP BY, second statement or second table can hide in it;
3. ``_where_tree.Reader`` admits the condition node by node against an allow-list;
4. SQL is written from the admitted nodes, and parsed again: it must give the same nodes;
5. the engine binds it against an empty table: its type must be BOOLEAN.

Verdicts, refusals included, are kept by text.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.errors import InvalidFilterError
from strongroom.recall._where_tree import Clock, Column, Node, Reader, walk, write
from strongroom.recall.functions import CLOCKS, COLUMNS

__all__ = ["CheckedWhere", "WhereChecker"]

WHERE_BYTES_MAX: Final = 8 * 1024
BRACKETS_MAX: Final = 256  # the parser takes cubic time in brackets that never close
SIGNS_MAX: Final = 64  # and in chains of prefix operators
_SIGN: Final = re.compile(r"[-+~!@](?![A-Za-z0-9>=~])", re.ASCII)
_PREFIX: Final = "SELECT rid FROM memories WHERE "

SUBSTITUTES: Final[dict[Column | Clock, str]] = {
    Column("namespace"): "CAST($namespace AS VARCHAR)",
    **{
        Clock(name): (
            "make_timestamptz(CAST($now_us AS BIGINT))"
            if type_ == "TIMESTAMPTZ"
            else "CAST(make_timestamptz(CAST($now_us AS BIGINT)) AS DATE)"
        )
        for name, type_ in CLOCKS.items()
    },
}
"""What stands in the running statement for the leaves that are parameters of the request."""


@dataclass(frozen=True, slots=True)
class CheckedWhere:
    """An expression that passed.

    ``sql`` runs over the columns of a table; it may hold the parameters ``$namespace`` (when
    ``"namespace" in columns``) and ``$now_us`` (when ``uses_clock``), int microseconds UTC.
    """

    sql: str = field(repr=False)
    columns: frozenset[str]
    uses_clock: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    message: str
    hint: str | None


class WhereChecker:
    """Checks expressions; safe to share between threads.

    ``parse(statement)`` returns the engine's tree as JSON text (``json_serialize_sql`` without
    defaults). ``bind(checked)`` returns the name of the type, or None when it does not bind.
    """

    def __init__(
        self,
        parse: Callable[[str], str],
        bind: Callable[[CheckedWhere], str | None],
        *,
        bytes_max: int = WHERE_BYTES_MAX,
        cache_entries_max: int = 1024,
    ) -> None:
        self._parse = parse
        self._bind = bind
        self._bytes_max = bytes_max
        self._entries_max = cache_entries_max
        self._cache: OrderedDict[str, CheckedWhere | _Refusal] = OrderedDict()
        self._lock = threading.Lock()
        self._reference = self._statement("true")
        self._reference["statements"][0]["node"].pop("where_clause")

    def check(self, text: str) -> CheckedWhere:
        """The expression in ``text``, ready to run.

        Raises:
            InvalidFilterError: it is not one boolean expression of what docs/filters.md allows.
        """
        if not isinstance(text, str):
            raise InvalidFilterError("where: must be text")
        with self._lock:
            known = self._cache.get(text)
            if known is not None:
                self._cache.move_to_end(text)
        if known is None:
            try:
                known = self._check(text)
            except InvalidFilterError as e:
                known = _Refusal(e.message, e.hint)
            if len(text) <= self._bytes_max:
                with self._lock:
                    self._cache[text] = known
                    while len(self._cache) > self._entries_max:
                        self._cache.popitem(last=False)
        if isinstance(known, _Refusal):
            raise InvalidFilterError(known.message, hint=known.hint)
        return known

    def _check(self, text: str) -> CheckedWhere:
        self._check_limits(text)
        node = self._read(text)
        again = self._read(write(node))
        if again != node:
            raise InvalidFilterError(
                "where: this form of expression is not supported", hint="write it in a simpler way"
            )
        leaves = walk(node)
        checked = CheckedWhere(
            sql=write(node, SUBSTITUTES),
            columns=frozenset(n.name for n in leaves if isinstance(n, Column)),
            uses_clock=any(isinstance(n, Clock) for n in leaves),
        )
        bound = self._bind(checked)
        if bound is None:
            types = ", ".join(f"{c} {t}" for c, t in COLUMNS.items())
            raise InvalidFilterError(
                "where: an operation does not fit the types of its operands", hint=f"types: {types}"
            )
        if bound != "BOOLEAN":
            raise InvalidFilterError(
                "where: the expression is not a condition",
                hint="it must be true or false, as in importance > 0.5",
            )
        return checked

    def _check_limits(self, text: str) -> None:
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise InvalidFilterError("where: the text is not valid Unicode") from None
        if size > self._bytes_max:
            raise InvalidFilterError(f"where: longer than {self._bytes_max} bytes")
        if "\x00" in text:
            raise InvalidFilterError("where: the text holds a zero character")
        if text.count("(") + text.count("[") + text.count("{") > BRACKETS_MAX:
            raise InvalidFilterError(f"where: more than {BRACKETS_MAX} opening brackets")
        if sum(1 for _ in _SIGN.finditer(text)) > SIGNS_MAX:
            raise InvalidFilterError(f"where: more than {SIGNS_MAX} free-standing signs")

    def _read(self, text: str) -> Node:
        document = self._statement(text)
        try:
            condition = document["statements"][0]["node"].pop("where_clause")
        except (KeyError, IndexError, TypeError, AttributeError):
            condition = None
        if condition is None or document != self._reference:
            raise InvalidFilterError(
                "where: not one single expression",
                hint="only the condition itself: no ORDER BY, GROUP BY, LIMIT, UNION or further statement",
            )
        return Reader().read(condition)

    def _statement(self, text: str) -> dict[str, Any]:
        # The line end closes a comment that the text may have opened.
        try:
            document = json.loads(self._parse(f"{_PREFIX}{text}\n"))
        except RecursionError:
            raise InvalidFilterError("where: the expression is nested too deeply") from None
        if not isinstance(document, dict) or document.get("error") is not False:
            raise InvalidFilterError("where: not a SQL expression", hint=_syntax_hint(document))
        return document


def _syntax_hint(document: object) -> str:
    position = document.get("position") if isinstance(document, dict) else None
    if isinstance(position, str) and position.isdigit() and int(position) >= len(_PREFIX):
        return f"syntax error near character {int(position) - len(_PREFIX) + 1}"
    return "for example: kind = 'observation' AND importance > 0.5"
