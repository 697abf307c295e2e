"""The operations on the store: namespaces, API keys, the embedding queue, checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from strongroom import access
from strongroom.engine import _admin, _check, _escrow, _explain, _import_key
from strongroom.engine._call import Call
from strongroom.engine._session_base import Operations
from strongroom.model import (
    IN_PROCESS,
    ApiKeyInfo,
    Explanation,
    Finding,
    NamespaceInfo,
    NamespaceKms,
    PrincipalKind,
    QueueEntry,
    RequestContext,
    Scope,
    StoreOverview,
    StoreStats,
)


class StoreOperations(Operations):
    """Look after the store."""

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything stored so far is embedded or given up as dead.

        Raises:
            OperationTimeoutError: it took longer than ``timeout_s`` seconds.
        """
        self._run("flush", lambda call: _admin.flush(call, timeout_s))

    def stats(self, namespaces: Sequence[str] = ("*",)) -> StoreStats:
        """Counts over the namespaces that the caller may see."""
        return self._run("stats", lambda call: _admin.stats(call, namespaces))

    def overview(self, namespaces: Sequence[str] = ("*",)) -> StoreOverview:
        """``whoami``, ``stats`` and ``namespaces`` in one operation, for surfaces that tell it at once."""
        return self._run("stats", lambda call: _admin.overview(call, namespaces))

    def namespaces(self) -> Sequence[NamespaceInfo]:
        """The namespaces that the caller may see, by name."""
        return self._run("stats", _admin.namespaces)

    def create_namespace(
        self,
        name: str,
        *,
        model: str | None = None,
        language: str | None = None,
        kms: str | None = None,
        sealed_in_memory: bool | None = None,
    ) -> NamespaceInfo:
        """Make a namespace with keys of its own; needs the admin scope.

        ``sealed_in_memory``: content and metadata stay sealed in the memory of the process and are opened
        only when they are returned (docs/memory.md); None: as the configuration says.
        ``kms``: the key management service that wraps its key, by its name in the configuration; without
        it, the one that the configuration has for namespaces of this name.

        Raises:
            ConflictError: it exists. UnknownModelError: no such model is configured. ConfigurationError: no
            such service is. KeyManagementError: the service refuses or does not answer; nothing was made.
        """
        return self._run(
            "administer",
            lambda call: _admin.create_namespace(call, name, model, language, kms, sealed_in_memory),
        )

    def update_namespace(
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
        ``kms``: move it to that key management service while it is in use. The old service is needed
        once more, to unwrap; the new one has to give back what it was given before the old wrap goes.

        Raises:
            NamespaceNotFoundError, UnknownModelError, InvalidInputError. ConfigurationError: no such
            service. KeyManagementError: one of the two refuses or does not answer; nothing was changed.
        """
        return self._run(
            "administer",
            lambda call: _admin.update_namespace(call, name, model, language, kms, sealed_in_memory),
        )

    def kms_status(self) -> Sequence[NamespaceKms]:
        """Who holds the keys of the namespaces that the caller administers, and how that is going."""
        return self._run("administer", _admin.kms_status)

    def key_import_begin(self, namespace: str) -> str:
        """A request, good for a day and once, to be given to whoever brings the key of a new namespace.

        Raises:
            ConflictError: the namespace exists.
        """
        return self._run("administer", lambda call: _import_key.begin(call, namespace))

    def key_import_finish(
        self, import_id: str, wrapped: str, *, check_value: str | None = None, kms: str | None = None
    ) -> _import_key.Imported:
        """Make the namespace of a request under the key that was wrapped for it.

        ``check_value``: the one that whoever wrapped the key has told; with another one nothing is imported.

        Raises:
            NotFoundError: no such request. InvalidInputError: too old, or no random key. UnwrapError: wrapped
            for something else. ConflictError: another check value, or the namespace exists.
        """
        return self._run(
            "administer", lambda call: _import_key.finish(call, import_id, wrapped, check_value, kms)
        )

    def escrow_status(self) -> _escrow.EscrowStatus:
        """Whether every key could be opened with the recovery keys of the configuration. Asks no KMS."""
        return self._run("administer", _escrow.status)

    def escrow_add(self) -> _escrow.EscrowStatus:
        """Accept the recovery keys of the configuration and wrap every key to them; needs each key's KMS.

        Raises:
            ConfigurationError: the configuration names none.
        """
        return self._run("administer", _escrow.add)

    def policy_explain(
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
        return self._run(
            "administer",
            lambda call: _explain.explain(call, key_id, action, namespace, memory_id, context, surface),
        )

    def keys_create(
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

        def work(call: Call) -> tuple[ApiKeyInfo, str]:
            attributes = access.check_attributes(kind, agent_id, tenant, labels)
            return _admin.keys_create(call, name, scope, grants, expires_at, attributes)

        return self._run("administer", work)

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

    def check(
        self,
        *,
        read_data: bool = False,
        subset: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        keys_progress: Callable[[int, int], None] | None = None,
    ) -> _check.CheckReport:
        """Compare rows, heads, vectors, queue and projection; with ``read_data`` open every sealed row.

        ``subset`` = (n, t) opens part n of t; ``progress`` is called with (rows done, rows to do), about:
        each row counts twice, when it is read and when its namespace is compared with its index, and each
        namespace as one row. Before that, ``keys_progress`` with (wrapped keys that the key management
        service was asked for, wrapped keys).
        """
        return self._run("check", lambda call: _check.check(call, read_data, subset, progress, keys_progress))

    def repair(self, *, accept_loss: bool = False) -> Sequence[Finding]:
        """Queue lost vectors; with ``accept_loss`` also accept that rows are missing. What was done."""
        return self._run("repair", lambda call: _check.repair(call, accept_loss))
