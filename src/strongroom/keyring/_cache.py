"""The unwrapped data keys of one process: looked up, made, checked for their state, forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.errors import (
    ClosedError,
    KeyManagementError,
    KeyMovedError,
    KeyStateError,
    LimitExceededError,
    StorageBusyError,
    UnwrapError,
)
from strongroom.keyring._book import Book
from strongroom.keyring._change import Change
from strongroom.keyring._handles import (
    DataKey,
    forget_handle,
    generation_of,
    is_forgotten,
    is_settled,
    make_handle,
    once_more,
    renew_handle,
    revive_handle,
)
from strongroom.keyring._namespaces import NamespaceKeys
from strongroom.keyring._purposes import PurposeHandles
from strongroom.keyring._rows import (
    ERASED,
    FORMER,
    KEY_ID_MAX,
    ROOT,
    DataRow,
    KeyState,
    altered,
    wrap_context,
)
from strongroom.keyring._uses import UseCounter
from strongroom.kms import KmsDirectory

T = TypeVar("T")

KEYS_CACHED_MAX: Final = 200_000
SEALING: Final = frozenset({KeyState.ACTIVE})
OPENING: Final = frozenset({KeyState.ACTIVE, KeyState.DECRYPT_ONLY, KeyState.COMPROMISED})
_ATTEMPTS_MAX: Final = 16
_LEFT: Final = frozenset({KeyState.DECRYPT_ONLY, KeyState.COMPROMISED, KeyState.DESTROYED})


class _Suites(NamedTuple):
    """With which suite keys seal: (first key id, suite); known for the keys up to ``through``."""

    through: int
    since: list[tuple[int, int]]


class _NotNewestError(Exception):
    """Another process has rotated the namespace key since it was looked up."""


class KeyCache:
    """What the handles of this process ask (their ``Guard``), and where the keyring finds them again."""

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
        self.book = book
        self.uses = UseCounter(book, uses_max)
        self.namespaces = NamespaceKeys(book, kms, cache_s=cache_s, clock=clock, lapsed=self._lapse)
        self.generation = book.head()[1]
        self.keys: dict[int, DataKey] = {}
        self.active: dict[tuple[int, bytes], DataKey] = {}
        self.purpose = PurposeHandles()
        self.roots: dict[int, tuple[list[int], list[int]]] = {}  # by namespace: see ``roots_of``
        self.pairs: dict[tuple[int, int, int], dict[int, tuple[DataKey, DataKey] | None]] = {}
        self.suites: dict[int, _Suites] = {}  # by namespace
        self.floor = self.ns_floor = 0  # numbers up to these are taken, whatever stands in the file
        self.closed = False
        self._suite = suite
        self._recheck_s = recheck_ms / 1000
        self._recheck_at = 0.0
        self._data_version = -1

    def forget(self) -> None:
        """Overwrite every key."""
        self.namespaces.close()
        for handle in list(self.keys.values()):
            forget_handle(handle)
        self.purpose.forget(None)
        self.keys.clear()
        self.active.clear()
        self.pairs.clear()

    def _lapse(self, ns: int) -> None:
        """The keys of a namespace may not be used: forget them; handles get theirs back when it may."""
        for handle in list(self.keys.values()):
            if handle.ns == ns:
                forget_handle(handle)
        self.purpose.forget(ns)

    def admit_sealing(self, uses: Sequence[tuple[DataKey, int]]) -> None:
        """Called by handles before they seal: the state of each, then so many uses."""
        self.fresh()
        for ns in {key.ns for key, _ in uses}:
            self.namespaces.admit(ns)
        generation = self.generation
        for key, _ in uses:
            if is_forgotten(key) or not is_settled(key, generation, SEALING):
                self.admit(key, SEALING)
        self.uses.count_all([(key.key_id, n) for key, n in uses])

    def admit_opening(self, key: DataKey) -> None:
        """Called by a handle before it opens."""
        self.fresh()
        self.admit(key, OPENING)

    def fresh(self, *, at_once: bool = False) -> None:
        if self.closed:
            raise ClosedError("the keyring was closed")
        now = time.monotonic()
        if now < self._recheck_at and not at_once:
            return
        with self.book.lock:
            self._recheck_at = now + self._recheck_s
            self.book.require_same_file()
            version = self.book.data_version()
            if version != self._data_version:
                generation = self.book.head()[1]
                self._data_version = version
                if generation != self.generation:
                    self._renew(generation)

    def _renew(self, generation: int) -> None:
        """Somebody changed states: nothing that was looked up before is taken for granted."""
        self.generation = generation
        self.active.clear()
        self.purpose.doubt()
        self.roots.clear()
        self.suites.clear()
        self.pairs.clear()
        self.namespaces.renew()

    def suite_for(self, ns: int, key_id: int | None) -> int:
        """The suite that a key of the namespace seals with; None: the next key to be made."""
        known = self.suites.get(ns)
        if known is None or (key_id is not None and key_id > known.through):
            through = self.book.newest_key_id()  # first: a suite begins above every key that there is
            since = [(row.since, row.suite) for row in self.book.suites(ns)]
            known = self.suites[ns] = _Suites(through, since)
        found = [suite for since, suite in known.since if key_id is None or since <= key_id]
        return found[-1] if found else self._suite

    def roots_of(self, ns: int) -> tuple[list[int], list[int]]:
        """The key ids of the purpose roots after the first, and of the blinding keys of those before them."""
        known = self.roots.get(ns)
        if known is None:
            sql = "SELECT subject, key_id FROM data_keys WHERE ns = ?1 AND subject IN (?2, ?3) ORDER BY epoch"
            rows = self.book.rows(sql, (ns, ROOT, FORMER)) if 0 <= ns < 2**63 else []
            roots = [key_id for subject, key_id in rows if subject == ROOT]
            known = self.roots[ns] = (roots, [key_id for subject, key_id in rows if subject == FORMER])
        return known

    def root_of(self, ns: int) -> int:
        """The number of the present purpose root: 0 for the first own key."""
        roots = self.roots_of(ns)[0]
        return roots[-1] if roots else 0

    def moved(self, change: Change) -> None:
        with self.book.lock:
            self._renew(max(change.generation, self.generation))

    def admit(self, key: DataKey, allowed: frozenset[KeyState]) -> None:
        self.namespaces.admit(key.ns)
        if is_forgotten(key):
            self._revive(key)
        if is_settled(key, self.generation, allowed):
            return
        if generation_of(key) != self.generation:
            with self.book.lock:
                renew_handle(key, self.row(key.key_id).state, self.generation)
        if key.state not in allowed:
            if allowed is SEALING and key.state in _LEFT:
                raise KeyMovedError
            raise KeyStateError(f"the key is {key.state.name.lower().replace('_', '-')}")

    def _revive(self, key: DataKey) -> None:
        row = self.row(key.key_id)
        if row.state == KeyState.DESTROYED:
            renew_handle(key, row.state, self.generation)
            raise KeyStateError("the key is destroyed")
        revive_handle(key, self._secret(row)[1])

    def row(self, key_id: int) -> DataRow:
        row = self.book.data_row("key_id = ?1", (key_id,)) if 0 < key_id <= KEY_ID_MAX else None
        if row is None:
            raise KeyStateError(
                "the keyring holds no key with that number",
                hint="the keyring may be older than the data: restore the newest key backup",
            )
        return row

    def unwrapped(self, row: DataRow) -> DataKey:
        if row.state == KeyState.DESTROYED:
            raise KeyStateError("the key is destroyed")
        generation = self.generation
        row, secret = self._secret(row)
        return self.keep([(row, secret)], generation)[row.subject]

    def _secret(self, row: DataRow) -> tuple[DataRow, SecretKey]:
        """The key in a row; in the row as it is now, when the namespace key was rotated since it was read."""
        try:
            return row, self._unwrapped(row)
        except KeyManagementError:
            now = self.row(row.key_id)
            if now.namespace_version == row.namespace_version or now.state == KeyState.DESTROYED:
                raise
        return now, self._unwrapped(now)

    def _unwrapped(self, row: DataRow) -> SecretKey:
        return once_more(lambda: self._unwrap(self.namespaces.key(row.ns, row.namespace_version), row))

    def _unwrap(self, kek: SecretKey, row: DataRow) -> SecretKey:
        try:
            return unwrap_key(kek, row.wrapped, row.context(self.book.store_id))
        except UnwrapError:
            raise altered("a wrapped data key was altered, or belongs elsewhere") from None

    def keep(
        self, made: Iterable[tuple[DataRow, SecretKey]], generation: int | None = None
    ) -> dict[bytes, DataKey]:
        """Handles for rows; a key that two threads have unwrapped gets one handle."""
        generation = self.generation if generation is None else generation
        out: dict[bytes, DataKey] = {}
        with self.book.lock:
            for row, secret in made:
                handle = make_handle(
                    self,
                    secret,
                    key_id=row.key_id,
                    ns=row.ns,
                    epoch=row.epoch,
                    state=row.state,
                    suite=self.suite_for(row.ns, row.key_id),
                    generation=generation,
                )
                handle = out[row.subject] = self.keys.setdefault(row.key_id, handle)
                if row.state == KeyState.ACTIVE and generation == self.generation:
                    self.active[(row.ns, row.subject)] = handle
            if len(self.keys) > KEYS_CACHED_MAX:
                self._evict()
        return out

    def _evict(self) -> None:
        for key_id in list(islice(self.keys, KEYS_CACHED_MAX // 4)):
            del self.keys[key_id]
        for place in [p for p, k in self.active.items() if k.key_id not in self.keys]:
            del self.active[place]

    def with_newest(self, ns: int, act: Callable[[int, SecretKey], T]) -> T:
        """What ``act`` makes with the newest version of a namespace key and the key itself.

        The KMS is never asked under the file's lock, so the version is looked up before ``act`` begins its
        transaction. When another one has become the newest meanwhile, ``new_rows`` says so, and ``act`` runs
        again; as it does when the key was given up meanwhile, at the end of its lease. What ``act`` had
        begun to write was not written then.

        Raises:
            StorageBusyError: other processes rotate the namespace key all the time. What ``act`` raises.
        """
        for _ in range(_ATTEMPTS_MAX):
            version, kek = self.namespaces.newest(ns)
            try:
                return act(version, kek)
            except _NotNewestError:
                self.namespaces.renew()
            except KeyStateError:
                if not kek.wiped:
                    raise
        raise StorageBusyError("other processes rotate the key of this namespace all the time")

    def obtain(
        self, ns: int, subjects: list[bytes], *, create: bool, root: int | None = None
    ) -> dict[bytes, DataKey]:
        return self.with_newest(
            ns, lambda version, kek: self._obtain(ns, subjects, version, kek, create=create, root=root)
        )

    def _obtain(
        self, ns: int, subjects: list[bytes], version: int, kek: SecretKey, *, create: bool, root: int | None
    ) -> dict[bytes, DataKey]:
        made: list[tuple[DataRow, SecretKey]] = []
        with self.book.lock:
            before = self.book.data_version()
            rows = self.book.latest(ns, subjects)
            epochs = _missing(subjects, rows)
            if create and epochs:
                with self.book.write() as change:
                    if root is not None and self.book.newest_root(ns) != root:
                        raise KeyMovedError  # blinded under a root that is not the present one any more
                    if self.book.data_version() != before:  # another process has written meanwhile
                        rows |= self.book.latest(ns, list(epochs))
                        epochs = _missing(subjects, rows)
                    made = self.new_rows(change, ns, epochs, version, kek)
            generation = self.generation
        out = self.keep(made, generation)
        self.uses.admit_new(row.key_id for row, _ in made)
        for subject, row in rows.items():
            if subject in epochs:
                continue
            if row.state != KeyState.ACTIVE:
                raise KeyStateError("the newest key of this data subject is not active")
            handle = out[subject] = self.keys.get(row.key_id) or self.unwrapped(row)
            with self.book.lock:
                if generation == self.generation:
                    renew_handle(handle, row.state, generation)
                    self.active[(ns, subject)] = handle
        return out

    def new_rows(
        self, change: Change, ns: int, epochs: dict[bytes, int], version: int, kek: SecretKey
    ) -> list[tuple[DataRow, SecretKey]]:
        """New active keys, wrapped by ``kek``, the namespace key of that version; see ``with_newest``."""
        book = self.book
        if epochs and book.newest_version(ns) != version:
            raise _NotNewestError  # under an older one, which may be destroyed, the keys would be lost
        first, created_us, active = change.next_key_id(self.floor), now_us(), int(KeyState.ACTIVE)
        if first + len(epochs) - 1 > KEY_ID_MAX:
            raise LimitExceededError(f"a keyring holds at most {KEY_ID_MAX} keys")
        made: list[tuple[DataRow, SecretKey]] = []
        for key_id, (subject, epoch) in enumerate(sorted(epochs.items()), first):  # index order
            secret = SecretKey.generate()
            context = wrap_context(
                book.store_id, key_id, ns, namespace_version=version, epoch=epoch, subject=subject
            )
            wrapped = wrap_key(kek, secret, context)
            row = DataRow(key_id, ns, subject, epoch, active, version, created_us, wrapped)
            made.append((row.authenticated(book.row_key), secret))
        change.insert_data([row for row, _ in made])
        return made

    def given_row(
        self,
        change: Change,
        ns: int,
        subject: bytes,
        epoch: int,
        version: int,
        kek: SecretKey,
        secret: SecretKey,
    ) -> DataRow:
        """A new key with bytes that are given, which seals nothing."""
        book, key_id = self.book, change.next_key_id(self.floor)
        context = wrap_context(
            book.store_id, key_id, ns, namespace_version=version, epoch=epoch, subject=subject
        )
        state = int(KeyState.DECRYPT_ONLY)
        row = DataRow(key_id, ns, subject, epoch, state, version, now_us(), wrap_key(kek, secret, context))
        row = row.authenticated(book.row_key)
        change.insert_data([row])
        return row

    def in_state(self, row: DataRow, state: KeyState) -> DataRow:
        wrapped = ERASED if state == KeyState.DESTROYED else row.wrapped
        return row._replace(state=int(state), wrapped=wrapped).authenticated(self.book.row_key)

    def transition(
        self,
        key_id: int,
        allowed: set[KeyState],
        state: KeyState,
        *,
        also: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self.fresh()
        with self.book.write() as change:
            row = self.row(key_id)
            if row.state not in allowed:
                raise KeyStateError(
                    f"an {KeyState(row.state).name.lower().replace('_', '-')} key cannot become "
                    f"{state.name.lower().replace('_', '-')}",
                    hint="rotate the key first" if row.state == KeyState.ACTIVE else None,
                )
            if row.state != state:
                change.replace_data(row, self.in_state(row, state))
                also(change)
        self.moved(change)
        handle = self.keys.get(key_id)
        if handle is not None:
            renew_handle(handle, state, self.generation)
            if state == KeyState.DESTROYED:
                self.keys.pop(key_id, None)


def _missing(subjects: Sequence[bytes], rows: dict[bytes, DataRow]) -> dict[bytes, int]:
    """The epoch of the key to be made, for each subject without one or whose newest is destroyed."""
    out: dict[bytes, int] = {}
    for subject in subjects:
        row = rows.get(subject)
        if row is None or row.state == KeyState.DESTROYED:
            out[subject] = 1 if row is None else row.epoch + 1
    return out


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000
