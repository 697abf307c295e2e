"""What an index is built with: its table, and how it is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.config import RecallConfig
from strongroom.errors import ConfigurationError, InvalidInputError
from strongroom.model import Filter, Memory, NamespacePattern
from strongroom.model.rows import ALL, Facts, Rows
from strongroom.recall._blocks import Again, BlockReader
from strongroom.recall._frozen import ColumnsToDump


class MemoryTable(Protocol):
    """The columns of one namespace, by rid."""

    def append(self, rows: Sequence[tuple[int, Memory, int]]) -> None: ...
    def remove(self, rids: Sequence[int]) -> None: ...
    def set_embedded(self, rids: Sequence[int], embedded: bool) -> None: ...
    def set_access(self, rid: int, count: int, last_us: int | None) -> None: ...
    def select(self, filter: Filter, *, now_us: int, rows: Rows = ALL) -> NDArray[np.int64]: ...
    def mask(self, filter: Filter, *, now_us: int) -> NDArray[np.bool_] | None: ...
    def mask_key(self, filter: Filter, *, now_us: int) -> bytes | None: ...
    def permitted(self, rows: Rows, first: int) -> NDArray[np.int64]: ...
    def tally(self, rows: Rows) -> tuple[int, int]: ...
    def facts(self, rid: int) -> Facts | None: ...
    def labels(self, rids: Sequence[int]) -> dict[int, str]: ...
    def looks_inside(self, filter: Filter) -> bool: ...
    def relieve(self) -> None: ...
    def flush(self) -> None: ...
    def freeze(self) -> ColumnsToDump: ...
    def restore(
        self, source: BlockReader, rows: int, expires_us_min: int | None, again: Again | None
    ) -> None: ...
    def check_usable(self) -> None: ...
    def memory_bytes(self) -> int: ...
    def dump_bytes(self) -> int: ...
    def importance(self, rids: NDArray[np.int64]) -> NDArray[np.float64]: ...
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
    recency_weight: float = 0.0
    recency_half_life_days: float = 30.0
    importance_weight: float = 0.0

    @classmethod
    def from_config(
        cls, config: RecallConfig, *, language: str | None = None, namespace: str = ""
    ) -> RecallSettings:
        """The settings of a namespace: those of all, changed by the first line of ``fusion`` that fits.

        Raises:
            ConfigurationError: a line of ``fusion`` is malformed.
        """
        made = cls(
            vector_weight=config.vector_weight,
            keyword_weight=config.keyword_weight,
            rrf_constant=config.rrf_constant,
            lane_depth_min=config.lane_depth_min,
            language=language or config.language,
            exact_rows_max=config.exact_rows_max,
        )
        for pattern, changes in map(_fusion_line, config.fusion):
            if namespace and pattern.matches(namespace):
                return replace(made, **changes)
        return made


_FUSION: Final = {
    "vector": "vector_weight",
    "keyword": "keyword_weight",
    "recency": "recency_weight",
    "half_life_days": "recency_half_life_days",
    "importance": "importance_weight",
}


def _fusion_line(line: str) -> tuple[NamespacePattern, dict[str, Any]]:
    """A pattern and the settings that it changes, of ``PATTERN name=number ...``."""
    hint = '[recall] fusion = ["team/* keyword=0.4 recency=0.2 half_life_days=14 importance=0.1"]'
    pattern, *pairs = line.split() or [""]
    changes: dict[str, Any] = {}
    for name, _, text in (pair.partition("=") for pair in pairs):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if name not in _FUSION or not 0 <= value <= 1_000_000 or (name == "half_life_days" and not value):
            raise ConfigurationError("a line of [recall] fusion is malformed", hint=hint)
        changes[_FUSION[name]] = value
    try:
        return NamespacePattern.parse(pattern), changes
    except InvalidInputError:
        raise ConfigurationError("a line of [recall] fusion has no namespace or pattern", hint=hint) from None
