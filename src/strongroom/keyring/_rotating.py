"""New epochs of keys: data keys rotated, given back, destroyed; records sealed anew under the next epoch.

Every step is one transaction over a bounded number of keys and may be repeated after a crash: what was
done is not done twice, because the state of each key says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from strongroom.crypto import ResealJob, SecretKey, encoded, reseal_many
from strongroom.crypto import suite_by_number as require_suite
from strongroom.errors import KeyStateError, NotFoundError
from strongroom.keyring._book import Book
from strongroom.keyring._cache import OPENING, SEALING, KeyCache, now_us
from strongroom.keyring._change import Change
from strongroom.keyring._epochs import (
    KeyEvent,
    KeyHistoryEntry,
    KeyNote,
    SuiteRow,
    history_row,
    ranges,
)
from strongroom.keyring._handles import DataKey, once_more, renew_handle, secret_of, suite_of
from strongroom.keyring._rows import KEY_ID_MAX, NOT_ROOTS, DataRow, KeyState

KEYS_PER_STEP: Final = 1_000
NOTES_PER_STEP: Final = 500
_ACTIVE_IN_RANGE: Final = f"ns = ?1 AND state = 2 AND key_id BETWEEN ?2 AND ?3 AND {NOT_ROOTS}"


class RowToReseal(Protocol):
    """What of a ledger row takes part in sealing it anew."""

    @property
    def memory_id(self) -> bytes: ...
    @property
    def field(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def key_id(self) -> int: ...
    @property
    def sealed(self) -> bytes: ...


@dataclass(slots=True)
class ResealResult:
    """``made``: (place in the input, new key id, sealed). ``unreadable``: places of rows that do not open."""

    made: list[tuple[int, int, bytes]] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)


class Rotating:
    """The part of ``Keyring`` that makes epochs."""

    _book: Book
    _cache: KeyCache

    def refresh(self) -> None:
        """Look at once for what other processes have changed.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh(at_once=True)

    def suite(self, ns: int) -> int:
        """The number of the suite that new keys of a namespace seal with.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        return self._cache.suite_for(ns, None)

    def history(
        self, kind: str | None = None, ns: int | None = None, key: int | None = None
    ) -> list[KeyHistoryEntry]:
        """What happened to keys, oldest first; all of it, or of one kind, namespace, key.

        Raises:
            UnwrapError: it was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        book = self._book
        rows = book.rows("SELECT id, at_us, sealed, mac FROM key_history ORDER BY id")
        found = [book.history(row).opened(book.history_key) for row in rows]
        return [e for e in found if kind is None or e.concerns(kind, ns, key)]

    def note(self, kind: str, change: str, ns: int, keys: Iterable[int], note: KeyNote) -> None:
        """Put something into the history that changes no row of a data key.

        Raises:
            StorageError, ClosedError.
        """
        self.note_each(kind, change, (ns,), keys, note)

    def note_each(
        self, kind: str, change: str, spaces: Sequence[int], keys: Iterable[int], note: KeyNote
    ) -> None:
        """``note`` for each of many namespaces, hundreds in one transaction.

        Raises:
            StorageError, ClosedError.
        """
        self._cache.fresh()
        named = list(keys)
        for at in range(0, len(spaces), NOTES_PER_STEP):
            with self._book.write() as writing:
                for ns in spaces[at : at + NOTES_PER_STEP]:
                    record_event(self._book, writing, kind, change, ns, named, note)

    def skip_to(self, key_id: int, ns: int) -> bool:
        """Give no new key and no new namespace a number up to these, which records name. True: it lacks them.

        So a keyring that was restored from too old a backup gives no number twice, and a newer backup that
        is found later still opens what it has sealed.

        Raises:
            StorageError, ClosedError.
        """
        self._cache.fresh()
        self._cache.floor = max(self._cache.floor, min(key_id, KEY_ID_MAX - 1))
        self._cache.ns_floor = max(self._cache.ns_floor, ns)
        return key_id > self._book.newest_key_id() or not self._book.newest_version(ns)

    # -- epochs -----------------------------------------------------------------------------------------
    def begin_epoch(self, ns: int, suite: int | None, note: KeyNote) -> int:
        """The first key id of a new epoch: keys below it are to be left. With ``suite``, what it seals with.

        Raises:
            InvalidInputError: the suite is unknown. UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        if suite is not None:
            require_suite(suite)
        with self._book.write() as change:
            barrier = change.next_key_id(self._cache.floor)
            self._cache.suites.pop(ns, None)
            if suite is not None and suite != self._cache.suite_for(ns, None):
                row = SuiteRow(ns, barrier, suite, now_us()).authenticated(self._book.row_key)
                known = self._book.rows("SELECT 1 FROM suites WHERE ns = ?1 AND since = ?2", (ns, barrier))
                if known:  # an epoch that was begun and never used
                    change.remove_suite(ns, barrier)
                change.insert_suite(row)
                why = replace(note, reason=f"{require_suite(suite).name}: {note.reason}")
                record_event(self._book, change, "data", "suite", ns, (), why)
            else:
                record_event(self._book, change, "data", "begun", ns, (), note)
        self._cache.moved(change)
        return barrier

    def rotate_keys(
        self, ns: int, low: int, high: int, note: KeyNote, *, old_state: KeyState = KeyState.DECRYPT_ONLY
    ) -> int:
        """Give subjects whose active key is one of ``low`` to ``high`` a new one; how many it did.

        To be repeated until it gives 0. ``old_state``: what the keys before become.

        Raises:
            UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._cache.fresh()

        def rotate(version: int, kek: SecretKey) -> int:
            with self._book.write() as change:
                old = self._book.data_rows_where(
                    f"{_ACTIVE_IN_RANGE} ORDER BY key_id LIMIT ?4",
                    (ns, low, high, KEYS_PER_STEP),
                )
                if not old:
                    return 0
                for row in old:
                    change.replace_data(row, self._cache.in_state(row, old_state))
                epochs = {row.subject: self._epoch_after(row) for row in old}
                made = self._cache.new_rows(change, ns, epochs, version, kek)
                self._record(change, "rotated", ns, [*old, *(row for row, _ in made)], note)
            self._cache.moved(change)
            self._cache.keep(made)
            return len(old)

        return self._cache.with_newest(ns, rotate)

    def return_keys(self, ns: int, low: int, high: int, note: KeyNote) -> int:
        """Make the key before active again, where one of ``low`` to ``high`` is now; how many it did.

        A subject that had none before gets a new one above ``high``. To be repeated until it gives 0.

        Raises:
            As ``rotate_keys``.
        """
        self._cache.fresh()
        return self._cache.with_newest(
            ns, lambda version, kek: self._return_keys(ns, low, high, note, version, kek)
        )

    def _return_keys(self, ns: int, low: int, high: int, note: KeyNote, version: int, kek: SecretKey) -> int:
        book, cache = self._book, self._cache
        with book.write() as change:
            rows = book.data_rows_where(
                f"{_ACTIVE_IN_RANGE} ORDER BY key_id LIMIT ?4",
                (ns, low, high, KEYS_PER_STEP),
            )
            if not rows:
                return 0
            fresh: dict[bytes, int] = {}
            back: list[DataRow] = []
            for row in rows:
                change.replace_data(row, cache.in_state(row, KeyState.DECRYPT_ONLY))
                before = book.data_rows_where(
                    "ns = ?1 AND subject = ?2 AND state = 3 AND key_id < ?3 ORDER BY epoch DESC LIMIT 1",
                    (ns, row.subject, low),
                )
                if before:
                    back.append(before[0])
                    change.replace_data(before[0], cache.in_state(before[0], KeyState.ACTIVE))
                else:
                    fresh[row.subject] = self._epoch_after(row)
            made = cache.new_rows(change, ns, fresh, version, kek) if fresh else []
            self._record(change, "returned", ns, [*rows, *back, *(row for row, _ in made)], note)
        cache.moved(change)
        cache.keep(made)
        return len(rows)

    def destroy_keys(self, ns: int, low: int, high: int, keep: Iterable[int], note: KeyNote) -> int:
        """Destroy the keys ``low`` to ``high`` of a namespace but those to ``keep``; how many it did.

        To be repeated until it gives 0; then ``cut`` ends it. An active key is refused.

        Raises:
            KeyStateError: one of them is active. UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        kept = set(keep)
        with self._book.write() as change:
            rows = self._book.data_rows_where(
                f"ns = ?1 AND state <> 5 AND key_id BETWEEN ?2 AND ?3 AND {NOT_ROOTS} ORDER BY key_id",
                (ns, low, high),
            )
            rows = [row for row in rows if row.key_id not in kept][:KEYS_PER_STEP]
            if not rows:
                return 0
            if any(row.state == KeyState.ACTIVE for row in rows):
                raise KeyStateError("an active key is not destroyed by a rotation")
            for row in rows:
                change.replace_data(row, self._cache.in_state(row, KeyState.DESTROYED))
            self._record(change, "destroyed", ns, rows, note)
        self._cache.moved(change)
        for row in rows:
            handle = self._cache.keys.pop(row.key_id, None)
            if handle is not None:
                renew_handle(handle, KeyState.DESTROYED, self._cache.generation)
        return len(rows)

    def mark_compromised(self, ns: int, low: int, high: int, note: KeyNote) -> int:
        """Call the keys ``low`` to ``high`` that are neither active nor destroyed compromised; how many.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        total = 0
        while True:
            with self._book.write() as change:
                rows = self._book.data_rows_where(
                    f"ns = ?1 AND state IN (3, 4) AND key_id BETWEEN ?2 AND ?3 AND {NOT_ROOTS} "
                    "ORDER BY key_id LIMIT ?4",
                    (ns, low, high, KEYS_PER_STEP),
                )
                if not rows:
                    return total
                for row in rows:
                    change.replace_data(row, self._cache.in_state(row, KeyState.COMPROMISED))
                self._record(change, "compromised", ns, rows, note)
            self._cache.moved(change)
            total += len(rows)

    def cut(self) -> None:
        """Fold the write-ahead log into the file and cut it, so that destroyed keys are in neither.

        Raises:
            StorageBusyError: a reader kept it from happening; repeat it.
        """
        self._book.truncate_log()

    def set_state(self, key_id: int, state: KeyState, note: KeyNote) -> None:
        """Disable or enable a key, or call it compromised; by hand.

        DECRYPT_ONLY and DISABLED change into each other; COMPROMISED follows on DECRYPT_ONLY or DISABLED and
        leads to DESTROYED alone.

        Raises:
            KeyStateError: not from its present state, or there is no such key. UnwrapError, StorageError.
        """
        allowed = {KeyState.DECRYPT_ONLY, KeyState.DISABLED}
        if state == KeyState.DESTROYED:
            allowed = allowed | {KeyState.COMPROMISED, KeyState.DESTROYED}
        elif state == KeyState.COMPROMISED:
            allowed = allowed | {KeyState.COMPROMISED}
        words = {
            KeyState.DISABLED: "disabled",
            KeyState.DECRYPT_ONLY: "enabled",
            KeyState.COMPROMISED: "compromised",
            KeyState.DESTROYED: "destroyed",
        }
        ns = self._cache.row(key_id).ns

        def record(change: Change) -> None:
            record_event(self._book, change, "data", words[state], ns, (key_id,), note)

        self._cache.transition(key_id, allowed, state, also=record)
        if state == KeyState.DESTROYED:
            self._book.truncate_log()

    def suite_of_key(self, ns: int, key_id: int) -> int:
        """The number of the suite that a data key seals, or sealed, with."""
        self._cache.fresh()
        return self._cache.suite_for(ns, key_id)

    def wrapping_versions(self, ns: int) -> dict[int, int]:
        """Data key -> version of the namespace key that wraps it.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        return {row.key_id: row.namespace_version for row in self._book.data_rows(ns)}

    def key_ids_of(self, ns: int, subject: bytes) -> list[int]:
        """The keys of a subject (32 blinded bytes; empty: the namespace's own) that are there, by epoch.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        rows = self._book.data_rows_where(
            "ns = ?1 AND subject = ?2 AND state <> 5 ORDER BY epoch", (ns, subject)
        )
        return [row.key_id for row in rows]

    # -- sealing anew ---------------------------------------------------------------------------------------
    def sealing_key(self, key_id: int) -> DataKey:
        """The active key of whatever subject the key of that number is of.

        Raises:
            KeyStateError: there is no active one. UnwrapError, StorageError, ClosedError, the KMS's.
        """
        self._cache.fresh()
        found = self._cache.keys.get(key_id)
        if found is not None and found.state == KeyState.ACTIVE:
            self._cache.admit(found, OPENING)
            if found.state == KeyState.ACTIVE:
                return found
        row = self._cache.row(key_id)
        active = self._cache.active.get((row.ns, row.subject))
        if active is not None:
            return active
        keys = self._cache.obtain(row.ns, [row.subject], create=False)
        if not keys:
            raise NotFoundError("this data subject has no key")
        return keys[row.subject]

    def reseal(
        self, ns: int, tenant: str, schema: int, rows: Sequence[RowToReseal], low: int, high: int
    ) -> ResealResult:
        """Seal anew what is under the keys ``low`` to ``high``, each row under its subject's active key.

        Other rows are left out. Each result was opened again and compared with what was opened before.

        Raises:
            KeyExhaustedError, KeyStateError: a key to seal with. UnwrapError, StorageError, ClosedError,
            what the KMS raises: nothing is to be kept.
        """
        self._cache.fresh()
        return once_more(lambda: self._reseal(ns, tenant, schema, rows, low, high))

    def _reseal(
        self, ns: int, tenant: str, schema: int, rows: Sequence[RowToReseal], low: int, high: int
    ) -> ResealResult:
        out = ResealResult()
        pairs = self._pairs((ns, low, high), {row.key_id for row in rows if low <= row.key_id <= high})
        counts: dict[int, int] = {}
        for row in rows:
            pair = pairs.get(row.key_id)
            if pair is not None:
                counts[pair[1].key_id] = counts.get(pair[1].key_id, 0) + 1
        for key_id, n in counts.items():
            self._cache.uses.count(key_id, n)
        places: list[int] = []
        jobs: list[ResealJob] = []
        for place, row in enumerate(rows):
            if not low <= row.key_id <= high:
                continue
            pair = pairs[row.key_id]
            if pair is None:
                out.unreadable.append(place)
                continue
            old, new = pair
            bound = encoded(tenant, ns, row.memory_id, row.field, row.version, schema)
            places.append(place)
            jobs.append(
                ResealJob(secret_of(old), secret_of(new), new.key_id, suite_of(new), bound, row.sealed)
            )
        for place, job, sealed in zip(places, jobs, reseal_many(jobs), strict=True):
            if sealed is None:
                out.unreadable.append(place)
            else:
                out.made.append((place, job.key_id, sealed))
        return out

    def _pairs(
        self, target: tuple[int, int, int], key_ids: Iterable[int]
    ) -> dict[int, tuple[DataKey, DataKey] | None]:
        """Each key and the one that its rows go to; None when it does not open. ``target``: ns, low, high."""
        cache = self._cache
        cache.namespaces.admit(target[0])
        known = cache.pairs.setdefault(target, {})  # forgotten when a state changes anywhere
        for key_id in key_ids:
            pair = known.get(key_id)
            if pair is None:
                known[key_id] = self._pair(target, key_id)
            else:
                cache.admit(pair[0], OPENING)
                cache.admit(pair[1], SEALING)
        return known

    def _pair(self, target: tuple[int, int, int], key_id: int) -> tuple[DataKey, DataKey] | None:
        ns, low, high = target
        row = self._book.data_row("key_id = ?1", (key_id,))  # None: the keyring is older than the records
        if row is None or row.ns != ns or row.state in (KeyState.DESTROYED, KeyState.DISABLED):
            return None
        old = self._cache.keys.get(key_id) or self._cache.unwrapped(row)
        self._cache.admit(old, OPENING)
        new = self.sealing_key(key_id)
        if low <= new.key_id <= high or new.state != KeyState.ACTIVE:
            raise KeyStateError("the key to seal with is not of the next epoch")
        return old, new

    # -- inside ---------------------------------------------------------------------------------------
    def _epoch_after(self, row: DataRow) -> int:
        sql = "SELECT max(epoch) FROM data_keys WHERE ns = ?1 AND subject = ?2"
        return int(self._book.rows(sql, (row.ns, row.subject))[0][0]) + 1

    def _record(self, change: Change, word: str, ns: int, rows: Sequence[DataRow], note: KeyNote) -> None:
        record_event(self._book, change, "data", word, ns, (row.key_id for row in rows), note)


def record_event(
    book: Book, change: Change, kind: str, word: str, ns: int, keys: Iterable[int], note: KeyNote
) -> None:
    """Put what a transaction does into the history of keys."""
    number = int(book.rows("SELECT ifnull(max(id), 0) + 1 FROM key_history")[0][0])
    event = KeyEvent(kind, word, ns, ranges(keys), note.actor, note.reason, note.request_id)
    row = history_row(number, now_us(), event, book.history_key)
    change.insert_history(row.authenticated(book.row_key))
