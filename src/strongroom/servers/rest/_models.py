"""What goes in and out over REST, as typed models: unknown fields are refused, types are strict.

The models check form; sizes and ranges that the configuration sets are checked by the engine, so that
every surface gives the same error. Input is validated straight from the bytes of the request.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from strongroom.model import PrincipalKind, Scope

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"
_NAME = rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}"
NAME_RULE = {"pattern": rf"^{_NAME}$", "maxLength": 255}
_PATTERN_RULE = {"pattern": rf"^(\*|{_NAME}(/\*)?)$", "maxLength": 255}

# The engine checks these; the rules are here for whoever reads the description.
Name = Annotated[
    str,
    Field(
        json_schema_extra=NAME_RULE,
        examples=["company_a/support"],
        description="A namespace: 1 to 8 segments.",
    ),
]
Pattern = Annotated[
    str,
    Field(
        json_schema_extra=_PATTERN_RULE,
        examples=["company_a/*"],
        description="A namespace, all below one (`company_a/*`), or all (`*`).",
    ),
]
Vector = Annotated[
    list[float], Field(description="An embedding: as many numbers as the namespace's model has dimensions.")
]
Metadata = dict[str, JsonValue]
Text = Annotated[str, Field(min_length=1)]
Importance = Annotated[float, Field(ge=0, le=1)]


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc_3339(value: object) -> object:
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        return value
    # No ValueError: the library keeps it with its traceback, and so the request, where no collector looks.
    raise PydanticCustomError("time_form", "a time is written as in RFC 3339, with its offset from UTC")


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc_3339)]


class Input(BaseModel):
    """The base of everything that comes in."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    def arguments(self) -> dict[str, Any]:
        """The fields that were given, by name, ready for the engine."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class _Fields(Input):
    kind: Text = "observation"
    metadata: Metadata = {}
    tags: list[Text] = []
    agent_id: Text | None = None
    session_id: Text | None = None
    sensitivity: Text = "internal"
    importance: Importance = 0.5
    source: Text | None = None
    expires_at: Time | None = None
    embedding: Vector | None = None


class MemoryItem(_Fields):
    """One memory to store."""

    content: Text
    namespace: Name
    memory_id: UUID | None = None
    subject: Text | None = None
    derived_from: list[UUID] = []
    created_at: Time | None = None


class StoreOne(MemoryItem):
    """One memory to store; ``wait`` answers only once it is embedded."""

    wait: bool = False


class StoreMany(Input):
    """Many memories to store, in order."""

    items: Annotated[list[MemoryItem], Field(min_length=1)]
    wait: bool = False


class MemoryChange(Input):
    """The fields of a memory to change; those left out stay."""

    expected_version: Annotated[int, Field(ge=1)] | None = None
    content: Text = ""
    kind: Text = ""
    metadata: Metadata = {}
    tags: list[Text] = []
    agent_id: Text | None = None
    session_id: Text | None = None
    sensitivity: Text = ""
    importance: Importance = 0.5
    source: Text | None = None
    expires_at: Time | None = None
    embedding: Vector | None = None


class RevealOrder(Input):
    """What a memory is opened for."""

    purpose: Annotated[str, Field(min_length=1, max_length=200, examples=["fraud-review"])]
    reason: Annotated[str, Field(max_length=200)] | None = None


class Conditions(Input):
    """Conditions on memories; all that are given must hold."""

    where: str | None = Field(
        default=None,
        description="One boolean SQL expression over the columns of a memory.",
        examples=["importance > 0.5"],
    )
    kinds: list[Text] = []
    tags_all: list[Text] = []
    tags_any: list[Text] = []
    subjects: list[Text] = []
    agent_ids: list[Text] = []
    session_ids: list[Text] = []
    importance_min: Importance | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    metadata: Metadata | None = None


class SearchQuestion(Conditions):
    """A question: as text, as a vector, or both; at least one of them."""

    namespaces: Annotated[list[Pattern], Field(min_length=1)]
    query: Text | None = None
    embedding: Vector | None = None
    k: Annotated[int, Field(ge=1)] = 10
    mode: Literal["hybrid", "semantic", "keyword"] = "hybrid"
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    explain: bool = False


class ListQuestion(Conditions):
    """A listing by conditions alone, newest first."""

    namespaces: Annotated[list[Pattern], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] = 50
    cursor: str | None = None


class FlushOrder(Input):
    """How long to wait for the embedding of everything stored so far."""

    timeout_s: Annotated[float, Field(gt=0, le=300)] = 60.0


class NewNamespace(Input):
    """A namespace to make."""

    name: Name
    model: Text | None = None
    language: Text | None = None
    kms: Text | None = None
    sealed_in_memory: bool | None = None


class NewKey(Input):
    """An API key to make."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    scope: Scope
    grants: Annotated[list[Pattern], Field(min_length=1)]
    expires_at: Time | None = None
    kind: PrincipalKind = PrincipalKind.AGENT
    agent_id: Annotated[str, Field(max_length=128)] = ""
    tenant: Annotated[str, Field(max_length=128)] = ""
    labels: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = []


class RequeueOrder(Input):
    """Whose dead letters get another chance."""

    namespaces: Annotated[list[Pattern], Field(min_length=1)] = ["*"]


# -- what goes out: these describe; the bytes are made from the engine's nouns -----------------------
class Output(BaseModel):
    """The base of everything that goes out."""

    model_config = ConfigDict(extra="forbid")


class MemoryOut(Output):
    """A memory."""

    memory_id: UUID
    namespace: str
    content: str
    kind: str
    metadata: Metadata
    tags: list[str]
    subject: str | None
    agent_id: str | None
    session_id: str | None
    sensitivity: str
    importance: float
    source: str | None
    derived_from: list[UUID]
    created_at: AwareDatetime
    updated_at: AwareDatetime
    expires_at: AwareDatetime | None
    access_count: int
    last_accessed_at: AwareDatetime | None
    has_embedding: bool
    version: int
    redacted: Annotated[
        bool,
        Field(
            description="Its content may not be opened: only id, namespace, sensitivity, created_at count."
        ),
    ]


class MemoriesOut(Output):
    """Memories in the order of the request."""

    memories: list[MemoryOut]


class HitExplanationOut(Output):
    """Where a score comes from: ranks in the lanes, weights, and what recency and importance added."""

    vector_rank: int | None
    keyword_rank: int | None
    vector_weight: float
    keyword_weight: float
    rrf_constant: int
    recency: float
    importance: float


class NoticeOut(Output):
    """What a caller should know beside an answer: ``unreadable_memories``, ``query_not_embedded``."""

    code: str
    message: str
    namespace: str | None
    hint: str | None


class HitOut(Output):
    """One answer of a search."""

    memory: MemoryOut
    score: float
    similarity: float | None
    keyword_score: float | None
    explanation: Annotated[HitExplanationOut | None, Field(description="With ``explain`` alone.")]


class HitsOut(Output):
    """Answers, best first; ``notices``: what is missing from them, empty when nothing is."""

    hits: list[HitOut]
    notices: list[NoticeOut]


class PageOut(Output):
    """One page of a listing; ``next_cursor`` is null on the last."""

    memories: list[MemoryOut]
    next_cursor: str | None
    notices: list[NoticeOut]


class DeletedOut(Output):
    """Whether the memory was there."""

    deleted: bool


class FlushedOut(Output):
    """Everything stored before is embedded or given up."""

    flushed: bool


class StatsOut(Output):
    """Counts over the namespaces that the caller may see."""

    memories: int
    embedded: int
    pending: int
    dead: int
    namespaces: int
    unavailable: int


class NamespaceOut(Output):
    """A namespace."""

    name: str
    created_at: AwareDatetime
    memories: int
    embedded: int
    pending: int
    model: str
    language: str
    sealed_in_memory: bool
    unavailable: str | None


class NamespaceKmsOut(Output):
    """Who holds the master keys of a namespace."""

    namespace: str
    pseudonym: str
    providers: list[str]
    master_keys: list[str]
    state: str
    age_s: float | None
    error: str | None


class KmsOut(Output):
    """Who holds the keys of namespaces."""

    namespaces: list[NamespaceKmsOut]


class NamespacesOut(Output):
    """Namespaces, by name."""

    namespaces: list[NamespaceOut]


class KeyOut(Output):
    """An API key without its secret."""

    key_id: str
    name: str
    scope: Scope
    grants: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    kind: PrincipalKind
    agent_id: str
    tenant: str
    labels: list[str]


class NewKeyOut(Output):
    """A new API key; ``api_key`` is shown this once."""

    key: KeyOut
    api_key: str


class KeysOut(Output):
    """The API keys that the caller may manage."""

    keys: list[KeyOut]


class QueueEntryOut(Output):
    """A memory that waits for its embedding, or was given up."""

    memory_id: UUID
    namespace: str
    dead: bool
    attempts: int
    error: str | None


class QueueOut(Output):
    """Memories that wait for their embedding."""

    entries: list[QueueEntryOut]


class RequeuedOut(Output):
    """How many dead letters wait again."""

    requeued: int


class AuditEntryOut(Output):
    """One operation as the audit log has it."""

    seq: int
    at: AwareDatetime
    request_id: str
    principal: str
    surface: str
    action: str
    namespaces: list[str]
    outcome: str
    reason: str
    memory_ids: list[UUID]
    count: int
    details: dict[str, str]
    subjects: Annotated[list[str], Field(description="Pseudonyms of the data subjects.")]


class AuditOut(Output):
    """Entries of the audit log, oldest first."""

    entries: list[AuditEntryOut]


class HealthOut(Output):
    """The process answers."""

    status: Literal["ok"]


class ErrorBody(Output):
    """What went wrong: a stable code, a sentence, and advice where there is some."""

    code: str
    message: str
    hint: str | None = None
    sqlstate: Annotated[str, Field(description="Of SQL statements: the SQLSTATE.")] | None = None


class ErrorOut(Output):
    """Every error has this form."""

    error: ErrorBody
