"""What namespace 0 holds: the names and settings of namespaces, embedding models, API keys.

A projection of the system namespace's feed. ``refresh`` costs one cheap read when nothing changed and is
called by every operation, so a namespace made or a key revoked by another process counts at once. A store
into a known namespace leaves that read out: its transaction compares the ``watermark`` instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final, TypeAlias

from strongroom.access import Credential
from strongroom.access import decode as decode_credential
from strongroom.access import encode as encode_credential
from strongroom.crypto import SecretKey
from strongroom.engine._identities import Identities
from strongroom.engine._payload import ModelPayload, NamespacePayload, decode_as, encode
from strongroom.engine._turn import turn
from strongroom.engine._vault import SYSTEM_NS, SYSTEM_TENANT, Heads, Vault
from strongroom.errors import (
    ConflictError,
    DuplicateMemoryError,
    KeyMovedError,
    StrongroomError,
    TamperedError,
)
from strongroom.ledger import Ledger, Put, WriteBatch, element_of, root_of_head
from strongroom.model import Field, SealedRecord, State, tenant_of

Commit: TypeAlias = Callable[[WriteBatch], list[int]]
NAMESPACE_NAME: Final = "namespace-name"
MODEL_NUMBER: Final = "model-number"
_PAGE = 1000
_TRIES: Final = 8


def identity_label(field: int) -> str:
    """The label of the purpose key under which records of ``identities`` are found."""
    return f"identity-{int(field)}"


def row_id(vault: Vault, root: int, label: str, text: str) -> bytes:
    """The id (16 bytes) of a row of the system namespace that is found by a name, under a purpose root."""
    return vault.purpose_key(SYSTEM_NS, label, root).mac(text.encode())[:16]


@dataclass(frozen=True, slots=True)
class NamespaceEntry:
    """A namespace: its number, name and settings. ``version`` is that of its row."""

    ns: int
    name: str
    tenant: str
    created_us: int
    model: str
    model_no: int
    language: str
    version: int
    sealed: bool  # content and metadata stay sealed in memory
    seq: int = 0  # of its row, which stands as long as its settings do


@dataclass(frozen=True, slots=True)
class NewNamespace:
    """What a namespace is to be. ``kms``: the providers whose master keys wrap its key, in order."""

    name: str
    model: str
    model_no: int
    language: str
    kms: tuple[str, ...]
    secret: SecretKey | None = None  # imported key material; random without it
    sealed: bool = False  # content and metadata stay sealed in memory


def _entry_of(p: NamespacePayload, version: int, seq: int) -> NamespaceEntry:
    return NamespaceEntry(
        p.ns, p.name, tenant_of(p.name), p.created_us, p.model, p.model_no, p.language, version, p.sealed, seq
    )


class Registry:
    """Names, models and API keys, kept in step with the ledger."""

    def __init__(self, ledger: Ledger, vault: Vault, heads: Heads, lock: Path) -> None:
        """``lock``: the file where processes that make the same namespace wait for each other."""
        self._ledger = ledger
        self._lock_path = lock
        self._vault = vault
        self._heads = heads
        self._lock = RLock()
        self._watermark = 0
        self._by_name: dict[str, NamespaceEntry] = {}
        self._by_ns: dict[int, NamespaceEntry] = {}
        self._names: list[str] = []
        self._models: dict[str, ModelPayload] = {}
        self._models_by_no: dict[int, ModelPayload] = {}
        self._credentials: dict[str, tuple[Credential, int]] = {}
        self.identities = Identities()

    # -- reading ----------------------------------------------------------------------------------
    def verify(self) -> None:
        """Read the system namespace anew and compare it with its head.

        Raises:
            TamperedError: rows were dropped, added or put back. DecryptionError: bytes were changed.
        """
        with self._lock:
            for _ in range(5):
                seq, head = self._ledger.head(SYSTEM_NS)
                total = self._heads.open_head(SYSTEM_NS, head, seq)
                summed = self._heads.summer(SYSTEM_NS, head)
                rows = self._rows(0)
                if self._ledger.head(SYSTEM_NS) != (seq, head):  # rows that are sealed anew keep their seq
                    continue  # another process wrote meanwhile
                for row in rows:
                    summed.add(element_of(row))
                if not summed.matches(total):
                    raise TamperedError
                self._apply(rows)
                return
            raise TamperedError("the system namespace never stood still while it was read")

    def refresh(self) -> None:
        """Take in what changed since the last call."""
        if self._ledger.head(SYSTEM_NS)[0] == self._watermark:
            return
        with self._lock:
            self._apply(self._rows(self._watermark))

    def _rows(self, after: int) -> list[SealedRecord]:
        rows: list[SealedRecord] = []
        while page := self._ledger.changes(SYSTEM_NS, after, _PAGE):
            rows.extend(page)
            after = page[-1].seq
        return rows

    def _apply(self, rows: Iterable[SealedRecord]) -> None:
        for row in rows:
            if row.state == State.LIVE:
                self._apply_row(row, self._vault.open(SYSTEM_TENANT, row))
            self._watermark = max(self._watermark, row.seq)

    def _apply_row(self, row: SealedRecord, raw: bytes) -> None:
        if row.field == Field.NAMESPACE:
            self._know(_entry_of(decode_as(NamespacePayload, raw), row.version, row.seq))
        elif row.field == Field.MODEL:
            m = decode_as(ModelPayload, raw)
            self._models[m.fingerprint] = m
            self._models_by_no[m.model_no] = m
        elif row.field == Field.CREDENTIAL:
            credential = decode_credential(raw)
            self._credentials[credential.key_id] = (credential, row.version)
        else:
            self.identities.apply(row.field, row.version, raw)

    def _know(self, entry: NamespaceEntry) -> None:
        self._heads.know(entry.ns, entry.tenant)
        self._by_name[entry.name] = entry
        self._by_ns[entry.ns] = entry

    def _follow(self) -> None:
        """Take in what was just committed. It is done, so what fails here is not for whoever had it done: the
        next operation reads on from the same place, and is told."""
        with suppress(StrongroomError):
            self.refresh()

    @property
    def watermark(self) -> int:
        """The number of the last change of namespace 0 that is taken in, for ``WriteBatch.relies_on``."""
        return self._watermark

    def get(self, name: str) -> NamespaceEntry | None:
        return self._by_name.get(name)

    def by_ns(self, ns: int) -> NamespaceEntry:
        return self._by_ns[ns]

    def names(self) -> list[str]:
        """All of them, sorted."""
        known = self._names
        if len(known) != len(self._by_name):  # a name stays when it has come
            known = self._names = sorted(self._by_name)
        return list(known)

    def entries(self) -> list[NamespaceEntry]:
        return sorted(self._by_ns.values(), key=lambda e: e.ns)

    def credential(self, key_id: str) -> Credential | None:
        found = self._credentials.get(key_id)
        return found[0] if found else None

    def credentials(self) -> list[Credential]:
        return [c for c, _ in self._credentials.values()]

    def model(self, model_no: int) -> ModelPayload | None:
        return self._models_by_no.get(model_no)

    # -- writing ----------------------------------------------------------------------------------
    def _put(self, memory_id: bytes, field: Field, version: int, raw: bytes) -> Put:
        key = self._vault.data_key(SYSTEM_NS, None)
        sealed = self._vault.seal(key, SYSTEM_TENANT, memory_id, field, version, raw)
        return Put(
            ns=SYSTEM_NS,
            memory_id=memory_id,
            field=field,
            version=version,
            content_version=version,
            key_id=key.key_id,
            state=State.LIVE,
            model=0,
            sealed=sealed,
            expect=version - 1,
        )

    def _commit_named(
        self,
        label: str,
        text: str,
        field: Field,
        version: int,
        raw: bytes,
        batch: WriteBatch | None = None,
        commit: Commit | None = None,
    ) -> int:
        """Write a row that is found by a keyed hash of ``text``; its number.

        It is done again when a key or root moved meanwhile.
        """
        batch, commit = batch or WriteBatch(), commit or self._ledger.commit
        for _ in range(_TRIES):
            root = root_of_head(self._ledger.head(SYSTEM_NS)[1])
            memory_id = row_id(self._vault, root, label, text)
            batch.puts, batch.roots = [self._put(memory_id, field, version, raw)], {SYSTEM_NS: root}
            try:
                return commit(batch)[0]
            except KeyMovedError:
                self._vault.keyring.refresh()
        raise ConflictError("the keys of the store change all the time")

    def create_namespace(
        self, new: NewNamespace, now_us: int, audit: list[bytes], commit: Commit | None = None
    ) -> NamespaceEntry:
        """Make a namespace with keys of its own; the existing one when somebody else was first.

        ``commit``, here and below: what commits it for the caller; the ledger's own when there is none.
        What comes behind it does not fail.
        """
        name = new.name
        root = root_of_head(self._ledger.head(SYSTEM_NS)[1])
        with turn(self._lock_path, row_id(self._vault, root, NAMESPACE_NAME, name)):
            self.refresh()
            found = self._by_name.get(name)
            if found is not None:
                if new.secret is not None:
                    raise ConflictError("the namespace exists")
                return found
            # Without the lock: a service that is slow for one tenant keeps nobody else from the registry.
            ns = self._vault.keyring.create_namespace(tenant_of(name), names=new.kms, secret=new.secret)
            return self._commit_namespace(ns, new, now_us, audit, commit)

    def _commit_namespace(
        self, ns: int, new: NewNamespace, now_us: int, audit: list[bytes], commit: Commit | None
    ) -> NamespaceEntry:
        name = new.name
        payload = NamespacePayload(ns, name, now_us, new.model, new.model_no, new.language, new.sealed)
        raw, batch = encode(payload), WriteBatch(new_namespaces=[ns], audit=audit)
        with self._lock:
            self._heads.know(ns, tenant_of(name))
            try:
                seq = self._commit_named(NAMESPACE_NAME, name, Field.NAMESPACE, 1, raw, batch, commit)
            except DuplicateMemoryError:  # somebody else was first: theirs counts
                self.refresh()
                if new.secret is not None:  # with a key of its own: not the one that was brought
                    raise ConflictError("the namespace exists") from None
                return self._by_name[name]
            self._know(_entry_of(payload, 1, seq))
            self._follow()
            return self._by_name[name]

    def change_namespace(
        self,
        entry: NamespaceEntry,
        model: str,
        model_no: int,
        language: str,
        audit: list[bytes],
        commit: Commit | None = None,
    ) -> NamespaceEntry:
        """Write new settings of a namespace.

        Raises:
            VersionConflictError: somebody else changed them meanwhile.
        """
        payload = NamespacePayload(
            entry.ns, entry.name, entry.created_us, model, model_no, language, entry.sealed
        )
        raw, batch, version = encode(payload), WriteBatch(audit=audit), entry.version + 1
        with self._lock:
            seq = self._commit_named(NAMESPACE_NAME, entry.name, Field.NAMESPACE, version, raw, batch, commit)
            self._know(_entry_of(payload, version, seq))
            self._follow()
            return self._by_ns[entry.ns]

    def model_no(self, fingerprint: str, dimensions: int) -> int:
        """The number of an embedding model in this store; a new one when it was never seen."""
        with self._lock:
            while True:
                self.refresh()
                found = self._models.get(fingerprint)
                if found is not None:
                    return found.model_no
                number = max(self._models_by_no, default=0) + 1
                # The row's id is made from the number, so that two processes cannot give it twice.
                raw = encode(ModelPayload(number, fingerprint, dimensions))
                try:
                    self._commit_named(MODEL_NUMBER, str(number), Field.MODEL, 1, raw)
                except DuplicateMemoryError:
                    continue

    def secret_hash(self, secret: bytes) -> bytes:
        """The keyed hash under which the secret of an API key is stored (HMAC-SHA256, 32 bytes)."""
        return self._vault.purpose_key(SYSTEM_NS, "api-key").mac(secret)

    def write_credential(
        self, credential: Credential, audit: list[bytes], commit: Commit | None = None
    ) -> None:
        """Store a new or changed API key.

        Raises:
            VersionConflictError: somebody else changed it meanwhile.
        """
        with self._lock:
            self.refresh()
            known = self._credentials.get(credential.key_id)
            memory_id = hashlib.sha256(credential.key_id.encode()).digest()[:16]
            version = (known[1] if known else 0) + 1
            put = self._put(memory_id, Field.CREDENTIAL, version, encode_credential(credential))
            (commit or self._ledger.commit)(WriteBatch(puts=[put], audit=audit))
            self._credentials[credential.key_id] = (credential, version)
            self._follow()

    def write_identity(
        self,
        field: Field,
        name: str,
        version: int,
        raw: bytes,
        audit: list[bytes],
        commit: Commit | None = None,
    ) -> None:
        """Store a new or changed record of ``identities``; ``name`` is what it is found by.

        Raises:
            VersionConflictError, DuplicateMemoryError: somebody else changed or made it meanwhile.
        """
        with self._lock:
            batch = WriteBatch(audit=audit)
            self._commit_named(identity_label(field), name, field, version, raw, batch, commit)
            self.identities.apply(field, version, raw)
            self._follow()
