"""serve, embed-serve, mcp: the processes that stay."""

from __future__ import annotations

import dataclasses
import hmac
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from strongroom.cli._app import App
from strongroom.cli._interrupt import STOPPED, Stopped, server_by_exception, server_stops
from strongroom.cli._params import Command, pass_app
from strongroom.errors import ConfigurationError, InvalidInputError
from strongroom.pages import restart_scrubbing

if TYPE_CHECKING:
    from strongroom.engine import Engine

EMBED_KEY_VARIABLE: Final = "STRONGROOM_EMBED_API_KEY"
_EMBED_PORT: Final = 9443
_KEY_CHARACTERS_MIN: Final = 16
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command(cls=Command)
@click.option("--host", help="Address to listen on. Default: [server] host.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on. Default: [server] port.")
@click.option(
    "--pg-port",
    type=click.IntRange(0, 65_535),
    help="Port of the Postgres wire. Default: [pgwire] port, or a free one with --port 0.",
)
@click.option(
    "--metrics-on-loopback", is_flag=True, help="Give /metrics to callers on this machine without a key."
)
@pass_app
def serve(
    app: App, host: str | None, port: int | None, pg_port: int | None, metrics_on_loopback: bool
) -> None:
    """Serve REST, MCP and the Postgres wire over TLS 1.3 until SIGTERM or Ctrl-C."""
    with _as_server() as reached:
        _serve(app, reached, host=host, port=port, pg_port=pg_port, metrics_on_loopback=metrics_on_loopback)


@contextmanager
def _as_server() -> Iterator[list[str]]:
    """A stop while it starts is one line and no error. To the list is added when it says so by itself."""
    reached: list[str] = []
    try:
        server_by_exception()
        yield reached
    except (Stopped, Exception):
        if not Stopped.came:
            raise
        if not reached:
            sys.stderr.write(STOPPED.decode())
    finally:
        server_stops()


def _serve(
    app: App,
    reached: list[str],
    *,
    host: str | None,
    port: int | None,
    pg_port: int | None,
    metrics_on_loopback: bool,
) -> None:
    directory = app.directory()
    from strongroom.engine import Engine
    from strongroom.servers.serve import run_server, server_files

    engine = Engine.open(directory, debug=app.debug, logs_to_stderr=True)
    if engine.wants_scrubbing():
        engine.close()
        restart_scrubbing()
        engine = Engine.open(directory, debug=app.debug, logs_to_stderr=True)
    try:
        _make_certificates(directory, engine)
        certificate, private_key = server_files(directory, engine.config)
        _require_not_stopped()
        reached.append("server")
        run_server(
            engine,
            engine.config,
            certificate=certificate,
            private_key=private_key,
            host=host,
            port=port,
            pg_port=pg_port,
            metrics_on_loopback=metrics_on_loopback,
        )
    finally:
        engine.close()


def _require_not_stopped() -> None:
    """SIGTERM may have come where an exception is lost: in a finaliser, or in a callback of a library."""
    if Stopped.came:
        raise Stopped


def _make_certificates(directory: Path, engine: Engine) -> None:
    """For a store that was made from Python: what ``strongroom init`` makes of certificates.

    Raises:
        StrongroomError: they cannot be written.
    """
    from strongroom.config import ServerConfig, keys_directory
    from strongroom.identity import create_client_authority, create_local_ca

    server, usual = engine.config.server, ServerConfig()
    place = keys_directory(directory, engine.config) / "tls"
    named = (server.certificate, server.private_key)
    if place.exists() or named != (usual.certificate, usual.private_key):
        return
    create_local_ca(place)
    create_client_authority(place)
    engine.log.info("certificates_made", authority=str(place / "ca.pem"))


@click.command("embed-serve", cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=_EMBED_PORT,
    show_default=True,
    help="Port to listen on.",
)
@click.option("--model", "model_name", default="default", show_default=True, help="Which configured model.")
@click.option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N. Default: [embedding] device.")
@click.option("--certificate", metavar="FILE", help="Certificate. Default: that of the store's server.")
@click.option("--private-key", metavar="FILE", help="Private key. Default: that of the store's server.")
@click.option("--key-file", metavar="FILE", help="File with the key that callers must show.")
@click.option("--no-tls", is_flag=True, help="Plain HTTP; on a loopback address only.")
@pass_app
def embed_serve(
    app: App,
    host: str,
    port: int,
    model_name: str,
    device: str | None,
    certificate: str | None,
    private_key: str | None,
    key_file: str | None,
    no_tls: bool,
) -> None:
    """Serve the embedding model to several nodes, by the embeddings call of the OpenAI API.

    Callers show the key that is in --key-file or in STRONGROOM_EMBED_API_KEY. Without a data directory it
    is the local model; --certificate and --private-key are then needed.
    """
    with _as_server():
        _embed_serve(app, host, port, model_name, device, (certificate, private_key), key_file, no_tls=no_tls)


def _embed_serve(
    app: App,
    host: str,
    port: int,
    model_name: str,
    device: str | None,
    named: tuple[str | None, str | None],
    key_file: str | None,
    *,
    no_tls: bool,
) -> None:
    from strongroom.cli._embed import run_embedding_server, tls_files
    from strongroom.config import Config, load_config

    check = _key_check(key_file)
    directory = app.directory() if app.data else None
    config = load_config(directory) if directory else Config()
    if no_tls:
        if host not in _LOOPBACK:
            raise InvalidInputError("--no-tls needs a loopback address", hint="give --host 127.0.0.1")
        files = None
    else:
        files = tls_files(directory, config, *named)
    if model_name == "default":
        model = config.embedding
    elif model_name in config.models:
        model = config.models[model_name]
    else:
        raise ConfigurationError("no model of that name is configured")
    if device is not None:
        model = dataclasses.replace(model, device=device)
    _require_not_stopped()
    run_embedding_server(model, check, files, host, port, config)


def _key_check(key_file: str | None) -> Callable[[str], bool]:
    """Compares in constant time with the key of the file or the environment."""
    if key_file is not None:
        try:
            key = Path(key_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError("the file of the key cannot be read") from None
    else:
        key = os.environ.get(EMBED_KEY_VARIABLE, "")
    if len(key) < _KEY_CHARACTERS_MIN:
        raise ConfigurationError(
            f"embed-serve needs a key of at least {_KEY_CHARACTERS_MIN} characters",
            hint=f"set {EMBED_KEY_VARIABLE} or give --key-file",
        )
    expected = key.encode()
    return lambda shown: hmac.compare_digest(shown.encode("utf-8", "replace"), expected)


@click.command(cls=Command)
@pass_app
def mcp(app: App) -> None:
    """Speak MCP on stdin and stdout, for an agent on this machine.

    With STRONGROOM_API_KEY (or --api-key-file) it is held to that key; without, it is the owner.
    STRONGROOM_PURPOSE and STRONGROOM_REASON are said with every call.
    """
    app.local_directory("mcp")
    from strongroom import __version__
    from strongroom.servers.mcp import run_stdio

    with app.engine(worker=False) as engine:
        wanted = engine.wants_scrubbing()
    if wanted:
        restart_scrubbing()
    with app.engine(worker=True) as engine:
        run_stdio(app.sign_in(engine, "mcp"), version=__version__)
