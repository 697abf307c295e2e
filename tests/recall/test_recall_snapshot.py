"""What an index writes out comes back as the same index, however it came to be."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import numpy as np
import pytest
from tests.recall.lane_tools import NOW_US, blind, clustered, memory, memory_id

from strongroom.errors import IntegrityError, InternalError
from strongroom.model import Filter
from strongroom.recall import (
    AccessPut,
    Candidate,
    Change,
    ColumnarStore,
    NamespaceIndex,
    Recall,
    RecallQuery,
    RecallSettings,
    Remove,
    Upsert,
    VectorPut,
    _ids,
    _ivf,
)
from strongroom.recall._blocks import BlockReader, BlockWriter

DIMENSIONS = 32
WORDS = ["price", "limit", "invoice", "contract", "meeting", "refund", "outage", "login", "coffee", "tea"]


@pytest.fixture
def stores() -> Iterator[list[ColumnarStore]]:
    opened: list[ColumnarStore] = []
    yield opened
    for store in opened:
        store.close()


def new_index(
    stores: list[ColumnarStore], *, exact: int = 100, dimensions: int | None = DIMENSIONS
) -> NamespaceIndex:
    stores.append(ColumnarStore())
    table = stores[-1].table(1, "acme/notes")
    return NamespaceIndex(table, blind, RecallSettings(exact_rows_max=exact), ns=1, dimensions=dimensions)


def text(number: int) -> str:
    return f"{WORDS[number % 10]} and {WORDS[number // 10 % 10]} INV-{number}"


def filled(stores: list[ColumnarStore], count: int, **options: Any) -> NamespaceIndex:
    """Memories with vectors; some removed, some changed in content, some in other things alone, some read."""
    index = new_index(stores, **options)
    vectors = clustered(count, DIMENSIONS, 12, 5)
    seq = 0

    def put(number: int, version: int, content: str) -> list[Change]:
        nonlocal seq
        seq += 2
        tags = ("all", f"t{number % 3}") if number % 2 else ()
        made = memory(
            number, content, tags=tags, subject=f"u{number % 4}", agent_id=None if number % 3 else "a"
        )
        changes: list[Change] = [Upsert(made, seq - 1, version)]
        if number % 11 or version > 1:
            changes.append(
                VectorPut(memory_id(number).bytes, version, vectors[(number * version) % count], seq)
            )
        return changes

    for start in range(0, count, 500):
        changes = [c for i in range(start, min(start + 500, count)) for c in put(i, 1, text(i))]
        index.apply(changes, seq)
        index.prepare()
    for i in range(0, count, 5):
        seq += 1
        index.apply([Remove(memory_id(i).bytes, seq)], seq)
    for i in range(1, count, 10):
        index.apply(put(i, 2, text(i + 1)), seq)
    for i in range(2, count, 10):
        seq += 1
        index.apply([Upsert(memory(i, text(i), importance=0.9, tags=("changed",)), seq, 1)], seq)
        seq += 1
        index.apply([AccessPut(memory_id(i).bytes, i, None if i % 4 else NOW_US, seq)], seq)
    index.prepare()
    if index.vectors is not None:
        index.vectors.tend()
    assert index.wait_idle(60)
    return index


def dumped(index: NamespaceIndex) -> bytes:
    frozen = index.freeze()
    sink = io.BytesIO()
    try:
        frozen.dump(sink)
    finally:
        frozen.close()
    return sink.getvalue()


def ask(
    index: NamespaceIndex, number: int, mode: Any = "hybrid", wanted: Filter | None = None
) -> list[Candidate]:
    vector = clustered(50, DIMENSIONS, 12, 99)[number % 50]
    query = RecallQuery(
        text=text(number),
        vector=vector,
        k=12,
        mode=mode,
        filter=wanted or Filter(),
        min_similarity=None,
        now_us=NOW_US,
    )
    return list(Recall().search([index], query).candidates)


FILTERS = [
    Filter(),
    Filter(tags_all=("all", "t1")),
    Filter(subjects=("u3",)),
    Filter(agent_ids=("a",)),
    Filter(where="access_count > 20 AND last_accessed_at IS NOT NULL"),
    Filter(where="has_embedding AND importance = 0.9"),
]


def seen(index: NamespaceIndex) -> list[Any]:
    out: list[Any] = [index.memories, index.embedded, index.watermark]
    for number in range(0, 60, 7):
        for mode in ("hybrid", "semantic", "keyword"):
            for wanted in FILTERS:
                found = ask(index, number, mode, wanted)
                out.append([(c.memory_id, c.seq, c.score, c.similarity, c.keyword_score) for c in found])
    for wanted in FILTERS:
        out.append(
            [(i.memory_id, i.created_us, i.seq) for i in index.list_newest(wanted, 5000, None, NOW_US)]
        )
    return out


@pytest.mark.parametrize(("count", "exact"), [(0, 100), (1, 100), (300, 5000), (3000, 500)])
def test_an_index_comes_back_as_it_was(stores: list[ColumnarStore], count: int, exact: int) -> None:
    index = filled(stores, count, exact=exact)
    again = new_index(stores, exact=exact)
    again.restore(io.BytesIO(dumped(index)))
    if count > exact:
        assert again.vectors is not None and not again.vectors.is_exact, "the lists came along"
    assert seen(again) == seen(index)
    third = new_index(stores, exact=exact)
    third.restore(io.BytesIO(dumped(again)))
    assert dumped(third) == dumped(again)


def test_a_large_index_comes_back_while_its_columns_are_read_again(
    stores: list[ColumnarStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists are given memory and ids are sorted by other threads, columns are read from the second stream:
    the answers are those of before, and what names a memory twice is refused."""
    for module in (_ids, _ivf):
        monkeypatch.setattr(module, "AHEAD_ROWS_MIN", 1)
    index = filled(stores, 3000, exact=500)
    raw = dumped(index)
    asked: list[int] = []

    def reread(position: int) -> AbstractContextManager[io.BytesIO]:
        asked.append(position)
        return closing(io.BytesIO(raw[position:]))

    again = new_index(stores, exact=500)
    again.restore(io.BytesIO(raw), reread)
    assert seen(again) == seen(index)
    assert asked == [raw.index(b"COLN")]
    at = raw.index(b"IDS ") + 20
    twice = raw[: at + 16] + raw[at : at + 16] + raw[at + 32 :]
    with pytest.raises(IntegrityError, match="twice"):
        new_index(stores, exact=500).restore(io.BytesIO(twice))
    with pytest.raises(IntegrityError):
        new_index(stores, exact=500).restore(io.BytesIO(raw[: raw.index(b"VCOD") + 5000]), reread)


def test_a_restored_index_goes_on_like_the_first(stores: list[ColumnarStore]) -> None:
    index = filled(stores, 400)
    again = new_index(stores)
    again.restore(io.BytesIO(dumped(index)))
    seq = index.watermark
    vector = clustered(1, DIMENSIONS, 12, 3)[0]
    tail: list[Change] = [
        Upsert(memory(6, "a wholly new refund"), seq + 1, 9),
        VectorPut(memory_id(6).bytes, 9, vector, seq + 2),
        Upsert(memory(7, text(7), importance=0.9), seq + 3, 1),  # keeps its vector
        Remove(memory_id(8).bytes, seq + 4),
        Upsert(memory(2000, "coffee for the newcomer"), seq + 5, 1),
        AccessPut(memory_id(9).bytes, 77, NOW_US, seq + 6),
        Upsert(memory(12, text(13)), seq + 7, 2),  # voids its vector, keeps its counters
        Upsert(memory(0, "removed once, and here again"), seq + 8, 3),
    ]
    for target in (index, again):
        target.apply(tail, seq + 8)
    assert seen(again) == seen(index)
    assert again.has_vector(memory_id(7).bytes) and not again.has_vector(memory_id(12).bytes)
    assert seen(again) == seen(index)


def test_a_vector_that_waits_for_its_memory_waits_on(stores: list[ColumnarStore]) -> None:
    index = filled(stores, 50)
    vector = clustered(1, DIMENSIONS, 12, 3)[0]
    seq = index.watermark
    index.apply([VectorPut(memory_id(900).bytes, 1, vector, seq + 1)], seq + 1)
    again = new_index(stores)
    again.restore(io.BytesIO(dumped(index)))
    again.apply([Upsert(memory(900, "late"), seq + 2, 1)], seq + 2)
    assert again.has_vector(memory_id(900).bytes)


def test_what_was_removed_is_not_in_the_bytes(stores: list[ColumnarStore]) -> None:
    index = new_index(stores)
    vector = clustered(2, DIMENSIONS, 12, 3)
    index.apply(
        [
            Upsert(memory(1, "a secret that was deleted", subject="secret person"), 1, 1),
            VectorPut(memory_id(1).bytes, 1, vector[0], 2),
            Upsert(memory(2, "what stays"), 3, 1),
            VectorPut(memory_id(2).bytes, 1, vector[1], 4),
        ],
        4,
    )
    index.prepare()
    index.apply([Remove(memory_id(1).bytes, 5)], 5)
    raw = dumped(index)
    codes = vector.astype(np.float16)
    assert b"what stays" in raw and codes[1].tobytes() in raw
    for gone in (b"secret", memory_id(1).bytes, codes[0].tobytes(), vector[0].tobytes()):
        assert gone not in raw


def test_no_word_of_the_keyword_lane_is_in_the_bytes(stores: list[ColumnarStore]) -> None:
    index = new_index(stores)
    index.apply([Upsert(memory(1, "running quickly"), 1, 1)], 1)
    raw = dumped(index)
    assert b"running quickly" in raw  # the column
    assert b"run\0" not in raw and raw.count(b"quick") == 1


def test_an_index_in_use_cannot_be_overwritten(stores: list[ColumnarStore]) -> None:
    raw = dumped(filled(stores, 20))
    used = new_index(stores)
    used.apply([Upsert(memory(1, "here"), 1, 1)], 1)
    with pytest.raises(InternalError):
        used.restore(io.BytesIO(raw))


def test_vectors_of_another_length_are_refused(stores: list[ColumnarStore]) -> None:
    raw = dumped(filled(stores, 20))
    with pytest.raises(IntegrityError):
        new_index(stores, dimensions=64).restore(io.BytesIO(raw))


def test_every_cut_is_an_integrity_error(stores: list[ColumnarStore]) -> None:
    """Below the seal nothing is expected to be damaged; a defect must show as one typed error still."""
    raw = dumped(filled(stores, 30))
    store = ColumnarStore()
    stores.append(store)
    for number, length in enumerate(range(0, len(raw), max(1, len(raw) // 60))):
        index = NamespaceIndex(store.table(number, "acme/notes"), blind, dimensions=DIMENSIONS)
        with pytest.raises(IntegrityError):
            index.restore(io.BytesIO(raw[:length]))


def spoiled_blocks() -> list[bytes]:
    out = io.BytesIO()
    BlockWriter(out).array("ABCD", np.arange(4), "<u4")
    good = out.getvalue()
    return [
        b"WXYZ" + good[4:],
        good[:4] + b"\x00" + good[5:],
        good[:4] + b"\x63" + good[5:],
        good[:8] + b"\x02" + good[9:],
        good[:12] + b"\xff" * 8 + good[20:],
        good[:-1],
        b"",
    ]


@pytest.mark.parametrize("raw", spoiled_blocks())
def test_a_block_of_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        BlockReader(io.BytesIO(raw)).array("ABCD", "<u4")
