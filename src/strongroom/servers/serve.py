"""The server process: REST, MCP and the Postgres wire over TLS 1.3, on one engine.

    ASGI server -> Guard -> /mcp: McpEndpoint, else: REST
    PgwireServer            a socket of its own in the same event loop, begun and ended with the application

``run_server`` blocks until SIGTERM or SIGINT, finishes what is running and closes the engine.
``ServerThread`` runs the same in a thread on a free port.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import uvicorn

from strongroom.config import Config, keys_directory
from strongroom.errors import ConfigurationError, InternalError
from strongroom.servers.http import (
    LOOP,
    Backlog,
    Connection,
    Guard,
    Incoming,
    Log,
    WorkerPool,
    capture_library_logs,
    connection_protocol,
    make_log,
)
from strongroom.servers.mcp import McpEndpoint
from strongroom.servers.pgwire import PgwireServer
from strongroom.servers.rest import create_app
from strongroom.servers.tls import CERTIFICATE_MODES, renew_certificate, server_context

if TYPE_CHECKING:
    from strongroom.engine import Engine

__all__ = [
    "Hangups",
    "Server",
    "ServerThread",
    "build_application",
    "listening_socket",
    "renewed",
    "run_server",
    "server_files",
]

_MCP_PATHS = frozenset({"/mcp", "/mcp/"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, never bound to
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DRAIN_S = 30
_KEEP_ALIVE_S = 75
_HEAD_BYTES_MAX = 32 * 1024  # request line and headers
_CONNECTIONS_MAX = 4096
_BACKLOG = 2048
_START_S = 30.0
_HOST_HINT = "the host (--host, [server] host, [pgwire] host) is an address or a name of this machine"
_BIND_HINTS = {
    errno.EADDRINUSE: "another process listens there; give another port, or 0 for a free one: --port and "
    "--pg-port, or [server] port and [pgwire] port",
    errno.EADDRNOTAVAIL: _HOST_HINT,
    errno.EACCES: "ports below 1024 take root or CAP_NET_BIND_SERVICE; give another one: --port",
}


def build_application(
    engine: Engine,
    config: Config,
    *,
    log: Log | None = None,
    metrics_on_loopback: bool = False,
    pgwire: tuple[PgwireServer, socket.socket] | None = None,
) -> Guard:
    """The whole ASGI application, guard included; ``pgwire`` and its bound socket live as long as it does."""
    from strongroom import __version__

    log = log if log is not None else make_log(config.log)
    workers = WorkerPool(config.server.workers_max, "strongroom-worker")
    mcp = McpEndpoint(engine, config, workers, log, version=__version__)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        try:
            async with mcp.running(), _beside(pgwire):
                yield
        finally:
            workers.close()

    rest = create_app(
        engine,
        config,
        workers=workers,
        log=log,
        metrics_on_loopback=metrics_on_loopback,
        version=__version__,
        lifespan=lifespan,
    )
    direct = rest.state.direct

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in _MCP_PATHS:
            await mcp(scope, receive, send)
        else:
            await direct(scope, receive, send)

    hosts = [*config.server.allowed_hosts]
    if config.server.host not in _WILDCARDS:
        hosts.append(f"[{config.server.host}]" if ":" in config.server.host else config.server.host)
    return Guard(
        dispatch,
        allowed_hosts=hosts,
        allowed_origins=config.server.allowed_origins,
        request_bytes_max=config.limits.request_bytes_max,
        log=log,
        arrival=lambda address: engine.doors.watch.arrival("https", address),
        incoming=Incoming(
            config.server.incoming_bytes_max, lambda: engine.metrics.http_dropped.labels("incoming").inc()
        ),
        metadata=bool(config.oidc.issuer),
    )


@asynccontextmanager
async def _beside(pgwire: tuple[PgwireServer, socket.socket] | None) -> AsyncIterator[None]:
    if pgwire is None:
        yield
        return
    server, bound = pgwire
    await server.start(bound)
    try:
        yield
    finally:
        await server.stop()


def server_files(directory: Path, config: Config) -> tuple[Path, Path]:
    """Certificate and private key of a store's server."""
    keys = keys_directory(directory, config)
    return keys / config.server.certificate, keys / config.server.private_key


def run_server(
    engine: Engine,
    config: Config,
    *,
    certificate: Path,
    private_key: Path,
    host: str | None = None,
    port: int | None = None,
    pg_port: int | None = None,
    metrics_on_loopback: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop accepting, finish what runs, and close the engine.

    At SIGHUP whoever connects from then on is served with the certificate that the files hold.

    ``port`` 0 takes free ports, for the Postgres wire too unless ``pg_port`` says otherwise.

    Raises:
        ConfigurationError: certificate or key cannot be used, or an address cannot be bound.
        InternalError: the server did not start.
    """
    log = make_log(config.log)
    capture_library_logs(log)
    hangups = Hangups()
    try:
        hangups.begin()
        context = _https_context(engine, config, certificate, private_key)
        with ExitStack() as stack:
            chosen = config.server.port if port is None else port
            bound = stack.enter_context(
                listening_socket(config.server.host if host is None else host, chosen)
            )
            wire: tuple[PgwireServer, socket.socket] | None = None
            if config.pgwire.enabled:
                if pg_port is None:
                    pg_port = 0 if port == 0 else config.pgwire.port
                wire_bound = stack.enter_context(listening_socket(host or config.pgwire.host, pg_port))
                workers = WorkerPool(config.server.workers_max, "strongroom-pgwire")
                stack.callback(workers.close)
                files = {"certificate": certificate, "private_key": private_key}
                wire = (PgwireServer(engine, config, **files, workers=workers, log=log), wire_bound)
            application = build_application(
                engine, config, log=log, metrics_on_loopback=metrics_on_loopback, pgwire=wire
            )
            server = Server(_uvicorn_config(engine, config, application, context))
            server.hangups = hangups

            def renew() -> None:
                renew_certificate(context, certificate, private_key)
                if wire is not None:
                    wire[0].renew(certificate, private_key)

            server.on_hangup = partial(renewed, renew, log)
            log.info(
                "serving", port=bound.getsockname()[1], pgwire_port=wire[1].getsockname()[1] if wire else None
            )
            engine.warm_up()
            server.run(sockets=[bound])
        if not server.started:
            raise InternalError("the server did not start")
    finally:
        engine.close()
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):  # who says "interrupted" says it all
            log.info("stopped")
        hangups.close()


def renewed(renew: Callable[[], None], log: Any) -> None:
    """Have a server take the certificate that the files hold; that it could not is told in its log alone."""
    try:
        renew()
    except ConfigurationError as e:
        log.error("certificate_not_renewed", code=e.code, reason=e.message)
    else:
        log.info("certificate_renewed")


class Hangups:
    """SIGHUP, from before certificates are read until the server has stopped: never the end of the process.

    What comes before the server is up is answered when it is: the files may have been read before. At the
    end handlers are what they were.
    """

    def __init__(self) -> None:
        self._ours = threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        self._answer: Callable[[], None] | None = None
        self._came = False

    def begin(self) -> None:
        if self._ours:
            self._before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._heard)

    def answered_by(self, answer: Callable[[], None]) -> None:
        """The server is up."""
        self._answer = answer
        if self._came:
            answer()

    def close(self) -> None:
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)

    def _heard(self, *_: object) -> None:
        self._came = True
        if self._answer is not None:
            self._answer()


class Server(uvicorn.Server):
    """Stops at SIGTERM and SIGINT without raising them again, so that the engine is closed afterwards.

    At SIGHUP it goes on, with ``on_hangup`` called by the event loop. A further SIGTERM while it stops
    changes nothing; a second SIGINT waits for nobody any more.
    """

    on_hangup: Callable[[], None] | None = None
    hangups: Hangups | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """``serve`` in an event loop of its own; from before there is one, signals are for it."""
        with self.capture_signals():
            super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.should_exit:  # told meanwhile: nobody else would end what has begun
            await self.shutdown(sockets)
            return
        if self.hangups is not None and self.on_hangup is not None:
            loop, renew = asyncio.get_running_loop(), self.on_hangup

            def answer() -> None:
                with suppress(RuntimeError):  # it has stopped meanwhile
                    loop.call_soon_threadsafe(renew)

            self.hangups.answered_by(answer)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            if self.should_exit:  # told already; the engine is to be closed in peace
                before[signal.SIGTERM] = signal.SIG_IGN
            for number, handler in before.items():
                signal.signal(number, handler)


class ServerThread:
    """A server in a thread of this process, for tests and benches; ``with`` starts and stops it.

    ``port`` 0 takes a free one; ``url`` is then its address. The engine stays open.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        *,
        certificate: Path,
        private_key: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Log | None = None,
        metrics_on_loopback: bool = False,
        application: Any = None,
    ) -> None:
        context = _https_context(engine, config, certificate, private_key)
        self._socket = listening_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"https://{host}:{self.port}"
        if application is None:
            application = build_application(engine, config, log=log, metrics_on_loopback=metrics_on_loopback)
        self._server = Server(_uvicorn_config(engine, config, application, context))
        self._thread = threading.Thread(target=self._run, name="strongroom-server", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Return once connections are taken.

        Raises:
            InternalError: the server did not start.
        """
        self._thread.start()
        pause = threading.Event()
        for _ in range(int(_START_S / 0.01)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            pause.wait(0.01)
        raise InternalError("the server did not start")

    def stop(self) -> None:
        """Finish what runs and return once the port is free."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> ServerThread:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _https_context(engine: Engine, config: Config, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """The TLS of REST and MCP.

    Raises:
        ConfigurationError: a setting or a file cannot be used.
    """
    server = config.server
    if server.client_certificate not in CERTIFICATE_MODES:
        raise ConfigurationError(
            "unknown [server] client_certificate", hint="one of: " + ", ".join(CERTIFICATE_MODES)
        )
    asks = server.client_certificate != "off"
    engine.doors.prepare()
    return server_context(
        certificate,
        private_key,
        post_quantum=server.post_quantum,
        client_ca=keys_directory(engine.directory, config) / server.client_ca if asks else None,
        certificate_required=server.client_certificate == "required",
        on_refused=lambda reason: engine.doors.watch.handshake("https", reason),
    )


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; 0: on a free port.

    Raises:
        ConfigurationError: it cannot be had, and why.
    """
    if not 0 <= port <= 65_535:  # getaddrinfo would take it modulo 65536
        raise ConfigurationError("a port is a number from 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        raise ConfigurationError("the address of the server cannot be used", hint=_HOST_HINT) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted: an answer in two pieces must not wait for an acknowledgement.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)  # who comes before the server is up waits instead of being refused
    except OSError as e:
        bound.close()
        text = f"port {port} cannot be bound: {e.strerror}"
        raise ConfigurationError(text, hint=_BIND_HINTS.get(e.errno or 0)) from None
    return bound


def _uvicorn_config(
    engine: Engine, config: Config, application: Any, context: ssl.SSLContext
) -> uvicorn.Config:
    def seen(connection: Connection) -> None:
        engine.metrics.tls_connections.labels("https", connection.group or "unknown").inc()

    return uvicorn.Config(
        application,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        loop=LOOP,  # asyncio: the loop that our TLS is tried on
        # h11: unlike httptools it bounds the head of a request, before any sign-in
        http=connection_protocol(
            seen,
            backlog=Backlog(config.server.unsent_bytes_max),
            dropped=lambda reason: engine.metrics.http_dropped.labels(reason).inc(),
        ),
        h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        ws="none",
        ssl_context_factory=lambda *_: context,
    )
