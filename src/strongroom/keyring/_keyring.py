"""The keyring: namespace keys and data keys, random, wrapped, in states, counted (spec/keyring.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from strongroom.crypto import AES_256_GCM, SealContext, SecretKey
from strongroom.crypto import suite_by_number as require_suite
from strongroom.errors import (
    ConflictError,
    InvalidInputError,
    KeyStateError,
    LimitExceededError,
    NotFoundError,
    StorageBusyError,
    StoreExistsError,
)
from strongroom.keyring._book import Book, own_or
from strongroom.keyring._cache import OPENING, KeyCache, now_us
from strongroom.keyring._check import check_book
from strongroom.keyring._handles import DataKey, open_admitted, open_row_admitted
from strongroom.keyring._leases import CACHE_S
from strongroom.keyring._namespace_rotation import NamespaceRotating
from strongroom.keyring._namespaces import NamespaceKeyHealth, boot_clock
from strongroom.keyring._roots import PurposeRoots
from strongroom.keyring._rotating import Rotating
from strongroom.keyring._rows import (
    OWN,
    SUBJECT_BYTES,
    TENANT_BYTES_MAX,
    KeyRecord,
    KeyState,
    NamespaceKeyRecord,
)
from strongroom.keyring._uses import USES_MAX
from strongroom.keyring._wrapping import Wrapping
from strongroom.kms import DEFAULT, KmsDirectory, KmsProvider, as_directory
from strongroom.kms.files import (
    create_private_directory,
    fsync_file,
    publish,
    temporary_name,
    touch_private_file,
)
from strongroom.model import SealedRecord
from strongroom.model.finding import Finding

SUBJECTS_MAX: Final = 100_000
RECHECK_MS: Final = 1_000

_SYSTEM_NS: Final = 0
_ATTEMPTS_MAX: Final = 16


class Keyring(Wrapping, Rotating, NamespaceRotating, PurposeRoots):
    """The keys of one store. Methods may be called from any thread; several processes may share the file.

    A namespace key is unwrapped by the KMS on first need, and asked for again, beside its use, when about an
    eighth of ``cache_s`` is over. While the KMS does not answer the key is used on, at most ``cache_s``
    seconds after the last answer; when the KMS refuses, it is not used any more. A change of state by
    another process is seen within ``recheck_ms``.
    """

    def __init__(
        self,
        book: Book,
        kms: KmsDirectory,
        *,
        suite: int,
        recheck_ms: int,
        uses_max: int,
        cache_s: float,
        clock: Callable[[], float],
    ) -> None:
        """For ``create`` and ``open``."""
        self._book = book
        self._kms = kms
        self._passes = {}
        self._cache = KeyCache(
            book, kms, suite=suite, recheck_ms=recheck_ms, uses_max=uses_max, cache_s=cache_s, clock=clock
        )

    @classmethod
    def create(
        cls,
        path: Path,
        store_id: UUID,
        kms: KmsProvider | KmsDirectory,
        *,
        suite: int = AES_256_GCM,
        recheck_ms: int = RECHECK_MS,
        uses_max: int = USES_MAX,
        cache_s: float = CACHE_S,
        clock: Callable[[], float] = boot_clock,
        names: Sequence[str] = (DEFAULT,),
    ) -> Keyring:
        """Make a keyring with its system namespace, and open it. The file appears complete or not at all.

        ``kms``: one provider, or several by name; ``names``: those that wrap what is the store's own.

        Raises:
            StoreExistsError: the file is there already. KeystorePermissionError: the directory is
            not private. StorageError, and what the KMS raises.
        """
        kms = as_directory(kms)
        create_private_directory(path.parent)
        for suffix in ("", "-wal", "-journal"):  # SQLite would replay a log that somebody left behind
            if path.with_name(path.name + suffix).exists():
                raise StoreExistsError(f"{path.name}{suffix} is there already")
        with temporary_name(path) as temporary:
            try:
                touch_private_file(temporary)
                Book.initialise(temporary, store_id, kms, now_us(), names)
                with cls.open(temporary, store_id, kms, suite=suite) as young:
                    young._add_namespace("", _SYSTEM_NS, names)
                fsync_file(temporary)
                publish(temporary, path)
            finally:
                for suffix in ("-wal", "-shm", "-journal"):
                    with contextlib.suppress(OSError):
                        temporary.with_name(temporary.name + suffix).unlink()
        try:
            return cls.open(
                path,
                store_id,
                kms,
                suite=suite,
                recheck_ms=recheck_ms,
                uses_max=uses_max,
                cache_s=cache_s,
                clock=clock,
            )
        except BaseException:  # the name is ours since a moment, and nobody knows of it yet
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        store_id: UUID,
        kms: KmsProvider | KmsDirectory,
        *,
        suite: int = AES_256_GCM,
        recheck_ms: int = RECHECK_MS,
        uses_max: int = USES_MAX,
        cache_s: float = CACHE_S,
        clock: Callable[[], float] = boot_clock,
    ) -> Keyring:
        """Open the keyring of the store ``store_id``. New records are sealed with ``suite``.

        Raises:
            KeyringMissingError: there is no such file. KeyringMismatchError: it belongs to another
            store, or its description was altered. KeystorePermissionError: others can reach it.
            UnwrapError: another master key, or damage. SchemaVersionError. StorageError (read-only,
            full, busy, corrupt), and what the KMS raises.
        """
        require_suite(suite)
        kms = as_directory(kms)
        book = Book.open(path, store_id, kms)
        try:
            return cls(
                book,
                kms,
                suite=suite,
                recheck_ms=recheck_ms,
                uses_max=uses_max,
                cache_s=cache_s,
                clock=clock,
            )
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
        return f"<Keyring of store {self._book.store_id}{', closed' if self._cache.closed else ''}>"

    @property
    def generation(self) -> int:
        """A number that has changed when a key may have changed its state."""
        self._cache.fresh()
        return self._cache.generation

    # -- namespaces -----------------------------------------------------------------------------
    def create_namespace(
        self, tenant: str, *, names: Sequence[str] = (DEFAULT,), secret: SecretKey | None = None
    ) -> int:
        """Make the next namespace with its keys; returns its number, 1 or higher.

        ``names``: the providers that wrap its key, in the order in which they are asked; ``secret``: key
        material from outside to be its namespace key, random without it.

        Raises:
            InvalidInputError: the tenant is empty or longer than 1024 bytes. ConfigurationError: a
            name is not configured. KeyManagementError of a provider, StorageError: nothing was made.
            ClosedError.
        """
        if not tenant or len(tenant.encode("utf-8", "surrogatepass")) > TENANT_BYTES_MAX:
            raise InvalidInputError(f"a tenant is a text of 1 to {TENANT_BYTES_MAX} bytes")
        self._cache.fresh()
        for _ in range(_ATTEMPTS_MAX):
            ((last,),) = self._book.rows("SELECT ifnull(max(ns), 0) FROM namespace_keys")
            ns = max(int(last), self._cache.ns_floor) + 1
            with contextlib.suppress(ConflictError):  # another process took the number meanwhile
                self._add_namespace(tenant, ns, names, secret)
                return ns
        raise StorageBusyError("other processes create namespaces all the time")

    def tenant(self, ns: int) -> str:
        """The tenant that the namespace was made for; "" for the system namespace.

        Raises:
            KeyStateError, UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        return self._cache.namespaces.tenant(ns)

    def list_namespaces(self, ns: int | None = None) -> list[NamespaceKeyRecord]:
        """Every namespace key, by namespace and version, or those of one namespace. Needs no KMS.

        Raises:
            UnwrapError: a row was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        return self._cache.namespaces.records(ns)

    def require_usable(self, ns: int) -> None:
        """Whether what was opened of a namespace before may still be used; its key is asked for when due.

        Raises:
            KmsUnavailableError: the lease of the key is over and the KMS does not answer.
            KeyManagementError: the KMS refuses the key. ClosedError.
        """
        self._cache.fresh()
        self._cache.namespaces.admit(ns)

    def expire(self) -> None:
        """Forget keys of namespaces that nobody has used until the end of their lease. Asks nobody.

        Raises:
            ClosedError.
        """
        self._cache.fresh()
        self._cache.namespaces.expire()

    def health(self) -> list[NamespaceKeyHealth]:
        """The namespace keys that this process has asked for, and how they are doing. Asks nobody.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        return self._cache.namespaces.health()

    # -- data keys --------------------------------------------------------------------------------
    def data_key(self, ns: int, subject: bytes | None, *, create: bool, root: int | None = None) -> DataKey:
        """The active key of a subject (32 blinded bytes; None: the namespace's own).

        With ``create`` a subject without one gets one; two processes that ask at the same time get the same.
        ``root``: the number that ``blinded`` gave with it; when another root has come since, none is made.

        Raises:
            NotFoundError: there is none and ``create`` is false. KeyStateError.
            KeyMovedError: there is another root; blind the subject anew.
            KeyStateError: the newest key of the subject is disabled. InvalidInputError: the subject.
            UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._cache.fresh()
        if subject is not None:
            _check_subject(subject)
        found = self._cache.active.get((ns, own_or(subject)))
        if found is not None:
            return found
        keys = self._cache.obtain(ns, [own_or(subject)], create=create, root=root)
        if not keys:
            raise NotFoundError("this data subject has no key")
        return keys[own_or(subject)]

    def data_keys(
        self, ns: int, subjects: Sequence[bytes], *, root: int | None = None
    ) -> dict[bytes, DataKey]:
        """The active key of each subject; those without one get theirs in one transaction.

        Raises:
            As ``data_key``. LimitExceededError: more than 100,000 subjects. Nothing was made then.
        """
        self._cache.fresh()
        if len(subjects) > SUBJECTS_MAX:
            raise LimitExceededError(f"at most {SUBJECTS_MAX} subjects at once")
        out: dict[bytes, DataKey] = {}
        missing: dict[bytes, None] = {}
        for subject in subjects:
            _check_subject(subject)
            found = self._cache.active.get((ns, subject))
            if found is None:
                missing[subject] = None
            else:
                out[subject] = found
        if missing:
            out.update(self._cache.obtain(ns, list(missing), create=True, root=root))
        return out

    def key(self, key_id: int) -> DataKey:
        """The key with that number, for opening.

        Raises:
            KeyStateError: it is disabled, destroyed, or not in this keyring. UnwrapError: it was altered.
            StorageError, ClosedError, and what the KMS raises.
        """
        self._cache.fresh()
        found = self._cache.keys.get(key_id)
        if found is None:
            found = self._cache.unwrapped(self._cache.row(key_id))
        self._cache.admit(found, OPENING)
        return found

    def open_record(self, key_id: int, context: SealContext, sealed: bytes) -> bytes:
        """The plaintext of ``sealed``, with the key of that number: ``key(key_id).open(context, sealed)``.

        Raises:
            As ``key``. DecryptionError: always the same, whatever is wrong with context or bytes.
        """
        return open_admitted(self.key(key_id), context, sealed)

    def open_rows(self, tenant: str, schema: int, rows: Sequence[SealedRecord], opened: list[bytes]) -> None:
        """Add the plaintext of each row to ``opened``, in order. Each key is looked at once for all of them.

        Raises:
            As ``open_record``, for the row that ``opened`` has ended before.
        """
        cache = self._cache
        cache.fresh()
        admitted: dict[int, DataKey] = {}
        for row in rows:
            key = admitted.get(row.key_id)
            if key is None:
                key = cache.keys.get(row.key_id)
                if key is None:
                    key = cache.unwrapped(cache.row(row.key_id))
                cache.admit(key, OPENING)
                admitted[row.key_id] = key
            opened.append(open_row_admitted(key, tenant, schema, row))

    # -- states -------------------------------------------------------------------------------------
    def rotate_data_key(self, ns: int, subject: bytes | None) -> DataKey:
        """A new active key with the next epoch; the one before only opens from now on.

        Raises:
            NotFoundError: the subject has no key. KeyStateError: its newest key is not active.
            As ``data_key`` otherwise.
        """
        self._cache.fresh()
        stored = own_or(subject)

        def rotate(version: int, kek: SecretKey) -> DataKey:
            with self._book.write() as change:
                old = self._book.latest(ns, [stored]).get(stored)
                if old is None:
                    raise NotFoundError("this data subject has no key")
                if old.state != KeyState.ACTIVE:
                    raise KeyStateError("only an active key can be rotated")
                change.replace_data(old, self._cache.in_state(old, KeyState.DECRYPT_ONLY))
                made = self._cache.new_rows(change, ns, {stored: self._epoch_after(old)}, version, kek)
            self._cache.moved(change)
            return self._cache.keep(made)[stored]

        return self._cache.with_newest(ns, rotate)

    def disable_data_key(self, key_id: int) -> None:
        """Stop a decrypt-only key until ``enable_data_key``; an active one must be rotated first.

        Raises:
            KeyStateError: it is active, destroyed or unknown. UnwrapError, StorageError, ClosedError.
        """
        self._cache.transition(key_id, {KeyState.DECRYPT_ONLY, KeyState.DISABLED}, KeyState.DISABLED)

    def enable_data_key(self, key_id: int) -> None:
        """Let a disabled key open again what it sealed.

        Raises:
            KeyStateError: it is active, destroyed or unknown. UnwrapError, StorageError, ClosedError.
        """
        self._cache.transition(key_id, {KeyState.DECRYPT_ONLY, KeyState.DISABLED}, KeyState.DECRYPT_ONLY)

    def destroy_data_key(self, key_id: int) -> None:
        """Overwrite the wrapped key with zeros, in the file and its log; nothing opens again what it sealed.

        May be repeated: a repetition finishes what a StorageBusyError has left. Old backups of the keyring
        are outside its reach (spec/keyring.md).

        Raises:
            KeyStateError: unknown. StorageBusyError: destroyed, but a reader kept the log from being cut.
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.transition(key_id, set(KeyState), KeyState.DESTROYED)
        self._book.truncate_log()

    # -- counting, listing, ending ----------------------------------------------------------------
    def count_uses(self, key_id: int, n: int = 1) -> None:
        """Note ``n`` uses of a key before they happen; ``DataKey.seal`` does it by itself.

        Raises:
            KeyExhaustedError: they might pass the limit of 2**32. KeyStateError: unknown.
            StorageError: not counted. ClosedError.
        """
        self._cache.fresh()
        if n < 1:
            raise InvalidInputError("a key is used at least once")
        self._cache.uses.count(key_id, n)

    def list_keys(self, ns: int | None = None) -> list[KeyRecord]:
        """Every data key by number, or those of one namespace. Needs no KMS.

        Raises:
            UnwrapError: a row was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        if ns is not None and not 0 <= ns < 2**63:
            return []
        totals, margin = self._cache.uses.upper_bounds(ns)
        rows = self._book.data_rows(ns)
        return [row.record(totals.get(row.key_id, 0) + margin) for row in rows]

    def closed_keys(self, ns: int) -> list[int]:
        """The numbers of a namespace's keys that open nothing: disabled or destroyed. Needs no KMS.

        Raises:
            UnwrapError: a row was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        states = (ns, KeyState.DISABLED.value, KeyState.DESTROYED.value)
        return [row.key_id for row in self._book.data_rows_where("ns = ? AND state IN (?, ?)", states)]

    def flush(self) -> None:
        """Write the use counters.

        Raises:
            StorageError: they stay pending. ClosedError.
        """
        self._cache.fresh()
        self._cache.uses.flush()

    def check(self, told: Callable[[int, int], None] | None = None) -> list[Finding]:
        """Authenticate every byte of the keyring; empty when all is well. Asks the KMS for every wrapped key.
        A service over a network is asked six questions at once; ``told`` is called with (answers, questions).
        One that falls silent is waited for a little; what it never says are findings.

        Raises:
            ClosedError. What is wrong is told as findings.
        """
        self._cache.fresh()
        with contextlib.suppress(StorageBusyError):
            self._cache.uses.flush()
        return check_book(self._book, self._kms, told)

    def close(self) -> None:
        """Flush, close the file and forget every key; handles stop working. May be called twice.

        Raises:
            StorageError: the counters could not be written. Everything is closed all the same, and the
            counts stay safe, because what was not written is counted at its upper bound.
        """
        if self._cache.closed:
            return
        self._cache.closed = True
        try:
            self._cache.uses.end()
        finally:
            self._book.close()
            self._cache.forget()

    def _add_namespace(
        self, tenant: str, ns: int, names: Sequence[str], secret: SecretKey | None = None
    ) -> None:
        fresh = self._cache.namespaces.prepare(ns, tenant, now_us(), names=names, secret=secret)
        with self._book.write() as change:
            change.insert_namespace(fresh.row)
            change.put_wraps(ns, fresh.row.version, fresh.wraps, fresh.row.created_us)
            made = self._cache.new_rows(change, ns, {OWN: 1}, fresh.row.version, fresh.secret)
        self._cache.namespaces.adopt(fresh)
        self._cache.keep(made)


def _check_subject(subject: object) -> None:
    if not isinstance(subject, bytes) or len(subject) != SUBJECT_BYTES:
        raise InvalidInputError(f"a blinded subject is {SUBJECT_BYTES} bytes")
