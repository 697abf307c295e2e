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
from typing import TYPE_CHECKING, Final, NamedTuple

from strongroom.engine._registry import NamespaceEntry
from strongroom.errors import (
    DuplicateMemoryError,
    IntegrityError,
    KeyMovedError,
    KeyStateError,
    VersionConflictError,
)
from strongroom.ledger import Put, WriteBatch, root_of_head
from strongroom.model import Field, SealedRecord, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

BYTES: Final = 8
_ID_BYTES: Final = 16
_CACHED_MAX: Final = 65_536
_TRIES: Final = 8


class PseudonymDraft(NamedTuple):
    """A pseudonym that was made and is not committed yet."""

    ns: int
    subject: str
    pseudonym: bytes
    root: int  # the number of the purpose root that the id of the row hangs on
    put: Put


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
        known = self._known
        missing = self._missing(entry, subjects)
        for _ in range(_TRIES):
            if not missing:
                break
            wanting = self._fetch(entry, missing)
            if not create or not wanting:
                break
            made = self._make(entry, wanting)
            try:
                self._engine.ledger.commit(
                    WriteBatch(puts=[draft.put for draft in made], roots={d.ns: d.root for d in made})
                )
            except (DuplicateMemoryError, VersionConflictError):
                missing = [s for s, _ in wanting]  # another process was first: theirs counts
                continue
            except KeyMovedError:  # and with it perhaps the root that the ids hang on
                self._engine.vault.keyring.refresh()
                missing = [s for s, _ in wanting]
                continue
            self.keep(made)
            break
        return [p for s in dict.fromkeys(subjects) if (p := known.get((entry.ns, s)))]

    def drafted(
        self, entry: NamespaceEntry, subjects: Collection[str]
    ) -> tuple[list[bytes], list[PseudonymDraft]]:
        """The pseudonym of each subject, and those of them that were made just now.

        They are to be committed together with what they were made for, and kept (``keep``) afterwards. The
        commit fails when somebody else has made one for the same subject meanwhile.

        Raises:
            As ``of``.
        """
        missing = self._missing(entry, subjects)
        wanting = self._fetch(entry, missing) if missing else []
        made = self._make(entry, wanting) if wanting else []
        fresh = {draft.subject: draft.pseudonym for draft in made}
        known = self._known
        found = [p for s in dict.fromkeys(subjects) if (p := fresh.get(s) or known.get((entry.ns, s)))]
        return found, made

    def _missing(self, entry: NamespaceEntry, subjects: Collection[str]) -> list[str]:
        self._renew()
        known, ns = self._known, entry.ns
        return [s for s in dict.fromkeys(subjects) if (ns, s) not in known]

    def _fetch(self, entry: NamespaceEntry, subjects: list[str]) -> list[tuple[str, int]]:
        """Take in what the ledger holds of them; those without one, and the version of their row or 0."""
        root = self._root(entry.ns)
        ids = {s: self._id(entry.ns, s, root) for s in subjects}
        rows = {
            r.memory_id: r
            for r in self._engine.ledger.get_parts(entry.ns, list(ids.values()), (Field.SUBJECT,))
        }
        wanting: list[tuple[str, int]] = []
        for subject in subjects:
            row = rows.get(ids[subject])
            found = None if row is None else self._open(entry, row)
            if found is None:
                wanting.append((subject, 0 if row is None else row.version))
            else:
                self._keep(entry.ns, subject, found)
        return wanting

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

    def _make(self, entry: NamespaceEntry, wanting: Iterable[tuple[str, int]]) -> list[PseudonymDraft]:
        vault, ns = self._engine.vault, entry.ns
        root = self._root(ns)
        made: list[PseudonymDraft] = []
        for subject, before in wanting:
            key = vault.data_key(ns, subject)
            pseudonym, version, row_id = os.urandom(BYTES), before + 1, self._id(ns, subject, root)
            field, live = int(Field.SUBJECT), int(State.LIVE)
            sealed = vault.seal(key, entry.tenant, row_id, field, version, pseudonym)
            put = Put(ns, row_id, field, version, version, key.key_id, live, 0, sealed, before)
            made.append(PseudonymDraft(ns, subject, pseudonym, root, put))
        return made

    def _root(self, ns: int) -> int:
        return root_of_head(self._engine.ledger.head(ns)[1])

    def _id(self, ns: int, subject: str, root: int) -> bytes:
        return self._engine.vault.blinded_subject(ns, subject, root)[:_ID_BYTES]

    def keep(self, made: Iterable[PseudonymDraft]) -> None:
        """Remember what was committed."""
        for draft in made:
            self._keep(draft.ns, draft.subject, draft.pseudonym)

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
