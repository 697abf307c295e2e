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

    @property
    def is_empty(self) -> bool:
        return not (
            self.kinds
            or self.tags_all
            or self.tags_any
            or self.subjects
            or self.agent_ids
            or self.session_ids
            or self.metadata
            or self.importance_min is not None
            or self.created_after is not None
            or self.created_before is not None
            or (self.where or "").strip()
        )
