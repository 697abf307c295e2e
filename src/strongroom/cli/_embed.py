"""The process of ``embed-serve``: the model behind uvicorn."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn

from strongroom.config import Config, EmbeddingConfig, LogConfig
from strongroom.embedding import make_provider
from strongroom.errors import ConfigurationError
from strongroom.servers.embed_app import create_embedding_app
from strongroom.servers.http import LOOP, PatientProtocol, capture_library_logs, make_log
from strongroom.servers.serve import listening_socket, server_files
from strongroom.servers.tls import server_context

_HEAD_BYTES_MAX = 32 * 1024
_CONNECTIONS_MAX = 1024
_DRAIN_S = 30


def tls_context(
    directory: Path | None, config: Config, certificate: str | None, private_key: str | None
) -> ssl.SSLContext:
    """TLS 1.3 with the given files, or with those of the store's server.

    Raises:
        ConfigurationError: they are missing, mismatched or open to others.
    """
    if (certificate is None) != (private_key is None):
        raise ConfigurationError("--certificate and --private-key belong together")
    if certificate is not None and private_key is not None:
        return server_context(Path(certificate), Path(private_key), post_quantum=config.server.post_quantum)
    if directory is None:
        raise ConfigurationError(
            "there is no certificate", hint="give --certificate and --private-key, or --data DIR"
        )
    return server_context(*server_files(directory, config), post_quantum=config.server.post_quantum)


def run_embedding_server(
    model: EmbeddingConfig,
    api_key_check: Callable[[str], bool],
    context: ssl.SSLContext | None,
    host: str,
    port: int,
    log_config: LogConfig,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the model computes nothing, its GPU is not there, or the address cannot be bound.
    """
    if model.provider not in ("local", "sentence-transformers"):
        raise ConfigurationError(
            "there is no model here to serve",
            hint="[embedding] provider must be local or sentence-transformers",
        )
    log = make_log(log_config)
    capture_library_logs(log)
    provider = make_provider(model)
    try:
        app = create_embedding_app(provider, api_key_check=api_key_check)
        with listening_socket(host, port) as listening:
            server = uvicorn.Server(
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
            log.info("serving", port=listening.getsockname()[1])
            server.run(sockets=[listening])
    finally:
        provider.close()
        log.info("stopped")
