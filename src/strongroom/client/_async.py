"""The client of a Strongroom server, asynchronous. ``_sync`` is generated from this file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any
from uuid import UUID

import httpx

from strongroom.client import _sql, _wire
from strongroom.client._tls import client_context
from strongroom.errors import OperationTimeoutError, TransportError
from strongroom.model import (
    ApiKeyInfo,
    AuditEntry,
    Hit,
    JsonValue,
    ListPage,
    Memory,
    MemoryDraft,
    NamespaceInfo,
    QueueEntry,
    Scope,
    SearchMode,
    SqlResult,
    StoreStats,
)
from strongroom.model.memory import UNSET, Unset

Memories = list[Memory]  # the class has a method of the name list
Hits = list[Hit]

_CONNECT_S = 5.0
_FLUSH_STEP_S = 30.0  # one request waits at most this long
_RETRY_PAUSES_S = (0.05, 0.25)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class AsyncRemoteRoom:
    """A store behind a server, with the methods of an opened one. Close it, or use ``with``.

    All methods raise what an embedded store raises, and TransportError when the server cannot be
    reached or is not trusted. Calls that change nothing, and ``delete``, are repeated twice when the
    connection breaks; the others only when it could not be made, so that nothing is done twice.
    """

    def __init__(self, url: str, http: httpx.AsyncClient, batch_items: int) -> None:
        self._url = url
        self._http = http
        self._batch_items = batch_items

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    # -- memories -----------------------------------------------------------------------------------
    async def store(
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
        return _wire.decode(Memory, await self._send("POST", "/v1/memories", _wire.encode(body)))

    async def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> Memories:
        """Keep many memories, sent in chunks that are each durable wholly or not at all.

        When an item is refused, the chunks before its own are kept.

        Raises:
            InvalidInputError, DuplicateMemoryError: as ``store``.
        """
        stored: Memories = []
        for body in _wire.chunks(items, self._batch_items):
            stored += _wire.decode(_wire.Memories, await self._send("POST", "/v1/memories", body)).memories
        return stored

    async def search(
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

        Raises:
            InvalidFilterError, InvalidVectorError, InvalidInputError: the question is malformed.
            NamespaceNotFoundError: an exact name is granted but does not exist.
            EmbeddingUnavailableError: mode ``semantic`` and the model does not answer.
        """
        body = _wire.present(
            {
                "query": query,
                "namespaces": namespaces,
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
            }
        )
        raw = await self._send("POST", "/v1/memories:search", _wire.encode(body), repeatable=True)
        return _wire.decode(_wire.Hits, raw).hits

    async def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
        """One memory by its id.

        Raises:
            MemoryNotFoundError: it is not there (also when the namespace does not exist).
        """
        params = {"namespace": namespace}
        return _wire.decode(Memory, await self._send("GET", _path(memory_id), params=params, repeatable=True))

    async def list(
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
                "namespaces": namespaces,
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
        raw = await self._send("POST", "/v1/memories:list", _wire.encode(body), repeatable=True)
        return _wire.decode(ListPage, raw)

    async def update(
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
        raw = await self._send("PATCH", _path(memory_id), _wire.encode(body), params=params)
        return _wire.decode(Memory, raw)

    async def delete(self, memory_id: UUID | str, *, namespace: str) -> bool:
        """Remove a memory, its vector and its counters; False when it was not there."""
        params = {"namespace": namespace}
        raw = await self._send("DELETE", _path(memory_id), params=params, repeatable=True)
        return _wire.decode(_wire.Deleted, raw).deleted

    # -- the store ------------------------------------------------------------------------------------
    async def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything stored so far is embedded or given up as dead.

        Raises:
            OperationTimeoutError: it took longer than ``timeout_s`` seconds.
        """
        deadline = monotonic() + timeout_s
        while True:
            step = max(0.001, min(_FLUSH_STEP_S, deadline - monotonic()))
            body = _wire.encode({"timeout_s": step})
            try:
                await self._send("POST", "/v1/flush", body, repeatable=True, wait_s=step)
            except OperationTimeoutError:
                if monotonic() >= deadline:
                    raise
            else:
                return

    async def stats(self, namespaces: Sequence[str] = ("*",)) -> StoreStats:
        """Counts over the namespaces that the caller may see."""
        params = {"namespaces": [*namespaces]}
        return _wire.decode(StoreStats, await self._send("GET", "/v1/stats", params=params, repeatable=True))

    async def namespaces(self) -> Sequence[NamespaceInfo]:
        """The namespaces that the caller may see, by name."""
        raw = await self._send("GET", "/v1/namespaces", repeatable=True)
        return _wire.decode(_wire.Namespaces, raw).namespaces

    async def create_namespace(
        self, name: str, *, model: str | None = None, language: str | None = None
    ) -> NamespaceInfo:
        """Make a namespace with keys of its own; needs the admin scope.

        Raises:
            ConflictError: it exists. UnknownModelError: no such model is configured.
        """
        body = _wire.encode({"name": name, "model": model, "language": language})
        return _wire.decode(NamespaceInfo, await self._send("POST", "/v1/namespaces", body))

    async def update_namespace(
        self, name: str, *, model: str | None = None, language: str | None = None
    ) -> NamespaceInfo:
        """Change a namespace's embedding model (its memories are embedded anew) or language.

        Raises:
            NamespaceNotFoundError, UnknownModelError, InvalidInputError.
        """
        body = _wire.encode({"name": name, "model": model, "language": language})
        return _wire.decode(NamespaceInfo, await self._send("PATCH", "/v1/namespaces", body))

    async def keys_create(
        self,
        name: str,
        scope: Scope | str,
        grants: Sequence[str],
        expires_at: datetime | None = None,
    ) -> tuple[ApiKeyInfo, str]:
        """Make an API key; its text is in the answer and nowhere else."""
        body = _wire.encode({"name": name, "scope": scope, "grants": grants, "expires_at": expires_at})
        made = _wire.decode(_wire.NewKey, await self._send("POST", "/v1/keys", body))
        return made.key.noun(), made.api_key

    async def keys_list(self) -> Sequence[ApiKeyInfo]:
        """The API keys that the caller may manage, without their secrets."""
        raw = await self._send("GET", "/v1/keys", repeatable=True)
        return [key.noun() for key in _wire.decode(_wire.Keys, raw).keys]

    async def keys_revoke(self, key_id: str) -> ApiKeyInfo:
        """Revoke an API key, at once and for good.

        Raises:
            CredentialNotFoundError: there is none that the caller may manage.
        """
        raw = await self._send("DELETE", f"/v1/keys/{_wire.quoted(key_id)}", repeatable=True)
        return _wire.decode(_wire.Key, raw).noun()

    async def queue(
        self, namespaces: Sequence[str] = ("*",), *, dead: bool | None = None, limit: int = 100
    ) -> Sequence[QueueEntry]:
        """Memories that wait for their embedding (``dead=True``: those given up)."""
        params: dict[str, Any] = {"namespaces": [*namespaces], "limit": limit}
        if dead is not None:
            params["dead"] = "true" if dead else "false"
        raw = await self._send("GET", "/v1/queue", params=params, repeatable=True)
        return _wire.decode(_wire.Queue, raw).entries

    async def requeue(self, namespaces: Sequence[str] = ("*",)) -> int:
        """Give the dead letters another chance; how many there were."""
        raw = await self._send("POST", "/v1/queue:requeue", _wire.encode({"namespaces": namespaces}))
        return _wire.decode(_wire.Requeued, raw).requeued

    async def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        params = {"limit": limit, "after": after}
        raw = await self._send("GET", "/v1/audit", params=params, repeatable=True)
        return [entry.noun() for entry in _wire.decode(_wire.Entries, raw).entries]

    async def sql(
        self,
        statement: str,
        parameters: Sequence[object] = (),
        *,
        namespaces: Sequence[str] | None = None,
        rows_max: int | None = None,
    ) -> SqlResult:
        """Answer one SELECT over the caller's memories (docs/sql.md).

        Args:
            parameters: values for ``?`` or ``$1``, ``$2``, ...; numbers, texts, booleans, None.
            namespaces: names or patterns; None: everything that the key may read.
            rows_max: an answer with more rows is refused.

        Raises:
            SqlSyntaxError, SqlForbiddenError, SqlUndefinedError, SqlDataError: see ``sqlstate``.
            LimitExceededError, OperationTimeoutError, EmbeddingError.
        """
        body = {"statement": statement, "parameters": list(parameters)}
        body |= _wire.present({"namespaces": namespaces, "rows_max": rows_max})
        raw = await self._send(
            "POST", "/v1/sql", _wire.encode(body), repeatable=True, accept=_sql.ARROW_STREAM
        )
        return _sql.result_of(raw)

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRemoteRoom:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the wire -------------------------------------------------------------------------------------
    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
        accept: str = "",
    ) -> bytes:
        """The body of the answer.

        Raises:
            StrongroomError: the server answered with an error. TransportError, OperationTimeoutError.
        """
        request = self._http.build_request(method, self._url + path, content=body, params=params)
        request.headers.update(_wire.headers(body, accept))
        if wait_s:
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": wait_s + _FLUSH_STEP_S}
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                response = await self._http.send(request)
            except _NOT_SENT as e:
                if pause_s is None:
                    raise TransportError(_reason(e)) from None
            except _BROKEN as e:
                if pause_s is None or not repeatable:
                    raise TransportError(_reason(e)) from None
            except httpx.TimeoutException:
                raise OperationTimeoutError("the server did not answer in time") from None
            except (httpx.HTTPError, httpx.InvalidURL) as e:
                raise TransportError(_reason(e)) from None
            except RuntimeError:
                raise TransportError("the client was closed") from None
            else:
                if response.is_success:
                    return response.content
                raise _wire.error_of(response.status_code, response.content)
            await asyncio.sleep(pause_s)
        raise TransportError


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the certificate of the server is not trusted; give its authority as ca="
    return f"the server could not be reached ({type(error).__name__})"


def _path(memory_id: UUID | str) -> str:
    return f"/v1/memories/{_wire.quoted(str(memory_id))}"


async def aconnect(
    url: str,
    *,
    api_key: str,
    ca: str | Path | None = None,
    timeout_s: float = 30.0,
    batch_items: int = 1000,
) -> AsyncRemoteRoom:
    """A store behind a server.

    Args:
        url: ``https://host:port``; there is no other way than TLS 1.3.
        api_key: ``sr_live_...``.
        ca: a PEM file of the authorities to trust; without it those of the system.
        timeout_s: how long to wait for an answer, seconds.
        batch_items: how many memories ``store_many`` sends in one request.

    Raises:
        ConfigurationError: the address is not https, or ``ca`` cannot be read. UnauthenticatedError: the
        key cannot be one. Nothing is sent before the first call.
    """
    http = httpx.AsyncClient(
        verify=client_context(ca),
        headers={"authorization": _wire.bearer(api_key), "accept": "application/json"},
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
        follow_redirects=False,
        trust_env=False,
    )
    return AsyncRemoteRoom(_wire.base_url(url), http, max(1, batch_items))
