"""The vector lane against brute force, with filters, removals, moves, and while lists are being built."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recall.lane_tools import clustered, unit

from strongroom.errors import InvalidVectorError
from strongroom.recall import check_vector
from strongroom.recall import vectors as module
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._ivf import PLAIN_RUN, list_count
from strongroom.recall._reach import REAL_MIN, Reach, Samples
from strongroom.recall.vectors import VectorLane

D = 16


def brute(
    rows: NDArray[np.float32], query: NDArray[np.float32], k: int, rids: NDArray[np.int64]
) -> list[int]:
    """The oracle: every cosine, sorted; equal ones newest first."""
    scores = rows[rids].astype(np.float16).astype(np.float32) @ query  # as they are kept
    return rids[np.lexsort((-rids, -scores))][:k].tolist()


def recall(found: NDArray[np.int64], wanted: list[int]) -> float:
    return len(set(found.tolist()) & set(wanted)) / len(wanted)


@pytest.fixture
def lane() -> Iterator[VectorLane]:
    made = VectorLane(D)
    yield made
    made.close()


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[VectorLane, NDArray[np.float32]]]:
    """30,000 clustered vectors of 64 dimensions behind inverted lists."""
    rows = clustered(30_000, 64, 500, seed=1)
    made = VectorLane(64, exact_rows_max=5_000)
    for start in range(0, len(rows), 6_000):
        made.add(np.arange(start, start + 6_000), rows[start : start + 6_000])
    made.tend()
    assert made.wait_built(60)
    yield made, rows
    made.close()


def test_small_set_is_searched_exactly(lane: VectorLane) -> None:
    """Over several blocks of rows, the answer is the one of brute force, scores included."""
    rows = unit(np.random.default_rng(0).standard_normal((19_000, D)))
    lane.add(np.arange(19_000), rows)
    for query in unit(np.random.default_rng(1).standard_normal((20, D))):
        rids, cosines = lane.search(query, 25)
        assert rids.tolist() == brute(rows, query, 25, np.arange(19_000))
        np.testing.assert_allclose(cosines, rows[rids] @ query, atol=1e-3)
    assert lane.is_exact


def test_empty_lane_and_k_beyond_the_end(lane: VectorLane) -> None:
    """Nothing is found in nothing, and everything when more is asked than there is."""
    query = unit(np.ones(D))
    assert len(lane.search(query, 5)[0]) == 0
    lane.add(np.array([3, 7]), unit(np.random.default_rng(0).standard_normal((2, D))))
    assert sorted(lane.search(query, 99)[0].tolist()) == [3, 7]
    assert len(lane.search(query, 0)[0]) == 0
    assert len(lane.search(query, 5, np.empty(0, dtype=np.int64))[0]) == 0


def test_equal_cosines_come_newest_first(lane: VectorLane) -> None:
    """Ties have one order, also where the cut goes through them."""
    lane.add(np.arange(10), np.tile(unit(np.ones(D)), (10, 1)))
    assert lane.search(unit(np.ones(D)), 4)[0].tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize("share", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("as_mask", [True, False])
def test_filters_are_pushed_into_the_lists(
    large: tuple[VectorLane, NDArray[np.float32]], share: float, as_mask: bool
) -> None:
    """At every selectivity only allowed rows come, never too few, and the right ones."""
    lane, rows = large
    rng = np.random.default_rng(3)
    allowed = np.sort(rng.choice(len(rows), int(share * len(rows)), replace=False))
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[allowed] = True
    scores = []
    for query in clustered(40, 64, 500, seed=4):
        rids, _ = lane.search(query, 10, mask if as_mask else allowed)
        assert len(rids) == 10
        assert mask[rids].all()
        scores.append(recall(rids, brute(rows, query, 10, allowed)))
    assert np.mean(scores) >= 0.98


def test_wide_filters_go_through_the_lists(
    large: tuple[VectorLane, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the narrow path turned off, the bitmap alone gives allowed rows, and enough of them."""
    monkeypatch.setattr(module, "NARROW_ROWS", 0)
    lane, rows = large
    for share in (0.5, 0.05, 0.01):
        allowed = np.flatnonzero(np.random.default_rng(5).random(len(rows)) < share)
        found = []
        for query in clustered(30, 64, 500, seed=6):
            rids, _ = lane.search(query, 10, allowed)
            assert len(rids) == 10
            assert np.isin(rids, allowed).all()
            found.append(recall(rids, brute(rows, query, 10, allowed)))
        assert np.mean(found) >= 0.95


def test_inverted_lists_find_what_brute_force_finds(large: tuple[VectorLane, NDArray[np.float32]]) -> None:
    """recall@10 of 0.98 on clustered data, and the scores are the exact cosines."""
    lane, rows = large
    assert not lane.is_exact
    scores = []
    for query in clustered(100, 64, 500, seed=2):
        rids, cosines = lane.search(query, 10)
        np.testing.assert_allclose(cosines, rows[rids] @ query, atol=1e-3)
        scores.append(recall(rids, brute(rows, query, 10, np.arange(len(rows)))))
    assert np.mean(scores) >= 0.98


def test_large_k_reaches_every_row(large: tuple[VectorLane, NDArray[np.float32]]) -> None:
    """No row hides in a list that was not looked at when all are asked for."""
    lane, rows = large
    assert len(np.unique(lane.search(rows[0], len(rows))[0])) == len(rows)
    assert len(lane.search(rows[0], 3_000)[0]) == 3_000


def test_few_rows_far_away_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allowed rows in lists far from the query: more lists are probed, and in the end all rows."""
    monkeypatch.setattr(module, "NARROW_ROWS", 0)
    monkeypatch.setattr(Reach, "probes", lambda *_: 1)
    rows = clustered(4_000, D, 50, seed=1)
    lane = VectorLane(D, exact_rows_max=100)
    lane.add(np.arange(4_000), rows)
    lane.tend()
    lane.wait_built(60)
    query = rows[0]
    far = np.sort(np.argsort(rows @ query)[:200])
    assert not lane.is_exact
    assert len(lane.search(query, 10, far)[0]) == 10
    assert len(lane.search(query, 200, far)[0]) == 200
    lane.close()


def test_removed_rows_never_come_back() -> None:
    """After removal a row is gone at once, from the exact search and from the lists."""
    rows = clustered(3_000, D, 20, seed=1)
    lane = VectorLane(D, exact_rows_max=1_000)
    lane.add(np.arange(3_000), rows)
    lane.tend()
    lane.wait_built(60)
    gone = lane.search(rows[5], 500)[0]
    lane.remove(gone[:100])
    assert not np.isin(lane.search(rows[5], 50)[0], gone[:100]).any()
    lane.remove(gone[100:])
    left = np.setdiff1d(np.arange(3_000), gone)
    assert len(lane) == len(left)
    found = lane.search(rows[5], 50)[0]
    assert len(found) == 50
    assert np.isin(found, left).all()
    assert np.isnan(lane.similarity(rows[5], gone)).all()
    lane.close()


@pytest.mark.parametrize("compact", [False, True])
def test_what_happens_during_a_build_is_not_lost(monkeypatch: pytest.MonkeyPatch, compact: bool) -> None:
    """Rows added, removed and moved after the build has looked at them are as they should be after it."""
    rows = clustered(6_000, D, 50, seed=1)
    lane = VectorLane(D, exact_rows_max=1_000)
    lane.add(np.arange(5_000), rows[:5_000])
    if compact:
        lane.remove(np.arange(0, 5_000, 2))
    real = VectorLane._build

    def slow(*given: Any) -> Any:
        made = real(*given)
        lane.add(np.arange(5_000, 5_900), rows[5_000:5_900])
        lane.remove(np.array([1, 3, 5_001]))
        lane.move(np.array([5, 5_003]), np.array([7_005, 7_003]))
        return made

    monkeypatch.setattr(VectorLane, "_build", slow)
    lane.tend()
    assert lane.wait_built(60)
    assert not lane.is_exact
    for rid in (7, 4_999, 5_000, 5_899):
        assert lane.search(rows[rid], 1)[0].tolist() == [rid]
    assert lane.search(rows[5], 1)[0].tolist() == [7_005]
    assert lane.search(rows[5_003], 1)[0].tolist() == [7_003]
    for rid in (1, 3, 5_001):
        assert rid not in lane.search(rows[rid], 20)[0]
    assert len(lane) == (2_500 if compact else 5_000) + 900 - 3
    lane.close()


def test_compaction_frees_dead_rows_and_keeps_the_rest(lane: VectorLane) -> None:
    """When many rows are dead they are dropped; what is left is found as before."""
    rows = clustered(5_000, D, 20, seed=1)
    lane.add(np.arange(5_000), rows)
    before = lane.memory_bytes()
    lane.remove(np.arange(0, 5_000, 2))
    lane.tend()
    assert lane.wait_built(60)
    assert lane.memory_bytes() < before * 0.75
    left = np.arange(1, 5_000, 2)
    assert lane.search(rows[8], 20)[0].tolist() == brute(rows, rows[8], 20, left)
    lane.add(np.array([6_000]), rows[:1])
    assert lane.search(rows[0], 1)[0].tolist() == [6_000]


def test_a_new_vector_replaces_the_old_one(lane: VectorLane) -> None:
    """A rid has one vector: the last."""
    east, north = np.eye(D, dtype=np.float32)[:2]
    lane.add(np.array([1]), east[None])
    lane.add(np.array([1]), north[None])
    assert len(lane) == 1
    assert lane.similarity(north, np.array([1]))[0] == pytest.approx(1.0, abs=1e-3)
    assert lane.search(east, 5)[1].tolist() == [0.0]


def test_move_hands_a_vector_on(lane: VectorLane) -> None:
    """The vector is found under the new rid and not under the old; what has none moves nothing."""
    east = np.eye(D, dtype=np.float32)[0]
    lane.add(np.array([1]), east[None])
    lane.move(np.array([1, 2]), np.array([8, 9]))
    assert lane.search(east, 5)[0].tolist() == [8]
    assert np.isnan(lane.similarity(east, np.array([1, 2, 9]))).all()
    np.testing.assert_array_equal(lane.vectors(np.array([8]))[0], east)
    assert len(lane) == 1


def test_similarity_keeps_the_order_asked_for(lane: VectorLane) -> None:
    """Rids in any order, over several blocks, unknown ones as NaN."""
    rows = unit(np.random.default_rng(0).standard_normal((19_000, D)))
    lane.add(np.arange(19_000), rows)
    rids = np.array([18_999, 3, 90_000, PLAIN_RUN, PLAIN_RUN - 1, -1])
    got = lane.similarity(rows[7], rids)
    np.testing.assert_allclose(got[[0, 1, 3, 4]], rows[rids[[0, 1, 3, 4]]] @ rows[7], atol=1e-3)
    assert np.isnan(got[[2, 5]]).all()


@pytest.mark.parametrize("fault", ["nan", "inf", "zero", "long", "flat", "scaled"])
def test_add_refuses_bad_vectors(lane: VectorLane, fault: str) -> None:
    """One bad row of a batch: nothing of the batch is taken."""
    rows = unit(np.random.default_rng(0).standard_normal((3, D)))
    bad = {
        "nan": lambda: np.where(np.arange(D) == 1, np.nan, rows),
        "inf": lambda: np.where(np.arange(D) == 1, np.inf, rows),
        "zero": lambda: rows * np.array([[1], [0], [1]]),
        "long": lambda: np.ones((3, D + 1)),
        "flat": lambda: rows[0],
        "scaled": lambda: rows * 1.1,
    }[fault]()
    with np.errstate(invalid="ignore"), pytest.raises(InvalidVectorError):
        lane.add(np.arange(3), bad.astype(np.float32))
    assert len(lane) == 0


def test_query_of_another_length_is_refused(lane: VectorLane) -> None:
    """search and similarity check the length before anything is computed."""
    with pytest.raises(InvalidVectorError):
        lane.search(np.ones(D + 1, dtype=np.float32), 1)
    with pytest.raises(InvalidVectorError):
        lane.similarity(np.ones(D - 1, dtype=np.float32), np.array([0]))


@pytest.mark.parametrize(
    "vector", [[], [0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0], [[1.0]], "abc", [1.0, 2.0, 3.0]]
)
def test_check_vector_refuses(vector: object) -> None:
    """Empty, zero, NaN, infinite, nested, no numbers, wrong length."""
    with pytest.raises(InvalidVectorError):
        check_vector(vector, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_check_vector_normalises_any_scale(scale: float) -> None:
    """Neither tiny nor huge components are lost on the way to norm 1."""
    got = check_vector([3 * scale, 4 * scale])
    np.testing.assert_allclose(got, [0.6, 0.8], rtol=1e-6)
    assert got.dtype == np.float32


def test_searches_are_whole_while_lists_are_built() -> None:
    """Adds, removals and searches during builds and compactions: never short, never a removed row."""
    rows = clustered(24_000, D, 100, seed=1)
    lane = VectorLane(D, exact_rows_max=2_000)
    lane.add(np.arange(2_000), rows[:2_000])
    finished = threading.Event()
    problems: list[str] = []

    def look() -> None:
        rng = np.random.default_rng(threading.get_ident() % 1000)
        while not finished.is_set():
            at_least = len(lane)
            rids, cosines = lane.search(rows[rng.integers(0, 2_000)], 20)
            if len(rids) < min(20, at_least) or len(set(rids.tolist())) != len(rids):
                problems.append(f"{len(rids)} of {at_least}")
            if ((rids < 1_000) & (rids % 2 == 0)).any():
                problems.append("a removed row")
            if np.any(np.diff(cosines) > 0):
                problems.append("out of order")

    lane.remove(np.arange(0, 1_000, 2))
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(2_000, 24_000, 500):
        lane.add(np.arange(start, start + 500), rows[start : start + 500])
        lane.remove(np.arange(start, start + 250))
    lane.tend()
    assert lane.wait_built(120)
    finished.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert not lane.is_exact
    left = np.concatenate(
        [np.arange(1, 1_000, 2), np.arange(1_000, 2_000)]
        + [np.arange(s + 250, s + 500) for s in range(2_000, 24_000, 500)]
    )
    assert len(lane) == len(left)
    assert sorted(lane.search(rows[0], len(left))[0].tolist()) == left.tolist()
    lane.close()


def test_failed_build_leaves_the_exact_search(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the lists cannot be built the search goes on over all rows, and the log says so."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(VectorLane, "_build", fail)
    rows = clustered(500, D, 5, seed=1)
    lane = VectorLane(D, exact_rows_max=100)
    lane.add(np.arange(500), rows)
    lane.tend()
    lane.wait_built(10)
    assert "MemoryError" in caplog.text
    assert lane.search(rows[3], 9)[0].tolist() == brute(rows, rows[3], 9, np.arange(500))
    lane.close()


def test_after_a_hundred_thousand_changes_the_recall_holds() -> None:
    """Updates, moves and removals, past several rebuilds: as good as new, and nothing left over."""
    rows = clustered(40_000, 32, 300, seed=1)
    lane = VectorLane(32, exact_rows_max=4_000)
    lane.add(np.arange(20_000), rows[:20_000])
    lane.tend()
    assert lane.wait_built(120)
    rng = np.random.default_rng(2)
    owner = {rid: rid for rid in range(20_000)}  # rid -> row of its vector
    following = 20_000
    changed = 0
    while changed < 100_000:
        live = np.fromiter(owner, dtype=np.int64, count=len(owner))
        chosen = rng.choice(live, 2_000, replace=False)
        gone, moved, renewed = chosen[:500], chosen[500:1_000], chosen[1_000:]
        lane.remove(gone)
        new = np.arange(following, following + 500)
        lane.move(moved, new)
        fresh = np.arange(following + 500, following + 1_000)
        picked = rng.integers(0, 40_000, 1_500)
        lane.add(np.concatenate([renewed, fresh]), rows[picked])
        following += 1_000
        for rid in gone.tolist():
            del owner[rid]
        for old, rid in zip(moved.tolist(), new.tolist(), strict=True):
            owner[rid] = owner.pop(old)
        owner.update(zip([*renewed.tolist(), *fresh.tolist()], picked.tolist(), strict=True))
        changed += 2_500
        lane.tend()
    assert lane.wait_built(120)
    assert len(lane) == len(owner)
    rids = np.array(sorted(owner))
    kept = rows[[owner[rid] for rid in rids.tolist()]]
    shares = []
    for query in clustered(60, 32, 300, seed=4):
        wanted = np.sort(kept.astype(np.float16).astype(np.float32) @ query)[::-1][:10]
        found, cosines = lane.search(query, 10)
        assert np.isin(found, rids).all()
        shares.append(np.count_nonzero(cosines >= wanted[-1] - 1e-6) / 10)
    assert np.mean(shares) >= 0.97
    assert lane.memory_bytes() < 20_500 * (2 * 32 + 8) + 2 * 8 * following + (1 << 20)
    lane.close()


def test_made_up_questions_never_make_a_search_look_less_far() -> None:
    """Before real questions were sampled a search probes a sixth of the lists or more, however easy
    questions like the stored vectors would be."""
    rows = clustered(30_000, 32, 400, seed=1)
    lane = VectorLane(32, exact_rows_max=1_000)
    lane.add(np.arange(30_000), rows)
    lane.tend()
    assert lane.wait_built(120)
    assert lane._reach.probes(10) >= lane._lists.lists // 6
    assert lane._reach.probes(50) >= lane._lists.lists // 5
    lane.close()


def test_the_reach_follows_the_questions() -> None:
    """Questions that lie between the clusters make searches look further; the recall is told once real ones
    were sampled, and not guessed before."""
    rows = clustered(30_000, 32, 400, seed=1)
    lane = VectorLane(32, exact_rows_max=1_000)
    lane.add(np.arange(30_000), rows)
    lane.tend()
    assert lane.wait_built(120)
    assert lane.recall is None
    rng = np.random.default_rng(3)
    questions = unit(rng.standard_normal((200, 32)))
    lane._reach = Reach((16, 20, 24, 28))
    lane._samples = Samples(lane._reach)
    before = lane._reach.probes(10)

    def share() -> float:
        return float(
            np.mean([recall(lane.search(q, 10)[0], brute(rows, q, 10, np.arange(30_000))) for q in questions])
        )

    first = share()
    for _ in range(12):
        lane._sample_at_s = 0.0
        for q in questions:
            lane.search(q, 10)
        assert lane.wait_built(60)
    assert lane._reach.probes(10) > before
    assert lane.recall is not None
    assert share() >= max(first, 0.95)
    assert abs(lane.recall - share()) < 0.06
    lane.close()


def test_questions_with_a_filter_teach_how_far_to_look() -> None:
    """A lane that is asked nothing but filtered questions learns its reach from them all the same."""
    rows = clustered(30_000, 32, 400, seed=1)
    lane = VectorLane(32, exact_rows_max=1_000)
    lane.add(np.arange(30_000), rows)
    lane.tend()
    assert lane.wait_built(120)
    lane._reach = Reach((16, 20, 24, 28))
    lane._samples = Samples(lane._reach)
    inside = np.zeros(30_000, dtype=np.bool_)
    inside[::4] = True
    questions = unit(np.random.default_rng(3).standard_normal((200, 32)))
    for _ in range(12):
        lane._sample_at_s = 0.0
        for q in questions:
            lane.search(q, 10, inside)
        assert lane.wait_built(60)
    assert lane.recall is not None and lane._reach.probes(10) > 16
    found = [
        recall(lane.search(q, 10, inside)[0], brute(rows, q, 10, np.flatnonzero(inside))) for q in questions
    ]
    assert np.mean(found) >= 0.95
    lane.close()


def test_few_questions_after_a_restart_do_not_shorten_the_reach() -> None:
    """A lane out of a snapshot looks as far as the one before it until enough real questions were sampled,
    however easy the first ones are."""
    rows = clustered(30_000, 32, 400, seed=1)
    lane = VectorLane(32, exact_rows_max=1_000)
    lane.add(np.arange(30_000), rows)
    lane.tend()
    assert lane.wait_built(120)
    lane._reach = Reach((250, 270, 290, 310))
    raw = io.BytesIO()
    frozen = lane.freeze()
    frozen.dump(BlockWriter(raw), np.arange(30_000))
    frozen.close()
    lane.close()
    raw.seek(0)
    other = VectorLane(32, exact_rows_max=1_000)
    other.restore(BlockReader(raw), 30_000)
    easy = list(rows[:: 30_000 // (REAL_MIN + 8)])
    for start in range(0, len(easy), 8):
        assert other._reach.probes(10) >= 250 or start >= REAL_MIN
        assert (other.recall is not None) == (start >= REAL_MIN)
        for question in easy[start : start + 8]:
            other.search(question, 10)
        other._sample_at_s = 0.0
        other.tend()
        assert other.wait_built(60)
    assert other._reach.probes(10) < 250
    other.close()


@pytest.mark.parametrize(
    ("rows", "lists"),
    [(0, 16), (20_000, 512), (100_000, 1024), (500_000, 2048), (1_000_000, 4096), (10_000_000, 4096)],
)
def test_the_number_of_lists_is_the_nearest_power(rows: int, lists: int) -> None:
    """As FAISS advises, about four times the root of the number of vectors."""
    assert list_count(rows) == lists


def test_lists_are_made_again_when_growth_is_worth_finer_ones() -> None:
    """Growth by half that asks for more lists makes them anew, and growth during a build is counted from
    its start; growth by half that does not ask for more leaves them."""
    rows = clustered(13_000, D, 60, seed=1)
    lane = VectorLane(D, exact_rows_max=100)

    def grown(to: int) -> int:
        lane.add(np.arange(len(lane), to), rows[len(lane) : to])
        lane.tend()
        assert lane.wait_built(60)
        return lane._lists.lists

    assert grown(3_000) == list_count(3_000) == 256
    assert grown(4_000) == 256  # by a third
    assert lane._trained_rows == 3_000
    assert grown(5_000) == list_count(5_000) == 256
    assert lane._trained_rows == 3_000
    assert grown(5_900) == 256
    assert grown(6_100) == 256 and lane._trained_rows == 6_100  # doubled
    assert grown(9_200) == 512 and lane._trained_rows == 9_200
    lane.close()


def test_of_few_sampled_questions_more_neighbours_are_wanted() -> None:
    """Forty-eight questions hold few of the hard ones: until many were sampled, the tail counts for more."""
    rng = np.random.default_rng(8)
    ranks = np.sort(rng.exponential(40, (REAL_MIN, 800)).astype(np.int64), axis=1)[:, ::-1]
    samples = Samples(Reach((16, 20, 24, 28)))
    samples.add(ranks)
    few = samples.reach(1_000, 1_000_000, Reach((16, 20, 24, 28)))
    assert samples.are_real and not samples.are_complete
    for _ in range(3):
        samples.add(ranks)
    many = samples.reach(1_000, 1_000_000, few)
    assert samples.are_complete
    assert few.probes(10) > many.probes(10)
    assert np.mean(ranks[:, :10] < many.probes(10)) >= 0.99


def test_too_few_vectors_for_lists_are_not_tried_again_and_again() -> None:
    """A limit below the fewest lists leaves the exact search, and no thread that never ends."""
    lane = VectorLane(8, exact_rows_max=3)
    rows = np.eye(8, dtype=np.float32)
    lane.add(np.arange(8), rows)
    for _ in range(2):
        assert lane.search(rows[5], 1)[0].tolist() == [5]
        assert lane.wait_built(10)
    lane.close()
