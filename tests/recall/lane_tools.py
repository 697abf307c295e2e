"""Made-up memories, vectors and a blinding function for the tests of the recall lanes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from strongroom.model import Memory

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW_US = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000


def blind(tokens: Sequence[str]) -> list[int]:
    """A keyed hash of each token, as the engine hands one in."""
    return [int.from_bytes(hmac.digest(b"test key", t.encode(), "sha256")[:8], "big") for t in tokens]


def memory_id(number: int) -> UUID:
    return UUID(bytes=hashlib.sha256(b"%d" % number).digest()[:16])


def memory(number: int, content: str = "", **fields: Any) -> Memory:
    """Memory ``number``, made that many seconds after ``START``."""
    created = START + timedelta(seconds=number)
    given = {
        "memory_id": memory_id(number),
        "namespace": "acme/notes",
        "content": content,
        "created_at": created,
        "updated_at": created,
        **fields,
    }
    return Memory(**given)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """``rows`` with norm 1, shape (n, d), float32."""
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def clustered(count: int, dimensions: int, clusters: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors around random centres, as embeddings of texts on a few subjects lie."""
    rng = np.random.default_rng(seed)
    centres = unit(np.random.default_rng(17).standard_normal((clusters, dimensions)))
    noise = rng.standard_normal((count, dimensions)) * (0.9 / np.sqrt(dimensions))
    return unit(centres[rng.integers(0, clusters, count)] + noise)
