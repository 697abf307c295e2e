"""Namespace keys: wrapped by the KMS, unwrapped on first need, asked for again before their lease ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strongroom.crypto import SealContext, SecretKey, open_sealed, seal
from strongroom.errors import (
    ClosedError,
    DecryptionError,
    KeyManagementError,
    KeyMemoryError,
    KmsUnavailableError,
    StorageBusyError,
    StrongroomError,
    UnwrapError,
    thread_started,
)
from strongroom.keyring._book import Book
from strongroom.keyring._leases import Group, Leases, LeaseState
from strongroom.keyring._masters import Wrap, names_of, prove, unwrap_first, wrap_all
from strongroom.keyring._rows import (
    KeyState,
    NamespaceKeyRecord,
    NamespaceRow,
    WrapRow,
    altered,
    kms_context,
    time_of,
    unknown_namespace,
)
from strongroom.kms import DEFAULT, KmsDirectory

_PURPOSE = "namespace-key"
_ATTEMPTS_MAX = 16


def boot_clock() -> float:
    """Seconds since the machine was started, sleep included: a lease goes on while a laptop is closed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceKeyHealth:
    """How a namespace key of this process is doing.

    ``state``: ``fresh``, ``due`` (the KMS is being asked again, or does not answer), ``over`` (not
    usable now); ``age_s``: since the KMS has last answered with it; ``error``: the code of the last
    refusal or silence.
    """

    ns: int
    tenant: str
    state: LeaseState
    age_s: float | None
    error: str | None


class _VersionGoneError(UnwrapError):
    """That version of the namespace key was destroyed since its row was read: there is a newer one."""


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A namespace key that was made and wrapped, and is not yet written."""

    row: NamespaceRow
    wraps: list[Wrap]
    tenant: str
    secret: SecretKey
    asked_at: float


class NamespaceKeys:
    """The namespace keys that this process has unwrapped. The KMS is never asked under the file's lock.

    ``lapsed(ns)`` is called when the keys of a namespace must not be used any more.
    """

    def __init__(
        self,
        book: Book,
        kms: KmsDirectory,
        *,
        cache_s: float,
        clock: Callable[[], float] = boot_clock,
        lapsed: Callable[[int], None] = lambda ns: None,
    ) -> None:
        self._book = book
        self._kms = kms
        self._clock = clock
        self._lapsed = lapsed
        self._leases = Leases(cache_s)
        self._lock = threading.Lock()  # of everything below; held for moments only
        self._keys: dict[tuple[int, int], SecretKey] = {}
        self._newest: dict[int, int] = {}
        self._tenants: dict[int, str] = {}
        self._asking: dict[int, threading.Lock] = {}
        self._due: deque[int] = deque()
        self._in_work: set[int] = set()
        self._worker: threading.Thread | None = None
        self._closed = False

    def admit(self, ns: int) -> None:
        """Called before each use of a key of the namespace.

        Raises:
            KmsUnavailableError: the lease is over and the KMS does not answer. KeyManagementError: refused.
        """
        if not self._leases.fresh(ns, self._clock()):
            self._renew_lease(ns)

    def newest(self, ns: int) -> tuple[int, SecretKey]:
        """(version, key) under which new data keys are wrapped.

        Raises:
            KeyStateError, UnwrapError, StorageError, and what the KMS raises.
        """
        version = self._newest.get(ns)
        if version is None:
            row = self._newest_of(ns, self._unwrapped)
            version = self._newest[ns] = row.version
        return version, self.key(ns, version)

    def _newest_of(self, ns: int, act: Callable[[NamespaceRow], object]) -> NamespaceRow:
        """Do something with the newest version; again with a newer one, when that was destroyed meanwhile."""
        for _ in range(_ATTEMPTS_MAX):
            row = self._row(ns, None)
            with contextlib.suppress(_VersionGoneError):
                act(row)
                return row
        raise StorageBusyError("other processes rotate the key of this namespace all the time")

    def key(self, ns: int, version: int) -> SecretKey:
        """One version of a namespace key.

        Raises:
            KeyStateError, UnwrapError, StorageError, and what the KMS raises.
        """
        self.admit(ns)
        found = self._keys.get((ns, version))
        return self._unwrapped(self._row(ns, version)) if found is None else found

    def prepare(
        self,
        ns: int,
        tenant: str,
        now_us: int,
        *,
        version: int = 1,
        names: Sequence[str] = (DEFAULT,),
        secret: SecretKey | None = None,
    ) -> FreshKey:
        """A new namespace key under the named providers and the recovery recipients; not yet written.

        Each wrap was unwrapped once and compared.

        ``version``: of the namespace key; ``secret``: key material from outside, random without it.

        Raises:
            What the KMS raises: nothing is left then.
        """
        asked_at = self._clock()
        secret = SecretKey.generate() if secret is None else secret
        context = kms_context(self._book.store_id, tenant, ns, version, _PURPOSE)
        wraps = wrap_all(self._kms, names, secret, context, registered=self._book.masters().values())
        prove(self._kms, wraps, secret, context)  # before anything is sealed under it that nobody could open
        sealed = seal(self._book.tenant_key, 0, _tenant_context(ns, version), tenant.encode())
        row = NamespaceRow(ns, version, int(KeyState.ACTIVE), 0, now_us, sealed, b"")
        return FreshKey(row.authenticated(self._book.row_key), wraps, tenant, secret, asked_at)

    def adopt(self, fresh: FreshKey) -> None:
        """Note a namespace key that was just written."""
        row = fresh.row
        group = _group(self._book.wraps(row.ns, row.version))
        with self._lock:
            self._keys[(row.ns, row.version)], self._tenants[row.ns] = fresh.secret, fresh.tenant
            self._newest[row.ns] = row.version
            self._leases.begin(row.ns, fresh.asked_at, group)

    def drop(self, ns: int, version: int) -> None:
        """Forget a version that was destroyed."""
        with self._lock:
            secret = self._keys.pop((ns, version), None)
        if secret is not None:
            secret.wipe()

    def names(self, ns: int) -> tuple[str, ...]:
        """The providers whose master keys wrap the newest key of the namespace, in order.

        Raises:
            KeyStateError, UnwrapError, StorageError, KeyringMismatchError.
        """
        row = self._row(ns, None)
        return names_of(self._kms, self._book.wraps(ns, row.version), self._book.masters())

    def tenant(self, ns: int) -> str:
        """The tenant of a namespace.

        Raises:
            KeyStateError, UnwrapError, StorageError.
        """
        found = self._tenants.get(ns)
        if found is None:
            found = self._tenants[ns] = open_tenant(self._book, self._row(ns, None))
        return found

    def records(self, ns: int | None = None) -> list[NamespaceKeyRecord]:
        """Every namespace key, or those of one namespace.

        Raises:
            UnwrapError, StorageError.
        """
        out: list[NamespaceKeyRecord] = []
        for row in self._book.namespace_rows(ns):
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

    def expire(self) -> None:
        """Forget the keys of namespaces whose lease has run out while nobody used them."""
        with self._lock:
            over = self._leases.over(self._clock())
        for ns in over:
            self._forget(ns)

    def health(self) -> list[NamespaceKeyHealth]:
        """Each namespace key that this process has asked for. Asks nobody.

        Raises:
            UnwrapError, StorageError.
        """
        out: list[NamespaceKeyHealth] = []
        for ns in self._leases.known():
            tenant = self.tenant(ns)
            with self._lock:
                now = self._clock()
                error = self._leases.last_error(ns)
                out.append(
                    NamespaceKeyHealth(
                        ns=ns,
                        tenant=tenant,
                        state=self._leases.state(ns, now) or LeaseState.OVER,
                        age_s=self._leases.age_s(ns, now),
                        error=None if error is None else error.code,
                    )
                )
        return out

    def close(self) -> None:
        """Overwrite every key."""
        with self._lock:
            self._closed = True
            self._due.clear()
            for secret in self._keys.values():
                secret.wipe()
            self._keys.clear()
            self._newest.clear()

    # -- leases -----------------------------------------------------------------------------------------
    def _renew_lease(self, ns: int) -> None:
        with self._lock:
            now = self._clock()
            if self._leases.fresh(ns, now):
                return
            if self._leases.state(ns, now) is LeaseState.DUE:
                self._leases.postpone(ns, now)
                self._ask_later(ns)
                return
            asking = self._asking.setdefault(ns, threading.Lock())
        with asking:
            if not self._leases.fresh(ns, self._clock()):
                self._newest_of(ns, self._ask)

    def _ask_later(self, ns: int) -> None:
        """Hand the question to the worker; hold the lock."""
        if self._closed or ns in self._in_work:
            return
        self._in_work.add(ns)
        self._due.append(ns)
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="strongroom-leases", daemon=True)
            if thread_started(worker):
                self._worker = worker
            else:  # whoever uses the key next tries again
                self._due.clear()
                self._in_work.clear()

    def _work(self) -> None:
        try:
            self._work_off()
        except BaseException:
            with self._lock:
                self._worker = None  # whoever is due next starts another one
            raise

    def _work_off(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._due:
                    self._worker = None
                    return
                ns = self._due.popleft()
                vouched = self._leases.state(ns, self._clock()) is LeaseState.FRESH
            try:
                if not vouched:  # an answer about another namespace of its group came first
                    self._newest_of(ns, self._ask)
            except StrongroomError:
                pass  # noted; whoever uses the key is told
            finally:
                with self._lock:
                    self._in_work.discard(ns)

    def _unwrapped(self, row: NamespaceRow) -> SecretKey:
        with self._lock:
            asking = self._asking.setdefault(row.ns, threading.Lock())
        with asking:
            found = self._keys.get((row.ns, row.version))
            return self._ask(row) if found is None else found

    def _ask(self, row: NamespaceRow) -> SecretKey:
        """Have the KMS unwrap the key, and begin a new lease; or end it, when the KMS refuses or time is up.

        Raises:
            What the KMS raises.
        """
        ns, asked_at = row.ns, self._clock()
        with self._lock:
            refusal = self._leases.refusal(ns, asked_at)
        if refusal is not None:
            raise refusal
        try:
            secret, group = self._unwrap(row)
        except (ClosedError, _VersionGoneError):
            raise
        except StrongroomError as e:
            self._not_had(ns, e)
            raise
        with self._lock:
            if self._closed:
                secret.wipe()
                raise ClosedError("the keyring was closed")
            self._leases.begin(ns, asked_at, group)
            held = self._keys.setdefault((ns, row.version), secret)
            if held is not secret:
                secret.wipe()
            return held

    def _unwrap(self, row: NamespaceRow) -> tuple[SecretKey, Group]:
        """What the KMS gives; when it refuses a wrap that was just replaced, for the new one."""
        wraps = self._book.wraps(row.ns, row.version)
        if not wraps and self._book.newest_version(row.ns) > row.version:
            raise _VersionGoneError
        try:
            return unwrap_namespace(self._book, self._kms, row, wraps), _group(wraps)
        except (KeyManagementError, UnwrapError):
            now = self._book.wraps(row.ns, row.version)
            if now == wraps:
                raise
            if not now:
                raise _VersionGoneError from None
        return unwrap_namespace(self._book, self._kms, row, now), _group(now)

    def _not_had(self, ns: int, error: StrongroomError) -> None:
        """Silence is borne until the end of the lease, as is want of memory here; a refusal ends it."""
        borne = isinstance(error, KmsUnavailableError | KeyMemoryError)
        refused = isinstance(error, KeyManagementError) and not borne
        with self._lock:
            now = self._clock()
            self._leases.refuse(ns, error, now)
            over = refused or self._leases.state(ns, now) is LeaseState.OVER
            if not over:
                self._leases.postpone(ns, now)
            if refused:
                self._leases.doubt(ns, now)
        if over:
            self._forget(ns)

    def _forget(self, ns: int) -> None:
        with self._lock:
            self._leases.end(ns)
            for place in [p for p in self._keys if p[0] == ns]:
                self._keys.pop(place).wipe()
            self._newest.pop(ns, None)
        self._lapsed(ns)

    def _row(self, ns: int, version: int | None) -> NamespaceRow:
        row = self._book.namespace_row(ns, version) if 0 <= ns < 2**63 else None
        if row is None:
            raise unknown_namespace()
        return row


def _group(wraps: Sequence[WrapRow]) -> Group:
    return tuple(row.master_version for row in wraps)


def unwrap_namespace(
    book: Book, kms: KmsDirectory, row: NamespaceRow, wraps: Sequence[WrapRow] | None = None
) -> SecretKey:
    """Ask the KMS; ``wraps``: those to try, all of the key when left out.

    Raises:
        UnwrapError, and what the KMS raises.
    """
    context = namespace_context(book, row)
    wraps = book.wraps(row.ns, row.version) if wraps is None else wraps
    return unwrap_first(kms, wraps, book.masters(), context)


def namespace_context(book: Book, row: NamespaceRow) -> dict[str, str]:
    """The context under which a namespace key is wrapped.

    Raises:
        UnwrapError: the tenant in the row was altered.
    """
    return kms_context(book.store_id, open_tenant(book, row), row.ns, row.version, _PURPOSE)


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
