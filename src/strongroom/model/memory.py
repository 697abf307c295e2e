"""A memory as an agent sees it, and what comes back from asking for memories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal, cast
from uuid import UUID

from strongroom.model.namespace import NamespaceInfo
from strongroom.model.principal import Principal

JsonValue = Any  # a JSON value: str, int, float, bool, None, list or dict[str, ...] of them

SearchMode = Literal["hybrid", "semantic", "keyword"]

_NO_METADATA: Mapping[str, JsonValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One memory, opened.

    Times are timezone-aware UTC with microseconds. ``importance`` is in [0, 1]. ``version`` starts
    at 1 and grows with every update. ``has_embedding`` is true when the memory can be found by
    meaning. ``derived_from`` names memories of the same namespace that this one was made from.

    ``redacted``: the caller may know of it and not see what it holds. Then only ``memory_id``,
    ``namespace``, ``sensitivity`` and ``created_at`` are those of the memory; the rest is empty.
    """

    memory_id: UUID
    namespace: str
    content: str
    kind: str = "observation"
    metadata: Mapping[str, JsonValue] = field(default_factory=lambda: _NO_METADATA)
    tags: tuple[str, ...] = ()
    subject: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    sensitivity: str = "internal"
    importance: float = 0.5
    source: str | None = None
    derived_from: tuple[UUID, ...] = ()
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    access_count: int = 0
    last_accessed_at: datetime | None = None
    has_embedding: bool = False
    version: int = 1
    redacted: bool = False

    def __repr__(self) -> str:  # content stays out of logs and tracebacks
        return f"<Memory {self.memory_id} in {self.namespace!r}, {len(self.content)} characters>"


class UnfrozenMemory:
    """A memory while it is being made: the slots of ``Memory``, assigned as those of any object.

    A frozen dataclass assigns its 21 fields through ``object.__setattr__``, which takes 4.6 us where this
    takes 0.6. For the places where memories are made by the thousand.
    """

    __slots__ = Memory.__slots__

    def __init__(
        self,
        memory_id: UUID,
        namespace: str,
        content: str,
        kind: str,
        metadata: Mapping[str, JsonValue],
        tags: tuple[str, ...],
        subject: str | None,
        agent_id: str | None,
        session_id: str | None,
        sensitivity: str,
        importance: float,
        source: str | None,
        derived_from: tuple[UUID, ...],
        created_at: datetime,
        updated_at: datetime,
        expires_at: datetime | None,
        access_count: int,
        last_accessed_at: datetime | None,
        has_embedding: bool,
        version: int,
        redacted: bool = False,
    ) -> None:
        self.memory_id = memory_id
        self.namespace = namespace
        self.content = content
        self.kind = kind
        self.metadata = metadata
        self.tags = tags
        self.subject = subject
        self.agent_id = agent_id
        self.session_id = session_id
        self.sensitivity = sensitivity
        self.importance = importance
        self.source = source
        self.derived_from = derived_from
        self.created_at = created_at
        self.updated_at = updated_at
        self.expires_at = expires_at
        self.access_count = access_count
        self.last_accessed_at = last_accessed_at
        self.has_embedding = has_embedding
        self.version = version
        self.redacted = redacted

    def freeze(self) -> Memory:
        """This very object, as a ``Memory`` from here on."""
        self.__class__ = Memory  # type: ignore[assignment]  # the layouts are the same
        return cast(Memory, self)


def with_metadata(memory: Memory, metadata: Mapping[str, JsonValue]) -> Memory:
    """The same memory with other metadata."""
    values = list(_FIELDS(memory))
    values[_METADATA_AT] = metadata
    return UnfrozenMemory(*values).freeze()


_FIELDS = attrgetter(*Memory.__slots__)
_METADATA_AT = Memory.__slots__.index("metadata")


def redacted(memory_id: UUID, namespace: str, sensitivity: str, created_at: datetime) -> Memory:
    """What is shown of a memory whose content may not be opened."""
    return Memory(
        memory_id=memory_id,
        namespace=namespace,
        content="",
        kind="",
        sensitivity=sensitivity,
        importance=0.0,
        created_at=created_at,
        updated_at=created_at,
        redacted=True,
    )


@dataclass(slots=True, kw_only=True)
class MemoryDraft:
    """What a caller gives to ``store``; checked by the engine before anything is written."""

    content: str
    namespace: str
    memory_id: UUID | None = None
    kind: str = "observation"
    metadata: Mapping[str, JsonValue] | None = None
    tags: Sequence[str] = ()
    subject: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    sensitivity: str = "internal"
    importance: float = 0.5
    source: str | None = None
    derived_from: Sequence[UUID] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    embedding: Any = None  # sequence of float, shape (dimensions,), any norm but zero

    def __repr__(self) -> str:  # unchecked, so not even lengths
        return "<MemoryDraft>"


class Unset:
    """The type of ``UNSET``: a field that an update leaves as it is."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


@dataclass(slots=True, kw_only=True)
class MemoryPatch:
    """What ``update`` changes; a field left ``UNSET`` stays as it is."""

    content: str | Unset = UNSET
    kind: str | Unset = UNSET
    metadata: Mapping[str, JsonValue] | Unset = UNSET
    tags: Sequence[str] | Unset = UNSET
    agent_id: str | Unset | None = UNSET
    session_id: str | Unset | None = UNSET
    sensitivity: str | Unset = UNSET
    importance: float | Unset = UNSET
    source: str | Unset | None = UNSET
    expires_at: datetime | Unset | None = UNSET
    embedding: Any = UNSET

    def __repr__(self) -> str:
        return f"<MemoryPatch of {', '.join(n for n in self.__slots__ if getattr(self, n) is not UNSET)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class HitExplanation:
    """Where the score of an answer comes from; docs/search.md has the formula.

    The ranks count from 1 and are None when that lane did not propose the memory. Weights and constant
    are those of its namespace. ``recency`` and ``importance`` are what was added to 1 before the fused
    score was multiplied with it; 0 unless the namespace is set to look at them.
    """

    vector_rank: int | None
    keyword_rank: int | None
    vector_weight: float
    keyword_weight: float
    rrf_constant: int
    recency: float = 0.0
    importance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer of a search.

    ``score`` orders the answers: the fused score in hybrid mode, the cosine in semantic mode, BM25
    in keyword mode. ``similarity`` is the cosine in [-1, 1] and None while the memory has no
    embedding or the search had no vector; ``keyword_score`` is BM25, None without a match.
    ``explanation`` comes when it was asked for.
    """

    memory: Memory
    score: float
    similarity: float | None = None
    keyword_score: float | None = None
    explanation: HitExplanation | None = None


class UnfrozenHit:
    """A hit while it is being made, for the same reason as ``UnfrozenMemory``."""

    __slots__ = Hit.__slots__

    def __init__(
        self,
        memory: Memory,
        score: float,
        similarity: float | None,
        keyword_score: float | None,
        explanation: HitExplanation | None,
    ) -> None:
        self.memory = memory
        self.score = score
        self.similarity = similarity
        self.keyword_score = keyword_score
        self.explanation = explanation

    def freeze(self) -> Hit:
        """This very object, as a ``Hit`` from here on."""
        self.__class__ = Hit  # type: ignore[assignment]  # the layouts are the same
        return cast(Hit, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the caller of an answer should know: it is not all that was asked for.

    ``code``: ``unreadable_memories``: the sealed bytes of some memories of ``namespace`` are damaged, so
    that they take no part. ``query_not_embedded``: the model did not answer, and a hybrid
    search went by words alone.
    """

    code: str
    message: str
    namespace: str | None = None
    hint: str | None = None


class Hits(list[Hit]):
    """The answers of a search, best first, and ``notices``: empty when nothing is wrong."""

    def __init__(self, hits: Iterable[Hit] = (), notices: Sequence[Notice] = ()) -> None:
        super().__init__(hits)
        self.notices: tuple[Notice, ...] = tuple(notices)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """One page of a listing, newest first; ``next_cursor`` is None on the last page."""

    memories: tuple[Memory, ...]
    next_cursor: str | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One memory that waits for its embedding, or was given up (``dead``)."""

    memory_id: UUID
    namespace: str
    dead: bool
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How many memories wait for an embedding, and how many were given up."""

    pending: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Counts over the namespaces that the caller may see."""

    memories: int
    embedded: int
    pending: int
    dead: int
    namespaces: int
    unavailable: int = 0  # of these namespaces: not counted, because their keys cannot be had now


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOverview:
    """Who the caller is, and what is in the namespaces that it may see: their sum, and each by name."""

    caller: Principal
    stats: StoreStats
    namespaces: tuple[NamespaceInfo, ...]
