"""A real store behind a real Postgres wire, for tests."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import AccessConfig, Config, EmbeddingConfig, LogConfig, PgwireConfig, ServerConfig
from strongroom.engine import Engine, Session
from strongroom.servers.http import WorkerPool, make_log
from strongroom.servers.pgwire import PgwireServer
from strongroom.servers.serve import server_files
from strongroom.servers.tls import create_local_ca

DIMENSIONS = 64


try:  # the loop that uvicorn takes when it is there
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop  # type: ignore[assignment]


class WireThread:
    """A ``PgwireServer`` with an event loop in a thread."""

    def __init__(self, server: PgwireServer) -> None:
        self.server = server
        self._bound = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._bound.getsockname()[1]
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._started = threading.Event()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.server.start(self._bound))
        self._started.set()
        self._loop.run_forever()
        self._loop.close()

    def __enter__(self) -> WireThread:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Wired:
    engine: Engine
    config: Config
    directory: Path
    ca: Path
    port: int
    log: io.StringIO
    wire: WireThread
    model: WordModel
    admin_key: str = ""

    @property
    def owner(self) -> Session:
        return self.engine.owner_session("test")

    def key(self, scope: str = "read-only", *grants: str) -> str:
        return self.owner.keys_create(f"{scope} of a test", scope, list(grants or ("*",)))[1]

    @staticmethod
    def key_id(key: str) -> str:
        return key[8:20]

    def dsn(self, key: str | None = None, *, user: str | None = None, **more: Any) -> str:
        """What libpq takes; SCRAM unless ``user`` is given."""
        key = self.admin_key if key is None else key
        parts = {
            "host": "localhost",
            "hostaddr": "127.0.0.1",
            "port": self.port,
            "user": user or self.key_id(key),
            "password": key,
            "dbname": "strongroom",
            "sslmode": "verify-full",
            "sslrootcert": self.ca,
            **more,
        }
        return " ".join(f"{k}={v}" for k, v in parts.items())

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def fill(session: Session) -> None:
    """Sixty memories in two namespaces of one tenant and one of another."""
    items = [
        {
            "content": f"memory number {n} about {'invoices' if n % 2 else 'travel'}",
            "namespace": f"company_{'b' if n % 10 == 9 else 'a'}/{'support' if n % 3 else 'sales'}",
            "kind": "fact" if n % 5 == 0 else "observation",
            "agent_id": f"agent-{n % 3}",
            "importance": n / 100,
            "metadata": {"n": n, "even": n % 2 == 0},
            "tags": ["t1", "it's"] if n % 2 else [],
        }
        for n in range(60)
    ]
    session.store_many(items)


@contextmanager
def wired(
    directory: Path, *, engine_wrapper: Any = None, access: AccessConfig | None = None, **settings: Any
) -> Iterator[Wired]:
    """Make a store, fill it, and serve it on a free port; ``settings`` are those of [pgwire]."""
    config = Config(
        embedding=EmbeddingConfig(dimensions=DIMENSIONS, backoff_ms_min=5, backoff_ms_max=50),
        server=ServerConfig(),
        log=LogConfig(level="info"),
        access=access or AccessConfig(),
        pgwire=PgwireConfig(**{"drain_ms": 2_000, **settings}),
    )
    strongroom.init(directory, config=config)
    create_local_ca(directory.with_name(directory.name + ".keys") / "tls")
    model = WordModel(DIMENSIONS)
    engine = Engine.open(directory, provider=model)
    log = io.StringIO()
    certificate, private_key = server_files(directory, config)
    workers = WorkerPool(4, "wire")
    try:
        fill(engine.owner_session("test"))
        server = PgwireServer(
            engine if engine_wrapper is None else engine_wrapper(engine),
            config,
            certificate=certificate,
            private_key=private_key,
            workers=workers,
            log=make_log(config.log, log),
        )
        with WireThread(server) as wire:
            ca = certificate.with_name("ca.pem")
            out = Wired(engine, config, directory, ca, wire.port, log, wire, model)
            out.admin_key = out.key("admin", "*")
            yield out
    finally:
        workers.close()
        engine.close()


def answers_tool(wire: Wired, connection: psycopg.Connection[Any], sql: str, expected: str) -> None:
    """Both protocols answer ``sql`` alike, and ``expected`` stands in some row; "": it may be empty."""
    expected = expected.format(user=wire.key_id(wire.admin_key))
    simple = psycopg.ClientCursor(connection).execute(sql).fetchall()
    prepared = connection.execute(sql, prepare=True).fetchall()
    assert len(simple) == len(prepared)
    if expected:
        assert any(expected in str(value) for row in prepared for value in row)
