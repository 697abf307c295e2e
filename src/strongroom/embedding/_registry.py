"""From the configuration to a provider."""

from __future__ import annotations

from strongroom.config import EmbeddingConfig
from strongroom.embedding._caller import CallerVectors
from strongroom.embedding._cuda import parse_device
from strongroom.embedding._gpu import GpuMiniLM
from strongroom.embedding._local import LocalMiniLM
from strongroom.embedding._mini_lm import MODEL_NAME
from strongroom.embedding._openai import OpenAICompatible
from strongroom.embedding._provider import EmbeddingProvider
from strongroom.embedding._sentence_transformers import SentenceTransformersProvider
from strongroom.errors import ConfigurationError

PROVIDERS = ("local", "openai", "sentence-transformers", "none")


def make_provider(config: EmbeddingConfig) -> EmbeddingProvider:
    """The provider that ``[embedding] provider`` names; the local one is loaded and checked here.

    Raises:
        ConfigurationError: the name or a setting of that provider is wrong, or the GPU is not there.
        ModelFilesError: the files of a local model are missing or not the pinned ones.
    """
    device = parse_device(config.device)
    if device is not None and config.provider != "local":
        raise ConfigurationError(
            "embedding.device is for the local provider",
            hint="sentence-transformers takes a GPU by itself; an endpoint computes where it runs",
        )
    if config.provider == "local":
        if config.model != MODEL_NAME or config.dimensions != LocalMiniLM.DIMENSIONS:
            raise ConfigurationError(
                f"the local provider has one model, {MODEL_NAME}, with {LocalMiniLM.DIMENSIONS} dimensions",
                hint="for another model use provider openai or sentence-transformers",
            )
        if device is not None:
            return GpuMiniLM(config.weights, device=device)
        return LocalMiniLM(config.weights, threads=config.threads)
    if config.provider == "openai":
        return OpenAICompatible(config)
    if config.provider == "sentence-transformers":
        return SentenceTransformersProvider(config)
    if config.provider == "none":
        return CallerVectors(config.dimensions)
    raise ConfigurationError(
        f"unknown embedding.provider {config.provider!r}", hint="known: " + ", ".join(PROVIDERS)
    )
