"""How often each memory was returned: counted in memory, sealed and flushed in batches.

Counters are not part of an operation's durability: a crash loses one and a half ``access.access_flush_ms``.
They lie all over the ledger, so that each costs three pages in the log and three in the file. Within half of
that time they are written a few at a time, with pauses: a commit that comes meanwhile waits for a few alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING

from strongroom.engine._payload import AccessPayload, decode_as, encode
from strongroom.engine._registry import NamespaceEntry
from strongroom.errors import (
    DuplicateMemoryError,
    IntegrityError,
    KeyManagementError,
    KeyMovedError,
    KeyStateError,
    NotFoundError,
    VersionConflictError,
)
from strongroom.ledger import Put, WriteBatch
from strongroom.model import Field, SealedRecord, State
from strongroom.recall import AccessPut

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_RETRIES = 5
_BATCH = 500  # counters of one commit
_FEW = 8  # ... beside searches and stores
_PAUSE_S_MAX = 0.25
_MANY = 20_000  # memories whose counters wait: they are written before it is time
_KNOWN_MAX = 16_384  # opened counters that are remembered
_NONE_KNOWN: Mapping[bytes, tuple[int, int | None]] = MappingProxyType({})


class AccessStats:
    """Pending increments of this process, over the sealed counters of the ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._pending: dict[tuple[int, bytes], tuple[int, int]] = {}
        self._flushing: dict[tuple[int, bytes], tuple[int, int]] = {}
        self._known: OrderedDict[tuple[int, bytes], tuple[int, bytes, AccessPayload]] = OrderedDict()

    @property
    def are_many(self) -> bool:
        return len(self._pending) > _MANY

    def touch(self, ns: int, memory_ids: Sequence[bytes]) -> None:
        now_us = self._engine.now_us()
        with self._lock:
            for memory_id in memory_ids:
                count, _ = self._pending.get((ns, memory_id), (0, 0))
                self._pending[(ns, memory_id)] = (count + 1, now_us)

    def forget(self, ns: int, memory_id: bytes) -> None:
        with self._lock:
            self._pending.pop((ns, memory_id), None)
            self._known.pop((ns, memory_id), None)

    def get(self, entry: NamespaceEntry, memory_id: bytes) -> tuple[int, int] | None:
        """(count, microseconds of the last access), or None when it was never returned."""
        row = self._engine.ledger.get(entry.ns, memory_id, Field.ACCESS)
        return self.counted(entry, (memory_id,), () if row is None else (row,)).get(memory_id)

    def counted(
        self,
        entry: NamespaceEntry,
        memory_ids: Sequence[bytes],
        rows: Sequence[SealedRecord],
        known: Mapping[bytes, tuple[int, int | None]] = _NONE_KNOWN,
    ) -> dict[bytes, tuple[int, int]]:
        """``get`` of many, from their rows in the ledger, or from what the index knows of them (``known``);
        those that were never returned are left out."""
        found = {memory_id: (count, last or 0) for memory_id, (count, last) in known.items()}
        for row in rows:
            stored = self._opened(entry, row)
            if stored is not None:
                found[row.memory_id] = (stored.count, stored.last_us)
        with self._lock:
            for source in (self._flushing, self._pending):
                for memory_id in memory_ids:
                    extra = source.get((entry.ns, memory_id))
                    if extra:
                        count, last = found.get(memory_id, (0, 0))
                        found[memory_id] = (count + extra[0], max(last, extra[1]))
        return found

    def _opened(self, entry: NamespaceEntry, row: SealedRecord) -> AccessPayload | None:
        """What a row says; one that was opened before, byte for byte, is not opened again."""
        if row.state != State.LIVE:
            return None
        place = (entry.ns, row.memory_id)
        known = self._known.get(place)
        if known is not None and known[:2] == (row.version, row.sealed):
            return known[2]
        try:
            payload = decode_as(AccessPayload, self._engine.vault.open(entry.tenant, row))
        except (IntegrityError, KeyStateError):
            return None  # counters may be lost; they begin again
        self._remember(place, row.version, row.sealed, payload)
        return payload

    def _remember(
        self, place: tuple[int, bytes], version: int, sealed: bytes, payload: AccessPayload
    ) -> None:
        with self._lock:
            self._known[place] = (version, sealed, payload)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)

    def flush(self, rest: Callable[[float], object] | None = None, within_s: float = 0.0) -> int:
        """Write what is pending; how many memories it was.

        ``rest``: called with seconds to wait between few and few; ``within_s``: that all of it may take.
        Without it, as fast as it goes.

        Raises:
            StorageError: it could not be written; the increments stay pending.
        """
        with self._lock:
            if self._flushing or not self._pending:
                return 0
            self._flushing, self._pending = self._pending, {}
            taken = dict(self._flushing)
        done: set[tuple[int, bytes]] = set()
        try:
            items = list(taken.items())
            size = _BATCH if rest is None else _FEW
            began = perf_counter()
            for start in range(0, len(items), size):
                since = perf_counter()
                part = items[start : start + size]
                kept = self._write(part)
                done.update(key for key, _ in part if key[0] not in kept)
                to_come = (len(items) - start - 1) // size
                if rest is not None and to_come:
                    now = perf_counter()
                    left_s = (within_s - (now - began)) / to_come - (now - since)
                    rest(max(0.0, min(left_s, _PAUSE_S_MAX)))
        finally:
            with self._lock:
                for key, (count, last) in self._flushing.items():
                    if key not in taken or key in done:
                        continue
                    more = self._pending.get(key, (0, 0))
                    self._pending[key] = (count + more[0], max(last, more[1]))
                self._flushing = {}
        return len(done)

    def _write(self, items: Sequence[tuple[tuple[int, bytes], tuple[int, int]]]) -> set[int]:
        """Write the counters; returns the namespaces whose keys cannot be had now: theirs stay pending."""
        keyring = self._engine.vault.keyring
        closed: set[int] = set()
        for ns in {ns for (ns, _), _ in items}:
            try:
                keyring.require_usable(ns)
            except KeyManagementError:
                closed.add(ns)
        items = [item for item in items if item[0][0] not in closed]
        for _ in range(_RETRIES):
            try:
                made = self._made(items)
                seqs = self._engine.ledger.commit(WriteBatch(puts=[put for put, _ in made]))
            except KeyMovedError:
                self._engine.vault.keyring.refresh()
                continue
            except (VersionConflictError, DuplicateMemoryError):
                continue  # another process counted too: read again and add
            for (put, payload), seq in zip(made, seqs, strict=True):
                if seq:  # else the memory was deleted meanwhile
                    self._remember((put.ns, put.memory_id), put.version, put.sealed, payload)
                    change = AccessPut(put.memory_id, payload.count, payload.last_us, seq)
                    self._engine.indexes.offer(put.ns, change)
            break
        return closed

    def _made(
        self, items: Sequence[tuple[tuple[int, bytes], tuple[int, int]]]
    ) -> list[tuple[Put, AccessPayload]]:
        """New rows for the counters of memories that are there; those of one namespace are read together.

        A memory whose row is older than what is known of it is left out: whoever asks for it is told.
        """
        engine = self._engine
        of_namespace: dict[int, dict[bytes, tuple[int, int]]] = {}
        for (ns, memory_id), delta in items:
            of_namespace.setdefault(ns, {})[memory_id] = delta
        made: list[tuple[Put, AccessPayload]] = []
        for ns, deltas in of_namespace.items():
            entry = engine.registry.by_ns(ns)
            seen = {memory_id: engine.indexes.seq_seen(ns, memory_id) for memory_id in deltas}  # first
            rows = engine.ledger.get_parts(ns, list(deltas), (Field.MEMORY, Field.ACCESS))
            counters = {row.memory_id: row for row in rows if row.field == Field.ACCESS}
            for memory in rows:
                if memory.field != Field.MEMORY:
                    continue
                if memory.state == State.LIVE and memory.seq >= (seen[memory.memory_id] or 0):
                    delta = deltas[memory.memory_id]
                    put = self._put(entry, memory, counters.get(memory.memory_id), delta)
                    made += [] if put is None else [put]
        return made

    def _put(
        self, entry: NamespaceEntry, memory: SealedRecord, row: SealedRecord | None, delta: tuple[int, int]
    ) -> tuple[Put, AccessPayload] | None:
        engine, memory_id = self._engine, memory.memory_id
        stored, version = (None, 0) if row is None else (self._opened(entry, row), row.version)
        payload = AccessPayload(
            (stored.count if stored else 0) + delta[0], max(stored.last_us if stored else 0, delta[1])
        )
        try:
            key = engine.vault.keyring.sealing_key(memory.key_id)
            sealed = engine.vault.seal(
                key, entry.tenant, memory_id, Field.ACCESS, version + 1, encode(payload)
            )
        except KeyMovedError:
            raise
        except (KeyStateError, NotFoundError):
            return None
        put = Put(
            entry.ns, memory_id, int(Field.ACCESS), version + 1, memory.content_version, key.key_id,
            int(State.LIVE), 0, sealed, version,
        )  # fmt: skip
        return put, payload
