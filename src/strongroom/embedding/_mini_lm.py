"""What all-MiniLM-L6-v2 is, wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from strongroom.embedding._bert_graph import HIDDEN
from strongroom.embedding._provider import FloatMatrix
from strongroom.embedding._weights import WEIGHTS_SHA256

MODEL_NAME = "all-MiniLM-L6-v2"
GRAPH_REVISION = 1  # raised with every change of _bert_graph that moves vectors further than rounding does
FINGERPRINT = f"{MODEL_NAME}-{WEIGHTS_SHA256[:16]}-row8-{GRAPH_REVISION}".lower()


class MiniLM(ABC):
    """The built-in model; vectors of all of its forms may lie in one store."""

    DIMENSIONS: ClassVar[int] = HIDDEN

    @property
    def name(self) -> str:
        return MODEL_NAME

    @property
    def dimensions(self) -> int:
        return HIDDEN

    @property
    def fingerprint(self) -> str:
        return FINGERPRINT

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Vectors of ``texts``: float32, shape (len(texts), 384), rows of norm 1.

        Raises:
            EmbeddingRejectedError: a text cannot be encoded as UTF-8.
            EmbeddingUnavailableError: the runtime failed, for want of memory on a device perhaps.
            ClosedError: the provider was closed.
        """
        return self.embed_counted(texts)[0]

    @abstractmethod
    def embed_counted(self, texts: Sequence[str]) -> tuple[FloatMatrix, list[int]]:
        """``embed``, and how many tokens of each text the model has read."""
