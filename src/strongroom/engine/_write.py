"""store, update, delete: authorize, seal, commit with the audit entry, then project. Many: ``_bulk``."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from strongroom.engine._call import Call
from strongroom.engine._payload import MemoryPayload, decode_memory, encode, encode_vector, to_memory
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._single import admit, admit_new, facts_in, shown
from strongroom.engine._validate import (
    check_count,
    check_draft,
    check_id,
    patched,
)
from strongroom.engine._vectors import check_vector
from strongroom.errors import (
    DuplicateMemoryError,
    IntegrityError,
    KeyManagementError,
    MemoryNotFoundError,
    VersionConflictError,
)
from strongroom.keyring import DataKey
from strongroom.ledger import Put, QueueItem, WriteBatch
from strongroom.model import Action, Field, Memory, MemoryDraft, MemoryPatch, SealedRecord, State
from strongroom.model.memory import Unset, with_metadata
from strongroom.model.rows import WHOLE, Reach
from strongroom.pages import overwrite
from strongroom.recall import Remove, VectorPut

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_RETRIES = 8
_ALONE_CHARS_MIN = 16_384  # of a content: some 20 us to encode and seal, as long as all the rest
_UNCHANGING = (str, int, float, type(None))


Sealed = tuple[list[list[bytes]], int]  # the rows of each memory, its own first; bytes of the memories


@dataclass(slots=True)
class Prepared:
    entry: NamespaceEntry
    memory_id: bytes
    payload: MemoryPayload
    vector: NDArray[np.float32] | None
    version: int = 1  # above that of a tombstone, when the id was used before
    content_version: int = 1


def store(call: Call, draft: MemoryDraft) -> Memory:
    engine = call.engine
    call.relies_on = call.known
    prepared = prepare(call, draft, {})
    if draft.memory_id is not None:
        succeed(prepared, engine.ledger.get(prepared.entry.ns, prepared.memory_id))
    entry = prepared.entry
    call.namespaces = (entry.name,)
    call.memory_ids = (prepared.memory_id,)
    call.count = 1
    key = engine.vault.data_key(entry.ns, prepared.payload.subject)
    call.about(entry, (prepared.payload.subject,), create=True)
    engine.vault.keyring.require_usable(entry.ns)  # who leads a group must not wait for a KMS on our behalf
    sealing = _Sealing(call, prepared, key)
    batch = WriteBatch(relies_on=call.relies_on, filling=sealing)
    if len(prepared.payload.content) > _ALONE_CHARS_MIN:  # nor anybody in the group for so much of ours
        if error := sealing.fill((batch,))[0]:
            raise error
        batch.filling = None
    seqs = iter(call.commit(batch))
    memory = made(prepared)
    project_new(engine, (prepared,), seqs, (memory,))
    return memory


@dataclass(slots=True)
class _Sealing:
    """A new memory that is authorized and checked, to be sealed by whoever leads its group.

    Python runs on one thread at a time. Eight callers that each seal their own hand it, and what lies in the
    caches of a processor, from one to the next; one of them that seals for all does not (ADR 24).
    """

    call: Call
    prepared: Prepared
    key: DataKey

    def fill(self, batches: Sequence[WriteBatch]) -> list[Exception | None]:
        """See ``Filling``: each caller gets its own rows, audit entry and error."""
        found = [cast(_Sealing, batch.filling) for batch in batches]
        error = _sealed_into(batches, found)
        if error is None or len(batches) == 1:
            return [error] * len(batches)
        return [_sealed_into((b,), (f,)) for b, f in zip(batches, found, strict=True)]


def _sealed_into(batches: Sequence[WriteBatch], found: Sequence[_Sealing]) -> Exception | None:
    """Put what is sealed into the batches, before what is in them; all or none of it. None: it is done."""
    engine = found[0].call.engine
    try:
        sealed, size = seal_new(engine, [f.prepared for f in found], [f.key for f in found])
        made = [
            new_batch(f.call, [f.prepared], [f.key], ([rows], 0))
            for f, rows in zip(found, sealed, strict=True)
        ]
    except Exception as e:  # noqa: BLE001 (whatever it is: it is told to its caller, and to nobody else)
        return e
    for batch, own in zip(batches, made, strict=True):
        batch.puts[:0] = own.puts
        batch.enqueue, batch.audit, batch.settings = own.enqueue, own.audit, own.settings
    engine.metrics.sealed_bytes.inc(size)
    return None


def fresh_id() -> bytes:
    """A new memory id: RFC 9562, version 4."""
    b = bytearray(os.urandom(16))
    b[6] = (b[6] & 0x0F) | 0x40
    b[8] = (b[8] & 0x3F) | 0x80
    return bytes(b)


def prepare(
    call: Call,
    draft: MemoryDraft,
    entries: dict[str, NamespaceEntry],
    new_id: Callable[[], bytes] = fresh_id,
    unit_vector: Callable[[object, int], NDArray[np.float32]] = check_vector,
) -> Prepared:
    """Check a draft and find its namespace; ``entries`` are those already authorized and found.

    ``new_id``: makes one for a draft without. What there is under an id that was given, ``succeed`` asks.
    ``unit_vector``: is given the vector last, and may leave it to be made one later.
    """
    engine = call.engine
    entry = entries.get(draft.namespace) if isinstance(draft.namespace, str) else None
    namespace, payload = check_draft(
        draft, engine.config.limits, engine.now_us(), namespace_known=entry is not None
    )
    reach = call.require(Action.STORE, namespace) if entry is None else call.reaches.get(entry.ns, WHOLE)
    memory_id = new_id() if draft.memory_id is None else check_id(draft.memory_id)
    if not reach.is_whole:
        admit_new(call, Action.STORE, namespace, facts_in(payload, memory_id), reach)
    if entry is None:
        entry = entries[namespace] = engine.namespace_for_store(call, namespace)
        call.reaches[entry.ns] = reach
    vector = None
    if draft.embedding is not None:
        vector = unit_vector(draft.embedding, engine.models.dimensions(entry))
    return Prepared(entry, memory_id, payload, vector)


def former_rows(engine: Engine, prepared: Iterable[Prepared]) -> dict[tuple[int, bytes], SealedRecord]:
    """The rows, tombstones among them, that stand where new memories are to be, by namespace and id."""
    wanted: dict[int, list[bytes]] = {}
    for p in prepared:
        wanted.setdefault(p.entry.ns, []).append(p.memory_id)
    found: dict[tuple[int, bytes], SealedRecord] = {}
    for ns, ids in wanted.items():
        rows = engine.ledger.get_parts(ns, ids, (Field.MEMORY,))
        found.update(((ns, row.memory_id), row) for row in rows)
    return found


def succeed(p: Prepared, former: SealedRecord | None) -> None:
    """Have a new memory follow what there was under its id.

    Raises:
        DuplicateMemoryError: there is a memory.
    """
    if former is None:
        return
    if former.state == State.LIVE:
        raise DuplicateMemoryError
    p.version, p.content_version = former.version + 1, former.content_version + 1


def commit_made(call: Call, batch: WriteBatch, sealed_rows: Sealed) -> list[int]:
    seqs = call.commit(batch)
    call.engine.metrics.sealed_bytes.inc(sealed_rows[1])
    return seqs


def new_batch(call: Call, prepared: list[Prepared], keys: list[DataKey], sealed_rows: Sealed) -> WriteBatch:
    """What to commit for new memories: their rows, their places in the queue, the audit entry."""
    models = call.engine.models
    batch = WriteBatch(audit=call.audit_ok(), relies_on=call.relies_on)
    batch.settings = {p.entry.seq for p in prepared}
    puts = batch.puts
    memory_field, live = int(Field.MEMORY), int(State.LIVE)
    for p, key, sealed in zip(prepared, keys, sealed_rows[0], strict=True):
        ns, memory_id, version, content_version = p.entry.ns, p.memory_id, p.version, p.content_version
        puts.append(
            Put(
                ns,
                memory_id,
                memory_field,
                version,
                content_version,
                key.key_id,
                live,
                0,
                sealed[0],
                version - 1,
            )
        )
        if p.vector is not None:
            puts.append(_vector_row(p.entry, key, memory_id, content_version, sealed[1]))
        elif models.embeds(p.entry):
            batch.enqueue.append(QueueItem(ns, memory_id, content_version))
    return batch


def seal_new(engine: Engine, prepared: list[Prepared], keys: list[DataKey]) -> Sealed:
    """The sealed rows of each memory, its own first, and how many bytes of memories they hold.

    What goes under one key is sealed together.
    """
    started = perf_counter()
    groups: list[tuple[DataKey, str, list[tuple[bytes, int, int, bytes]]]] = []
    by_key: dict[int, list[tuple[bytes, int, int, bytes]]] = {}  # the rows of each key
    size = 0
    scrap: list[bytes] = []  # encoded memories of namespaces sealed in memory, to be overwritten
    memory_field, vector_field = int(Field.MEMORY), int(Field.VECTOR)
    for p, key in zip(prepared, keys, strict=True):
        entry, memory_id, content_version = p.entry, p.memory_id, p.content_version
        rows = by_key.get(key.key_id)
        if rows is None:
            rows = by_key[key.key_id] = []
            groups.append((key, entry.tenant, rows))
        raw = encode(p.payload)
        size += len(raw)
        if entry.sealed:
            scrap.append(raw)
        rows.append((memory_id, memory_field, p.version, raw))
        if p.vector is not None:
            raw = encode_vector(p.vector, content_version, entry.model_no)
            rows.append((memory_id, vector_field, content_version, raw))
    made = {
        key.key_id: iter(sealed)
        for (key, _, _), sealed in zip(groups, engine.vault.seal_rows(groups), strict=True)
    }
    for _, _, rows in groups:  # what is overwritten below lies nowhere else
        rows.clear()
    sealed_rows: list[list[bytes]] = []
    for p, key in zip(prepared, keys, strict=True):
        own = made[key.key_id]
        sealed_rows.append([next(own)] if p.vector is None else [next(own), next(own)])
    raw = b""
    while scrap:
        overwrite(scrap.pop())
    engine.metrics.step("seal", perf_counter() - started)
    return sealed_rows, size


def made(p: Prepared) -> Memory:
    """The memory as it is answered."""
    return to_memory(p.payload, p.memory_id, p.entry.name, p.version, has_embedding=p.vector is not None)


def project_new(
    engine: Engine, prepared: Sequence[Prepared], seqs: Iterator[int], memories: Sequence[Memory] = ()
) -> None:
    """Tell the indexes and the pipeline of memories that are durable; without ``memories`` they are made
    where they are needed."""
    loaded: dict[int, bool] = {}  # of a namespace that is not, a load from now on will read them
    for place, p in enumerate(prepared):
        entry, seq = p.entry, next(seqs)
        is_loaded = loaded.get(entry.ns)
        if is_loaded is None:
            is_loaded = loaded[entry.ns] = engine.indexes.is_loaded(entry.ns)
        if is_loaded:
            own = _own_copy(memories[place]) if memories else made(p)
            engine.indexes.offer_memory(entry, own, seq, p.content_version)
        if p.vector is None:
            engine.models.offer(entry, p.memory_id, p.content_version)
            continue
        seq = next(seqs)
        if is_loaded:
            engine.indexes.offer(entry.ns, VectorPut(p.memory_id, p.content_version, p.vector, seq))


def _own_copy(memory: Memory) -> Memory:
    """For the projection: what the caller does to the metadata of an answer does not reach it."""
    if not memory.metadata:
        return memory
    own = {k: v if isinstance(v, _UNCHANGING) else copy.deepcopy(v) for k, v in memory.metadata.items()}
    return with_metadata(memory, own)


def update(
    call: Call, memory_id: object, namespace: object, patch: MemoryPatch, expected: int | None
) -> Memory:
    engine = call.engine
    entry, raw_id, reach = _target(call, Action.UPDATE, memory_id, namespace)
    if expected is not None:
        check_count(expected, "expected_version", 1, 2**31)
    for _ in range(_RETRIES):
        row = engine.live_row(entry, raw_id)
        if row is None:
            raise MemoryNotFoundError
        row = admit(call, Action.UPDATE, entry, row, reach)
        if expected is not None and row.version != expected:
            raise VersionConflictError
        try:
            return _update_once(call, entry, row, patch, reach)
        except (VersionConflictError, DuplicateMemoryError):
            if expected is not None:
                raise VersionConflictError from None
    raise VersionConflictError


def _update_once(
    call: Call, entry: NamespaceEntry, row: SealedRecord, patch: MemoryPatch, reach: Reach
) -> Memory:
    engine = call.engine
    old = decode_memory(engine.vault.open(entry.tenant, row))
    if old.expires_us is not None and old.expires_us <= engine.now_us():
        raise MemoryNotFoundError  # as get says: what has expired does not come back
    payload = patched(old, patch, engine.config.limits, engine.now_us())
    facts = facts_in(payload, row.memory_id)
    admit_new(call, Action.UPDATE, entry.name, facts, reach)
    given = None if isinstance(patch.embedding, Unset) or patch.embedding is None else patch.embedding
    vector = None if given is None else check_vector(given, engine.models.dimensions(entry))
    new_content = payload.content != old.content
    content_version = row.content_version + (1 if new_content or vector is not None else 0)
    version = row.version + 1
    key = engine.vault.data_key(entry.ns, payload.subject)
    call.forget_subjects()
    call.about(entry, (payload.subject,), create=True)
    call.count = 1
    live, memory_id = int(State.LIVE), row.memory_id
    raw = encode(payload)
    sealed = engine.vault.seal(key, entry.tenant, memory_id, Field.MEMORY, version, raw)
    if entry.sealed:
        overwrite(raw)
    batch = WriteBatch(audit=call.audit_ok(), settings={entry.seq})
    batch.puts.append(
        Put(
            entry.ns,
            memory_id,
            int(Field.MEMORY),
            version,
            content_version,
            key.key_id,
            live,
            0,
            sealed,
            row.version,
        )
    )
    if vector is not None:
        batch.puts.append(vector_put(engine, entry, key, memory_id, content_version, vector))
        batch.dequeue.append(QueueItem(entry.ns, memory_id, row.content_version))
    elif new_content and engine.models.embeds(entry):
        batch.enqueue.append(QueueItem(entry.ns, memory_id, content_version))
    embedded = vector is not None or (
        not new_content and engine.has_vector(entry, memory_id, content_version)
    )
    access = engine.access_stats.get(entry, memory_id)
    memory = to_memory(payload, memory_id, entry.name, version, has_embedding=embedded, access=access)
    answer = shown(call, memory, facts)
    seqs = call.commit(batch)  # what comes behind it must not fail: the caller would not know that it is done
    engine.indexes.offer_memory(entry, _own_copy(memory), seqs[0], content_version)
    if vector is not None:
        engine.indexes.offer(entry.ns, VectorPut(memory_id, content_version, vector, seqs[1]))
    if new_content and vector is None:
        engine.models.offer(entry, memory_id, content_version)
    return answer


def vector_put(
    engine: Engine,
    entry: NamespaceEntry,
    key: DataKey,
    memory_id: bytes,
    content_version: int,
    vector: NDArray[np.float32],
    *,
    from_queue: bool = False,
) -> Put:
    """The sealed vector row of a memory's content; its version is the content's."""
    raw = encode_vector(vector, content_version, entry.model_no)
    sealed = engine.vault.seal(key, entry.tenant, memory_id, Field.VECTOR, content_version, raw)
    return _vector_row(entry, key, memory_id, content_version, sealed, from_queue=from_queue)


def _vector_row(
    entry: NamespaceEntry,
    key: DataKey,
    memory_id: bytes,
    content_version: int,
    sealed: bytes,
    *,
    from_queue: bool = False,
) -> Put:
    return Put(
        entry.ns,
        memory_id,
        int(Field.VECTOR),
        content_version,
        content_version,
        key.key_id,
        int(State.LIVE),
        entry.model_no,
        sealed,
        -1,
        from_queue,
    )


def delete(call: Call, memory_id: object, namespace: object) -> bool:
    engine = call.engine
    entry, raw_id, reach = _target(call, Action.DELETE, memory_id, namespace, missing_ok=True)
    if entry is None:
        return False
    for _ in range(_RETRIES):
        row = engine.live_row(entry, raw_id)
        if row is None:
            return False
        try:
            row = admit(call, Action.DELETE, entry, row, reach)
        except MemoryNotFoundError:
            if call.concealed:
                call.details["answered"] = "ok"
            return False
        call.count = 1
        call.about(entry, (_subject_of(engine, entry, row),))
        put = Put(
            entry.ns, raw_id, int(Field.MEMORY), row.version + 1, row.content_version, row.key_id,
            int(State.TOMBSTONE), 0, b"", row.version,
        )  # fmt: skip
        try:
            seqs = call.commit_standing(WriteBatch(puts=[put], audit=call.audit_ok()))
        except VersionConflictError:
            continue
        call.written = True
        engine.access_stats.forget(entry.ns, raw_id)
        engine.indexes.offer(entry.ns, Remove(raw_id, seqs[0]))
        return True
    raise VersionConflictError


def _subject_of(engine: Engine, entry: NamespaceEntry, row: SealedRecord) -> str | None:
    """For the audit entry; a row that does not open can still be deleted."""
    try:
        return decode_memory(engine.vault.open(entry.tenant, row)).subject
    except (IntegrityError, KeyManagementError):
        return None


def _target(
    call: Call, action: Action, memory_id: object, namespace: object, *, missing_ok: bool = False
) -> tuple[Any, bytes, Reach]:
    """The entry of a granted namespace, the id's bytes, and how far the grant reaches into the namespace.

    A namespace that is not there has no memories.
    """
    from strongroom.model import check_namespace

    name = check_namespace(namespace)
    reach = call.require(action, name)
    raw_id = check_id(memory_id)
    call.namespaces = (name,)
    call.memory_ids = (raw_id,)
    call.engine.registry.refresh()
    entry = call.engine.registry.get(name)
    if entry is None and not missing_ok:
        raise MemoryNotFoundError
    return entry, raw_id, reach
