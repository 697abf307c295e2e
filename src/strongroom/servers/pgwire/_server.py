"""The asyncio side: sockets, TLS, time limits, threads. The protocol is in ``_startup`` and ``_session``."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections import Counter as Tally
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final, cast

from strongroom.config import Config, PgwireConfig, keys_directory
from strongroom.errors import ConfigurationError, LimitExceededError, StrongroomError
from strongroom.servers.http import CALLER, Log, WorkerPool
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._catalog import Catalog
from strongroom.servers.pgwire._contract import Authenticator, Door
from strongroom.servers.pgwire._effects import (
    Effect,
    IdleTimeoutError,
    Receive,
    Send,
    ShutdownError,
    StartTls,
    TlsInfo,
    Work,
)
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._metrics import WireMetrics
from strongroom.servers.pgwire._queries import Queries
from strongroom.servers.pgwire._session import Conversation
from strongroom.servers.pgwire._startup import Started, StartUp
from strongroom.servers.pgwire._tls import TlsPipe, certificate_name, end_point_binding, make_context

if TYPE_CHECKING:
    from strongroom.engine import Engine

__all__ = ["PgwireServer"]

_READ_AHEAD_BYTES: Final = 256 * 1024
_AUTHENTICATIONS: Final = ("scram", "password", "both")
_CERTIFICATES: Final = ("off", "optional", "required")
_CLOSE_S: Final = 2.0


class _GoneError(Exception):
    """The connection is not there any more."""


class PgwireServer:
    """Serves a bound socket. ``start`` and ``stop`` belong to the same event loop.

    Raises:
        ConfigurationError: the configuration or a certificate cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        *,
        certificate: Path,
        private_key: Path,
        workers: WorkerPool,
        log: Log,
    ) -> None:
        self.config = _checked(config.pgwire)
        self.statement_bytes_max = config.limits.sql_bytes_max
        self.log = log
        self.workers = workers
        self.metrics = WireMetrics(engine.metrics.registry)
        self._tls_connections = engine.metrics.tls_connections
        self._watch = engine.doors.watch
        ca = None
        if self.config.client_certificate != "off":
            ca = keys_directory(engine.directory, config) / (self.config.client_ca or config.server.client_ca)
        engine.doors.prepare()
        self.context = make_context(
            certificate,
            private_key,
            ca,
            post_quantum=config.server.post_quantum,
            on_refused=lambda reason: engine.doors.watch.handshake("pgwire", reason),
        )
        self.door = Door(engine, self.config, end_point_binding(certificate), self, Catalog())
        self._connections: set[_Connection] = set()
        self._callers: Tally[str] = Tally()
        self._server: asyncio.Server | None = None
        self.stopping = False

    def arrived(self, address: str) -> bool:
        """False: too many connections come from there."""
        try:
            self._watch.arrival("pgwire", address)
        except LimitExceededError:
            self.metrics.refused.labels("rate").inc()
            return False
        return True

    def tls_seen(self, group: str) -> None:
        """Count a connection by its key exchange."""
        self._tls_connections.labels("pgwire", group or "unknown").inc()

    @property
    def engine(self) -> Authenticator:
        return self.door.engine

    async def start(self, bound: socket) -> None:
        """Take connections from a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=bound, backlog=256)

    async def stop(self) -> None:
        """Take no more, let what runs finish for ``drain_ms``, then cancel it and close."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.shut_down()
        tasks = [c.task for c in self._connections if c.task is not None]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=self.config.drain_ms / 1000)
            for connection in list(self._connections):
                connection.abort()
            if left:
                await asyncio.wait(left, timeout=_CLOSE_S)
        if self._server is not None:
            await self._server.wait_closed()
        self.door.catalog.close()

    # -- the list of connections ------------------------------------------------------------------------
    def enter(self, connection: _Connection) -> bool:
        """False: there are too many that have not signed in."""
        starting = sum(1 for c in self._connections if c.caller is None)
        if starting >= self.config.starting_max:
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection.caller is not None:
            self._callers[connection.caller] -= 1
            self.metrics.connections.dec()
            connection.caller = None

    def seat(self, connection: _Connection, caller: str) -> None:
        """Count a connection that has signed in.

        Raises:
            PgError: 53300: there are too many.
        """
        if (
            sum(self._callers.values()) >= self.config.connections_max
            or self._callers[caller] >= self.config.connections_per_key_max
        ):
            raise PgError("53300", "sorry, too many clients already", fatal=True)
        self._callers[caller] += 1
        connection.caller = caller
        self.metrics.connections.inc()

    def cancel(self, process_id: int, secret: bytes) -> None:
        """Cancel what the connection with this key is doing; silence when there is none."""
        self.metrics.cancels.inc()
        for connection in list(self._connections):
            started = connection.started
            if started is not None and started.process_id == process_id:
                if hmac.compare_digest(started.secret, secret):
                    connection.cancel()
                return


def _checked(config: PgwireConfig) -> PgwireConfig:
    if config.authentication not in _AUTHENTICATIONS:
        raise ConfigurationError(
            "unknown [pgwire] authentication", hint="one of: " + ", ".join(_AUTHENTICATIONS)
        )
    if config.client_certificate not in _CERTIFICATES:
        raise ConfigurationError(
            "unknown [pgwire] client_certificate", hint="one of: " + ", ".join(_CERTIFICATES)
        )
    if config.channel_binding_required and config.authentication != "scram":
        raise ConfigurationError(
            "[pgwire] channel_binding_required needs SCRAM for everybody", hint='authentication = "scram"'
        )
    for name in ("connections_max", "starting_max", "startup_timeout_ms", "message_bytes_max"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"[pgwire] {name} must be at least 1")
    return config


class _Connection(asyncio.Protocol):
    """One socket: feeds the protocol's generator and carries out what it asks for."""

    def __init__(self, server: PgwireServer) -> None:
        self._server = server
        self._inbox = m.Inbox()
        self._raw = bytearray()
        self._eof = False
        self._paused = False
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._shut_down = False
        self._pipe: TlsPipe | None = None
        self._conversation: Conversation | None = None
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.started: Started | None = None
        self.caller: str | None = None

    # -- asyncio.Protocol -------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own classes are none of asyncio's
        if self._server.stopping or not self._server.arrived(self._source()) or not self._server.enter(self):
            self.transport.abort()
            return
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
        self.cancel()
        self._wake(self._arrived)
        self._wake(self._drained)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake(self._drained)

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)

    # -- from the server ----------------------------------------------------------------------------------
    def cancel(self, reason: str = "user request") -> None:
        if self._conversation is not None:
            self._conversation.cancel(reason)

    def shut_down(self) -> None:
        """End once nothing is under way."""
        self._shut_down = True
        self._wake(self._arrived)

    def abort(self) -> None:
        self.cancel()
        if self.transport is not None:
            self.transport.abort()

    # -- the protocol -------------------------------------------------------------------------------------
    async def _live(self) -> None:
        server = self._server
        start = StartUp(self._inbox, server.door, self._source())
        try:
            try:
                async with asyncio.timeout(server.config.startup_timeout_ms / 1000):
                    self.started = await self._drive(start.run())
                    if self.started is None:
                        return
                    caller = await self._work(Work(lambda: self._caller_of(self.started)))
                    server.seat(self, caller)
                    CALLER.set(f"pgwire {caller}".encode())
            except TimeoutError:
                server.metrics.refused.labels("startup_timeout").inc()
                return
            self._log_start(start)
            started = self.started
            self._conversation = Conversation(
                self._inbox,
                started,
                server.config,
                lambda settings: Queries(
                    started.session, server.door.catalog, settings, started.user, started.process_id
                ),
                statement_bytes_max=server.statement_bytes_max,
            )
            await self._drive(self._conversation.run())
        except PgError as e:
            await self._refuse(e, start)
        except (_GoneError, ConnectionError, ssl.SSLError):
            server.metrics.refused.labels("connection").inc()
        except Exception as e:  # noqa: BLE001  # the outermost boundary: by type, without the text
            server.log.error("unexpected_error", surface="pgwire", type=type(e).__name__)
            await self._refuse(PgError("XX000", "internal error", fatal=True), start)
        finally:
            await self._close()

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

    async def _drive(self, steps: Any) -> Any:
        """Run a generator of effects to its end; its result."""
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                effect = steps.send(answer) if error is None else steps.throw(error)
                answer, error = None, None
                try:
                    answer = await self._carry_out(effect)
                except (PgError, StrongroomError, IdleTimeoutError, ShutdownError) as e:
                    error = e
        except StopIteration as done:
            return done.value
        finally:
            steps.close()

    async def _carry_out(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            return await self._send(effect.data)
        if isinstance(effect, Receive):
            return await self._receive(effect.idle)
        if isinstance(effect, StartTls):
            return await self._handshake(effect.first)
        return await self._work(effect)

    async def _work(self, effect: Work) -> Any:
        handle: asyncio.TimerHandle | None = None
        if effect.time_limit_ms:
            loop = asyncio.get_running_loop()
            handle = loop.call_later(effect.time_limit_ms / 1000, self.cancel, "statement timeout")
        try:
            return await self._server.workers.run(effect.run)
        finally:
            if handle is not None:
                handle.cancel()

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

    async def _receive(self, idle: bool) -> bytes:
        limit = self._server.config.idle_timeout_ms if idle else 0
        try:
            async with asyncio.timeout(limit / 1000 if limit else None):
                while True:
                    if self._shut_down and idle and not self._raw:
                        raise ShutdownError
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
        except TimeoutError:
            raise IdleTimeoutError from None

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
