"""Namespace keys: wrapped by the KMS, unwrapped once per process on first need."""

from __future__ import annotations

import threading

from strongroom.crypto import SealContext, SecretKey, open_sealed, seal
from strongroom.errors import DecryptionError, NamespaceNotFoundError
from strongroom.keyring._book import Book
from strongroom.keyring._rows import (
    KeyState,
    NamespaceKeyRecord,
    NamespaceRow,
    altered,
    kms_context,
    time_of,
)
from strongroom.kms import KmsProvider

_PURPOSE = "namespace-key"


class NamespaceKeys:
    """The namespace keys that this process has unwrapped. The KMS is never asked under the file's lock."""

    def __init__(self, book: Book, kms: KmsProvider) -> None:
        self._book = book
        self._kms = kms
        self._lock = threading.Lock()
        self._keys: dict[tuple[int, int], SecretKey] = {}
        self._newest: dict[int, int] = {}
        self._tenants: dict[int, str] = {}

    def newest(self, ns: int) -> tuple[int, SecretKey]:
        """(version, key) under which new data keys are wrapped.

        Raises:
            NamespaceNotFoundError, UnwrapError, StorageError, and what the KMS raises.
        """
        version = self._newest.get(ns)
        if version is None:
            row = self._row(ns, None)
            self._unwrapped(row)
            version = self._newest[ns] = row.version
        return version, self.key(ns, version)

    def key(self, ns: int, version: int) -> SecretKey:
        """One version of a namespace key.

        Raises:
            NamespaceNotFoundError, UnwrapError, StorageError, and what the KMS raises.
        """
        found = self._keys.get((ns, version))
        return self._unwrapped(self._row(ns, version)) if found is None else found

    def prepare(self, ns: int, tenant: str, now_us: int) -> tuple[NamespaceRow, SecretKey]:
        """A new namespace key and its row, not yet written."""
        secret = SecretKey.generate()
        wrapped = self._kms.wrap(secret, kms_context(self._book.store_id, tenant, ns, 1, _PURPOSE))
        sealed = seal(self._book.tenant_key, 0, _tenant_context(ns, 1), tenant.encode())
        row = NamespaceRow(ns, 1, int(KeyState.ACTIVE), 1, now_us, sealed, wrapped)
        return row.authenticated(self._book.row_key), secret

    def adopt(self, row: NamespaceRow, tenant: str, secret: SecretKey) -> None:
        """Note a namespace that was just written."""
        self._keys[(row.ns, row.version)], self._tenants[row.ns] = secret, tenant
        self._newest[row.ns] = row.version

    def tenant(self, ns: int) -> str:
        """The tenant of a namespace.

        Raises:
            NamespaceNotFoundError, UnwrapError, StorageError.
        """
        found = self._tenants.get(ns)
        if found is None:
            found = self._tenants[ns] = open_tenant(self._book, self._row(ns, None))
        return found

    def records(self) -> list[NamespaceKeyRecord]:
        """Every namespace key.

        Raises:
            UnwrapError, StorageError.
        """
        out: list[NamespaceKeyRecord] = []
        for ns, version in self._book.rows("SELECT ns, version FROM namespace_keys ORDER BY ns, version"):
            row = self._row(ns, version)
            out.append(
                NamespaceKeyRecord(
                    ns=row.ns,
                    tenant=open_tenant(self._book, row),
                    version=row.version,
                    state=KeyState(row.state),
                    created_at=time_of(row.created_us),
                )
            )
        return out

    def renew(self) -> None:
        """Look up anew which version is the newest."""
        self._newest.clear()

    def close(self) -> None:
        """Overwrite every key."""
        for secret in list(self._keys.values()):
            secret.wipe()
        self._keys.clear()
        self._newest.clear()

    def _row(self, ns: int, version: int | None) -> NamespaceRow:
        row = self._book.namespace_row(ns, version) if 0 <= ns < 2**63 else None
        if row is None:
            raise NamespaceNotFoundError
        return row

    def _unwrapped(self, row: NamespaceRow) -> SecretKey:
        with self._lock:
            found = self._keys.get((row.ns, row.version))
            if found is None:
                found = self._keys[(row.ns, row.version)] = unwrap_namespace(self._book, self._kms, row)
        return found


def unwrap_namespace(book: Book, kms: KmsProvider, row: NamespaceRow) -> SecretKey:
    """Ask the KMS.

    Raises:
        UnwrapError, and what the KMS raises.
    """
    tenant = open_tenant(book, row)
    return kms.unwrap(row.wrapped, kms_context(book.store_id, tenant, row.ns, row.version, _PURPOSE))


def open_tenant(book: Book, row: NamespaceRow) -> str:
    """The tenant of a row.

    Raises:
        UnwrapError: it was altered.
    """
    try:
        return open_sealed(book.tenant_key, _tenant_context(row.ns, row.version), row.tenant).decode()
    except DecryptionError:
        raise altered("the tenant of a namespace key was altered") from None


def _tenant_context(ns: int, version: int) -> SealContext:
    return SealContext(tenant="", ns=ns, memory_id=bytes(16), field=0, version=version, schema=1)
