"""A new version of a namespace key, and data keys wrapped anew under it, while the store is in use."""

from __future__ import annotations

from typing import Final, NamedTuple

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.keyring._book import Book
from strongroom.keyring._cache import KeyCache, now_us
from strongroom.keyring._epochs import KeyNote
from strongroom.keyring._rotating import record_event
from strongroom.keyring._rows import DataRow, KeyState, NamespaceRow, altered, unknown_namespace

KEYS_PER_STEP: Final = 2_000


class _Pass(NamedTuple):
    """Keys up to ``after`` are wrapped by ``version``; ``in_use``: the versions that wrapped some before."""

    version: int
    after: int
    in_use: set[int]


class NamespaceRotating:
    """The part of ``Keyring`` that rotates namespace keys.

    ``begin_version``, then ``rewrap_data_keys`` until it gives 0, then ``end_versions``. Each is one
    transaction and may be repeated; at every moment each data key is wrapped by exactly one version that
    is not destroyed.
    """

    _book: Book
    _cache: KeyCache
    _passes: dict[int, _Pass]  # by namespace: how far keys were wrapped anew

    def begin_version(self, ns: int, note: KeyNote, *, compromised: bool = False) -> int:
        """Make a new version of a namespace key, under the master keys of the one before; its number.

        ``compromised``: so the one before is called from now on.

        Raises:
            KeyStateError, UnwrapError, StorageError, ClosedError, and what the KMS raises:
            nothing was changed then.
        """
        self._cache.fresh()
        book, spaces = self._book, self._cache.namespaces
        while True:
            old = book.namespace_row(ns, None)
            if old is None:
                raise unknown_namespace()
            fresh = spaces.prepare(
                ns, spaces.tenant(ns), now_us(), version=old.version + 1, names=spaces.names(ns)
            )
            with book.write() as change:
                now = book.namespace_row(ns, None)
                if now is None or now.version != old.version:
                    continue  # another process was first: one more
                state = KeyState.COMPROMISED if compromised else KeyState.DECRYPT_ONLY
                change.replace_namespace(now, now._replace(state=int(state)))
                change.insert_namespace(fresh.row)
                change.put_wraps(ns, fresh.row.version, fresh.wraps, fresh.row.created_us)
                record_event(book, change, "namespace", "rotated", ns, [old.version, fresh.row.version], note)
            spaces.adopt(fresh)
            self._cache.moved(change)
            return fresh.row.version

    def rewrap_data_keys(self, ns: int) -> int:
        """Wrap some of the data keys that an older version wraps with the newest one; how many.

        Raises:
            UnwrapError, StorageError, ClosedError, and what the KMS raises.
        """
        self._cache.fresh(at_once=True)
        version, kek = self._cache.namespaces.newest(ns)
        known = self._passes.get(ns)
        if known is None or known.version != version:
            known = _Pass(version, 0, self._book.versions_in_use(ns))
        count, through = self._rewrap_after(ns, known, kek)
        if count:
            self._passes[ns] = known._replace(after=through)
            return count
        self._passes.pop(ns, None)
        if known.after == 0:
            return 0
        again = _Pass(version, 0, self._book.versions_in_use(ns))  # what came below the place meanwhile
        return self._rewrap_after(ns, again, kek)[0]

    def _rewrap_after(self, ns: int, known: _Pass, kek: SecretKey) -> tuple[int, int]:
        """How many keys were wrapped, and the last of them. The place saves reading what is done again."""
        book, spaces, version = self._book, self._cache.namespaces, known.version
        keks = {older: spaces.key(ns, older) for older in known.in_use if older < version}
        with book.write() as change:
            rows = book.data_rows_where(  # +ns: by key id, and not all of the namespace sorted at each step
                "+ns = ?1 AND key_id > ?2 AND namespace_version < ?3 AND state <> 5 ORDER BY key_id LIMIT ?4",
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
        if pairs:
            self._cache.moved(change)
        return len(pairs), rows[-1].key_id if rows else known.after

    def end_versions(self, ns: int, note: KeyNote) -> int:
        """Destroy the versions of a namespace key that wrap no data key any more; how many.

        Their wraps are removed, the file is written anew, so that no old wrapped form stays in it, and only
        then are they called destroyed: so whatever comes between, a repetition finishes it.

        Raises:
            StorageBusyError: another process kept the file from being written anew; repeat it.
            UnwrapError, StorageError, ClosedError.
        """
        self._cache.fresh(at_once=True)
        book = self._book
        newest = book.namespace_row(ns, None)
        if newest is None:
            raise unknown_namespace()
        with book.write() as change:
            in_use = self._book.versions_in_use(ns)
            rows = [row for row in self._older(ns, newest.version) if row.version not in in_use]
            for row in rows:
                change.remove_wraps(ns, row.version)
        if not rows:
            return 0
        book.compact()
        with book.write() as change:
            rows = [row for row in self._older(ns, newest.version) if row in rows]  # another one's are done
            for row in rows:
                change.replace_namespace(row, row._replace(state=int(KeyState.DESTROYED)))
            if rows:
                record_event(book, change, "namespace", "destroyed", ns, [r.version for r in rows], note)
        for row in rows:
            self._cache.namespaces.drop(ns, row.version)
        self._cache.moved(change)
        return len(rows)

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
