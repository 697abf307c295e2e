"""The process of ``embed-serve``: the model behind uvicorn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import uvicorn

from strongroom.config import Config, EmbeddingConfig
from strongroom.embedding import make_provider
from strongroom.errors import ConfigurationError
from strongroom.servers.embed_app import create_embedding_app
from strongroom.servers.http import LOOP, PatientProtocol, capture_library_logs, make_log
from strongroom.servers.serve import Hangups, Server, listening_socket, renewed, server_files
from strongroom.servers.tls import renew_certificate, server_context

_HEAD_BYTES_MAX = 32 * 1024
_CONNECTIONS_MAX = 1024
_DRAIN_S = 30


def tls_files(
    directory: Path | None, config: Config, certificate: str | None, private_key: str | None
) -> tuple[Path, Path]:
    """Certificate and private key: the given files, or those of the store's server.

    Raises:
        ConfigurationError: one of two is given, or there is no store.
    """
    if (certificate is None) != (private_key is None):
        raise ConfigurationError(
            "--certificate and --private-key belong together", hint="give both, or --data DIR and neither"
        )
    if certificate is not None and private_key is not None:
        return Path(certificate), Path(private_key)
    if directory is None:
        raise ConfigurationError(
            "there is no certificate", hint="give --certificate and --private-key, or --data DIR"
        )
    return server_files(directory, config)


def run_embedding_server(
    model: EmbeddingConfig,
    api_key_check: Callable[[str], bool],
    files: tuple[Path, Path] | None,
    host: str,
    port: int,
    config: Config,
) -> None:
    """Serve until SIGTERM or SIGINT, behind TLS 1.3 with certificate and private key when there are any.

    At SIGHUP whoever connects from then on is served with the certificate that the files hold.

    Raises:
        ConfigurationError: the model computes nothing, its GPU is not there, the files cannot be used, or
            the address cannot be bound.
    """
    if model.provider not in ("local", "sentence-transformers"):
        raise ConfigurationError(
            "there is no model here to serve",
            hint="[embedding] provider must be local or sentence-transformers",
        )
    log = make_log(config.log)
    capture_library_logs(log)
    with closing(Hangups()) as hangups, closing(make_provider(model)) as provider:
        hangups.begin()
        context = None if files is None else server_context(*files, post_quantum=config.server.post_quantum)
        app = create_embedding_app(provider, api_key_check=api_key_check)
        with listening_socket(host, port) as listening:
            server = Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    date_header=False,
                    proxy_headers=False,
                    limit_concurrency=_CONNECTIONS_MAX,
                    timeout_graceful_shutdown=_DRAIN_S,
                    loop=LOOP,
                    http=PatientProtocol,  # h11
                    h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
                    ws="none",
                    ssl_context_factory=None if context is None else lambda *_: context,
                )
            )
            server.hangups = hangups
            if context is not None and files is not None:
                server.on_hangup = partial(renewed, partial(renew_certificate, context, *files), log)
            log.info("serving", port=listening.getsockname()[1])
            server.run(sockets=[listening])
    log.info("stopped")
