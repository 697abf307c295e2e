"""Calls of the asynchronous client that are cancelled: no connection is lost, and no answer goes astray."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.servers.served import Served

import strongroom
from strongroom.client import AsyncRemoteRoom
from strongroom.errors import MemoryNotFoundError

NS = "client/cancelled"
STEPS_MAX = 200


class CancelledAt:
    """A call that is cancelled where it waits for the ``step``-th time, ``times`` times in a row."""

    def __init__(self, call: Coroutine[Any, Any, Any], step: int, times: int) -> None:
        self._call, self._cancelled = call, range(step, step + times)
        self.waited = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                waits_for = self._call.send(None) if error is None else self._call.throw(error)
            except StopIteration as e:
                return e.value
            self.waited += 1
            if self.waited in self._cancelled:
                task.cancel()
            error = None
            try:
                yield waits_for
            except BaseException as e:  # it is handed on to the call
                error = e


def connect(server: Served) -> Awaitable[AsyncRemoteRoom]:
    return strongroom.aconnect(server.url, api_key=server.admin_key, ca=server.ca, timeout_s=20)


def kept(room: AsyncRemoteRoom) -> tuple[int, int]:
    """Connections that are neither idle nor closed, and requests that are under way."""
    pool = room._line._pool
    return sum(not (c.is_idle() or c.is_closed()) for c in pool.connections), len(pool._requests)


def sockets() -> int:
    """Open sockets of this process, those of the server's side included."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def until(reached: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if reached():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("fresh", [False, True], ids=["a kept connection", "a new connection"])
def test_a_call_that_is_cancelled_wherever_it_waits_loses_no_connection(
    server: Served, fresh: bool, times: int
) -> None:
    """At each place where it waits, once or several times: nothing stays in use, the next call works."""

    async def program() -> int:
        async with await connect(server) as other:
            memory = await other.store("the right one", namespace=NS)
        room = await connect(server)
        steps = 0
        for step in range(1, STEPS_MAX):
            if fresh:
                await room.close()
                room = await connect(server)
            call = CancelledAt(room.get(memory.memory_id, namespace=NS), step, times)
            task = asyncio.ensure_future(_awaited(call))
            await asyncio.wait([task])
            assert kept(room) == (0, 0), f"cancelled where it waits for the {step}. time"
            if not task.cancelled():
                assert task.result().content == "the right one"
            if call.waited < step:
                break
            steps = step
            assert (await room.whoami()).scope == "admin"
        await room.close()
        return steps

    before = sockets()
    steps = asyncio.run(program())
    assert 2 <= steps < STEPS_MAX - 1
    assert until(lambda: sockets() <= before)


async def _awaited(call: CancelledAt) -> Any:
    return await call


class Trial:
    """Calls at random, each of which knows what its answer has to be."""

    def __init__(self, room: AsyncRemoteRoom, seed: int) -> None:
        self.room, self.chosen, self.number = room, random.Random(seed), 0
        self.told: dict[UUID, str] = {}

    async def one(self) -> None:
        self.number += 1
        text, room, number = f"text {self.number}", self.room, self.number
        what = self.chosen.randrange(8 if self.told else 1)
        memory_id = self.chosen.choice(list(self.told)) if self.told else UUID(int=0)
        if what == 0:
            memory = await room.store(text, namespace=NS)
            assert memory.content == text
            self.told[memory.memory_id] = text
        elif what == 1:
            assert (await room.get(memory_id, namespace=NS)).content == self.told[memory_id]
        elif what == 2:
            changed = await room.update(memory_id, namespace=NS, importance=number % 100 / 100)
            assert (changed.memory_id, changed.importance) == (memory_id, number % 100 / 100)
        elif what == 3:
            assert len(await room.search(text, namespaces=[NS], k=number % 7 + 1)) <= number % 7 + 1
        elif what == 4:
            assert len((await room.list(namespaces=[NS], limit=number % 9 + 1)).memories) <= number % 9 + 1
        elif what == 5:
            assert [m.content for m in await room.store_many(self.items(text))] == [
                item["content"] for item in self.items(text)
            ]
        elif what == 6:
            assert list((await room.sql(f"SELECT {number} AS n")).rows()) == [(number,)]
        else:
            await room.audit_export(lambda _: None)

    def items(self, text: str) -> list[dict[str, Any]]:
        return [{"content": f"{text}/{n}", "namespace": NS} for n in range(20)]

    async def cut(self) -> None:
        """One call that is cancelled at some moment, as often as it comes."""
        task = asyncio.ensure_future(self.one())
        await asyncio.sleep(self.chosen.random() ** 2 * 0.05)
        for _ in range(self.chosen.choice([0, 1, 1, 2, 5])):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError, MemoryNotFoundError):
            await task


def test_calls_that_are_cancelled_at_random_leave_the_room_as_it_was(server: Served) -> None:
    """Stores, questions, statements, exports, up to 40 at once: each answer belongs to its call, what was
    told is stored, and no connection stays in use."""
    seed = random.randrange(2**32)

    async def program() -> None:
        async with await connect(server) as room:
            trial = Trial(room, seed)
            for round_ in range(25):
                count = (1, 5, 20, 40)[round_ % 4]
                await asyncio.gather(*(trial.cut() for _ in range(count)))
                assert kept(room) == (0, 0), f"seed {seed}"
                probe = await asyncio.wait_for(room.store(f"probe {round_}", namespace=NS), 30)
                assert probe.content == f"probe {round_}", f"seed {seed}"
            for memory_id, text in trial.told.items():
                assert (await room.get(memory_id, namespace=NS)).content == text, f"seed {seed}"

    before = sockets()
    asyncio.run(program())
    assert until(lambda: sockets() <= before), f"seed {seed}"
