"""A load that ends badly in its own process or in a worker: a typed error, nothing waits, nothing is left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_load import CHUNK, entries, items, stored, to_be_loaded

from strongroom.engine import Room, _load
from strongroom.errors import InvalidInputError, LimitExceededError, StorageFullError
from strongroom.model import Action

WITHOUT_MEMORY = """
from strongroom.engine import _load_wire as wire, _load_worker as worker
receive = wire.receive
def poor(pipe, bytes_max=wire.WORD_BYTES_MAX):
    frame = receive(pipe, bytes_max)
    if frame.kind == wire.CHUNK and frame.position >= {at}:
        raise MemoryError
    return frame
wire.receive = poor
worker.main()
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with to_be_loaded(tmp_path, monkeypatch) as opened:
        yield opened


def test_a_worker_that_gets_no_memory_for_a_chunk_is_told_and_nobody_waits_for_it(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads chunks has no memory for one: a typed error with a hint, and what came before."""
    with monkeypatch.context() as poor:
        poor.setattr(_load, "START", WITHOUT_MEMORY.format(at=6 * CHUNK))
        with pytest.raises(LimitExceededError, match="no more memory") as caught:
            room.load(items(40 * CHUNK), workers=2)
    assert caught.value.hint
    kept = stored(room)
    assert kept == list(range(len(kept))) and len(kept) == 6 * CHUNK
    assert room.load(items(40 * CHUNK)[len(kept) :], workers=2) == 34 * CHUNK
    assert stored(room) == list(range(40 * CHUNK))


def test_an_operation_without_memory_is_a_typed_error(room: Room) -> None:
    """``MemoryError`` is told as a limit of the system, with what to do, and stands in the audit log."""

    def poor(_: object) -> None:
        raise MemoryError("a secret text")

    with pytest.raises(LimitExceededError, match="no more memory") as caught:
        room._run(Action.READ, poor)
    assert caught.value.hint and "secret" not in str(caught.value)
    assert caught.value.__context__ is None
    assert [e.outcome for e in room.audit() if e.action == "read"] == ["limit_exceeded"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_progress_that_raises_ends_the_load_with_a_typed_error(room: Room, workers: int) -> None:
    """What is durable stays, the error names the type of what was raised and no text, and has an entry."""
    told: list[int] = []

    def progress(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            raise ZeroDivisionError("a secret text")

    with pytest.raises(
        InvalidInputError, match=r"progress could not be told \(ZeroDivisionError\)"
    ) as caught:
        room.load(items(30 * CHUNK), workers=workers, progress=progress)
    assert "secret" not in str(caught.value) and len(told) == 2
    kept = stored(room)
    assert kept == list(range(len(kept))) and 2 * CHUNK <= len(kept) < 30 * CHUNK
    assert [e.outcome for e in entries(room) if e.outcome != "ok"] == ["invalid_input"]


def test_a_progress_that_finds_no_space_is_told_as_that(room: Room) -> None:
    """An import records there how far it has come: its own typed error arrives, with workers too."""

    def progress(_: int) -> None:
        raise StorageFullError

    for workers in (1, 2):
        with pytest.raises(StorageFullError):
            room.load(items(5 * CHUNK), workers=workers, progress=progress)


def test_a_worker_that_ends_early_writes_nothing_on_stderr(
    room: Room, capfd: pytest.CaptureFixture[str]
) -> None:
    """One worker refuses an item, the other is still waiting for chunks: the error is all that there is."""
    given = items(12 * CHUNK)
    given[6 * CHUNK]["importance"] = 7.0
    with pytest.raises(InvalidInputError):
        room.load(given, workers=2)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_while_workers_are_started_leaves_no_process(
    room: Room, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Ctrl-C before anybody knows the process that was just started: it ends, and no pipe stays open."""
    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        made.append(popen(*arguments, **options))
        if len(made) == at:
            signal.raise_signal(signal.SIGINT)
        return made[-1]

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(_load.subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        room.load(items(10 * CHUNK), workers=2)
    deadline = time.monotonic() + 60
    while any(process.poll() is None for process in made) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [process for process in made if process.poll() is None]
    for process in left:
        process.kill()
        process.wait()
    assert not left and len(made) == at
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert stored(room) == []


def test_a_program_with_many_open_files_loads_by_workers(room: Room) -> None:
    """The pipes to workers have numbers beyond those that ``select`` can be asked about."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4096:
        pytest.skip("the system lets a process open fewer than 4096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert room.load(items(4 * CHUNK), workers=2) == 4 * CHUNK
    finally:
        for end in taken:
            os.close(end)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert stored(room) == list(range(4 * CHUNK))


@pytest.mark.parametrize(("name", "value"), [("frozen", True), ("executable", "")])
def test_a_program_without_an_interpreter_starts_itself_no_second_time(
    room: Room, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """A program that was made one file would itself be started instead of a worker: refused, with a hint."""
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(InvalidInputError, match="no interpreter") as caught:
        room.load(items(4 * CHUNK), workers=2)
    assert caught.value.hint == "load without workers" and stored(room) == []
