"""Processes that make the same things at the same time: ``python -m bench.soak.same --minutes 5``.

Four processes start each act together, on one store: the same namespaces, data subjects and memory ids;
waves, new keys and new signing keys beside stores; a response to a compromise beside stores; loads with
workers beside a rotation. After each round errors are typed, every acknowledged memory is there exactly
once, the keyring has the keys of the namespaces that there are, and a check that reads everything finds
nothing. Exit status 1 when not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.errors import StrongroomError

PROCESSES: Final = 4
NS: Final = "company_a/support"
VECTOR: Final = [1.0] * 8
Done = list[tuple[str, str]]  # what came of each step, and the id of a memory
Act = Callable[[Room, int, int, Done], None]


def _step(done: Done, work: Callable[[], object]) -> None:
    try:
        made = work()
        done.append(("ok", str(made) if isinstance(made, UUID) else ""))
    except StrongroomError as e:
        done.append((e.code, ""))


def _store(room: Room, done: Done, namespace: str = NS, **more: Any) -> None:
    _step(done, lambda: room.store("x", namespace=namespace, embedding=VECTOR, **more).memory_id)


def namespaces(room: Room, who: int, turn: int, done: Done) -> None:
    for n in range(10):
        _store(room, done, f"turn{turn}/n{n}")


def subjects(room: Room, who: int, turn: int, done: Done) -> None:
    for n in range(20):
        _store(room, done, subject=f"{turn}.{n}")


def ids(room: Room, who: int, turn: int, done: Done) -> None:
    for n in range(20):
        _store(room, done, memory_id=UUID(int=(turn << 16) + n + 1))


def rotations(room: Room, who: int, turn: int, done: Done) -> None:
    if who > 1:
        for n in range(30):
            _store(room, done, NS if n % 2 else f"turn{turn}/r{n}", subject=f"{turn}.{n % 5}")
        return
    _step(done, lambda: room.rotate("data", namespaces=[NS], wait=False))
    _step(done, room.rotation_work)
    for wave in room.rotation_status():
        _step(done, partial(room.rotation_finalise, wave.id))
    _step(done, room.rotate_namespace if who else room.rotate_master)
    _step(done, room.rotate_audit)


def responses(room: Room, who: int, turn: int, done: Done) -> None:
    if who > 1:
        for n in range(40):
            _store(room, done, subject=f"{turn}.{n % 9}")
    else:
        _step(done, lambda: room.respond_key_compromise(f"namespace:{NS}"))


def loads(room: Room, who: int, turn: int, done: Done) -> None:
    if who == 0:
        _step(done, room.rotate_namespace)
        return
    items = [
        {"content": f"{n}", "namespace": NS, "subject": f"{turn}.{n % 40}", "embedding": VECTOR}
        for n in range(1500)
    ]
    _step(done, lambda: room.load(items, workers=2))


ACTS: Final[dict[str, Act]] = {
    a.__name__: a for a in (namespaces, subjects, ids, rotations, responses, loads)
}


def _child(directory: Path, name: str, who: int, turn: int, gate: Any, answers: Any) -> None:
    done: Done = []
    try:
        with strongroom.open(directory, worker=False) as room:
            gate.wait(60)
            ACTS[name](room, who, turn, done)
    except BaseException as e:
        done.append((f"untyped {type(e).__name__}" if not isinstance(e, StrongroomError) else e.code, ""))
    answers.put(done)


def _together(directory: Path, name: str, turn: int) -> Done:
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(PROCESSES), context.Queue()
    children = [
        context.Process(target=_child, args=(directory, name, who, turn, gate, answers))
        for who in range(PROCESSES)
    ]
    for child in children:
        child.start()
    done = [one for _ in children for one in answers.get(timeout=180)]
    for child in children:
        child.join()
    return done


def _wrong(directory: Path, acknowledged: list[str]) -> list[str]:
    wrong: list[str] = []
    with strongroom.open(directory, worker=False) as room:
        wrong += [f"{f.code}: {f.message}" for f in room.check(read_data=True).findings]
        made = room.engine.ledger.namespaces()
        if sorted({k.ns for k in room.engine.vault.keyring.list_namespaces()}) != made:
            wrong.append("the keyring has keys of namespaces that there are not, or lacks some")
        rows = Counter(
            str(UUID(bytes=row.memory_id))
            for entry in room.engine.registry.entries()
            for row in room.engine.ledger.iter_changes(entry.ns)
            if row.field == 0
        )
        wrong += [f"memory {i} is there {rows[i]} times" for i in acknowledged if rows[i] != 1]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance, end = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    came: Counter[str] = Counter()
    wrong: list[str] = []
    turn, acknowledged = 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "data"
        strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=8)))
        while (turn < len(ACTS) or time.monotonic() < end) and not wrong:
            name = list(ACTS)[turn] if turn < len(ACTS) else chance.choice(list(ACTS))
            done = _together(directory, name, turn)
            came.update(f"{name} {code}" for code, _ in done)
            acknowledged += [i for code, i in done if code == "ok" and i]
            wrong += [code for code, _ in done if code.startswith("untyped") or code == "internal"]
            wrong += _wrong(directory, acknowledged)
            turn += 1
    print(
        f"same-things: seed {given.seed}, {turn} rounds, {PROCESSES} processes, {len(acknowledged)} memories"
    )
    print("  " + ", ".join(f"{what} {n}" for what, n in sorted(came.items())))
    for text in wrong[:20]:
        print(f"WRONG {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    sys.exit(main())
