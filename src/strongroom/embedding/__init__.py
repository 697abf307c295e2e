"""Embedding models, and the worker that gives every stored memory its vector. Cannot decrypt."""

from strongroom.embedding._local import LocalMiniLM
from strongroom.embedding._provider import EmbeddingProvider

__all__ = ["EmbeddingProvider", "LocalMiniLM"]
