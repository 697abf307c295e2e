"""No model at all: memories are found by meaning only when their callers bring vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strongroom.embedding._provider import FloatMatrix
from strongroom.errors import ConfigurationError, EmbeddingRejectedError

DIMENSIONS_MAX = 16_384


def check_dimensions(dimensions: int) -> int:
    """Raises: ConfigurationError: not 1 to 16384."""
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise ConfigurationError(f"embedding.dimensions must be 1 to {DIMENSIONS_MAX}")
    return dimensions


class CallerVectors:
    """Refuses every text; says how long the callers' vectors are."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = check_dimensions(dimensions)

    @property
    def name(self) -> str:
        return "none"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        return f"caller-vectors-{self._dimensions}"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Float32 of shape (0, dimensions) for no texts.

        Raises:
            EmbeddingRejectedError: there is a text.
        """
        if texts:
            raise EmbeddingRejectedError(
                "this store has no embedding model", hint="give embedding=..., or set [embedding] provider"
            )
        return np.empty((0, self._dimensions), np.float32)

    def close(self) -> None:
        """Nothing to let go of."""
