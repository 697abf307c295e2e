"""An import checks everything first, stores each line once whatever interrupts it, and shows no content."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID, uuid5

import pytest
from tests.cli.conftest import Run
from tests.support.listed import memories_of

import strongroom
from strongroom.config import Config, EmbeddingConfig, LimitsConfig
from strongroom.engine import Room, _bulk
from strongroom.errors import ConflictError, InvalidInputError, MemoryNotFoundError, StorageFullError
from strongroom.lifecycle import importer
from strongroom.lifecycle._import_lines import LineContext, parse_line
from strongroom.lifecycle._import_state import ImportState
from strongroom.lifecycle.importer import Importer, ImportReport
from strongroom.model import Memory, MemoryDraft

NS = "company_a/support"
SECRET = "the-canary-in-the-content"


def lines(count: int, start: int = 0) -> str:
    return "".join(
        json.dumps({"content": f"memory number {n}", "namespace": NS, "age_s": n}) + "\n"
        for n in range(start, start + count)
    )


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(tmp_path / "room", config=config)
    with strongroom.open(tmp_path / "room") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.jsonl"


def load(room: Any, source: Path, **options: Any) -> ImportReport:
    return Importer(room, source.with_name("state"), **options).run(source)


def numbers(room: Room) -> Counter[str]:
    return Counter(m.content for m in memories_of(room))


def once(count: int) -> Counter[str]:
    return Counter(f"memory number {n}" for n in range(count))


def test_ids_of_nearby_lines_begin_alike_and_an_import_goes_on_with_those_it_began_with() -> None:
    """New imports: unpredictable, distinct, the same when repeated, alike in 48 bits; old ones: UUIDv5."""
    state = ImportState.new()
    context = LineContext(state.import_id, state.started_at, NS, LimitsConfig(), state.ids)
    raw = json.dumps({"content": "x"}).encode()
    made = [parse_line(raw, number, context)[0].memory_id for number in (1, 2, 999, 1000, 1001)]
    assert made == [parse_line(raw, number, context)[0].memory_id for number in (1, 2, 999, 1000, 1001)]
    beginnings = [i.bytes[:6] for i in made if i is not None]
    assert len(set(made)) == 5 and beginnings == [beginnings[0]] * 3 + [beginnings[3]] * 2
    assert beginnings[0] != beginnings[3]
    assert {(i.version, i.variant) for i in made if i is not None} == {(8, RFC_4122)}
    fields = json.loads(state.encode())
    del fields["ids"], fields["check"]  # as records of before were
    before = ImportState.decode(json.dumps(fields).encode())
    context = LineContext(before.import_id, before.started_at, NS, LimitsConfig(), before.ids)
    assert parse_line(raw, 7, context)[0].memory_id == uuid5(state.import_id, "7")
    assert ImportState.decode(before.encode()) == before


class Cut(BaseException):
    """Ends an import like a kill would."""


def mixed(count: int) -> list[dict[str, Any]]:
    """Lines of which the store refuses one, two are one memory, and one is no good by itself."""
    given = [
        {"content": f"memory number {n}", "namespace": NS, "embedding": [1, 2, 3, n]} for n in range(count)
    ]
    given[count // 2]["embedding"] = [1, 2]
    twice = "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"
    given[count // 4]["memory_id"] = given[count - 50]["memory_id"] = twice
    given[count // 3]["kind"] = 7
    return given


def test_an_import_with_workers_stores_what_one_without_does(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused lines are left out and listed, a memory that is there is counted, the rest is stored once."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", 100)
    monkeypatch.setattr(importer, "_REFUSED_LINES", 150)
    given = mixed(1200)
    source.write_text("".join(json.dumps(line) + "\n" for line in given), "utf-8")
    report = load(room, source, workers=2, bad_lines=source.with_name("bad"))
    assert (report.lines, report.stored, report.duplicates, report.skipped) == (1200, 1197, 1, 2)
    listed = [json.loads(line)["line"] for line in source.with_name("bad").read_text("utf-8").splitlines()]
    assert sorted(listed) == [401, 601]
    left_out = (400, 600, 1150)
    assert numbers(room) == Counter(f"memory number {n}" for n in range(1200) if n not in left_out)
    assert load(room, source, workers=2) == ImportReport(lines=1200, before=1200)


def test_an_import_with_workers_that_is_interrupted_goes_on(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record counts what is durable and no more; what was stored beyond it is not stored twice."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", 100)
    source.write_text(lines(6000), "utf-8")

    def cut(phase: str, done: int, total: int) -> None:
        if phase == "storing" and done:
            raise Cut

    with pytest.raises(Cut):
        load(room, source, workers=2, progress=cut)
    stored = len(memories_of(room))
    assert 100 <= stored < 6000 and stored % 100 == 0
    report = load(room, source, workers=2)
    assert report.before + report.stored + report.duplicates == 6000 and report.before >= 100
    assert numbers(room) == once(6000)


class Cutting:
    """A store that is cut off at a batch, before or after it became durable."""

    def __init__(self, room: Room, batches: int, *, after: bool) -> None:
        self._room, self._left, self._after = room, batches, after

    def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> list[Memory]:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Cut
        stored = self._room.store_many(items)
        if self._left < 0:
            raise Cut
        return stored

    def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
        return self._room.get(memory_id, namespace=namespace)


# -- the form ---------------------------------------------------------------------------------------
def test_a_memory_keeps_every_field_that_its_line_has(room: Room, source: Path) -> None:
    wanted = "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e90"
    parent = "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e91"
    row = {
        "content": "Prefers mail.", "namespace": NS, "memory_id": wanted, "kind": "preference",
        "subject": "user:1", "agent_id": "a", "session_id": "s", "source": "chat", "sensitivity": "high",
        "tags": ["x", "y"], "metadata": {"a": {"b": [1, None, True]}}, "importance": 1,
        "derived_from": [parent], "created_at": "2026-03-01T12:00:00+02:00",
        "expires_at": "2999-01-01T00:00:00Z", "embedding": [1, 0, 0, 0],
    }  # fmt: skip
    source.write_text(json.dumps(row) + "\r\n\n")
    assert load(room, source).stored == 1
    m = room.get(wanted, namespace=NS)
    assert (m.content, m.kind, m.subject, m.agent_id, m.session_id) == (
        "Prefers mail.", "preference", "user:1", "a", "s"
    )  # fmt: skip
    assert (m.source, m.sensitivity, m.tags, m.importance) == ("chat", "high", ("x", "y"), 1.0)
    assert dict(m.metadata) == {"a": {"b": [1, None, True]}}
    assert m.derived_from == (UUID(parent),)
    assert m.created_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert m.expires_at is not None
    assert m.has_embedding


def test_old_data_that_has_ended_since_is_imported_and_an_end_that_passes_on_the_way_stops_nothing(
    room: Room, source: Path
) -> None:
    """A line with an end and no beginning begins with the import, whenever its batch is stored."""
    begun = datetime.now(UTC) - timedelta(days=1)
    context = LineContext(uuid5(UUID(int=0), "x"), begun, NS, LimitsConfig())
    during = {"content": "x", "expires_at": (begun + timedelta(hours=1)).isoformat()}
    (draft,) = parse_line(json.dumps(during).encode(), 1, context)
    room.store_many([draft])
    ended = {"expires_at": "2026-02-01T00:00:00Z", "created_at": "2026-01-01T00:00:00+01:00"}
    source.write_text(json.dumps({"content": "y", "namespace": NS, **ended}) + "\n" + lines(1))
    assert load(room, source).stored == 2
    assert room.stats().memories == 3 and numbers(room) == once(1)


def test_a_conversation_becomes_one_memory_per_message_in_order(room: Room, source: Path) -> None:
    row = {
        "conversation_id": "c-9", "subject": "user:1", "metadata": {"plan": "team"}, "tags": ["t"],
        "messages": [
            {"role": "user", "content": "first", "at": "2026-03-01T12:00:00Z"},
            {"role": "assistant", "content": "second"},
            {"role": "user", "content": "third", "at": "2026-03-01T12:00:09Z"},
        ],
    }  # fmt: skip
    source.write_text(json.dumps(row))
    assert load(room, source, namespace=NS).stored == 3
    found = sorted(memories_of(room), key=lambda m: m.metadata["turn"])
    assert [(m.content, m.metadata["role"]) for m in found] == [
        ("first", "user"), ("second", "assistant"), ("third", "user")
    ]  # fmt: skip
    assert {(m.kind, m.session_id, m.subject, m.tags, m.metadata["plan"]) for m in found} == {
        ("conversation", "c-9", "user:1", ("t",), "team")
    }
    assert found[0].created_at == found[1].created_at < found[2].created_at


BAD: list[tuple[str, object]] = [
    ("not JSON", "{"),
    ("not JSON", '{"content": "x", "namespace": "a/b", "importance": 1e}'),
    ("not a JSON object", "[1]"),
    ("not UTF-8", b"\xff{}"),
    ("twice", '{"content": "x", "content": "y", "namespace": "a/b"}'),
    ("NaN", '{"content": "x", "namespace": "a/b", "importance": NaN}'),
    ("content", {"namespace": NS}),
    ("content", {"namespace": NS, "content": ""}),
    ("content", {"namespace": NS, "content": 5}),
    ("content is not valid Unicode", '{"content": "\\ud800", "namespace": "a/b"}'),
    ("NUL", '{"content": "a\\u0000b", "namespace": "a/b"}'),
    ("namespace is missing", {"content": SECRET}),
    ("namespace", {"content": SECRET, "namespace": "../x"}),
    ("unknown key", {"content": SECRET, "namespace": NS, SECRET: 1}),
    ("importance", {"content": SECRET, "namespace": NS, "importance": 1.5}),
    ("importance", {"content": SECRET, "namespace": NS, "importance": True}),
    ("importance", {"content": SECRET, "namespace": NS, "importance": 10**400}),
    ("age_s", {"content": SECRET, "namespace": NS, "age_s": 10**400}),
    ("embedding", {"content": SECRET, "namespace": NS, "embedding": [10**400]}),
    ("tags", {"content": SECRET, "namespace": NS, "tags": [1]}),
    ("tags", {"content": SECRET, "namespace": NS, "tags": "x"}),
    ("metadata", {"content": SECRET, "namespace": NS, "metadata": []}),
    ("memory_id", {"content": SECRET, "namespace": NS, "memory_id": "x"}),
    ("derived_from", {"content": SECRET, "namespace": NS, "derived_from": [1]}),
    ("created_at has no offset", {"content": SECRET, "namespace": NS, "created_at": "2026-01-01T00:00:00"}),
    ("expires_at", {"content": SECRET, "namespace": NS, "expires_at": 5}),
    ("not after", {"content": SECRET, "namespace": NS, "expires_at": "2026-01-01T00:00:00Z"}),
    ("not after", {"content": SECRET, "namespace": NS, "expires_at": "2026-01-01T00:00:00Z", "age_s": 1}),
    ("exclude", {"content": SECRET, "namespace": NS, "created_at": "2026-01-01T00:00:00Z", "age_s": 1}),
    ("age_s", {"content": SECRET, "namespace": NS, "age_s": -1}),
    ("age_s", {"content": SECRET, "namespace": NS, "age_s": 1e300}),
    ("embedding", {"content": SECRET, "namespace": NS, "embedding": ["x"]}),
    ("embedding", {"content": SECRET, "namespace": NS, "embedding": []}),
    ("subject", {"content": SECRET, "namespace": NS, "subject": "x" * 600}),
    ("conversation_id", {"namespace": NS, "messages": [{"role": "user", "content": SECRET}]}),
    ("messages", {"namespace": NS, "conversation_id": "c", "messages": []}),
    ("messages[0]", {"namespace": NS, "conversation_id": "c", "messages": [SECRET]}),
    ("role", {"namespace": NS, "conversation_id": "c", "messages": [{"role": SECRET, "content": "x"}]}),
    ("role", {"namespace": NS, "conversation_id": "c", "metadata": {"turn": 1},
              "messages": [{"role": "user", "content": SECRET}]}),
    ("at", {"namespace": NS, "conversation_id": "c",
            "messages": [{"role": "user", "content": SECRET, "at": "today"}]}),
    ("key", {"namespace": NS, "conversation_id": "c", "kind": "x",
             "messages": [{"role": "user", "content": "x"}]}),
]  # fmt: skip


def encoded(row: object) -> bytes:
    if isinstance(row, bytes):
        return row
    return row.encode() if isinstance(row, str) else json.dumps(row).encode()


@pytest.mark.parametrize(("part", "row"), BAD, ids=[f"{i}-{p}" for i, (p, _) in enumerate(BAD)])
def test_a_bad_line_is_named_by_number_and_key_before_anything_is_stored(
    room: Room, source: Path, part: str, row: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 2)  # so that lines before it would be stored
    source.write_bytes(lines(3).encode() + encoded(row) + b"\n")
    with pytest.raises(InvalidInputError) as caught:
        load(room, source)
    assert caught.value.message.startswith("line 4: ")
    assert part in caught.value.message
    assert SECRET not in caught.value.message + (caught.value.hint or "")
    assert memories_of(room) == []


def test_bad_lines_are_left_out_and_listed_without_content_when_that_is_asked(
    room: Room, source: Path
) -> None:
    report = source.with_name("bad.jsonl")
    rows = [encoded(row) for _, row in BAD]
    source.write_bytes(b"\n".join([*rows, lines(5).encode()]))
    done = load(room, source, bad_lines=report)
    assert (done.stored, done.skipped, done.lines) == (5, len(BAD), len(BAD) + 5)
    listed = [json.loads(line) for line in report.read_text().splitlines()]
    assert [entry["line"] for entry in listed] == list(range(1, len(BAD) + 1))
    assert SECRET not in report.read_text()
    assert numbers(room) == once(5)
    with pytest.raises(ConflictError):
        load(room, source, bad_lines=report, restart=True)


def test_a_list_of_bad_lines_that_finds_no_space_ends_the_import_before_it_is_recorded_as_done(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typed error; repeated with another list the import tells the bad line, and stores the others once."""
    lines = [{"content": f"memory number {n}", "namespace": NS, "embedding": [1, 2, 3, 4]} for n in range(9)]
    lines[4]["kind"] = 7
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if path.name == "full":
            path, mode = Path("/dev/full"), "w"
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageFullError):
        load(room, source, bad_lines=source.with_name("full"))
    done = load(room, source, bad_lines=source.with_name("bad"))
    assert (done.skipped, done.lines) == (1, 9)
    assert json.loads(source.with_name("bad").read_text())["line"] == 5
    assert Counter(m.content for m in memories_of(room)) == once(9) - Counter({"memory number 4": 1})


def test_what_only_the_store_can_tell_names_the_line_too(room: Room, source: Path) -> None:
    wrong = json.dumps({"content": SECRET, "namespace": NS, "embedding": [1, 2]}) + "\n"
    source.write_text(lines(2) + wrong + lines(2, 2))
    with pytest.raises(InvalidInputError, match=r"^line 3: the embedding has 2 numbers"):
        load(room, source)
    report = source.with_name("bad.jsonl")
    done = load(room, source, bad_lines=report)
    assert json.loads(report.read_text())["line"] == 3
    assert done.skipped == 1
    assert numbers(room) == once(4)


def test_a_line_beyond_the_limit_is_refused_and_not_read_whole(room: Room, source: Path) -> None:
    limits = LimitsConfig(content_bytes_max=1000, metadata_bytes_max=1000)
    source.write_text(lines(1) + '{"content": "' + "x" * 200_000)
    for options in ({}, {"bad_lines": source.with_name("bad")}):
        with pytest.raises(InvalidInputError, match="line 2: it is too long"):
            load(room, source, limits=limits, **options)  # type: ignore[arg-type]
    assert memories_of(room) == []


# -- once and only once -----------------------------------------------------------------------------
@pytest.mark.parametrize("after", [False, True], ids=["before it is durable", "before it is recorded"])
@pytest.mark.parametrize("batches", [0, 2])
def test_an_import_cut_off_in_a_batch_goes_on_and_stores_each_line_once(
    room: Room, source: Path, batches: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source.write_text(lines(57))
    with pytest.raises(Cut):
        load(Cutting(room, batches, after=after), source)
    assert sum(numbers(room).values()) == 10 * (batches + after)
    done = load(room, source)
    assert numbers(room) == once(57)
    assert done.before == 10 * batches
    assert done.duplicates == (10 if after else 0)
    assert done.stored == 57 - 10 * (batches + after)


def test_relative_ages_count_from_the_beginning_of_the_first_run(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source.write_text(lines(30))
    with pytest.raises(Cut):
        load(Cutting(room, 1, after=False), source)
    load(room, source)
    at = {int(m.content.split()[-1]): m.created_at for m in memories_of(room)}
    assert {(at[0] - at[n]).total_seconds() for n in range(30)} == {float(n) for n in range(30)}


def test_a_finished_import_can_be_repeated_and_extended(room: Room, source: Path) -> None:
    source.write_text(lines(20))
    assert load(room, source).stored == 20
    again = load(room, source)
    assert (again.stored, again.before) == (0, 20)
    with source.open("a") as file:
        file.write(lines(5, 20))
    assert load(room, source).stored == 5
    assert numbers(room) == once(25)


def test_another_file_under_the_name_of_a_finished_one_is_imported(room: Room, source: Path) -> None:
    source.write_text(lines(5))
    load(room, source)
    source.write_text(lines(5, 5))
    assert load(room, source).stored == 5
    assert numbers(room) == once(10)


def test_a_file_that_changed_after_an_interruption_is_refused_until_restart(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source.write_text(lines(30))
    with pytest.raises(Cut):
        load(Cutting(room, 1, after=False), source)
    source.write_text(lines(30, 100))
    with pytest.raises(ConflictError, match="changed"):
        load(room, source)
    assert load(room, source, restart=True).stored == 30


def test_an_import_does_not_go_on_into_an_older_copy_of_the_store(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source.write_text(lines(30))
    with pytest.raises(Cut):
        load(Cutting(room, 1, after=False), source)

    class Older:
        store_many = room.store_many

        def get(self, memory_id: UUID | str, *, namespace: str) -> Memory:
            raise MemoryNotFoundError

    with pytest.raises(ConflictError, match="no longer in the store"):
        load(Older(), source)


def test_ids_that_are_there_already_are_counted_and_left_as_they_are(room: Room, source: Path) -> None:
    known = room.store("kept as it is", namespace=NS).memory_id
    rows = [
        {"content": "other", "namespace": NS, "memory_id": str(known)},
        {"content": "new", "namespace": NS, "memory_id": "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e90"},
        {"content": "newer", "namespace": NS, "memory_id": "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e90"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = load(room, source)
    assert (done.stored, done.duplicates) == (1, 2)
    assert numbers(room) == Counter(["kept as it is", "new"])


def test_what_a_listing_prints_is_imported_into_another_store(
    run: Run, data: Path, room: Room, source: Path
) -> None:
    """``list --all --json`` and ``import`` fit: every field that is the memory's own arrives."""
    with strongroom.open(data) as first:
        kept = first.store("an older one", namespace=NS)
        first.store(
            "all of it",
            namespace=NS,
            kind="fact",
            metadata={"plan": {"tier": 3}},
            tags=["a"],
            subject="user:1",
            agent_id="b",
            session_id="s",
            sensitivity="public",
            importance=0.75,
            source="crm",
            derived_from=[kept.memory_id],
            expires_at=datetime(2099, 1, 1, tzinfo=UTC),
        )
        first.update(kept.memory_id, namespace=NS, importance=0.25)
    listed = run("list", "-n", "*", "--all", "--json")
    source.write_text(listed.out)
    assert load(room, source).stored == 2
    own = [name for name in Memory.__slots__ if name not in OF_THE_STORE]
    with strongroom.open(data) as first:
        before, after = memories_of(first), memories_of(room)
        assert [[getattr(m, n) for n in own] for m in after] == [[getattr(m, n) for n in own] for m in before]
        assert before[-1].version == 2 and after[-1].version == 1


OF_THE_STORE = {"updated_at", "access_count", "last_accessed_at", "has_embedding", "version"}


def test_a_redacted_memory_is_not_imported_as_an_empty_one(room: Room, source: Path) -> None:
    """What a listing may not open has no content in its line: to import it would be to lose it."""
    source.write_text(json.dumps({"content": "", "namespace": NS, "redacted": True}) + "\n")
    with pytest.raises(InvalidInputError, match="line 1: the memory is redacted"):
        load(room, source)
    assert not memories_of(room)


def test_ids_do_not_depend_on_the_content(room: Room, source: Path) -> None:
    """Two imports of the same text have nothing in common that a reader of the disk could compare."""
    source.write_text(lines(3))
    load(room, source)
    load(room, source, restart=True)
    assert len({m.memory_id for m in memories_of(room)}) == 6


def test_two_processes_do_not_import_one_file_at_the_same_time(room: Room, source: Path) -> None:
    source.write_text(lines(3))

    class Reentrant(Cutting):
        def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> list[Memory]:
            with pytest.raises(ConflictError, match="another process"):
                load(room, source)
            return super().store_many(items)

    load(Reentrant(room, 5, after=True), source)
    assert numbers(room) == once(3)


def test_the_record_holds_no_content_and_only_its_owner_reads_it(room: Room, source: Path) -> None:
    source.write_text(json.dumps({"content": SECRET, "namespace": NS}) + "\n")
    load(room, source)
    for path in source.with_name("state").iterdir():
        assert SECRET not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def test_a_full_disk_ends_the_import_and_it_goes_on_later(room: Room, source: Path) -> None:
    source.write_text(lines(10))

    class Full(Cutting):
        def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> list[Memory]:
            raise StorageFullError

    with pytest.raises(StorageFullError):
        load(Full(room, 0, after=True), source)
    assert load(room, source).stored == 10


def test_progress_ends_at_the_size_of_the_file(
    room: Room, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source.write_text(lines(35))
    seen: list[tuple[str, int, int]] = []
    load(room, source, progress=lambda *p: seen.append(p))
    size = source.stat().st_size
    assert seen[-1] == ("storing", size, size)
    done = [d for phase, d, _ in seen if phase == "storing"]
    assert done == sorted(done)
    assert len(done) >= 4


# -- as a command -------------------------------------------------------------------------------------
def test_the_sample_is_imported_by_command(command: Run, tmp_path: Path) -> None:
    at = ("--json", "--data", str(tmp_path / "store"))
    command(*at, "init", "--embedding", "none")
    sample = Path(strongroom.__file__).parent / "data/sample.jsonl"
    count = len(sample.read_text("utf-8").splitlines())
    answer = command(*at, "import", str(sample)).json
    assert (answer["stored"], answer["lines"], answer["skipped"]) == (count, count, 0)
    assert command(*at, "stats").json["memories"] == count
    assert "were imported before" in command("--data", str(tmp_path / "store"), "import", str(sample)).out
    assert command(*at, "search", "-n", "*", "--mode", "keyword", "price per seat").json["hits"]


def test_the_record_lies_with_the_keys_and_not_with_the_data(run: Run, data: Path, source: Path) -> None:
    source.write_text(lines(3))
    before = {p.name for p in data.iterdir()}
    run("import", str(source), "--wait")
    assert {p.name for p in data.iterdir()} - before <= {
        "namespace.lock",
        "worker.lock",
        "live",
        "ledger.db-wal",
        "ledger.db-shm",
    }
    assert list((data.with_name("data.keys") / "imports").glob("*.json"))


def test_an_import_killed_in_the_middle_goes_on_and_stores_each_line_once(
    process: Run, tmp_path: Path, source: Path
) -> None:
    at = ("--json", "--data", str(tmp_path / "store"))
    process(*at, "init", "--embedding", "none")
    count = 12_000
    source.write_text(lines(count))
    imports = tmp_path / "store.keys/imports"
    for wanted in (1500, 5000):
        with subprocess.Popen(
            [sys.executable, "-m", "strongroom.cli", *at, "import", str(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as child:
            while child.poll() is None and _lines_done(imports) < wanted:
                signal.sigtimedwait([], 0.002)
            child.kill()
            assert child.stdout is not None
            assert child.wait() == -signal.SIGKILL, child.stdout.read()
    before = _lines_done(imports)
    assert 5000 <= before < count
    answer = process(*at, "import", str(source)).json
    assert answer["before"] == before
    found = process(*at, "list", "-n", "*", "--all").lines
    assert Counter(m["content"] for m in found) == once(count)
    assert process(*at, "check", "--read-data").json["ok"] is True


@pytest.mark.parametrize("victims", ["one worker", "the command", "all of them"])
def test_an_import_whose_processes_are_killed_goes_on_and_leaves_none_behind(
    process: Run, tmp_path: Path, source: Path, victims: str
) -> None:
    """A worker, the command or all of them: what is recorded is there, repeated it stores each line once."""
    at = ("--json", "--data", str(tmp_path / "store"))
    process(*at, "init", "--embedding", "none")
    count = 15_000
    source.write_text(lines(count))
    imports = tmp_path / "store.keys/imports"
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom.cli", *at, "import", str(source), "--workers", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        while child.poll() is None and not _lines_done(imports):
            signal.sigtimedwait([], 0.002)
        workers = _children(child.pid)
        assert len(workers) == 3
        if victims != "one worker":
            child.kill()
        for worker in {"one worker": workers[1:2], "the command": []}.get(victims, workers):
            os.kill(worker, signal.SIGKILL)
        _, said = child.communicate(timeout=120)
    if victims == "one worker":
        assert child.returncode == 12
        error = json.loads(said)["error"]
        assert error["code"] == "worker_lost" and error["hint"].startswith("import the file again")
    for _ in range(6000):
        left = [pid for pid in workers if _is_alive(pid)]
        if not left:
            break
        signal.sigtimedwait([], 0.01)
    assert not left
    before = _lines_done(imports)
    assert 1000 <= before < count
    answer = process(*at, "import", str(source), "--workers", "2").json
    assert answer["before"] == before
    assert answer["before"] + answer["stored"] + answer["duplicates"] == count
    found = process(*at, "list", "-n", "*", "--all").lines
    assert Counter(m["content"] for m in found) == once(count)
    assert process(*at, "check", "--read-data").json["findings"] == []


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    """False for a process that has ended, also while nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _lines_done(imports: Path) -> int:
    for path in imports.glob("*.json"):
        return int(json.loads(path.read_text())["lines_done"])
    return 0
