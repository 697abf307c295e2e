"""Calls of an asynchronous program that are cancelled: nothing is half, goes on for ever or stays open."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

import strongroom
from strongroom.config import Config, EmbeddingConfig, LimitsConfig
from strongroom.engine import AsyncRoom, Room, _bulk
from strongroom.errors import MemoryNotFoundError, OperationTimeoutError
from strongroom.model import SqlCancel

NS = "company_a/support"
VECTOR = [1.0] * 8
SLOW = "SELECT count(*) FROM range(100000000) a(i), range(100000) b(j) WHERE (a.i * b.j) % 7 = 3"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    limits = LimitsConfig(sql_timeout_ms=600_000)
    embedding = EmbeddingConfig(provider="none", dimensions=8)
    strongroom.init(directory, config=Config(embedding=embedding, limits=limits))
    return directory


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("strongroom")]


def until_gone(names: list[str]) -> list[str]:
    """The threads of ours beside ``names``, after a while for them to end."""
    deadline = time.monotonic() + 30
    while ours() != names and time.monotonic() < deadline:
        time.sleep(0.02)
    return ours()


@pytest.mark.parametrize("moment", ["while it opens", "when it is open", "before it begins"])
def test_an_open_that_is_cancelled_leaves_nothing_open(
    data: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Nobody gets the store that is being opened, so it closes itself: no thread and no file is left."""
    begun, go_on = threading.Event(), threading.Event()
    opened: list[Any] = []
    engine_open = strongroom.engine.Engine.open

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(30)
        opened.append(engine_open(*arguments, **options))
        return opened[-1]

    async def program() -> None:
        monkeypatch.setattr(strongroom.engine.Engine, "open", slow)
        task = asyncio.create_task(strongroom.aopen(data, worker=False))
        if moment != "before it begins":
            await asyncio.to_thread(begun.wait, 30)
        if moment == "when it is open":
            go_on.set()
            while not opened:  # the loop has not looked at it yet
                time.sleep(0.01)
            time.sleep(0.2)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = ours()
    asyncio.run(program())
    assert until_gone(before) == before
    assert all(engine._closed.is_set() for engine in opened)
    assert len(opened) == (moment != "before it begins")


@pytest.mark.parametrize("name", ["store_many", "load"])
def test_a_load_that_is_cancelled_ends(data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Items without an end: once cancelled no further one is read, and a beginning of them is stored."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", 20)
    read, going = itertools.count(), threading.Event()

    def items() -> Iterator[dict[str, Any]]:
        for n in read:
            if n == 200:
                going.set()
            yield {"content": f"item {n}", "namespace": NS, "embedding": VECTOR}

    async def program() -> int:
        async with await strongroom.aopen(data, worker=False) as room:
            task = asyncio.create_task(getattr(room, name)(items()))
            assert await asyncio.to_thread(going.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await room.stats()).memories

    stored = asyncio.run(asyncio.wait_for(program(), 60))
    with strongroom.open(data, worker=False) as room:
        page = room.list(namespaces=[NS], limit=1000)
        told = [e.outcome for e in room.audit(limit=1000) if e.action == "store"]
        assert room.check(read_data=True).ok
        count = room.stats().memories
    assert 0 < stored <= count <= next(read) and count % 20 == 0
    assert len({m.content for m in page.memories}) == min(count, 1000)
    assert told[-1] == OperationTimeoutError.code


class _Seen(SqlCancel):
    """A handle that tells of itself."""

    made: ClassVar[list[SqlCancel]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)


def test_a_statement_whose_call_is_cancelled_is_stopped(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take minutes; the program ends as soon as the engine has taken notice."""
    monkeypatch.setattr("strongroom.engine.room.SqlCancel", _Seen)
    monkeypatch.setattr(_Seen, "made", [])
    stopped: list[bool] = []

    async def program() -> None:
        async with await strongroom.aopen(data, worker=False) as room:
            await room.store("x", namespace=NS, embedding=VECTOR)
            statement = asyncio.create_task(room.sql(SLOW))
            while not _Seen.made or _Seen.made[0]._interrupt is None:  # what has not begun leaves no entry
                await asyncio.sleep(0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(statement, 0.2)
            deadline = time.monotonic() + 30  # closing would stop it as well
            while not any(e.action == "sql" for e in await room.audit()) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            stopped.append(time.monotonic() < deadline)

    thread = threading.Thread(target=asyncio.run, args=(program(),), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and stopped == [True]
    with strongroom.open(data, worker=False) as opened:
        assert [e.outcome for e in opened.audit() if e.action == "sql"] == [OperationTimeoutError.code]


class Trial:
    """What a program was told while its calls were cancelled at random."""

    def __init__(self, seed: int) -> None:
        self.chosen = random.Random(seed)
        self.told: dict[UUID, str] = {}  # acknowledged content
        self.asked: dict[UUID, set[str]] = {}  # what it may be besides
        self.deleted: set[UUID] = set()  # acknowledged
        self.doomed: set[UUID] = set()  # asked for

    async def one(self, room: AsyncRoom, number: int) -> None:
        kind = self.chosen.choice(["store", "store", "many", "search", "update", "delete", "get"])
        content = f"{kind} {number}"
        known = [i for i in self.told if i not in self.doomed]
        if kind == "store":
            memory_id = uuid4()
            self.asked[memory_id] = {content}
            await room.store(content, namespace=NS, memory_id=memory_id, embedding=VECTOR)
            self.told[memory_id] = content
        elif kind == "many":
            made = {uuid4(): f"{content} {n}" for n in range(self.chosen.choice([3, 45]))}
            self.asked |= {i: {text} for i, text in made.items()}
            await room.store_many(
                {"content": text, "namespace": NS, "memory_id": i, "embedding": VECTOR}
                for i, text in made.items()
            )
            self.told |= made
        elif kind == "search":
            await room.search("store", namespaces=[NS], mode="keyword")
        elif known:
            memory_id = self.chosen.choice(known)
            if kind == "get":
                await room.get(memory_id, namespace=NS)
            elif kind == "delete":
                self.doomed.add(memory_id)
                await room.delete(memory_id, namespace=NS)
                self.deleted.add(memory_id)
            else:
                self.asked[memory_id].add(content)
                await room.update(memory_id, namespace=NS, content=content)

    async def cut(self, room: AsyncRoom, number: int) -> None:
        try:
            async with asyncio.timeout(self.chosen.random() * 0.03):
                await self.one(room, number)
        except (TimeoutError, MemoryNotFoundError):
            pass


def test_calls_that_are_cancelled_at_random_lose_nothing_that_was_acknowledged(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores, updates, deletes, searches: what was told is so, and the next call works."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", 20)
    seed = random.randrange(2**32)
    trial = Trial(seed)

    async def program() -> None:
        number = itertools.count()
        async with await strongroom.aopen(data, worker=False) as room:
            await room.create_namespace(NS)
            for _ in range(15):
                tasks = [asyncio.create_task(trial.cut(room, next(number))) for _ in range(12)]
                await asyncio.sleep(trial.chosen.random() * 0.03)
                for task in tasks:
                    if trial.chosen.random() < 0.3:
                        task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                probe = await asyncio.wait_for(room.store("probe", namespace=NS, embedding=VECTOR), 60)
                await asyncio.wait_for(room.get(probe.memory_id, namespace=NS), 60)

    before = ours()
    asyncio.run(program())
    assert until_gone(before) == before, f"seed {seed}"
    with strongroom.open(data, worker=False) as opened:
        found = {i: content_of(opened, i) for i in trial.asked}
        wrong = {
            i: text
            for i, text in found.items()
            if (text is None and i in trial.told and i not in trial.doomed)
            or (text is not None and (i in trial.deleted or text not in trial.asked[i]))
        }
        assert not wrong, f"seed {seed}"
        assert opened.check(read_data=True).ok


def content_of(room: Room, memory_id: UUID) -> str | None:
    try:
        return room.get(memory_id, namespace=NS).content
    except MemoryNotFoundError:
        return None
