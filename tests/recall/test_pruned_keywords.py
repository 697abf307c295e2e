"""What is left out while the best rows by BM25 are looked for changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.recall.lane_tools import blind
from tests.recall.test_recall_keywords import naive

from strongroom.recall import _bm25, _pruned
from strongroom.recall import keywords as module
from strongroom.recall.analyze import Analyzer
from strongroom.recall.keywords import KeywordLane, TermStatistics

TERMS = 12
Found = tuple[NDArray[np.int64], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few postings, segments of a few texts, and every look at what can be left out."""
    for where, name, value in (
        (_bm25, "WHOLE_POSTINGS", 0),
        (module, "JOIN_POSTINGS", 0),
        (_bm25, "PRUNE_ROWS", 0),
        (_bm25, "FIRST_POSTINGS", 24),
        (_bm25, "GROWTH", 2),
        (_bm25, "FEW_ROWS", 3),
        (_pruned, "PRUNE_MIN", 0),
        (_pruned, "SEARCH_COST", 4),
        (module, "DELTA_DOCUMENTS_MAX", 48),
        (module, "MERGE_INLINE_MAX", 1_000_000),
        (module, "DEAD_DOCUMENTS_MIN", 1_000_000),
    ):
        monkeypatch.setattr(where, name, value)


def texts(count: int, rng: np.random.Generator) -> list[list[int]]:
    """Texts of terms 1 to ``TERMS``, the greater the more frequent, some of them several times in a text."""
    chance = np.arange(1, TERMS + 1) ** rng.choice([0.5, 2.0, 4.0])
    chance /= chance.sum()
    out = []
    for _ in range(count):
        words = rng.choice(TERMS, rng.integers(0, 15), p=chance) + 1
        if len(words) and rng.random() < 0.15:
            words = np.concatenate([words, np.repeat(words[0], rng.integers(1, 6))])
        out.append(words.tolist())
    return out


def filled(rng: np.random.Generator, count: int) -> KeywordLane:
    """A lane of several segments and a rest that waits; some rows were removed."""
    lane = KeywordLane(Analyzer(), blind)
    rid = 0
    while rid < count:
        size = int(rng.choice([1, 7, 60, 700]))
        rids = list(range(rid, min(count, rid + size)))
        lane.add(rids, texts(len(rids), rng))  # type: ignore[arg-type]
        rid += size
        if rng.random() < 0.3:
            lane.remove(rng.integers(0, rid, rng.integers(1, 40)).tolist())
    return lane


def every(
    lane: KeywordLane, terms: Sequence[int], k: int, allowed: Any, statistics: TermStatistics | None
) -> Found:
    """The oracle: the score of every row, sorted."""
    scores = lane.scores(terms, statistics).astype(np.float32)
    may = scores > 0
    if allowed is not None:
        inside = np.zeros(len(scores), dtype=np.bool_)
        if allowed.dtype == np.bool_:
            inside[: len(allowed)] = allowed[: len(scores)]
        else:
            inside[allowed[allowed < len(scores)]] = True
        may &= inside
    rids = np.flatnonzero(may)
    order = np.lexsort((-rids, -scores[rids]))[:k]
    return rids[order], scores[rids][order]


def compare(lane: KeywordLane, terms: Sequence[int], count: int, rng: np.random.Generator) -> None:
    """Ask for the best in several ways, and compare with the oracle."""
    for among in (None, "mask", "short mask", "rids"):
        allowed: NDArray[Any] | None = None
        if among is not None:
            allowed = rng.random(count if among != "short mask" else count // 2) < rng.choice(
                [0.9, 0.3, 0.02]
            )
            allowed = np.flatnonzero(allowed) if among == "rids" else allowed
        statistics = None
        if rng.random() < 0.5:
            more = rng.integers(0, 3_000, len(terms))
            statistics = lane.statistics(terms) + TermStatistics(5_000, int(rng.integers(1, 200_000)), more)
        for k in (1, 5, 50, 100_000):
            wanted = every(lane, terms, k, allowed, statistics)
            rids, scores = lane.search(terms, k, allowed, statistics)
            assert rids.tolist() == wanted[0].tolist()
            assert scores.tobytes() == wanted[1].tobytes()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 1_500), st.integers(1, TERMS + 2), st.booleans())
def test_the_best_are_those_of_the_sorted_whole(seed: int, count: int, words: int, whole: bool) -> None:
    """Rows and scores are bit by bit those of all rows sorted: with segments, deletes, filters of both
    forms, statistics of a larger collection, and any k."""
    rng = np.random.default_rng(seed)
    lane = filled(rng, count)
    terms = (rng.permutation(TERMS + 3) + 1)[:words].tolist()
    with pytest.MonkeyPatch.context() as patch:
        if whole:  # all postings at once, or windows in each segment
            patch.setattr(_bm25, "WHOLE_POSTINGS", 1_000_000)
            patch.setattr(module, "JOIN_POSTINGS", 1_000_000)
        compare(lane, terms, count, rng)
    lane.close()


def test_frequencies_leave_removed_texts_out() -> None:
    """Few removed rows are looked up among the postings, many are counted; both give the live rows."""
    rng = np.random.default_rng(3)
    lane = KeywordLane(Analyzer(), blind)
    docs = texts(1_200, rng)
    lane.add(range(1_200), docs)  # type: ignore[arg-type]
    left = dict(enumerate(docs))
    for step in (3, 5, 400):
        gone = rng.choice(sorted(left), step, replace=False).tolist()
        lane.remove(gone)
        for rid in gone:
            del left[rid]
        wanted = [sum(term in text for text in left.values()) for term in range(1, TERMS + 1)]
        assert lane.statistics(range(1, TERMS + 1)).frequencies.tolist() == wanted


def test_few_rows_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rare and two frequent terms most postings are passed over; the answer is the formula's."""
    rng = np.random.default_rng(8)
    docs = {
        rid: " ".join(["late"] * (rid % 2) + ["invoice"] * (rid % 3 > 0) + ["refund"] * (rid % 50 == 0))
        + " filler" * int(rng.integers(3, 12))
        for rid in range(6_000)
    }
    lane = KeywordLane(Analyzer(), blind)
    lane.add(list(docs), list(docs.values()))
    scored: list[int] = []

    def counted(*given: Any) -> Found:
        found = _pruned.within(*given)
        scored.append(len(found[0]))
        return found

    monkeypatch.setattr(_bm25, "within", counted)
    rids, scores = lane.search(lane.query_terms("late invoice refund"), 10)
    wanted = naive(docs, "late invoice refund", Analyzer())
    best = sorted(wanted.values(), reverse=True)[:10]
    np.testing.assert_allclose(scores, best, rtol=1e-5)
    np.testing.assert_allclose(scores, [wanted[r] for r in rids.tolist()], rtol=1e-5)
    assert len(scored) > 2
    assert sum(scored) < 600  # of 7,120 postings


def test_room_to_work_in_comes_back_empty() -> None:
    """What one question leaves behind changes no later one."""
    rng = np.random.default_rng(4)
    lane = filled(rng, 1_000)
    for _ in range(20):
        lane.search(rng.integers(1, TERMS + 1, 4).tolist(), 7)
    assert lane._scratch
    assert not any(s.sums.any() or s.notes.any() for s in lane._scratch)
