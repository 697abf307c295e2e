"""The scores that the functions of meaning give: one array function per score and namespace.

Everything here looks at every row. ``semantic``: the cosine with the text's vector, NULL without a vector.
``keyword``: BM25 with the statistics of all namespaces of the statement together, 0 without a match.
``hybrid``: the sum over both lanes of weight / (constant + rank), where a memory's rank in a lane counts
from 1 over all memories of the statement's namespaces, the best first and of equal ones the newer; a lane
that does not find a memory adds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidVectorError
from strongroom.model.rows import ALL, WHOLE, Reach
from strongroom.recall._statistics import shared_statistics
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.vectors import VectorLane

__all__ = ["Scorer", "hybrid_scorers", "keyword_scorers", "semantic_scorers"]

ONE_BY_ONE_ROWS_MAX = 20_000

Rids = NDArray[np.int64]
Scorer = Callable[[Rids], NDArray[np.float64]]
"""Rids, shape (n,), to scores, shape (n,), NaN where there is none."""


def semantic_scorers(
    indexes: Sequence[NamespaceIndex],
    vectors: Sequence[NDArray[np.float32] | None],
    reach: Sequence[Reach] = (),
) -> list[Scorer]:
    """``vectors``: the text's vector for each index (they may have different models)."""
    made = [_cosine(index, vector) for index, vector in zip(indexes, vectors, strict=True)]
    return _only_opened(made, indexes, reach)


def _cosine(index: NamespaceIndex, vector: NDArray[np.float32] | None) -> Scorer:
    lane = index.vectors
    if lane is None or vector is None:
        return lambda rids: np.full(len(rids), np.nan)
    if vector.shape != (lane.dimensions,):
        raise InvalidVectorError(f"the text gives {vector.size} components, expected {lane.dimensions}")
    return _Cosines(lane, np.ascontiguousarray(vector, dtype=np.float32))


class _Cosines:
    """Scores rows one by one, and all of them in one go once a statement has asked for many."""

    def __init__(self, lane: VectorLane, query: NDArray[np.float32]) -> None:
        self._lane = lane
        self._query = query
        self._asked = 0
        self._every: NDArray[np.float64] | None = None
        self._lock = threading.Lock()

    def __call__(self, rids: Rids) -> NDArray[np.float64]:
        with self._lock:
            self._asked += len(rids)
            if self._every is None and self._asked > ONE_BY_ONE_ROWS_MAX:
                self._every = self._lane.every_similarity(self._query)
        if self._every is None:
            return self._lane.similarity(self._query, rids).astype(np.float64)
        out = np.full(len(rids), np.nan)
        known = (rids >= 0) & (rids < len(self._every))
        out[known] = self._every[rids[known]]
        return out


def _only_opened(
    scorers: list[Scorer], indexes: Sequence[NamespaceIndex], reach: Sequence[Reach]
) -> list[Scorer]:
    """No score for a row that may not be opened: it would tell what the row holds."""
    if not reach or all(r.opened == ALL for r in reach):
        return scorers
    masks = [None if r.opened == ALL else i.mask(r.opened) for i, r in zip(indexes, reach, strict=True)]
    return [s if mask is None else _masked(s, mask) for s, mask in zip(scorers, masks, strict=True)]


SCORE_DIGITS = 5
"""Digits of a score where rows are held back: the last ones of a product depend on how many rows it had."""


def _masked(scorer: Scorer, mask: NDArray[np.bool_]) -> Scorer:
    def score(rids: Rids) -> NDArray[np.float64]:
        opened = np.zeros(len(rids), dtype=np.bool_)
        known = (rids >= 0) & (rids < len(mask))
        opened[known] = mask[rids[known]]
        return np.where(opened, np.round(scorer(rids), SCORE_DIGITS), np.nan)

    return score


def keyword_scorers(
    indexes: Sequence[NamespaceIndex], text: str, reach: Sequence[Reach] = ()
) -> list[Scorer]:
    """BM25 of every row, taken once."""
    return _only_opened([_lookup(scores) for scores in _bm25(indexes, text, reach)], indexes, reach)


def _bm25(indexes: Sequence[NamespaceIndex], text: str, reach: Sequence[Reach]) -> list[NDArray[np.float64]]:
    terms = [index.keywords.query_terms(text) for index in indexes]
    known = shared_statistics(indexes, terms, reach or [WHOLE] * len(indexes))
    return [
        index.keywords.scores(mine, statistics).astype(np.float64)
        for index, mine, statistics in zip(indexes, terms, known, strict=True)
    ]


def _lookup(scores: NDArray[np.float64]) -> Scorer:
    def score(rids: Rids) -> NDArray[np.float64]:
        out = np.zeros(len(rids))
        known = rids < len(scores)
        out[known] = scores[rids[known]]
        return out

    return score


def hybrid_scorers(
    indexes: Sequence[NamespaceIndex],
    vectors: Sequence[NDArray[np.float32] | None],
    text: str,
    reach: Sequence[Reach] = (),
) -> list[Scorer]:
    """Reciprocal rank fusion over all memories of the indexes; see the module's text."""
    within = list(reach) or [WHOLE] * len(indexes)
    bm25 = _bm25(indexes, text, within)
    alive = [
        rids if r.opened == ALL else rids[index.mask(r.opened)[rids]]
        for index, r in zip(indexes, within, strict=True)
        for rids in (index.everything(),)
    ]
    meaning = [scorer(rids) for scorer, rids in zip(semantic_scorers(indexes, vectors), alive, strict=True)]
    found = [_lookup(scores)(rids) for scores, rids in zip(bm25, alive, strict=True)]
    newest = [index.created_at(rids) for index, rids in zip(indexes, alive, strict=True)]
    ranks_meaning = _ranks(meaning, [~np.isnan(m) for m in meaning], newest, alive)
    ranks_keyword = _ranks(found, [f > 0 for f in found], newest, alive)
    out: list[Scorer] = []
    for number, index in enumerate(indexes):
        known = index.settings
        fused = np.zeros(int(alive[number].max(initial=-1)) + 1)
        by_meaning, by_keyword = ranks_meaning[number], ranks_keyword[number]
        fused[alive[number]] = np.where(
            by_meaning > 0, known.vector_weight / (known.rrf_constant + by_meaning), 0.0
        ) + np.where(by_keyword > 0, known.keyword_weight / (known.rrf_constant + by_keyword), 0.0)
        out.append(_lookup(fused))
    return _only_opened(out, indexes, within)


def _ranks(
    scores: Sequence[NDArray[np.float64]],
    found: Sequence[NDArray[np.bool_]],
    created: Sequence[NDArray[np.int64]],
    rids: Sequence[Rids],
) -> list[NDArray[np.int64]]:
    """Ranks from 1 over all parts together, of equal scores the newer memory first; 0: not found."""
    have = np.concatenate(found)
    ranks = np.zeros(len(have), dtype=np.int64)
    places = np.flatnonzero(have)
    keys = (np.concatenate(rids), np.concatenate(created), np.concatenate(scores))
    order = np.lexsort(tuple(-key[places] for key in keys))
    ranks[places[order]] = np.arange(1, len(places) + 1)
    return np.split(ranks, np.cumsum([len(f) for f in found])[:-1])
