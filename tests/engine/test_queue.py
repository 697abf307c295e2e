"""The embedding queue through outages, poison, restarts and changes of the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.conftest import OpenRoom
from tests.support.database import ledger_file
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import _access_stats
from strongroom.engine._access_stats import AccessStats
from strongroom.errors import EmbeddingUnavailableError, OperationTimeoutError
from strongroom.ledger import WriteBatch
from strongroom.model import Field, SealedRecord

NS = "company_a/support"


def test_a_model_down_for_a_thousand_stores_loses_nothing(open_room: OpenRoom, model: WordModel) -> None:
    room = open_room()
    model.down = True
    for start in range(0, 1000, 100):
        room.store_many([{"content": f"note number {i}", "namespace": NS} for i in range(start, start + 100)])
    with pytest.raises(OperationTimeoutError):
        room.flush(timeout_s=0.2)
    assert room.stats().pending == 1000
    assert len(room.search("note 77", namespaces=[NS], mode="keyword", k=1)) == 1
    model.down = False
    room.flush(timeout_s=60)
    stats = room.stats()
    assert (stats.embedded, stats.pending, stats.dead) == (1000, 0, 0)
    assert len(room.search("note", namespaces=[NS], mode="semantic", k=1000)) == 1000


@pytest.mark.parametrize("at_hand", [False, True])
def test_while_the_model_is_down_hybrid_search_goes_on_by_keyword_and_semantic_says_so(
    open_room: OpenRoom, model: WordModel, monkeypatch: pytest.MonkeyPatch, at_hand: bool
) -> None:
    """Whether the question is embedded before the search, or during it as by the built-in model."""
    room = open_room()
    monkeypatch.setattr(room.engine.models, "is_at_hand", lambda entry: at_hand)
    room.store("pricing concern", namespace=NS)
    room.flush()
    model.down = True
    assert len(room.search("pricing", namespaces=[NS])) == 1
    with pytest.raises(EmbeddingUnavailableError):
        room.search("pricing", namespaces=[NS], mode="semantic")


def test_a_text_that_the_model_refuses_is_a_dead_letter_and_its_neighbours_are_not(
    open_room: OpenRoom, model: WordModel
) -> None:
    room = open_room()
    model.poison = "POISON"
    room.store_many([{"content": f"good {i}" if i != 13 else "POISON", "namespace": NS} for i in range(40)])
    room.flush(timeout_s=30)
    dead = room.queue(dead=True)
    assert [(d.dead, d.error) for d in dead] == [(True, "embedding_rejected")]
    assert room.stats().embedded == 39
    model.poison = ""
    assert room.requeue() == 1
    room.flush(timeout_s=30)
    assert room.stats().embedded == 40


@pytest.mark.parametrize("left_behind", [False, True])
def test_one_namespaces_load_does_not_keep_others_from_being_found_by_meaning(
    tmp_path: Path, model: WordModel, left_behind: bool
) -> None:
    """Far more texts of one namespace than the channel holds, and then one of another: it is embedded within
    a few batches, also when all of it was left in the durable queue by a process that had no worker."""
    embedding = EmbeddingConfig(dimensions=64, channel_items_max=64, batch_size_max=8)
    strongroom.init(tmp_path / "d", config=Config(embedding=embedding))
    with strongroom.open(tmp_path / "d", provider=model, worker=False) as room:
        room.store_many([{"content": f"load {i}", "namespace": NS} for i in range(500 if left_behind else 1)])
        late = room.store("from another namespace", namespace="company_b/support")
        assert not left_behind or late.has_embedding is False
    hold, texts = threading.Event(), []

    def embed(given: Sequence[str]) -> NDArray[np.float32]:
        hold.wait(30)
        texts.extend(given)
        return WordModel.embed(model, given)

    slow = WordModel()
    slow.embed = embed  # type: ignore[method-assign]
    with strongroom.open(tmp_path / "d", provider=slow) as room:
        if not left_behind:
            room.store_many([{"content": f"load {i}", "namespace": NS} for i in range(500)])
            room.store("the late one", namespace="company_b/support")
        hold.set()
        room.flush(timeout_s=60)
        assert room.stats().embedded == (501 if left_behind else 503)
    wanted = "from another namespace" if left_behind else "the late one"
    assert texts.index(wanted) < 40


def test_what_one_process_leaves_the_next_one_embeds(open_room: OpenRoom, model: WordModel) -> None:
    room = open_room(worker=False)
    room.store_many([{"content": f"n {i}", "namespace": NS} for i in range(50)])
    room.close()
    room = open_room()
    room.flush(timeout_s=30)
    assert room.stats().embedded == 50


def test_a_vector_that_comes_while_a_namespace_is_loaded_is_not_taken_for_lost(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between reading the rows and reading the queue another process may embed: no alarm, no second time."""
    open_room(worker=False).store("pricing concern", namespace=NS)
    room = open_room(worker=False)
    ledger = room.engine.ledger
    queue, embedded = ledger.queue, []

    def queue_after_embedding(**options: Any) -> Any:
        if not embedded:
            embedded.append(1)
            open_room().flush(timeout_s=30)
        return queue(**options)

    monkeypatch.setattr(ledger, "queue", queue_after_embedding)
    assert len(room.search("pricing", namespaces=[NS], mode="keyword")) == 1
    assert embedded and ledger.queue_stats().pending == 0
    assert "vectors_lost" not in capfd.readouterr().err


def test_new_content_is_never_given_the_vector_of_the_old(open_room: OpenRoom, model: WordModel) -> None:
    room = open_room()
    gate = threading.Event()
    original = model.embed

    def slow(texts: list[str]):  # type: ignore[no-untyped-def]
        out = original(texts)
        if "first words" in texts:
            gate.wait(5)
        return out

    model.embed = slow  # type: ignore[method-assign, assignment]
    m = room.store("first words", namespace=NS)
    time.sleep(0.1)
    room.update(m.memory_id, namespace=NS, content="second thoughts")
    gate.set()
    room.flush(timeout_s=30)
    hit = room.search(embedding=model.vector("second thoughts"), namespaces=[NS], mode="semantic")[0]
    assert hit.similarity == pytest.approx(1.0, abs=1e-4)


def test_another_model_marks_vectors_stale_and_embeds_everything_again(
    open_room: OpenRoom, model: WordModel
) -> None:
    room = open_room()
    room.store_many([{"content": f"words number {i}", "namespace": NS} for i in range(60)])
    room.flush()
    room.close()
    other = WordModel(dimensions=32, name="other")
    room = open_room(provider=other)
    assert len(room.search("words number 7", namespaces=[NS], k=100)) > 0
    room.flush(timeout_s=30)
    assert room.stats().embedded == 60
    assert sorted(set(other.texts) & {f"words number {i}" for i in range(60)}) == sorted(
        f"words number {i}" for i in range(60)
    )
    hit = room.search(embedding=other.vector("words number 7"), namespaces=[NS], mode="semantic")[0]
    assert hit.memory.content == "words number 7"
    assert room.check(read_data=True).ok


def test_a_store_without_a_model_takes_given_vectors_and_searches_by_keyword(tmp_path: Path) -> None:
    strongroom.init(tmp_path / "d", config=Config(embedding=EmbeddingConfig(provider="none", dimensions=8)))
    with strongroom.open(tmp_path / "d") as room:
        room.store("no vector here", namespace=NS)
        room.store("with vector", namespace=NS, embedding=[1.0] + [0.0] * 7)
        room.flush(timeout_s=1)
        assert room.stats().pending == 0
        assert len(room.search("vector", namespaces=[NS])) == 2
        hits = room.search(embedding=[1.0] + [0.0] * 7, namespaces=[NS], mode="semantic")
        assert [h.memory.content for h in hits] == ["with vector"]


def test_a_given_vector_survives_a_restart(tmp_path: Path) -> None:
    """No model could make it again: what is found by meaning then was sealed and kept with its memory."""
    strongroom.init(tmp_path / "d", config=Config(embedding=EmbeddingConfig(provider="none", dimensions=8)))
    vectors = np.eye(8, dtype=np.float32)
    with strongroom.open(tmp_path / "d") as room:
        ids = [room.store(f"number {n}", namespace=NS, embedding=vectors[n]).memory_id for n in range(8)]
    with strongroom.open(tmp_path / "d") as room:
        for n in range(8):
            (hit,) = room.search(embedding=vectors[n], namespaces=[NS], mode="semantic", k=1)
            assert hit.memory.memory_id == ids[n] and hit.similarity == pytest.approx(1.0)
            assert room.get(ids[n], namespace=NS).has_embedding


def test_access_is_counted_and_survives_a_restart(open_room: OpenRoom) -> None:
    room = open_room()
    m = room.store("counted", namespace=NS)
    room.flush()
    for _ in range(3):
        room.search("counted", namespaces=[NS])
    room.get(m.memory_id, namespace=NS)
    room.close()
    room = open_room()
    again = room.get(m.memory_id, namespace=NS)
    assert again.access_count == 4 and again.last_accessed_at is not None
    assert len(room.list(namespaces=[NS], where="access_count >= 4").memories) == 1


def test_a_counter_is_opened_once_and_again_when_a_byte_of_it_is_another(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is the row, byte for byte: one that was changed from outside is not believed."""
    flush = AccessStats.flush
    monkeypatch.setattr(AccessStats, "flush", lambda self, *_: 0)  # of the housekeeping
    room = open_room()
    m = room.store("counted", namespace=NS)
    room.search("counted", namespaces=[NS], mode="keyword")
    flush(room.engine.access_stats)
    vault, opened = room.engine.vault, []
    open_row = vault.open

    def counting(tenant: str, row: SealedRecord) -> bytes:
        opened.extend([row.seq] if row.field == Field.ACCESS else [])
        return open_row(tenant, row)

    monkeypatch.setattr(vault, "open", counting)
    assert [room.get(m.memory_id, namespace=NS).access_count for _ in range(3)] == [1, 2, 3]
    assert not opened  # this process has just written it
    other = open_room(worker=False)
    other.get(m.memory_id, namespace=NS)
    flush(other.engine.access_stats)
    assert [room.get(m.memory_id, namespace=NS).access_count for _ in range(2)] == [5, 6]
    assert len(opened) == 1
    db = ledger_file(room.engine.directory)
    db.execute(
        "UPDATE record SET sealed = CAST(sealed || x'00' AS BLOB) WHERE field = ?", (int(Field.ACCESS),)
    )
    db.close()
    assert room.get(m.memory_id, namespace=NS).access_count < 6  # begun again: those of this process alone
    assert len(opened) == 2


def test_counters_are_written_a_few_at_a_time_and_a_store_goes_between(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside searches no commit holds more than a few counters, and whoever stores in a pause does not wait
    for the rest of them; what was counted meanwhile is added."""
    monkeypatch.setattr(_access_stats, "_FEW", 2)
    room = open_room(worker=False)
    ids = [room.store(f"counted {i}", namespace=NS).memory_id for i in range(5)]
    for memory_id in ids:
        room.get(memory_id, namespace=NS)
    ledger, sizes, pauses = room.engine.ledger, [], []
    commit = ledger.commit

    def counting(batch: WriteBatch) -> list[int]:
        sizes.append(sum(put.field == Field.ACCESS for put in batch.puts))
        return commit(batch)

    def rest(seconds: float) -> None:
        pauses.append(seconds)
        room.store("between", namespace=NS)
        room.get(ids[0], namespace=NS)

    monkeypatch.setattr(ledger, "commit", counting)
    assert room.engine.access_stats.flush(rest, 0.5) == 5
    assert [n for n in sizes if n] == [2, 2, 1] and sizes.index(2, 1) > 1
    assert len(pauses) == 2 and all(0 < p <= 0.25 for p in pauses)
    assert room.engine.access_stats.flush() == 1
    assert [room.get(i, namespace=NS).access_count for i in ids] == [3, 1, 1, 1, 1]


def test_counters_wait_for_their_time_unless_there_are_many(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The housekeeping writes them once in ``access_flush_ms``, or when very many wait, and not before."""
    room = open_room(worker=False)
    m = room.store("counted", namespace=NS)
    entry = room.engine.registry.get(NS)
    assert entry is not None

    def written() -> bool:
        room.engine._flush_due()
        if room.engine._flusher is not None:
            room.engine._flusher.join(10)
        return room.engine.ledger.get(entry.ns, m.memory_id.bytes, Field.ACCESS) is not None

    room.get(m.memory_id, namespace=NS)
    assert not written()
    monkeypatch.setattr(_access_stats, "_MANY", 0)
    assert written()


def test_flush_waits_for_what_was_stored_before_and_not_for_what_others_store_meanwhile(
    open_room: OpenRoom, model: WordModel
) -> None:
    room = open_room()
    stop = threading.Event()

    def keep_storing() -> None:
        while not stop.is_set():
            room.store("more and more", namespace="company_b/busy")

    before = room.store_many([{"content": f"note {i}", "namespace": NS} for i in range(20)])
    writer = threading.Thread(target=keep_storing)
    writer.start()
    try:
        room.flush(timeout_s=30)
        assert all(room.get(m.memory_id, namespace=NS).has_embedding for m in before)
    finally:
        stop.set()
        writer.join()


def test_flush_after_a_change_of_model_waits_for_the_new_vectors(open_room: OpenRoom) -> None:
    room = open_room()
    room.store("kept", namespace=NS)
    room.flush()
    room.close()
    other = WordModel(dimensions=16, name="other")
    room = open_room(provider=other)
    room.flush(timeout_s=30)
    assert "kept" in other.texts and room.stats().embedded == 1


def test_vectors_made_while_another_process_changes_the_model_are_not_kept(
    open_room: OpenRoom, model: WordModel
) -> None:
    """They would take the place of those that the new model still has to make, and nobody would make them."""
    made, go_on = threading.Event(), threading.Event()
    original = model.embed

    def slow(texts: Sequence[str]) -> NDArray[np.float32]:
        made.set()
        assert go_on.wait(30)
        return original(texts)

    room = open_room()
    room.store("first", namespace=NS)
    room.flush()
    model.embed = slow  # type: ignore[method-assign, assignment]
    memory = room.store("zebra", namespace=NS)
    assert made.wait(30)
    newer = WordModel(64, name="newer")
    other = open_room(provider=newer, worker=False)
    other.search("zebra", namespaces=[NS], mode="keyword")  # moves the namespace
    go_on.set()
    room.close()
    entry = other.engine.registry.get(NS)
    assert entry is not None
    row = other.engine.ledger.get(entry.ns, memory.memory_id.bytes, Field.VECTOR)
    assert row is None or row.model == entry.model_no
    assert other.engine.ledger.queue_stats(entry.ns).pending == 2
    other.close()
    room = open_room(provider=newer)
    room.flush()
    (hit, *_) = room.search(embedding=newer.vector("zebra"), namespaces=[NS], mode="semantic")
    assert hit.memory.memory_id == memory.memory_id and hit.similarity > 0.999


@pytest.mark.parametrize("operation", ["store", "store_many", "update"])
def test_a_vector_given_while_the_model_changes_counts_for_the_model_that_there_is(
    open_room: OpenRoom, model: WordModel, operation: str
) -> None:
    """The row says the model of the namespace as it is at the commit, not as it was before."""
    room = open_room(worker=False)
    other = open_room(provider=WordModel(64, name="newer"), worker=False)
    first = room.store("first", namespace=NS)
    room.search("first", namespaces=[NS])
    vector = model.vector("zebra")
    commit = room.engine.ledger.commit

    def late(batch: WriteBatch) -> list[int]:
        room.engine.ledger.commit = commit  # type: ignore[method-assign]
        other.search("first", namespaces=[NS], mode="keyword")  # moves the namespace
        return commit(batch)

    room.engine.ledger.commit = late  # type: ignore[method-assign]
    if operation == "store":
        memory = room.store("zebra", namespace=NS, embedding=vector)
    elif operation == "store_many":
        (memory,) = room.store_many([{"content": "zebra", "namespace": NS, "embedding": vector}])
    else:
        memory = room.update(first.memory_id, namespace=NS, content="zebra", embedding=vector)
    entry = other.engine.registry.get(NS)
    assert entry is not None
    row = other.engine.ledger.get(entry.ns, memory.memory_id.bytes, Field.VECTOR)
    assert row is not None and row.model == entry.model_no
