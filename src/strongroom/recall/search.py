"""Search, listing and counting over the indexes of one or several namespaces.

Filters come first: the lanes rank inside the allowed set. Each lane's candidates of all namespaces are
put into one order (BM25 with the statistics of all of them together), then the lanes are fused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidInputError, InvalidVectorError
from strongroom.model import Filter, HitExplanation, SearchMode
from strongroom.model.rows import WHOLE, Reach
from strongroom.recall._allowed import Allowed
from strongroom.recall._beside import Beside
from strongroom.recall._bm25 import Question
from strongroom.recall._held import reading
from strongroom.recall._items import ListItem
from strongroom.recall._lane import Key, Lane, Matched, timed
from strongroom.recall._statistics import shared_statistics
from strongroom.recall._unit import check_vector
from strongroom.recall.fusion import LaneWeights, fuse, lane_depth
from strongroom.recall.index import NamespaceIndex

DAY_US = 86_400_000_000
Reaches = Mapping[int, Reach]
"""What of each namespace, by its number, a question may reach; all of one that is not there."""

_EVERYWHERE: Reaches = {}


@dataclass(slots=True, kw_only=True, eq=False)
class RecallQuery:
    """A question.

    Args:
        now_us: microseconds since the epoch; memories that expire at or before are left out.
        text: what to find by keyword (modes hybrid and keyword).
        vector: what to find by meaning: the text's embedding, float, shape (dimensions,), not zero.
        embed: gives the vector, or None, when there is none yet. It is called once, while another thread
            looks up keywords and the indexes are held: it has to be quick. Only for mode hybrid without
            ``min_similarity``.
        min_similarity: the least cosine, in [-1, 1], that every answer must have.
    """

    now_us: int
    text: str | None = field(default=None, repr=False)
    vector: NDArray[np.float32] | None = field(default=None, repr=False)
    embed: Callable[[], NDArray[np.float32] | None] | None = field(default=None, repr=False)
    k: int = 10
    mode: SearchMode = "hybrid"
    filter: Filter = field(default_factory=Filter)
    min_similarity: float | None = None


@dataclass(slots=True, eq=False)  # not frozen: that takes ten times as long to make
class Candidate:
    """A memory that answers a question.

    ``score`` orders the answers (hybrid: fused; semantic: cosine; keyword: BM25). ``similarity`` is the
    exact cosine, None when the question or the memory has no vector; ``keyword_score`` is None without
    a match. The ranks are those inside a lane, 1 the best, None when it did not propose the memory.
    """

    index: NamespaceIndex
    memory_id: bytes
    seq: int
    score: float
    similarity: float | None
    keyword_score: float | None
    vector_rank: int | None = None
    keyword_rank: int | None = None
    has_embedding: bool = False
    recency: float = 0.0
    importance: float = 0.0
    label: str | None = None  # the sensitivity of one whose content may not be opened
    created_us: int = 0  # of the same
    access: tuple[int, int | None] | None = None  # how often it was read and when last, when it was

    @property
    def explanation(self) -> HitExplanation:
        """Where the score comes from."""
        known = self.index.settings
        return HitExplanation(
            vector_rank=self.vector_rank,
            keyword_rank=self.keyword_rank,
            vector_weight=known.vector_weight,
            keyword_weight=known.keyword_weight,
            rrf_constant=known.rrf_constant,
            recency=self.recency,
            importance=self.importance,
        )

    @property
    def ns(self) -> int:
        """The number of its namespace."""
        return self.index.ns


@dataclass(slots=True, eq=False)
class RecallResult:
    """The answers, best first. ``degraded``: hybrid was asked for, but there was no vector to search with.

    The seconds are those spent in the filter and in each lane.
    """

    candidates: tuple[Candidate, ...]
    degraded: bool
    filter_s: float = 0.0
    vector_s: float = 0.0
    keyword_s: float = 0.0

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)


class Recall:
    """Answers questions over indexes; holds nothing itself. Thread-safe."""

    @staticmethod
    def search(
        indexes: Sequence[NamespaceIndex], query: RecallQuery, reaches: Reaches = _EVERYWHERE
    ) -> RecallResult:
        """The ``k`` best memories of ``indexes``, among those within ``reaches``.

        Raises:
            InvalidInputError: neither text nor vector where the mode needs it, or a value out of range.
            InvalidVectorError: the vector is not usable, or not as long as those of an index.
            InvalidFilterError: the filter's ``where`` is refused.
        """
        vector = _check(query)
        if query.mode == "hybrid" and vector is None and query.min_similarity is not None:
            return RecallResult((), True)  # no answer could be shown to be similar enough
        with reading(indexes) as opened:
            _check_dimensions(opened, vector)
            started = perf_counter()
            reach = [reaches.get(index.ns, WHOLE) for index in opened]
            allowed = [
                index.allowed(query.filter, query.now_us, within)
                for index, within in zip(opened, reach, strict=True)
            ]
            filtered = perf_counter()
            run = _Search(opened, query, vector, allowed, reach)
            found, matched = run.lanes()
            candidates = run.answers(found, matched)
        degraded = query.mode == "hybrid" and not run.has_vector
        return RecallResult(tuple(candidates), degraded, filtered - started, found.seconds, matched.seconds)

    @staticmethod
    def list(
        indexes: Sequence[NamespaceIndex],
        filter: Filter,
        *,
        now_us: int,
        limit: int,
        before: tuple[int, bytes] | None = None,
        reaches: Reaches = _EVERYWHERE,
    ) -> list[ListItem]:
        """At most ``limit`` memories, newest first; of one microsecond the lower memory_id first.

        Args:
            before: (created_us, memory_id) of the last item of the page before.


        Raises:
            InvalidInputError: ``limit`` is not positive.
            InvalidFilterError: the filter's ``where`` is refused.
        """
        if limit <= 0:
            raise InvalidInputError("limit must be at least 1")
        with reading(indexes) as opened:
            items = [
                item
                for index in opened
                for item in index.newest(filter, limit, before, now_us, reaches.get(index.ns, WHOLE))
            ]
        items.sort(key=lambda item: (-item.created_us, item.memory_id))
        return items[:limit]

    @staticmethod
    def count(
        indexes: Sequence[NamespaceIndex],
        filter: Filter,
        *,
        now_us: int,
        reaches: Reaches = _EVERYWHERE,
    ) -> int:
        """How many memories pass the filter and have not expired.

        Raises:
            InvalidFilterError: the filter's ``where`` is refused.
        """
        with reading(indexes) as opened:
            total = 0
            for index in opened:
                total += len(index.chosen(filter, now_us, reaches.get(index.ns, WHOLE)))
            return total


def _check(query: RecallQuery) -> NDArray[np.float32] | None:
    """Refuse what cannot be answered; the query's vector with norm 1."""
    if query.mode not in ("hybrid", "semantic", "keyword"):
        raise InvalidInputError("mode is one of hybrid, semantic, keyword")
    if query.k < 1:
        raise InvalidInputError("k must be at least 1")
    threshold = query.min_similarity
    if threshold is not None and not (math.isfinite(threshold) and -1.0 <= threshold <= 1.0):
        raise InvalidInputError("min_similarity must be in [-1, 1]")
    if query.mode == "semantic" and query.vector is None:
        raise InvalidInputError("a semantic search needs a vector")
    if query.mode == "keyword" and query.text is None:
        raise InvalidInputError("a keyword search needs a text")
    if query.mode == "keyword" and threshold is not None and query.vector is None:
        raise InvalidInputError("min_similarity needs a vector to compare with")
    if query.text is None and query.vector is None:
        raise InvalidInputError("a search needs a text or a vector")
    if query.embed is not None and (
        query.mode != "hybrid" or query.vector is not None or threshold is not None
    ):
        raise InvalidInputError("only a hybrid search without a threshold embeds its question meanwhile")
    return None if query.vector is None else check_vector(query.vector)


def _check_dimensions(indexes: Sequence[NamespaceIndex], vector: NDArray[np.float32] | None) -> None:
    for index in indexes:
        if vector is not None and index.dimensions not in (None, len(vector)):
            raise InvalidVectorError(
                f"the query vector has {len(vector)} components, expected {index.dimensions}"
            )


class _Search:
    """One search: its lanes over all indexes, then the answers. The indexes are locked for reading."""

    def __init__(
        self,
        indexes: Sequence[NamespaceIndex],
        query: RecallQuery,
        vector: NDArray[np.float32] | None,
        allowed: Sequence[Allowed],
        reach: Sequence[Reach],
    ) -> None:
        self._indexes = indexes
        self._query = query
        self._vector = vector
        self._allowed = allowed
        self._reach = reach
        self._weights_of = [
            LaneWeights((s.vector_weight, s.keyword_weight), s.rrf_constant)
            for s in (index.settings for index in indexes)
        ]
        deepest = max((index.settings.lane_depth_min for index in indexes), default=0)
        self._depth = lane_depth(query.k, deepest) if query.mode == "hybrid" else query.k
        self._boosts: dict[Key, tuple[float, float]] = {}  # recency, importance
        self._questions: list[Question] = []  # to the keyword lane, per index

    @property
    def has_vector(self) -> bool:
        return self._vector is not None

    @property
    def _is_boosted(self) -> bool:
        return any(i.settings.recency_weight or i.settings.importance_weight for i in self._indexes)

    def lanes(self) -> tuple[Lane, Lane]:
        """What is found by meaning, and by keyword; beside each other while there is no vector yet."""
        embed = self._query.embed
        if embed is None:
            matched = Matched(timed(self.by_keyword))
            return timed(partial(self.by_meaning, matched)), matched.lane()
        with Beside(partial(timed, self.by_keyword)) as keywords:
            matched = Matched(None, keywords)
            given = embed()
            if given is not None:
                self._vector = check_vector(given)
                _check_dimensions(self._indexes, self._vector)
            found = timed(partial(self.by_meaning, matched))
            found.seconds -= matched.waited_s
        return found, matched.lane()

    def by_meaning(self, matched: Matched) -> Lane:
        """The vector lane. Where lanes are fused by rank alone it looks at what keywords propose besides."""
        query = self._query
        if self._vector is None or query.mode == "keyword":
            return Lane()
        fused = query.mode == "hybrid" and query.min_similarity is None and not self._is_boosted
        # Without a weight of the lane all that it finds alone is equal, and the newest of that comes first.
        fused = fused and all(index.settings.vector_weight > 0 for index in self._indexes)
        several = len(self._indexes) > 1
        found = []
        is_near = False
        for number, index in enumerate(self._indexes):
            if index.vectors is not None:
                proposed = matched.proposes(number, query.k, is_compared=several) if fused else None
                rids, cosines = index.vectors.search(
                    self._vector, self._depth, self._allowed[number], proposed
                )
                is_near = is_near or (proposed is not None and proposed.is_near)
                if query.min_similarity is not None:
                    keep = cosines >= query.min_similarity
                    rids, cosines = rids[keep], cosines[keep]
                found.append((number, rids, cosines))
        lane = self._joined(found)
        lane.is_near = is_near
        return lane

    def by_keyword(self) -> Lane:
        """The keyword lane, with the statistics of all indexes together."""
        if self._query.text is None or self._query.mode == "semantic":
            return Lane()
        terms = [index.keywords.query_terms(self._query.text) for index in self._indexes]
        if not any(terms):
            return Lane()
        statistics = shared_statistics(self._indexes, terms, self._reach)
        found = []
        for number, index in enumerate(self._indexes):
            question = index.keywords.question(terms[number], statistics[number])
            self._questions.append(question)
            rids, scores = self._best(number, question)
            found.append((number, rids, scores))
        lane = self._joined(found)
        lane.rids = {number: rids for number, rids, _ in found}
        return lane

    def _best(self, number: int, question: Question) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best of one index by BM25, without those that are not similar enough."""
        least = self._query.min_similarity
        if self._query.mode != "keyword" or least is None:
            return question.best(self._depth, self._allowed[number])
        depth = self._depth
        while True:
            rids, scores = question.best(depth, self._allowed[number])
            keep = self._similar(number, rids) >= least
            if np.count_nonzero(keep) >= self._depth or len(rids) < depth:
                return rids[keep], scores[keep]
            depth *= 8

    def _similar(self, number: int, rids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Exact cosines, NaN where the question or the memory has no vector."""
        lane = self._indexes[number].vectors
        if lane is None or self._vector is None:
            return np.full(len(rids), np.nan, dtype=np.float32)
        return lane.similarity(self._vector, rids)

    def _joined(self, found: Sequence[tuple[int, NDArray[np.int64], NDArray[np.float32]]]) -> Lane:
        """The best of several indexes in one order; ties: the newer memory first."""
        lane = Lane()
        if not found:
            return lane
        if len(found) == 1:  # in this order already
            number, rids, scores = found[0]
            lane.order = [(number, rid) for rid in rids[: self._depth].tolist()]
            lane.score = dict(zip(lane.order, scores[: self._depth].tolist(), strict=True))
            return lane
        scores = np.concatenate([s for _, _, s in found])
        rids = np.concatenate([r for _, r, _ in found])
        numbers = np.concatenate([np.full(len(r), number) for number, r, _ in found])
        if len(scores) > self._depth:
            cut = np.partition(scores, len(scores) - self._depth)[len(scores) - self._depth]
            keep = scores >= cut
            scores, rids, numbers = scores[keep], rids[keep], numbers[keep]
        created = np.zeros(len(rids), dtype=np.int64)
        for number, _, _ in found:
            mine = numbers == number
            created[mine] = self._indexes[number].created_at(rids[mine])
        order = np.lexsort((-rids, -created, -scores))[: self._depth]
        lane.order = list(zip(numbers[order].tolist(), rids[order].tolist(), strict=True))
        lane.score = dict(zip(lane.order, scores[order].tolist(), strict=True))
        return lane

    def answers(self, found: Lane, matched: Lane) -> list[Candidate]:
        """The first ``k``, with everything that is known of each."""
        similarity: dict[Key, float] = {} if found.is_near else dict(found.score)
        if self._query.min_similarity is not None:
            least = self._query.min_similarity
            self._complete(similarity, [key for key in matched.order if key not in similarity])
            matched.order = [key for key in matched.order if similarity.get(key, -2.0) >= least]
        out: list[Candidate] = []
        chosen = self._ordered(found, matched)[: self._query.k]
        keys = [key for key, _, _ in chosen]
        self._complete(similarity, [key for key in keys if key not in similarity])
        by_keyword = self._by_keyword(keys, matched)
        labels = self._labels(keys)
        for key, score, ranks in chosen:
            number, rid = key
            index = self._indexes[number]
            keyword = by_keyword.get(key, 0.0)
            out.append(
                Candidate(
                    index,
                    index.id_at(rid),
                    index.seq_at(rid),
                    score,
                    similarity.get(key),
                    keyword if keyword > 0 else None,
                    *ranks,
                    key in similarity or (index.vectors is not None and rid in index.vectors),
                    *self._boosts.get(key, (0.0, 0.0)),
                    labels.get(key),
                    index.created_us(rid) if key in labels else 0,
                    index.access_at(rid),
                )
            )
        return out

    def _by_keyword(self, keys: Sequence[Key], matched: Lane) -> dict[Key, float]:
        """The BM25 score of each of ``keys``."""
        scores = {key: matched.score[key] for key in keys if key in matched.score}
        missing = [key for key in keys if key not in scores]
        for number in {number for number, _ in missing} if self._questions else ():
            rids = np.array([rid for n, rid in missing if n == number], dtype=np.int64)
            for rid, score in zip(rids.tolist(), self._questions[number].of(rids).tolist(), strict=True):
                scores[number, rid] = score
        return scores

    def _labels(self, keys: Sequence[Key]) -> dict[Key, str]:
        """The sensitivity of those answers whose content may not be opened."""
        out: dict[Key, str] = {}
        for number, reach in enumerate(self._reach):
            if reach.opened != reach.seen:
                rids = np.array([rid for n, rid in keys if n == number], dtype=np.int64)
                found = self._indexes[number].labels(rids, reach)
                out.update({(number, rid): label for rid, label in found.items()})
        return out

    def _complete(self, similarity: dict[Key, float], keys: Sequence[Key]) -> None:
        """Add the exact cosine of keys that the vector lane did not propose."""
        for number in {number for number, _ in keys}:
            rids = np.array([rid for n, rid in keys if n == number], dtype=np.int64)
            for rid, cosine in zip(rids.tolist(), self._similar(number, rids).tolist(), strict=True):
                if not math.isnan(cosine):
                    similarity[number, rid] = cosine

    def _ordered(self, found: Lane, matched: Lane) -> list[tuple[Key, float, tuple[int | None, int | None]]]:
        if self._query.mode == "semantic":
            return [(key, found.score[key], (rank, None)) for rank, key in enumerate(found.order, start=1)]
        if self._query.mode == "keyword":
            return [
                (key, matched.score[key], (None, rank)) for rank, key in enumerate(matched.order, start=1)
            ]
        boosted = self._is_boosted
        # In one index a row is the more recent the greater its rid, and so its key.
        recency = self._recency if len(self._indexes) > 1 else None
        first = None if boosted else self._query.k
        weights = self._weights_of[0] if len(self._indexes) == 1 else self._weights
        fused = fuse((found.order, matched.order), weights, recency, first=first)
        if not boosted:
            return [(key, item.score, (item.ranks[0], item.ranks[1])) for key, item in fused]
        scores = self._boosted({key: item.score for key, item in fused})
        fused.sort(key=lambda pair: (scores[pair[0]], self._recency(pair[0])), reverse=True)
        return [(key, scores[key], (item.ranks[0], item.ranks[1])) for key, item in fused]

    def _boosted(self, scores: dict[Key, float]) -> dict[Key, float]:
        """The fused scores, raised by recency and importance where a namespace is set to look at them."""
        for number, index in enumerate(self._indexes):
            known = index.settings
            if not (known.recency_weight or known.importance_weight):
                continue
            keys = [key for key in scores if key[0] == number]
            rids = np.array([rid for _, rid in keys], dtype=np.int64)
            age_days = np.maximum(self._query.now_us - index.created_at(rids), 0) / DAY_US
            recency = known.recency_weight * np.exp2(-age_days / known.recency_half_life_days)
            importance = np.zeros(len(keys))
            if known.importance_weight:
                importance = known.importance_weight * index.table.importance(rids)
                reach = self._reach[number]
                if reach.opened != reach.seen:  # of the others importance must not show in the order
                    importance = np.where(index.mask(reach.opened)[rids], importance, 0.0)
            self._boosts.update(
                zip(keys, zip(recency.tolist(), importance.tolist(), strict=True), strict=True)
            )
        return {key: score * (1.0 + sum(self._boosts.get(key, ()))) for key, score in scores.items()}

    def _weights(self, key: Key) -> LaneWeights:
        return self._weights_of[key[0]]

    def _recency(self, key: Key) -> tuple[int, int]:
        number, rid = key
        return self._indexes[number].created_us(rid), rid
