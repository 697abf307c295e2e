"""Sealing and opening of ledger rows: the only place where the engine meets keys.

Every row is sealed under the data key of its namespace and subject, bound to tenant, namespace,
memory_id, field, version and schema. What comes back opened has been authenticated for exactly that
place; a row moved, swapped or put back elsewhere does not open.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TypeVar

from strongroom.crypto import AES_256_GCM, SealContext, sealed_header
from strongroom.engine._payload import PAYLOAD_SCHEMA
from strongroom.errors import InternalError, KeyMovedError, KeyStateError, TamperedError
from strongroom.keyring import DataKey, Keyring, PurposeKey, seal_groups
from strongroom.ledger import RebaseRow, Renamed, root_of_head
from strongroom.ledger import element as element_at
from strongroom.model import Field, SealedRecord

T = TypeVar("T")
SealedOf = Callable[[int], bytes]
Reread = Callable[[int, bytes, int], SealedRecord | None]

SYSTEM_NS = 0
SYSTEM_TENANT = "strongroom"
AUDIT_KEY_NAME = b"audit".ljust(32, b"\0")
_NO_ID = bytes(16)
_HEAD_FIELD = 0xFF
_AUDIT_FIELD = 0xFE
_TOKEN_FIELD = 27
_SUBJECTS_MAX = 65_536
_MODULUS = 1 << 256
# Vectors and counters are not counted: what is lost of them is noticed and made again (P1.4).
_REBUILDABLE = frozenset(int(f).to_bytes(2) for f in (Field.VECTOR, Field.ACCESS))


class Vault:
    """Seals and opens rows; holds handles of keys, never their bytes."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._subjects: OrderedDict[tuple[int, str, int], bytes] = OrderedDict()  # by namespace, name, root
        self._lock = Lock()
        self._audit_key: DataKey | None = None
        self._reread: Reread = lambda ns, memory_id, field: None

    def bind_rows(self, reread: Reread) -> None:
        """Where the present form of a row is found: it may be sealed anew after it was read."""
        self._reread = reread

    @property
    def keyring(self) -> Keyring:
        return self._keyring

    def blinded_subject(self, ns: int, subject: str, root: int | None = None) -> bytes:
        """The 32 bytes by which a data subject of a namespace is known under a purpose root.

        ``root``: the number of a root; without it the one that the keyring knows its subjects by.
        """
        number = self._keyring.root(ns) if root is None else root
        found = self._subjects.get((ns, subject, number))
        if found is not None:
            return found
        blind, number = self._keyring.blinded(ns, subject.encode(), root=number)
        with self._lock:
            self._subjects[(ns, subject, number)] = blind
            if len(self._subjects) > _SUBJECTS_MAX:
                self._subjects.popitem(last=False)
        return blind

    def data_key(self, ns: int, subject: str | None) -> DataKey:
        """The active data key of a subject, made when there is none."""
        if subject is None:
            return self._keyring.data_key(ns, None, create=True)
        root = self._keyring.root(ns)
        return self._keyring.data_key(ns, self.blinded_subject(ns, subject, root), create=True, root=root)

    def data_keys(self, ns: int, subjects: set[str]) -> dict[str, DataKey]:
        """The active data keys of many subjects; new ones are made in one transaction.

        Raises:
            KeyMovedError: another purpose root has come meanwhile; refresh the keyring and repeat.
        """
        root = self._keyring.root(ns)
        blinds = {s: self.blinded_subject(ns, s, root) for s in subjects}
        keys = self._keyring.data_keys(ns, list(blinds.values()), root=root)
        return {s: keys[b] for s, b in blinds.items()}

    def seal(
        self, key: DataKey, tenant: str, memory_id: bytes, field: int, version: int, plaintext: bytes
    ) -> bytes:
        context = SealContext(tenant, key.ns, memory_id, field, version, PAYLOAD_SCHEMA)
        return key.seal(context, plaintext)

    def seal_rows(
        self, groups: Sequence[tuple[DataKey, str, Sequence[tuple[bytes, int, int, bytes]]]]
    ) -> list[list[bytes]]:
        """Rows under several keys: key, tenant, ``(memory_id, field, version, plaintext)`` of each row."""
        return seal_groups(PAYLOAD_SCHEMA, groups)

    def open(self, tenant: str, row: SealedRecord) -> bytes:
        """The plaintext of a row.

        Raises:
            DecryptionError: the bytes are not what this store sealed for that place.
            KeyStateError: its key is disabled or destroyed.
        """
        context = SealContext(tenant, row.ns, row.memory_id, row.field, row.version, PAYLOAD_SCHEMA)
        try:
            return self._keyring.open_record(row.key_id, context, row.sealed)
        except KeyStateError:
            now = self._reread(row.ns, row.memory_id, row.field)
            if now is None or (now.seq, now.version) != (row.seq, row.version) or now.key_id == row.key_id:
                raise
        return self._keyring.open_record(now.key_id, context, now.sealed)

    def open_rows(self, tenant: str, rows: Sequence[SealedRecord], opened: list[bytes]) -> None:
        """Add the plaintext of each row to ``opened``, in order.

        Raises:
            As ``open``, for the row that ``opened`` has ended before.
        """
        while len(opened) < len(rows):
            try:
                self._keyring.open_rows(tenant, PAYLOAD_SCHEMA, rows[len(opened) :], opened)
            except KeyStateError:
                opened.append(self.open(tenant, rows[len(opened)]))  # perhaps it was sealed anew meanwhile

    def purpose_key(self, ns: int, label: str, root: int | None = None) -> PurposeKey:
        return self._keyring.purpose_key(ns, label, root=root)

    # -- audit --------------------------------------------------------------------------------
    def _with_audit_key(self, use: Callable[[DataKey], T]) -> T:
        """Use the active key of the audit log; the next one when it was rotated a moment ago."""
        try:
            if self._audit_key is None:
                self._audit_key = self._keyring.data_key(SYSTEM_NS, AUDIT_KEY_NAME, create=True)
            return use(self._audit_key)
        except KeyMovedError:
            self._keyring.refresh()
            self._audit_key = self._keyring.data_key(SYSTEM_NS, AUDIT_KEY_NAME, create=True)
            return use(self._audit_key)

    def seal_audits(self, first: int, entries: Sequence[bytes]) -> list[bytes]:
        rows = [(_NO_ID, _AUDIT_FIELD, seq, entry) for seq, entry in enumerate(entries, first)]
        return self._with_audit_key(lambda key: self.seal_rows(((key, SYSTEM_TENANT, rows),))[0])

    def seal_audit_row(
        self, tenant: str, memory_id: bytes, field: int, version: int, plaintext: bytes
    ) -> tuple[int, bytes]:
        """A row of the audit log's own, under the key of its entries: ``(key id, sealed)``."""
        return self._with_audit_key(
            lambda key: (key.key_id, self.seal(key, tenant, memory_id, field, version, plaintext))
        )

    def seal_token(self, token_id: str, plaintext: bytes) -> bytes:
        """Seal what a short-lived token says (spec/token.md)."""
        key = self.purpose_key(SYSTEM_NS, "token")
        return key.seal(0, _token_context(token_id), plaintext, AES_256_GCM)

    def open_token(self, token_id: str, sealed: bytes) -> bytes:
        """Raises: DecryptionError: this store has not made it."""
        return self.purpose_key(SYSTEM_NS, "token").open(_token_context(token_id), sealed)

    def open_audit(self, seq: int, sealed: bytes) -> bytes:
        context = SealContext(SYSTEM_TENANT, SYSTEM_NS, _NO_ID, _AUDIT_FIELD, seq, PAYLOAD_SCHEMA)
        return self._keyring.open_record(sealed_header(sealed)[1], context, sealed)


def _token_context(token_id: str) -> SealContext:
    memory_id = hashlib.sha256(token_id.encode()).digest()[:16]
    return SealContext(SYSTEM_TENANT, SYSTEM_NS, memory_id, _TOKEN_FIELD, 1, PAYLOAD_SCHEMA)


class Heads:
    """The keyed multiset hash over all rows of a namespace (ledger hook).

    MSet-Add-Hash of Clarke, Devadas, van Dijk, Gassend and Suh (ASIACRYPT 2003): the sum modulo 2^256 of
    HMAC-SHA256(head key, element) over all rows. The sum is sealed together with the sequence number,
    so that differences of sums cannot be learned and used to forge another one.
    """

    def __init__(self) -> None:
        self._bound: Vault | None = None
        self._tenants: dict[int, str] = {SYSTEM_NS: SYSTEM_TENANT}
        self._cache: dict[int, tuple[bytes, int, int]] = {}  # sealed head, seq, sum

    def bind(self, vault: Vault) -> None:
        """The ledger is opened before the keyring, because the keyring is checked against its store id."""
        self._bound = vault

    @property
    def _vault(self) -> Vault:
        if self._bound is None:
            raise InternalError("the ledger was used before its keyring was opened")
        return self._bound

    def know(self, ns: int, tenant: str) -> None:
        self._tenants[ns] = tenant

    def tenant(self, ns: int) -> str:
        return self._tenants[ns]

    def advance_head(
        self,
        ns: int,
        head: bytes | None,
        seq_before: int,
        seq_after: int,
        removed: list[bytes],
        added: list[bytes],
    ) -> bytes:
        """Called inside the write transaction; the new sealed head.

        Raises:
            TamperedError: the head in the database is not the one of ``seq_before``.
        """
        keyring = self._vault.keyring
        if head:
            root = root_of_head(head)
        else:
            keyring.refresh()  # so that the first head of a namespace never hangs on a root that was left
            root = keyring.root(ns)
        key, sealing_key = keyring.purpose_keys(ns, "head", "head-seal", root=root)
        total = self._sum_in(ns, head, seq_before, sealing_key)
        mac = key.mac
        for element in added:
            if element[:2] not in _REBUILDABLE:
                total += int.from_bytes(mac(element))
        for element in removed:
            if element[:2] not in _REBUILDABLE:
                total -= int.from_bytes(mac(element))
        total %= _MODULUS
        return self._seal(ns, root, sealing_key, seq_after, total)

    def _seal(self, ns: int, root: int, sealing_key: PurposeKey, seq: int, total: int) -> bytes:
        sealed = sealing_key.seal(root, self._context(ns, seq), total.to_bytes(32), AES_256_GCM)
        self._cache[ns] = (sealed, seq, total)
        return sealed

    def open_head(self, ns: int, head: bytes | None, seq: int) -> int:
        """The sum in a sealed head (0 for a namespace without rows).

        Raises:
            TamperedError: it is missing. DecryptionError: it is not the one of that number.
        """
        key = self._vault.purpose_key(ns, "head-seal", root_of_head(head)) if head else None
        return self._sum_in(ns, head, seq, key)

    def _sum_in(self, ns: int, head: bytes | None, seq: int, sealing_key: PurposeKey | None) -> int:
        if not head or sealing_key is None:
            if seq != 0:
                raise TamperedError("the head of a namespace is missing")
            return 0
        known = self._cache.get(ns)
        if known is not None and known[:2] == (head, seq):
            return known[2]
        opened = sealing_key.open(self._context(ns, seq), head)
        total = int.from_bytes(opened)
        self._cache[ns] = (head, seq, total)
        return total

    def seal_audits(self, first: int, entries: Sequence[bytes]) -> list[bytes]:
        return self._vault.seal_audits(first, entries)

    def summer(self, ns: int, head: bytes) -> HeadSum:
        """Adds up the elements of all rows, to be compared with that head."""
        return HeadSum(self._vault.purpose_key(ns, "head", root_of_head(head) if head else None))

    def rebase(
        self,
        ns: int,
        root: int,
        rename: Callable[[RebaseRow, SealedOf], Renamed | None],
        seq: int,
        head: bytes,
        rows: Iterable[RebaseRow],
        sealed_of: SealedOf,
    ) -> tuple[bytes, list[Renamed]]:
        """A head over the same rows under another purpose root; ``rename`` says which get other ids.

        Raises:
            TamperedError: the rows do not match the head that there is.
        """
        key, sealing_key = self._vault.keyring.purpose_keys(ns, "head", "head-seal", root=root)
        before, after = self.summer(ns, head), HeadSum(key)
        total = self.open_head(ns, head, seq)
        renamed: list[Renamed] = []
        for row in rows:
            found = element_at(row.field, row.memory_id, row.seq, row.version, row.state, row.prefix)
            before.add(found)
            new = rename(row, sealed_of)
            if new is not None:
                renamed.append(new)
                found = element_at(row.field, new.memory_id, row.seq, row.version, row.state, new.sealed)
            after.add(found)
        if not before.matches(total):
            raise TamperedError("the rows of a namespace do not match its head")
        return self._seal(ns, root, sealing_key, seq, after.total()), renamed

    def _context(self, ns: int, seq: int) -> SealContext:
        return SealContext(self._tenants[ns], ns, _NO_ID, _HEAD_FIELD, seq, PAYLOAD_SCHEMA)


class HeadSum:
    """The multiset hash of the rows seen so far."""

    def __init__(self, key: PurposeKey) -> None:
        self._mac = key.mac
        self._total = 0

    def add(self, element: bytes) -> None:
        if element[:2] not in _REBUILDABLE:
            self._total += int.from_bytes(self._mac(element))

    def matches(self, total: int) -> bool:
        return self.total() == total

    def total(self) -> int:
        """The sum modulo 2^256."""
        return self._total % _MODULUS
