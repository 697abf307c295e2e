"""Rows of the ledger as changes of an index."""

from __future__ import annotations

from strongroom.engine._payload import AccessPayload, decode_as, decode_memory, decode_vector, to_memory
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._sealed import hollow
from strongroom.engine._vault import Vault
from strongroom.model import Field, Memory, SealedRecord, State
from strongroom.pages import overwrite
from strongroom.recall import AccessPut, Change, NamespaceIndex, Remove, Upsert, VectorPut


def change_of(vault: Vault, index: NamespaceIndex, entry: NamespaceEntry, row: SealedRecord) -> Change | None:
    """What a row of the ledger means for the index of its namespace; None: nothing.

    Raises:
        IntegrityError, KeyStateError: it does not open.
    """
    if row.field == Field.MEMORY:
        if row.state == State.TOMBSTONE:
            return Remove(row.memory_id, row.seq)
        raw = vault.open(entry.tenant, row)
        payload = decode_memory(raw)
        if entry.sealed:
            overwrite(raw)
        memory = to_memory(payload, row.memory_id, entry.name, row.version)
        return upsert_of(index, entry, memory, row.seq, row.content_version)
    if row.field == Field.VECTOR and row.state == State.LIVE and row.model == entry.model_no:
        vector, content_version, model_no = decode_vector(vault.open(entry.tenant, row))
        if model_no == entry.model_no and content_version == row.content_version:
            return VectorPut(row.memory_id, content_version, vector, row.seq)
    if row.field == Field.ACCESS and row.state == State.LIVE:
        counted = decode_as(AccessPayload, vault.open(entry.tenant, row))
        return AccessPut(row.memory_id, counted.count, counted.last_us, row.seq)
    return None


def upsert_of(
    index: NamespaceIndex, entry: NamespaceEntry, memory: Memory, seq: int, content_version: int
) -> Upsert:
    """The change for a memory; of a sealed namespace only its blinded terms and other columns go along."""
    if not entry.sealed:
        return Upsert(memory, seq, content_version)
    return Upsert(hollow(memory), seq, content_version, index.keywords.blinded(memory.content))
