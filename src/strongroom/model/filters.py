"""Structured conditions of a search or a listing; all that are given must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from strongroom.model.memory import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions joined by AND; an empty filter lets everything through.

    ``kinds``, ``subjects``, ``agent_ids``, ``session_ids``: any of. ``tags_all``/``tags_any``.
    ``metadata``: path -> value, equal; a path is keys joined by '.', for example ``plan.tier``.
    ``importance_min`` inclusive, ``created_after`` inclusive, ``created_before`` exclusive.
    ``where``: one boolean SQL expression over the memory columns (recall.where checks it).
    """

    kinds: Sequence[str] = ()
    tags_all: Sequence[str] = ()
    tags_any: Sequence[str] = ()
    subjects: Sequence[str] = ()
    agent_ids: Sequence[str] = ()
    session_ids: Sequence[str] = ()
    importance_min: float | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, JsonValue] | None = None
    where: str | None = None

    def __repr__(self) -> str:  # which conditions, not their values
        return f"<Filter by {', '.join(self._given()) or 'nothing'}>"

    @property
    def is_empty(self) -> bool:
        return not self._given()

    def _given(self) -> list[str]:
        """The names of the conditions; values may be of any type here, and are checked later."""
        return [name for name in self.__slots__ if not _says_nothing(getattr(self, name))]


_NOTHING: tuple[str, ...] = ()  # the interpreter has one empty tuple


def _says_nothing(value: object) -> bool:
    if value is None or value is _NOTHING:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, tuple | list | set | frozenset | Mapping) and not value
