"""Names of data subjects for the audit log: random, and gone with the subject's key (spec/audit-entry.md).

A pseudonym is eight random bytes in a sealed row of its own (field 3) under the subject's data key. Whoever
may read the log and holds the key can tell which entries are about a person; once the key is destroyed
nobody can, whatever they know of the person, and the entries stay as they are. Re-encryption moves the row
like any other, so a pseudonym outlives the rotation of its key.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Final

from strongroom.engine._registry import NamespaceEntry
from strongroom.errors import DuplicateMemoryError, IntegrityError, KeyStateError, VersionConflictError
from strongroom.ledger import Put, WriteBatch
from strongroom.model import Field, SealedRecord, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

BYTES: Final = 8
_ID_BYTES: Final = 16
_CACHED_MAX: Final = 65_536
_TRIES: Final = 8


class Pseudonyms:
    """The pseudonyms of one store. Thread-safe; two processes give a subject the same one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._generation = -1  # of the keyring, when ``_known`` was right
        self._lock = Lock()

    def of(self, entry: NamespaceEntry, subjects: Collection[str], *, create: bool) -> list[bytes]:
        """The pseudonym of each subject of a namespace, 8 bytes each.

        With ``create`` a subject without one gets one; otherwise it is left out, and so is a subject whose
        key was destroyed or disabled.

        Raises:
            IntegrityError: a row is not what this store sealed. StorageError, KeyManagementError.
        """
        self._renew()
        known = self._known
        missing = [s for s in dict.fromkeys(subjects) if (entry.ns, s) not in known]
        for _ in range(_TRIES):
            if not missing:
                break
            missing = self._fetch(entry, missing, create=create)
            if not create:
                break
        return [p for s in dict.fromkeys(subjects) if (p := known.get((entry.ns, s)))]

    def _fetch(self, entry: NamespaceEntry, subjects: list[str], *, create: bool) -> list[str]:
        """Take in what the ledger holds of them, and make the others; those that have to be asked again."""
        ids = {s: self._engine.vault.blinded_subject(entry.ns, s)[:_ID_BYTES] for s in subjects}
        rows = {
            r.memory_id: r for r in self._engine.ledger.get_many(entry.ns, list(ids.values()), Field.SUBJECT)
        }
        wanting: list[tuple[str, int]] = []
        for subject in subjects:
            row = rows.get(ids[subject])
            found = None if row is None else self._open(entry, row)
            if found is None:
                wanting.append((subject, 0 if row is None else row.version))
            else:
                self._keep(entry.ns, subject, found)
        if not create or not wanting:
            return []
        try:
            self._make(entry, wanting, ids)
        except (DuplicateMemoryError, VersionConflictError):
            return [s for s, _ in wanting]  # another process was first: theirs counts
        return []

    def _open(self, entry: NamespaceEntry, row: SealedRecord) -> bytes | None:
        if row.state != State.LIVE:
            return None
        try:
            raw = self._engine.vault.open(entry.tenant, row)
        except KeyStateError:
            return None  # the subject was erased, or its key is disabled
        if len(raw) != BYTES:
            raise IntegrityError("the pseudonym of a data subject is not of its form")
        return raw

    def _make(self, entry: NamespaceEntry, wanting: Iterable[tuple[str, int]], ids: dict[str, bytes]) -> None:
        vault = self._engine.vault
        made: dict[str, bytes] = {}
        batch = WriteBatch()
        for subject, version in wanting:
            key = vault.data_key(entry.ns, subject)
            made[subject] = os.urandom(BYTES)
            sealed = vault.seal(key, entry.tenant, ids[subject], Field.SUBJECT, version + 1, made[subject])
            batch.puts.append(
                Put(
                    entry.ns,
                    ids[subject],
                    int(Field.SUBJECT),
                    version + 1,
                    version + 1,
                    key.key_id,
                    int(State.LIVE),
                    0,
                    sealed,
                    version,
                )
            )
        self._engine.ledger.commit(batch)
        for subject, raw in made.items():
            self._keep(entry.ns, subject, raw)

    def _keep(self, ns: int, subject: str, pseudonym: bytes) -> None:
        with self._lock:
            self._known[(ns, subject)] = pseudonym
            while len(self._known) > _CACHED_MAX:
                self._known.popitem(last=False)

    def _renew(self) -> None:
        """Forget everything when a key has changed its state: no pseudonym outlives its key here."""
        generation = self._engine.vault.keyring.generation
        if generation != self._generation:
            with self._lock:
                self._known.clear()
                self._generation = generation
