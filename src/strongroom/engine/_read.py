"""get and list: open only what is returned, to someone allowed to read it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from strongroom import access
from strongroom.engine._call import Call
from strongroom.engine._decide import decide
from strongroom.engine._payload import decode_memory, to_memory
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._sealed import refuse_filter
from strongroom.engine._single import admit, admit_reading, hidden_memory
from strongroom.engine._validate import check_count, check_id, check_text
from strongroom.errors import (
    AccessDeniedError,
    ClosedError,
    DecryptionError,
    InvalidInputError,
    KeyStateError,
    LimitExceededError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    StorageBusyError,
    TamperedError,
)
from strongroom.model import (
    Action,
    Field,
    Filter,
    ListPage,
    Memory,
    Notice,
    SealedRecord,
    State,
    check_namespace,
)
from strongroom.model.rows import Reach
from strongroom.pages import overwrite
from strongroom.recall import NamespaceIndex

_CURSOR = struct.Struct(">Bq16s")  # version, created_us, memory_id
_MEMORY, _ACCESS = int(Field.MEMORY), int(Field.ACCESS)
PURPOSE_BYTES_MAX = 200
ATTEMPTS = 50  # each repeats only because something was written in between


def get(call: Call, memory_id: object, namespace: object) -> Memory:
    engine = call.engine
    name = check_namespace(namespace)
    reach = call.require(Action.READ, name)
    raw_id = check_id(memory_id)
    call.namespaces, call.memory_ids = (name,), (raw_id,)
    engine.registry.refresh()
    entry = engine.registry.get(name)
    row = None if entry is None else engine.live_row(entry, raw_id)
    if row is None or entry is None:
        raise MemoryNotFoundError
    if not reach.is_whole:
        row, hidden = admit_reading(call, entry, row, reach)
        if hidden is not None:
            call.count = 1
            return hidden
    return _opened(call, entry, row)


def reveal(call: Call, memory_id: object, namespace: object, purpose: object, reason: object) -> Memory:
    """Open one memory for a purpose, which policies may ask for and the audit entry holds."""
    engine = call.engine
    words = check_text(purpose, "purpose", PURPOSE_BYTES_MAX)
    why = check_text(reason, "reason", PURPOSE_BYTES_MAX) if reason else call.context.reason
    if not words.strip() or not words.isprintable() or not why.isprintable():
        raise InvalidInputError("a purpose is some printable characters", hint="for example fraud-review")
    call.context = replace(call.context, purpose=words, reason=why)
    name = check_namespace(namespace)
    reach = call.require(Action.REVEAL, name)
    raw_id = check_id(memory_id)
    call.namespaces, call.memory_ids = (name,), (raw_id,)
    engine.registry.refresh()
    entry = engine.registry.get(name)
    row = None if entry is None else engine.live_row(entry, raw_id)
    if row is None or entry is None:
        raise MemoryNotFoundError
    return _opened(call, entry, admit(call, Action.REVEAL, entry, row, reach))


def _opened(call: Call, entry: NamespaceEntry, row: SealedRecord) -> Memory:
    engine, raw_id = call.engine, row.memory_id
    embedded = engine.has_vector(entry, raw_id, row.content_version)
    memory = open_memory(call, entry, row, embedded, engine.access_stats.get(entry, raw_id))
    if memory.expires_at is not None and memory.expires_at <= engine.now():
        raise MemoryNotFoundError
    call.count = 1
    call.about(entry, (memory.subject,))
    engine.access_stats.touch(entry.ns, (raw_id,))
    return memory


def open_memory(
    call: Call,
    entry: NamespaceEntry,
    row: SealedRecord,
    embedded: bool,
    access: tuple[int, int] | None,
) -> Memory:
    """Open one row; ``access`` is (count, microseconds of the last one).

    Raises:
        DecryptionError, KeyStateError.
    """
    engine = call.engine
    raw = engine.vault.open(entry.tenant, row)
    engine.metrics.opened_bytes.inc(len(raw))
    payload = decode_memory(raw)
    if entry.sealed:
        overwrite(raw)
    return to_memory(payload, row.memory_id, entry.name, row.version, has_embedding=embedded, access=access)


@dataclass(slots=True)
class Wanted:
    """One memory of an answer; with a ``label`` it is shown redacted, and never opened."""

    entry: NamespaceEntry
    index: NamespaceIndex
    memory_id: bytes
    seq: int  # that the index knows
    label: str | None = None
    created_us: int = 0
    embedded: bool | None = None  # whether it has a vector; None: the index is asked, the ledger for counters
    access: tuple[int, int | None] | None = None  # with ``embedded``: what the index knows of its counters


def open_answer(call: Call, wanted: Sequence[Wanted]) -> list[Memory] | None:
    """The memories of an answer, in its order; None when one changed since the index was asked.

    Raises:
        TamperedError: a row is older than what this process has already seen of it.
    """
    if not wanted:
        return []
    by_ns: dict[int, list[Wanted]] = {}
    for w in wanted:
        by_ns.setdefault(w.entry.ns, []).append(w)
    fetched = _fetch(call, by_ns)
    if len(by_ns) == 1:
        return _open_those(call, wanted, fetched[wanted[0].entry.ns])
    found: dict[tuple[int, bytes], Memory] = {}
    for ns, rows in fetched.items():
        memories = _open_those(call, by_ns[ns], rows)
        if memories is None:
            return None
        for w, memory in zip(by_ns[ns], memories, strict=True):
            found[ns, w.memory_id] = memory
    return [found[w.entry.ns, w.memory_id] for w in wanted]


def _open_those(call: Call, wanted: Sequence[Wanted], rows: Sequence[SealedRecord]) -> list[Memory] | None:
    """``open_answer`` in one namespace, from its rows in the ledger (memories and counters)."""
    engine, entry = call.engine, wanted[0].entry
    found = {row.memory_id: row for row in rows if row.field == _MEMORY}
    living: list[tuple[Wanted, SealedRecord]] = []
    moved = False
    for w in wanted:
        row = found.get(w.memory_id)
        if row is None or row.seq < w.seq or (row.seq == w.seq and row.state != State.LIVE):
            raise TamperedError("a row of the ledger is gone or older than it was")
        moved = moved or row.seq != w.seq
        if w.label is None:
            living.append((w, row))
    if moved:
        return None
    known = {w.memory_id: w.access for w, _ in living if w.access is not None}
    counters = [row for row in rows if row.field == _ACCESS]
    counted = engine.access_stats.counted(entry, [w.memory_id for w, _ in living], counters, known)
    opened: list[bytes] = []
    try:
        engine.vault.open_rows(entry.tenant, [row for _, row in living], opened)
        engine.metrics.opened_bytes.inc(sum(map(len, opened)))
        payloads = [decode_memory(raw) for raw in opened]
    except (DecryptionError, KeyStateError) as e:
        w, row = living[len(opened)]
        engine.indexes.forget_unreadable(entry, w.index, row, e)
        return None  # damaged, or its key was destroyed, since the index was built: the others answer
    finally:
        if entry.sealed:
            for raw in opened:
                overwrite(raw)
    memories: list[Memory] = []
    at = 0
    for w in wanted:
        if w.label is not None:
            memories.append(hidden_memory(w.entry, w.memory_id, w.label, w.created_us))
            continue
        embedded = w.index.has_vector(w.memory_id) if w.embedded is None else w.embedded
        access = counted.get(w.memory_id)
        version = living[at][1].version
        memories.append(
            to_memory(payloads[at], w.memory_id, entry.name, version, has_embedding=embedded, access=access)
        )
        at += 1
    return memories


def note_unreadable(call: Call, of_index: Mapping[NamespaceIndex, NamespaceEntry]) -> None:
    """Say with the answer that memories of a namespace do not open, and take no part in it."""
    for index, entry in of_index.items():
        if index.is_damaged:
            call.notices[
                Notice(
                    code="unreadable_memories",
                    message="some memories are damaged and take no part",
                    namespace=entry.name,
                    hint=DecryptionError.default_hint,
                )
            ] = None


def note_subjects(call: Call, entries: Iterable[NamespaceEntry], memories: Iterable[Memory]) -> None:
    """Put the data subjects of an answer into its audit entry."""
    of_namespace: dict[str, dict[str | None, None]] = {}
    for memory in memories:
        of_namespace.setdefault(memory.namespace, {})[memory.subject] = None
    for entry in entries:
        if entry.name in of_namespace:
            call.about(entry, of_namespace[entry.name])


def chosen_namespaces(
    call: Call,
    action: Action,
    patterns: Sequence[str],
    *,
    limited: bool = False,
    whole: bool = False,
) -> list[NamespaceEntry]:
    """The namespaces that an operation reaches, authorized; how far into each is in ``call.reaches``.

    A pattern selects of the namespaces those in which something is within reach (``whole``: everything).

    Raises:
        AccessDeniedError: an exact name is not granted. NamespaceNotFoundError: it is granted but is not
        there. LimitExceededError: ``limited``, and more than ``limits.namespaces_per_query_max``.
    """
    engine = call.engine
    if isinstance(patterns, str):
        patterns = (patterns,)
    engine.registry.refresh()
    try:
        names = access.expand(patterns, call.principal, action, engine.registry.names())
    except AccessDeniedError:
        call.namespaces = tuple(access.pattern_texts(patterns))
        call.reason = "a namespace outside the grants, or an action outside the scope"
        raise
    exact = {p for p in access.pattern_texts(patterns) if not p.endswith("*")}
    reaches: dict[str, Reach] = {}
    for name in names:
        answer = decide(call, action, name)
        if answer.decision.allowed and (answer.reach.is_whole or not whole):
            reaches[name] = answer.reach
        elif name in exact:
            call.namespaces = tuple(access.pattern_texts(patterns))
            call.reason = answer.decision.reason
            raise AccessDeniedError
    names = list(reaches)
    call.namespaces = tuple(names)
    if not names:  # who asks for what is out of reach leaves a trace of what it was
        call.namespaces = tuple(access.pattern_texts(patterns))
        call.reason = "nothing of it is within reach"
    limit = engine.config.limits.namespaces_per_query_max
    if limited and len(names) > limit:
        raise LimitExceededError(f"the query reaches {len(names)} namespaces", hint=f"at most {limit}")
    entries = []
    for name in names:
        entry = engine.registry.get(name)
        if entry is None:
            raise NamespaceNotFoundError
        entries.append(entry)
        if not reaches[name].is_whole:
            call.reaches[entry.ns] = reaches[name]
    return entries


def _fetch(call: Call, wanted: Mapping[int, Sequence[Wanted]]) -> dict[int, list[SealedRecord]]:
    """The rows of memories, and of counters that no index was asked for, by namespace; of one state."""
    ledger = call.engine.ledger
    is_known = all(w.embedded is not None for those in wanted.values() for w in those)
    parts = (_MEMORY,) if is_known else (_MEMORY, _ACCESS)
    ids = {ns: [w.memory_id for w in those] for ns, those in wanted.items()}
    if len(ids) == 1:
        return {ns: ledger.get_parts(ns, those, parts) for ns, those in ids.items()}
    with ledger.snapshot() as state:
        return {ns: state.get_parts(ns, those, parts) for ns, those in ids.items()}


def list_page(
    call: Call, patterns: Sequence[str], wanted: Filter, limit: int, cursor: str | None
) -> ListPage:
    engine = call.engine
    check_count(limit, "limit", 1, engine.config.limits.results_max)
    engine.indexes.check_where(wanted)
    entries = chosen_namespaces(call, Action.LIST, patterns, limited=True)
    refuse_filter(engine.indexes, entries, wanted)
    before = None if cursor is None else _decode_cursor(cursor)
    call.notices.clear()
    for _ in range(ATTEMPTS):
        try:
            page = _page(call, entries, wanted, limit, before)
        except ClosedError:
            engine.ensure_open()
            continue  # an index was dropped while it was asked: it is built again
        if page is not None:
            return page
    raise StorageBusyError("the memories of the listing change all the time")


def _page(
    call: Call,
    entries: Sequence[NamespaceEntry],
    wanted: Filter,
    limit: int,
    before: tuple[int, bytes] | None,
) -> ListPage | None:
    """One page, newest first by (created_at, memory_id); None when the ledger moved on meanwhile."""
    engine = call.engine
    of_index = {engine.indexes.ready(entry): entry for entry in entries}
    items = engine.recall.list(
        list(of_index),
        wanted,
        now_us=engine.now_us(),
        limit=limit + 1,
        before=before,
        reaches=call.reaches,
    )
    more, items = len(items) > limit, items[:limit]
    memories = open_answer(
        call, [Wanted(of_index[i.index], i.index, i.memory_id, i.seq, i.label, i.created_us) for i in items]
    )
    if memories is None:
        return None
    note_unreadable(call, of_index)
    call.count = len(memories)
    call.memory_ids = tuple(i.memory_id for i in items)
    note_subjects(call, entries, memories)
    last = items[-1] if more else None
    return ListPage(
        memories=tuple(memories),
        next_cursor=None if last is None else _encode_cursor(last.created_us, last.memory_id),
        notices=tuple(call.notices),
    )


def _encode_cursor(created_us: int, memory_id: bytes) -> str:
    return base64.urlsafe_b64encode(_CURSOR.pack(1, created_us, memory_id)).decode().rstrip("=")


def _decode_cursor(text: object) -> tuple[int, bytes]:
    try:
        if not isinstance(text, str):
            raise ValueError
        version, created_us, memory_id = _CURSOR.unpack(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        if version != 1:
            raise ValueError
    except (ValueError, struct.error):
        raise InvalidInputError("the cursor is not one of this store") from None
    return created_us, memory_id
