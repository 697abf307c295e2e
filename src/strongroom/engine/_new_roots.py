"""Another purpose root for a namespace, and everything that hung on the one before (spec/rotation.md).

Three durable steps, each of which may be taken again: the keyring gets the root and blinds its subjects
anew; the ledger, in one transaction, gets a head under it and the ids that are keyed hashes; what hung on the
root before nowhere else is thrown away (indexes, snapshots, tokens) or revoked (API keys). Last the root
before is destroyed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from strongroom.access import decode_certificate, decode_elevation, decode_revocation
from strongroom.crypto import SealContext
from strongroom.engine._payload import PAYLOAD_SCHEMA, ModelPayload, NamespacePayload, decode_as
from strongroom.engine._pseudonyms import BYTES as PSEUDONYM_BYTES
from strongroom.engine._registry import MODEL_NUMBER, NAMESPACE_NAME, identity_label, row_id
from strongroom.engine._vault import SYSTEM_NS, SealedOf
from strongroom.errors import (
    ConflictError,
    DecryptionError,
    KeyMovedError,
    KeyStateError,
    NotFoundError,
    TamperedError,
)
from strongroom.keyring import KeyNote, Noted
from strongroom.ledger import RebaseRow, Renamed, root_of_head
from strongroom.model import Field, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_ID_BYTES: Final = 16
_TRIES: Final = 8

_NAMES: Final[dict[int, tuple[str, Callable[[bytes], str]]]] = {
    Field.NAMESPACE: (NAMESPACE_NAME, lambda raw: decode_as(NamespacePayload, raw).name),
    Field.MODEL: (MODEL_NUMBER, lambda raw: str(decode_as(ModelPayload, raw).model_no)),
    Field.CERTIFICATE: (identity_label(Field.CERTIFICATE), lambda raw: decode_certificate(raw).identity),
    Field.REVOCATION: (identity_label(Field.REVOCATION), lambda raw: decode_revocation(raw).serial),
    Field.ELEVATION: (identity_label(Field.ELEVATION), lambda raw: decode_elevation(raw).id),
}
"""Rows of the system namespace that are found by a keyed hash: of what, and under which label."""


_MOVED: Final = "head moved"  # in the history of keys: the ledger has followed to that root


class RootRenewed(NamedTuple):
    """How many data keys have another blinded subject, how many rows of the ledger another id, and how many
    pseudonyms did not open and were drawn anew."""

    reblinded: int
    renamed: int
    drawn: int


def renew(engine: Engine, ns: int, note: KeyNote) -> RootRenewed:
    """Give a namespace another purpose root; goes on with one that was begun and did not come to its end.

    Raises:
        TamperedError: its rows do not match its head, so none is made for them; or its head is one of before
        the change. KeyManagementError, StorageError: repeat it, it goes on. ConflictError: other processes do
        the same all the time.
    """
    keyring, reblinded = engine.vault.keyring, 0
    keyring.refresh()
    for _ in range(_TRIES):
        if is_between(engine, ns):
            break  # begun before
        try:
            reblinded = keyring.renew_root(ns, note).reblinded
            break
        except KeyMovedError:
            keyring.refresh()
    else:
        raise ConflictError("other processes make new roots all the time")
    drawn: list[bytes] = []
    renamer = _system_renamer(engine) if ns == SYSTEM_NS else _subject_renamer(engine, ns, drawn)
    root = keyring.root(ns)
    renamed = engine.ledger.rebase(ns, partial(engine.heads.rebase, ns, root, renamer))
    keyring.note("data", _MOVED, ns, (keyring.root_key_id(ns, root),), note)
    if ns != SYSTEM_NS:
        engine.indexes.drop(ns)
    return RootRenewed(reblinded, renamed, len(drawn))


def is_between(engine: Engine, ns: int) -> bool:
    """Whether the keyring has another root and the ledger has not followed yet.

    Raises:
        TamperedError: it had followed, and a head of before stands there again.
    """
    keyring = engine.vault.keyring
    root = keyring.root(ns)
    if root == root_of_head(engine.ledger.head(ns)[1]):
        return False
    key_id = keyring.root_key_id(ns, root)
    if any(e.event.change == _MOVED for e in keyring.history("data", ns, key_id)):
        raise TamperedError(
            "a head under a purpose root that was left was put in the place of the present one"
        )
    return True


def end(
    engine: Engine,
    ns: int,
    note: KeyNote,
    *,
    cut: bool = True,
    noted: Noted | None = None,
) -> int:
    """Destroy the roots before, once nothing hangs on them any more; how many. ``cut``, ``noted``: as
    ``Keyring.end_roots``.

    Raises:
        TamperedError: as ``is_between``.
    """
    is_between(engine, ns)
    keep = root_of_head(engine.ledger.head(ns)[1])
    return engine.vault.keyring.end_roots(ns, keep, note, cut=cut, noted=noted)


def _subject_renamer(
    engine: Engine, ns: int, drawn: list[bytes]
) -> Callable[[RebaseRow, SealedOf], Renamed | None]:
    """Pseudonyms of data subjects are found by the beginning of the blinded subject. One whose bytes were
    damaged is drawn anew: nothing opens it any more, and under the exposed key it may not stay."""
    keyring, tenant = engine.vault.keyring, engine.heads.tenant(ns)
    subjects: dict[int, bytes | None] = {}

    def rename(row: RebaseRow, sealed_of: SealedOf) -> Renamed | None:
        if row.field != Field.SUBJECT or row.state != State.LIVE:
            return None
        if row.key_id not in subjects:
            subjects.update({k.key_id: k.subject for k in keyring.list_keys(ns)})
        subject = subjects.get(row.key_id)
        if subject is None or row.memory_id == subject[:_ID_BYTES]:
            return None
        try:
            return _moved(engine, tenant, ns, row, subject[:_ID_BYTES], sealed_of(row.id))
        except DecryptionError:
            key, memory_id = keyring.sealing_key(row.key_id), subject[:_ID_BYTES]
            drawn.append(memory_id)
            fresh = key.seal(_context(tenant, ns, row, memory_id), os.urandom(PSEUDONYM_BYTES))
            return Renamed(row.id, memory_id, key.key_id, fresh)

    return rename


def _system_renamer(engine: Engine) -> Callable[[RebaseRow, SealedOf], Renamed | None]:
    """Names of namespaces, numbers of models, identities: found by a keyed hash of what they hold."""
    vault, tenant = engine.vault, engine.heads.tenant(SYSTEM_NS)
    root = vault.keyring.root(SYSTEM_NS)

    def rename(row: RebaseRow, sealed_of: SealedOf) -> Renamed | None:
        found = _NAMES.get(row.field)
        if found is None or row.state != State.LIVE:
            return None
        label, name_of = found
        sealed = sealed_of(row.id)
        raw = vault.keyring.open_record(row.key_id, _context(tenant, SYSTEM_NS, row, row.memory_id), sealed)
        memory_id = row_id(vault, root, label, name_of(raw))
        return _moved(engine, tenant, SYSTEM_NS, row, memory_id, sealed)

    return rename


def _moved(engine: Engine, tenant: str, ns: int, row: RebaseRow, memory_id: bytes, sealed: bytes) -> Renamed:
    """The row under another id. One whose key is gone keeps its bytes: nothing opens them, here or there."""
    keyring = engine.vault.keyring
    try:
        raw = keyring.open_record(row.key_id, _context(tenant, ns, row, row.memory_id), sealed)
        key = keyring.sealing_key(row.key_id)
    except (KeyStateError, NotFoundError):
        return Renamed(row.id, memory_id, row.key_id, sealed)
    return Renamed(row.id, memory_id, key.key_id, key.seal(_context(tenant, ns, row, memory_id), raw))


def _context(tenant: str, ns: int, row: RebaseRow, memory_id: bytes) -> SealContext:
    return SealContext(tenant, ns, memory_id, row.field, row.version, PAYLOAD_SCHEMA)
