"""The listener and its list of connections. The protocol is in ``_startup`` and ``_session``."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter as Tally
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final

from strongroom.config import Config, PgwireConfig, keys_directory
from strongroom.errors import ConfigurationError, LimitExceededError
from strongroom.recall.sql import Turns
from strongroom.servers.http import Log, WorkerPool
from strongroom.servers.pgwire._budget import Budget
from strongroom.servers.pgwire._catalog import Catalog
from strongroom.servers.pgwire._connection import Connection
from strongroom.servers.pgwire._contract import Authenticator, Door
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._metrics import WireMetrics
from strongroom.servers.pgwire._tls import end_point_binding, make_context
from strongroom.servers.tls import renew_certificate

if TYPE_CHECKING:
    from strongroom.engine import Engine

__all__ = ["PgwireServer"]

_AUTHENTICATIONS: Final = ("scram", "password", "both")
_CERTIFICATES: Final = ("off", "optional", "required")
_CLOSE_S: Final = 2.0
_SIGN_IN_S: Final = 1.0  # is enough for whoever means to
_LOOK_S: Final = 0.5  # a statement that runs for so long is worth a look whether its client is still there


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
        self.budget = Budget(self.config.all_held_bytes_max)
        self.metrics.held.set_function(lambda: self.budget.bytes)
        self.turns = Turns()
        self._connections: dict[Connection, None] = {}  # as they came
        self._callers: Tally[str] = Tally()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None
        self.stopping = False

    def renew(self, certificate: Path, private_key: Path) -> None:
        """Serve whoever connects from now on with the certificate that the files hold now.

        Raises:
            ConfigurationError: it cannot be used; the one of before is served on.
        """
        binding = end_point_binding(certificate)
        renew_certificate(self.context, certificate, private_key)
        self.door = replace(self.door, binding=binding)

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
        self._server = await loop.create_server(lambda: Connection(self), sock=bound, backlog=256)
        self._looking = loop.create_task(self._look())

    async def _look(self) -> None:
        """What works for a client that has hung up is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for connection in list(self._connections):
                if connection.line is not None:
                    connection.line.look(_LOOK_S)

    async def stop(self) -> None:
        """Take no more, let what runs finish for ``drain_ms``, then cancel it, and close whoever still has
        not gone."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.shut_down()
        tasks = [c.task for c in self._connections if c.task is not None]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=self.config.drain_ms / 1000)
            if left:  # whoever reads is told
                for connection in list(self._connections):
                    connection.cancel("administrator command")
                _, left = await asyncio.wait(left, timeout=_CLOSE_S)
            for connection in list(self._connections):
                connection.abort()
            if left:
                await asyncio.wait(left, timeout=_CLOSE_S)
        if self._server is not None:
            await self._server.wait_closed()
        if self._looking is not None:
            self._looking.cancel()
        self.door.catalog.close()

    # -- the list of connections ------------------------------------------------------------------------
    def enter(self, connection: Connection) -> None:
        """Take a connection in; where too many have not signed in, one of them must go.

        That is one of the source that has most of them: such as have had time enough first, then the one that
        has said least, then the oldest. So strangers who say nothing, or begin and stop, keep nobody out.
        """
        starting = [c for c in self._connections if c.caller is None]
        if len(starting) >= self.config.starting_max:
            self.metrics.refused.labels("starting").inc()
            sources = Tally(c.source for c in starting)
            most = max(sources.values())
            late = time.monotonic() - _SIGN_IN_S
            those = [c for c in starting if sources[c.source] == most]
            victim = min(those, key=lambda c: (c.since > late, c.step if c.since > late else 0))
            self.leave(victim)
            victim.abort()
        self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if connection.caller is not None:
            self._callers[connection.caller] -= 1
            self.metrics.connections.dec()
            connection.caller = None

    def seat(self, connection: Connection, caller: str) -> None:
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
