"""A source with a durable queue in memory, and a model that fails as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.embedding import PendingRef
from strongroom.errors import EmbeddingRejectedError, EmbeddingUnavailableError

DIMENSIONS = 8


def vector_of(text: str) -> NDArray[np.float32]:
    v = np.random.default_rng(abs(hash(text)) % 2**32).normal(size=DIMENSIONS)
    return np.asarray(v / np.linalg.norm(v), np.float32)


class FakeModel:
    name = "fake"
    dimensions = DIMENSIONS
    fingerprint = "fake-1"

    def __init__(self) -> None:
        self.down = False
        self.poison = ""
        self.toxic = ""  # brings the model down by itself
        self.before: Callable[[Sequence[str]], object] = lambda texts: None
        self.batches: list[list[str]] = []
        self.closed = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.before(texts)
        if self.down or (self.toxic and any(self.toxic in t for t in texts)):
            raise EmbeddingUnavailableError
        if self.poison and any(self.poison in t for t in texts):
            raise EmbeddingRejectedError
        return np.array([vector_of(t) for t in texts], np.float32).reshape(len(texts), DIMENSIONS)

    def close(self) -> None:
        self.closed = True


class FakeSource:
    """What a ledger does: rows stay queued until they are completed, dead, or gone."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.texts: dict[PendingRef, str] = {}
        self.queued: dict[PendingRef, None] = {}
        self.vectors: dict[PendingRef, Any] = {}
        self.dead: dict[PendingRef, str] = {}
        self.attempts: list[tuple[PendingRef, str]] = []
        self.before: Callable[[str], object] = lambda operation: None

    def store(self, number: int, text: str | None = None, *, ns: int = 1) -> PendingRef:
        ref = PendingRef(ns, number.to_bytes(16, "big"), 1)
        with self.lock:
            self.texts[ref] = text if text is not None else f"text {number}"
            self.queued[ref] = None
        return ref

    def delete(self, ref: PendingRef) -> None:
        with self.lock:
            self.texts.pop(ref, None)
            self.queued.pop(ref, None)

    def load(self, refs: Sequence[PendingRef]) -> list[str | None]:
        self.before("load")
        with self.lock:
            return [self.texts.get(r) for r in refs]

    def complete(self, refs: Sequence[PendingRef], vectors: NDArray[np.float32]) -> None:
        self.before("complete")
        with self.lock:
            for ref, vector in zip(refs, vectors, strict=True):
                if ref in self.texts:
                    self.vectors[ref] = vector
                self.queued.pop(ref, None)

    def fail(self, refs: Sequence[PendingRef], error_code: str, *, dead: bool) -> None:
        self.before("fail")
        with self.lock:
            for ref in refs:
                self.attempts.append((ref, error_code))
                if dead:
                    self.dead[ref] = error_code
                    self.queued.pop(ref, None)

    def orphans(self, limit: int, *, by_turns: bool = False) -> list[PendingRef]:
        self.before("orphans")
        with self.lock:
            found = list(self.queued)
        if by_turns and len(found) > limit:
            first = {ref.ns: ref for ref in reversed(found)}
            found = list(dict.fromkeys([*first.values(), *found]))
        return found[:limit]
