"""A writer process for the crash images: works on memories through the engine and reports each step.

usage: engine_writer.py DIR FD THREADS STEPS

What a step does follows from its thread and number alone, so that whoever reads the reports knows
what has to be there.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator

from tests.support.word_model import WordModel

import strongroom
import strongroom.ledger._checkpoint as checkpoint
from strongroom.engine import Room

State = tuple[int, str]  # version and content; version 0: it is not there
GONE: State = (0, "")
Act = tuple[str, uuid.UUID, str, str, str]  # what, which, namespace, subject, content


def id_of(thread: int, number: int) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{thread}/{number}")


def place_of(thread: int, number: int) -> tuple[str, str]:
    """A new subject with every other memory, a new namespace with every eighth."""
    return f"company_{thread}/n{number // 8}", f"user:{thread}-{number // 2}"


def acts_of(thread: int, number: int) -> Iterator[Act]:
    """One store; every third step changes the memory before, every fourth deletes the one before that."""
    yield (
        "store",
        id_of(thread, number),
        *place_of(thread, number),
        f"memory {number} of thread {thread} " * 9,
    )
    if number % 3 == 2:
        earlier = number - 1
        yield (
            "update",
            id_of(thread, earlier),
            *place_of(thread, earlier),
            f"changed by {number} of {thread}",
        )
    if number % 4 == 3:
        earlier = number - 2
        yield ("delete", id_of(thread, earlier), *place_of(thread, earlier), "")


def after(state: State, act: Act) -> State:
    """The state of the memory that an act is about, once it is done."""
    if act[0] == "delete":
        return GONE
    return state[0] + 1, act[4]


def carry_out(room: Room, act: Act) -> None:
    what, memory_id, namespace, subject, content = act
    if what == "store":
        room.store(content, namespace=namespace, memory_id=memory_id, subject=subject)
    elif what == "update":
        room.update(memory_id, namespace=namespace, content=content)
    else:
        room.delete(memory_id, namespace=namespace)


def work(room: Room, thread: int, steps: int, out: int) -> None:
    for number in range(steps):
        for act in acts_of(thread, number):
            carry_out(room, act)
        os.write(out, f"{thread} {number}\n".encode())


def main() -> None:
    directory, out, threads, steps = sys.argv[1], *map(int, sys.argv[2:5])
    checkpoint.LOG_BYTES_TARGET = 512 * 1024
    checkpoint.LOG_BYTES_MAX = 8 * checkpoint.LOG_BYTES_TARGET
    checkpoint.AHEAD_BYTES_MIN = checkpoint.STEP_BYTES = checkpoint.QUIET_BYTES = 64 * 1024
    room = strongroom.open(directory, provider=WordModel())
    workers = [threading.Thread(target=work, args=(room, t, steps, out)) for t in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    os._exit(0)  # no orderly close: the logs stay as a crash would leave them


if __name__ == "__main__":
    main()
