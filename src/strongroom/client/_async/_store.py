"""The methods on the store: namespaces, API keys, the embedding queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

from strongroom.client import _wire
from strongroom.client._async._calls import FLUSH_STEP_S, AsyncCalls
from strongroom.errors import OperationTimeoutError
from strongroom.model import (
    IN_PROCESS,
    ApiKeyInfo,
    Explanation,
    NamespaceInfo,
    NamespaceKms,
    PrincipalKind,
    QueueEntry,
    RequestContext,
    Scope,
    StoreStats,
)


class AsyncStoreCalls(AsyncCalls):
    """Look after the store."""

    async def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything stored so far is embedded or given up as dead.

        Raises:
            OperationTimeoutError: it took longer than ``timeout_s`` seconds.
        """
        deadline = monotonic() + timeout_s
        while True:
            step = max(0.001, min(FLUSH_STEP_S, deadline - monotonic()))
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
        params = {"namespaces": [*_wire.names(namespaces)]}
        return _wire.decode(StoreStats, await self._send("GET", "/v1/stats", params=params, repeatable=True))

    async def namespaces(self) -> Sequence[NamespaceInfo]:
        """The namespaces that the caller may see, by name."""
        raw = await self._send("GET", "/v1/namespaces", repeatable=True)
        return _wire.decode(_wire.Namespaces, raw).namespaces

    async def policy_explain(
        self,
        key_id: str,
        action: str,
        *,
        namespace: str | None = None,
        memory_id: UUID | str | None = None,
        context: RequestContext = IN_PROCESS,
        surface: str = "python",
    ) -> Explanation:
        """Why a key may, or may not, do something; needs the admin scope over the whole store.

        Args:
            action: one of ``Action``.
            namespace: None: the whole store.
            memory_id: about this memory of the namespace.
            context, surface: as if the question came in so.

        Raises:
            CredentialNotFoundError, MemoryNotFoundError: there is no such key or memory.
        """
        question = {
            "key_id": key_id,
            "action": action,
            "namespace": namespace,
            "memory_id": memory_id,
            "surface": surface,
            "purpose": context.purpose,
            "reason": context.reason,
            "source_address": context.source_address,
            "tls_group": context.tls_group,
        }
        raw = await self._send("POST", "/v1/policy:explain", _wire.encode(_wire.present(question)))
        return _wire.decode(Explanation, raw)

    async def create_namespace(
        self,
        name: str,
        *,
        model: str | None = None,
        language: str | None = None,
        kms: str | None = None,
        sealed_in_memory: bool | None = None,
    ) -> NamespaceInfo:
        """Make a namespace with keys of its own; needs the admin scope.

        ``sealed_in_memory``: content and metadata stay sealed in the memory of the server and are opened
        only when they are returned; None: as its configuration says.
        ``kms``: the key management service that wraps its key, by its name in the server's configuration.

        Raises:
            ConflictError: it exists. UnknownModelError: no such model is configured. ConfigurationError: no
            such service is. KeyManagementError: the service refuses or does not answer; nothing was made.
        """
        given = {"name": name, "model": model, "language": language, "kms": kms}
        body = _wire.encode({**given, "sealed_in_memory": sealed_in_memory})
        return _wire.decode(NamespaceInfo, await self._send("POST", "/v1/namespaces", body))

    async def update_namespace(
        self,
        name: str,
        *,
        model: str | None = None,
        language: str | None = None,
        kms: str | None = None,
        sealed_in_memory: bool | None = None,
    ) -> NamespaceInfo:
        """Change a namespace's model (its memories are embedded anew), language, or who wraps its key.

        ``sealed_in_memory``: whether content and metadata stay sealed in memory from now on.
        ``kms``: move it to that key management service while it is in use.

        Raises:
            NamespaceNotFoundError, UnknownModelError, InvalidInputError. ConfigurationError: no such
            service. KeyManagementError: one of the two refuses or does not answer; nothing was changed.
        """
        given = {"name": name, "model": model, "language": language, "kms": kms}
        body = _wire.encode({**given, "sealed_in_memory": sealed_in_memory})
        return _wire.decode(NamespaceInfo, await self._send("PATCH", "/v1/namespaces", body))

    async def kms_status(self) -> Sequence[NamespaceKms]:
        """Who holds the keys of the namespaces that the caller administers, and how that is going."""
        raw = await self._send("GET", "/v1/kms", repeatable=True)
        return _wire.decode(_wire.Kms, raw).namespaces

    async def keys_create(
        self,
        name: str,
        scope: Scope | str,
        grants: Sequence[str],
        expires_at: datetime | None = None,
        *,
        kind: PrincipalKind | str = PrincipalKind.AGENT,
        agent_id: str = "",
        tenant: str = "",
        labels: Sequence[str] = (),
    ) -> tuple[ApiKeyInfo, str]:
        """Make an API key; its text is in the answer and nowhere else.

        ``kind``, ``agent_id``, ``tenant`` and ``labels`` are attributes that policies may ask about; who may
        give which is in docs/access.md. Texts have at most 128 printable characters; there are at most 16
        labels of 64.

        Raises:
            InvalidInputError: an argument is out of its limits. AccessDeniedError: the caller may not make
            such a key, or not give it these attributes.
        """
        given = {"name": name, "scope": scope, "grants": grants, "expires_at": expires_at}
        given |= {"kind": kind, "agent_id": agent_id, "tenant": tenant, "labels": labels}
        made = _wire.decode(_wire.NewKey, await self._send("POST", "/v1/keys", _wire.encode(given)))
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
        params: dict[str, Any] = {"namespaces": [*_wire.names(namespaces)], "limit": limit}
        if dead is not None:
            params["dead"] = "true" if dead else "false"
        raw = await self._send("GET", "/v1/queue", params=params, repeatable=True)
        return _wire.decode(_wire.Queue, raw).entries

    async def requeue(self, namespaces: Sequence[str] = ("*",)) -> int:
        """Give the dead letters another chance; how many there were."""
        raw = await self._send("POST", "/v1/queue:requeue", _wire.encode({"namespaces": namespaces}))
        return _wire.decode(_wire.Requeued, raw).requeued
