"""How many lists a search has to look at, learnt from questions.

For a question and its true nearest vectors (found by looking at all of them) the rank of each one's list
in the order of probing says how many lists would have found it. Of many such ranks the least number is
taken that finds the wanted share. Questions in words lie between the clusters of the stored texts and
need more lists than vectors drawn like the stored ones; so only real questions count. As long as there
are few, points half-way between two stored vectors stand for them, which can ask for more lists than a
fixed share of all, or than was learnt before (a snapshot says), never for fewer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import InvertedLists, Rids, Rows

RECALL_WANTED = 0.99  # of the true ten, fifty ... over the sampled questions; others find a little less
# ... of SAMPLES_MAX of them. Of fewer, some of the hard ones are missing by chance, and more is wanted.
DEPTHS = (10, 50, 200, 800)
SAMPLES_MAX = 192  # the newest questions whose truth is known
REAL_MIN = (
    48  # real questions that make the pretended ones superfluous: fewer miss the wanted recall by chance
)
PROBES_MIN = 16
GROWTH_MIN = 0.5  # beyond the deepest: probes grow at least with this power of the depth


@dataclass(frozen=True, slots=True)
class Reach:
    """Lists to probe for the best 10, 50, 200 and 800; ``recall``: the share of the ten that was seen."""

    curve: tuple[int, ...]
    recall: float | None = None

    def probes(self, depth: float) -> int:
        """Lists to probe for the best ``depth`` of all vectors: between the known depths by powers."""
        for i, known in enumerate(DEPTHS):
            if depth <= known:
                return self.curve[0] if not i else int(self._between(i, depth)) + 1
        last = len(DEPTHS) - 1
        steady = self.curve[last] * (depth / DEPTHS[last]) ** GROWTH_MIN
        return int(max(steady, self._between(last, depth))) + 1

    def _between(self, i: int, depth: float) -> float:
        growth = log(self.curve[i] / self.curve[i - 1]) / log(DEPTHS[i] / DEPTHS[i - 1])
        return self.curve[i] * (depth / DEPTHS[i]) ** growth  # type: ignore[no-any-return]


def first_reach(lists: int) -> Reach:
    """Before real questions were sampled: a sixth of the lists and more."""
    shares = (lists // 6, lists // 5, lists // 3, lists // 2)
    return Reach(tuple(min(lists, max(PROBES_MIN, share)) for share in shares))


class Samples:
    """The ranks of the lists that hold the true neighbours of the newest questions.

    ``floor``: how far searches look at least until enough real questions were sampled.
    """

    def __init__(self, floor: Reach) -> None:
        self._floor = floor
        self._ranks: deque[NDArray[np.int32]] = deque(maxlen=SAMPLES_MAX)
        self._pretended = 0  # so many of the oldest were no real questions

    def add(self, ranks: NDArray[np.int64], *, pretended: bool = False) -> None:
        """One row per question: the ranks for its nearest vectors, the nearest first.

        ``pretended``: they stand for real ones, until there are ``REAL_MIN`` of those.
        """
        if pretended:
            self._pretended += len(ranks)
        elif self._pretended and len(self._ranks) - self._pretended + len(ranks) >= REAL_MIN:
            for _ in range(self._pretended):
                self._ranks.popleft()
            self._pretended = 0
        missing = DEPTHS[-1] - ranks.shape[1]
        self._ranks.extend(np.pad(ranks, ((0, 0), (0, missing)), mode="edge").astype(np.int32))

    @property
    def are_real(self) -> bool:
        """Whether enough real questions were sampled."""
        return not self._pretended and len(self._ranks) >= REAL_MIN

    @property
    def are_complete(self) -> bool:
        """Whether as many real questions were sampled as are kept."""
        return not self._pretended and len(self._ranks) == SAMPLES_MAX

    def reach(self, lists: int, used: Reach) -> Reach:
        """What finds the wanted share; ``recall``: the share that ``used`` finds of the true ten, if real."""
        ranks = np.stack(self._ranks)
        share = 1.0 - (1.0 - RECALL_WANTED) * sqrt(len(ranks) / SAMPLES_MAX)
        least = min(PROBES_MIN, lists)
        curve: list[int] = []
        for depth in DEPTHS:
            sorted_ = np.sort(ranks[:, :depth], axis=None)
            wanted = int(sorted_[min(len(sorted_) - 1, int(share * len(sorted_)))]) + 1
            least = max(least, wanted)
            curve.append(min(lists, least))
        if not self.are_real and not self._pretended:
            return Reach(self._floor.curve)  # of so few the deepest would say how far all have to look
        if not self.are_real:
            return Reach(tuple(max(pair) for pair in zip(curve, self._floor.curve, strict=True)))
        return Reach(tuple(curve), float(np.mean(ranks[:, : DEPTHS[0]] < used.probes(DEPTHS[0]))))


class Truth:
    """The nearest vectors of some questions, gathered list by list."""

    def __init__(self, questions: Rows, depth: int) -> None:
        self._questions = questions
        self._depth = depth
        self._scores = np.full((len(questions), 0), -np.inf, dtype=np.float32)
        self._lists = np.zeros((len(questions), 0), dtype=np.int64)

    def take(self, scores: Rows, lists: Rids) -> None:
        """The best of some lists: scores and list of each, shape (questions, n); list -1: there is none."""
        scores = np.concatenate([self._scores, np.where(lists >= 0, scores, -np.inf)], axis=1)
        lists = np.concatenate([self._lists, lists], axis=1)
        if scores.shape[1] > self._depth:
            best = np.argpartition(-scores, self._depth - 1, axis=1)[:, : self._depth]
            scores, lists = np.take_along_axis(scores, best, 1), np.take_along_axis(lists, best, 1)
        self._scores, self._lists = scores, lists

    def ranks(self, searched: InvertedLists) -> NDArray[np.int64]:
        """The rank of the list of each of the nearest, the nearest first; shape (questions, depth)."""
        order = np.argsort(-self._scores, axis=1)
        lists = np.maximum(np.take_along_axis(self._lists, order, 1), 0)
        return np.take_along_axis(searched.nearest(self._questions), lists, 1)


def between(rows: Rows, count: int, seed: int) -> Rows:
    """Points half-way between two of ``rows``, of norm 1; shape (count, dimensions)."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(len(rows), size=(2, count))
    mixed = rows[pairs[0]] + rows[pairs[1]]
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    made: Rows = np.where(norms > 1e-6, mixed / np.maximum(norms, 1e-6), rows[pairs[0]])
    return made
