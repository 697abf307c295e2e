"""A small embedding model for tests: words hashed into a vector, so that shared words mean nearness."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import EmbeddingRejectedError, EmbeddingUnavailableError


class WordModel:
    """Deterministic, instant, and can be switched off (``down``) or made to refuse a text (``poison``)."""

    def __init__(self, dimensions: int = 64, name: str = "words") -> None:
        self.name = name
        self.dimensions = dimensions
        self.fingerprint = f"{name}:{dimensions}"
        self.down = False
        self.poison = ""
        self.calls = 0
        self.texts: list[str] = []
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            self.calls += 1
            self.texts.extend(texts)
        if self.down:
            raise EmbeddingUnavailableError
        if self.poison and any(self.poison in t for t in texts):
            raise EmbeddingRejectedError
        return np.stack([self.vector(t) for t in texts])

    def vector(self, text: str) -> NDArray[np.float32]:
        """Unit vector, float32, shape (dimensions,)."""
        out = np.full(self.dimensions, 1e-3, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            seed = np.random.default_rng(int.from_bytes(digest, "big"))
            out += seed.standard_normal(self.dimensions).astype(np.float32)
        return out / np.float32(np.linalg.norm(out))

    def close(self) -> None:
        pass
