"""A real store behind a real HTTPS server, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.support.word_model import WordModel

import strongroom
from strongroom.client._tls import client_context
from strongroom.config import Config, EmbeddingConfig, LimitsConfig, LogConfig, ServerConfig
from strongroom.engine import Engine, Session
from strongroom.servers.http import make_log
from strongroom.servers.serve import ServerThread, server_files
from strongroom.servers.tls import create_local_ca

DIMENSIONS = 64


@dataclass
class Served:
    """A server with an engine of its own; ``owner`` is a session beside it."""

    engine: Engine
    config: Config
    directory: Path
    ca: Path
    url: str
    port: int
    log: io.StringIO
    model: WordModel
    admin_key: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> Session:
        return self.engine.owner_session("test")

    def key(self, scope: str, *grants: str) -> str:
        """The text of a new API key."""
        return self.owner.keys_create(f"{scope} of a test", scope, list(grants))[1]

    def http(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A plain HTTP client that trusts this server."""
        headers = {"authorization": f"Bearer {self.admin_key if key is None else key}"} if key != "" else {}
        return httpx.Client(
            base_url=self.url,
            verify=client_context(self.ca),
            headers=headers,
            trust_env=False,
            timeout=30,
            **options,
        )

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def make_store(directory: Path, **sections: Any) -> Config:
    """A new store with certificates; its configuration."""
    config = Config(
        embedding=EmbeddingConfig(dimensions=DIMENSIONS, backoff_ms_min=5, backoff_ms_max=50),
        **{"limits": LimitsConfig(), "server": ServerConfig(), "log": LogConfig(level="info"), **sections},
    )
    strongroom.init(directory, config=config)
    create_local_ca(directory.with_name(directory.name + ".keys") / "tls")
    return config


@contextmanager
def served(directory: Path, *, metrics_on_loopback: bool = False, **sections: Any) -> Iterator[Served]:
    """Make a store and serve it on a free port."""
    config = make_store(directory, **sections)
    model = WordModel(DIMENSIONS)
    engine = Engine.open(directory, provider=model)
    log = io.StringIO()
    certificate, private_key = server_files(directory, config)
    try:
        with ServerThread(
            engine,
            config,
            certificate=certificate,
            private_key=private_key,
            log=make_log(config.log, log),
            metrics_on_loopback=metrics_on_loopback,
        ) as server:
            ca = certificate.with_name("ca.pem")
            out = Served(engine, config, directory, ca, server.url, server.port, log, model)
            out.admin_key = out.key("admin", "*")
            yield out
    finally:
        engine.close()
