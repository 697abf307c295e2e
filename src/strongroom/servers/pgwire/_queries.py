"""Statements that give rows: to the engine's SQL, or to the catalogue of what is here.

Everything in this module blocks and runs in worker threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from strongroom.model import SqlCancel
from strongroom.servers.pgwire._catalog import Catalog, Reply
from strongroom.servers.pgwire._contract import SqlSession
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._names import shown_names
from strongroom.servers.pgwire._rewrite import Rewritten, rewrite
from strongroom.servers.pgwire._rows import Column, Row, Source, columns_of
from strongroom.servers.pgwire._scan import Statement
from strongroom.servers.pgwire._settings import Settings
from strongroom.servers.pgwire._types import duckdb_of, oid_of

__all__ = ["Queries"]

_UNKNOWN: Final = "UNKNOWN"
_TEXT: Final = 25
_PARAMETERS_MAX: Final = 65_535


class Queries:
    """The queries of one connection."""

    def __init__(
        self, session: SqlSession, catalog: Catalog, settings: Settings, user: str, process_id: int
    ) -> None:
        self._session = session
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
        ready = self._rewritten(statement)
        count = max(_parameter_count(statement), len(declared))
        given = [*declared, *([0] * (count - len(declared)))]
        names = [duckdb_of(o) or _UNKNOWN for o in given]
        if ready.catalog:
            self._session.whoami()
            inferred, found = self._catalog.describe(ready.text, names)
        else:
            described = self._session.sql_describe(ready.text, names)
            inferred = list(described.parameter_types)
            found = [(c.name, c.type) for c in described.columns]
        types = tuple(o or _inferred(inferred[i] if i < len(inferred) else "") for i, o in enumerate(given))
        return types, self._columns(statement, ready, found)

    def open(self, statement: Statement, values: Sequence[Any], cancel: SqlCancel) -> Source:
        """Carry it out.

        Raises:
            StrongroomError, PgError: the statement cannot be answered.
        """
        ready = self._rewritten(statement)
        if ready.catalog:
            self._session.whoami()
            reply: Reply = self._catalog.run(ready.text, values, cancel)
            return Source(self._columns(statement, ready, reply.columns), reply.fetch)
        result = self._session.sql(ready.text, values, cancel=cancel)
        columns = self._columns(statement, ready, [(c.name, c.type) for c in result.columns])

        def fetch(count: int) -> Sequence[Row]:
            if cancel.cancelled:
                raise PgError("57014", "canceling statement due to user request")
            return result.fetch(count)

        return Source(columns, fetch)

    def _rewritten(self, statement: Statement) -> Rewritten:
        return rewrite(statement, self._catalog.constants)

    def _columns(
        self, statement: Statement, ready: Rewritten, found: Sequence[tuple[str, str]]
    ) -> tuple[Column, ...]:
        columns = columns_of(found)
        names = shown_names(statement, [c.name for c in columns])
        overridden = self._catalog.types if ready.catalog else {}
        return tuple(
            Column(n, overridden.get(n, c.oid) if c.oid in (20, 25) else c.oid, c.modifier)
            for n, c in zip(names, columns, strict=True)
        )


def _parameter_count(statement: Statement) -> int:
    numbers = [int(t.text[1:6]) for t in statement.tokens if t.kind == "param"]
    highest = max(numbers, default=0)
    if highest > _PARAMETERS_MAX:
        raise PgError("54000", "too many parameters")
    return highest


def _inferred(duckdb: str) -> int:
    return _TEXT if duckdb in ("", _UNKNOWN, '"NULL"', "NULL", "SQLNULL") else oid_of(duckdb)
