"""The embedding queue as the pipeline sees it: opens texts, seals vectors, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strongroom.embedding import PendingRef
from strongroom.engine._payload import decode_memory
from strongroom.engine._write import vector_put
from strongroom.errors import (
    IntegrityError,
    KeyManagementError,
    KeyMovedError,
    KeyStateError,
    NotFoundError,
    StorageBusyError,
)
from strongroom.ledger import OutdatedError, QueueItem, QueueRow, WriteBatch
from strongroom.recall import VectorPut

if TYPE_CHECKING:
    from strongroom.engine._core import Engine


_TRIES = 4
_TURNS = 256  # namespaces that one look at a long queue goes round


class EngineQueue:
    """``PendingSource`` for the pipeline of one embedding model (by its name in the configuration)."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._model = model
        self._turn = 0  # the namespace at which the last look at a long queue ended

    def load(self, refs: Sequence[PendingRef]) -> list[str | None]:
        """The texts; None where the memory is gone, replaced or unreadable."""
        out: list[str | None] = []
        for ref in refs:
            entry = self._engine.registry.by_ns(ref.ns)
            if self._engine.models.is_foreign(entry):
                out.append(None)  # another process has moved it to another model: it stays queued for that
                continue
            row = self._engine.live_row(entry, ref.memory_id)
            if row is None or row.content_version != ref.content_version:
                out.append(None)
                self._drop(ref)
                continue
            try:
                out.append(decode_memory(self._engine.vault.open(entry.tenant, row)).content)
            except (IntegrityError, KeyStateError) as e:
                out.append(None)
                self._engine.ledger.queue_mark([_item(ref)], error_code=e.code, dead=True)
                self._engine.log.error("queued_memory_unreadable", code=e.code)
            except KeyManagementError:
                out.append(None)  # its keys cannot be had now: it stays queued, and the others go on
        return out

    def _drop(self, ref: PendingRef) -> None:
        # Put back by the same transaction when the memory is there after all with this very content.
        self._engine.ledger.commit(WriteBatch(dequeue=[_item(ref)], enqueue=[_item(ref)]))

    def complete(self, refs: Sequence[PendingRef], vectors: NDArray[np.float32]) -> None:
        """Seal and commit the vectors of those that are still wanted; one transaction."""
        for _ in range(_TRIES):
            try:
                self._complete(refs, vectors)
                return
            except KeyMovedError:
                self._engine.vault.keyring.refresh()
            except OutdatedError:  # perhaps moved to another model: then the vectors are of no use
                self._engine.registry.refresh()
        raise StorageBusyError("what the vectors are for changes all the time")

    def _complete(self, refs: Sequence[PendingRef], vectors: NDArray[np.float32]) -> None:
        engine = self._engine
        batch = WriteBatch()
        kept: list[tuple[PendingRef, NDArray[np.float32]]] = []
        for ref, vector in zip(refs, vectors, strict=True):
            entry = engine.models.current(engine.registry.by_ns(ref.ns))
            row = engine.live_row(entry, ref.memory_id)
            if row is None or entry.model != self._model or engine.models.is_foreign(entry):
                continue
            try:
                key = engine.vault.keyring.sealing_key(row.key_id)
            except (KeyManagementError, NotFoundError):
                continue  # destroyed meanwhile, or not to be had now: then it stays queued
            batch.puts.append(
                vector_put(engine, entry, key, ref.memory_id, ref.content_version, vector, from_queue=True)
            )
            batch.dequeue.append(_item(ref))
            batch.settings.add(entry.seq)
            kept.append((ref, vector))
        if not kept:
            return
        seqs = engine.ledger.commit(batch)
        for (ref, vector), seq in zip(kept, seqs, strict=True):
            if seq:
                engine.indexes.offer(ref.ns, VectorPut(ref.memory_id, ref.content_version, vector, seq))
        engine.metrics.embedded.inc(sum(1 for s in seqs if s))

    def fail(self, refs: Sequence[PendingRef], error_code: str, *, dead: bool) -> None:
        """Count a failed attempt; ``dead``: give up until somebody requeues it."""
        items = [_item(r) for r in refs]
        self._engine.ledger.queue_mark(items, error_code=error_code, dead=dead)
        self._engine.metrics.embedding_failures.labels(error_code).inc(len(items))
        if dead:
            self._engine.log.warning("embedding_given_up", code=error_code, count=len(items))

    def orphans(self, limit: int, *, by_turns: bool = False) -> list[PendingRef]:
        """Queued memories of this model, oldest first, whoever stored them; ``by_turns``: when they are more
        than ``limit``, up to half of the answer is from namespaces whose turn is not yet."""
        self._engine.registry.refresh()
        found: list[PendingRef] = []
        usable: dict[int, bool] = {}
        after = 0
        while len(found) < limit:
            page = self._engine.ledger.queue(dead=False, after=after, limit=limit)
            found += self._mine(page, usable)
            if len(page) < limit:
                break
            after = page[-1].id
        if by_turns and len(found) >= limit > 1:
            rows, self._turn = self._engine.ledger.queue_turns(
                after_ns=self._turn, namespaces_max=_TURNS, limit=limit // 2
            )
            others = list(dict.fromkeys(self._mine(rows, usable)))
            found = list(dict.fromkeys(others + found))
        return found[:limit]

    def _mine(self, rows: Sequence[QueueRow], usable: dict[int, bool]) -> list[PendingRef]:
        """Those of this model whose keys can be had."""
        found: list[PendingRef] = []
        for row in rows:
            entry = self._engine.registry.by_ns(row.ns)
            if self._engine.models.is_foreign(entry):
                self._engine.models.leave_the_queue()
            elif entry.model == self._model and self._usable(row.ns, usable):
                found.append(PendingRef(row.ns, row.memory_id, row.content_version))
        return found

    def _usable(self, ns: int, known: dict[int, bool]) -> bool:
        """Whether the keys of the namespace can be had; those of one tenant do not hold up the others."""
        if ns not in known:
            try:
                self._engine.vault.keyring.require_usable(ns)
                known[ns] = True
            except KeyManagementError:
                known[ns] = False
        return known[ns]


def _item(ref: PendingRef) -> QueueItem:
    return QueueItem(ref.ns, ref.memory_id, ref.content_version)
