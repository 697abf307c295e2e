"""Statements that give rows: to the engine's SQL, or to the catalogue of what is here.

Everything in this module blocks and runs in worker threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from strongroom.engine import NO_EXTENSION, SqlExtension, Standing
from strongroom.model import SqlCancel
from strongroom.recall.sql import RELATIONS
from strongroom.servers.pgwire._catalog import Catalog, Reply
from strongroom.servers.pgwire._contract import SqlSession
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._names import shown_names
from strongroom.servers.pgwire._rewrite import Constants, Rewritten, rewrite
from strongroom.servers.pgwire._rows import Column, Row, Source, columns_of
from strongroom.servers.pgwire._scan import Statement, name_of
from strongroom.servers.pgwire._settings import Settings
from strongroom.servers.pgwire._types import array_of, duckdb_of, named, oid_of, type_of

__all__ = ["Queries"]

_UNKNOWN: Final = "UNKNOWN"
_KNOWN_MAX: Final = 128  # statements that a connection remembers in the form that the engine gets ...
_KNOWN_LENGTH_MAX: Final = 4_096  # ... up to this length
_TEXT: Final = 25
_PARAMETERS_MAX: Final = 65_535
_CATALOG_TYPES: Final = {1016: 1028}  # lists of object ids, which drivers know without asking further
_LISTS: Final = frozenset({1005, 1016})
_VECTORS: Final = {"proargtypes": 30, "indcollation": 30, "indclass": 30, "indkey": 22, "indoption": 22}
_TEXTUAL_TYPES: Final = frozenset({"regclass", "regtype", "regproc", "regnamespace", "char", "name"})
_COLUMN_TYPES: Final = {
    name: kind for columns in RELATIONS.values() for name, kind in columns.items() if not kind.endswith("]")
}


class Queries:
    """The queries of one connection."""

    def __init__(
        self, session: SqlSession, catalog: Catalog, settings: Settings, user: str, process_id: int
    ) -> None:
        self._session = session
        self._settings = settings
        self.set_config: Callable[[str, str, bool], object] = lambda name, value, _: settings.set(name, value)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._catalog = catalog.connect(settings, user, process_id)

    def close(self) -> None:
        self._catalog.close()

    def describe(
        self, statement: Statement, declared: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[Column, ...]]:
        """Types of the parameters and columns of the answer.

        Raises:
            StrongroomError, PgError: the statement cannot be answered.
        """
        self._say()
        ready = self._rewritten(statement)
        count = max(_parameter_count(statement), len(declared))
        casts = _cast_parameters(statement)
        known = [*declared, *([0] * (count - len(declared)))]
        given = [o or casts.get(i, 0) for i, o in enumerate(known)]
        lists = _list_parameters(statement)
        names = [duckdb_of(o) or lists.get(i, _UNKNOWN) for i, o in enumerate(given)]
        if ready.catalog:
            self._session.whoami()
            inferred, found = self._catalog.describe(ready.text, names)
        else:
            self._session.sql_extension = self._extension(ready)
            described = self._session.sql_describe(ready.text, names)
            inferred = list(described.parameter_types)
            found = [(c.name, c.type) for c in described.columns]
        types = tuple(o or _inferred(inferred[i] if i < len(inferred) else "") for i, o in enumerate(given))
        if ready.catalog:
            types = tuple(_CATALOG_TYPES.get(o, o) for o in types)
        return types, self._columns(statement, ready, found)

    def open(self, statement: Statement, values: Sequence[Any], cancel: SqlCancel) -> Source:
        """Carry it out.

        Raises:
            StrongroomError, PgError: the statement cannot be answered.
        """
        self._say()
        ready = self._rewritten(statement)
        source = self._begun(statement, ready, values, cancel)
        for name, value, local in ready.settings:
            self.set_config(name, value, local)
        return source

    def _begun(
        self, statement: Statement, ready: Rewritten, values: Sequence[Any], cancel: SqlCancel
    ) -> Source:
        if ready.catalog:
            self._session.whoami()
            reply: Reply = self._catalog.run(ready.text, values, cancel)
            shown = self._columns(statement, ready, reply.columns)
            return Source(shown, reply.fetch, reply.size, self._looks(None))
        self._session.sql_extension = self._extension(ready)
        result = self._session.sql(ready.text, values, cancel=cancel)
        for notice in result.notices:
            self._settings.warnings.append(("01000", f"{notice.message} ({notice.namespace})"))
        columns = self._columns(statement, ready, [(c.name, c.type) for c in result.columns])

        def part(count: int) -> Sequence[Row]:
            if cancel.cancelled:
                raise PgError("57014", "canceling statement due to user request")
            return result.fetch(count)

        return Source(columns, part, result.nbytes, self._looks(self._session.stood))

    def _looks(self, stood: Standing | None) -> Callable[[], None]:
        """Looks whether the caller still may what it might when a statement began: cursors live long."""
        return partial(self._session.check_standing, stood)

    def _say(self) -> None:
        """The settings strongroom.purpose and strongroom.reason hold for the statement that comes."""
        context, words = self._session.context, self._settings.words
        if words != {name: getattr(context, name) for name in words}:
            self._session.context = replace(context, **words)

    def _extension(self, ready: Rewritten) -> SqlExtension:
        return self._catalog.extension() if ready.mixed else NO_EXTENSION

    def _rewritten(self, statement: Statement) -> Rewritten:
        """What the engine gets; remembered where it depends on nothing but the text."""
        known = self._known.get(statement.text)
        if known is not None:
            self._known.move_to_end(statement.text)
            return known.ready
        constants, asked = _noting(self._catalog.constants)
        ready = rewrite(statement, constants)
        if not asked and not ready.settings and len(statement.text) <= _KNOWN_LENGTH_MAX:
            self._known[statement.text] = _Known(ready)
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return ready

    def _columns(
        self, statement: Statement, ready: Rewritten, found: Sequence[tuple[str, str]]
    ) -> tuple[Column, ...]:
        known = self._known.get(statement.text)
        if known is None:
            return _shown_columns(statement, ready, found)
        if known.found != found:
            known.found, known.columns = list(found), _shown_columns(statement, ready, found)
        return known.columns


@dataclass(slots=True)
class _Known:
    """A statement of this connection, and its columns when it was last carried out."""

    ready: Rewritten
    found: list[tuple[str, str]] | None = None
    columns: tuple[Column, ...] = ()


def _noting(constants: Constants) -> tuple[Constants, list[str]]:
    """The same constants, and the names of those that have been asked for."""
    asked: list[str] = []

    def value(name: str) -> str | int:
        asked.append(name)
        return constants.values(name)

    def setting(name: str) -> str | None:
        asked.append(name)
        return constants.setting(name)

    return Constants(value, setting), asked


def _shown_columns(
    statement: Statement, ready: Rewritten, found: Sequence[tuple[str, str]]
) -> tuple[Column, ...]:
    columns = columns_of(found)
    names = shown_names(statement, [c.name for c in columns])
    if not ready.catalog:
        return tuple(Column(n, c.oid, c.modifier) for n, c in zip(names, columns, strict=True))
    return tuple(
        Column(n, (_VECTORS.get(n) if c.oid in _LISTS else None) or _CATALOG_TYPES.get(c.oid, c.oid))
        for n, c in zip(names, columns, strict=True)
    )


def _parameter_count(statement: Statement) -> int:
    numbers = [int(t.text[1:6]) for t in statement.tokens if t.kind == "param"]
    highest = max(numbers, default=0)
    if highest > _PARAMETERS_MAX:
        raise PgError("54000", "too many parameters")
    return highest


def _list_parameters(statement: Statement) -> dict[int, str]:
    """Types of parameters that stand alone in ANY(...) or ALL(...), by their index: lists.

    Their elements have the type of the column before the operator, when that is a known one; else text.
    """
    out: dict[int, str] = {}
    tokens = statement.tokens
    for at in range(2, len(tokens) - 3):
        if tokens[at].upper not in ("ANY", "ALL", "SOME") or tokens[at + 1].text != "(":
            continue
        if tokens[at + 2].kind != "param" or tokens[at + 3].text != ")":
            continue
        left = at - 1
        while left > 0 and tokens[left].kind == "other":
            left -= 1
        element = _COLUMN_TYPES.get(name_of(tokens[left]) or "", "VARCHAR")
        out[int(tokens[at + 2].text[1:6]) - 1] = f"{element}[]"
    return out


def _cast_parameters(statement: Statement) -> dict[int, int]:
    """Types of parameters that are cast at once, ``$1::oid[]``, by their index."""
    out: dict[int, int] = {}
    tokens = statement.tokens
    for at in range(len(tokens) - 2):
        if tokens[at].kind != "param" or tokens[at + 1].kind != "cast":
            continue
        end = at + 2
        while end + 2 < len(tokens) and tokens[end + 1].text == ".":
            end += 2
        oid = named(name_of(tokens[end]) or "")
        if "".join(t.text for t in tokens[end + 1 : end + 3]) == "[]":
            oid = array_of(oid) if oid else 0
        if oid and type_of(oid).name not in _TEXTUAL_TYPES:
            out[int(tokens[at].text[1:6]) - 1] = oid
    return out


def _inferred(duckdb: str) -> int:
    return _TEXT if duckdb in ("", _UNKNOWN, '"NULL"', "NULL", "SQLNULL") else oid_of(duckdb)
