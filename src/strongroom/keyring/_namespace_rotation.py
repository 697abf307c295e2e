"""A new version of a namespace key, and data keys wrapped anew under it, while the store is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.keyring._book import Book
from strongroom.keyring._cache import KeyCache, now_us
from strongroom.keyring._change import Change
from strongroom.keyring._epochs import KeyNote
from strongroom.keyring._rotating import record_event
from strongroom.keyring._rows import DataRow, KeyState, NamespaceRow, altered, unknown_namespace

KEYS_PER_STEP: Final = 2_000
NAMESPACES_PER_STEP: Final = 500
_T = TypeVar("_T")


class _Pass(NamedTuple):
    """Keys up to ``after`` are wrapped by ``version``; ``in_use``: the versions that wrapped some before."""

    version: int
    after: int
    in_use: set[int]
    by: str  # "ns": rows are found by an index, and sorted; "+ns": by key id, among those of all namespaces


class NamespaceRotating:
    """The part of ``Keyring`` that rotates namespace keys.

    ``renew_version``, then ``rewrap_data_keys`` until it gives 0, then ``end_versions``, for many namespaces
    at once, as it writes the file anew. Each is one transaction or a few and may be repeated; at every moment
    each data key is wrapped by exactly one version that is not destroyed.
    """

    _book: Book
    _cache: KeyCache
    _passes: dict[int, _Pass]  # by namespace: how far keys were wrapped anew

    def renew_version(self, ns: int, note: KeyNote, *, compromised: bool = False) -> int:
        """Make a new version of a namespace key, under the master keys of the one before.

        The first data keys are wrapped with it in the same transaction; how many. ``compromised``: so the
        version before is called from now on.

        Raises:
            KeyStateError, UnwrapError, StorageError, ClosedError, and what the KMS raises:
            nothing was changed then.
        """
        self._cache.fresh(at_once=True)
        return self._cache.with_newest(ns, lambda version, kek: self._renew(ns, note, compromised))

    def _renew(self, ns: int, note: KeyNote, compromised: bool) -> int:
        book, spaces = self._book, self._cache.namespaces
        while True:
            old = book.namespace_row(ns, None)
            if old is None:
                raise unknown_namespace()
            fresh = spaces.prepare(
                ns, spaces.tenant(ns), now_us(), version=old.version + 1, names=spaces.names(ns)
            )
            first = self._from_the_first(ns, fresh.row.version)
            keks = {older: spaces.key(ns, older) for older in {old.version, *first.in_use}}
            with book.write() as change:
                now = book.namespace_row(ns, None)
                if now is None or now.version != old.version:
                    continue  # another process was first: one more
                state = KeyState.COMPROMISED if compromised else KeyState.DECRYPT_ONLY
                change.replace_namespace(now, now._replace(state=int(state)))
                change.insert_namespace(fresh.row)
                change.put_wraps(ns, fresh.row.version, fresh.wraps, fresh.row.created_us)
                record_event(book, change, "namespace", "rotated", ns, [old.version, fresh.row.version], note)
                rows = self._wrap_anew(change, ns, first, keks, fresh.secret)
            spaces.adopt(fresh)
            self._cache.moved(change)
            return len(rows)

    def rewrap_data_keys(self, ns: int) -> int:
        """Wrap some of the data keys that an older version wraps with the newest one; how many.

        Raises:
            UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._cache.fresh(at_once=True)
        return self._cache.with_newest(ns, lambda version, kek: self._rewrap_some(ns, version, kek))

    def _rewrap_some(self, ns: int, version: int, kek: SecretKey) -> int:
        known = self._passes.get(ns)
        if known is None or known.version != version:
            known = self._from_the_first(ns, version)
            if known.in_use <= {version}:  # and no key is ever made under an older one
                return 0
        count, through = self._rewrap_after(ns, known, kek)
        if count:
            self._passes[ns] = known._replace(after=through)
            return count
        self._passes.pop(ns, None)
        if known.after == 0:
            return 0
        again = self._from_the_first(ns, version)  # what came below the place meanwhile
        return self._rewrap_after(ns, again, kek)[0]

    def _from_the_first(self, ns: int, version: int) -> _Pass:
        return _Pass(version, 0, self._book.versions_in_use(ns), "+ns" if self._book.has_many(ns) else "ns")

    def _rewrap_after(self, ns: int, known: _Pass, kek: SecretKey) -> tuple[int, int]:
        """How many keys were wrapped, and the last of them. The place saves reading what is done again."""
        spaces = self._cache.namespaces
        keks = {older: spaces.key(ns, older) for older in known.in_use if older < known.version}
        with self._book.write() as change:
            rows = self._wrap_anew(change, ns, known, keks, kek)
        if rows:
            self._cache.moved(change)
        return len(rows), rows[-1].key_id if rows else known.after

    def _wrap_anew(
        self, change: Change, ns: int, known: _Pass, keks: dict[int, SecretKey], kek: SecretKey
    ) -> list[DataRow]:
        """Wrap the next data keys of a pass with ``kek``; as they were before."""
        book, version = self._book, known.version
        rows = book.data_rows_where(
            f"{known.by} = ?1 AND key_id > ?2 AND namespace_version < ?3 AND state <> 5 "
            "ORDER BY key_id LIMIT ?4",
            (ns, known.after, version, KEYS_PER_STEP),
        )
        pairs: list[tuple[DataRow, DataRow]] = []
        for row in rows:
            old_kek = keks.get(row.namespace_version)
            if old_kek is None:
                raise altered("a data key is wrapped by a namespace key that is not there")
            secret = unwrap_key(old_kek, row.wrapped, row.context(book.store_id))
            moved = row._replace(namespace_version=version)
            moved = moved._replace(wrapped=wrap_key(kek, secret, moved.context(book.store_id)))
            secret.wipe()
            pairs.append((row, moved.authenticated(book.row_key)))
        if pairs:
            change.replace_many(pairs)
        return rows

    def end_versions(self, spaces: Sequence[int], note: KeyNote) -> int:
        """Destroy the versions of namespace keys that wrap no data key any more; how many.

        Their wraps are removed, the file is written anew once for all of them, so that no old wrapped form
        stays in it, and only then are they called destroyed: so whatever comes between, a repetition
        finishes it.

        Raises:
            StorageBusyError: another process kept the file from being written anew; repeat it.
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh(at_once=True)
        rows: list[NamespaceRow] = []
        for some in _steps(spaces):
            with self._book.write() as change:
                for ns in some:
                    unused = self._unused(ns)
                    for row in unused:
                        change.remove_wraps(ns, row.version)
                    rows += unused
        if rows:
            self._book.compact()
        return sum(self._destroyed(some, note) for some in _steps(rows))

    def _unused(self, ns: int) -> list[NamespaceRow]:
        newest = self._book.namespace_row(ns, None)
        if newest is None:
            raise unknown_namespace()
        in_use = self._book.versions_in_use(ns)
        return [row for row in self._older(ns, newest.version) if row.version not in in_use]

    def _destroyed(self, rows: Sequence[NamespaceRow], note: KeyNote) -> int:
        book = self._book
        with book.write() as change:
            ended: dict[int, list[int]] = {}
            for row in rows:
                if book.namespace_row(row.ns, row.version) == row:  # else another process did it
                    change.replace_namespace(row, row._replace(state=int(KeyState.DESTROYED)))
                    ended.setdefault(row.ns, []).append(row.version)
            for ns, versions in ended.items():
                record_event(book, change, "namespace", "destroyed", ns, versions, note)
        for ns, versions in ended.items():
            for version in versions:
                self._cache.namespaces.drop(ns, version)
        self._cache.moved(change)
        return sum(len(versions) for versions in ended.values())

    def namespaces_with_keys(self) -> list[int]:
        """The numbers of all namespaces that have a key. No row is verified for it.

        Raises:
            StorageError, ClosedError.
        """
        self._cache.fresh()
        return [ns for (ns,) in self._book.rows("SELECT DISTINCT ns FROM namespace_keys ORDER BY ns", ())]

    def versions_left(self, ns: int) -> bool:
        """Whether an older version is not destroyed yet: a rotation that was not ended."""
        self._cache.fresh()
        newest = self._book.namespace_row(ns, None)
        return newest is not None and bool(self._older(ns, newest.version))

    def _older(self, ns: int, newest: int) -> list[NamespaceRow]:
        found = self._book.rows(
            "SELECT version FROM namespace_keys WHERE ns = ?1 AND version < ?2 AND state <> 5 "
            "ORDER BY version",
            (ns, newest),
        )
        rows = [self._book.namespace_row(ns, version) for (version,) in found]
        return [row for row in rows if row is not None]


def _steps(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[at : at + NAMESPACES_PER_STEP] for at in range(0, len(items), NAMESPACES_PER_STEP))
