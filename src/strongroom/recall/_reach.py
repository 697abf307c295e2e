"""How far a search has to look, learnt from questions: lists, and rows after their short codes.

For a question and its true nearest vectors (found by looking at all of them) the rank of each one's list
in the order of probing says how many lists would have found it. Of many such ranks the least number is
taken that finds the wanted share. Questions in words lie between the clusters of the stored texts and
need more lists than vectors drawn like the stored ones; so only real questions count. Where short codes put
a true neighbour among all rows says how many rows have to be looked at after them. Of all pairs (lists, rows)
that find the wanted share, and of the lists that find it when the rows themselves are read, the one is taken
that costs least: vectors whose short codes say little are searched without them. Where that is dear (at ten
million) a little less is wanted. As long as there
are few, points half-way between two stored vectors stand for them, which can ask for more lists than a
fixed share of all, or than was learnt before (a snapshot says), never for fewer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, replace
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import InvertedLists, Rids, Rows

RECALL_WANTED = 0.993  # of the true ten, fifty ... over the sampled questions; others find a little less
# ... of SAMPLES_MAX of them. Of fewer, some of the hard ones are missing by chance, and more is wanted.
RECALL_ENOUGH = (0.991, 0.989, 0.987)  # of the true ten, where more costs more than DEAR
DEAR = 200_000.0  # short codes read: 3 ms, of which the last hundredth of neighbours would be a good part
DEPTHS = (10, 50, 200, 800)
SAMPLES_MAX = 192  # the newest questions whose truth is known
REAL_MIN = (
    48  # real questions that make the pretended ones superfluous: fewer miss the wanted recall by chance
)
PROBES_MIN = 16
ROWS_MIN = 8_000  # that a search meets: fewer are not worth the risk
GROWTH_MIN = 0.5  # beyond the deepest: probes grow at least with this power of the depth
MARKS_MAX = 8_192  # places by the short codes that are told apart
SCAN_ROWS = 262_144  # the nearest, whose short codes are read for a sample
FAR = MARKS_MAX  # the mark of a row that comes later, or of which nothing is known
FIRST_AGAIN = (400, 1_000, 2_400, 5_600)  # rows to look at, before questions were sampled
ROW_COST = 3.0  # of reading a row, in short codes read (16 ns)
PASSED_COST, ALLOWED_COST = 1.1, 5.9  # with a filter: of each row, and of one that is allowed besides
AGAIN_COST = 30.0  # of looking at a row after its short code
CODED_SHARE_MIN = 0.02  # of rows allowed: with fewer, to pass over rows takes less than to read their codes
PASS_COST = 4_000.0  # of looking at rows after short codes at all
_NEVER = (0,) * len(DEPTHS)
_AGAIN = tuple(int(1.3**power) for power in range(13, 35))  # 30 to 7,475: how many are thought of


@dataclass(frozen=True, slots=True)
class Reach:
    """How far to look for the best 10, 50, 200 and 800.

    ``curve``: lists to probe when their rows are read. ``coded``, ``again``: lists to probe when their short
    codes are read, and how many rows to look at then; zeros: with codes it cannot be done. ``recall``: the
    share of the ten that was seen.
    """

    curve: tuple[int, ...]
    coded: tuple[int, ...] = _NEVER
    again: tuple[int, ...] = _NEVER
    recall: float | None = None

    def fits(self, lists: int) -> bool:
        """Whether it can have been learnt with so many: growing with the depth, codes with a pair each."""
        if not all(len(values) == len(DEPTHS) for values in (self.curve, self.coded, self.again)):
            return False
        if not 0 < self.curve[0] <= self.curve[-1] <= lists or sorted(self.curve) != list(self.curve):
            return False
        pairs = zip(self.coded, self.again, strict=True)
        return all((0 < c <= lists and 0 < a <= MARKS_MAX) or (c, a) == (0, 0) for c, a in pairs)

    def probes(self, depth: float) -> int:
        """Lists to probe for the best ``depth`` of all vectors: between the known depths by powers."""
        return _read_off(self.curve, depth)

    def look(self, k: int, share: float, per_list: float) -> tuple[int, int]:
        """Lists to probe, and rows to look at after their short codes; 0: the rows of the lists are read.

        For the best ``k`` of those allowed, a ``share`` of all, in lists of ``per_list`` rows.
        """
        # The k-th of the allowed rows is about the k / share-th of all: as far out the lists must reach.
        depth = k / share
        plain = self.probes(depth)
        first, last = max(0, min(bisect_left(DEPTHS, k), len(DEPTHS) - 1) - 1), bisect_left(DEPTHS, depth)
        if share < CODED_SHARE_MIN or not all(self.again[first : last + 1]):
            return plain, 0
        # Of the rows before the last wanted one by their codes so many are allowed, give or take.
        among = share * _read_off(self.again, depth)
        again = int(max(among if share == 1.0 else among + 3.0 * sqrt(among), _read_off(self.again, k)))
        probes = _read_off(self.coded, depth)
        pays = probes * per_list + again * AGAIN_COST + PASS_COST < plain * per_list * _row_cost(share)
        return (probes, again) if pays else (plain, 0)


def _row_cost(share: float) -> float:
    """Of reading the rows of lists, for each of them, when a ``share`` is allowed."""
    return ROW_COST if share == 1.0 else PASSED_COST + share * ALLOWED_COST


def _read_off(curve: tuple[int, ...], depth: float) -> int:
    """The value of a curve over ``DEPTHS`` at another depth."""
    for i, known in enumerate(DEPTHS):
        if depth <= known:
            return curve[0] if not i else int(_between(curve, i, depth)) + 1
    last = len(DEPTHS) - 1
    steady = curve[last] * (depth / DEPTHS[last]) ** GROWTH_MIN
    return int(max(steady, _between(curve, last, depth))) + 1


def _between(curve: tuple[int, ...], i: int, depth: float) -> float:
    growth = log(curve[i] / curve[i - 1]) / log(DEPTHS[i] / DEPTHS[i - 1])
    return curve[i] * (depth / DEPTHS[i]) ** growth  # type: ignore[no-any-return]


def first_reach(lists: int, *, codes: bool = False) -> Reach:
    """Before real questions were sampled: a sixth of the lists and more; ``codes``: there are short codes."""
    shares = (lists // 6, lists // 5, lists // 3, lists // 2)
    curve = tuple(min(lists, max(PROBES_MIN, share)) for share in shares)
    return Reach(curve, curve, FIRST_AGAIN) if codes else Reach(curve)


Places = NDArray[np.uint16]


def places_fit(seen: Places, lists: int) -> bool:
    """Whether they can be what ``Samples.real`` gave of so many lists."""
    right = seen.shape[1:] == (2, DEPTHS[-1]) and len(seen) <= SAMPLES_MAX
    return right and bool((seen[:, 0] < lists).all() and (seen[:, 1] <= FAR).all())


class Samples:
    """Where the true neighbours of the newest questions lie: ranks of their lists, and marks.

    The mark of a row is how many come before it by their short codes. ``floor``: how far searches look at
    least until enough real questions were sampled.
    """

    def __init__(self, floor: Reach, seen: Places | None = None) -> None:
        """``seen``: what ``real`` gave, of the same lists."""
        self._floor = floor
        self._seen: deque[NDArray[np.int32]] = deque(maxlen=SAMPLES_MAX)  # ranks, marks: shape (2, deepest)
        self._pretended = 0  # so many of the oldest were no real questions
        if seen is not None:
            self._seen.extend(seen.astype(np.int32))

    def add(
        self, ranks: NDArray[np.int64], marks: NDArray[np.int64] | None = None, *, pretended: bool = False
    ) -> None:
        """One row per question: ranks and marks of its nearest vectors, the nearest first.

        ``marks`` None: there are no short codes. ``pretended``: they stand for real ones, until there are
        ``REAL_MIN`` of those.
        """
        if pretended:
            self._pretended += len(ranks)
        elif self._pretended and len(self._seen) - self._pretended + len(ranks) >= REAL_MIN:
            for _ in range(self._pretended):
                self._seen.popleft()
            self._pretended = 0
        both = np.stack([ranks, np.full_like(ranks, FAR) if marks is None else marks], axis=1)
        missing = DEPTHS[-1] - ranks.shape[1]
        self._seen.extend(np.pad(both, ((0, 0), (0, 0), (0, missing)), mode="edge").astype(np.int32))

    @property
    def real(self) -> Places:
        """Ranks and marks of the real questions, the oldest first: shape (questions, 2, deepest)."""
        pretended = self._pretended  # first: whoever adds meanwhile takes them out
        seen = list(self._seen)[pretended:]
        return np.array(seen, np.uint16).reshape(len(seen), 2, DEPTHS[-1])

    @property
    def real_count(self) -> int:
        """How many real questions there are."""
        return max(0, len(self._seen) - self._pretended)

    @property
    def are_real(self) -> bool:
        """Whether enough real questions were sampled."""
        return not self._pretended and len(self._seen) >= REAL_MIN

    @property
    def are_complete(self) -> bool:
        """Whether as many real questions were sampled as are kept."""
        return not self._pretended and len(self._seen) == SAMPLES_MAX

    def reach(self, lists: int, rows: int, used: Reach) -> Reach:
        """What finds the wanted share of ``rows`` vectors in so many lists, at the least cost.

        Its ``recall`` is the share that ``used`` finds of the true ten, if that was asked for.
        """
        if not self.are_real and not self._pretended:
            return replace(self._floor, recall=None)  # so few would tell how far all have to look
        seen = np.stack(self._seen)
        ranks, marks = seen[:, 0], seen[:, 1]
        wanted = (RECALL_WANTED, *RECALL_ENOUGH)
        shares = [1.0 - (1.0 - share) * sqrt(len(seen) / SAMPLES_MAX) for share in wanted]
        per_list = max(1.0, rows / lists)
        least = min(lists, max(PROBES_MIN, int(ROWS_MIN / per_list)))
        ten = ranks[:, : DEPTHS[0]], marks[:, : DEPTHS[0]]
        payable = _payable(*ten, shares, per_list)
        found = [
            _cheapest(ranks[:, :depth], marks[:, :depth], shares[0], per_list)[:1]
            + _cheapest(ranks[:, :depth], marks[:, :depth], payable, per_list)[1:]
            for depth in DEPTHS
        ]
        curve, coded, again = (np.maximum.accumulate(values) for values in zip(*found, strict=True))
        possible = np.array([bool(rows) for _, _, rows in found])
        curve, coded = np.clip(curve, least, lists), np.clip(coded, least, lists)
        if not self.are_real:
            floor = self._floor
            curve, coded, again = np.maximum((curve, coded, again), (floor.curve, floor.coded, floor.again))
        coded, again = coded * possible, again * possible
        made = Reach(tuple(curve.tolist()), tuple(coded.tolist()), tuple(again.tolist()))
        if not self.are_real:
            return made
        probes, looked_at = used.look(DEPTHS[0], 1.0, per_list)
        inside = (ten[0] < probes) & (ten[1] < (looked_at or FAR + 1))
        return replace(made, recall=float(np.mean(inside)))


def _payable(
    ranks: NDArray[np.int32], marks: NDArray[np.int32], shares: list[float], per_list: float
) -> float:
    """The first of ``shares`` of the true ten that can be found for no more than ``DEAR``, or the last."""
    for share in shares[:-1]:
        plain, probes, again = _cheapest(ranks, marks, share, per_list)
        cost = plain * per_list * ROW_COST
        if again:
            cost = min(cost, probes * per_list + again * AGAIN_COST)
        if cost <= DEAR:
            return share
    return shares[-1]


def _cheapest(
    ranks: NDArray[np.int32], marks: NDArray[np.int32], share: float, per_list: float
) -> tuple[int, int, int]:
    """For ``share`` of the rows: lists to probe; lists and rows to look at when short codes are read.

    Of the pairs that find them the cheapest; zeros: none does.
    """
    wanted = min(ranks.size - 1, int(share * ranks.size))  # so many must be found, and one more
    plain = int(np.partition(ranks, wanted, axis=None)[wanted]) + 1
    best = (np.inf, 0, 0)
    for again in _AGAIN:
        inside = ranks[marks < again]
        if len(inside) > wanted:
            probes = int(np.partition(inside, wanted)[wanted]) + 1
            best = min(best, (probes * per_list + again * AGAIN_COST, probes, again))
    return plain, best[1], best[2]


class Truth:
    """The nearest vectors of some questions, gathered list by list."""

    def __init__(self, questions: Rows, depth: int) -> None:
        self._questions = questions
        self._depth = depth
        self._scores = np.full((len(questions), 0), -np.inf, dtype=np.float32)
        self._rids = np.zeros((len(questions), 0), dtype=np.int64)
        self._lists = np.zeros((len(questions), 0), dtype=np.int64)

    def take(self, scores: Rows, rids: Rids, lists: Rids) -> None:
        """The best of some lists: all of shape (questions, n); list -1: there is none."""
        scores = np.concatenate([self._scores, np.where(lists >= 0, scores, -np.inf)], axis=1)
        rids = np.concatenate([self._rids, rids], axis=1)
        lists = np.concatenate([self._lists, lists], axis=1)
        keep = np.argsort(-scores, axis=1, kind="stable")[:, : self._depth]
        self._scores = np.take_along_axis(scores, keep, 1)
        self._rids = np.take_along_axis(rids, keep, 1)
        self._lists = np.take_along_axis(lists, keep, 1)

    def ranks(self, searched: InvertedLists) -> NDArray[np.int64]:
        """The rank of the list of each of the nearest, the nearest first; shape (questions, depth)."""
        return np.take_along_axis(searched.nearest(self._questions), np.maximum(self._lists, 0), 1)

    def marks(self, number: int, found: Rids) -> NDArray[np.int64]:
        """The place of each of the nearest of one question in what was ``found`` by short codes; else FAR."""
        order = np.argsort(found)
        at = np.minimum(np.searchsorted(found, self._rids[number], sorter=order), max(0, len(found) - 1))
        places = order[at] if len(found) else at
        known = found[places] == self._rids[number] if len(found) else np.zeros(len(at), np.bool_)
        return np.where(known, places, FAR)


def between(rows: Rows, count: int, seed: int) -> Rows:
    """Points half-way between two of ``rows``, of norm 1; shape (count, dimensions)."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(len(rows), size=(2, count))
    mixed = rows[pairs[0]] + rows[pairs[1]]
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    made: Rows = np.where(norms > 1e-6, mixed / np.maximum(norms, 1e-6), rows[pairs[0]])
    return made
