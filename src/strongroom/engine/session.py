"""The public operations of an opened store, for one caller.

A ``Session`` belongs to a principal; each method authorizes that principal anew, so that a revoked key
or an expired one stops at the next call. Methods are thread-safe and block. All raise StrongroomError
subclasses only: besides those named, AccessDeniedError, UnauthenticatedError, StorageError,
KeyManagementError and ClosedError may come from any of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from strongroom.audit import EVERYTHING, AuditFilter, Checkpoint, ConsistencyProof, InclusionProof
from strongroom.engine import _admin, _audit, _check, _read, _search, _sql, _write
from strongroom.engine._call import Call, run
from strongroom.engine._sql import NO_EXTENSION, SqlExtension
from strongroom.model import (
    ApiKeyInfo,
    AuditEntry,
    Filter,
    Finding,
    Hit,
    JsonValue,
    ListPage,
    Memory,
    MemoryDraft,
    MemoryPatch,
    NamespaceInfo,
    Principal,
    QueueEntry,
    Scope,
    SearchMode,
    SqlCancel,
    SqlDescription,
    SqlResult,
    StoreStats,
)
from strongroom.model.memory import UNSET, Unset

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

T = TypeVar("T")
Memories = list[Memory]  # Session has a method of the name list
Hits = list[Hit]


class Session:
    """The operations of one caller. Made by ``Engine.owner_session`` and ``Engine.authenticate``."""

    def __init__(
        self,
        engine: Engine,
        principal: Callable[[], Principal],
        surface: str,
        request_id: str | None = None,
        caller: str = "owner",
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._caller = caller
        self._surface = surface
        self._request_id = request_id
        self.sql_extension: SqlExtension = NO_EXTENSION  # a surface may offer more, a catalogue for example

    def _run(self, action: str, work: Callable[[Call], T]) -> T:
        request_id = self._request_id or secrets.token_hex(8)
        call = Call(
            self._engine, self._caller, self._surface, request_id, action, authenticate=self._principal
        )
        return run(call, work)

    # -- memories -----------------------------------------------------------------------------------
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
        return self._run("store", lambda call: _write.store_many(call, items))

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
    ) -> Hits:
        """The ``k`` best memories for a question, among those that the filters allow.

        Args:
            query: the question as text; may be None when ``embedding`` is given.
            namespaces: names or patterns (``company_a/*``); a pattern selects what the caller may read.
            mode: ``hybrid``, ``semantic`` or ``keyword``.
            embedding: a vector to use instead of embedding ``query``, shape (dimensions,).
            where: one boolean SQL expression over the memory columns (docs/filters.md).
            min_similarity: least cosine in [-1, 1]; memories without an embedding then drop out.

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
        request = _search.SearchRequest(query, namespaces, k, mode, embedding, min_similarity, wanted)
        return self._run("search", lambda call: _search.search(call, request))

    def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
        """One memory by its id.

        Raises:
            MemoryNotFoundError: it is not there (also when the namespace does not exist).
        """
        return self._run("read", lambda call: _read.get(call, memory_id, namespace))

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
    ) -> SqlResult:
        """Answer one SELECT over the caller's memories (docs/sql.md).

        Args:
            parameters: values for ``?`` or ``$1``, ``$2``, ...
            namespaces: names or patterns; None: everything that the caller may read.
            rows_max: an answer with more rows is refused; never more than ``limits.sql_rows_max``.
            cancel: a handle that stops the statement from another thread.

        Raises:
            SqlSyntaxError, SqlForbiddenError, SqlUndefinedError, SqlDataError: see ``sqlstate``.
            LimitExceededError, OperationTimeoutError. NamespaceNotFoundError: as ``list``.
            EmbeddingError: a text of the statement cannot be embedded.
        """
        request = _sql.SqlRequest(statement, parameters, namespaces, rows_max, cancel, self.sql_extension)
        return self._run("sql", lambda call: _sql.run_sql(call, request))

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

    # -- the store ------------------------------------------------------------------------------------
    def whoami(self) -> Principal:
        """Who the caller is, if the credential is still good."""
        return self._run("whoami", lambda call: call.principal)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything stored so far is embedded or given up as dead.

        Raises:
            OperationTimeoutError: it took longer than ``timeout_s`` seconds.
        """
        self._run("flush", lambda call: _admin.flush(call, timeout_s))

    def stats(self, namespaces: Sequence[str] = ("*",)) -> StoreStats:
        """Counts over the namespaces that the caller may see."""
        return self._run("stats", lambda call: _admin.stats(call, namespaces))

    def namespaces(self) -> Sequence[NamespaceInfo]:
        """The namespaces that the caller may see, by name."""
        return self._run("stats", _admin.namespaces)

    def create_namespace(
        self, name: str, *, model: str | None = None, language: str | None = None
    ) -> NamespaceInfo:
        """Make a namespace with keys of its own; needs the admin scope.

        Raises:
            ConflictError: it exists. UnknownModelError: no such model is configured.
        """
        return self._run("administer", lambda call: _admin.create_namespace(call, name, model, language))

    def update_namespace(
        self, name: str, *, model: str | None = None, language: str | None = None
    ) -> NamespaceInfo:
        """Change a namespace's embedding model (its memories are embedded anew) or language.

        Raises:
            NamespaceNotFoundError, UnknownModelError, InvalidInputError.
        """
        return self._run("administer", lambda call: _admin.update_namespace(call, name, model, language))

    def keys_create(
        self,
        name: str,
        scope: Scope | str,
        grants: Sequence[str],
        expires_at: datetime | None = None,
    ) -> tuple[ApiKeyInfo, str]:
        """Make an API key; its text is in the answer and nowhere else."""
        return self._run("administer", lambda call: _admin.keys_create(call, name, scope, grants, expires_at))

    def keys_list(self) -> Sequence[ApiKeyInfo]:
        """The API keys that the caller may manage, without their secrets."""
        return self._run("administer", _admin.keys_list)

    def keys_revoke(self, key_id: str) -> ApiKeyInfo:
        """Revoke an API key, at once and for good.

        Raises:
            CredentialNotFoundError: there is none that the caller may manage.
        """
        return self._run("administer", lambda call: _admin.keys_revoke(call, key_id))

    def queue(
        self, namespaces: Sequence[str] = ("*",), *, dead: bool | None = None, limit: int = 100
    ) -> Sequence[QueueEntry]:
        """Memories that wait for their embedding (``dead=True``: those given up)."""
        return self._run("stats", lambda call: _admin.queue(call, namespaces, dead, limit))

    def requeue(self, namespaces: Sequence[str] = ("*",)) -> int:
        """Give the dead letters another chance; how many there were."""
        return self._run("update", lambda call: _admin.requeue(call, namespaces))

    def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        return self._run("administer", lambda call: _admin.audit_entries(call, limit, after))

    def audit_key(self) -> tuple[str, str]:
        """The public keys of the audit log, as C2SP verifier keys: Ed25519, ML-DSA-65."""
        return self._run("administer", _audit.key)

    def audit_checkpoint(self) -> Checkpoint:
        """Take in what was committed and sign it: size, root, and the signed note.

        Raises:
            TamperedError: integrated entries are gone or are others now.
        """
        return self._run("administer", _audit.checkpoint)

    def audit_proof(self, seq: int) -> InclusionProof:
        """That entry ``seq`` is in the log of a checkpoint.

        Raises:
            NotFoundError: there is no such entry. TamperedError: as ``audit_checkpoint``.
        """
        return self._run("administer", lambda call: _audit.proof(call, seq))

    def audit_consistency(self, old_size: int) -> ConsistencyProof:
        """That the log, when it had ``old_size`` entries, was the beginning of what it is now.

        Raises:
            InvalidInputError: it never had so many. TamperedError: as ``audit_checkpoint``.
        """
        return self._run("administer", lambda call: _audit.consistency(call, old_size))

    def audit_query(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 1000, after: int = 0
    ) -> Sequence[AuditEntry]:
        """The first ``limit`` entries after number ``after`` that the filter lets through, in order."""
        return self._run("administer", lambda call: _audit.query(call, wanted, limit, after))

    def audit_follow(
        self,
        emit: Callable[[AuditEntry], object],
        *,
        wanted: AuditFilter = EVERYTHING,
        last: int = 10,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Give ``emit`` the last entries and then each new one, until ``stop()`` is true (None: at once).

        One operation with one audit entry, written before the first is given out.
        """
        self._run("administer", lambda call: _audit.follow(call, wanted, last, emit, stop))

    def audit_export(
        self,
        write: Callable[[str], object],
        *,
        format: str = "jsonl",
        opened: bool = False,
        wanted: AuditFilter = EVERYTHING,
    ) -> int:
        """Write the log line by line, each with its line end; how many entries.

        Args:
            format: ``jsonl`` (sealed entries and a checkpoint, for ``strongroom audit verify``), or opened
                entries as ``json``, ``csv`` or ``ocsf``.
            opened: with ``jsonl``, put what each entry says beside its sealed bytes.
            wanted: not with ``jsonl``, which is whole.

        Raises:
            InvalidInputError: the arguments do not go together.
        """
        return self._run("administer", lambda call: _audit.export(call, write, format, opened, wanted))

    def check(
        self,
        *,
        read_data: bool = False,
        subset: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> _check.CheckReport:
        """Compare rows, heads, vectors, queue and projection; with ``read_data`` open every sealed row.

        ``subset`` = (n, t) opens part n of t; ``progress`` is called with (rows done, rows about).
        """
        return self._run("check", lambda call: _check.check(call, read_data, subset, progress))

    def repair(self, *, accept_loss: bool = False) -> Sequence[Finding]:
        """Queue lost vectors; with ``accept_loss`` also accept that rows are missing. What was done."""
        return self._run("repair", lambda call: _check.repair(call, accept_loss))
