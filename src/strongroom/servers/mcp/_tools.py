"""The nine tools: what an agent is told of each, and what each does with a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel

from strongroom.servers.mcp import _models as m
from strongroom.servers.wire import hits_out

if TYPE_CHECKING:
    from strongroom.engine import Session


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool. ``run`` takes a session and checked arguments and gives nouns of the engine."""

    name: str
    title: str
    description: str
    arguments: type[m.Arguments]
    result: type[BaseModel]
    run: Callable[[Session, Any], object]
    reads_only: bool = False
    destroys: bool = False
    idempotent: bool = False

    def describe(self) -> Tool:
        """The tool as ``tools/list`` shows it."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            output_schema=self.result.model_json_schema(mode="serialization"),
            annotations=ToolAnnotations(
                title=self.title,
                read_only_hint=self.reads_only,
                destructive_hint=self.destroys,
                idempotent_hint=self.idempotent,
                open_world_hint=False,
            ),
        )


def _store(session: Session, a: m.StoreArguments) -> object:
    return session.store(**a.given())


def _search(session: Session, a: m.SearchArguments) -> object:
    return hits_out(session.search(**a.given()))


def _get(session: Session, a: m.GetArguments) -> object:
    return session.get(a.memory_id, namespace=a.namespace)


def _reveal(session: Session, a: m.RevealArguments) -> object:
    return session.reveal(a.memory_id, namespace=a.namespace, purpose=a.purpose)


def _list(session: Session, a: m.ListArguments) -> object:
    return session.list(**{"limit": a.limit, **a.given()})


def _update(session: Session, a: m.UpdateArguments) -> object:
    return session.update(**a.given())


def _delete(session: Session, a: m.DeleteArguments) -> object:
    return {"deleted": session.delete(a.memory_id, namespace=a.namespace)}


def _stats(session: Session, a: m.StatsArguments) -> object:
    found = session.overview(a.namespaces)
    counts = found.stats
    return {
        "scope": found.caller.scope,
        "grants": [g.text for g in found.caller.grants],
        "memories": counts.memories,
        "embedded": counts.embedded,
        "pending": counts.pending,
        "dead": counts.dead,
        "namespaces": [
            {"name": n.name, "memories": n.memories, "embedded": n.embedded, "pending": n.pending}
            for n in found.namespaces
        ],
    }


def _query(session: Session, a: m.QueryArguments) -> object:
    from strongroom.servers.sql_rows import to_plain_rows

    given = a.given()
    return to_plain_rows(
        session.sql(
            a.statement, given.get("parameters", ()), namespaces=given.get("namespaces"), rows_max=m.LIMIT_MAX
        )
    )


TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        "store_memory",
        "Remember something",
        "Keep something worth knowing in later conversations: a fact, a preference, a decision, a goal, "
        "an observation. Store one statement per call. Search first if you may have stored it before, and "
        "update that memory instead of storing it twice. It is encrypted, durable when this returns, "
        "found by its words at once and by its meaning a moment later.",
        m.StoreArguments,
        m.MemoryResult,
        _store,
    ),
    ToolSpec(
        "search_memory",
        "Search memories",
        "Find memories by meaning and by words. Use this before you answer from what you think you know "
        "about a user, a customer or earlier work. Filters are applied before ranking, so narrow ones "
        "never lose answers. Returns the best first, each with its content, score and memory_id.",
        m.SearchArguments,
        m.SearchResult,
        _search,
        reads_only=True,
        idempotent=True,
    ),
    ToolSpec(
        "get_memory",
        "Read one memory",
        "Read one memory whole, by its memory_id.",
        m.GetArguments,
        m.MemoryResult,
        _get,
        reads_only=True,
        idempotent=True,
    ),
    ToolSpec(
        "reveal_memory",
        "Open a redacted memory",
        "Open one memory that a search answered redacted, for a stated purpose. Every such act is recorded; "
        "do it only when you need the content for what you were asked to do.",
        m.RevealArguments,
        m.MemoryResult,
        _reveal,
        idempotent=True,
    ),
    ToolSpec(
        "list_memories",
        "List memories",
        "List memories by filters alone, newest first, page by page. Use search_memory when you look for "
        "something; use this to review all there is, for example everything about one subject.",
        m.ListArguments,
        m.ListResult,
        _list,
        reads_only=True,
        idempotent=True,
    ),
    ToolSpec(
        "update_memory",
        "Correct a memory",
        "Change a memory that is wrong or out of date. Only what you give is changed; give tags as [] or "
        "metadata as {} to empty them. The former text is replaced.",
        m.UpdateArguments,
        m.MemoryResult,
        _update,
        destroys=True,
        idempotent=False,
    ),
    ToolSpec(
        "delete_memory",
        "Forget one memory",
        "Delete one memory for good. Do this only when asked to forget it, or when it is plainly wrong. "
        "Deleting what is not there is no error.",
        m.DeleteArguments,
        m.DeleteResult,
        _delete,
        destroys=True,
        idempotent=True,
    ),
    ToolSpec(
        "memory_stats",
        "What is stored",
        "Where you may work (grants), the namespaces that are there, and how many memories each holds. Call "
        "this first when you do not know which namespace to use.",
        m.StatsArguments,
        m.StatsResult,
        _stats,
        reads_only=True,
        idempotent=True,
    ),
    ToolSpec(
        "query_memories",
        "Ask by SQL",
        "Answer one SELECT over the table memories, for counts, groups, joins and exact conditions that "
        "search_memory cannot express. Columns: memory_id, namespace, kind, content, metadata (JSON), tags, "
        "subject, agent_id, session_id, sensitivity, importance, source, derived_from, created_at, "
        "updated_at, expires_at, access_count, last_accessed_at, has_embedding, version. "
        "semantic_rank(content, 'text') gives the nearness in meaning, semantic_match(content, 'text') "
        "whether it is near. The dialect is DuckDB's. "
        f"It only reads; at most {m.LIMIT_MAX} rows, so add a LIMIT.",
        m.QueryArguments,
        m.QueryResult,
        _query,
        reads_only=True,
        idempotent=True,
    ),
)
