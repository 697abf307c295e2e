"""Lists are filled by vectors that move: all are found at every step, and their memory is given back."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recall.lane_tools import clustered

from strongroom.recall import _making as making
from strongroom.recall._allocator import PAGE_BYTES
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._codes import ShortCodes
from strongroom.recall._ivf import InvertedLists
from strongroom.recall._making import Move
from strongroom.recall.vectors import VectorLane

D = 32
ROWS = 3_000

Rows = NDArray[np.float32]


class Told:
    """What a lane was told, and a source of random changes of it."""

    def __init__(self, lane: VectorLane, rows: Rows) -> None:
        self.lane = lane
        self.rows = rows
        plain = InvertedLists(D)
        plain.add(np.arange(len(rows)), rows)
        self.kept = plain.gather(np.arange(len(rows)))  # as they are held
        self.held: dict[int, int] = {}  # rid -> number of the row of ``rows``
        self.next = 0
        self.rng = np.random.default_rng(3)

    def add(self, numbers: NDArray[np.int64]) -> None:
        rids = np.arange(self.next, self.next + len(numbers))
        self.next += len(numbers)
        self.lane.add(rids, self.rows[numbers])
        self.held.update(zip(rids.tolist(), numbers.tolist(), strict=True))

    def change(self) -> None:
        """Something of everything: new, replaced, removed, handed on."""
        self.add(self.rng.integers(len(self.rows), size=3))
        rids = self.rng.choice(list(self.held), size=30, replace=False)
        gone, replaced, moved = rids[:10], rids[10:20], rids[20:]
        self.lane.remove(gone)
        numbers = self.rng.integers(len(self.rows), size=10)
        self.lane.add(replaced, self.rows[numbers])
        heirs = np.arange(self.next, self.next + 10)
        self.next += 10
        self.lane.move(moved, heirs)
        for rid in gone.tolist():
            del self.held[rid]
        self.held.update(zip(replaced.tolist(), numbers.tolist(), strict=True))
        for rid, heir in zip(moved.tolist(), heirs.tolist(), strict=True):
            self.held[heir] = self.held.pop(rid)

    def check(self) -> None:
        """The lane holds exactly that, and a search finds all of it."""
        rids = np.array(sorted(self.held))
        wanted = self.kept[[self.held[rid] for rid in rids.tolist()]]
        assert len(self.lane) == len(rids)
        np.testing.assert_array_equal(self.lane.vectors(rids), wanted)
        gone = np.setdiff1d(np.arange(self.next), rids)
        assert np.isnan(self.lane.vectors(gone)).all()
        query = self.rows[int(self.rng.integers(len(self.rows)))]
        found, cosines = self.lane.search(query, len(rids))
        assert sorted(found.tolist()) == rids.tolist()
        np.testing.assert_allclose(cosines, np.sort(wanted @ query)[::-1], atol=1e-6)
        some = self.lane.search(query, 10)[0]
        assert len(some) == 10 and set(some.tolist()) <= set(self.held)
        few = np.sort(self.rng.choice(rids, size=50, replace=False))
        best = few[np.lexsort((-few, -(wanted[np.searchsorted(rids, few)] @ query)))][:10]
        assert self.lane.search(query, 10, few)[0].tolist() == best.tolist()
        wide = np.zeros(self.next, np.bool_)
        wide[::2] = True
        found = self.lane.search(query, len(rids), wide)[0]
        assert sorted(found.tolist()) == rids[rids % 2 == 0].tolist()
        every = self.lane.every_similarity(query)
        np.testing.assert_allclose(every[rids], wanted @ query, atol=1e-6)
        assert np.isnan(every[gone]).all()


@pytest.fixture
def told() -> Iterator[Told]:
    lane = VectorLane(D, exact_rows_max=1_000)
    made = Told(lane, clustered(ROWS, D, 40, seed=1))
    made.add(np.arange(ROWS))
    yield made
    lane.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MOVE_ROWS", 256)


def built(lane: VectorLane) -> None:
    """Let lists be made; what a hook has asserted on that thread is raised here.

    A look at how well the lane answers, which a search may have begun, ends first: nothing starts beside it.
    """
    assert lane.wait_built(60)
    raised: list[BaseException] = []
    run = lane._rebuild

    def rebuild() -> None:
        try:
            run()
        except BaseException as e:
            raised.append(e)
            raise

    lane._rebuild = rebuild  # type: ignore[method-assign]
    lane.tend()
    assert lane.wait_built(60)
    lane._rebuild = run  # type: ignore[method-assign]
    if raised:
        raise raised[0]


@pytest.mark.parametrize("before", ["plain", "trained"])
def test_every_vector_is_found_at_every_step(
    told: Told, before: str, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of a move, with changes of all kinds before each, the lane is what it was told."""
    lane, real, steps = told.lane, Move._step, []
    if before == "trained":
        built(lane)
        assert not lane.is_exact
        told.add(np.arange(ROWS))

    def step(*given: Any) -> None:
        told.change()
        told.check()
        steps.append(lane._move is not None and 0 < lane._move.old.rows < len(lane))
        real(*given)

    monkeypatch.setattr(Move, "_step", step)
    built(lane)
    assert sum(steps) > 5, "the two were searched together"
    assert lane._move is None and lane._lists.is_trained and lane._trained_rows > 0
    told.check()


def test_changes_in_the_middle_of_a_step_are_kept(
    told: Told, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes after a step has read it and before it has moved it is not overwritten by what it read."""
    real, busy = ShortCodes.of, Event()

    def of(codes: ShortCodes, rows: Rows) -> Any:
        if not busy.is_set() and told.lane._move is not None:
            busy.set()
            told.change()
            told.lane.add(np.array([5]), told.rows[7:8])  # always the same one
            told.held[5] = 7
            busy.clear()
        return real(codes, rows)

    monkeypatch.setattr(ShortCodes, "of", of)
    built(told.lane)
    assert told.lane._move is None and told.lane._lists.codes is not None
    told.check()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is given back when all have moved")
def test_what_has_moved_leaves_no_memory_behind(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages behind the last vector of each list go back to the system step by step: they read as zero."""
    real, seen = Move._step, []

    def step(move: Move, *given: Any) -> None:
        held = move.old.sizes.copy() if not seen else seen[0]
        real(move, *given)
        seen.append(held)
        for number, size in enumerate(move.old.sizes.tolist()):
            _, codes = move.old.memory_of(number, int(held[number]))
            free = codes[size:].reshape(-1)
            some = PAGE_BYTES // 2  # a page of 16-bit numbers at either end may be in use
            assert not free[some:-some].any()

    monkeypatch.setattr(making, "MOVE_ROWS", 512)
    monkeypatch.setattr(Move, "_step", step)
    built(told.lane)
    assert len(seen) >= 3
    told.check()


@pytest.mark.parametrize("failing", ["first", "later"])
def test_a_move_that_fails_is_gone_on_with(
    told: Told, failing: str, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory in the middle of it nothing is lost: both are searched, and growth tries again."""
    real, calls = InvertedLists.add, []

    def add(lists: InvertedLists, *given: Any) -> None:
        if told.lane._move is not None and lists is told.lane._lists:
            calls.append(1)
            if len(calls) == (1 if failing == "first" else 9):
                raise MemoryError
        real(lists, *given)

    monkeypatch.setattr(InvertedLists, "add", add)
    built(told.lane)
    assert told.lane._move is not None and not told.lane.is_building
    told.change()
    told.check()
    told.add(np.arange(ROWS // 2))
    built(told.lane)
    assert told.lane._move is None and told.lane._lists.is_trained
    told.check()


def test_a_snapshot_in_the_middle_of_a_move_is_whole(
    told: Told, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds every vector and no lists; nothing moves on meanwhile, and changes do not spoil it."""
    real, reached, written = Move._step, Event(), Event()
    steps = []

    def step(*given: Any) -> None:
        real(*given)
        steps.append(1)
        if len(steps) == 5:
            reached.set()
            assert written.wait(60)

    monkeypatch.setattr(Move, "_step", step)
    told.lane.tend()
    assert reached.wait(60)
    rids = np.array(sorted(told.held))
    wanted = told.lane.vectors(rids)
    frozen = told.lane.freeze()
    told.change()
    written.set()
    raw = io.BytesIO()
    frozen.dump(BlockWriter(raw), rids)
    assert len(steps) == 5
    frozen.close()
    other = VectorLane(D, exact_rows_max=1_000)
    other.restore(BlockReader(io.BytesIO(raw.getvalue())), len(rids))
    assert other.is_exact
    np.testing.assert_array_equal(other.vectors(np.arange(len(rids))), wanted)
    other.close()
    assert told.lane.wait_built(60) and len(steps) > 5
    told.check()


def test_closing_does_not_wait_for_a_move(
    told: Told, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between two steps, and both parts are searched to the last."""
    real, reached = Move._step, Event()

    def step(*given: Any) -> None:
        real(*given)
        reached.set()
        told.lane._task._stopping = True  # as ``close`` says it, from another thread

    monkeypatch.setattr(Move, "_step", step)
    told.lane.tend()
    assert reached.wait(60)
    closing = Thread(target=told.lane.close)
    closing.start()
    closing.join(60)
    assert told.lane._move is not None
    told.check()
