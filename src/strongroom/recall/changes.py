"""What happens to the memories of a namespace, as the ledger's change feed tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strongroom.model import Memory


@dataclass(frozen=True, slots=True)
class Upsert:
    """A memory is new or changed. ``content_version`` grows with its content alone.

    ``terms``: the blinded terms of a content that ``memory`` does not hold, because its namespace is
    sealed in memory; None: they are those of ``memory.content``.
    """

    memory: Memory
    seq: int
    content_version: int
    terms: Sequence[int] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class VectorPut:
    """The embedding of one version of a memory's content: float, shape (dimensions,), not zero."""

    memory_id: bytes  # 16 bytes
    content_version: int
    vector: NDArray[np.float32] = field(repr=False)
    seq: int


@dataclass(frozen=True, slots=True)
class VectorDrop:
    """The embedding of a memory is void; it will be made again."""

    memory_id: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class AccessPut:
    """How often a memory was read, and when last (microseconds since the epoch, UTC; None: never)."""

    memory_id: bytes
    count: int
    last_us: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Remove:
    """A memory is gone; ``damaged``: it is there, and what is left of it does not open."""

    memory_id: bytes
    seq: int
    damaged: bool = False


Change = Upsert | VectorPut | VectorDrop | AccessPut | Remove
