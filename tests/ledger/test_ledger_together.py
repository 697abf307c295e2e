"""Puts of one batch against the same puts one by one: what is not looked up is known all the same."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.ledger_hooks import A, SumHooks, assert_whole, memory, tombstone, vector

from strongroom.errors import StrongroomError
from strongroom.ledger import Put, SqliteLedger, WriteBatch
from strongroom.ledger._apply import Transaction

IDS = [bytes([n]) * 16 for n in range(3)]


@contextmanager
def new_ledger() -> Iterator[SqliteLedger]:
    with (
        tempfile.TemporaryDirectory() as place,
        SqliteLedger.create(Path(place), uuid.uuid4(), SumHooks()) as made,
    ):
        made.commit(WriteBatch(new_namespaces=[1, 2]))
        yield made


spaces, ids, numbers = st.sampled_from([1, 2, 2, 2]), st.sampled_from(IDS), st.integers(1, 2)
news = st.builds(lambda ns, i: [memory(ns, i, expect=0)], spaces, ids)
pairs = st.builds(lambda ns, i: [memory(ns, i, expect=0), vector(ns, i)], spaces, ids)
others = st.builds(
    lambda ns, i, kind, n, expect: [
        {
            "memory": memory(ns, i, version=n, content_version=n, expect=expect),
            "vector": vector(ns, i, version=n, content_version=n, sealed=bytes([n]) * 100),
            "kept": vector(ns, i, expect=0, sealed=b"k" * 100),
            "access": memory(ns, i, field=A, sealed=b"a" * 100),
            "queued": vector(ns, i, requires_queue_item=True),
            "gone": tombstone(ns, i, version=n + 1),
            "short": memory(ns, i[:3], expect=0),
        }[kind]
    ],
    spaces,
    ids,
    st.sampled_from(["memory"] * 3 + ["vector"] * 3 + ["kept", "access", "queued", "gone", "short"]),
    numbers,
    st.sampled_from([-1, 0, 1]),
)
FIRST = [memory(ns, b"f" * 16, expect=0) for ns in (1, 2)]  # the first put into a namespace is like no other


def rows(ledger: SqliteLedger) -> list[object]:
    return [row for ns in (1, 2) for row in ledger.changes(ns, 0, 1000)]


@settings(max_examples=300, deadline=None)
@given(st.lists(pairs | news, max_size=2), st.lists(pairs | news | others | others, max_size=12))
def test_a_batch_does_what_its_puts_do_one_by_one(before: list[list[Put]], puts: list[list[Put]]) -> None:
    """Rows, seqs and head are the same, whatever the batch does to its own new rows; with a put that is
    refused it is refused, and leaves nothing."""
    with new_ledger() as one, new_ledger() as together:
        for group in before:
            for ledger in (one, together):
                with suppress(StrongroomError):
                    ledger.commit(WriteBatch(puts=group))
        accepted: list[Put] = []
        refused: list[Put] = []
        seqs: list[int] = []
        for put in [*FIRST, *(put for group in puts for put in group)]:
            try:
                seqs += one.commit(WriteBatch(puts=[put]))
                accepted.append(put)
            except StrongroomError:
                refused = refused or [*accepted, put]
        if refused:
            stood = rows(together)
            with pytest.raises(StrongroomError):
                together.commit(WriteBatch(puts=refused))
            assert rows(together) == stood
        assert together.commit(WriteBatch(puts=accepted)) == seqs
        assert rows(together) == rows(one)
        assert_whole(together)


def test_new_memories_with_their_vectors_are_not_looked_up(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many memories a batch adds, what is asked of the file does not grow with them."""
    asked: list[str] = []
    real = Transaction.__init__

    def watched(self: Transaction, connection: apsw.Connection, *more: object, **named: object) -> None:
        connection.exec_trace = lambda cursor, sql, bound: asked.append(sql) is None
        real(self, connection, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Transaction, "__init__", watched)
    counts = []
    for first, count in ((0, 3), (100, 90)):
        asked.clear()
        made = [n.to_bytes(16) for n in range(first, first + count)]
        ledger.commit(WriteBatch(puts=[p for i in made for p in (memory(1, i, expect=0), vector(1, i))]))
        counts.append(sum(sql.lstrip().startswith("SELECT") for sql in asked))
    assert counts[0] == counts[1] <= 2
