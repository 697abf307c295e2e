"""Random histories of the ledger against a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.ledger.ledger_hooks import DEAD, LIVE, M, SumHooks, V, assert_whole, memory, tombstone, vector

from strongroom.errors import DuplicateMemoryError, VersionConflictError
from strongroom.ledger import QueueItem, SqliteLedger, WriteBatch
from strongroom.model import QueueStats

IDS = [bytes([n]) * 16 for n in range(5)]
ids = st.sampled_from(IDS)
spaces = st.sampled_from([1, 2])
completions = st.tuples(spaces, ids, st.integers(1, 3))
Key = tuple[int, bytes]


class LedgerMachine(RuleBasedStateMachine):
    """The model: per (ns, id) version, content version, state; vectors; queue; seq per namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.rows: dict[Key, tuple[int, int, int]] = {}
        self.vectors: dict[Key, int] = {}
        self.waiting: dict[Key, int] = {}
        self.seq = {1: 0, 2: 0}
        self.entries = 0

    @initialize()
    def create(self) -> None:
        self.ledger = SqliteLedger.create(self.place, uuid.uuid4(), SumHooks())
        self.ledger.commit(WriteBatch(new_namespaces=[1, 2]))

    @rule(ns=spaces, memory_id=ids, queued=st.booleans())
    def store(self, ns: int, memory_id: bytes, queued: bool) -> None:
        key = (ns, memory_id)
        item = QueueItem(ns, memory_id, 1)
        batch = WriteBatch([memory(ns, memory_id, expect=0)], [item] if queued else [], audit=[b"s"])
        try:
            self.ledger.commit(batch)
        except DuplicateMemoryError:
            assert key in self.rows
            return
        assert key not in self.rows
        self.rows[key] = (1, 1, LIVE)
        self.seq[ns] += 1
        self.entries += 1
        if queued:
            self.waiting[key] = 1

    @rule(ns=spaces, memory_id=ids, new_content=st.booleans(), queued=st.booleans(), expect=st.integers(1, 4))
    def update(self, ns: int, memory_id: bytes, new_content: bool, queued: bool, expect: int) -> None:
        key = (ns, memory_id)
        version, content, state = self.rows.get(key, (0, 0, LIVE))
        content += new_content
        item = QueueItem(ns, memory_id, content)
        put = memory(ns, memory_id, version=expect + 1, content_version=content, expect=expect)
        try:
            self.ledger.commit(WriteBatch([put], [item] if queued else []))
        except VersionConflictError:
            assert version != expect
            return
        assert version == expect
        self.rows[key] = (version + 1, content, LIVE)
        self.seq[ns] += 1
        if new_content:
            self.waiting.pop(key, None)
        if queued:
            self.waiting[key] = content
        assert state in (LIVE, DEAD)

    @rule(ns=spaces, memory_id=ids)
    def delete(self, ns: int, memory_id: bytes) -> None:
        key = (ns, memory_id)
        if key not in self.rows:
            return
        version, content, _ = self.rows[key]
        dead = tombstone(ns, memory_id, version + 1, version)._replace(content_version=content)
        self.ledger.commit(WriteBatch([dead]))
        self.rows[key] = (version + 1, content, DEAD)
        self.seq[ns] += 1
        self.vectors.pop(key, None)
        self.waiting.pop(key, None)

    @rule(
        picked=st.lists(
            st.tuples(spaces, ids, st.integers(1, 3)), min_size=1, max_size=4, unique_by=lambda p: p[:2]
        )
    )
    def complete(self, picked: list[tuple[int, bytes, int]]) -> None:
        puts = [vector(n, i, content_version=v, requires_queue_item=True) for n, i, v in picked]
        seqs = self.ledger.commit(WriteBatch(puts, dequeue=[QueueItem(*p) for p in picked]))
        for (ns, memory_id, content), seq in zip(picked, seqs, strict=True):
            key = (ns, memory_id)
            if self.waiting.get(key) == content:
                self.seq[ns] += 1
                assert seq == self.seq[ns]
                self.vectors[key] = content
                del self.waiting[key]
            else:
                assert seq == 0

    @precondition(lambda self: self.seq[1] > 3)
    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = SqliteLedger.open(self.place, SumHooks())

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for ns in (1, 2):
            assert self.ledger.head(ns)[0] == self.seq[ns]
            rows = self.ledger.changes(ns, 0, 100)
            found = {(ns, r.memory_id): (r.version, r.content_version, r.state) for r in rows if r.field == M}
            assert found == {k: v for k, v in self.rows.items() if k[0] == ns}
            vectors = {(ns, r.memory_id): r.content_version for r in rows if r.field == V}
            assert vectors == {k: v for k, v in self.vectors.items() if k[0] == ns}
        queue = {(r.ns, r.memory_id): r.content_version for r in self.ledger.queue()}
        assert queue == self.waiting
        assert self.ledger.queue_stats() == QueueStats(pending=len(queue), dead=0)
        assert self.ledger.audit_count() == self.entries

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            assert_whole(self.ledger)
            self.ledger.close()
        shutil.rmtree(self.place)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
