"""One bad vector, model, memory or key must not take its namespace along."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.conftest import OpenRoom
from tests.support.database import ledger_file
from tests.support.word_model import WordModel

from strongroom.engine import Room
from strongroom.errors import (
    ClosedError,
    EmbeddingError,
    EmbeddingRejectedError,
    InvalidVectorError,
    KeyStateError,
    MemoryNotFoundError,
    StrongroomError,
)
from strongroom.model import Field

NS = "company_a/support"
SECRET = "canary-text-of-a-memory"


class BrokenModel(WordModel):
    """A model that answers in a broken way once ``answer`` is set."""

    answer: Callable[[Sequence[str]], Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.answer is not None:
            return self.answer(texts)  # type: ignore[no-any-return]
        return super().embed(texts)


def _raise(texts: Sequence[str]) -> Any:
    raise RuntimeError(f"model failed on {texts[0]}")


BROKEN = {
    "zero": lambda t: np.zeros((len(t), 64), np.float32),
    "nan": lambda t: np.full((len(t), 64), np.nan, np.float32),
    "narrow": lambda t: np.ones((len(t), 3), np.float32),
    "one row less": lambda t: np.ones((len(t) - 1, 64), np.float32),
    "nothing": lambda t: None,
    "doubles": lambda t: np.ones((len(t), 64)),
    "foreign exception with content": _raise,
}


@pytest.mark.parametrize("how", list(BROKEN))
def test_a_broken_model_gives_typed_errors_and_spoils_no_memory(
    open_room: OpenRoom, how: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = BrokenModel()
    room = open_room(provider=model, debug=False)
    room.store("one thing", namespace=NS)
    room.flush()
    model.answer = BROKEN[how]
    broken = room.store(f"two things {SECRET}", namespace=NS)
    room.flush(timeout_s=20)  # given up as a dead letter after its attempts
    assert [q.memory_id for q in room.queue(dead=True)] == [broken.memory_id]
    assert {h.memory.content for h in room.search("thing", namespaces=[NS])} >= {"one thing"}
    with pytest.raises(EmbeddingError) as caught:
        room.search(SECRET, namespaces=[NS], mode="semantic")
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    model.answer = None
    room.requeue()
    room.flush()
    assert len(room.search("thing", namespaces=[NS], mode="semantic")) == 2
    assert room.check(read_data=True).ok
    room.close()
    assert SECRET not in capsys.readouterr().err
    assert SECRET not in "".join(map(str, (vars(r) for r in caplog.records)))


def test_a_model_that_cannot_be_closed_does_not_keep_the_files_open(open_room: OpenRoom) -> None:
    model = WordModel()

    def refuse() -> None:
        raise RuntimeError(SECRET)

    model.close = refuse  # type: ignore[method-assign]
    room = open_room(provider=model)
    room.store("x", namespace=NS)
    room.close()
    with pytest.raises(ClosedError):
        room.engine.ledger.commit(object())  # type: ignore[arg-type]


HUGE = float(np.finfo(np.float32).max) / 4


@pytest.mark.parametrize(
    "vector",
    [[HUGE] * 64, [1e300] * 64, [3e-20] * 64, [1e-300] * 64, np.full(64, HUGE, np.float32), range(1, 65)],
    ids=["float32 squares overflow", "float64", "squares vanish", "vanishing", "array", "integers"],
)
def test_any_vector_but_zero_becomes_a_unit_vector_that_is_found(room: Room, vector: Any) -> None:
    """A vector whose norm overflows float32 was once stored as zeros, and no search worked any more."""
    m = room.store("given vector", namespace=NS, embedding=vector)
    hit = room.search(embedding=vector, namespaces=[NS], mode="semantic")[0]
    assert hit.memory.memory_id == m.memory_id
    assert hit.similarity == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(64, dtype=complex),
        [True] * 64,
        ["1.0"] * 64,
        [None] * 64,
        np.full(64, "2020-01-01", dtype="datetime64[s]"),
        b"x" * 64,
        [[1.0], [1.0, 2.0]],
        np.ones((8, 8)),
        {"a": 1},
        [],
    ],
    ids=str,
)
def test_what_is_no_vector_of_numbers_is_refused(room: Room, vector: Any) -> None:
    with pytest.raises(InvalidVectorError):
        room.store("x", namespace=NS, embedding=vector)
    assert room.stats().memories == 0


def _seal_zero_vector(room: Room, memory_id: bytes) -> None:
    """Put a vector row that opens and holds only zeros, as an older version of a program could have."""
    from strongroom.engine._write import vector_put
    from strongroom.ledger import WriteBatch

    engine = room.engine
    entry = engine.registry.get(NS)
    assert entry is not None
    row = engine.ledger.get(entry.ns, memory_id, Field.MEMORY)
    assert row is not None
    key = engine.vault.keyring.key(row.key_id)
    put = vector_put(engine, entry, key, memory_id, row.content_version, np.zeros(64, np.float32))
    engine.ledger.commit(WriteBatch(puts=[put]))


def test_a_sealed_vector_that_no_index_takes_is_left_out_and_made_again(open_room: OpenRoom) -> None:
    room = open_room()
    room.store("good neighbour", namespace=NS)
    bad = room.store("bad vector", namespace=NS)
    room.flush()
    room.search("good", namespaces=[NS])
    _seal_zero_vector(room, bad.memory_id.bytes)
    assert len(room.search("neighbour vector", namespaces=[NS])) == 2
    room.close()
    room = open_room()
    assert len(room.search("neighbour vector", namespaces=[NS])) == 2
    room.flush()
    assert len(room.search("neighbour vector", namespaces=[NS], mode="semantic")) == 2
    assert room.check(read_data=True).ok


def test_a_destroyed_key_takes_its_own_memories_and_nothing_else(open_room: OpenRoom) -> None:
    room = open_room()
    of_sam = room.store("about sam", namespace=NS, subject="sam")
    room.store("about tom", namespace=NS, subject="tom")
    room.flush()
    assert len(room.search("about", namespaces=[NS])) == 2  # the index is loaded, and knows both
    entry = room.engine.registry.get(NS)
    assert entry is not None
    keyring = room.engine.vault.keyring
    keyring.destroy_data_key(room.engine.vault.data_key(entry.ns, "sam").key_id)
    for _ in range(2):
        assert [h.memory.content for h in room.search("about", namespaces=[NS])] == ["about tom"]
        assert [m.content for m in room.list(namespaces=[NS]).memories] == ["about tom"]
        with pytest.raises((KeyStateError, MemoryNotFoundError)):
            room.get(of_sam.memory_id, namespace=NS)
        with pytest.raises(StrongroomError):
            room.update(of_sam.memory_id, namespace=NS, importance=0.9)
        assert room.stats().memories == 1
        room.flush()
        room.close()
        room = open_room()


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_destroyed_key_is_no_fault_in_a_check(open_room: OpenRoom, is_loaded: bool) -> None:
    """What was shredded on purpose is counted and named, and everything else is still examined."""
    room = open_room()
    room.store_many([{"content": f"about sam {i}", "namespace": NS, "subject": "sam"} for i in range(3)])
    of_tom = room.store("about tom", namespace=NS, subject="tom")
    room.flush()
    if is_loaded:
        room.search("about", namespaces=[NS])
    entry = room.engine.registry.get(NS)
    assert entry is not None
    room.engine.vault.keyring.destroy_data_key(room.engine.vault.data_key(entry.ns, "sam").key_id)
    report = room.check(read_data=True)
    assert report.ok, report.findings
    assert [(f.code, f.message[:10]) for f in report.findings] == [("memories_shredded", "3 memories")]
    assert report.memories == 1
    row = room.engine.ledger.get(entry.ns, of_tom.memory_id.bytes)
    assert row is not None
    with ledger_file(room.engine.directory) as db:
        db.execute(
            "UPDATE record SET sealed = ? WHERE ns = ? AND memory_id = ? AND field = 0",
            (row.sealed[:-1] + bytes([row.sealed[-1] ^ 1]), entry.ns, row.memory_id),
        )
    assert not room.check(read_data=True).ok


def test_an_index_that_failed_half_way_is_built_anew(room: Room) -> None:
    room.store("first words", namespace=NS)
    room.search("first", namespaces=[NS])
    entry = room.engine.registry.get(NS)
    assert entry is not None
    index = room.engine.indexes.ready(entry)

    def fail(*_: object) -> None:
        raise MemoryError

    index.table.append = fail  # type: ignore[method-assign, assignment]
    room.store("second words", namespace=NS)
    with contextlib.suppress(StrongroomError, MemoryError):
        room.search("words", namespaces=[NS], mode="keyword")
    assert len(room.search("words", namespaces=[NS], mode="keyword")) == 2


def test_a_refused_load_can_be_tried_again_and_gives_the_same_error(room: Room) -> None:
    """A load that failed once left its table behind, and every later one failed on that."""
    room.store("words", namespace=NS)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    fill = room.engine.indexes._fill

    def fail(*_: object) -> None:
        raise EmbeddingRejectedError("a load that fails")

    room.engine.indexes._fill = fail  # type: ignore[method-assign, assignment]
    for _ in range(3):
        with pytest.raises(EmbeddingRejectedError):
            room.search("words", namespaces=[NS])
    room.engine.indexes._fill = fill  # type: ignore[method-assign]
    assert len(room.search("words", namespaces=[NS])) == 1
