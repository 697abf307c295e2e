"""Short codes beside the rows of inverted lists: in step with them, never believed for a score, given up
where they do not pay."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.recall.lane_tools import clustered, unit

from strongroom.errors import IntegrityError
from strongroom.recall import _reach as reach_module
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._codes import ShortCodes
from strongroom.recall._faiss import faiss
from strongroom.recall._ivf import InvertedLists, decoded
from strongroom.recall._look import sketched as read_codes
from strongroom.recall._reach import FAR, REAL_MIN, SAMPLES_MAX, Reach, Samples, first_reach
from strongroom.recall.vectors import VectorLane

D = 32
ROWS = 6_000


def lists_with_codes(rows: NDArray[np.float32], count: int = 16) -> InvertedLists:
    made = InvertedLists.trained(rows, count)
    made.give_codes(rows)
    made.add(np.arange(len(rows)), rows)
    return made


def check_in_step(lists: InvertedLists) -> None:
    """Every entry of the codes is that of its row, and nothing lies behind the last one."""
    assert lists.codes is not None
    for number in range(lists.lists):
        ids, codes = lists.copy(number)
        fresh = ShortCodes(lists._quantizer, lists.codes.values, lists.lists)
        fresh.fill(number, ids, fresh.of(decoded(codes)))
        size = len(ids)
        np.testing.assert_array_equal(lists.codes.ids(number, size), ids)
        np.testing.assert_array_equal(lists.codes.blocks(number, size), fresh.blocks(number, size))


@pytest.fixture
def codes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they cost, short codes are read where they can be."""
    monkeypatch.setattr(reach_module, "_row_cost", lambda share: 1e9)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return clustered(ROWS, D, 60, seed=1)


@pytest.fixture
def lane(rows: NDArray[np.float32], codes_only: None) -> Iterator[VectorLane]:
    made = VectorLane(D, exact_rows_max=1_000)
    made.add(np.arange(ROWS), rows)
    made.tend()
    assert made.wait_built(60)
    assert made._lists.codes is not None
    yield made
    made.close()


def test_blocks_are_laid_out_as_faiss_reads_them(rows: NDArray[np.float32]) -> None:
    """What we write into the lists is byte for byte what FAISS would have written, whole or row by row."""
    lists = lists_with_codes(rows)
    assert lists.codes is not None
    theirs = faiss.IndexIVFPQFastScan(lists._quantizer, D, lists.lists, D // 2, 4, faiss.METRIC_INNER_PRODUCT)
    theirs.by_residual = False
    faiss.copy_array_to_vector(lists.codes.values.ravel(), theirs.pq.centroids)
    theirs.is_trained = True
    kept = decoded(rows.astype(np.float16).view(np.uint16))
    theirs.add(kept)
    inside = faiss.downcast_InvertedLists(theirs.invlists)
    assigned = theirs.quantizer.search(kept, 1)[1][:, 0]
    bit_by_bit = ShortCodes(lists._quantizer, lists.codes.values, lists.lists)
    for number in range(lists.lists):
        mine = np.flatnonzero(assigned == number)
        for start in range(0, len(mine), 7):
            part = mine[start : start + 7]
            bit_by_bit.append(number, start, part, bit_by_bit.of(kept[part]))
        got = bit_by_bit.blocks(number, len(mine))
        raw = faiss.rev_swig_ptr(inside.get_codes(number), got.size)
        np.testing.assert_array_equal(got.ravel(), raw)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "move"]), st.integers(1, 90)), max_size=8), st.data()
)
def test_codes_stay_in_step_with_their_rows(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    """After any adding, replacing, removing and moving each code is the one of the row at its place."""
    rows = clustered(900, 8, 12, seed=3)
    lists = lists_with_codes(rows[:300], 4)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    following = 300
    for kind, count in steps:
        live = np.flatnonzero(lists.places >= 0)
        some = rng.choice(live, min(count, len(live)), replace=False) if len(live) else live
        if kind == "remove":
            lists.remove(some)
        elif kind == "move":
            lists.move(some, np.arange(following, following + len(some)))
            following += len(some)
        else:
            rids = np.concatenate([some[: count // 2], np.arange(following, following + count)])
            lists.add(rids, rows[rng.integers(0, 900, len(rids))])
            following += count
        check_in_step(lists)


def test_scores_are_those_of_the_rows_bit_for_bit(lane: VectorLane, rows: NDArray[np.float32]) -> None:
    """Whatever the codes say of a row, its score is the one that any other way of asking gives."""
    for query in clustered(30, D, 60, seed=2):
        rids, cosines = lane.search(query, 10)
        np.testing.assert_array_equal(cosines, lane.similarity(query, rids))
        assert np.all(np.diff(cosines) <= 0)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.05])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_nothing_is_lost_to_the_codes(
    lane: VectorLane, rows: NDArray[np.float32], share: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every depth and selectivity: allowed rows alone, as many as asked for, and the true ones."""
    monkeypatch.setattr("strongroom.recall.vectors.NARROW_ROWS", 0)
    mask = np.random.default_rng(5).random(ROWS) < share
    kept = rows.astype(np.float16).astype(np.float32)
    found = []
    sketched = 0
    for query in clustered(25, D, 60, seed=6):
        look = lane._reach.look(k, share, ROWS / lane._lists.lists)
        bits = np.packbits(mask, bitorder="little")
        sketched += read_codes(lane._lists, query, k, look, bits) is not None if look[1] else 0
        rids, _ = lane.search(query, k, mask if share < 1.0 else None)
        assert len(rids) == min(k, np.count_nonzero(mask)) and mask[rids].all() | (share == 1.0)
        among = np.flatnonzero(mask) if share < 1.0 else np.arange(ROWS)
        truth = among[np.argsort(-(kept[among] @ query), kind="stable")[:k]]
        found.append(len(set(rids.tolist()) & set(truth.tolist())) / k)
    assert np.mean(found) >= 0.98
    assert lane.reads == "codes" and (sketched >= 20 or k == 60)


def test_equal_rows_come_newest_first_through_the_codes(rows: NDArray[np.float32], codes_only: None) -> None:
    """More equal rows than are looked at: the newest of them all the same, as without codes."""
    lane = VectorLane(D, exact_rows_max=1_000)
    copies = np.concatenate([rows, np.repeat(rows[1:2], 40, axis=0), np.repeat(rows[:1], 3_000, axis=0)])
    lane.add(np.arange(len(copies)), copies)
    lane.tend()
    assert lane.wait_built(60)
    lane._reach = Reach((16, 16, 32, 64), (16, 16, 32, 64), (20, 40, 300, 900))
    newest = np.arange(len(copies) - 1, -1, -1)
    for k in (10, 50):  # of 20 and of 58 that are looked at
        assert lane.search(rows[0], k)[0].tolist() == newest[:k].tolist()
    lane._reach = Reach((16, 16, 32, 64), (16, 16, 32, 64), (300, 400, 500, 900))
    assert lane.search(rows[1], 10)[0].tolist() == newest[3_000:3_010].tolist()  # all looked at, not scored
    lane.close()


@pytest.mark.parametrize("copies", [40, 3_000])
def test_many_equal_rows_are_told_apart_without_reading_the_lists(
    rows: NDArray[np.float32], codes_only: None, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory stored again and again: the newest of its copies, and what is next, by short codes alone."""
    lane = VectorLane(D, exact_rows_max=1_000)
    lane.add(np.arange(ROWS + copies), np.concatenate([rows, np.repeat(rows[:1], copies, axis=0)]))
    lane.tend()
    assert lane.wait_built(60)
    lane._reach = Reach((16, 16, 32, 64), (16, 16, 32, 64), (60, 100, 300, 900))
    newest = [*range(ROWS + copies - 1, ROWS - 1, -1), 0]
    whole, _ = lane.search(rows[0], copies + 30)
    assert whole[: copies + 1].tolist() == newest
    looks = []
    plain = InvertedLists.search
    monkeypatch.setattr(InvertedLists, "search", lambda *given: (looks.append(1), plain(*given))[1])
    for k in (1, 10, 20):
        assert lane.search(rows[0], k)[0].tolist() == newest[:k]
    assert not looks
    allowed = np.arange(ROWS + copies) % 3 > 0
    assert lane.search(rows[0], 10, allowed)[0].tolist() == [rid for rid in newest if rid % 3][:10]
    lane.close()


def test_a_cut_through_equal_rows_that_are_not_the_last_ones_takes_the_newest(
    rows: NDArray[np.float32],
) -> None:
    """Codes may put copies of a memory behind rows that are worse: the newest of them are found."""
    copies = 300
    lists = lists_with_codes(np.concatenate([rows, np.repeat(rows[:1], copies, axis=0)]))
    seen = 0
    for query in clustered(40, D, 60, seed=8):
        order, _ = lists.sketch(query, ROWS + copies, 16, None)
        first = int(np.flatnonzero(order >= ROWS)[0])
        k = first + 20  # and 8 more are looked at
        found = read_codes(lists, query, k, (16, 1), None)
        if k > 2_000 or found is None:
            continue
        mine = found[0][found[0] >= ROWS]
        seen += len(mine) > 0
        assert mine.tolist() == list(range(ROWS + copies - 1, ROWS + copies - 1 - len(mine), -1))
    assert seen


def test_rows_whose_codes_say_nothing_are_searched_without() -> None:
    """Vectors that differ by less than codes can tell: the samples see it, and the rows are read instead."""
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((40, D)))
    rows = unit(centres[rng.integers(0, 40, 30_000)] + 0.02 * rng.standard_normal((30_000, D)))
    lane = VectorLane(D, exact_rows_max=1_000)
    lane.add(np.arange(30_000), rows)
    lane.tend()
    assert lane.wait_built(120)
    assert lane._lists.codes is not None
    questions = unit(centres[rng.integers(0, 40, 200)] + 0.02 * rng.standard_normal((200, D)))
    for start in range(0, 96, 8):
        for query in questions[start : start + 8]:
            lane.search(query, 10)
        lane._sample_at_s = 0.0
        lane.tend()
        assert lane.wait_built(60)
    kept = rows.astype(np.float16).astype(np.float32)

    def share() -> float:
        found = []
        for query in questions[100:160]:
            scores = kept @ query
            wanted = np.sort(scores)[::-1][9]
            found.append(np.count_nonzero(scores[lane.search(query, 10)[0]] >= wanted - 1e-6) / 10)
        return float(np.mean(found))

    assert lane._reach.look(10, 1.0, 30_000 / lane._lists.lists)[1] == 0 and lane.reads == "vectors"
    assert share() >= 0.98
    lane._reach = Reach(lane._reach.curve, lane._reach.curve, (60, 100, 300, 900))
    assert share() < 0.9  # so few would not do
    lane.close()


def test_the_sampled_recall_counts_what_codes_lose(lane: VectorLane) -> None:
    """A search that looks at too few rows after their codes reports it, though its lists hold the answers."""
    lane._reach = Reach((16,) * 4, (lane._lists.lists,) * 4, (10, 10, 10, 10))
    lane._samples = Samples(lane._reach)
    for _ in range(REAL_MIN // 8):
        used = lane._reach = Reach((16,) * 4, (lane._lists.lists,) * 4, (10, 10, 10, 10))
        for query in clustered(40, D, 60, seed=9):
            lane.search(query, 10)
        lane._sample_at_s = 0.0
        lane.tend()
        assert lane.wait_built(60)
    assert used.again[0] == 10
    assert lane.recall is not None and lane.recall < 0.97
    assert lane._reach.again[0] > 10


def test_the_cheapest_way_is_taken() -> None:
    """Early marks make codes pay; late ones make reading the rows cheaper, and none rule codes out."""
    ranks = np.tile(np.arange(800) // 4, (REAL_MIN, 1))
    near, late = np.tile(np.arange(800) * 2, (REAL_MIN, 1)), np.full((REAL_MIN, 800), 7_000)
    for marks, expected in ((near, True), (late, False), (None, False), (np.full_like(ranks, FAR), False)):
        samples = Samples(first_reach(1_000, codes=True))
        samples.add(ranks, marks)
        learnt = samples.reach(1_000, 100_000, first_reach(1_000))
        assert bool(learnt.look(10, 1.0, 100.0)[1]) is expected
        assert bool(learnt.again[0]) is (marks is near or marks is late)
    few = Samples(first_reach(1_000, codes=True))
    few.add(ranks[:8], near[:8])
    assert few.reach(1_000, 100_000, first_reach(1_000)).again == first_reach(1_000, codes=True).again


def test_the_last_neighbours_are_not_bought_at_any_price() -> None:
    """Where a few neighbours lie so far out that finding them is dear, they are left, but never more than
    1.3 % of them; among fewer vectors, where it is not dear, they are found."""
    rng = np.random.default_rng(11)
    ranks = rng.integers(0, 40, (SAMPLES_MAX, 800))
    marks = rng.integers(0, 300, (SAMPLES_MAX, 800))
    far = rng.random((SAMPLES_MAX, 800)) < 0.010  # more than are left where it is not dear
    ranks[far] = 900
    for rows, dear in ((200_000, False), (10_000_000, True)):
        samples = Samples(first_reach(1_000, codes=True))
        samples.add(ranks, marks)
        learnt = samples.reach(1_000, rows, Reach((1_000,) * 4))
        assert (learnt.coded[0] > 900) is not dear
        probes, again = learnt.coded[0], learnt.again[0]
        assert np.mean((ranks[:, :10] < probes) & (marks[:, :10] < again)) > 0.985
    ranks[rng.random((SAMPLES_MAX, 800)) < 0.02] = 900  # these cannot be left, whatever they cost
    samples = Samples(first_reach(1_000, codes=True))
    samples.add(ranks, marks)
    assert samples.reach(1_000, 10_000_000, Reach((1_000,) * 4)).coded[0] > 900


def test_a_filter_makes_fewer_rows_be_looked_at() -> None:
    """Of the rows that come first by codes the allowed ones count, but never fewer than unfiltered."""
    reach = Reach((100, 200, 300, 400), (100, 200, 300, 400), (100, 400, 1_200, 4_000))
    assert reach.look(10, 1.0, 1_000) == (100, 100)
    assert 100 <= reach.look(10, 0.05, 1_000)[1] < 150
    assert reach.look(10, 0.05, 1_000)[0] == 301
    assert reach.look(50, 0.5, 1_000)[1] >= 400
    assert 110 <= reach.look(10, 0.5, 1_000)[1] <= 130  # half of what the best 20 of all take, and some more
    assert reach.look(10, 0.01, 50)[1] == 0  # to pass over a row costs no more than to read its code
    assert reach.look(10, 0.001, 2_441)[1] == 0 < reach.look(10, 0.05, 2_441)[1]


def test_a_small_store_looks_at_enough_rows() -> None:
    """However easy the sampled questions were, a search meets 8,000 rows."""
    samples = Samples(first_reach(512))
    samples.add(np.zeros((REAL_MIN, 800), np.int64), np.tile(np.arange(800), (REAL_MIN, 1)))
    learnt = samples.reach(512, 20_000, first_reach(512))
    assert min(*learnt.curve, *learnt.coded) * 20_000 / 512 >= 7_900


@pytest.mark.parametrize(
    ("curve", "coded", "again", "fits"),
    [
        ((1, 2, 3, 9), (0,) * 4, (0,) * 4, True),
        ((1, 2, 3, 9), (1, 9, 9, 0), (5, 8_192, 7, 0), True),
        ((1, 2, 3, 10), (0,) * 4, (0,) * 4, False),
        ((1, 3, 2, 9), (0,) * 4, (0,) * 4, False),
        ((0, 2, 3, 9), (0,) * 4, (0,) * 4, False),
        ((1, 2, 3), (0,) * 4, (0,) * 4, False),
        ((1, 2, 3, 9), (1, 2, 3, 10), (5,) * 4, False),
        ((1, 2, 3, 9), (1, 2, 3, 0), (5,) * 4, False),
        ((1, 2, 3, 9), (1, 2, 3, 9), (5, 5, 5, 8_193), False),
        ((1, 2, 3, 9), (1, 2, 3, 9), (5, 5, 5, -1), False),
        ((1, 2, 3, 9), (1,), (5, 5, 5, 5), False),
    ],
)
def test_only_what_can_have_been_learnt_is_believed(
    curve: tuple[int, ...], coded: tuple[int, ...], again: tuple[int, ...], fits: bool
) -> None:
    """Of nine lists: numbers that no lane would have come to are told apart."""
    assert Reach(curve, coded, again).fits(9) is fits


def dumped(lane: VectorLane, rids: NDArray[np.int64]) -> bytearray:
    raw = io.BytesIO()
    frozen = lane.freeze()
    frozen.dump(BlockWriter(raw), rids)
    frozen.close()
    return bytearray(raw.getvalue())


def test_a_snapshot_carries_the_codes(lane: VectorLane, rows: NDArray[np.float32]) -> None:
    """What is read back needs no encoding: same codes, same reach, same answers, and still in step after
    changes."""
    gone = np.arange(0, ROWS, 7)
    lane.remove(gone)
    live = np.setdiff1d(np.arange(ROWS), gone)
    other = VectorLane(D, exact_rows_max=1_000)
    other.restore(BlockReader(io.BytesIO(dumped(lane, live))), len(live))
    check_in_step(other._lists)
    assert other._reach == lane._reach
    assert other.memory_bytes() >= len(live) * (2 * D + D // 4 + 16)
    for query in clustered(20, D, 60, seed=8):
        mine, theirs = lane.search(query, 10), other.search(query, 10)
        assert mine[0].tolist() == live[theirs[0]].tolist()
        np.testing.assert_array_equal(mine[1], theirs[1])
    other.add(np.arange(len(live), len(live) + 50), rows[:50])
    other.remove(np.arange(0, 400, 3))
    check_in_step(other._lists)
    other.close()


def test_changes_do_not_show_in_codes_that_are_being_written(lane: VectorLane) -> None:
    """Between freezing and writing, entries are removed, moved and added: the codes are those of before."""
    whole = dumped(lane, np.arange(ROWS))
    frozen = lane.freeze()
    lane.remove(np.arange(0, 3_000, 2))
    lane.move(np.arange(3_001, 3_100), np.arange(ROWS, ROWS + 99))
    lane.add(np.arange(ROWS + 100, ROWS + 400), clustered(300, D, 60, seed=4))
    raw = io.BytesIO()
    frozen.dump(BlockWriter(raw), np.arange(ROWS))
    frozen.close()
    assert raw.getvalue() == bytes(whole)
    check_in_step(lane._lists)


def test_nothing_of_a_removed_row_is_in_the_codes(lane: VectorLane) -> None:
    """Its code is overwritten or zero, in memory and in the next snapshot."""
    lane.remove(np.arange(5, ROWS))
    assert lane._lists.codes is not None
    held = sum(
        int(lane._lists.codes.blocks(n, s).any(axis=(1, 2)).sum())
        for n, s in enumerate(lane._lists.sizes.tolist())
    )
    assert held <= 5
    check_in_step(lane._lists)
    for number, size in enumerate(lane._lists.sizes.tolist()):
        before = lane._lists.codes.blocks(number, 1).copy() if size else None
        lane._lists.codes.resize(number, 400)
        assert not lane._lists.codes.blocks(number, 400)[1:].any()
        assert before is None or np.array_equal(lane._lists.codes.blocks(number, 400)[:1], before)
        lane._lists.codes.resize(number, size)


@pytest.mark.parametrize("fault", ["reach", "again", "values", "blocks", "none"])
def test_codes_of_another_form_are_refused(lane: VectorLane, fault: str) -> None:
    """A snapshot whose short codes do not fit its rows is not believed."""
    raw = dumped(lane, np.arange(ROWS))
    head = 20
    if fault == "reach":
        at = raw.index(b"VTRN") + head + 8 * 5
        raw[at : at + 8] = (10**6).to_bytes(8, "little")
    elif fault == "again":
        at = raw.index(b"VTRN") + head + 8 * 9
        raw[at : at + 8] = (0).to_bytes(8, "little")
    elif fault == "values":
        at = raw.index(b"VVAL") + 12
        raw[at : at + 8] = (D // 2 - 1).to_bytes(8, "little")
    elif fault == "blocks":
        at = raw.index(b"VSHO") + 12
        raw[at : at + 8] = (1).to_bytes(8, "little")
    else:
        start, end = raw.index(b"VVAL") + head, raw.index(b"VSHO")
        del raw[start:end]
        raw[start - 8 : start] = (0).to_bytes(8, "little")
    other = VectorLane(D, exact_rows_max=1_000)
    with pytest.raises(IntegrityError):
        other.restore(BlockReader(io.BytesIO(raw)), ROWS)
    other.close()


def test_lengths_that_cannot_have_codes_do_without() -> None:
    """Vectors of 30 dimensions are searched by their rows, and restored so."""
    rows = clustered(3_000, 30, 40, seed=1)
    lane = VectorLane(30, exact_rows_max=1_000)
    lane.add(np.arange(3_000), rows)
    lane.tend()
    assert lane.wait_built(60)
    assert lane._lists.codes is None and lane._reach.again == (0,) * 4
    other = VectorLane(30, exact_rows_max=1_000)
    other.restore(BlockReader(io.BytesIO(dumped(lane, np.arange(3_000)))), 3_000)
    assert other._lists.codes is None and not other.is_exact
    assert other.search(rows[5], 3)[0][0] == 5
    lane.close()
    other.close()


def test_codes_that_do_for_one_depth_alone_are_looked_through_for_no_other() -> None:
    """For a thousand, more than any sampled depth, two known depths are needed: else rows are read."""
    reach = Reach((16, 16, 32, 64), (0, 0, 0, 64), (0, 0, 0, 900))
    assert reach.fits(64)
    for k in (10, 200, 201, 800, 801, 1_000, 5_000):
        assert reach.look(k, 1.0, 1_000.0)[1] == 0
