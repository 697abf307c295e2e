"""What is left out while the best rows by BM25 are looked for changes no answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.recall.lane_tools import blind
from tests.recall.test_recall_keywords import naive

from strongroom.recall import _bm25, _marks, _postings, _pruned, _sieve
from strongroom.recall import keywords as module
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._threads import BackgroundTask
from strongroom.recall.analyze import Analyzer
from strongroom.recall.keywords import KeywordLane, TermStatistics

TERMS = 12
Found = tuple[NDArray[np.int64], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few postings, segments of a few texts, and every look at what can be left out."""
    for where, name, value in (
        (_bm25, "WHOLE_POSTINGS", 0),
        (_bm25, "UNCUT_MARKED", 0),
        (module, "JOIN_POSTINGS", 0),
        (_bm25, "PRUNE_ROWS", 0),
        (_bm25, "FIRST_POSTINGS", 24),
        (_bm25, "GROWTH", 2),
        (_bm25, "FEW_ROWS", 3),
        (_pruned, "PRUNE_MIN", 0),
        (_pruned, "SEARCH_COST", 4),
        (_postings, "MARKED_MIN", 60),
        (_marks, "BITS_MIN", 20),
        (_marks, "BITS", 2),
        (_marks, "SHORTEST_SHARE", 4),
        (_sieve, "TRIED_MIN", 16),
        (_sieve, "TERMS_MAX", 6),
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
    lane.wait_merged()
    lane._upkeep()
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
    monkeypatch.setattr(_postings, "MARKED_MIN", 1_000_000)
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


def test_fewer_rows_are_scored_with_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large segment gets marks by itself, behind the additions; then of its postings a few are looked at,
    and the answer is the same."""
    rng = np.random.default_rng(9)
    lane = KeywordLane(Analyzer(), blind)
    monkeypatch.setattr(_postings, "MARKED_MIN", 1_000_000)
    lane.add(range(6_000), texts(6_000, rng))  # type: ignore[arg-type]
    before = [lane.search(terms, 10) for terms in ([1, 5, 9], [2, 3], [4])]
    monkeypatch.setattr(_postings, "MARKED_MIN", 5_000)
    lane.add([6_000], [[TERMS + 1]])
    assert lane.wait_merged(30)
    assert sum(segment.marks is not None for segment in lane._segments) == 1
    small = lane.memory_bytes()
    looked: list[int] = []
    bits = _marks.TermMarks.may_hold

    def counted(marks: _marks.TermMarks, at: NDArray[np.intp]) -> NDArray[np.bool_] | None:
        looked.append(len(at))
        return bits(marks, at)

    monkeypatch.setattr(_marks.TermMarks, "may_hold", counted)
    after = [lane.search(terms, 10) for terms in ([1, 5, 9], [2, 3], [4])]
    for one, other in zip(before, after, strict=True):
        assert one[0].tolist() == other[0].tolist()
        np.testing.assert_allclose(one[1], other[1], rtol=1e-3)
    held = sum(len(lane._postings(term, 1.0)[0].rids) for term in (1, 5, 9, 2, 3, 4))
    assert 0 < sum(looked) < held
    assert small > sum(
        s.rids.nbytes + s.counts.nbytes + s.marks.bits.nbytes for s in lane._segments if s.marks
    )
    lane.close()


def test_a_term_of_hardly_any_weight_decides() -> None:
    """Where fewer rows hold the rare term than are wanted, the others are ordered by one that all rows hold:
    its weight is below what is lost in 32 bits when the rare one's is taken off."""
    rng = np.random.default_rng(10)
    for rare in range(1, 13):
        lane = KeywordLane(Analyzer(), blind)
        rows = [[1] * int(rng.integers(1, 6)) + [3] * int(rng.integers(0, 200)) for _ in range(1_500)]
        for rid in range(rare):
            rows[7 * rid] = [2, *rows[7 * rid]]
        lane.add(range(len(rows)), rows)  # type: ignore[arg-type]
        lane.wait_merged()
        lane._upkeep()
        assert all(segment.marks for segment in lane._segments)
        for k in (rare, rare + 1, 50, 300):
            wanted = every(lane, [1, 2], k, None, None)
            rids, scores = lane.search([1, 2], k)
            assert rids.tolist() == wanted[0].tolist()
            assert scores.tobytes() == wanted[1].tobytes()
        lane.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 30, 1_000]))
def test_marks_say_what_the_postings_say(seed: int, least: int) -> None:
    """Lengths, shortest rows and rows that hold a term more than once are those of the postings; bits deny no
    row that holds the term, and most that do not."""
    rng = np.random.default_rng(seed)
    first, count = int(rng.integers(0, 5_000)), int(rng.integers(1, 2_000))
    docs = [[1], *texts(count, rng), [2] * 300]
    lengths = np.zeros(first + len(docs), dtype=np.uint16)
    lengths[first:] = [len(text) for text in docs]
    flat = np.array([term for text in docs for term in text], dtype=np.uint64)
    rows = np.repeat(np.arange(first, len(lengths)), lengths[first:])
    segment = _postings.from_occurrences(flat, rows, lengths, len(docs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_marks, "BITS_MIN", least)
        patch.setattr(_marks, "BITS", 6)
        marked = segment.with_marks(lengths, BackgroundTask("marks"))
    every_row = np.arange(int(rows[0]), int(rows[-1]) + 1)
    for term in segment.terms:
        rids, counts, _, marks = marked.postings(term)
        assert marks is not None
        assert marks.lengths_of(every_row).tolist() == np.minimum(lengths[every_row], 255).tolist()
        assert marks.shortest.tolist() == rids[lengths[rids] <= marks.short].tolist()
        assert marks.several.tolist() == rids[counts > 1].tolist()
        code = marks.codes.astype(np.int64)
        assert (code >> _marks.COUNT_BITS).tolist() == np.minimum(counts[counts > 1], 7).tolist()
        assert (code & _marks.LENGTH_MAX).tolist() == np.minimum(lengths[marks.several], 127).tolist()
        others = [
            len([n for n in np.unique(docs[r - first], return_counts=True)[1] if n > 1]) > 1
            for r in marks.several.tolist()
        ]
        assert ((code & _marks.OTHERS) > 0).tolist() == others
        may = marks.may_hold(every_row)
        assert (may is None) == (len(rids) < least)
        if may is not None:
            holds = np.isin(every_row, rids)
            assert not (holds & ~may).any()
            assert np.count_nonzero(may & ~holds) <= 10 + 0.2 * len(every_row)


def test_marks_are_given_up_when_a_lane_is_closed() -> None:
    """A lane that is closed does not wait for marks that are being made."""
    rng = np.random.default_rng(11)
    lane = filled(rng, 700)
    task = BackgroundTask("marks")
    task.close()
    segment = replace(max(lane._segments, key=lambda s: s.documents), marks=None)
    assert segment.with_marks(lane._lengths, task) is segment
    lane.close()


def test_a_restored_lane_gets_marks() -> None:
    """What is read from a snapshot has no marks; they are made behind it, and answers are the same."""
    rng = np.random.default_rng(12)
    lane = KeywordLane(Analyzer(), blind)
    lane.add(range(900), texts(900, rng))  # type: ignore[arg-type]
    raw = io.BytesIO()
    lane.freeze().dump(BlockWriter(raw), np.arange(900))
    raw.seek(0)
    again = KeywordLane(Analyzer(), blind)
    again.restore(BlockReader(raw), 900)
    assert again.wait_merged(30)
    assert [segment.marks is not None for segment in again._segments] == [True]
    compare(again, [1, 6, 12], 900, rng)
    lane.close()
    again.close()
