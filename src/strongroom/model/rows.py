"""A condition on rows of memories: what an attribute policy leaves open until the memory is known.

A tree of ``Every``, ``Some``, ``Not`` over conditions on one column each, and the constants ``ALL`` and
``NONE``. Every condition is true or false for every row, never unknown: one on a column that holds
nothing is false, ``Present`` asks for it. The columns are those of ``Facts``.

The makers ``every``, ``some`` and ``negate`` fold constants, so that a condition that restricts nothing
*is* ``ALL`` and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What policies may ask of a memory. None: it has no such attribute.

    ``importance`` is in thousandths, rounded down. ``created_us``: microseconds since the epoch, UTC.
    """

    memory_id: bytes
    kind: str
    sensitivity: str
    importance: int
    created_us: int
    tags: frozenset[str]
    subject: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    source: str | None = None


FACT_COLUMNS: Final = (
    "memory_id",
    "kind",
    "sensitivity",
    "importance",
    "created_us",
    "tags",
    "subject",
    "agent_id",
    "session_id",
    "source",
)


@dataclass(frozen=True, slots=True)
class Constant:
    """True or false for every row."""

    value: bool


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column holds one of these texts (``memory_id``: 16 bytes) or numbers."""

    column: str
    values: frozenset[str] | frozenset[int] | frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Below:
    """The number in the column is less than ``limit``."""

    column: str
    limit: int


@dataclass(frozen=True, slots=True)
class Like:
    """The text matches: the parts in their order, anything between them (so ``("a", "")`` begins with a)."""

    column: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Present:
    """The column holds something."""

    column: str


@dataclass(frozen=True, slots=True)
class TagsAll:
    """All of these are among the tags."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class TagsAny:
    """One of these is among the tags."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class TagsWithin:
    """No tag but these."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Not:
    part: Rows


@dataclass(frozen=True, slots=True)
class Every:
    parts: tuple[Rows, ...]


@dataclass(frozen=True, slots=True)
class Some:
    parts: tuple[Rows, ...]


Rows = Constant | OneOf | Below | Like | Present | TagsAll | TagsAny | TagsWithin | Not | Every | Some
ALL: Final = Constant(True)
NONE: Final = Constant(False)


@dataclass(frozen=True, slots=True)
class Reach:
    """The rows of one namespace that a caller may see (``seen``) and whose content it may open (``opened``).

    Rows that are seen and not opened are answered redacted. ``opened`` lies within ``seen``.
    """

    seen: Rows
    opened: Rows
    policies: tuple[str, ...] = field(default=())

    @property
    def is_whole(self) -> bool:
        """Whether nothing is held back."""
        return self is WHOLE or (self.seen == ALL and self.opened == ALL)


WHOLE: Final = Reach(ALL, ALL)


def every(parts: Iterable[Rows]) -> Rows:
    """All of them hold."""
    kept: dict[Rows, None] = {}
    for part in parts:
        if part == NONE:
            return NONE
        if part != ALL:
            kept.update(dict.fromkeys(part.parts if isinstance(part, Every) else (part,)))
    if any(isinstance(part, Not) and part.part in kept for part in kept):
        return NONE
    if not kept:
        return ALL
    return next(iter(kept)) if len(kept) == 1 else Every(tuple(kept))


def some(parts: Iterable[Rows]) -> Rows:
    """One of them holds."""
    kept: dict[Rows, None] = {}
    for part in parts:
        if part == ALL:
            return ALL
        if part != NONE:
            kept.update(dict.fromkeys(part.parts if isinstance(part, Some) else (part,)))
    if any(isinstance(part, Not) and part.part in kept for part in kept):
        return ALL
    if not kept:
        return NONE
    return next(iter(kept)) if len(kept) == 1 else Some(tuple(kept))


def negate(part: Rows) -> Rows:
    """It does not hold."""
    if isinstance(part, Constant):
        return NONE if part.value else ALL
    return part.part if isinstance(part, Not) else Not(part)


def holds(rows: Rows, facts: Facts) -> bool:
    """Whether the condition is true for this memory."""
    match rows:
        case Constant(value):
            return value
        case OneOf(column, values):
            return getattr(facts, column) in values
        case Below(column, limit):
            return bool(getattr(facts, column) < limit)
        case Like(column, parts):
            text = getattr(facts, column)
            return text is not None and matches(text, parts)
        case Present(column):
            return getattr(facts, column) is not None
        case TagsAll(values):
            return values <= facts.tags
        case TagsAny(values):
            return not values.isdisjoint(facts.tags)
        case TagsWithin(values):
            return facts.tags <= values
        case Not(part):
            return not holds(part, facts)
        case Every(several):
            return all(holds(p, facts) for p in several)
        case Some(several):
            return any(holds(p, facts) for p in several)


def matches(text: str, parts: tuple[str, ...]) -> bool:
    """Each part as early as it fits: linear, whatever the pattern."""
    if len(parts) == 1:
        return text == parts[0]
    first, last = parts[0], parts[-1]
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in parts[1:-1]:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
