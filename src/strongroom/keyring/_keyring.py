"""The keyring: namespace keys and data keys, random, wrapped, in states, counted (spec/keyring.md)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from strongroom.crypto import AES_256_GCM, SecretKey, unwrap_key, wrap_key
from strongroom.crypto import suite_by_number as require_suite
from strongroom.errors import (
    ClosedError,
    ConflictError,
    InvalidInputError,
    KeyStateError,
    LimitExceededError,
    NamespaceNotFoundError,
    NotFoundError,
    StorageBusyError,
    StoreExistsError,
    UnwrapError,
)
from strongroom.keyring._book import Book, Change, own_or
from strongroom.keyring._check import check_book
from strongroom.keyring._handles import (
    DataKey,
    forget_handle,
    generation_of,
    make_handle,
    renew_handle,
    secret_of,
)
from strongroom.keyring._namespaces import NamespaceKeys
from strongroom.keyring._rows import (
    ERASED,
    KEY_ID_MAX,
    OWN,
    SUBJECT_BYTES,
    TENANT_BYTES_MAX,
    DataRow,
    KeyRecord,
    KeyState,
    NamespaceKeyRecord,
    altered,
    wrap_context,
)
from strongroom.keyring._uses import USES_MAX, UseCounter
from strongroom.kms import KmsProvider
from strongroom.kms.files import create_private_directory, fsync_directory, publish, temporary_name
from strongroom.model.finding import Finding

SUBJECTS_MAX: Final = 100_000
KEYS_CACHED_MAX: Final = 200_000
RECHECK_MS: Final = 1_000

_SEALING: Final = frozenset({KeyState.ACTIVE})
_OPENING: Final = frozenset({KeyState.ACTIVE, KeyState.DECRYPT_ONLY})
_SYSTEM_NS: Final = 0
_ATTEMPTS_MAX: Final = 16


class Keyring:
    """The keys of one store. Methods may be called from any thread; several processes may share the file.

    A namespace key is unwrapped by the KMS once per process, on first need. Unwrapped keys work
    until ``close``, also when the KMS has gone away meanwhile. A change of state by another process is
    seen within ``recheck_ms``.
    """

    def __init__(self, book: Book, kms: KmsProvider, suite: int, recheck_ms: int, uses_max: int) -> None:
        """For ``create`` and ``open``."""
        self._book = book
        self._kms = kms
        self._suite = suite
        self._uses = UseCounter(book, uses_max)
        self._recheck_s = recheck_ms / 1000
        self._recheck_at = 0.0
        self._data_version = -1
        self._generation = book.head()[1]
        self._closed = False
        self._namespaces = NamespaceKeys(book, kms)
        self._keys: dict[int, DataKey] = {}
        self._active: dict[tuple[int, bytes], DataKey] = {}
        self._purpose: dict[tuple[int, str], SecretKey] = {}

    @classmethod
    def create(
        cls,
        path: Path,
        store_id: UUID,
        kms: KmsProvider,
        *,
        suite: int = AES_256_GCM,
        recheck_ms: int = RECHECK_MS,
        uses_max: int = USES_MAX,
    ) -> Keyring:
        """Make a keyring with its system namespace, and open it. The file appears complete or not at all.

        Raises:
            StoreExistsError: the file is there already. KeystorePermissionError: the directory is
            not private. StorageError, and what the KMS raises.
        """
        create_private_directory(path.parent)
        if path.exists():
            raise StoreExistsError(f"{path.name} is there already")
        with temporary_name(path) as temporary:
            try:
                _touch(temporary)
                Book.initialise(temporary, store_id, kms, _now_us())
                with cls.open(temporary, store_id, kms, suite=suite) as young:
                    young._add_namespace("", _SYSTEM_NS)
                _fsync(temporary)
                publish(temporary, path)
            finally:
                for suffix in ("-wal", "-shm", "-journal"):
                    temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
        return cls.open(path, store_id, kms, suite=suite, recheck_ms=recheck_ms, uses_max=uses_max)

    @classmethod
    def open(
        cls,
        path: Path,
        store_id: UUID,
        kms: KmsProvider,
        *,
        suite: int = AES_256_GCM,
        recheck_ms: int = RECHECK_MS,
        uses_max: int = USES_MAX,
    ) -> Keyring:
        """Open the keyring of the store ``store_id``. New records are sealed with ``suite``.

        Raises:
            KeyringMissingError: there is no such file. KeyringMismatchError: it belongs to another
            store, or its description was altered. KeystorePermissionError: others can reach it.
            UnwrapError: another master key, or damage. SchemaVersionError. StorageError (read-only,
            full, busy, corrupt), and what the KMS raises.
        """
        require_suite(suite)
        book = Book.open(path, store_id, kms)
        try:
            return cls(book, kms, suite, recheck_ms, uses_max)
        except BaseException:
            book.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Keyring of store {self._book.store_id}{', closed' if self._closed else ''}>"

    # -- namespaces -----------------------------------------------------------------------------
    def create_namespace(self, tenant: str) -> int:
        """Make the next namespace with its keys; returns its number, 1 or higher.

        Raises:
            InvalidInputError: the tenant is empty or longer than 1024 bytes. KmsError of the provider:
            nothing was made. StorageError: nothing was made. ClosedError.
        """
        if not tenant or len(tenant.encode("utf-8", "surrogatepass")) > TENANT_BYTES_MAX:
            raise InvalidInputError(f"a tenant is a text of 1 to {TENANT_BYTES_MAX} bytes")
        self._fresh()
        for _ in range(_ATTEMPTS_MAX):
            ns = int(self._book.rows("SELECT ifnull(max(ns), 0) + 1 FROM namespace_keys")[0][0])
            with contextlib.suppress(ConflictError):  # another process took the number meanwhile
                self._add_namespace(tenant, ns)
                return ns
        raise StorageBusyError("other processes create namespaces all the time")

    def tenant(self, ns: int) -> str:
        """The tenant that the namespace was made for; "" for the system namespace.

        Raises:
            NamespaceNotFoundError, UnwrapError, StorageError, ClosedError.
        """
        self._fresh()
        return self._namespaces.tenant(ns)

    def list_namespaces(self) -> list[NamespaceKeyRecord]:
        """Every namespace key, by namespace and version. Needs no KMS.

        Raises:
            UnwrapError: a row was altered. StorageError, ClosedError.
        """
        self._fresh()
        return self._namespaces.records()

    # -- data keys --------------------------------------------------------------------------------
    def data_key(self, ns: int, subject: bytes | None, *, create: bool) -> DataKey:
        """The active key of a subject (32 blinded bytes; None: the namespace's own).

        With ``create`` a subject without one gets one; two processes that ask at the same time get the same.

        Raises:
            NotFoundError: there is none and ``create`` is false. NamespaceNotFoundError.
            KeyStateError: the newest key of the subject is disabled. InvalidInputError: the subject.
            UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._fresh()
        found = self._active.get((ns, own_or(subject)))
        if found is not None:
            return found
        if subject is not None:
            _check_subject(subject)
        keys = self._obtain(ns, [own_or(subject)], create=create)
        if not keys:
            raise NotFoundError("this data subject has no key")
        return keys[own_or(subject)]

    def data_keys(self, ns: int, subjects: Sequence[bytes]) -> dict[bytes, DataKey]:
        """The active key of each subject; those without one get theirs in one transaction.

        Raises:
            As ``data_key``. LimitExceededError: more than 100,000 subjects. Nothing was made then.
        """
        self._fresh()
        if len(subjects) > SUBJECTS_MAX:
            raise LimitExceededError(f"at most {SUBJECTS_MAX} subjects at once")
        out: dict[bytes, DataKey] = {}
        missing: dict[bytes, None] = {}
        for subject in subjects:
            found = self._active.get((ns, subject))
            if found is None:
                _check_subject(subject)
                missing[subject] = None
            else:
                out[subject] = found
        if missing:
            out.update(self._obtain(ns, list(missing), create=True))
        return out

    def key(self, key_id: int) -> DataKey:
        """The key with that number, for opening.

        Raises:
            KeyStateError: it is disabled, destroyed, or not in this keyring. UnwrapError: it was altered.
            StorageError, ClosedError, and what the KMS raises.
        """
        self._fresh()
        found = self._keys.get(key_id)
        if found is None:
            found = self._unwrapped(self._row(key_id))
        self._admit(found, _OPENING)
        return found

    def purpose_key(self, ns: int, label: str) -> SecretKey:
        """A key for one purpose, derived from the first of the namespace's own keys: always the same one.

        It does not change when the namespace's own key is rotated; it is gone when that key is destroyed.

        Raises:
            NamespaceNotFoundError. KeyStateError: that key is disabled or destroyed. InvalidInputError:
            the label is empty. UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._fresh()
        found = self._purpose.get((ns, label))
        if found is None:
            row = self._book.data_row("ns = ?1 AND subject = ?2 AND epoch = 1", (ns, OWN))
            if row is None:
                raise NamespaceNotFoundError
            own = self._keys.get(row.key_id) or self._unwrapped(row)
            self._admit(own, _OPENING)
            found = self._purpose[(ns, label)] = secret_of(own).derive(f"purpose:{label}")
        return found

    # -- states -------------------------------------------------------------------------------------
    def rotate_data_key(self, ns: int, subject: bytes | None) -> DataKey:
        """A new active key with the next epoch; the one before only opens from now on.

        Raises:
            NotFoundError: the subject has no key. KeyStateError: its newest key is not active.
            As ``data_key`` otherwise.
        """
        self._fresh()
        version, kek = self._namespaces.newest(ns)
        stored = own_or(subject)
        with self._book.write() as change:
            old = self._book.latest(ns, [stored]).get(stored)
            if old is None:
                raise NotFoundError("this data subject has no key")
            if old.state != KeyState.ACTIVE:
                raise KeyStateError("only an active key can be rotated")
            change.replace_data(old, self._in_state(old, KeyState.DECRYPT_ONLY))
            made = self._new_rows(change, ns, {stored: old.epoch + 1}, version, kek)
        self._moved(change)
        return self._keep(made)[stored]

    def disable_data_key(self, key_id: int) -> None:
        """Stop a decrypt-only key until ``enable_data_key``; an active one must be rotated first.

        Raises:
            KeyStateError: it is active, destroyed or unknown. UnwrapError, StorageError, ClosedError.
        """
        self._transition(key_id, {KeyState.DECRYPT_ONLY, KeyState.DISABLED}, KeyState.DISABLED)

    def enable_data_key(self, key_id: int) -> None:
        """Let a disabled key open again what it sealed.

        Raises:
            KeyStateError: it is active, destroyed or unknown. UnwrapError, StorageError, ClosedError.
        """
        self._transition(key_id, {KeyState.DECRYPT_ONLY, KeyState.DISABLED}, KeyState.DECRYPT_ONLY)

    def destroy_data_key(self, key_id: int) -> None:
        """Overwrite the wrapped key with zeros, in the file and its log; nothing opens again what it sealed.

        May be repeated: a repetition finishes what a StorageBusyError has left. Old backups of the keyring
        are outside its reach (spec/keyring.md).

        Raises:
            KeyStateError: unknown. StorageBusyError: destroyed, but a reader kept the log from being cut.
            UnwrapError, StorageError, ClosedError.
        """
        self._transition(key_id, set(KeyState), KeyState.DESTROYED)
        self._book.truncate_log()

    # -- counting, listing, ending ----------------------------------------------------------------
    def count_uses(self, key_id: int, n: int = 1) -> None:
        """Note ``n`` uses of a key before they happen; ``DataKey.seal`` does it by itself.

        Raises:
            KeyExhaustedError: they might pass the limit of 2**32. KeyStateError: unknown.
            StorageError: not counted. ClosedError.
        """
        self._fresh()
        if n < 1:
            raise InvalidInputError("a key is used at least once")
        self._uses.count(key_id, n)

    def list_keys(self, ns: int | None = None) -> list[KeyRecord]:
        """Every data key by number, or those of one namespace. Needs no KMS.

        Raises:
            UnwrapError: a row was altered. StorageError, ClosedError.
        """
        self._fresh()
        totals, margin = self._uses.upper_bounds()
        rows = self._book.data_rows(ns)
        return [row.record(totals.get(row.key_id, 0) + margin) for row in rows]

    def flush(self) -> None:
        """Write the use counters.

        Raises:
            StorageError: they stay pending. ClosedError.
        """
        self._fresh()
        self._uses.flush()

    def check(self) -> list[Finding]:
        """Authenticate every byte of the keyring; empty when all is well. Asks the KMS for every namespace.

        Raises:
            ClosedError. What is wrong is told as findings.
        """
        self._fresh()
        with contextlib.suppress(StorageBusyError):
            self._uses.flush()
        return check_book(self._book, self._kms)

    def close(self) -> None:
        """Flush, close the file and forget every key; handles stop working. May be called twice.

        Raises:
            StorageError: the counters could not be written. Everything is closed all the same, and the
            counts stay safe, because what was not written is counted at its upper bound.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._uses.end()
        finally:
            self._book.close()
            self._namespaces.close()
            for handle in list(self._keys.values()):
                forget_handle(handle)
            for secret in list(self._purpose.values()):
                secret.wipe()
            self._keys.clear()
            self._active.clear()
            self._purpose.clear()

    # -- for handles ----------------------------------------------------------------------------------
    def admit_sealing(self, key: DataKey) -> None:
        """Called by a handle before it seals: state, then one use."""
        self._fresh()
        self._admit(key, _SEALING)
        self._uses.count(key.key_id, 1)

    def admit_opening(self, key: DataKey) -> None:
        """Called by a handle before it opens."""
        self._fresh()
        self._admit(key, _OPENING)

    # -- inside -----------------------------------------------------------------------------------------
    def _fresh(self) -> None:
        if self._closed:
            raise ClosedError("the keyring was closed")
        now = time.monotonic()
        if now < self._recheck_at:
            return
        with self._book.lock:
            self._recheck_at = now + self._recheck_s
            self._book.require_same_file()
            version = self._book.data_version()
            if version != self._data_version:
                generation = self._book.head()[1]
                self._data_version = version
                if generation != self._generation:
                    self._renew(generation)

    def _renew(self, generation: int) -> None:
        """Somebody changed states: nothing that was looked up before is taken for granted."""
        self._generation = generation
        self._active.clear()
        self._purpose.clear()
        self._namespaces.renew()

    def _moved(self, change: Change) -> None:
        with self._book.lock:
            self._renew(max(change.generation, self._generation))

    def _admit(self, key: DataKey, allowed: frozenset[KeyState]) -> None:
        if generation_of(key) != self._generation:
            with self._book.lock:
                renew_handle(key, self._row(key.key_id).state, self._generation)
        if key.state not in allowed:
            raise KeyStateError(f"the key is {key.state.name.lower().replace('_', '-')}")

    def _row(self, key_id: int) -> DataRow:
        row = self._book.data_row("key_id = ?1", (key_id,)) if 0 < key_id <= KEY_ID_MAX else None
        if row is None:
            raise KeyStateError(
                "the keyring holds no key with that number",
                hint="the keyring may be older than the data: restore the newest key backup",
            )
        return row

    def _unwrapped(self, row: DataRow) -> DataKey:
        if row.state == KeyState.DESTROYED:
            raise KeyStateError("the key is destroyed")
        generation = self._generation
        secret = self._unwrap(self._namespaces.key(row.ns, row.namespace_version), row)
        return self._keep([(row, secret)], generation)[row.subject]

    def _unwrap(self, kek: SecretKey, row: DataRow) -> SecretKey:
        try:
            return unwrap_key(kek, row.wrapped, row.context(self._book.store_id))
        except UnwrapError:
            raise altered("a wrapped data key was altered, or belongs elsewhere") from None

    def _keep(
        self, made: Iterable[tuple[DataRow, SecretKey]], generation: int | None = None
    ) -> dict[bytes, DataKey]:
        """Handles for rows; a key that two threads have unwrapped gets one handle."""
        generation = self._generation if generation is None else generation
        out: dict[bytes, DataKey] = {}
        with self._book.lock:
            for row, secret in made:
                handle = make_handle(
                    self,
                    secret,
                    key_id=row.key_id,
                    ns=row.ns,
                    epoch=row.epoch,
                    state=row.state,
                    suite=self._suite,
                    generation=generation,
                )
                handle = out[row.subject] = self._keys.setdefault(row.key_id, handle)
                if row.state == KeyState.ACTIVE and generation == self._generation:
                    self._active[(row.ns, row.subject)] = handle
            if len(self._keys) > KEYS_CACHED_MAX:
                self._evict()
        return out

    def _evict(self) -> None:
        for key_id in list(islice(self._keys, KEYS_CACHED_MAX // 4)):
            del self._keys[key_id]
        for place in [p for p, k in self._active.items() if k.key_id not in self._keys]:
            del self._active[place]

    def _obtain(self, ns: int, subjects: list[bytes], *, create: bool) -> dict[bytes, DataKey]:
        version, kek = self._namespaces.newest(ns)
        made: list[tuple[DataRow, SecretKey]] = []
        with self._book.lock:
            before = self._book.data_version()
            rows = self._book.latest(ns, subjects)
            epochs = _missing(subjects, rows)
            if create and epochs:
                with self._book.write() as change:
                    if self._book.data_version() != before:  # another process has written meanwhile
                        rows |= self._book.latest(ns, list(epochs))
                        epochs = _missing(subjects, rows)
                    made = self._new_rows(change, ns, epochs, version, kek)
            generation = self._generation
        out = self._keep(made, generation)
        self._uses.admit_new(row.key_id for row, _ in made)
        for subject, row in rows.items():
            if subject in epochs:
                continue
            if row.state != KeyState.ACTIVE:
                raise KeyStateError("the newest key of this data subject is not active")
            handle = out[subject] = self._keys.get(row.key_id) or self._unwrapped(row)
            with self._book.lock:
                if generation == self._generation:
                    renew_handle(handle, row.state, generation)
                    self._active[(ns, subject)] = handle
        return out

    def _new_rows(
        self, change: Change, ns: int, epochs: dict[bytes, int], version: int, kek: SecretKey
    ) -> list[tuple[DataRow, SecretKey]]:
        book = self._book
        first, now_us, active = change.next_key_id(), _now_us(), int(KeyState.ACTIVE)
        if first + len(epochs) - 1 > KEY_ID_MAX:
            raise LimitExceededError(f"a keyring holds at most {KEY_ID_MAX} keys")
        made: list[tuple[DataRow, SecretKey]] = []
        for key_id, (subject, epoch) in enumerate(epochs.items(), first):
            secret = SecretKey.generate()
            context = wrap_context(
                book.store_id, key_id, ns, namespace_version=version, epoch=epoch, subject=subject
            )
            wrapped = wrap_key(kek, secret, context)
            row = DataRow(key_id, ns, subject, epoch, active, version, now_us, wrapped)
            made.append((row.authenticated(book.row_key), secret))
        change.insert_data([row for row, _ in made])
        return made

    def _in_state(self, row: DataRow, state: KeyState) -> DataRow:
        wrapped = ERASED if state == KeyState.DESTROYED else row.wrapped
        return row._replace(state=int(state), wrapped=wrapped).authenticated(self._book.row_key)

    def _transition(self, key_id: int, allowed: set[KeyState], state: KeyState) -> None:
        self._fresh()
        with self._book.write() as change:
            row = self._row(key_id)
            if row.state not in allowed:
                raise KeyStateError(
                    f"an {KeyState(row.state).name.lower().replace('_', '-')} key cannot become "
                    f"{state.name.lower().replace('_', '-')}",
                    hint="rotate the key first" if row.state == KeyState.ACTIVE else None,
                )
            if row.state != state:
                change.replace_data(row, self._in_state(row, state))
        self._moved(change)
        handle = self._keys.get(key_id)
        if handle is not None:
            renew_handle(handle, state, self._generation)
            if state == KeyState.DESTROYED:
                self._keys.pop(key_id, None)

    def _add_namespace(self, tenant: str, ns: int) -> None:
        row, secret = self._namespaces.prepare(ns, tenant, _now_us())
        with self._book.write() as change:
            change.insert_namespace(row)
            made = self._new_rows(change, ns, {OWN: 1}, row.version, secret)
        self._namespaces.adopt(row, tenant, secret)
        self._keep(made)


def _missing(subjects: Sequence[bytes], rows: dict[bytes, DataRow]) -> dict[bytes, int]:
    """The epoch of the key to be made, for each subject without one or whose newest is destroyed."""
    out: dict[bytes, int] = {}
    for subject in subjects:
        row = rows.get(subject)
        if row is None or row.state == KeyState.DESTROYED:
            out[subject] = 1 if row is None else row.epoch + 1
    return out


def _check_subject(subject: object) -> None:
    if not isinstance(subject, bytes) or len(subject) != SUBJECT_BYTES:
        raise InvalidInputError(f"a blinded subject is {SUBJECT_BYTES} bytes")


def _now_us() -> int:
    return time.time_ns() // 1000


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_directory(path.parent)
