"""An answer of few rows, as the Python values that ``to_rows`` would make of its Arrow table.

A table takes longer to make, to measure and to read than a single row takes to find. Here it is made when
somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from strongroom.model import Memory
from strongroom.recall._columns import metadata_text

__all__ = ["ROWS_MAX", "FewRows", "few_rows"]

ROWS_MAX: Final = 16
_TYPES: Final = frozenset(
    {"VARCHAR", "VARCHAR[]", "JSON", "UUID", "UUID[]", "DOUBLE", "BOOLEAN", "BIGINT", "INTEGER"}
)  # not times, to which a table gives a time zone of its own
_VALUE_BYTES: Final = 32  # of offsets, bits and padding beside a value
_VALUE: Final[Mapping[str, Callable[[Memory], Any]]] = {
    "derived_from": lambda memory: list(memory.derived_from),
    "metadata": metadata_text,
    "tags": lambda memory: list(memory.tags),
}
"""Columns whose values are not the attributes as they are."""


class FewRows:
    """Stands for a ``pyarrow.Table``. ``rows``: as ``to_rows`` gives them."""

    __slots__ = ("_made", "_make", "rows")

    def __init__(self, rows: list[tuple[Any, ...]], make: Callable[[], Any]) -> None:
        self.rows = rows
        self._make = make
        self._made: Any = None

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def arrow(self) -> Any:
        """The table itself."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def nbytes(self) -> int:
        """At most so many bytes are in the table."""
        return sum(map(_size, self.rows))

    def fits(self, bytes_max: int) -> bool:
        """Whether the table has at most so many bytes; it is made only when that is in doubt."""
        return self.nbytes <= bytes_max or int(self.arrow().nbytes) <= bytes_max


def few_rows(
    columns: Sequence[str | None],
    types: Sequence[str],
    memories: Sequence[Memory],
    scores: Sequence[float] | None,
    make: Callable[[], Any],
) -> FewRows | None:
    """The rows of ``memories``; None: they are not few, or a value would be another one in a table.

    ``columns``: attributes, None for the score.
    """
    if len(memories) > ROWS_MAX or not _TYPES.issuperset(types):
        return None
    made = [
        list(scores or ()) if name is None else list(map(_VALUE.get(name) or attrgetter(name), memories))
        for name in columns
    ]
    return FewRows(list(zip(*made, strict=True)), make)


def _size(row: tuple[Any, ...]) -> int:
    """At most so many bytes in a table."""
    size = 0
    for value in row:
        size += _VALUE_BYTES
        if isinstance(value, str):
            size += 4 * len(value)
        elif isinstance(value, list):
            size += sum(_VALUE_BYTES + (4 * len(v) if isinstance(v, str) else 0) for v in value)
    return size
