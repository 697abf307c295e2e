"""Callers that come at the same time share a transaction, and nothing else."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, assert_whole, memory, tombstone, vector
from tests.support.interrupts import interrupted_at

from strongroom.config import LedgerConfig
from strongroom.errors import (
    ClosedError,
    DuplicateMemoryError,
    InternalError,
    InvalidInputError,
    NamespaceNotFoundError,
    TamperedError,
)
from strongroom.ledger import QueueItem, SqliteLedger, WriteBatch, _group
from strongroom.ledger._group import GroupCommit, Take
from strongroom.ledger._heads import ResetHead
from strongroom.model import Field


class GateHooks(SumHooks):
    """Holds the first group until the gate opens, counts heads, and refuses namespace 13."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.heads: list[tuple[int, int, int]] = []

    def advance_head(
        self,
        ns: int,
        head: bytes | None,
        seq_before: int,
        seq_after: int,
        removed: list[bytes],
        added: list[bytes],
    ) -> bytes:
        self.heads.append((ns, seq_before, seq_after))
        self.inside.set()
        assert self.gate.wait(30)
        if ns == 13 and seq_after > 0:
            raise TamperedError()
        return super().advance_head(ns, head, seq_before, seq_after, removed, added)

    def seal_audit(self, seq: int, entry: bytes) -> bytes:
        if entry == b"unsealable":
            raise ZeroDivisionError
        return super().seal_audit(seq, entry)


@pytest.fixture
def hooks() -> GateHooks:
    return GateHooks()


@pytest.fixture
def gated(tmp_path: Path, hooks: GateHooks) -> Iterator[SqliteLedger]:
    config = LedgerConfig(group_items_max=16)
    with SqliteLedger.create(tmp_path, uuid.uuid4(), hooks, config) as made:
        made.commit(WriteBatch(new_namespaces=[1, 2, 13]))
        yield made


def together(
    ledger: SqliteLedger, hooks: GateHooks, batches: Sequence[WriteBatch | ResetHead]
) -> list[Future[object]]:
    """Hold one commit at the gate, line up ``batches`` behind it, and let go."""
    hooks.inside.clear()
    hooks.gate.clear()
    with ThreadPoolExecutor(len(batches) + 1) as pool:
        first = pool.submit(ledger.commit, WriteBatch(puts=[memory(1, b"first" + bytes(11))]))
        assert hooks.inside.wait(30)
        hooks.heads.clear()
        futures = []
        for n, batch in enumerate(batches):
            futures.append(pool.submit(ledger._group.submit, batch))
            while len(ledger._group._line) <= n:
                threading.Event().wait(0.001)
        hooks.gate.set()
        first.result(30)
    return futures


def put(n: int, ns: int = 1) -> WriteBatch:
    return WriteBatch(puts=[memory(ns, n.to_bytes(16, "big"), expect=0)], audit=[b"%d" % n])


def test_waiting_writers_share_one_transaction(gated: SqliteLedger, hooks: GateHooks) -> None:
    """Ten that wait are one transaction: the head advances once, the numbers follow the line."""
    futures = together(gated, hooks, [put(n) for n in range(10)])
    assert [f.result() for f in futures] == [[n + 2] for n in range(10)]
    assert hooks.heads == [(1, 1, 11)]
    assert_whole(gated)


def test_a_head_made_anew_among_writers_matches(gated: SqliteLedger, hooks: GateHooks) -> None:
    """Writes before and after the reset in the same transaction count once each; a lost row is accepted."""
    gated.commit(WriteBatch(puts=[memory(1, b"lost" * 4), memory(1, b"kept" * 4)]))
    damage = apsw.Connection(str(gated._path))
    damage.execute("DELETE FROM record WHERE memory_id = ?", (b"lost" * 4,))
    damage.close()
    with pytest.raises(AssertionError):
        assert_whole(gated)
    replaced = WriteBatch(puts=[memory(1, (1).to_bytes(16, "big"), version=2)])
    works = [put(1), ResetHead(1), replaced, ResetHead(2), put(2)]
    futures = together(gated, hooks, works)
    assert [f.result() for f in futures] == [[4], 3, [5], 0, [6]]
    assert hooks.heads == [(1, 0, 6), (2, 0, 0)]
    assert_whole(gated)
    with pytest.raises(NamespaceNotFoundError):
        gated.reset_head(9)


def test_no_group_exceeds_the_limit(gated: SqliteLedger, hooks: GateHooks) -> None:
    """With at most 16 to a group, twenty that wait are two transactions."""
    together(gated, hooks, [put(n) for n in range(20)])
    assert hooks.heads == [(1, 1, 17), (1, 17, 21)]


def test_a_failing_batch_fails_alone(gated: SqliteLedger, hooks: GateHooks) -> None:
    """Refusals of every kind in the middle of a group: the neighbours' rows and audit entries stand."""
    wrong_type = WriteBatch(puts=[memory(1, b"w" * 16, key_id=1 << 70)], audit=[b"w"])
    batches = [
        put(1),
        put(1),
        put(2),
        put(9, ns=77),
        put(3),
        wrong_type,
        put(4),
        WriteBatch(puts=[memory(2, b"u" * 16)], audit=[b"unsealable"]),
        put(5),
        put(6, ns=13),
        put(7),
    ]
    futures = together(gated, hooks, batches)
    errors = [type(f.exception()) for f in futures]
    none = type(None)
    assert errors == [
        none,
        DuplicateMemoryError,
        none,
        NamespaceNotFoundError,
        none,
        InvalidInputError,
        none,
        ZeroDivisionError,
        none,
        TamperedError,
        none,
    ]
    assert [f.result() for f in futures if f.exception() is None] == [[n] for n in range(2, 8)]
    assert [entry for _, entry in gated.audit_entries(0, 99)] == [
        b"%d:%d" % (i + 1, n) for i, n in enumerate([1, 2, 3, 4, 5, 7])
    ]
    assert gated.get(2, b"u" * 16) is None
    assert gated.head(13)[0] == 0
    assert_whole(gated)


def test_a_batch_sees_what_others_of_its_group_have_added(gated: SqliteLedger, hooks: GateHooks) -> None:
    """Rows that only wait to be written are found by those who replace, delete or build on them."""
    one, two = (1).to_bytes(16, "big"), (2).to_bytes(16, "big")
    item = QueueItem(1, two, 1)
    batches = [
        put(1),
        WriteBatch(puts=[memory(1, two, expect=0)], enqueue=[item]),
        WriteBatch(puts=[memory(1, one, version=2, expect=1)]),
        WriteBatch(puts=[vector(1, two, requires_queue_item=True)], dequeue=[item]),
        put(3),
        WriteBatch(puts=[tombstone(1, one, version=3)]),
        put(4),
    ]
    futures = together(gated, hooks, batches)
    assert [f.result() for f in futures] == [[n] for n in range(2, 9)]
    assert hooks.heads == [(1, 1, 8)], "all of them in one transaction"
    rows = {(r.memory_id, r.field): (r.seq, r.version) for r in gated.changes(1, 1, 99)}
    assert rows[one, int(Field.MEMORY)] == (7, 3)
    assert rows[two, int(Field.VECTOR)] == (5, 1)
    assert gated.queue_stats().pending == 0
    assert_whole(gated)


def test_many_threads_get_distinct_gapless_numbers(gated: SqliteLedger) -> None:
    """Eight threads, 400 stores: each number once, none left out."""
    with ThreadPoolExecutor(8) as pool:
        seqs = [s for f in pool.map(lambda n: gated.commit(put(n)), range(400)) for s in f]
    assert sorted(seqs) == list(range(1, 401))
    assert [n for n, _ in gated.audit_entries(0, 999)] == list(range(1, 401))
    assert_whole(gated)


def test_an_interrupted_leader_fails_its_group_and_passes_the_lead_on() -> None:
    """KeyboardInterrupt inside a write: that group has an unknown outcome, the next one is written."""
    hold, go = threading.Event(), threading.Event()
    written: list[str] = []

    def write(take: Take[str]) -> None:
        for ticket in take(1):
            if ticket.work == "bad":
                hold.set()
                assert go.wait(30)
                raise KeyboardInterrupt
            written.append(ticket.work)
            ticket.settle(len(written))

    group: GroupCommit[str] = GroupCommit(write)
    outcome: list[BaseException] = []

    def leader() -> None:
        try:
            group.submit("bad")
        except KeyboardInterrupt as e:
            outcome.append(e)

    thread = threading.Thread(target=leader)
    thread.start()
    assert hold.wait(30)
    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(group.submit, "good")
        while not group._line:
            threading.Event().wait(0.001)
        go.set()
        assert follower.result(30) == 1
    thread.join()
    assert len(outcome) == 1
    assert group.submit("more") == 2
    group.close()
    with pytest.raises(ClosedError):
        group.submit("late")


def test_a_follower_of_an_interrupted_group_is_told() -> None:
    """Tickets that a leader took and did not settle raise InternalError instead of hanging."""
    hold, go = threading.Event(), threading.Event()
    rounds: list[int] = []

    def write(take: Take[str]) -> None:
        tickets = take(10)
        rounds.append(len(tickets))
        if len(rounds) == 1:
            hold.set()
            assert go.wait(30)
            tickets[0].settle("done")
            return
        raise KeyboardInterrupt

    group: GroupCommit[str] = GroupCommit(write)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(group.submit, "a")
        assert hold.wait(30)
        others = [pool.submit(group.submit, name) for name in "bc"]
        while len(group._line) < 2:
            threading.Event().wait(0.001)
        go.set()
        assert first.result(30) == "done"
        kinds = sorted(type(f.exception(30)).__name__ for f in others)
    assert kinds == sorted([KeyboardInterrupt.__name__, InternalError.__name__])


def test_an_interrupted_follower_leaves_the_line() -> None:
    """A signal in a waiting caller: its work is not written later, and the others go on."""
    written: list[str] = []
    hold, go = threading.Event(), threading.Event()

    def write(take: Take[str]) -> None:
        for ticket in take(10):
            written.append(ticket.work)
            if ticket.work == "a":
                hold.set()
                assert go.wait(30)
            ticket.settle(None)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    group: GroupCommit[str] = GroupCommit(write)
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def knock() -> None:
        while not group._line:
            threading.Event().wait(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(group.submit, "a")
            assert hold.wait(30)
            pool.submit(knock)
            with pytest.raises(KeyboardInterrupt):
                group.submit("b")
            go.set()
            first.result(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    group.submit("c")
    assert written == ["a", "c"]


def test_alone_runs_between_groups_in_order() -> None:
    """An action waits for the group before it, and the writers behind it wait for the action."""
    events: list[str] = []
    hold, go = threading.Event(), threading.Event()

    def write(take: Take[str]) -> None:
        for ticket in take(10):
            if ticket.work == "a":
                hold.set()
                assert go.wait(30)
            events.append(ticket.work)
            ticket.settle(None)

    group: GroupCommit[str] = GroupCommit(write)
    with ThreadPoolExecutor(3) as pool:
        futures: list[Future[object]] = [pool.submit(group.submit, "a")]
        assert hold.wait(30)
        futures.append(pool.submit(group.alone, lambda: events.append("alone")))
        while len(group._line) < 1:
            threading.Event().wait(0.001)
        futures.append(pool.submit(group.submit, "b"))
        while len(group._line) < 2:
            threading.Event().wait(0.001)
        go.set()
        for future in futures:
            future.result(30)
    assert events == ["a", "alone", "b"]


class TwoCallers:
    """One leads and is interrupted, the other stands behind it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.outcome: list[object] = []
        self.inside = threading.Event()
        self.group: GroupCommit[str] = GroupCommit(self.write)

    def write(self, take: Take[str]) -> None:
        tickets = take(1)
        self.inside.set()
        while tickets and tickets[0].work == "first" and not self.group._line:
            threading.Event().wait(0.001)
        for ticket in tickets + take(5):
            self.done.append(ticket.work)
            ticket.settle(ticket.work)

    def follow(self) -> None:
        self.inside.wait(0.1)  # nobody is inside when the leader was interrupted early
        try:
            self.outcome.append(self.group.submit("second"))
        except InternalError as e:
            self.outcome.append(e)


def test_a_leader_that_is_interrupted_at_any_step_wakes_who_waits() -> None:
    """Ctrl-C while the tickets of others were being woken once left them asleep for ever."""
    for step in range(1, 400):
        two = TwoCallers()
        follower = threading.Thread(target=two.follow, daemon=True)
        follower.start()
        was_interrupted = interrupted_at(step, _group.__file__, partial(two.group.submit, "first"))
        follower.join(30)
        assert two.outcome, f"asleep for ever after step {step}"
        assert two.done.count("second") == (two.outcome[0] == "second") or two.done.count("second") == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(two.group.submit, "third").result(30) == "third"
        if not was_interrupted:
            break
    assert 10 < step < 399


class FourCallers:
    """One leads alone; three stand behind it and are written and woken together, one after the other."""

    def __init__(self) -> None:
        self.group: GroupCommit[str] = GroupCommit(self.write)
        self.inside, self.over = threading.Event(), threading.Event()
        self.outcome: dict[str, object] = {}

    def write(self, take: Take[str]) -> None:
        tickets = take(1)
        if tickets[0].work == "leads":
            self.inside.set()
            while len(self.group._line) < 3 and not self.over.is_set():
                threading.Event().wait(0.0005)
        else:
            tickets += take(9)
        for ticket in tickets:
            ticket.settle(ticket.work)

    def call(self, name: str, behind: int) -> None:
        """Submit when so many stand in line, or the one that is interrupted is over."""
        while len(self.group._line) < behind and not self.over.is_set():
            threading.Event().wait(0.0005)
        try:
            self.outcome[name] = self.group.submit(name)
        except InternalError as e:
            self.outcome[name] = e

    def begin(self) -> list[threading.Thread]:
        """All but the one in the middle, whom the caller's own thread is to be."""
        threads = [
            threading.Thread(target=self.call, args=given, daemon=True)
            for given in (("leads", 0), ("before", 0), ("behind", 2))
        ]
        threads[0].start()
        assert self.inside.wait(30)
        threads[1].start()
        while not self.group._line:
            threading.Event().wait(0.0005)
        threads[2].start()
        return threads


def test_a_caller_that_is_interrupted_in_the_middle_of_the_chain_keeps_nobody_asleep() -> None:
    """Each caller of a group wakes the next: one that goes away at any step hands the waking on."""
    for step in range(1, 400):
        four = FourCallers()
        threads = four.begin()
        was_interrupted = interrupted_at(step, _group.__file__, partial(four.group.submit, "middle"))
        four.over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), f"asleep for ever after step {step}"
        assert four.outcome["leads"] == "leads"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(four.group.submit, "later").result(30) == "later"
        if not was_interrupted:
            break
    assert 5 < step < 399


def test_a_caller_that_went_away_while_it_was_being_written_is_left_out_of_the_chain() -> None:
    """A signal in a caller whose work is with the leader: who stands behind it is woken all the same."""
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    class Knocking(FourCallers):
        def write(self, take: Take[str]) -> None:
            tickets = take(1)
            if tickets[0].work == "leads":
                self.inside.set()
                while len(self.group._line) < 3:
                    threading.Event().wait(0.0005)
            else:
                tickets += take(9)
                assert [t.work for t in tickets] == ["before", "middle", "behind"]
                signal.pthread_kill(main, signal.SIGUSR1)
                assert self.over.wait(30)
            for ticket in tickets:
                ticket.settle(ticket.work)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    four = Knocking()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threads = four.begin()
        with pytest.raises(KeyboardInterrupt):
            four.group.submit("middle")
    finally:
        signal.signal(signal.SIGUSR1, before)
    four.over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert four.outcome == {"leads": "leads", "before": "before", "behind": "behind"}


def test_the_last_of_a_chain_hands_the_lead_on_wherever_it_is_interrupted() -> None:
    """The lead goes down the chain: whoever has it and goes away leaves it to those who stand in line."""
    for step in range(1, 400):
        four = FourCallers()
        threads = [
            threading.Thread(target=four.call, args=given, daemon=True)
            for given in (("leads", 0), ("before", 0), ("between", 1))
        ]
        threads[0].start()
        assert four.inside.wait(30)
        for behind, thread in enumerate(threads[1:]):
            thread.start()
            while len(four.group._line) <= behind:
                threading.Event().wait(0.0005)
        was_interrupted = interrupted_at(step, _group.__file__, partial(four.group.submit, "last"))
        four.over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), f"asleep for ever after step {step}"
        later = threading.Thread(target=four.call, args=("later", 0), daemon=True)
        later.start()
        later.join(30)
        assert four.outcome.get("later") == "later", f"nobody has the lead after step {step}"
        four.group.close()
        if not was_interrupted:
            break
    assert 5 < step < 399


def write_after_three(group: GroupCommit[str], groups: list[list[str]], take: Take[str]) -> None:
    """The caller "leads" is written alone, once three stand behind it; else whoever stands in line."""
    tickets = take(1)
    if tickets[0].work == "leads":
        while len(group._line) < 3:
            threading.Event().wait(0.0005)
    else:
        tickets += take(9)
    groups.append([t.work for t in tickets])
    for ticket in tickets:
        ticket.settle(None)


def test_the_next_group_begins_when_the_last_of_the_one_before_is_awake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was woken first and comes back at once stands in line until then, to be written with the others."""
    groups: list[list[str]] = []
    inside, late = threading.Event(), threading.Event()

    def write(take: Take[str]) -> None:
        inside.set()
        write_after_three(group, groups, take)

    def wake_next(ticket: _group.Ticket[str]) -> None:
        if ticket.work == "middle":  # which is to wake the last one
            while [t.work for t in group._line] != ["back", "new"] and not late.wait(0.0005):
                pass
        wake(ticket)

    wake = _group._wake_next
    monkeypatch.setattr(_group, "_wake_next", wake_next)
    monkeypatch.setattr(_group, "_CARRIED_S", 60)
    group: GroupCommit[str] = GroupCommit(write)

    def first() -> None:
        group.submit("first")
        group.submit("back")

    with ThreadPoolExecutor(5) as pool:
        futures: list[Future[object]] = [pool.submit(group.submit, "leads")]
        assert inside.wait(30)
        calls: list[Callable[[], object]] = [first, *(partial(group.submit, n) for n in ("middle", "last"))]
        for n, call in enumerate(calls):
            futures.append(pool.submit(call))
            while n < 2 and len(group._line) <= n:  # the third lets them all go
                threading.Event().wait(0.0005)

        def another() -> None:
            while [t.work for t in group._line] != ["back"] and not late.wait(0.0005):
                pass
            group.submit("new")

        futures.append(pool.submit(another))
        timer = threading.Timer(5, late.set)  # if somebody was given the lead before
        timer.start()
        for future in futures:
            future.result(60)
        timer.cancel()
    assert groups == [["leads"], ["first", "middle", "last"], ["back", "new"]]


def test_who_comes_while_a_chain_does_not_end_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last of a group gets no processor: after a moment somebody else leads, and nobody leads twice."""
    groups: list[list[str]] = []
    inside, others = threading.Event(), threading.Event()
    at_once: list[int] = []

    def write(take: Take[str]) -> None:
        at_once.append(1)
        assert len(at_once) == 1
        inside.set()
        write_after_three(group, groups, take)
        at_once.clear()

    def wake_next(ticket: _group.Ticket[str]) -> None:
        if ticket.work == "middle":  # which is to wake the last one
            assert others.wait(30)
        wake(ticket)

    wake = _group._wake_next
    monkeypatch.setattr(_group, "_wake_next", wake_next)
    group: GroupCommit[str] = GroupCommit(write)
    with ThreadPoolExecutor(4) as pool:
        chain = [pool.submit(group.submit, "leads")]
        assert inside.wait(30)
        for n, name in enumerate(("first", "middle", "last")):
            chain.append(pool.submit(group.submit, name))
            while n < 2 and len(group._line) <= n:  # the third lets them all go
                threading.Event().wait(0.0005)
        chain[1].result(30)
        try:
            for n in range(5):
                pool.submit(group.submit, f"back {n}").result(30)
        finally:
            others.set()
        for future in chain:
            future.result(30)
    assert groups == [["leads"], ["first", "middle", "last"], *([f"back {n}"] for n in range(5))]
    group.submit("more")
    group.close()
