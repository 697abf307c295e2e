"""Store, get, search, list, update, delete through the embedded room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom
from tests.support.opened import rows_opened
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.errors import (
    ContentTooLargeError,
    DuplicateMemoryError,
    InvalidFilterError,
    InvalidInputError,
    InvalidNamespaceError,
    InvalidVectorError,
    LimitExceededError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    StorageBusyError,
    StrongroomError,
    VersionConflictError,
)
from strongroom.ledger import OutdatedError, WriteBatch
from strongroom.model import Field

NS = "company_a/support"


def test_a_stored_memory_comes_back_with_every_field(room: Room) -> None:
    created = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    parent = uuid4()
    stored = room.store(
        "Prefers annual billing",
        namespace=NS,
        kind="preference",
        metadata={"plan": {"tier": "enterprise"}, "seats": 40},
        tags=["billing", "pricing"],
        subject="user:42",
        agent_id="agent-7",
        session_id="s-1",
        sensitivity="restricted",
        importance=0.7,
        source="call",
        derived_from=[parent],
        created_at=created,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    got = room.get(stored.memory_id, namespace=NS)
    assert got.content == "Prefers annual billing"
    assert got.created_at == created
    assert (got.kind, got.subject) == ("preference", "user:42")
    assert (got.agent_id, got.session_id) == ("agent-7", "s-1")
    assert got.metadata == {"plan": {"tier": "enterprise"}, "seats": 40}
    assert got.tags == ("billing", "pricing")
    assert (got.sensitivity, got.importance, got.source) == ("restricted", 0.7, "call")
    assert got.derived_from == (parent,)
    assert got.expires_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert got.version == 1


def test_a_search_sees_every_write_that_was_acknowledged_before_it(room: Room) -> None:
    for i in range(30):
        m = room.store(f"incident number {i} in the eastern region", namespace=NS)
        hits = room.search(f"incident {i}", namespaces=[NS], k=50, mode="keyword")
        assert m.memory_id in {h.memory.memory_id for h in hits}


def test_a_memory_is_found_by_meaning_once_embedded(room: Room) -> None:
    room.store("the customer worries about the price of renewal", namespace=NS)
    room.store("deployment failed in the eastern region", namespace=NS)
    room.flush()
    hits = room.search("renewal price", namespaces=[NS], mode="semantic", k=2)
    assert hits[0].memory.content.startswith("the customer worries")
    assert hits[0].memory.has_embedding
    assert hits[0].similarity is not None and hits[0].similarity > hits[1].similarity  # type: ignore[operator]


def test_filters_are_applied_before_ranking(room: Room) -> None:
    for _ in range(40):
        room.store("pricing concern raised", namespace=NS, importance=0.1, kind="noise")
    wanted = room.store("weather report", namespace=NS, importance=0.9, kind="fact", tags=["x"])
    room.flush()
    for extra in (
        {"where": "importance > 0.5"},
        {"kinds": ["fact"]},
        {"tags_all": ["x"]},
        {"importance_min": 0.8},
    ):
        hits = room.search("pricing concern", namespaces=[NS], k=5, mode="semantic", **extra)  # type: ignore[arg-type]
        assert [h.memory.memory_id for h in hits] == [wanted.memory_id]


def test_never_fewer_results_than_exist(room: Room) -> None:
    for i in range(25):
        room.store(f"note {i}", namespace=NS)
    room.flush()
    assert len(room.search("something else entirely", namespaces=[NS], k=25, mode="semantic")) == 25
    assert len(room.search("something else entirely", namespaces=[NS], k=25)) == 25


def test_min_similarity_leaves_out_what_is_further_away(room: Room) -> None:
    room.store("alpha beta gamma", namespace=NS)
    room.store("delta epsilon zeta", namespace=NS)
    room.flush()
    hits = room.search("alpha beta gamma", namespaces=[NS], min_similarity=0.9)
    assert [h.memory.content for h in hits] == ["alpha beta gamma"]


def test_given_vectors_are_used_and_normalised(room: Room) -> None:
    far, near = np.zeros(64), np.zeros(64)
    far[0], near[1] = 3.0, 5.0
    room.store("far", namespace=NS, embedding=far)
    b = room.store("near", namespace=NS, embedding=list(near))
    assert b.has_embedding
    hits = room.search(embedding=near * 0.1, namespaces=[NS], mode="semantic", k=1)
    assert hits[0].memory.content == "near"
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_an_update_changes_what_is_found(room: Room) -> None:
    m = room.store("likes coffee", namespace=NS, metadata={"a": 1}, tags=["old"])
    room.flush()
    updated = room.update(m.memory_id, namespace=NS, content="likes green tea", tags=["new"])
    assert (updated.version, updated.created_at) == (2, m.created_at)
    assert not updated.has_embedding
    room.flush()
    assert not room.search("coffee", namespaces=[NS], mode="keyword")
    hit = room.search("green tea", namespaces=[NS])[0]
    assert hit.memory.content == "likes green tea"
    assert hit.memory.tags == ("new",)
    assert hit.memory.metadata == {"a": 1}
    assert hit.memory.has_embedding
    assert not room.search("tea", namespaces=[NS], tags_all=["old"])


def test_a_metadata_update_keeps_the_embedding(room: Room, model: WordModel) -> None:
    m = room.store("keeps its vector", namespace=NS)
    room.flush()
    calls = model.calls
    updated = room.update(m.memory_id, namespace=NS, importance=0.9)
    assert updated.has_embedding
    room.flush()
    assert model.calls == calls
    hits = room.search(embedding=model.vector("keeps its vector"), namespaces=[NS], mode="semantic")
    assert hits[0].memory.importance == 0.9


def test_a_deleted_memory_is_gone_from_everywhere(room: Room, open_room: OpenRoom) -> None:
    m = room.store("to be forgotten", namespace=NS)
    room.flush()
    assert room.delete(m.memory_id, namespace=NS) is True
    assert room.delete(m.memory_id, namespace=NS) is False
    for r in (room, open_room()):
        with pytest.raises(MemoryNotFoundError):
            r.get(m.memory_id, namespace=NS)
        assert r.search("forgotten", namespaces=[NS]) == []
        assert r.list(namespaces=[NS]).memories == ()


def test_the_id_of_a_deleted_memory_can_be_used_again(room: Room) -> None:
    i = uuid4()
    room.store("first", namespace=NS, memory_id=i)
    room.delete(i, namespace=NS)
    again = room.store("second", namespace=NS, memory_id=i)
    assert again.version > 1
    room.flush()
    assert room.get(i, namespace=NS).content == "second"
    assert [h.memory.content for h in room.search("second", namespaces=[NS])] == ["second"]


def test_a_taken_id_is_refused(room: Room) -> None:
    m = room.store("one", namespace=NS)
    with pytest.raises(DuplicateMemoryError):
        room.store("two", namespace=NS, memory_id=m.memory_id)
    assert room.get(m.memory_id, namespace=NS).content == "one"


def test_an_update_of_another_version_is_refused(room: Room) -> None:
    m = room.store("one", namespace=NS)
    room.update(m.memory_id, namespace=NS, importance=0.6, expected_version=1)
    with pytest.raises(VersionConflictError):
        room.update(m.memory_id, namespace=NS, importance=0.7, expected_version=1)


def test_listing_pages_newest_first_without_gaps(room: Room) -> None:
    base = datetime(2026, 5, 1, tzinfo=UTC)
    for i in range(23):
        room.store(
            f"n{i}", namespace=NS if i % 2 else "company_a/sales", created_at=base + timedelta(minutes=i // 2)
        )
    seen: list[str] = []
    cursor = None
    while True:
        page = room.list(namespaces=["company_a/*"], limit=5, cursor=cursor)
        seen.extend(m.content for m in page.memories)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == 23 and len(set(seen)) == 23
    times = [int(s[1:]) // 2 for s in seen]
    assert times == sorted(times, reverse=True)


def test_expired_memories_are_not_shown(open_room: OpenRoom) -> None:
    now = [1_800_000_000_000_000]
    room = open_room(clock_us=lambda: now[0])
    when = datetime.fromtimestamp(now[0] / 1e6, UTC) + timedelta(hours=1)
    m = room.store("short lived", namespace=NS, expires_at=when)
    room.flush()
    assert room.search("short lived", namespaces=[NS])
    now[0] += 3_600_000_001
    assert room.search("short lived", namespaces=[NS]) == []
    assert room.list(namespaces=[NS]).memories == ()
    with pytest.raises(MemoryNotFoundError):
        room.get(m.memory_id, namespace=NS)


def test_a_memory_that_would_end_before_it_begins_is_refused_and_one_that_has_ended_since_is_taken(
    open_room: OpenRoom,
) -> None:
    """A wrong unit or zone stores nothing that nobody finds; old data and an end set later are no mistake."""
    now = datetime.fromtimestamp(1_800_000_000, UTC)
    room = open_room(clock_us=lambda: 1_800_000_000_000_000)
    day, moment = timedelta(days=1), timedelta(microseconds=1)
    wrong: list[dict[str, datetime]] = [
        {"expires_at": datetime.fromtimestamp(1_800_000, UTC)},
        {"expires_at": now},
        {"created_at": now - day, "expires_at": now - day},
        {"created_at": now + day, "expires_at": now + day - moment},
    ]
    for times in wrong:
        item = {"content": "x", "namespace": NS, **times}
        for refused in (lambda i=item: room.store(**i), lambda i=item: room.store_many([i])):
            with pytest.raises(InvalidInputError, match="expires_at is not after created_at") as caught:
                refused()
            assert "its own created_at" in str(caught.value.hint)
    assert room.stats().memories == 0
    room.store("ended since", namespace=NS, created_at=now - day, expires_at=now - moment)
    room.store("just begun", namespace=NS, expires_at=now + moment)
    lasting = room.store("lasting", namespace=NS)
    assert {m.content for m in room.list(namespaces=[NS]).memories} == {"just begun", "lasting"}
    with pytest.raises(InvalidInputError, match="expires_at is not after created_at") as caught:
        room.update(lasting.memory_id, namespace=NS, expires_at=now - day)
    assert "or delete it" in str(caught.value.hint)
    room.update(lasting.memory_id, namespace=NS, expires_at=now + day)
    old = room.store("old", namespace=NS, created_at=now - day)
    room.update(old.memory_id, namespace=NS, expires_at=now)
    with pytest.raises(MemoryNotFoundError):
        room.get(old.memory_id, namespace=NS)


def test_a_clock_that_goes_back_never_makes_updated_at_go_back(open_room: OpenRoom) -> None:
    now = [1_800_000_000_000_000]
    room = open_room(clock_us=lambda: now[0])
    m = room.store("x", namespace=NS)
    now[0] -= 60_000_000
    updated = room.update(m.memory_id, namespace=NS, importance=0.1)
    assert updated.updated_at > m.updated_at
    assert room.search("x", namespaces=[NS])


def test_store_many_gives_the_same_objects_in_order(room: Room) -> None:
    out = room.store_many(
        [{"content": f"item {i}", "namespace": NS, "subject": f"user:{i % 7}"} for i in range(2500)]
    )
    assert [m.content for m in out] == [f"item {i}" for i in range(2500)]
    assert room.stats().memories == 2500
    assert room.get(out[1234].memory_id, namespace=NS).subject == f"user:{1234 % 7}"


def test_large_content_is_kept_whole(room: Room) -> None:
    text = "Ä" * 1_500_000
    m = room.store(text, namespace=NS)
    assert room.get(m.memory_id, namespace=NS).content == text


BAD = [
    ({"content": ""}, InvalidInputError),
    ({"content": "x" * (9 * 1024 * 1024)}, ContentTooLargeError),
    ({"content": "lone \ud800 surrogate"}, InvalidInputError),
    ({"content": "nul \x00 character"}, InvalidInputError),
    ({"content": 7}, InvalidInputError),
    ({"namespace": "../etc"}, InvalidNamespaceError),
    ({"namespace": "a//b"}, InvalidNamespaceError),
    ({"namespace": ""}, InvalidNamespaceError),
    ({"namespace": "company_a/*"}, InvalidNamespaceError),
    ({"importance": 1.5}, InvalidInputError),
    ({"importance": float("nan")}, InvalidInputError),
    ({"importance": "high"}, InvalidInputError),
    ({"metadata": {"a": float("inf")}}, InvalidInputError),
    ({"metadata": {"a": object()}}, InvalidInputError),
    ({"metadata": ["a"]}, InvalidInputError),
    ({"metadata": {"a": "x" * 100_000}}, ContentTooLargeError),
    ({"metadata": {"n": 2**70}}, InvalidInputError),
    ({"tags": "notalist"}, InvalidInputError),
    ({"tags": ["x"] * 65}, LimitExceededError),
    ({"tags": [3]}, InvalidInputError),
    ({"embedding": [1.0, 2.0]}, InvalidVectorError),
    ({"embedding": [float("nan")] * 64}, InvalidVectorError),
    ({"embedding": [0.0] * 64}, InvalidVectorError),
    ({"embedding": [float("inf")] + [0.0] * 63}, InvalidVectorError),
    ({"embedding": "vector"}, InvalidVectorError),
    ({"memory_id": "not-a-uuid"}, InvalidInputError),
    ({"created_at": datetime(2026, 1, 1)}, InvalidInputError),
    ({"created_at": "yesterday"}, InvalidInputError),
    ({"subject": ""}, InvalidInputError),
    ({"derived_from": ["x"]}, InvalidInputError),
]


@pytest.mark.parametrize(("change", "error"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_gives_one_typed_error_and_stores_nothing(
    room: Room, change: dict[str, object], error: type[StrongroomError]
) -> None:
    good: dict[str, object] = {"content": "fine", "namespace": NS}
    with pytest.raises(error) as caught:
        room.store(**{**good, **change})  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert room.stats().memories == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query": None}, InvalidInputError),
        ({"query": ""}, InvalidInputError),
        ({"k": 0}, InvalidInputError),
        ({"k": 10**6}, LimitExceededError),
        ({"mode": "magic"}, InvalidInputError),
        ({"where": "importance >"}, InvalidFilterError),
        ({"where": "1=1; DROP TABLE mem"}, InvalidFilterError),
        ({"where": "content = getenv('HOME')"}, InvalidFilterError),
        ({"min_similarity": 2.0}, InvalidInputError),
        ({"explain": "yes"}, InvalidInputError),
        ({"embedding": [1.0]}, InvalidVectorError),
        ({"namespaces": []}, InvalidInputError),
        ({"namespaces": ["no/such"]}, NamespaceNotFoundError),
    ],
)
def test_a_malformed_search_gives_one_typed_error(
    room: Room, arguments: dict[str, object], error: type[StrongroomError]
) -> None:
    room.store("something", namespace=NS)
    good: dict[str, object] = {"query": "x", "namespaces": [NS]}
    with pytest.raises(error):
        room.search(**{**good, **arguments})  # type: ignore[arg-type]


def test_nothing_readable_is_left_on_disk(room: Room, data: Path) -> None:
    room.store(
        "canaryword-content",
        namespace="canaryword-space/a",
        tags=["canaryword-tag"],
        subject="canaryword-subject",
        metadata={"canaryword-key": "canaryword-value"},
        agent_id="canaryword-agent",
    )
    room.flush()
    room.search("canaryword-query", namespaces=["*"])
    with pytest.raises(MemoryNotFoundError):
        room.get(uuid4(), namespace="canaryword-space/a")
    room.close()
    for directory in (data, data.with_name("data.keys")):
        for file in directory.rglob("*"):
            if file.is_file():
                assert b"canaryword" not in file.read_bytes(), file


def test_a_bulk_load_that_cannot_be_committed_fails_and_is_never_taken_for_an_empty_one(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its items are gone once they were read: nothing may begin it anew and find none."""
    ledger = room.engine.ledger
    commit = ledger.commit

    def always_outdated(batch: WriteBatch) -> list[int]:
        if batch.filling is not None or any(put.field == Field.MEMORY for put in batch.puts):
            raise OutdatedError
        return commit(batch)

    room.store("there before", namespace=NS)
    monkeypatch.setattr(ledger, "commit", always_outdated)
    with pytest.raises(StorageBusyError):
        room.store_many({"content": f"item {n}", "namespace": NS} for n in range(3))
    with pytest.raises(StorageBusyError):
        room.store("one", namespace=NS)
    monkeypatch.undo()
    assert [m.content for m in room.list(namespaces=[NS]).memories] == ["there before"]


def test_of_namespaces_with_different_models_only_what_is_returned_is_opened(
    tmp_path: Path, model: WordModel
) -> None:
    """All are ranked together and cut to ``k`` before one is opened; the audit entry names all that were."""
    other = EmbeddingConfig(provider="none", dimensions=32)
    embedding = EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50)
    strongroom.init(tmp_path / "data", config=Config(embedding=embedding, models={"own": other}))
    with strongroom.open(tmp_path / "data", provider=model, debug=True) as room:
        room.create_namespace("a/words")
        room.create_namespace("a/vectors", model="own")
        for i in range(6):
            room.store(f"harbour number {i}", namespace="a/words")
            room.store(f"harbour at pier {i}", namespace="a/vectors", embedding=np.eye(32)[i])
        room.flush()
        assert {h.memory.namespace for h in room.search("harbour", namespaces=["a/*"], k=12)} == {
            "a/words",
            "a/vectors",
        }
        with rows_opened(room.engine.vault) as rows:
            hits = room.search("harbour", namespaces=["a/*"], k=4)
        opened = [row.memory_id for row in rows if row.ns and row.field == Field.MEMORY]
        assert sorted(opened) == sorted(h.memory.memory_id.bytes for h in hits) and len(hits) == 4
        scores = [h.score for h in room.search("harbour", namespaces=["a/*"], k=12)]
        assert [h.score for h in hits] == scores[:4] == sorted(scores, reverse=True)[:4]
