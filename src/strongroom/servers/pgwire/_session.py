"""The conversation after start-up: simple and extended protocol over one authenticated session.

A generator of effects; see ``_effects``. After an error in the extended protocol everything up to Sync is
skipped. Answers leave in pieces of about 64 KiB, and no piece is made before the last one was taken.
Source: PostgreSQL documentation, "Message Flow".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from strongroom.config import PgwireConfig
from strongroom.model import SqlCancel
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._budget import Share
from strongroom.servers.pgwire._by_name import ByName
from strongroom.servers.pgwire._commands import Answer, check_allowed, run_command, show_columns
from strongroom.servers.pgwire._copy import CopyWriter, inner_query, parse_copy, query_inside
from strongroom.servers.pgwire._decode import decode_all
from strongroom.servers.pgwire._effects import IdleTimeoutError, Pause, Receive, ShutdownError, Steps
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._holdings import Holdings
from strongroom.servers.pgwire._plan import (
    Cursor,
    Portal,
    Prepared,
    parse_declare,
    parse_fetch,
    plan,
    plan_statement,
)
from strongroom.servers.pgwire._queries import Queries
from strongroom.servers.pgwire._rows import CHUNK_ROWS, RowEncoder, Source, formats_for, listed, shape_of
from strongroom.servers.pgwire._scan import split
from strongroom.servers.pgwire._settings import REPORTED, Settings
from strongroom.servers.pgwire._startup import Started

_ALL: Final = 2**62
_STATEMENTS_PER_QUERY_MAX: Final = 1_000
_ITEM_BYTES: Final = 100  # of an element of an array parameter, about
_MESSAGES_IN_ONE_GO_MAX: Final = 64
_QUERY_STATEMENTS: Final = 16  # of the greatest length, in one message of the simple protocol


class Conversation(ByName):
    """One client's session. ``cancel()`` may be called from any thread; the rest is one generator."""

    def __init__(
        self,
        inbox: m.Inbox,
        started: Started,
        config: PgwireConfig,
        make_queries: Callable[[Settings], Queries],
        share: Share,
        *,
        statement_bytes_max: int = 64 * 1024,
    ) -> None:
        super().__init__(Settings(started.user), statement_bytes_max)
        self._inbox = inbox
        self._started = started
        self._config = config
        self._held = Holdings(config, share)
        self._queries = make_queries(self._settings)
        self._queries.set_config = self._transaction.set_config
        self._skipping = False
        self._turn = 0  # how often the client has been waited for
        self._in_one_go = 0  # messages

    # -- the loop ---------------------------------------------------------------------------------------
    def run(self) -> Steps[None]:
        """Until the client goes. Fatal errors leave as PgError, for the caller to send."""
        try:
            self._greet()
            yield from self._flush()
            while (found := (yield from self._next())) is not None:
                kind, payload = found
                if kind == ord("X"):
                    return
                yield from self._handle(kind, payload)
        except IdleTimeoutError:
            raise PgError("57P05", "terminating connection due to idle-session timeout", fatal=True) from None
        except ShutdownError:
            raise PgError(
                "57P01", "terminating connection due to administrator command", fatal=True
            ) from None
        finally:
            self._held.close_portals(holding=True)
            self._queries.close()

    def _greet(self) -> None:
        for name, value in self._started.parameters.items():
            if name in ("user", "database", "options", "replication"):
                continue
            try:
                self._settings.set(name, value)
            except PgError as e:
                raise PgError(e.sqlstate, e.text, hint=e.hint, fatal=True) from None
        self._settings.begun()
        self._put(m.AUTH_OK)
        for name in REPORTED:
            self._put(m.parameter_status(name, self._settings.get(name)))
        self._put(m.backend_key(self._started.process_id, self._started.secret))
        self._tell()
        self._put(m.ready(b"I"))

    def _next(self) -> Steps[tuple[int, bytes] | None]:
        while (found := self._inbox.message(self._config.message_bytes_max)) is None:
            data: bytes = yield Receive(idle=True)
            self._turn += 1
            if not data:
                return None
            self._inbox.feed(data)
            self._held.loose(len(self._inbox))
            self._in_one_go = 0
        self._in_one_go += 1
        if self._in_one_go > _MESSAGES_IN_ONE_GO_MAX:  # thousands of small ones come in one piece
            self._in_one_go = 1
            yield Pause()
        return found

    def _handle(self, kind: int, payload: bytes) -> Steps[None]:
        if kind == ord("S"):
            self._skipping = False
            if self._transaction.status == b"I":
                self._held.close_portals()
            self._held.rest()
            self._put(m.ready(self._transaction.status))
            yield from self._flush()
        if kind == ord("S") or self._skipping:
            return
        try:
            if kind == ord("Q"):
                yield from self._simple(m.parse_query(payload))
                return
            handler = _HANDLERS.get(kind)
            if handler is None:
                if kind not in (ord("d"), ord("c"), ord("f")):  # COPY data after a failed COPY is ignored
                    raise m.protocol_violation("this message is not supported")
                return
            yield from handler(self, payload)
            yield from self._relieve()  # what is never followed by Sync is not kept for it
        except PgError as e:
            self._failed(e)
            if kind == ord("Q"):
                self._skipping = False
                self._held.rest()
                self._put(m.ready(self._transaction.status))
            yield from self._flush()  # at once, as PostgreSQL: some clients send Flush instead of Sync

    def _failed(self, error: PgError) -> None:
        """Tell the client; a fatal one goes on to the caller.

        Raises:
            PgError: it is fatal.
        """
        if error.fatal:
            raise error
        self._tell()
        self._put(m.error_response(error))
        self._transaction.fail()
        self._skipping = True

    # -- simple protocol --------------------------------------------------------------------------------
    def _simple(self, sql: str) -> Steps[None]:
        self._held.drop_statement("")
        self._held.drop_portal("")
        self._measure(sql, _QUERY_STATEMENTS)
        found = split(sql)
        if len(found) > _STATEMENTS_PER_QUERY_MAX:
            raise PgError("54000", "too many statements in one query")
        if not found:
            self._put(m.EMPTY_QUERY)
        for statement in found:
            try:
                self._measure(statement.text)
                portal = Portal(plan_statement(statement))
                yield from self._execute(portal, 0, describe=True)
            except PgError as e:
                if e.position is not None:
                    e.position += statement.start
                raise
        self._held.rest()
        self._put(m.ready(self._transaction.status))
        yield from self._flush()

    # -- extended protocol ------------------------------------------------------------------------------
    def _on_parse(self, payload: bytes) -> Steps[None]:
        message = m.parse_parse(payload)
        self._measure(message.sql)
        prepared = plan(message.sql, message.types)
        if prepared.kind != "empty":
            check_allowed(self._transaction, prepared.statement)
        self._held.add_statement(message.name, prepared)
        self._put(m.PARSE_COMPLETE)
        yield from ()

    def _on_bind(self, payload: bytes) -> Steps[None]:
        message = m.parse_bind(payload)
        prepared = self._held.statement(message.statement)
        if prepared.kind != "empty":
            check_allowed(self._transaction, prepared.statement)
        self._held.check_portal(message.portal)
        if prepared.types is None and message.values:
            if all(prepared.declared) and len(prepared.declared) == len(message.values):
                prepared.types = prepared.declared
            else:
                yield from self._describe(prepared)
        types = prepared.types or ()
        if len(types) != len(message.values):
            raise PgError(
                "08P01",
                f"bind message supplies {len(message.values)} parameters, but prepared statement requires"
                f" {len(types)}",
            )
        self._held.room(len(payload))
        formats = formats_for(message.formats, len(types))
        values, items = decode_all(message.values, types, formats)
        given = len(payload) + _ITEM_BYTES * items
        self._held.room(given)
        self._held.drop_portal(message.portal)
        self._held.portals[message.portal] = Portal(prepared, values, message.result_formats, given=given)
        self._put(m.BIND_COMPLETE)

    def _describe(self, prepared: Prepared) -> Steps[None]:
        """Fill in what a statement takes and gives."""
        if prepared.described:
            return
        statement = prepared.statement
        prepared.types = prepared.types or prepared.declared
        if prepared.kind == "command" and statement.word(0) == "SHOW":
            prepared.columns = show_columns(statement)
        elif prepared.kind == "fetch":
            fetch = parse_fetch(statement)
            prepared.columns = None if fetch.move else self._held.cursor(fetch.name).source.columns
        elif prepared.kind == "execute":
            named = self._named(prepared)
            yield from self._describe(named)
            prepared.columns = named.columns
        elif prepared.kind in ("query", "declare", "copy"):
            inner = query_inside(prepared)
            types, columns = yield from self._work(
                SqlCancel(), lambda: self._queries.describe(inner, prepared.declared)
            )
            prepared.types = types
            prepared.columns = columns if prepared.kind == "query" else None
        prepared.described = prepared.kind not in ("fetch", "execute")

    def _on_describe(self, payload: bytes) -> Steps[None]:
        of_statement, name = m.parse_target(payload)
        if not of_statement:
            if name in self._held.cursors:
                columns = self._held.cursors[name].source.columns
                self._put(m.row_description([c.described() for c in columns], (0,) * len(columns)))
                return
            portal = self._held.portal(name)
            self._check(portal.prepared)
            yield from self._becomes_named(portal)
            yield from self._open(portal)
            self._put_columns(portal)
            return
        prepared = self._held.statement(name)
        self._check(prepared)
        yield from self._describe(prepared)
        self._put(m.parameter_description(prepared.types or ()))
        if prepared.columns is None:
            self._put(m.NO_DATA)
        else:
            columns = prepared.columns
            self._put(m.row_description([c.described() for c in columns], (0,) * len(columns)))

    def _put_columns(self, portal: Portal) -> None:
        if portal.columns is None:
            self._put(m.NO_DATA)
            return
        portal.prepared.shape = shape_of(portal.prepared.shape, portal.columns, portal.formats)
        self._put(portal.prepared.shape.description)

    def _on_execute(self, payload: bytes) -> Steps[None]:
        name, limit = m.parse_execute(payload)
        yield from self._execute(self._held.portal(name), limit, describe=False)

    def _on_close(self, payload: bytes) -> Steps[None]:
        of_statement, name = m.parse_target(payload)
        if of_statement:
            self._held.drop_statement(name)
        else:
            self._held.drop_portal(name)
            self._held.drop_cursor(name)
        self._put(m.CLOSE_COMPLETE)
        yield from ()

    def _on_flush(self, payload: bytes) -> Steps[None]:
        yield from self._flush()

    # -- carrying out -----------------------------------------------------------------------------------
    def _check(self, prepared: Prepared) -> None:
        if prepared.kind != "empty":
            check_allowed(self._transaction, prepared.statement)

    def _open(self, portal: Portal) -> Steps[None]:
        """Begin the query of a portal, so that its columns are known and its first rows are there."""
        prepared = portal.prepared
        if portal.source is not None or prepared.kind in ("empty", "copy", "declare", "prepare"):
            return
        if prepared.kind == "command":
            if prepared.statement.word(0) == "SHOW":
                portal.columns = show_columns(prepared.statement)
            return
        if prepared.kind == "fetch":
            fetch = parse_fetch(prepared.statement)
            cursor = self._held.cursor(fetch.name)
            portal.cancel = cursor.cancel
            portal.source = cursor.source.first(fetch.count)
            if not fetch.move:
                self._shape(portal, portal.source)
            return

        def work() -> deque[bytes]:
            source = self._queries.open(prepared.statement, portal.values, portal.cancel)
            encoder = self._shape(portal, source)
            portal.source = source
            self._held.run(portal)
            return deque(encoder.pull(source, CHUNK_ROWS))

        portal.turn = self._turn
        portal.waiting = yield from self._work(portal.cancel, work)

    def _shape(self, portal: Portal, source: Source) -> RowEncoder:
        """Columns and encoder of a portal; what was described before stays as it was said."""
        said = portal.prepared.columns
        if said is not None and len(said) != len(source.columns):
            raise PgError("0A000", "cached plan must not change result type")
        columns = source.columns if said is None else said
        shape = portal.prepared.shape = shape_of(portal.prepared.shape, columns, portal.formats)
        portal.columns, portal.encoder = columns, shape.encoder
        return shape.encoder

    def _execute(self, portal: Portal, limit: int, *, describe: bool) -> Steps[None]:
        prepared = portal.prepared
        if prepared.kind == "empty":
            self._put(m.EMPTY_QUERY)
            return
        check_allowed(self._transaction, prepared.statement)
        yield from self._becomes_named(portal)
        if prepared.kind == "prepare":
            self._put(m.complete((yield from self._prepare(prepared.statement))))
        elif prepared.kind == "copy":
            yield from self._copy(portal)
        elif prepared.kind == "declare":
            yield from self._declare(portal)
        elif prepared.kind == "command":
            yield from self._command(portal, describe)
        else:
            yield from self._open(portal)
            if describe and portal.columns is not None:
                self._put_columns(portal)
            yield from self._rows(portal, limit)

    def _rows(self, portal: Portal, limit: int) -> Steps[None]:
        source = portal.source
        if source is None:  # cannot be: _open has run
            raise PgError("XX000", "a portal without rows")
        sent, most = 0, limit or _ALL
        moves = portal.encoder is None
        if portal.waiting and portal.turn != self._turn:  # they were taken before the client's last word
            yield from self._work(portal.cancel, source.look)
        portal.turn = self._turn
        while sent < most:
            if not portal.waiting:
                if source.exhausted:
                    break
                portal.waiting = yield from self._work(
                    portal.cancel, partial(portal.pull, most - sent), encodes=True
                )
                continue
            row = portal.waiting.popleft()
            sent += 1
            if not moves:
                self._put(row)
                yield from self._relieve()
        if sent == most and limit:
            self._put(m.PORTAL_SUSPENDED)
            return
        word = portal.prepared.statement.word(0)
        self._complete(f"{word if portal.prepared.kind == 'fetch' else 'SELECT'} {sent}")

    def _command(self, portal: Portal, describe: bool) -> Steps[None]:
        answer = run_command(self._transaction, portal.prepared.statement)
        self._after(answer, portal)
        if answer.columns:
            portal.source = listed(answer.columns, answer.rows)
            encoder = self._shape(portal, portal.source)
            if describe:
                self._put_columns(portal)
            for row in answer.rows:
                self._put(encoder.data_row(row))
        self._complete(answer.tag)
        yield from self._relieve()

    def _after(self, answer: Answer, portal: Portal) -> None:
        if answer.close_portals == "":
            self._held.close_portals(keep=portal, holding=answer.tag in ("CLOSE CURSOR ALL", "DISCARD ALL"))
        elif answer.close_portals is not None:
            self._held.cursor(answer.close_portals)
            self._held.drop_cursor(answer.close_portals)
        if answer.deallocate == "":
            self._held.drop_statements()
        elif answer.deallocate is not None:
            self._held.statement(answer.deallocate)
            self._held.drop_statement(answer.deallocate)

    # -- cursors ----------------------------------------------------------------------------------------
    def _declare(self, portal: Portal) -> Steps[None]:
        declared = parse_declare(portal.prepared.statement)
        if not declared.holds and self._transaction.status == b"I":
            raise PgError("25P01", "DECLARE CURSOR can only be used in transaction blocks")
        self._held.check_cursor(declared.name)
        cancel = portal.cancel
        source = yield from self._work(
            cancel, lambda: self._queries.open(declared.query, portal.values, cancel)
        )
        source.opened_for_later()
        self._held.add_cursor(declared.name, Cursor(source, declared.holds, cancel))
        self._complete("DECLARE CURSOR")

    # -- COPY -------------------------------------------------------------------------------------------
    def _copy(self, portal: Portal) -> Steps[None]:
        copy = parse_copy(portal.prepared.statement)
        cancel = portal.cancel

        def begin() -> tuple[Source, CopyWriter]:
            source = self._queries.open(inner_query(copy), portal.values, cancel)
            return source, CopyWriter(copy, source.columns)

        source, writer = yield from self._work(cancel, begin)
        self._held.run(source)
        self._put(m.copy_out(int(writer.binary), len(source.columns)))
        for part in writer.begin():
            self._put(m.copy_data(part))
        count = 0
        while not source.exhausted:
            lines = yield from self._work(cancel, lambda: writer.pull(source), encodes=True)
            count += len(lines)
            for line in lines:
                self._put(m.copy_data(line))
                yield from self._relieve()
        for part in writer.end():
            self._put(m.copy_data(part))
        self._put(m.COPY_DONE)
        self._complete(f"COPY {count}")


_HANDLERS: Final[dict[int, Callable[[Conversation, bytes], Steps[None]]]] = {
    ord("P"): Conversation._on_parse,
    ord("B"): Conversation._on_bind,
    ord("D"): Conversation._on_describe,
    ord("E"): Conversation._on_execute,
    ord("C"): Conversation._on_close,
    ord("H"): Conversation._on_flush,
}
