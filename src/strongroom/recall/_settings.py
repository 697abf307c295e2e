"""What an index is built with: its table, and how it is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.config import RecallConfig
from strongroom.model import Filter, Memory
from strongroom.recall._blocks import BlockReader
from strongroom.recall._frozen import ColumnsToDump


class MemoryTable(Protocol):
    """The columns of one namespace, by rid."""

    def append(self, rows: Sequence[tuple[int, Memory, int]]) -> None: ...
    def remove(self, rids: Sequence[int]) -> None: ...
    def set_embedded(self, rids: Sequence[int], embedded: bool) -> None: ...
    def set_access(self, rid: int, count: int, last_us: int | None) -> None: ...
    def select(self, filter: Filter, *, now_us: int) -> NDArray[np.int64]: ...
    def mask(self, filter: Filter, *, now_us: int) -> NDArray[np.bool_] | None: ...
    def freeze(self) -> ColumnsToDump: ...
    def restore(self, source: BlockReader, rows: int, expires_us_min: int | None) -> None: ...
    def check_usable(self) -> None: ...
    def memory_bytes(self) -> int: ...
    def drop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallSettings:
    """How one namespace is searched; see ``RecallConfig`` for the meaning."""

    vector_weight: float = 1.0
    keyword_weight: float = 0.6
    rrf_constant: int = 60
    lane_depth_min: int = 50
    language: str = "english"
    exact_rows_max: int = 20_000

    @classmethod
    def from_config(cls, config: RecallConfig, *, language: str | None = None) -> RecallSettings:
        return cls(
            vector_weight=config.vector_weight,
            keyword_weight=config.keyword_weight,
            rrf_constant=config.rrf_constant,
            lane_depth_min=config.lane_depth_min,
            language=language or config.language,
            exact_rows_max=config.exact_rows_max,
        )
