"""The keyword lane: BM25 over blinded terms of one namespace.

Score of a memory d for the distinct terms t of a query (Robertson & Zaragoza 2009, "The Probabilistic
Relevance Framework: BM25 and Beyond"; the idf that is never negative is Lucene's):

    sum over t of  ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * |d| / avg))

with k1 = 1.2, b = 0.75, f the count of t in d, |d| the number of terms of d, n_t the number of
memories that hold t, all over live memories only.

Terms are blinded before they are counted: a callable turns stems into 64-bit numbers (a keyed hash,
made by the engine). Neither the postings nor any cache hold a word. The cache of blinded terms is a
bounded map from Python's own keyed 64-bit string hash to the blinded number; it is emptied when full.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from strongroom.recall import _postings
from strongroom.recall._allocator import give_back
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._bm25 import JOIN_POSTINGS, NOTHING, Part, Question, Scratch, Term, joined, size_of
from strongroom.recall._ids import ROWS_MIN
from strongroom.recall._postings import COUNT_MAX, K1, B, Segment, from_occurrences, made, merge
from strongroom.recall._threads import BackgroundTask, ReadWriteLock
from strongroom.recall.analyze import Analyzer, tokenize

LENGTH_MAX = 0xFFFF  # terms of a text that its length counts
SCRATCH_MAX = 4  # arrays kept for searches at the same time
QUERY_TERMS_MAX = 256  # distinct terms of one query that count
CACHE_TERMS_MAX = 131_072
CACHE_TERMS_MIN = 64  # ... and so many more for each memory: of a small namespace most come once
CACHE_TERMS_EACH = 8
DELTA_DOCUMENTS_MAX = 2_048  # single additions that wait outside the segments, in ten times the memory
DELTA_DOCUMENTS_MIN = 8
DELTA_SHARE = 8  # of so many memories one may wait
COUNTED_MAX = 8  # conditions on rows whose documents and lengths are kept
MERGE_RATIO = 4  # a segment is merged with the next one unless it is this many times as large
DEAD_DOCUMENTS_MIN = 1_024  # removed documents that make a clean-up worth while
MERGE_INLINE_MAX = 8_192  # documents; larger merges run in the background
GONE_COST = 16  # postings that are gone through in the time in which one removed row is looked up

Blind = Callable[[Sequence[str]], Sequence[int]]
_STOP = 0
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TermStatistics:
    """What BM25 needs to know of a collection: ``frequencies[i]`` memories hold the i-th query term."""

    documents: int
    length: int  # terms of all memories together
    frequencies: NDArray[np.int64]

    def __add__(self, other: TermStatistics) -> TermStatistics:
        return TermStatistics(
            self.documents + other.documents,
            self.length + other.length,
            self.frequencies + other.frequencies,
        )


@dataclass(frozen=True, slots=True, eq=False)
class FrozenKeywords:
    """A keyword lane at one moment."""

    segments: tuple[Segment, ...]
    lengths: NDArray[np.uint16]  # by rid
    live: NDArray[np.bool_]  # by rid

    def dump(self, out: BlockWriter, rids: NDArray[np.int64]) -> None:
        """Write the rows ``rids`` (ascending, all live) as the rows 0, 1, 2 ...; a few seconds a million."""
        size = int(rids.max(initial=-1)) + 1
        new_rid = np.full(max(size, len(self.live)), -1, dtype=np.int64)
        new_rid[rids] = np.arange(len(rids), dtype=np.int64)
        lengths = np.zeros(len(new_rid), dtype=np.uint16)
        lengths[: len(self.lengths)] = self.lengths
        out.array("KLEN", lengths[rids], "<u2")
        _postings.dump(merge(self.segments, new_rid >= 0, lengths), out, new_rid)


class KeywordLane:
    """BM25 of one namespace by row id (rid: dense, only ever growing). Thread-safe.

    Args:
        analyzer: turns text into stems.
        blind: turns stems into 64-bit numbers; the same stem must always give the same number.
    """

    def __init__(self, analyzer: Analyzer, blind: Blind) -> None:
        self._analyzer = analyzer
        self._blind = blind
        self._cache: dict[int, int] = {}
        self._lock = ReadWriteLock()
        self._segments: tuple[Segment, ...] = ()
        self._delta: dict[int, tuple[list[int], list[int]]] = {}  # term -> rids, counts
        self._delta_documents = 0
        self._lengths: NDArray[np.uint16] = np.zeros(0, dtype=np.uint16)  # by rid
        self._live: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)  # by rid
        self._documents = 0
        self._length = 0
        self._counted: tuple[tuple[NDArray[np.bool_], tuple[int, ...], int, int], ...] = ()
        self._dead = 0  # removed, but still in the postings
        self._gone: NDArray[np.uint32] | None = None  # every rid that was removed; None: not worked out
        self._end = 0  # the greatest rid so far, and 1
        self._task = BackgroundTask("strongroom-keywords")
        self._cache_lock = threading.Lock()
        self._scratch: list[Scratch] = []

    def __len__(self) -> int:
        return self._documents

    # -- changes ----------------------------------------------------------------------------------
    def blinded(self, text: str) -> list[int]:
        """The blinded terms of ``text`` in their order, stop words left out."""
        return [number for number in self._numbers(tokenize(text)) if number]

    def _numbers(self, tokens: list[str], more: int = 0) -> list[int]:
        """The blinded term of each token, 0 for a stop word; of ``more`` memories that come."""
        found = list(map(self._cache.get, map(hash, tokens)))
        if None not in found:
            return cast("list[int]", found)
        missing = [i for i, number in enumerate(found) if number is None]
        fresh = self._look_up(list({tokens[i] for i in missing}), more)
        for i in missing:
            found[i] = fresh[tokens[i]]
        return cast("list[int]", found)

    def _blinded_many(self, texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The blinded terms of all texts one after the other, and how many each text has."""
        tokens = list(map(tokenize, texts))
        every = list(itertools.chain.from_iterable(tokens))
        flat = np.array(self._numbers(every, len(texts)), dtype=np.uint64)
        ends = np.cumsum(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)))
        kept = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(flat != _STOP)])
        return flat[flat != _STOP], np.diff(kept[ends], prepend=0)

    def _look_up(self, tokens: list[str], more: int) -> dict[str, int]:
        stems = self._analyzer.stems(tokens)
        words = [s for s in stems if s is not None]
        numbers = iter(self._blind(words) if words else ())
        made = {
            token: _STOP if stem is None else (next(numbers) & _MASK) or 1
            for token, stem in zip(tokens, stems, strict=True)
        }
        room = min(CACHE_TERMS_MAX, CACHE_TERMS_MIN + CACHE_TERMS_EACH * (self._documents + more))
        with self._cache_lock:
            if len(self._cache) + len(made) > room:
                self._cache = {}
            for token, number in list(made.items())[:room]:
                self._cache[hash(token)] = number
        return made

    def add(self, rids: Sequence[int], texts: Sequence[str | Sequence[int]]) -> None:
        """Add texts, or their blinded terms (``blinded``), under rids that were never used before."""
        if not texts:
            return
        if all(isinstance(text, str) for text in texts):
            self._add_flat(rids, *self._blinded_many(cast("Sequence[str]", texts)))  # outside the lock
            return
        terms = [self.blinded(text) if isinstance(text, str) else text for text in texts]
        flat = np.array(list(itertools.chain.from_iterable(terms)), dtype=np.uint64)
        self._add_flat(rids, flat, np.fromiter(map(len, terms), dtype=np.int64, count=len(terms)))

    def _add_flat(self, rids: Sequence[int], flat: NDArray[np.uint64], lengths: NDArray[np.int64]) -> None:
        documents = len(lengths)
        index = np.asarray(rids, dtype=np.int64)
        fresh: Segment | None = None
        if documents > DELTA_DOCUMENTS_MAX // 4 or not self._end:
            by_rid = np.zeros(int(index.max()) + 1, dtype=np.uint16)
            by_rid[index] = np.minimum(lengths, LENGTH_MAX)
            fresh = from_occurrences(flat, np.repeat(index, lengths), by_rid, documents)
        with self._lock.write:
            self._reserve(int(index.max()) + 1)
            self._lengths[index] = np.minimum(lengths, LENGTH_MAX)
            self._live[index] = True
            self._end = max(self._end, int(index.max()) + 1)
            self._gone = None  # a rid that was passed over is none of these
            self._documents += documents
            self._length += int(self._lengths[index].sum())
            if fresh is not None:
                self._flush_delta()  # rids grow from one segment to the next
                self._segments = (*self._segments, fresh)
            else:
                numbers = flat.tolist()
                start = 0
                for rid, length in zip(rids, lengths.tolist(), strict=True):
                    self._add_to_delta(rid, numbers[start : start + length])
                    start += length
        self._maintain()

    def _add_to_delta(self, rid: int, numbers: list[int]) -> None:
        counts: dict[int, int] = {}
        for number in numbers:
            counts[number] = counts.get(number, 0) + 1
        for number, count in counts.items():
            entry = self._delta.get(number)
            if entry is None:
                self._delta[number] = ([rid], [count])
            else:
                entry[0].append(rid)
                entry[1].append(count)
        self._delta_documents += 1

    def _reserve(self, size: int) -> None:
        if size <= len(self._live):
            return
        room = max(size, len(self._live) + len(self._live) // 2, ROWS_MIN)
        lengths = np.zeros(room, dtype=np.uint16)
        live = np.zeros(room, dtype=np.bool_)
        lengths[: len(self._lengths)] = self._lengths
        live[: len(self._live)] = self._live
        self._lengths, self._live = lengths, live

    def remove(self, rids: Sequence[int]) -> None:
        """Forget the texts of ``rids``; unknown ones are passed over."""
        index = np.unique(np.asarray(rids, dtype=np.int64))
        with self._lock.write:
            index = index[(index >= 0) & (index < len(self._live))]
            index = index[self._live[index]]
            self._live[index] = False
            self._gone = None
            self._documents -= len(index)
            self._length -= int(self._lengths[index].sum())
            self._dead += len(index)
        self._maintain()

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenKeywords:
        """A copy of the tables; the postings are shared, because they never change."""
        with self._lock.write:
            self._flush_delta()
            return FrozenKeywords(self._segments, self._lengths.copy(), self._live.copy())

    def restore(self, source: BlockReader, rows: int) -> None:
        """Fill an empty lane with what ``FrozenKeywords.dump`` wrote.

        Raises:
            IntegrityError: it is of another form.
        """
        lengths = source.array("KLEN", "<u2", rows=rows)
        segment = _postings.restore(source, rows)
        with self._lock.write:
            self._lengths, self._live = lengths, np.ones(rows, dtype=np.bool_)
            self._documents, self._length, self._end = rows, int(lengths.sum(dtype=np.int64)), rows
            self._segments = (segment,) if rows else ()
        self._maintain()

    # -- searching --------------------------------------------------------------------------------
    def query_terms(self, text: str) -> list[int]:
        """The distinct blinded terms of a query, at most ``QUERY_TERMS_MAX``, in their order."""
        return list(dict.fromkeys(self.blinded(text)))[:QUERY_TERMS_MAX]

    def statistics(self, terms: Sequence[int], among: NDArray[np.bool_] | None = None) -> TermStatistics:
        """This lane's share of the statistics of a collection of several lanes.

        ``among``: a mask by rid; only these rows are counted, so that a score tells nothing of others.
        """
        with self._lock.read:
            postings = [self._postings(term, 1.0) for term in terms]
            return self._statistics(postings) if among is None else self._among(postings, among)

    def _among(self, postings: Sequence[Sequence[Part]], among: NDArray[np.bool_]) -> TermStatistics:
        size = min(len(among), len(self._live))
        state = (self._documents, self._length, self._dead)
        counted = next((c for c in self._counted if c[0] is among and c[1] == state), None)
        if counted is None:
            rows = among[:size] & self._live[:size]
            counted = (
                among,
                state,
                int(np.count_nonzero(rows)),
                int(self._lengths[:size][rows].sum(dtype=np.int64)),
            )
            self._counted = (counted, *self._counted[: COUNTED_MAX - 1])
        found = [sum(self._held_among(part.rids, among, size) for part in parts) for parts in postings]
        return TermStatistics(counted[2], counted[3], np.array(found, dtype=np.int64))

    def _held_among(self, rids: NDArray[np.uint32], among: NDArray[np.bool_], size: int) -> int:
        at = rids[: int(rids.searchsorted(np.uint32(size)))].astype(np.intp)
        held = among.take(at)
        if self._dead:
            held &= self._live.take(at)
        return int(np.count_nonzero(held))

    def _statistics(self, postings: Sequence[Sequence[Part]]) -> TermStatistics:
        """Of live rows alone."""
        held = [size_of(parts) for parts in postings]
        if self._dead:
            gone = [sum(self._held_by_dead(part.rids) for part in parts) for parts in postings]
            held = [all_ - dead for all_, dead in zip(held, gone, strict=True)]
        return TermStatistics(self._documents, self._length, np.array(held, dtype=np.int64))

    def _held_by_dead(self, rids: NDArray[np.uint32]) -> int:
        if not len(rids):
            return 0
        gone = self._gone
        if gone is None:
            gone = self._gone = np.flatnonzero(~self._live[: self._end]).astype(np.uint32)
        first, last = gone.searchsorted(rids[[0, -1]])
        gone = gone[first : last + 1]
        if len(gone) * GONE_COST > len(rids):
            return len(rids) - int(np.count_nonzero(self._live.take(rids.astype(np.intp))))
        at = rids.searchsorted(gone)
        np.minimum(at, len(rids) - 1, out=at)
        return int(np.count_nonzero(rids.take(at) == gone))

    def question(self, terms: Sequence[int], statistics: TermStatistics | None = None) -> Question:
        """Everything that is needed to score rows for ``terms``; the lane must not change meanwhile.

        Args:
            terms: as ``query_terms`` gives them.
            statistics: of the whole collection when this lane is a part of it; None: its own.
        """
        with self._lock.read:
            documents, length = self._documents, self._length
            if statistics is not None:
                documents, length = statistics.documents, statistics.length
            average = length / documents if length else 1.0
            postings = [self._postings(term, average) for term in terms]
            known = self._statistics(postings) if statistics is None else statistics
            sizes = list(map(size_of, postings))
            if sum(sizes) <= JOIN_POSTINGS:
                postings = [joined(parts) for parts in postings]
            made_of = []
            for parts, size, frequency in zip(postings, sizes, known.frequencies.tolist(), strict=True):
                idf = math.log1p((known.documents - frequency + 0.5) / (frequency + 0.5))
                made_of.append(Term(parts, idf * (K1 + 1), size))
            norm = (K1 * (1 - B), K1 * B / average)
            live = self._live if self._dead else None
            return Question(made_of, self._lengths, norm, live, self._borrow, self._return)

    def _borrow(self) -> Scratch:
        rows = len(self._lengths)
        try:
            scratch = self._scratch.pop()
        except IndexError:
            return Scratch.of(rows)
        return scratch if len(scratch.notes) >= rows else Scratch.of(rows)

    def _return(self, scratch: Scratch) -> None:
        if len(self._scratch) < SCRATCH_MAX:
            self._scratch.append(scratch)

    def scores(self, terms: Sequence[int], statistics: TermStatistics | None = None) -> NDArray[np.float32]:
        """The BM25 score of every row from 0 on, shape (rows,), 0 where no term occurs.

        Args: as for ``question``.
        """
        return self.question(terms, statistics).every()

    def search(
        self,
        terms: Sequence[int],
        k: int,
        allowed: NDArray[np.int64] | NDArray[np.bool_] | None = None,
        statistics: TermStatistics | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ``k`` best that hold one of ``terms``: (rids, BM25 scores), best first, ties newest first.

        Args:
            terms: as ``query_terms`` gives them.
            allowed: rids, or a mask by rid; None: all.
            statistics: of the whole collection when this lane is a part of it; None: its own.
        """
        return self.question(terms, statistics).best(k, allowed)

    def _postings(self, term: int, average: float) -> list[Part]:
        """The rows that hold ``term``, removed ones included: of each segment, then of what waits.

        ``average``: the mean length that the norms are taken with.
        """
        key = np.uint64(term)
        parts = []
        for segment in self._segments:
            rids, counts, greatest, marks = segment.postings(key)
            # A greater mean length lowers the norms, by no more than in this proportion.
            impact = min(1.0, greatest * max(1.0, average / segment.average))
            parts.append(Part(rids, counts, impact, marks))
        if self._delta:
            waiting = self._delta.get(term)
            if waiting is None:
                parts.append(NOTHING)
            else:
                counted = np.minimum(np.array(waiting[1]), COUNT_MAX).astype(np.uint8)
                parts.append(Part(np.array(waiting[0], dtype=np.uint32), counted, 1.0))
        return parts or [NOTHING]

    # -- upkeep -----------------------------------------------------------------------------------
    def _maintain(self) -> None:
        may_wait = max(DELTA_DOCUMENTS_MIN, self._documents // DELTA_SHARE)
        if self._delta_documents > min(may_wait, DELTA_DOCUMENTS_MAX):
            with self._lock.write:
                self._flush_delta()
        tail = self._to_merge()
        if tail and sum(s.documents for s in tail) <= MERGE_INLINE_MAX:
            self._merge()
        elif tail or any(s.wants_marks for s in self._segments):
            self._task.start(self._upkeep)

    def _upkeep(self) -> None:
        self._merge()
        for segment in self._segments:
            marked = segment.with_marks(self._lengths, self._task) if segment.wants_marks else segment
            with self._lock.write:
                self._segments = tuple(marked if s is segment else s for s in self._segments)
        give_back()

    def _flush_delta(self) -> None:
        if not self._delta_documents:
            return
        sizes = np.fromiter((len(r) for r, _ in self._delta.values()), dtype=np.int64, count=len(self._delta))
        keys = np.fromiter(self._delta, dtype=np.uint64, count=len(self._delta))
        order = np.argsort(keys)
        ordered = [self._delta[int(key)] for key in keys[order]]
        total = int(sizes.sum())
        counts = np.fromiter((n for _, counts in ordered for n in counts), dtype=np.int64, count=total)
        flushed = made(
            keys[order],
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes[order])]),
            np.fromiter((rid for rids, _ in ordered for rid in rids), dtype=np.uint32, count=total),
            np.minimum(counts, COUNT_MAX).astype(np.uint8),
            self._lengths,
            self._delta_documents,
        )
        self._segments = (*self._segments, flushed)
        self._delta = {}
        self._delta_documents = 0

    @property
    def _is_mostly_dead(self) -> bool:
        return self._dead > max(DEAD_DOCUMENTS_MIN, self._documents)

    def _to_merge(self) -> tuple[Segment, ...]:
        """The newest segments that should become one: sizes fall by ``MERGE_RATIO`` from old to new."""
        segments = self._segments
        if self._is_mostly_dead:
            return segments
        keep = len(segments)
        size = 0
        for i in range(len(segments) - 1, -1, -1):
            if i < len(segments) - 1 and segments[i].documents < MERGE_RATIO * size:
                keep = i
            size += segments[i].documents
        return segments[keep:] if len(segments) - keep > 1 else ()

    def _merge(self) -> None:
        """Merge beside the present segments, then switch; repeated until nothing is left to merge."""
        while not self._task.stopping:
            with self._lock.write:
                if self._is_mostly_dead:
                    self._flush_delta()
                tail = self._to_merge()
                everything = len(tail) == len(self._segments) and not self._delta_documents
                live, lengths = self._live.copy(), self._lengths
                dead = self._dead
            if not tail:
                return
            merged = merge(tail, live, lengths)
            with self._lock.write:
                present = self._segments
                at = next((i for i, s in enumerate(present) if s is tail[0]), -1)
                if at < 0 or present[at : at + len(tail)] != tail:
                    return  # another merge was quicker
                self._segments = (*present[:at], merged, *present[at + len(tail) :])
                if everything:  # all that were dead at the start are gone from the postings
                    self._dead -= dead

    def wait_merged(self, timeout_s: float | None = None) -> bool:
        """Wait for a merge that runs; False when the time was up."""
        return self._task.wait(timeout_s)

    def close(self) -> None:
        """Stop merging; searches still work."""
        self._task.close()

    def memory_bytes(self) -> int:
        """Bytes of postings and tables; additions that wait are estimated."""
        waiting = sum(len(rids) for rids, _ in list(self._delta.values())) * 80 + len(self._delta) * 200
        return (
            sum(s.memory_bytes() for s in self._segments)
            + waiting
            + self._lengths.nbytes
            + self._live.nbytes
            + sum(s.sums.nbytes + s.notes.nbytes for s in list(self._scratch))
            + len(self._cache) * 160
        )
