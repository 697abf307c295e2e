# Generated from _async/_memories.py by script/generate_sync.py; do not edit.
"""The methods on memories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from strongroom.client import _sql, _wire
from strongroom.client._sync._calls import Calls
from strongroom.errors import StrongroomError, callers_own
from strongroom.model import (
    Hits,
    JsonValue,
    ListPage,
    Memory,
    MemoryDraft,
    SearchMode,
    SqlCancel,
    SqlDescription,
    SqlResult,
)
from strongroom.model.memory import UNSET, Unset

Memories = list[Memory]  # the class has a method of the name list


class MemoryCalls(Calls):
    """Store, search, read, change and delete memories, and ask them by SQL."""

    def store(
        self,
        content: str,
        *,
        namespace: str,
        memory_id: UUID | str | None = None,
        kind: str = "observation",
        metadata: Mapping[str, JsonValue] | None = None,
        tags: Sequence[str] = (),
        subject: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        sensitivity: str = "internal",
        importance: float = 0.5,
        source: str | None = None,
        derived_from: Sequence[UUID] = (),
        created_at: datetime | None = None,
        expires_at: datetime | None = None,
        embedding: Any = None,
    ) -> Memory:
        """Seal and keep one memory; durable when this returns, found by meaning once embedded.

        Raises:
            InvalidInputError: a value is not of its form. DuplicateMemoryError: the id is taken.
        """
        body = _wire.present(
            {
                "content": content,
                "namespace": namespace,
                "memory_id": memory_id,
                "kind": kind,
                "metadata": metadata,
                "tags": tags,
                "subject": subject,
                "agent_id": agent_id,
                "session_id": session_id,
                "sensitivity": sensitivity,
                "importance": importance,
                "source": source,
                "derived_from": derived_from,
                "created_at": created_at,
                "expires_at": expires_at,
                "embedding": embedding,
            }
        )
        return _wire.decode(Memory, self._send("POST", "/v1/memories", _wire.encode(body)))

    def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> Memories:
        """Keep many memories, sent in chunks that are each durable wholly or not at all.

        When an item is refused, the chunks before its own are kept and the error names its position.

        Raises:
            InvalidInputError, DuplicateMemoryError: as ``store``.
        """
        return [memory for memories in self._stored(items) for memory in memories]

    def load(
        self,
        items: Iterable[Mapping[str, Any] | MemoryDraft],
        *,
        workers: int = 1,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """``store_many`` for as many items as there are, with a bounded memory; how many they were.

        Chunks go one after another, so that what is stored is always a beginning of the items.

        Args:
            workers: changes nothing over the network: the chunks are checked and sealed by the server.
            progress: is told after each chunk how many items are durable, all of them from the first one on.

        Raises:
            InvalidInputError, DuplicateMemoryError: as ``store_many``.
        """
        kept = 0
        for memories in self._stored(items):
            kept += len(memories)
            if progress is not None:
                callers_own(progress, kept, "progress could not be told")
        return kept

    def _stored(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> Iterator[Memories]:
        """Send items in chunks; the memories of each when it is durable."""
        for first, body in _wire.chunks(items, self._batch_items):
            try:
                answer = self._send("POST", "/v1/memories", body)
            except StrongroomError as e:
                raise _wire.counted_from(e, first) from None
            yield _wire.decode(_wire.Memories, answer).memories

    def search(
        self,
        query: str | None = None,
        *,
        namespaces: Sequence[str],
        k: int = 10,
        mode: SearchMode = "hybrid",
        embedding: Any = None,
        where: str | None = None,
        min_similarity: float | None = None,
        kinds: Sequence[str] = (),
        tags_all: Sequence[str] = (),
        tags_any: Sequence[str] = (),
        subjects: Sequence[str] = (),
        agent_ids: Sequence[str] = (),
        session_ids: Sequence[str] = (),
        importance_min: float | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        explain: bool = False,
    ) -> Hits:
        """The ``k`` best memories for a question, among those that the filters allow.

        Raises:
            InvalidFilterError, InvalidVectorError, InvalidInputError: the question is malformed.
            NamespaceNotFoundError: an exact name is granted but does not exist.
            EmbeddingUnavailableError: mode ``semantic`` and the model does not answer.
        """
        body = _wire.present(
            {
                "query": query,
                "namespaces": _wire.names(namespaces),
                "k": k,
                "mode": mode,
                "embedding": embedding,
                "where": where,
                "min_similarity": min_similarity,
                "kinds": kinds,
                "tags_all": tags_all,
                "tags_any": tags_any,
                "subjects": subjects,
                "agent_ids": agent_ids,
                "session_ids": session_ids,
                "importance_min": importance_min,
                "created_after": created_after,
                "created_before": created_before,
                "metadata": metadata,
                "explain": explain or None,
            }
        )
        raw = self._send("POST", "/v1/memories:search", _wire.encode(body), repeatable=True)
        answer = _wire.decode(_wire.HitsAnswer, raw)
        return Hits(answer.hits, answer.notices)

    def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
        """One memory by its id.

        Raises:
            MemoryNotFoundError: it is not there (also when the namespace does not exist).
        """
        params = {"namespace": namespace}
        return _wire.decode(Memory, self._send("GET", _path(memory_id), params=params, repeatable=True))

    def reveal(
        self, memory_id: UUID | str, *, namespace: str, purpose: str, reason: str | None = None
    ) -> Memory:
        """Open one memory that a search answers redacted, for a purpose; an audited act of its own.

        Args:
            purpose: a word or two that policies may ask for, for example ``fraud-review``.
            reason: anything further for the audit log.

        Raises:
            AccessDeniedError: the policies do not permit it for this purpose.
            MemoryNotFoundError: it is not there, or the caller may not know of it.
        """
        params = {"namespace": namespace}
        body = _wire.encode(_wire.present({"purpose": purpose, "reason": reason}))
        raw = self._send("POST", f"{_path(memory_id)}:reveal", body, params=params)
        return _wire.decode(Memory, raw)

    def list(
        self,
        *,
        namespaces: Sequence[str],
        limit: int = 50,
        cursor: str | None = None,
        where: str | None = None,
        kinds: Sequence[str] = (),
        tags_all: Sequence[str] = (),
        tags_any: Sequence[str] = (),
        subjects: Sequence[str] = (),
        agent_ids: Sequence[str] = (),
        session_ids: Sequence[str] = (),
        importance_min: float | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> ListPage:
        """Memories by filter alone, newest first, in pages.

        Raises:
            InvalidFilterError, InvalidInputError: the filter or cursor is malformed.
            NamespaceNotFoundError: an exact name is granted but does not exist.
        """
        body = _wire.present(
            {
                "namespaces": _wire.names(namespaces),
                "limit": limit,
                "cursor": cursor,
                "where": where,
                "kinds": kinds,
                "tags_all": tags_all,
                "tags_any": tags_any,
                "subjects": subjects,
                "agent_ids": agent_ids,
                "session_ids": session_ids,
                "importance_min": importance_min,
                "created_after": created_after,
                "created_before": created_before,
                "metadata": metadata,
            }
        )
        raw = self._send("POST", "/v1/memories:list", _wire.encode(body), repeatable=True)
        return _wire.decode(ListPage, raw)

    def update(
        self,
        memory_id: UUID | str,
        *,
        namespace: str,
        expected_version: int | None = None,
        content: str | Unset = UNSET,
        kind: str | Unset = UNSET,
        metadata: Mapping[str, JsonValue] | Unset = UNSET,
        tags: Sequence[str] | Unset = UNSET,
        agent_id: str | Unset | None = UNSET,
        session_id: str | Unset | None = UNSET,
        sensitivity: str | Unset = UNSET,
        importance: float | Unset = UNSET,
        source: str | Unset | None = UNSET,
        expires_at: datetime | Unset | None = UNSET,
        embedding: Any = UNSET,
    ) -> Memory:
        """Change some fields of a memory; new content is embedded anew.

        Raises:
            MemoryNotFoundError: it is not there. VersionConflictError: its version is not
            ``expected_version``. InvalidInputError: a value is not of its form.
        """
        body = {
            "expected_version": UNSET if expected_version is None else expected_version,
            "content": content,
            "kind": kind,
            "metadata": metadata,
            "tags": tags,
            "agent_id": agent_id,
            "session_id": session_id,
            "sensitivity": sensitivity,
            "importance": importance,
            "source": source,
            "expires_at": expires_at,
            "embedding": embedding,
        }
        params = {"namespace": namespace}
        raw = self._send("PATCH", _path(memory_id), _wire.encode(body), params=params)
        return _wire.decode(Memory, raw)

    def delete(self, memory_id: UUID | str, *, namespace: str) -> bool:
        """Remove a memory, its vector and its counters; False when it was not there."""
        params = {"namespace": namespace}
        raw = self._send("DELETE", _path(memory_id), params=params, repeatable=True)
        return _wire.decode(_wire.Deleted, raw).deleted

    def sql(
        self,
        statement: str,
        parameters: Sequence[object] = (),
        *,
        namespaces: Sequence[str] | None = None,
        rows_max: int | None = None,
        cancel: SqlCancel | None = None,
    ) -> SqlResult:
        """Answer one SELECT over the caller's memories (docs/sql.md).

        Args:
            parameters: values for ``?`` or ``$1``, ``$2``, ...; numbers, texts, booleans, None.
            namespaces: names or patterns; None: everything that the key may read.
            rows_max: an answer with more rows is refused.
            cancel: a handle that stops the statement from another thread or task.

        Raises:
            SqlSyntaxError, SqlForbiddenError, SqlUndefinedError, SqlDataError: see ``sqlstate``.
            LimitExceededError, OperationTimeoutError, EmbeddingError.
        """
        body = {"statement": statement, "parameters": list(parameters)}
        body |= _wire.present(
            {"namespaces": None if namespaces is None else _wire.names(namespaces), "rows_max": rows_max}
        )
        if cancel is None:
            raw = self._send(
                "POST", "/v1/sql", _wire.encode(body), repeatable=True, accept=_sql.ARROW_STREAM
            )
            return _sql.result_of(raw)
        with _sql.Interrupt(cancel, self._sql_cancel) as interrupt:
            body["statement_id"] = str(interrupt.statement_id)
            raw = self._send("POST", "/v1/sql", _wire.encode(body), accept=_sql.ARROW_STREAM)
        return _sql.result_of(raw)

    def _sql_cancel(self, statement_id: UUID) -> bool:
        raw = self._send("DELETE", f"/v1/sql/{statement_id}", repeatable=True)
        return _wire.decode(_wire.Cancelled, raw).cancelled

    def sql_describe(self, statement: str, parameter_types: Sequence[str] = ()) -> SqlDescription:
        """The parameters and columns of a statement, without running it.

        ``parameter_types``: types of DuckDB that are known already, an empty text for one that is not.

        Raises:
            As ``sql``.
        """
        body = {"statement": statement, "parameter_types": list(parameter_types)}
        raw = self._send("POST", "/v1/sql:describe", _wire.encode(body), repeatable=True)
        return _wire.decode(SqlDescription, raw)


def _path(memory_id: UUID | str) -> str:
    return f"/v1/memories/{_wire.quoted(str(memory_id))}"
