"""The embedding models: known, complete, the pinned ones, reached over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from strongroom.config import EmbeddingConfig
from strongroom.embedding import check_device, find_model_files
from strongroom.errors import StrongroomError
from strongroom.governance._case import Case
from strongroom.model import Finding, Severity

_PROVIDERS = ("local", "openai", "sentence-transformers", "none")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_models(case: Case) -> Iterator[Finding]:
    """Each configured model."""
    yield from _model(case.config.embedding, "embedding")
    for name, model in case.config.models.items():
        yield from _model(model, f"models.{name}")


def _model(model: EmbeddingConfig, where: str) -> Iterator[Finding]:
    if model.provider not in _PROVIDERS:
        yield Finding(
            Severity.ERROR,
            "configuration",
            "the embedding provider is not known",
            f"{where}.provider",
            "known: " + ", ".join(_PROVIDERS),
        )
    elif model.provider == "local":
        try:
            files = find_model_files(model.weights)
            files.weights()
            files.tokenizer()
            check_device(model.device)
        except StrongroomError as e:
            yield Finding(Severity.ERROR, e.code, e.message, where, e.hint)
    elif model.provider == "openai":
        yield from _endpoint(model, where)


def _endpoint(model: EmbeddingConfig, where: str) -> Iterator[Finding]:
    try:
        url = urlsplit(model.url)
        host = url.hostname
    except ValueError:
        host = None
    if not host or url.scheme not in ("http", "https"):
        yield Finding(
            Severity.ERROR, "configuration", "the address of the endpoint is not one", f"{where}.url"
        )
    elif url.scheme == "http" and host not in _LOOPBACK:
        yield Finding(
            Severity.ERROR,
            "endpoint_clear",
            "memories would travel in clear to the embedding endpoint",
            f"{where}.url",
            "use https",
        )
    elif host not in _LOOPBACK:
        yield Finding(
            Severity.INFO,
            "endpoint_remote",
            "the text of every memory is sent to an embedding endpoint on another machine",
            f"{where}.url",
            "that is outside of what Strongroom can protect; the local model keeps it here",
        )
    if model.ca_file and not Path(model.ca_file).is_file():
        yield Finding(Severity.ERROR, "configuration", "the file is not there", f"{where}.ca_file")
