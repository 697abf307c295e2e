"""The contract of an embedding model, and what every implementation shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import EmbeddingError, EmbeddingRejectedError, StrongroomError

FloatMatrix = NDArray[np.float32]

_NORM_MIN = 1e-12
_NORM_NEAR = 1e-3


class EmbeddingProvider(Protocol):
    """Turns texts into vectors. Safe to call from several threads at once.

    ``name`` is what people call the model. ``dimensions`` is the length of a vector.
    ``fingerprint`` names exactly what computes: vectors of different fingerprints are not compared.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Vectors of ``texts``, in order: float32, shape (len(texts), dimensions), rows of norm 1.

        Raises:
            EmbeddingUnavailableError: the model does not answer; trying again may help.
            EmbeddingRejectedError: the model refuses an input; trying again will not help.
            ClosedError: the provider was closed.
        """

    def close(self) -> None:
        """Let go of threads, connections and memory. May be called twice."""


def embed_checked(provider: EmbeddingProvider, texts: Sequence[str]) -> FloatMatrix:
    """``provider.embed``, held to its contract: what a model got wrong never reaches a sealed row.

    Raises:
        EmbeddingRejectedError: a vector is zero or not finite. EmbeddingError: the answer is not one
        float32 row per text, or the model failed in a way of its own. Whatever else the contract names.
    """
    try:
        vectors = np.asarray(provider.embed(texts))
        shape = (len(texts), provider.dimensions)
    except StrongroomError:
        raise
    except Exception as e:  # noqa: BLE001 - the model is a plug-in: its errors could hold the texts
        failure = type(e).__name__
    else:
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise EmbeddingError("the model gave something else than one float32 row per text")
        if len(vectors) == 1 and abs(squared(vectors) - 1.0) < _NORM_NEAR:  # false for NaN as well
            return vectors
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            norms = np.einsum("ij,ij->i", vectors, vectors)
        return vectors if np.all(np.abs(norms - 1.0) < _NORM_NEAR) else unit_rows(vectors)
    raise EmbeddingError(f"the embedding model failed ({failure})")


def squared(vectors: FloatMatrix) -> float:
    """The sum of the squares of all components; not finite when one of them is not."""
    flat = vectors.ravel()
    return float(flat.dot(flat))


def unit_rows(vectors: FloatMatrix) -> FloatMatrix:
    """Rows scaled to norm 1; shape and dtype (float32) stay.

    Raises:
        EmbeddingRejectedError: a row holds NaN or infinity, or is all zero.
    """
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.all(np.isfinite(norms)) or np.any(norms < _NORM_MIN):
        raise EmbeddingRejectedError("the model gave a vector that is zero or not finite")
    return np.ascontiguousarray(wide / norms[:, None], dtype=np.float32)
