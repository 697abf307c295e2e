"""Arguments and results of the tools. The descriptions are read by agents."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

LIMIT_MAX = 100  # answers to one call: what fits into a context window


def _from_text(value: object) -> object:
    """Some clients send lists and objects as JSON in a string."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


Texts = Annotated[list[str], BeforeValidator(_from_text)]
Object = Annotated[dict[str, Any], BeforeValidator(_from_text)]

Namespace = Annotated[
    str,
    Field(
        description="The namespace: a path that keeps the memories of one customer, team or agent apart "
        "from all others, for example 'company_a/support'. memory_stats tells which you may "
        "use."
    ),
]
Namespaces = Annotated[
    Texts,
    Field(
        min_length=1,
        description="Where to look: namespaces such as 'company_a/support', 'company_a/*' for all below "
        "company_a, or '*' for all that you may read.",
    ),
]
MemoryId = Annotated[UUID, Field(description="The memory_id, as store, search and list return it.")]
Where = Annotated[
    str | None,
    Field(
        description="A condition as one boolean SQL expression over the columns memory_id, namespace, "
        "kind, content, metadata, tags, subject, agent_id, session_id, sensitivity, "
        "importance, source, created_at, updated_at, expires_at, access_count, "
        "last_accessed_at, has_embedding; for example "
        '"importance > 0.5 AND created_at > now() - INTERVAL 7 DAY".'
    ),
]
Kind = Annotated[
    str,
    Field(
        description="What sort of memory: observation, fact, preference, goal, decision, conversation, ..."
    ),
]
Tags = Annotated[Texts, Field(description="Short labels to filter by, for example ['pricing', 'renewal'].")]
Importance = Annotated[float, Field(ge=0, le=1, description="From 0 (trivial) to 1 (must not be forgotten).")]
Sensitivity = Annotated[str, Field(description="How sensitive: public, internal, confidential, ...")]
Metadata = Annotated[
    Object, Field(description="Further facts as a JSON object, for example {'plan': 'enterprise'}.")
]
Source = Annotated[str | None, Field(description="Where it comes from: a document, a URL, a tool, a person.")]
Expires = Annotated[
    AwareDatetime | None,
    Field(description="When it stops being true, RFC 3339 with time zone, after its creation."),
]


class Arguments(BaseModel):
    """The base of all arguments: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """The arguments that were given, by name; null means the same as leaving one out."""
        return {n: v for n in self.model_fields_set if (v := getattr(self, n)) is not None}


class StoreArguments(Arguments):
    content: Annotated[
        str,
        Field(
            min_length=1,
            description="What to remember, as one self-contained statement that makes sense without this "
            "conversation: name people and things instead of 'he' or 'it', and write dates "
            "out.",
        ),
    ]
    namespace: Namespace
    kind: Kind = "observation"
    tags: Tags = []
    metadata: Metadata = {}
    subject: Annotated[
        str | None,
        Field(
            description="Whom the memory is about, for example 'user:42'. Give it whenever it is about a "
            "person: everything about a subject can be erased together."
        ),
    ] = None
    importance: Importance = 0.5
    sensitivity: Sensitivity = "internal"
    agent_id: Annotated[str | None, Field(description="Your own name, if you have one.")] = None
    session_id: Annotated[str | None, Field(description="The conversation that this comes from.")] = None
    source: Source = None
    derived_from: Annotated[
        list[UUID],
        BeforeValidator(_from_text),
        Field(description="The memories that this one was made from."),
    ] = []
    expires_at: Expires = None


class _Filters(Arguments):
    namespaces: Namespaces
    where: Where = None
    kinds: Annotated[Texts, Field(description="Only these kinds.")] = []
    tags_all: Annotated[Texts, Field(description="Only memories that have all of these tags.")] = []
    tags_any: Annotated[Texts, Field(description="Only memories that have at least one of these tags.")] = []
    subjects: Annotated[Texts, Field(description="Only memories about one of these subjects.")] = []
    agent_ids: Annotated[Texts, Field(description="Only memories of one of these agents.")] = []
    session_ids: Annotated[Texts, Field(description="Only memories of one of these conversations.")] = []
    metadata: Annotated[
        Object | None,
        Field(description="Only memories whose metadata hold these values, by path: {'plan.tier': 'gold'}."),
    ] = None
    importance_min: Annotated[float | None, Field(ge=0, le=1, description="Only this important or more.")] = (
        None
    )
    created_after: Annotated[AwareDatetime | None, Field(description="Only from this time on, RFC 3339.")] = (
        None
    )
    created_before: Annotated[AwareDatetime | None, Field(description="Only before this time, RFC 3339.")] = (
        None
    )


class SearchArguments(_Filters):
    query: Annotated[
        str,
        Field(
            min_length=1,
            description="What you want to know, in plain words. A question or a topic works best.",
        ),
    ]
    k: Annotated[int, Field(ge=1, le=LIMIT_MAX, description="How many answers at most.")] = 10
    mode: Annotated[
        Literal["hybrid", "semantic", "keyword"],
        Field(description="hybrid (meaning and words), semantic (meaning alone), keyword (words alone)."),
    ] = "hybrid"
    min_similarity: Annotated[
        float | None,
        Field(ge=-1, le=1, description="Leave out answers less similar than this; 0.3 is a mild bound."),
    ] = None
    explain: Annotated[bool, Field(description="Tell with each answer where its score comes from.")] = False


class ListArguments(_Filters):
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX, description="How many memories at most.")] = 20
    cursor: Annotated[
        str | None, Field(description="next_cursor of the page before, to go on from there.")
    ] = None


class GetArguments(Arguments):
    memory_id: MemoryId
    namespace: Namespace


class RevealArguments(Arguments):
    memory_id: MemoryId
    namespace: Namespace
    purpose: Annotated[
        str,
        Field(min_length=1, max_length=200, description="What you need it for, such as fraud-review."),
    ]


class UpdateArguments(Arguments):
    memory_id: MemoryId
    namespace: Namespace
    expected_version: Annotated[
        int | None,
        Field(
            ge=1, description="Refuse if the memory's version is another one: someone changed it meanwhile."
        ),
    ] = None
    content: Annotated[str | None, Field(min_length=1, description="The new text, whole.")] = None
    kind: Annotated[str | None, Field(description="The new kind.")] = None
    tags: Annotated[Texts | None, Field(description="The new tags, all of them; [] for none.")] = None
    metadata: Annotated[Object | None, Field(description="The new metadata, whole; {} for none.")] = None
    importance: Annotated[float | None, Field(ge=0, le=1, description="From 0 (trivial) to 1.")] = None
    sensitivity: Annotated[str | None, Field(description="The new sensitivity.")] = None
    source: Source = None
    expires_at: Expires = None


class DeleteArguments(Arguments):
    memory_id: MemoryId
    namespace: Namespace


class StatsArguments(Arguments):
    namespaces: Namespaces = ["*"]


# -- results: these describe; the values are made from the engine's nouns -----------------------------
class MemoryResult(BaseModel):
    memory_id: UUID
    namespace: str
    content: str
    kind: str
    metadata: dict[str, Any]
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
    has_embedding: Annotated[bool, Field(description="False: not yet found by meaning; soon it will be.")]
    version: int
    redacted: Annotated[
        bool,
        Field(description="True: you may know of it, not read it. reveal_memory opens it if you may."),
    ]


class ExplanationResult(BaseModel):
    vector_rank: int | None
    keyword_rank: int | None
    vector_weight: float
    keyword_weight: float
    rrf_constant: int
    recency: float
    importance: float


class HitResult(BaseModel):
    memory: MemoryResult
    score: Annotated[float, Field(description="Orders the answers; not comparable between searches.")]
    similarity: Annotated[float | None, Field(description="Cosine similarity, -1 to 1.")]
    keyword_score: float | None
    explanation: ExplanationResult | None = None


class NoticeResult(BaseModel):
    """What is missing from an answer, and why."""

    code: str
    message: str
    namespace: str | None
    hint: str | None


Notices = Annotated[list[NoticeResult], Field(description="What is missing from the answer; empty: nothing.")]


class SearchResult(BaseModel):
    hits: list[HitResult]
    notices: Notices


class ListResult(BaseModel):
    memories: list[MemoryResult]
    next_cursor: Annotated[
        str | None, Field(description="Give it as cursor to get the next page; null: no more.")
    ]
    notices: Notices


class DeleteResult(BaseModel):
    deleted: Annotated[bool, Field(description="False: it was not there.")]


class NamespaceResult(BaseModel):
    name: str
    memories: int
    embedded: int
    pending: int


class StatsResult(BaseModel):
    scope: Annotated[str, Field(description="What you may do: read-only, read-write or admin.")]
    grants: Annotated[
        list[str],
        Field(
            description="Where you may do it: namespaces; 'company_a/*' means all below company_a. One that "
            "is not there yet is made when you store into it."
        ),
    ]
    memories: int
    embedded: int
    pending: Annotated[int, Field(description="Stored, and not yet found by meaning.")]
    dead: Annotated[int, Field(description="Could not be embedded; found by words alone.")]
    namespaces: list[NamespaceResult]


Parameter = str | int | float | bool | None
# Whatever JSON makes of a value of a row.
_CELL_TYPES = [{"type": t} for t in ("string", "number", "boolean", "null", "array", "object")]
Cell = Annotated[Any, WithJsonSchema({"anyOf": _CELL_TYPES})]


class QueryArguments(Arguments):
    """One statement."""

    statement: Annotated[
        str,
        Field(
            description="One SELECT, for example: SELECT kind, count(*) FROM memories WHERE importance > 0.5 "
            "GROUP BY kind. ? stands for a parameter."
        ),
    ]
    parameters: Annotated[
        list[Parameter] | None, BeforeValidator(_from_text), Field(description="Values for ?, in order.")
    ] = None
    namespaces: Annotated[
        Texts | None,
        Field(description="Where to look; left out: all that you may read."),
    ] = None


class QueryColumn(BaseModel):
    """A column of an answer."""

    name: str
    type: str


class QueryResult(BaseModel):
    """The answer to a statement."""

    columns: list[QueryColumn]
    rows: list[list[Cell]]
    row_count: int
    plan: str
    notices: Notices
