"""Hooks for tests: a head is the sum of SHA-256 over the elements; nothing is secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from strongroom.ledger import Put, SqliteLedger, element_of
from strongroom.model import Field, State

M = int(Field.MEMORY)
V = int(Field.VECTOR)
A = int(Field.ACCESS)
LIVE = int(State.LIVE)
DEAD = int(State.TOMBSTONE)
MOD = 1 << 256


def digest(item: bytes) -> int:
    return int.from_bytes(hashlib.sha256(item).digest(), "big")


def total(items: Iterable[bytes]) -> int:
    return sum(map(digest, items)) % MOD


class SumHooks:
    """A real multiset hash without a key, so that tests can compute it again."""

    def advance_head(
        self,
        ns: int,
        head: bytes | None,
        seq_before: int,
        seq_after: int,
        removed: list[bytes],
        added: list[bytes],
    ) -> bytes:
        before = 0
        if head is not None:
            assert int.from_bytes(head[32:], "big") == seq_before
            before = int.from_bytes(head[:32], "big")
        after = (before + total(added) - total(removed)) % MOD
        return after.to_bytes(32, "big") + seq_after.to_bytes(8, "big")

    def seal_audits(self, first: int, entries: Sequence[bytes]) -> list[bytes]:
        return [self.seal_audit(seq, entry) for seq, entry in enumerate(entries, first)]

    def seal_audit(self, seq: int, entry: bytes) -> bytes:
        return b"%d:" % seq + entry


def memory(ns: int, memory_id: bytes, **changes: object) -> Put:
    base = Put(ns, memory_id, M, 1, 1, 7, LIVE, 0, b"s" * 100)
    return base._replace(**changes)  # type: ignore[arg-type]


def vector(ns: int, memory_id: bytes, **changes: object) -> Put:
    base = Put(ns, memory_id, V, 1, 1, 7, LIVE, 1, b"v" * 160)
    return base._replace(**changes)  # type: ignore[arg-type]


def tombstone(ns: int, memory_id: bytes, version: int = 2, expect: int = -1) -> Put:
    return Put(ns, memory_id, M, version, 1, 0, DEAD, 0, b"", expect)


def assert_whole(ledger: SqliteLedger) -> None:
    """Every head matches its rows, and the structure has no finding."""
    assert ledger.check() == []
    for ns in ledger.namespaces():
        with ledger.snapshot() as snapshot:
            seq, head = snapshot.head(ns)
            rows = list(snapshot.iter_changes(ns, page=100))
        assert int.from_bytes(head[:32], "big") == total(element_of(r) for r in rows)
        assert int.from_bytes(head[32:], "big") == seq
        assert all(r.seq <= seq for r in rows)
