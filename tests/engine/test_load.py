"""load: as many items as there are, kept by this process or by several, always from the first one on."""

from __future__ import annotations

import enum
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom
from tests.support.listed import memories_of

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room, _bulk, _load, _load_wire
from strongroom.errors import (
    ContentTooLargeError,
    DuplicateMemoryError,
    InvalidInputError,
    LimitExceededError,
    UnauthenticatedError,
    WorkerLostError,
)
from strongroom.model import Field, MemoryDraft

NS = ("company_a/support", "company_b/sales")
CHUNK = 50
IMPOSTER = (
    "import os, struct, sys, time; out = int(sys.argv[2]); "
    "head = lambda kind, position, length: struct.pack('>BQI', kind, position, length); "
)
READY = "os.write(out, head(7, 0, 0)); "
Make = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def to_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A store of given vectors, opened by its configuration alone; chunks hold 50 items."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", CHUNK)
    directory = tmp_path / "loaded"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=8)))
    with strongroom.open(directory, worker=False) as opened:
        yield opened


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with to_be_loaded(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The worker processes that were started; none is left at the end."""
    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def watched(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options)
        if _load.START in arguments[0]:
            made.append(process)
        return process

    monkeypatch.setattr(_load.subprocess, "Popen", watched)
    yield made
    assert all(process.poll() is not None for process in made), "a worker goes on after its load"


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    """Two namespaces; new subjects all the way, most of them in two chunks."""
    return [
        {
            "content": f"item {n}",
            "namespace": NS[n % 2],
            "subject": f"user:{n // 30}",
            "metadata": {"n": n, "deep": {"list": [n, None, 0.5]}},
            "tags": [f"t{n % 3}"],
            "importance": (n % 10) / 10,
            "embedding": np.full(8, n + 1, np.float32),
            **more,
        }
        for n in range(count)
    ]


def stored(room: Room) -> list[int]:
    """The numbers of the stored items, in the order of their rows, of both namespaces together."""
    found: list[int] = []
    for name in NS:
        entry = room.engine.registry.get(name)
        room.engine.registry.refresh()
        entry = room.engine.registry.get(name)
        if entry is None:
            continue
        by_id = {m.memory_id.bytes: m for m in memories_of(room, name)}
        rows = [r for r in room.engine.ledger.iter_changes(entry.ns) if r.field == Field.MEMORY]
        numbers = [int(by_id[r.memory_id].content.removeprefix("item ")) for r in rows]
        assert numbers == sorted(numbers)
        found += numbers
    return sorted(found)


def wait_for_chunks(room: Room, count: int) -> None:
    """Until that many chunks of a load are durable, each of which has its entry."""
    deadline = time.monotonic() + 120
    while room.engine.ledger.audit_count() < count and time.monotonic() < deadline:
        time.sleep(0.01)


def entries(room: Room) -> list[Any]:
    return [e for e in room.audit(limit=500) if e.action == "store"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_load_keeps_every_item_as_it_is(
    room: Room, started: list[subprocess.Popen[bytes]], workers: int
) -> None:
    """Content, fields, vectors and order are those of a plain list; each chunk has its entry."""
    given = items(12 * CHUNK + 7)
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    given[77] |= {"memory_id": uuid4(), "created_at": moment, "derived_from": [uuid4()], "kind": "fact"}
    assert room.load(iter(given), workers=workers) == len(given)
    assert len(started) == (workers if workers > 1 else 0)
    assert stored(room) == list(range(len(given)))
    by_content = {m.content: m for ns in NS for m in room.list(namespaces=[ns], limit=1000).memories}
    for item in given:
        found = by_content[item["content"]]
        assert (found.namespace, found.subject, found.importance) == tuple(
            item[name] for name in ("namespace", "subject", "importance")
        )
        assert (found.metadata, list(found.tags)) == (item["metadata"], item["tags"])
        assert found.has_embedding
    special = by_content["item 77"]
    assert (special.memory_id, special.created_at) == (given[77]["memory_id"], moment)
    assert list(special.derived_from) == given[77]["derived_from"]
    told = entries(room)
    assert sorted(e.count for e in told) == [7] + [CHUNK] * 12
    assert len({e.request_id for e in told}) == 1
    named = [i for e in told for i in e.memory_ids]
    assert len(set(named)) == len(named) == len(given)
    assert len({s for e in told for s in e.subjects}) == 2 * len({i["subject"] for i in given})
    hits = room.search(embedding=[1.0] * 8, namespaces=list(NS), mode="semantic", k=5)
    assert len(hits) == 5
    assert room.check(read_data=True).ok


def test_a_load_of_one_chunk_starts_no_process(room: Room, started: list[subprocess.Popen[bytes]]) -> None:
    """What fits into one chunk is kept by the caller's process; nothing at all is an operation as well."""
    assert room.load(items(CHUNK - 1), workers=4) == CHUNK - 1
    assert room.load([], workers=4) == 0
    assert not started
    assert [e.count for e in entries(room)] == [CHUNK - 1, 0]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ({"importance": 7.0}, InvalidInputError),
        ({"metadata": {"a": object()}}, InvalidInputError),
        ({"memory_id": "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"}, DuplicateMemoryError),
    ],
    ids=["refused by a worker", "cannot be handed over", "an id of the chunk before"],
)
def test_a_bad_item_keeps_what_came_before_its_chunk(
    room: Room, started: list[subprocess.Popen[bytes]], spoil: dict[str, Any], error: type[Exception]
) -> None:
    """The error names its position, nothing behind the chunk before is kept, and one entry tells of it."""
    given = items(9 * CHUNK)
    at = 5 * CHUNK + 3
    given[4 * CHUNK + 3]["memory_id"] = "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"
    given[at] |= {"namespace": NS[0], **spoil}
    given[4 * CHUNK + 3]["namespace"] = NS[0]
    with pytest.raises(error, match=f"item {at}: "):
        room.load(given, workers=2)
    assert stored(room) == list(range(5 * CHUNK))
    failed = [e for e in entries(room) if e.outcome != "ok"]
    assert [(e.outcome, e.count) for e in failed] == [(error.code, failed[0].count)]  # type: ignore[attr-defined]
    assert sum(e.count for e in entries(room) if e.outcome == "ok") == 5 * CHUNK
    assert room.check(read_data=True).ok


@pytest.mark.parametrize("at", range(6))
def test_files_that_are_used_up_are_a_typed_error_and_leave_none_open(
    room: Room, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Two workers need six pipes: whichever cannot be had, nothing is stored, and no descriptor is left."""
    pipe, left = os.pipe, [at]

    def used_up() -> tuple[int, int]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EMFILE, "too many open files")
        return pipe()

    room.store_many(items(1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(_load.os, "pipe", used_up)
    with pytest.raises(LimitExceededError) as caught:
        room.load(items(3 * CHUNK), workers=2)
    monkeypatch.undo()
    assert caught.value.hint
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert stored(room) == [0]


def test_a_source_that_fails_keeps_what_came_before(
    room: Room, started: list[subprocess.Popen[bytes]]
) -> None:
    """Whole chunks that were read are kept; the failure is told by its type, and has an entry."""

    def source() -> Iterator[dict[str, Any]]:
        yield from items(4 * CHUNK + 3)
        raise ZeroDivisionError("a secret text")

    with pytest.raises(InvalidInputError, match="takes an iterable"):
        room.load(7, workers=2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="ZeroDivisionError") as caught:
        room.load(source(), workers=2)
    assert "secret" not in str(caught.value)
    assert stored(room) == list(range(4 * CHUNK))
    assert [e.outcome for e in entries(room) if e.outcome != "ok"] == ["invalid_input"] * 2


def test_a_key_that_is_revoked_during_a_load_stops_it(
    room: Room, started: list[subprocess.Popen[bytes]]
) -> None:
    """Workers hold themselves to the caller's key, anew at each chunk; its text is not handed out."""
    info, text = room.keys_create("loader", "read-write", [*NS])
    session = room.engine.authenticate(text)

    def source() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(40 * CHUNK)):
            if n == 12 * CHUNK:
                wait_for_chunks(room, 8)
                room.keys_revoke(info.key_id)
            yield item

    with pytest.raises(UnauthenticatedError):
        session.load(source(), workers=2)
    kept = stored(room)
    assert kept == list(range(len(kept))) and 0 < len(kept) < 40 * CHUNK
    told = [e for e in entries(room) if e.principal == info.key_id]
    assert {e.outcome for e in told} == {"ok", "denied"}
    assert all(text not in " ".join(map(str, process.args)) for process in started)  # type: ignore[arg-type]


def test_a_load_is_held_to_the_grants_of_the_key(room: Room) -> None:
    """A namespace that the key does not reach is refused by the worker as it is by the caller's process."""
    _, text = room.keys_create("loader", "read-write", [NS[0]])
    session = room.engine.authenticate(text)
    given = items(3 * CHUNK, namespace=NS[0])
    given[CHUNK + 1]["namespace"] = NS[1]
    with pytest.raises(strongroom.errors.AccessDeniedError):
        session.load(given, workers=2)
    assert stored(room) == list(range(CHUNK))
    assert [e.outcome for e in entries(room) if e.namespaces == (NS[1],)] == ["denied"]


def test_a_worker_that_is_killed_is_told_and_loses_nothing(
    room: Room, started: list[subprocess.Popen[bytes]]
) -> None:
    """SIGKILL in the middle: a typed error with a count that is kept, and no hole before what is stored."""

    def source() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(60 * CHUNK)):
            if n == 20 * CHUNK:
                wait_for_chunks(room, 12)
                started[1].kill()
            yield item

    with pytest.raises(WorkerLostError) as caught:
        room.load(source(), workers=3)
    kept = stored(room)
    assert kept == list(range(len(kept))) and len(kept) % CHUNK == 0
    said = int(caught.value.message.split("first ")[1].split(" ")[0])
    assert 0 < said <= len(kept) < 60 * CHUNK
    assert [e.outcome for e in entries(room) if e.outcome != "ok"][-1] == "worker_lost"
    assert room.check(read_data=True).ok
    rest = items(60 * CHUNK)[len(kept) :]
    assert room.load(rest, workers=2) == len(rest)
    assert stored(room) == list(range(60 * CHUNK))


@pytest.mark.parametrize(
    ("what", "says"),
    {
        "nothing": "",
        "half a head": READY + "os.write(out, b'half')",
        "half a body": READY + "os.write(out, head(5, 0, 100) + b'half')",
        "a kind that there is not": READY + "os.write(out, head(77, 0, 0)); time.sleep(60)",
        "that more is kept than was given": READY + "os.write(out, head(4, 2**63, 0)); time.sleep(60)",
        "a failure that is no error": READY + "os.write(out, head(5, 0, 4) + b'rubb'); time.sleep(60)",
        "a failure that is no text": READY
        + "os.write(out, head(5, 0, 4) + b'\\x81\\xa1\\xff\\xa0'); time.sleep(60)",
        "a failure with another shape": READY
        + "os.write(out, head(5, 0, 3) + b'\\x81\\xa1a'); time.sleep(60)",
        "a frame of four gigabytes": READY + "os.write(out, head(5, 0, 2**32 - 1)); time.sleep(60)",
        "that it is done, and stays": READY + "os.write(out, head(6, 0, 0)); os.close(out)",
    }.items(),
)
def test_a_worker_that_says_nonsense_is_lost(
    room: Room,
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    says: str,
) -> None:
    """Whatever a process in the place of a worker says: a typed error, and no count that is not so."""
    monkeypatch.setattr(_load, "START", IMPOSTER + says)
    told: list[int] = []
    with pytest.raises(WorkerLostError, match="at least the first 0 items"):
        room.load(items(4 * CHUNK), workers=2, progress=told.append)
    assert told == [] and stored(room) == [] and len(started) == 2


def test_no_item_is_written_before_a_worker_cannot_be_looked_into(
    room: Room, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What comes over the pipe until a worker is ready is who loads, and no item."""
    seen = tmp_path / "seen"
    look = (
        f"time.sleep(1); os.set_blocking(int(sys.argv[1]), False); "
        f"open({str(seen)!r}, 'ab').write(os.read(int(sys.argv[1]), 1 << 20))"
    )
    monkeypatch.setattr(_load, "START", IMPOSTER + look)
    with pytest.raises(WorkerLostError):
        room.load(items(4 * CHUNK), workers=2)
    assert str(room.engine.directory).encode() in seen.read_bytes()
    assert b"item 0" not in seen.read_bytes() and len(started) == 2


def test_a_worker_shows_no_key_and_no_item(
    room: Room, started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Command line, environment, names of files and the temporary directory of running workers."""
    _, text = room.keys_create("loader", "read-write", list(NS))
    session = room.engine.authenticate(text)
    shown: list[bytes] = []
    opened: list[str] = []

    def source() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(20 * CHUNK)):
            if n == 10 * CHUNK:
                wait_for_chunks(room, 4)
                for process in started:
                    place = Path(f"/proc/{process.pid}")
                    shown.append((place / "cmdline").read_bytes() + (place / "environ").read_bytes())
                    further = (f for f in (place / "fd").iterdir() if int(f.name) > 2)  # but for pytest's own
                    opened.extend(str(f.readlink()) for f in further)
            yield item

    assert session.load(source(), workers=2) == 20 * CHUNK
    assert len(shown) == 2 and not any(text.encode() in s or b"item 1" in s for s in shown)
    files = [name for name in opened if name.startswith("/") and not name.startswith("/dev/")]
    assert files and all(name.startswith(str(tmp_path)) for name in files)


def test_what_is_too_large_to_be_handed_over_is_refused(
    room: Room, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk above the limit of a frame is the caller's typed error; what came before it is kept."""
    monkeypatch.setattr(_load_wire, "CHUNK_BYTES_MAX", 100_000)
    given = items(3 * CHUNK)
    given[CHUNK + 3]["content"] = "x" * 100_000
    with pytest.raises(ContentTooLargeError, match="items 50 to 99"):
        room.load(given, workers=2)
    assert stored(room) == list(range(CHUNK)) and len(started) == 2


def test_an_interrupt_ends_the_workers(room: Room, started: list[subprocess.Popen[bytes]]) -> None:
    """Ctrl-C in the caller: no process stays, and what is stored is a beginning in whole chunks."""

    def source() -> Iterator[dict[str, Any]]:
        yield from items(10 * CHUNK)
        wait_for_chunks(room, 7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        room.load(source(), workers=2)
    assert len(started) == 2
    kept = stored(room)
    assert kept and kept == list(range(len(kept))) and len(kept) % CHUNK == 0
    assert room.check(read_data=True).ok


LOADER = """
import subprocess, sys, strongroom
from strongroom.engine import _bulk, _load
from tests.engine.test_load import items
_bulk.CHUNK_ITEMS = 50
popen = subprocess.Popen
def watched(*arguments, **options):
    process = popen(*arguments, **options)
    print(process.pid, flush=True)
    return process
_load.subprocess.Popen = watched
def source():
    for n, item in enumerate(items(100_000)):
        if n % 500 == 0:
            print("at", n, flush=True)
        yield item
with strongroom.open(sys.argv[1], worker=False) as room:
    room.load(source(), workers=2)
"""


def test_a_load_whose_process_is_killed_leaves_a_beginning(room: Room) -> None:
    """SIGKILL of the process that loads: its workers end by themselves, and there is no hole."""
    command = [sys.executable, "-c", textwrap.dedent(LOADER), str(room.engine.directory)]
    loader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert loader.stdout is not None
    workers: list[int] = []
    for line in loader.stdout:
        if line.startswith("at 2000"):
            break
        if not line.startswith("at"):
            workers.append(int(line))
    loader.send_signal(signal.SIGKILL)
    loader.wait()
    loader.stdout.close()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    kept = stored(room)
    assert kept == list(range(len(kept))) and len(kept) % CHUNK == 0 and len(kept) >= 1000
    assert room.check(read_data=True).ok


def test_what_other_processes_cannot_open_is_refused(open_room: OpenRoom, room: Room) -> None:
    """A model that is an object of this process, a token, no process at all, a number that is no number."""
    given = open_room(worker=False)
    with pytest.raises(InvalidInputError, match="no other process has"):
        given.load(items(5000), workers=2)
    for workers, error in ((0, InvalidInputError), (True, InvalidInputError), (65, LimitExceededError)):
        with pytest.raises(error):
            room.load(items(5000), workers=workers)
    _, text = room.keys_create("loader", "read-write", [*NS])
    _, token = room.engine.authenticate(text).tokens_create()
    with pytest.raises(InvalidInputError, match="workers load for the owner"):
        room.engine.authenticate(token).load(items(5000), workers=2)
    assert not stored(room)


def test_a_system_without_processes_is_a_typed_error(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started nothing is stored, and no end of a pipe stays open."""

    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError

    before = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(_load.subprocess, "Popen", refused)
    with pytest.raises(LimitExceededError):
        room.load(items(5000), workers=2)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    monkeypatch.undo()
    assert not stored(room)


class Word(str):
    def __str__(self) -> str:
        return "something else"


class Kind(enum.StrEnum):
    FACT = "fact"


def test_items_are_handed_over_as_they_are() -> None:
    """Values of the known types arrive equal and of the same type; of others what they hold."""
    vector = np.arange(3, dtype=np.float32)
    given = [
        {
            "content": "x",
            "n": [1, 2.5, None, True, b"b", (1, 2), {"a": {"b": []}}],
            "when": datetime.now(UTC),
        },
        {"id": uuid4(), "word": Word("plain"), "kind": Kind.FACT, "f": np.float32(0.1), "i": np.int64(3)},
        {"metadata": MappingProxyType({"a": 1}), "wide": np.ones(2), "flat": np.ones((2, 2), np.float32)},
        {"embedding": vector, "naive": datetime(2026, 1, 1)},
        MemoryDraft(content="y", namespace="n", tags=("t",), embedding=vector),
    ]
    got = _load_wire.unpack_items(bytearray(_load_wire.pack_items(given)))
    assert got[0] == given[0] and type(got[0]["n"][5]) is tuple
    assert got[1] == {"id": given[1]["id"], "word": "plain", "kind": "fact", "f": np.float32(0.1), "i": 3}
    assert [type(got[1][name]) for name in ("id", "word", "kind", "f")] == [UUID, str, str, np.float32]
    assert got[2]["metadata"] == {"a": 1} and got[2]["wide"].dtype == np.float64
    assert got[2]["wide"].tolist() == [1.0, 1.0] and got[2]["flat"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert got[3]["naive"] == given[3]["naive"] and np.array_equal(got[3]["embedding"], vector)
    assert isinstance(got[4], MemoryDraft) and got[4].tags == ("t",)
    wide = np.arange(12, dtype=np.float32)
    same = {"embedding": wide[::2]}
    given = [same, {"embedding": None}, {}, same, {"embedding": wide[:5]}, {"embedding": wide[1::2], "n": 1}]
    got = _load_wire.unpack_items(bytearray(_load_wire.pack_items(given)))
    assert [{**item, "embedding": None} for item in got] == [{**item, "embedding": None} for item in given]
    for item, before in zip(got, given, strict=True):
        assert ("embedding" in item) == ("embedding" in before)
        assert np.array_equal(item.get("embedding"), before.get("embedding"))
    assert same["embedding"] is not None and len(given[5]) == 2  # what the caller has is as it was
    with pytest.raises(_load_wire.CannotBeHandedError, match="Path"):
        _load_wire.pack_items([{"a": Path("x")}])


def test_nothing_but_known_types_is_made_of_what_comes_over_a_pipe() -> None:
    """Bytes that would call something else are refused before they do."""
    import pickle

    with pytest.raises(pickle.UnpicklingError):
        _load_wire.unpack_items(bytearray(pickle.dumps([os.getcwd])))
