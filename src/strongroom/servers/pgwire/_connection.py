"""A connection until it has signed in, on the event loop; then ``_line`` takes its socket over."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from strongroom.errors import thread_started
from strongroom.servers.http import CALLER
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._budget import Share
from strongroom.servers.pgwire._effects import Effect, Receive, Send, StartTls, TlsInfo, Work, drive
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._line import Line
from strongroom.servers.pgwire._queries import Queries
from strongroom.servers.pgwire._session import Conversation
from strongroom.servers.pgwire._startup import Started, StartUp
from strongroom.servers.pgwire._tls import TlsPipe, certificate_name

if TYPE_CHECKING:
    from strongroom.servers.pgwire._server import PgwireServer

__all__ = ["Connection"]

_READ_AHEAD_BYTES: Final = 256 * 1024


class _GoneError(Exception):
    """The connection is not there any more."""


class Connection(asyncio.Protocol):
    """One socket: feeds the protocol's generator and carries out what it asks for."""

    def __init__(self, server: PgwireServer) -> None:
        self._server = server
        self._inbox = m.Inbox()
        self._raw = bytearray()
        self._eof = False
        self._paused = False
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._pipe: TlsPipe | None = None
        self.line: Line | None = None
        self._conversation: Conversation | None = None
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.started: Started | None = None
        self.caller: str | None = None
        self.source, self.since = "", 0.0
        self.step = 0  # of signing in: TLS has begun, is done

    # -- asyncio.Protocol -------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own classes are none of asyncio's
        if self._server.stopping or not self._server.arrived(self._source()):
            self.transport.abort()
            return
        self.source, self.since = self._source(), time.monotonic()
        self._server.enter(self)
        self.task = asyncio.get_running_loop().create_task(self._live())

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) > _READ_AHEAD_BYTES and self.transport is not None:
            self.transport.pause_reading()
        self._wake(self._arrived)

    def eof_received(self) -> bool:
        self._eof = True
        self._wake(self._arrived)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._wake(self._arrived)
        self._wake(self._drained)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake(self._drained)

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None:
            _settle(future)

    # -- from the server ----------------------------------------------------------------------------------
    def cancel(self, reason: str = "user request") -> None:
        if self._conversation is not None:
            self._conversation.cancel(reason)

    def shut_down(self) -> None:
        """End once nothing is under way."""
        if self.line is not None:
            self.line.shut_down()
        elif self.transport is not None:  # nobody has signed in here
            self.transport.abort()

    def _give_way(self) -> None:
        if self.line is not None:
            self.line.give_way()

    def abort(self) -> None:
        if self.line is not None:
            self.line.abort()
        elif self.transport is not None:
            self.transport.abort()

    # -- the protocol -------------------------------------------------------------------------------------
    async def _live(self) -> None:
        server = self._server
        start = StartUp(self._inbox, server.door, self._source())
        try:
            try:
                async with asyncio.timeout(server.config.startup_timeout_ms / 1000):
                    self.started = await drive(start.run(), self._carry_out)
                    if self.started is None:
                        return
                    caller = await self._work(Work(lambda: self._caller_of(self.started)))
                    server.seat(self, caller)
                    CALLER.set(self.started.session.share.encode())
            except TimeoutError:
                server.metrics.refused.labels("startup_timeout").inc()
                return
            self._log_start(start)
            await self._converse(self.started, start.request_id)
        except PgError as e:
            await self._refuse(e, start)
        except (_GoneError, ConnectionError, ssl.SSLError):
            server.metrics.refused.labels("connection").inc()
        except Exception as e:  # noqa: BLE001  # the outermost boundary until there is a thread
            server.log.error("unexpected_error", surface="pgwire", type=type(e).__name__)
            await self._refuse(PgError("XX000", "internal error", fatal=True), start)
        finally:
            await self._close()

    async def _converse(self, started: Started, request_id: str | None) -> None:
        """Give the socket to a thread of its own, and wait until that has ended."""
        server, pipe = self._server, self._pipe
        if pipe is None:
            raise PgError("XX000", "internal error", fatal=True)  # cannot be: nobody signs in without TLS
        caller = self.caller or ""
        share = Share(server.budget, caller, self._give_way)
        conversation = Conversation(
            self._inbox,
            started,
            server.config,
            lambda settings: Queries(
                started.session, server.door.catalog, settings, started.user, started.process_id
            ),
            share,
            statement_bytes_max=server.statement_bytes_max,
        )
        await self._quiet()
        fd = self._descriptor()
        try:
            self.line = Line(
                fd,
                pipe,
                bytes(self._raw),
                server.config,
                server.workers,
                server.metrics,
                server.log,
                conversation.cancel,
                request_id,
                share,
                server.turns.of(caller),
            )
        except OSError:
            os.close(fd)
            raise _crowded() from None
        self._part()
        self._conversation = conversation
        self._raw.clear()
        if server.stopping:
            self.line.shut_down()
        ended = asyncio.get_running_loop().create_future()
        work = partial(copy_context().run, self._on_line, self.line, conversation, ended)
        name = f"strongroom-pgwire-{started.process_id}"
        if not thread_started(threading.Thread(target=work, name=name, daemon=True)):
            self.line.turn_away(_crowded())
            return
        try:
            await ended
        finally:
            server.budget.leave(share)

    async def _quiet(self) -> None:
        """All that was written is out, and nothing more is read."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise _GoneError
        transport.pause_reading()
        transport.set_write_buffer_limits(0)
        await self._drain()

    def _descriptor(self) -> int:
        """A descriptor of the socket beside that of the event loop.

        Raises:
            PgError: 53300: the process may have no more of them.
        """
        if self.transport is None:
            raise _GoneError
        try:
            return os.dup(self.transport.get_extra_info("socket").fileno())
        except OSError:
            raise _crowded() from None

    def _part(self) -> None:
        """Part with the event loop, which closes its own descriptor and leaves the connection as it is."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    @staticmethod
    def _on_line(line: Line, conversation: Conversation, ended: asyncio.Future[None]) -> None:
        try:
            line.run(conversation.run())
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                ended.get_loop().call_soon_threadsafe(_settle, ended)

    def _source(self) -> str:
        address = None if self.transport is None else self.transport.get_extra_info("peername")
        return str(address[0]) if isinstance(address, tuple) else ""

    @staticmethod
    def _caller_of(started: Started | None) -> str:
        return "" if started is None else started.session.whoami().id

    def _log_start(self, start: StartUp) -> None:
        tls = start.tls
        self._server.log.info(
            "connected",
            surface="pgwire",
            caller=self.caller,
            request_id=start.request_id,
            certificate=None if tls is None or tls.certificate is None else certificate_name(tls.certificate),
            group=None if tls is None else tls.group,
        )

    async def _refuse(self, error: PgError, start: StartUp) -> None:
        self._server.metrics.refused.labels(error.sqlstate).inc()
        self._server.log.info(
            "disconnected", surface="pgwire", sqlstate=error.sqlstate, request_id=start.request_id
        )
        try:
            await self._send(m.error_response(error))
        except (_GoneError, ConnectionError, ssl.SSLError):
            return

    async def _carry_out(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            return await self._send(effect.data)
        if isinstance(effect, Receive):
            return await self._receive()
        if isinstance(effect, StartTls):
            return await self._handshake(effect.first)
        return await self._work(effect) if isinstance(effect, Work) else None

    async def _work(self, effect: Work) -> Any:
        return await self._server.workers.run(effect.run)

    # -- bytes --------------------------------------------------------------------------------------------
    async def _more(self) -> bytes:
        """Raw bytes of the socket; empty at the end."""
        if not self._raw and not self._eof:
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        data = bytes(self._raw)
        self._raw.clear()
        if self.transport is not None and not self._eof and not self.transport.is_closing():
            self.transport.resume_reading()
        return data

    async def _receive(self) -> bytes:
        while True:
            if self._pipe is not None and not self._raw and (plain := self._decrypt(b"")):
                return plain  # came together with the last bytes that were read
            data = await self._more()
            if self._pipe is None:
                if data or self._eof:
                    return data
                continue
            plain = self._decrypt(data)
            if plain or self._eof:
                return plain

    def _decrypt(self, data: bytes) -> bytes:
        assert self._pipe is not None  # callers look
        if data:
            self._pipe.feed(data)
        try:
            plain = self._pipe.read()
        except ssl.SSLZeroReturnError:
            self._eof = True
            return b""
        self._push()
        return plain

    async def _send(self, data: bytes) -> None:
        if self._pipe is not None:
            self._pipe.write(data)
            self._push()
        elif self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)
        await self._drain()

    def _push(self) -> None:
        out = self._pipe.outgoing() if self._pipe is not None else b""
        if out and self.transport is not None and not self.transport.is_closing():
            self.transport.write(out)

    async def _drain(self) -> None:
        if self.transport is None or self.transport.is_closing():
            raise _GoneError
        if not self._paused:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._server.config.send_timeout_ms / 1000 or None):
                await self._drained
        except TimeoutError:
            self._server.metrics.refused.labels("send_timeout").inc()
            self.transport.abort()
            raise _GoneError from None
        finally:
            self._drained = None

    async def _handshake(self, first: bytes) -> TlsInfo | None:
        pipe = self._pipe = TlsPipe(self._server.context)
        self.step = 1
        data = first
        while True:
            if not data:
                data = await self._more()
            if not data:
                return None
            pipe.feed(data)
            data = b""
            try:
                done = pipe.handshake()
            except ssl.SSLError:
                self._push()  # the alert tells the client why
                self._server.metrics.refused.labels("tls").inc()
                raise
            self._push()
            if done:
                break
        self.step = 2
        self._server.tls_seen(pipe.group())
        return TlsInfo(pipe.version() or "", pipe.selected_alpn(), pipe.peer_certificate(), pipe.group())

    async def _close(self) -> None:
        self._server.leave(self)
        transport = self.transport
        if transport is None:
            return
        if self._pipe is not None and not transport.is_closing():
            self._pipe.close()
            self._push()
        transport.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _crowded() -> PgError:
    return PgError("53300", "sorry, too many clients already", fatal=True)
