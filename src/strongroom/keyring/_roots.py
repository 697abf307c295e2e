"""Purpose roots: what purpose keys derive from, and how another one takes its place (spec/keyring.md).

The first root of a namespace is its first own key; its number is 0. A later one is a key of its own with
the reserved subject ``ROOT``, which seals nothing; its number is its key id. Data subjects are blinded by the
purpose key "subject" of every root that ever was, one after the other,

    blind = mac(k_n, ... mac(k_2, mac(k_1, subject)))

so that a new root needs no names to blind anew what the keyring holds: ``mac(k_n, blind before)``. The keys
``k_1`` to ``k_n-1`` are kept as data keys with the reserved subject ``FORMER``. Whoever has them and not
``k_n`` can confirm no guess. The roots they came from are destroyed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.errors import InvalidInputError, KeyMovedError, KeyStateError
from strongroom.keyring._book import Book
from strongroom.keyring._cache import OPENING, KeyCache
from strongroom.keyring._change import Change
from strongroom.keyring._epochs import KeyNote, Noted
from strongroom.keyring._handles import once_more, secret_of
from strongroom.keyring._purposes import Place, PurposeKey, purpose_secret
from strongroom.keyring._rotating import record_event
from strongroom.keyring._rows import (
    FORMER,
    OWN,
    ROOT,
    DataRow,
    KeyState,
    altered,
    is_reserved,
    unknown_namespace,
)

_SUBJECT: Final = "subject"


class NewRoot(NamedTuple):
    """A purpose root that was made: its number, and how many data keys have another blinded subject now."""

    root: int
    reblinded: int


class PurposeRoots:
    """The part of ``Keyring`` that derives purpose keys and gives them another root."""

    _book: Book
    _cache: KeyCache

    def root(self, ns: int) -> int:
        """The number of a namespace's purpose root: 0 for its first own key, else a key id.

        Raises:
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh()
        return self._cache.root_of(ns)

    def root_key_id(self, ns: int, root: int | None = None) -> int:
        """The key id of a purpose root; of the present one without a number.

        Raises:
            KeyStateError, UnwrapError, StorageError, ClosedError.
        """
        return self._root_row(ns, self.root(ns) if root is None else root).key_id

    def purpose_key(self, ns: int, label: str, *, root: int | None = None) -> PurposeKey:
        """A key for one purpose, derived from the purpose root: the same one until another root is made.

        It does not change when the namespace's own key is rotated; it is gone when its root is destroyed.
        ``root``: the number of a root; the present one without it.

        Raises:
            KeyStateError: the root is not there, disabled or destroyed. InvalidInputError:
            the label is empty. UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        return self.purpose_keys(ns, label, root=root)[0]

    def purpose_keys(self, ns: int, *labels: str, root: int | None = None) -> list[PurposeKey]:
        """``purpose_key`` for several labels of one namespace.

        Raises:
            As ``purpose_key``.
        """
        cache = self._cache
        cache.fresh()
        cache.namespaces.admit(ns)
        number = cache.root_of(ns) if root is None else root
        known = cache.purpose.settled
        return [known.get((ns, number, label)) or self._derive((ns, number, label)) for label in labels]

    def blinded(self, ns: int, subject: bytes, *, root: int | None = None) -> tuple[bytes, int]:
        """The 32 bytes by which the keyring knows a data subject, and the number of the root they hang on.

        Raises:
            As ``purpose_key``.
        """
        cache = self._cache
        cache.fresh()
        number = cache.root_of(ns) if root is None else root

        def blind() -> bytes:
            found = subject
            for key in self._chain(ns, number):
                found = key.mac(found)
            return found

        return once_more(blind), number

    def _chain(self, ns: int, root: int) -> Sequence[SecretKey | PurposeKey]:
        """The keys that blind a subject under a root, the first one first."""
        roots, formers = self._cache.roots_of(ns)
        if root and root not in roots:  # somebody who has read a head knows of it before this process does
            self._cache.fresh(at_once=True)
            roots, formers = self._cache.roots_of(ns)
        if not formers:
            return [self.purpose_key(ns, _SUBJECT, root=root)]
        if root and root not in roots:
            raise KeyStateError("the namespace has no purpose root with that number")
        place = roots.index(root) + 1 if root else 0
        if place == len(formers):
            last = self.purpose_key(ns, _SUBJECT, root=root)
            return [*(self._former(key_id) for key_id in formers), last]
        return [self._former(key_id) for key_id in formers[: place + 1]]

    def _former(self, key_id: int) -> SecretKey:
        key = self._cache.keys.get(key_id) or self._cache.unwrapped(self._cache.row(key_id))
        self._cache.admit(key, OPENING)
        return secret_of(key)

    def _derive(self, place: Place) -> PurposeKey:
        ns, root, label = place
        if not label:
            raise InvalidInputError("a purpose key needs a label")
        self._cache.namespaces.newest(ns)
        row = self._root_row(ns, root)
        own = self._cache.keys.get(row.key_id) or self._cache.unwrapped(row)

        def derived() -> SecretKey:
            self._cache.admit(own, OPENING)
            return secret_of(own).derive(f"purpose:{label}")

        secret = once_more(derived)
        with self._book.lock:
            return self._cache.purpose.put(place, secret, self)

    def derive_again(self, key: PurposeKey) -> None:
        """Called by a handle whose bytes were given up: they come back, or what stands in the way is told."""
        self._cache.fresh()
        self._cache.namespaces.admit(key.place[0])
        self._derive(key.place)

    def _root_row(self, ns: int, root: int) -> DataRow:
        where, what = ("subject = ?2 AND epoch = 1", OWN) if root == 0 else ("key_id = ?2", root)
        row = self._book.data_row(f"ns = ?1 AND {where}", (ns, what))
        if row is None or (root and row.subject != ROOT):
            raise unknown_namespace()
        return row

    # -- another root ---------------------------------------------------------------------------------------
    def renew_root(self, ns: int, note: KeyNote) -> NewRoot:
        """Give a namespace a new purpose root and blind its subjects anew.

        One transaction over all data keys of the namespace. The root before is still there, for what was
        derived from it and lies elsewhere; ``end_roots`` destroys it.

        Raises:
            KeyStateError, UnwrapError, StorageError, ClosedError, and what the KMS raises:
            nothing was changed then.
        """
        self._cache.fresh(at_once=True)
        return self._cache.with_newest(ns, lambda version, kek: self._renew_root(ns, note, version, kek))

    def _renew_root(self, ns: int, note: KeyNote, version: int, kek: SecretKey) -> NewRoot:
        book, cache = self._book, self._cache
        before = cache.root_of(ns)
        former_root = self._root_row(ns, before)
        former = purpose_secret(self.purpose_key(ns, _SUBJECT, root=before))
        used = book.versions_in_use(ns) - {version}
        keks = {older: cache.namespaces.key(ns, older) for older in used}
        keks[version] = kek
        with book.write() as change:
            if book.newest_root(ns) != before:
                raise KeyMovedError  # another process was first
            if before:
                change.replace_data(former_root, cache.in_state(former_root, KeyState.COMPROMISED))
            epoch = len(cache.roots_of(ns)[0]) + 1
            made = cache.new_rows(change, ns, {ROOT: epoch}, version, kek)
            blinding = made[0][1].derive(f"purpose:{_SUBJECT}")
            kept = cache.given_row(change, ns, FORMER, epoch, version, kek, former)
            count = self._reblind(change, ns, blinding, keks, version)
            keys = [former_root.key_id, made[0][0].key_id, kept.key_id]
            record_event(book, change, "data", "root", ns, keys, note)
        cache.moved(change)
        cache.keep(made)
        return NewRoot(made[0][0].key_id, count)

    def _reblind(
        self, change: Change, ns: int, blinding: SecretKey, keks: dict[int, SecretKey], version: int
    ) -> int:
        book = self._book
        pairs: list[tuple[DataRow, DataRow]] = []
        for row in book.data_rows_where("ns = ?1 ORDER BY key_id", (ns,)):
            if is_reserved(row.subject):
                continue
            moved = row._replace(subject=blinding.mac(row.subject))
            if row.state != KeyState.DESTROYED:
                kek = keks.get(row.namespace_version)
                if kek is None:
                    raise altered("a data key is wrapped by a namespace key that is not there")
                secret = unwrap_key(kek, row.wrapped, row.context(book.store_id))
                moved = moved._replace(namespace_version=version)
                moved = moved._replace(wrapped=wrap_key(keks[version], secret, moved.context(book.store_id)))
                secret.wipe()
            pairs.append((row, moved.authenticated(book.row_key)))
        if pairs:
            change.reblind(pairs)
        return len(pairs)

    def end_roots(
        self,
        ns: int,
        keep: int,
        note: KeyNote,
        *,
        cut: bool = True,
        noted: Noted | None = None,
    ) -> int:
        """Destroy every purpose root of a namespace but the present one and that with the number ``keep``.

        The first root is destroyed with it only when it is not the namespace's active own key. How many it
        were. ``noted`` comes into the history with it. Without ``cut`` they are in the log until ``cut``.

        Raises:
            UnwrapError, StorageError, ClosedError. StorageBusyError: a reader keeps the log; repeat it.
        """
        self._cache.fresh(at_once=True)
        book, cache = self._book, self._cache
        with book.write() as change:
            needed = {self._root_row(ns, number).key_id for number in (book.newest_root(ns), keep)}
            rows = book.data_rows_where(
                "ns = ?1 AND state <> 5 AND (subject = ?2 OR (subject = ?3 AND epoch = 1 AND state <> 2))",
                (ns, ROOT, OWN),
            )
            rows = [row for row in rows if row.key_id not in needed]
            for row in rows:
                change.replace_data(row, cache.in_state(row, KeyState.DESTROYED))
            if rows:
                record_event(book, change, "data", "destroyed", ns, (r.key_id for r in rows), note)
            if noted is not None:
                record_event(book, change, noted.kind, noted.change, ns, noted.keys, note)
        if rows:
            cache.moved(change)
            for row in rows:
                cache.keys.pop(row.key_id, None)
        if cut:
            book.truncate_log()  # also when an attempt before has destroyed them and came no further
        return len(rows)
