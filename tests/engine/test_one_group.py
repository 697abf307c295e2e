"""Callers that store at the same time: one of them seals for all, and nothing else is shared."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.engine.test_processes import spawn

from strongroom.engine import Room, _write
from strongroom.engine._core import Engine
from strongroom.errors import (
    InternalError,
    KeyMovedError,
    KeyStateError,
    KmsUnavailableError,
    UnauthenticatedError,
)
from strongroom.keyring import DataKey
from strongroom.ledger import WriteBatch
from strongroom.ledger._apply import Transaction
from strongroom.model import AuditEntry, Memory

NS = "company_a/support"
OTHER = "company_b/support"

Refuse = Callable[[list[str]], Exception | None]


class Seals:
    """What was sealed at a time: on which thread, and which contents. ``refuse`` may say why not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuse: Refuse = lambda contents: None) -> None:
        self.made: list[tuple[int, list[str]]] = []
        seal = _write.seal_new

        def seal_new(engine: Engine, prepared: list[_write.Prepared], keys: list[DataKey]) -> _write.Sealed:
            contents = [p.payload.content for p in prepared]
            self.made.append((threading.get_ident(), contents))
            if error := refuse(contents):
                raise error
            return seal(engine, prepared, keys)

        monkeypatch.setattr(_write, "seal_new", seal_new)


@contextmanager
def line(room: Room) -> Iterator[Callable[[Sequence[Callable[[], Any]]], list[Future[Any]]]]:
    """Hold the ledger; what is called meanwhile stands in line, in that order. All go together at the end."""
    group = room.engine.ledger._group
    held, go = threading.Event(), threading.Event()

    def callers() -> int:
        """Not the thread that keeps the audit log."""
        works = [t.work for t in list(group._line)]
        return sum(1 for w in works if isinstance(w, WriteBatch) and (w.audit or w.filling is not None))

    def hold() -> None:
        held.set()
        assert go.wait(60)

    with ThreadPoolExecutor(16) as pool:
        holder = pool.submit(group.alone, hold)
        assert held.wait(60)

        def stand(calls: Sequence[Callable[[], Any]]) -> list[Future[Any]]:
            futures = []
            for call in calls:
                before = callers()
                futures.append(pool.submit(call))
                end = time.monotonic() + 60
                while callers() == before:
                    assert time.monotonic() < end, futures[-1]
                    time.sleep(0.001)
            return futures

        try:
            yield stand
        finally:
            go.set()
            holder.result(60)


def entries(room: Room) -> list[AuditEntry]:
    return [e for e in room.audit(limit=1000) if e.action == "store"]


@pytest.fixture
def warm(open_room: OpenRoom) -> Room:
    """Namespaces, subjects and index are there, so that a store needs no commit but its own."""
    room = open_room(worker=False)
    for ns in (NS, OTHER):
        for n in range(8):
            room.store(f"before {n}", namespace=ns, subject=f"user:{n}")
        room.search("before", namespaces=[ns], mode="keyword")
    return room


def store(room: Any, n: int, namespace: str = NS) -> Memory:
    stored = room.store(f"number {n}", namespace=namespace, subject=f"user:{n}", metadata={"n": n})
    assert isinstance(stored, Memory)
    return stored


def test_one_caller_seals_for_all_and_each_gets_its_own(warm: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight in line: sealed at once on one thread; each has its memory, its subject and its audit entry."""
    seals = Seals(monkeypatch)
    known = len(entries(warm))
    with line(warm) as stand:
        futures = stand([partial(store, warm, n, OTHER if n % 2 else NS) for n in range(8)])
    memories = [f.result(60) for f in futures]
    assert [contents for _, contents in seals.made] == [[f"number {n}" for n in range(8)]]
    for n, memory in enumerate(memories):
        ns = OTHER if n % 2 else NS
        assert (memory.content, memory.subject, memory.namespace) == (f"number {n}", f"user:{n}", ns)
        assert warm.get(memory.memory_id, namespace=ns).metadata == {"n": n}
        (hit,) = [
            h for h in warm.search(f"number {n}", namespaces=[ns], mode="keyword", k=50)
            if h.memory.memory_id == memory.memory_id
        ]  # fmt: skip
        assert hit.memory.content == f"number {n}"
    fresh = entries(warm)[known:]
    assert [e.memory_ids for e in fresh] == [(m.memory_id.bytes,) for m in memories]
    assert len({e.request_id for e in fresh}) == 8
    assert {e.namespaces for e in fresh} == {(NS,), (OTHER,)}
    assert warm.check(read_data=True).ok


def test_who_cannot_be_sealed_fails_alone(warm: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose key may not seal gets that error and an entry of it; the others are stored without it."""
    seals = Seals(monkeypatch, lambda contents: KeyStateError("disabled") if "number 2" in contents else None)
    with line(warm) as stand:
        futures = stand([partial(store, warm, n) for n in range(5)])
    outcome = [f.exception(60) for f in futures]
    assert [type(e) for e in outcome] == [type(None), type(None), KeyStateError, type(None), type(None)]
    assert [len(contents) for _, contents in seals.made] == [5, 1, 1, 1, 1, 1]
    assert outcome[2] is not None and outcome[2].__context__ is None, "nothing of the others hangs on it"
    stored = {m.content for m in warm.list(namespaces=[NS], limit=100).memories}
    assert {f"number {n}" for n in range(5)} - stored == {"number 2"}
    assert [e.outcome for e in entries(warm) if e.outcome != "ok"] == [KeyStateError.code]
    assert warm.check(read_data=True).ok


def test_what_is_no_error_of_ours_stays_with_its_caller(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign exception of one: internal_error for it, without its text; the others are stored."""
    room = open_room(debug=False)
    store(room, 0)
    secret = "what nobody should read"
    Seals(monkeypatch, lambda contents: ZeroDivisionError(secret) if "number 1" in contents else None)
    with line(room) as stand:
        futures = stand([partial(store, room, 0), partial(store, room, 1), partial(store, room, 0)])
    outcome = [f.exception(60) for f in futures]
    assert [type(e) for e in outcome] == [type(None), InternalError, type(None)]
    assert secret not in str(outcome[1])
    assert room.stats().memories == 3


def test_a_key_that_moves_while_callers_stand_in_line_is_looked_up_again(
    warm: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them prepares its memory anew and stores it once."""
    left = [6]

    def moved(contents: list[str]) -> Exception | None:
        left[0] -= 1
        return KeyMovedError() if left[0] >= 0 else None

    Seals(monkeypatch, moved)
    before = warm.stats().memories
    with line(warm) as stand:
        futures = stand([partial(store, warm, n) for n in range(5)])
    assert sorted(f.result(60).content for f in futures) == [f"number {n}" for n in range(5)]
    assert warm.stats().memories == before + 5
    assert warm.check(read_data=True).ok


def test_a_revocation_before_it_in_the_line_refuses_a_store(warm: Room) -> None:
    """What was authorized before and is sealed after: nothing of a key comes after its revocation."""
    info, text = warm.keys_create("agent", "read-write", [NS])
    agent = warm.engine.authenticate(text)
    agent.store("while it is good", namespace=NS)
    with line(warm) as stand:
        futures = stand(
            [
                partial(store, warm, 1),
                partial(warm.keys_revoke, info.key_id),
                partial(store, agent, 2),
                partial(store, warm, 3),
            ]
        )
    with pytest.raises(UnauthenticatedError):
        futures[2].result(60)
    assert futures[0].result(60).content == "number 1" and futures[3].result(60).content == "number 3"
    assert "number 2" not in {m.content for m in warm.list(namespaces=[NS], limit=100).memories}
    assert warm.check(read_data=True).ok


def test_nobody_waits_for_the_key_service_or_the_length_of_another(
    warm: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace whose KMS is silent is asked about before the line; who stores much seals it alone."""
    silent, go = threading.Event(), threading.Event()
    ns = warm.engine.registry.get(OTHER)
    assert ns is not None
    require = warm.engine.vault.keyring.require_usable

    def require_usable(number: int) -> None:
        if number == ns.ns:
            silent.set()
            assert go.wait(60)
            raise KmsUnavailableError("no answer")
        require(number)

    monkeypatch.setattr(warm.engine.vault.keyring, "require_usable", require_usable)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store, warm, 1, OTHER)
        assert silent.wait(60)
        assert store(warm, 2).content == "number 2"
        go.set()
        assert isinstance(waiting.exception(60), KmsUnavailableError)
    seals = Seals(monkeypatch)
    much = "much " * 10_000
    with line(warm) as stand:
        stand([partial(store, warm, 3), partial(warm.store, much, namespace=NS), partial(store, warm, 4)])
    assert [contents for _, contents in seals.made] == [[much], ["number 3", "number 4"]]


def test_a_batch_that_lacks_something_is_never_written(warm: Room) -> None:
    """Should the ledger ever forget to have it completed, the store refuses instead of writing nothing."""

    class Careless:
        def fill(self, batches: Sequence[WriteBatch]) -> list[Exception | None]:
            raise AssertionError

    ledger = warm.engine.ledger
    transaction = Transaction(ledger._writer_connection(), ledger._hooks)
    with pytest.raises(InternalError):
        transaction.apply(WriteBatch(filling=Careless()))


EIGHT = """
import os, sys, threading, strongroom
from strongroom.errors import InternalError
from tests.support.word_model import WordModel
room, stop = strongroom.open(sys.argv[1], provider=WordModel(), worker=False), threading.Event()

def work(k):
    number = 0
    while not stop.is_set():
        number += 1
        try:
            m = room.store(f"text {k} {number}", namespace="company_a/support", subject=f"user:{k}")
        except InternalError:  # whoever led was interrupted
            continue
        os.write(1, f"{m.memory_id}\\n".encode())

threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 8)]
for thread in threads:
    thread.start()
try:
    work(0)
except KeyboardInterrupt:
    stop.set()
for thread in threads:
    thread.join()
room.close()
print("closed", flush=True)
"""


def test_what_eight_threads_were_told_is_there_after_kills_and_interrupts(
    data: Path, open_room: OpenRoom
) -> None:
    """Twice killed and twice interrupted in the middle of groups; the others of a group go on."""
    told: set[str] = set()
    for number in range(4):
        kill = number % 2 == 0
        child = spawn(EIGHT, data)
        assert child.stdout is not None
        told.add(child.stdout.readline().strip())
        time.sleep(0.1 + 0.1 * number)
        child.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        out, err = child.communicate(timeout=60)
        lines = out.splitlines()
        assert kill or (child.returncode == 0 and lines[-1] == "closed"), err[-2000:]
        told |= {line for line in lines if len(line) == 36}
    assert len(told) > 100
    room = open_room(worker=False)
    there: set[str] = set()
    cursor = None
    while True:
        page = room.list(namespaces=[NS], limit=1000, cursor=cursor)
        there |= {str(m.memory_id) for m in page.memories}
        cursor = page.next_cursor
        if cursor is None:
            break
    assert told <= there
    assert room.check(read_data=True).ok
