"""Which master keys wrap the keys of a keyring, and changing them while the store is in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from strongroom.crypto import SecretKey
from strongroom.errors import ConflictError, StrongroomError
from strongroom.keyring._book import Book
from strongroom.keyring._cache import KeyCache, now_us
from strongroom.keyring._epochs import KeyNote
from strongroom.keyring._masters import Wrap, names_of, prove, unwrap_first, wrap_all
from strongroom.keyring._meta import integrity_context
from strongroom.keyring._namespaces import namespace_context
from strongroom.keyring._rotating import record_event
from strongroom.keyring._rows import (
    INTEGRITY_NS,
    KeyState,
    NamespaceRow,
    WrapRecord,
    WrapRow,
    time_of,
    unknown_namespace,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.kms import KmsDirectory

_ATTEMPTS_MAX = 5


class Wrapping:
    """The part of ``Keyring`` that deals with master keys."""

    _book: Book
    _kms: KmsDirectory
    _cache: KeyCache

    def wraps(self, ns: int | None = None) -> list[WrapRecord]:
        """Every wrap, or those of one namespace (-1: of the integrity key), by namespace, version, place.

        Needs no KMS.

        Raises:
            UnwrapError, KeyringMismatchError: a row was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        masters = self._book.masters()
        where = "" if ns is None else "WHERE ns = ?1 "
        sql = f"SELECT DISTINCT ns, version FROM wraps {where}ORDER BY ns, version"  # noqa: S608
        places = self._book.rows(sql, () if ns is None else (ns,))
        return [
            WrapRecord(
                ns=row.ns,
                version=row.version,
                place=row.place,
                provider=masters[row.master_version].provider,
                key_uri=masters[row.master_version].key_uri,
                created_at=time_of(row.created_us),
            )
            for number, version in places
            for row in self._book.wraps(number, version)
        ]

    def master_numbers(self, key_uri: str) -> list[int]:
        """The numbers in this keyring of the master key with that address; empty: it has never wrapped here.

        Raises:
            KeyringMismatchError: they were altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        return [number for number, m in self._book.masters().items() if m.key_uri == key_uri]

    def wrapped_by(self, ns: int) -> tuple[str, ...]:
        """The names of the configured providers that wrap the newest key of a namespace, in their order.

        Raises:
            KeyStateError: no such namespace. UnwrapError: nobody in the configuration does. StorageError,
            ClosedError.
        """
        self._cache.fresh()
        return self._cache.namespaces.names(ns)

    def unrecoverable(self) -> list[tuple[int, int]]:
        """The (namespace, version) of keys that lack the wrap of a recovery key of the configuration.

        Needs no KMS. Namespace -1 is the integrity key.

        Raises:
            UnwrapError, KeyringMismatchError: a row was altered. StorageError, ClosedError.
        """
        wanted = {recipient.describe().key_uri for recipient in self._kms.recipients}
        found: dict[tuple[int, int], set[str]] = {}
        for wrap in self.wraps():
            found.setdefault((wrap.ns, wrap.version), set()).add(wrap.key_uri)
        return [place for place, uris in found.items() if wanted - uris]

    def unopenable(self) -> list[tuple[int, StrongroomError]]:
        """The namespaces with a key that none of the providers at hand opens, and why. Asks them all.

        Raises:
            UnwrapError, KeyringMismatchError: a row was altered. StorageError, ClosedError.
        """
        self._cache.fresh()
        masters = self._book.masters()
        out: list[tuple[int, StrongroomError]] = []
        for ns in sorted({record.ns for record in self._cache.namespaces.records()}):
            for row in self._versions(ns):
                context = namespace_context(self._book, row)
                try:
                    unwrap_first(self._kms, self._book.wraps(ns, row.version), masters, context).wipe()
                except StrongroomError as e:
                    out.append((ns, e))
        return out

    def register_recovery_keys(self) -> None:
        """Accept the recovery keys of the configuration: from now on every new key is wrapped to them too.

        Raises:
            StorageError: nothing was changed. ClosedError.
        """
        self._cache.fresh()
        with self._book.write():
            for recipient in self._kms.recipients:
                self._book.register(recipient.describe(), now_us())

    def rewrap_namespace(
        self, ns: int, *, names: Sequence[str] | None = None, note: KeyNote | None = None
    ) -> int:
        """Wrap every version of a namespace key anew; returns how many there are.

        ``names``: the providers that shall wrap it from now on, in order (a move to another KMS); without
        it, those that do now, with whatever is their master key now (a rotation of the master key). The
        recovery recipients of the configuration get their wraps too. Each new wrap is unwrapped again before
        the old ones are taken away, all of a namespace in one transaction, with ``note`` in the history; data
        keys, records and handles are not touched, and use goes on meanwhile.

        Raises:
            KeyStateError: no such namespace. ConfigurationError: a name is not configured. ConflictError:
            another process rewraps it all the time. UnwrapError, StorageError, ClosedError, and what the old
            and new KMS raise. Nothing was changed then.
        """
        self._cache.fresh()
        for _ in range(_ATTEMPTS_MAX):
            rows = self._versions(ns)
            if not rows:
                raise unknown_namespace()
            before = {row: self._book.wraps(ns, row.version) for row in rows}
            made = {row: self._anew(row, wraps, names) for row, wraps in before.items()}
            with self._book.write() as change:
                if self._versions(ns) == rows and all(
                    self._book.wraps(ns, row.version) == wraps for row, wraps in before.items()
                ):
                    for row, wraps in made.items():
                        change.put_wraps(ns, row.version, wraps, now_us())
                    if note is not None:
                        record_event(self._book, change, "master", "rewrapped", ns, (), note)
                    return len(rows)
        raise ConflictError("another process wraps this namespace's keys all the time")

    def rewrap_integrity(self, *, names: Sequence[str] | None = None) -> None:
        """Wrap the keyring's integrity key anew: the one key that is needed to open the store at all.

        Raises:
            As ``rewrap_namespace``.
        """
        self._cache.fresh()
        context = integrity_context(self._book.store_id)
        for _ in range(_ATTEMPTS_MAX):
            before = self._book.wraps(INTEGRITY_NS, 1)
            secret = unwrap_first(self._kms, before, self._book.masters(), context)
            try:
                made = self._wrapped(secret, context, before, names)
            finally:
                secret.wipe()
            with self._book.write() as change:
                if self._book.wraps(INTEGRITY_NS, 1) == before:
                    change.put_wraps(INTEGRITY_NS, 1, made, now_us())
                    return
        raise ConflictError("another process wraps the integrity key all the time")

    def _versions(self, ns: int) -> list[NamespaceRow]:
        """Every version of a namespace key that is neither destroyed nor about to be: without a wrap."""
        found = self._book.rows(
            "SELECT DISTINCT version FROM namespace_keys JOIN wraps USING (ns, version) WHERE ns = ?1 "
            "ORDER BY version",
            (ns,),
        )
        rows = [self._book.namespace_row(ns, version) for (version,) in found]
        return [row for row in rows if row is not None and row.state != KeyState.DESTROYED]

    def _anew(self, row: NamespaceRow, wraps: Sequence[WrapRow], names: Sequence[str] | None) -> list[Wrap]:
        context = namespace_context(self._book, row)
        secret = unwrap_first(self._kms, wraps, self._book.masters(), context)
        try:
            return self._wrapped(secret, context, wraps, names)
        finally:
            secret.wipe()

    def _wrapped(
        self,
        secret: SecretKey,
        context: Mapping[str, str],
        wraps: Sequence[WrapRow],
        names: Sequence[str] | None,
    ) -> list[Wrap]:
        masters = self._book.masters()
        chosen = names_of(self._kms, wraps, masters) if names is None else names
        made = wrap_all(self._kms, chosen, secret, context, registered=masters.values())
        prove(self._kms, made, secret, context)
        return made
