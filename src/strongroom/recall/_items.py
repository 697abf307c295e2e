"""What a listing is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.recall.index import NamespaceIndex

__all__ = ["ListItem"]


@dataclass(frozen=True, slots=True, eq=False)
class ListItem:
    """One row of a listing; ``(created_us, memory_id)`` is the place to go on from."""

    index: NamespaceIndex
    memory_id: bytes
    seq: int
    created_us: int
    label: str | None = None  # of one whose content may not be opened
