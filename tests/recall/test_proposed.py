"""Rows that the keyword lane proposes to the vector lane: they are found wherever they lie, and so hybrid
searches look at fewer others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recall.lane_tools import NOW_US, blind, clustered, memory, memory_id

from strongroom.recall import ColumnarStore, NamespaceIndex, Recall, RecallQuery, RecallSettings
from strongroom.recall import _reach as reach_module
from strongroom.recall._ivf import PLAIN_LISTS, InvertedLists
from strongroom.recall._look import Proposed, sketched
from strongroom.recall._reach import Reach, first_reach
from strongroom.recall.changes import Change, Upsert, VectorPut
from strongroom.recall.vectors import VectorLane

D = 32
ODD = 100  # no multiple of 16: sums of the scan and of a product differ in their last bits
ROWS = 6_000
FEW = Reach((16, 32, 64, 128), (8, 16, 32, 64), (20, 900, 2_000, 4_000))
WHOLE = Reach((4_096,) * 4)


@pytest.fixture(autouse=True)
def codes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they cost, short codes are read where they can be."""
    monkeypatch.setattr(reach_module, "_row_cost", lambda share: 1e9)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return clustered(ROWS, D, 60, seed=1)


@pytest.fixture
def lane(rows: NDArray[np.float32]) -> Iterator[VectorLane]:
    made = VectorLane(D, exact_rows_max=1_000)
    made.add(np.arange(ROWS), rows)
    made.tend()
    assert made.wait_built(60)
    made._reach = FEW
    yield made
    made.close()


def proposals(rids: NDArray[np.int64], late: bool, sure: int = 10) -> Proposed:
    return Proposed(sure, (lambda: None) if late else (lambda: rids), lambda: rids)


def true_order(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.int64]:
    kept = rows.astype(np.float16).astype(np.float32)
    return np.argsort(-(kept @ query), kind="stable")


@pytest.mark.parametrize("late", [False, True])
def test_what_is_proposed_is_found_in_its_place(
    lane: VectorLane, rows: NDArray[np.float32], late: bool
) -> None:
    """Near rows in lists that are not probed, and far ones: the first are in the answer, in their order, the
    others are not, nothing is there twice, and a row that has no vector is passed over."""
    added = 0
    for query in clustered(30, D, 60, seed=2):
        order = true_order(rows, query)
        near, far = order[10:50:3], order[-40:]
        given = np.concatenate([far, near, order[:2], [ROWS + 5]])
        alone, _ = lane.search(query, 50, None, proposals(np.empty(0, np.int64), late))
        found, cosines = lane.search(query, 50, None, proposals(given, late))
        assert len(found) == len(set(found.tolist())) == 50
        assert set(near.tolist()) <= set(found.tolist()) and not set(far.tolist()) & set(found.tolist())
        assert np.all(np.diff(cosines) <= 0)
        np.testing.assert_allclose(cosines, lane.similarity(query, found), atol=2e-6)
        added += len(set(near.tolist()) - set(alone.tolist()))
    assert added > 20


def test_early_and_late_proposals_give_the_same(lane: VectorLane, rows: NDArray[np.float32]) -> None:
    """Whether keywords had ended by then or not: rows, order and scores bit by bit."""
    for query in clustered(30, D, 60, seed=3):
        given = true_order(rows, query)[5:90:2]
        early = lane.search(query, 50, None, proposals(given, late=False))
        late = lane.search(query, 50, None, proposals(given, late=True))
        assert early[0].tolist() == late[0].tolist() and early[1].tobytes() == late[1].tobytes()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_so_many_as_are_to_be_sure_are_found_without_proposals(
    lane: VectorLane, rows: NDArray[np.float32], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ten of fifty are looked for as the first ten alone are, with a filter and without, and there
    are fifty."""
    monkeypatch.setattr("strongroom.recall.vectors.NARROW_ROWS", 0)
    mask = None if share == 1.0 else np.random.default_rng(5).random(ROWS) < share
    lane._reach = Reach((16, 32, 64, 128), (16, 40, 64, 128), (120, 900, 2_000, 4_000))
    for query in clustered(30, D, 60, seed=4):
        ten, _ = lane.search(query, 10, mask)
        fifty, _ = lane.search(query, 50, mask, proposals(np.empty(0, np.int64), late=False))
        assert fifty[:10].tolist() == ten.tolist() and len(fifty) == 50
        assert mask is None or mask[fifty].all()


def test_equal_rows_among_the_proposed_come_newest_first(lane: VectorLane, rows: NDArray[np.float32]) -> None:
    """Copies of one vector, some found and some proposed, in one order: the newer first."""
    copies = np.arange(ROWS, ROWS + 12)
    lane.add(copies, np.repeat(rows[:1], 12, axis=0))
    for late in (False, True):
        found, _ = lane.search(rows[0], 20, None, proposals(np.arange(100, 160), late, sure=20))
        assert found[:13].tolist() == [*copies[::-1].tolist(), 0]


@pytest.fixture
def index() -> Iterator[NamespaceIndex]:
    """Every third memory speaks of ships."""
    rows = clustered(ROWS, ODD, 60, seed=1)
    store = ColumnarStore()
    settings = RecallSettings(exact_rows_max=1_000)
    made = NamespaceIndex(store.table(1, "acme/notes"), blind, ns=1, dimensions=ODD, settings=settings)
    changes: list[Change] = []
    for n in range(ROWS):
        text = f"a ship from harbour {n % 40}" if n % 3 == 0 else "no words of note"
        changes.append(Upsert(memory(n, text), 2 * n + 1, 1))
        changes.append(VectorPut(memory_id(n).bytes, 1, rows[n], 2 * n + 2))
    made.apply(changes, 2 * ROWS)
    Recall.search([made], RecallQuery(now_us=NOW_US, text="ship", vector=rows[0]))
    assert made.vectors is not None and made.vectors.wait_built(60)
    yield made
    made.close()
    store.close()


def answers(index: NamespaceIndex, query: RecallQuery) -> list[tuple[Any, ...]]:
    found = Recall.search([index], query)
    return [(c.memory_id, c.score, c.similarity, c.vector_rank, c.keyword_rank) for c in found]


def test_a_hybrid_search_with_proposals_answers_as_one_that_looks_everywhere(index: NamespaceIndex) -> None:
    """Memories that both lanes know are found whatever the codes say of them, with the exact cosine; a
    question that is embedded meanwhile gets the same."""
    lane = index.vectors
    assert lane is not None
    same = met = 0
    for number, query in enumerate(clustered(40, ODD, 60, seed=6)):
        asked = RecallQuery(now_us=NOW_US, text=f"ship harbour {number}", vector=query)
        lane._reach = WHOLE
        truth = answers(index, asked)
        lane._reach = Reach((16, 32, 64, 128), (16, 16, 32, 64), (100, 100, 300, 900))
        found = answers(index, asked)
        later = replace(asked, vector=None, embed=lambda query=query: query)
        assert found == answers(index, later)
        rids = [index.rid_of(memory) for memory, *_ in found]
        exact = lane.similarity(query, np.array(rids))
        assert [similarity for _, _, similarity, *_ in found] == exact.tolist()
        same += len({f[0] for f in found} & {t[0] for t in truth})
        met += sum(v is not None and v > 10 and k is not None for _, _, _, v, k in found)
    assert same / 400 > 0.98 and met > 5


def test_boosts_and_thresholds_are_searched_as_deep_as_before(
    index: NamespaceIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a place in the order does not follow from ranks alone, no lane relies on the other."""
    given: list[Proposed | None] = []
    searched = VectorLane.search
    monkeypatch.setattr(VectorLane, "search", lambda *a: (given.append(a[4]), searched(*a))[1])
    asked = RecallQuery(now_us=NOW_US, text="ship", vector=clustered(1, ODD, 60, seed=7)[0])
    Recall.search([index], asked)
    Recall.search([index], replace(asked, min_similarity=0.1))
    Recall.search([index], replace(asked, mode="semantic"))
    index.settings = replace(index.settings, recency_weight=0.5)
    Recall.search([index], asked)
    index.settings = replace(index.settings, recency_weight=0.0, vector_weight=0.0)
    Recall.search([index], asked)
    assert [one is not None for one in given] == [True, False, False, False, False]


def test_a_vector_lane_without_weight_still_fills_up_with_the_newest(index: NamespaceIndex) -> None:
    """Where no keyword is met, answers are the newest of the fifty nearest: all of those are looked for."""
    lane = index.vectors
    assert lane is not None
    index.settings = replace(index.settings, vector_weight=0.0)
    for query in clustered(30, ODD, 60, seed=7):
        asked = RecallQuery(now_us=NOW_US, text="zebra", vector=query)
        lane._reach = WHOLE
        truth = answers(index, asked)
        lane._reach = Reach((16, 32, 64, 128), (6, 16, 128, 256), (60, 600, 900, 900))
        assert answers(index, asked) == truth


@pytest.mark.parametrize("late", [False, True])
def test_lists_that_hold_as_many_as_are_wanted_and_no_more(
    lane: VectorLane, rows: NDArray[np.float32], late: bool
) -> None:
    """Proposed rows that lie in them are counted once."""
    for query in clustered(10, D, 60, seed=8):
        for probes in (1, 2, 3):
            rids, _ = lane._lists.sketch(query, ROWS, probes, None)
            exact = lane.similarity(query, rids)
            for less in range(8):
                k = len(rids) - less
                if k < 12:
                    continue
                found = sketched(lane._lists, query, k, (probes, 20), None, proposals(rids[3:11], late))
                assert found is not None and len(found[0]) == k
                np.testing.assert_allclose(found[1], np.sort(exact)[::-1][:k], atol=2e-6)


def test_equal_vectors_of_several_namespaces_stand_newest_first(index: NamespaceIndex) -> None:
    """One has lists with short codes, the other looks at all: their scores are of one kind."""
    rows = clustered(ROWS, ODD, 60, seed=1)[:400]
    with closing(ColumnarStore()) as store, closing(other_index(store, rows)) as other:
        lane = index.vectors
        assert lane is not None
        for query in clustered(40, ODD, 60, seed=6):
            asked = RecallQuery(now_us=NOW_US, text="zebra", vector=query, k=20)
            lane._reach = WHOLE
            truth = [(c.ns, c.memory_id) for c in Recall.search([index, other], asked)]
            lane._reach = Reach((256,) * 4, (256,) * 4, (900,) * 4)
            assert [(c.ns, c.memory_id) for c in Recall.search([index, other], asked)] == truth


def other_index(store: ColumnarStore, rows: NDArray[np.float32]) -> NamespaceIndex:
    """The same vectors again, in another namespace, in memories that are newer."""
    made = NamespaceIndex(store.table(2, "acme/more"), blind, ns=2, dimensions=ODD, settings=RecallSettings())
    changes: list[Change] = []
    for n, row in enumerate(rows, start=ROWS):
        changes.append(Upsert(memory(n, "no words of note"), 2 * n + 1, 1))
        changes.append(VectorPut(memory_id(n).bytes, 1, row, 2 * n + 2))
    made.apply(changes, 2 * (ROWS + len(rows)))
    return made


def test_equal_vectors_stand_newest_first_while_they_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some lie in new lists, with short codes, and some still in those before: scores are of one kind."""
    rows = clustered(ROWS, ODD, 60, seed=1)
    with closing(VectorLane(ODD, exact_rows_max=1_000)) as made:
        made.add(np.arange(ROWS), rows)
        made.tend()
        assert made.wait_built(60)
        made._reach = Reach((256,) * 4, (256,) * 4, (900,) * 4)
        before = InvertedLists(ODD)
        before.add(np.arange(ROWS, ROWS + 400), rows[:400])
        parts = [*made._parts(), (before, first_reach(PLAIN_LISTS))]
        monkeypatch.setattr(made, "_parts", lambda: parts)
        for query in clustered(40, ODD, 60, seed=6):
            found, _ = made.search(query, 40, None, proposals(np.empty(0, np.int64), late=False))
            exact = made.similarity(query, found)
            assert found.tolist() == found[np.lexsort((-found, -exact))].tolist()
