"""The operations on memories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from strongroom.engine import _bulk, _load, _read, _search, _sql, _write
from strongroom.engine._call import Call
from strongroom.engine._session_base import Operations, Standing
from strongroom.engine._validate import check_count
from strongroom.model import (
    Filter,
    Hits,
    JsonValue,
    ListPage,
    Memory,
    MemoryDraft,
    MemoryPatch,
    SearchMode,
    SqlCancel,
    SqlDescription,
    SqlResult,
)
from strongroom.model.memory import UNSET, Unset

Memories = list[Memory]  # Session has a method of the name list


class MemoryOperations(Operations):
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

        Args:
            content: the text, not empty, at most ``limits.content_bytes_max`` UTF-8 bytes.
            namespace: where it belongs, for example ``company_a/support``.
            importance: in [0, 1].
            created_at: now by default.
            expires_at: from when on it is not found any more; after ``created_at``.
            embedding: optional vector, numbers of shape (dimensions,); made a unit vector.

        Raises:
            InvalidInputError: a value is not of its form. DuplicateMemoryError: the id is taken.
        """
        draft = MemoryDraft(
            content=content,
            namespace=namespace,
            memory_id=memory_id,  # type: ignore[arg-type]  # text is checked by the engine
            kind=kind,
            metadata=metadata,
            tags=tags,
            subject=subject,
            agent_id=agent_id,
            session_id=session_id,
            sensitivity=sensitivity,
            importance=importance,
            source=source,
            derived_from=derived_from,
            created_at=created_at,
            expires_at=expires_at,
            embedding=embedding,
        )
        return self._run("store", lambda call: _write.store(call, draft))

    def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> Memories:
        """Keep many memories, in chunks that are each durable wholly or not at all.

        When an item is refused, what came before its chunk is kept and the error names its position.

        Raises:
            InvalidInputError, DuplicateMemoryError: as ``store``.
        """
        return self._run("store", lambda call: _bulk.store_many(call, items))

    def load(
        self,
        items: Iterable[Mapping[str, Any] | MemoryDraft],
        *,
        workers: int = 1,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """``store_many`` for as many items as there are, with a bounded memory; how many they were.

        What is stored is always a beginning of the items, in chunks that are each durable wholly or not at
        all. With ``workers`` that many processes check and seal, each of which opens the store by itself, as
        its configuration says; the caller is its owner or holds an API key. Items are handed to them as plain
        values. The processes end with the load, also where it is interrupted.

        Args:
            workers: 1 to 64; 1: this process alone.
            progress: is told after each chunk how many items are durable, all of them from the first one on.

        Raises:
            InvalidInputError, DuplicateMemoryError: as ``store_many``. LimitExceededError: the system starts
            no more processes. WorkerLostError: one was killed; how many items are stored at least, it says.
        """
        check_count(workers, "workers", 1, _load.WORKERS_MAX)
        told = _bulk.told(progress)
        if workers == 1:
            return self._run("store", lambda call: _bulk.load(call, _bulk.chunks_of(items, "load"), told))
        return _load.load_by_workers(self, items, workers, told)

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

        Args:
            query: the question as text; may be None when ``embedding`` is given.
            namespaces: names or patterns (``company_a/*``); a pattern selects what the caller may read.
            mode: ``hybrid``, ``semantic`` or ``keyword``.
            embedding: a vector to use instead of embedding ``query``, shape (dimensions,).
            where: one boolean SQL expression over the memory columns (docs/filters.md).
            min_similarity: least cosine in [-1, 1]; memories without an embedding then drop out.
            explain: tell where each score comes from (``Hit.explanation``).

        Returns: the answers, best first; ``notices`` says when the question could not be embedded or some
        memories do not open any more.

        Raises:
            InvalidFilterError, InvalidVectorError, InvalidInputError: the question is malformed.
            NamespaceNotFoundError: an exact name is granted but does not exist.
            EmbeddingUnavailableError: mode ``semantic`` and the model does not answer.
        """
        wanted = Filter(
            kinds=kinds,
            tags_all=tags_all,
            tags_any=tags_any,
            subjects=subjects,
            agent_ids=agent_ids,
            session_ids=session_ids,
            importance_min=importance_min,
            created_after=created_after,
            created_before=created_before,
            metadata=metadata,
            where=where,
        )
        request = _search.SearchRequest(
            query, namespaces, k, mode, embedding, min_similarity, wanted, explain
        )
        return self._run("search", lambda call: _search.search(call, request))

    def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
        """One memory by its id.

        Raises:
            MemoryNotFoundError: it is not there (also when the namespace does not exist).
        """
        return self._run("read", lambda call: _read.get(call, memory_id, namespace))

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
        return self._run("reveal", lambda call: _read.reveal(call, memory_id, namespace, purpose, reason))

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
        wanted = Filter(
            kinds=kinds,
            tags_all=tags_all,
            tags_any=tags_any,
            subjects=subjects,
            agent_ids=agent_ids,
            session_ids=session_ids,
            importance_min=importance_min,
            created_after=created_after,
            created_before=created_before,
            metadata=metadata,
            where=where,
        )
        return self._run("list", lambda call: _read.list_page(call, namespaces, wanted, limit, cursor))

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
        patch = MemoryPatch(
            content=content,
            kind=kind,
            metadata=metadata,
            tags=tags,
            agent_id=agent_id,
            session_id=session_id,
            sensitivity=sensitivity,
            importance=importance,
            source=source,
            expires_at=expires_at,
            embedding=embedding,
        )
        return self._run(
            "update", lambda call: _write.update(call, memory_id, namespace, patch, expected_version)
        )

    def delete(self, memory_id: UUID | str, *, namespace: str) -> bool:
        """Remove a memory, its vector and its counters; False when it was not there."""
        return self._run("delete", lambda call: _write.delete(call, memory_id, namespace))

    def sql(
        self,
        statement: str,
        parameters: Sequence[object] = (),
        *,
        namespaces: Sequence[str] | None = None,
        rows_max: int | None = None,
        cancel: SqlCancel | None = None,
        statement_id: UUID | str | None = None,
    ) -> SqlResult:
        """Answer one SELECT over the caller's memories (docs/sql.md).

        Args:
            parameters: values for ``?`` or ``$1``, ``$2``, ...
            namespaces: names or patterns; None: everything that the caller may read.
            rows_max: an answer with more rows is refused; never more than ``limits.sql_rows_max``.
            cancel: a handle that stops the statement from another thread.
            statement_id: a name of the caller's choice, by which ``sql_cancel`` stops it.

        Raises:
            SqlSyntaxError, SqlForbiddenError, SqlUndefinedError, SqlDataError: see ``sqlstate``.
            LimitExceededError, OperationTimeoutError. NamespaceNotFoundError: as ``list``.
            EmbeddingError: a text of the statement cannot be embedded.
            ConflictError: a statement of the caller runs under that ``statement_id``.
        """
        request = _sql.SqlRequest(
            statement, parameters, namespaces, rows_max, cancel, self.sql_extension, statement_id
        )

        def work(call: Call) -> SqlResult:
            result = _sql.run_sql(call, request)
            self.stood = Standing(call.principal, call.details.get("policy_set", ""))
            return result

        return self._run("sql", work)

    def sql_cancel(self, statement_id: UUID | str) -> bool:
        """Stop the caller's own statement of that name; False: none runs in this process."""
        return self._run("sql_cancel", lambda call: _sql.cancel_sql(call, statement_id))

    def sql_describe(self, statement: str, parameter_types: Sequence[str] = ()) -> SqlDescription:
        """The parameters and columns of a statement, without running it.

        ``parameter_types``: types of DuckDB that are known already, an empty text for one that is not.

        Raises:
            As ``sql``.
        """
        return self._run(
            "sql_describe",
            lambda call: _sql.describe_sql(call, statement, parameter_types, self.sql_extension),
        )
