"""The vector lane: cosine search over the embeddings of one namespace.

Every vector is held once, as 16-bit floats (``_ivf``). While there are few, every search looks at all of
them; above ``exact_rows_max`` they lie in inverted lists. A search reads the short codes (``_codes``) of the
nearest lists and scores the rows that come first by them: as many lists and rows as finding 99 % of the true
ten takes, which is learnt from questions all the time (``_reach``). Where short codes do not pay it scores
all rows of the lists. The lists are made in the background when a search wants them, again when the number
of vectors has doubled or halved, and when new topics have made them uneven; searches and changes go on over
the ones before.

Memory per million vectors of 384 dimensions: 0.89 GB. While lists are made anew, twice that.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import nullcontext
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidVectorError
from strongroom.recall._allocator import give_back
from strongroom.recall._blocks import BlockReader
from strongroom.recall._faiss import at_most, faiss, one_thread
from strongroom.recall._ivf import PIECE_ROWS, PLAIN_LISTS, InvertedLists, Rids, Rows, list_count
from strongroom.recall._making import plain_lists, trained_lists
from strongroom.recall._reach import (
    DEPTHS,
    FAR,
    MARKS_MAX,
    SCAN_ROWS,
    Samples,
    Truth,
    between,
    first_reach,
)
from strongroom.recall._threads import BackgroundTask, ReadWriteLock
from strongroom.recall._top import best
from strongroom.recall._unit import NORM_TOLERANCE
from strongroom.recall._vector_dump import FrozenVectors, read_vectors

NARROW_ROWS = 3_000  # allowed sets up to this size are scored one by one
TINY_ROWS = 128  # ... up to this size by taking them out of their lists
TIES_ROWS = 8  # that are looked at beyond k, to see whether the cut goes through equal scores
RETRY_GROWTH = 1.25  # after a failed build: the growth before the next attempt
SHRUNK_SHARE = 0.5  # of the rows that were there at the last build: build again
FINER_GROWTH = 1.5  # ... when that makes more lists
UNEVEN_FACTOR = 1.6  # a probe meets so many times as many rows as after the last build: build again
UNEVEN_GROWTH = 1.1  # ... when so many rows have come since
JOURNAL_INLINE = 4_096  # changes during a build that are caught up with under the lock
PRETENDED = 48  # made-up questions, as long as there are too few real ones
FEW_ROWS = 256  # changes up to this size stay on one thread: a team of them costs more
QUESTIONS_MAX = 256  # that are remembered until their truth is looked up
SAMPLE_QUESTIONS = 8
SAMPLE_INTERVAL_S = 20.0
SAMPLE_DUTY = 200  # a sample is not taken more often than this many times as long as it took
EARLY = 10  # so many times sooner as long as fewer real questions were sampled than are kept

_log = logging.getLogger(__name__)
_SEED = 0x5EED
_Marks = NDArray[np.int64]
_Change = tuple[Literal["add", "remove", "move"], Rids, "Rows | Rids | None"]


class VectorLane:
    """Vectors of one namespace by row id (rid: dense, only ever growing). Thread-safe.

    Args:
        dimensions: length of every vector.
        exact_rows_max: up to this many vectors every search is exact.
    """

    def __init__(self, dimensions: int, *, exact_rows_max: int = 20_000) -> None:
        self.dimensions = dimensions
        self._exact_rows_max = exact_rows_max
        self._lock = ReadWriteLock()
        self._lists = InvertedLists(dimensions)
        self._task = BackgroundTask("strongroom-vectors")
        self._trained_rows = 0
        self._even = 1.0  # imbalance after the last build
        self._retry_above = 0
        self._journal: list[_Change] | None = None  # changes during a build
        self._reach = first_reach(PLAIN_LISTS)
        self._samples = Samples(self._reach)
        self._questions: deque[Rows] = deque(maxlen=QUESTIONS_MAX)
        self._sample_at_s = 0.0
        self._lot = Random()  # noqa: S311 - which questions are looked at is no secret

    def __len__(self) -> int:
        return self._lists.rows

    def __contains__(self, rid: int) -> bool:
        with self._lock.read:
            return bool(self._lists.has(np.array([rid]))[0])

    @property
    def is_exact(self) -> bool:
        """True while every search looks at every vector."""
        return not self._lists.is_trained

    @property
    def recall(self) -> float | None:
        """Share of the true ten that searches find, over the newest sampled questions; None: not sampled."""
        return 1.0 if self.is_exact else self._reach.recall

    @property
    def reads(self) -> Literal["all", "codes", "vectors"]:
        """What a search for ten reads: all vectors, short codes of the nearest lists, or their vectors."""
        lists = self._lists
        if not lists.is_trained:
            return "all"
        _, again = self._reach.look(DEPTHS[0], 1.0, lists.rows / lists.lists)
        return "codes" if again and lists.codes is not None else "vectors"

    @property
    def is_building(self) -> bool:
        """Whether lists are being made."""
        return self._task.running and self._wants_rebuild()

    @property
    def standing(self) -> tuple[int, bool]:
        """For how many vectors lists were made (0: there are none), and whether their reach was learnt."""
        lists, trained = self._lists, self._trained_rows
        first = first_reach(lists.lists, codes=lists.codes is not None)
        return trained, bool(trained) and self._reach != first

    # -- changes ----------------------------------------------------------------------------------
    def add(self, rids: Rids, vectors: Rows) -> None:
        """Add vectors of norm 1, shape (m, dimensions); a rid that has one gets the new one.

        Raises:
            InvalidVectorError: wrong shape, not finite, or not of norm 1. Nothing is added then.
        """
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape != (len(rids), self.dimensions):
            raise InvalidVectorError(f"vectors must have shape ({len(rids)}, {self.dimensions})")
        norms = np.einsum("ij,ij->i", rows, rows)
        if not np.all(np.abs(norms - 1.0) < 2 * NORM_TOLERANCE):  # false for NaN as well
            raise InvalidVectorError("vectors must be finite and of norm 1")
        if len(np.unique(rids)) != len(rids) or (len(rids) and int(rids.min()) < 0):
            raise ValueError("rids must be distinct and not negative")
        if len(rids):
            self._change(("add", np.asarray(rids, dtype=np.int64), rows))

    def move(self, old: Rids, new: Rids) -> None:
        """Give the vectors of ``old`` to ``new``, pair by pair; pairs whose old has none are left out."""
        self._change(("move", np.asarray(old, dtype=np.int64), np.asarray(new, dtype=np.int64)))

    def remove(self, rids: Rids) -> None:
        """Forget the vectors of ``rids``; unknown ones are passed over."""
        self._change(("remove", np.asarray(rids, dtype=np.int64), None))

    def _change(self, change: _Change) -> None:
        threads = 1 if len(change[1]) <= FEW_ROWS else faiss.omp_get_max_threads()
        with self._lock.write, at_most(threads):
            _apply(self._lists, change)
            if self._journal is not None:
                self._journal.append(change)

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenVectors:
        """The lane as it is now; copies the ids alone."""
        with self._lock.write:
            lists = self._lists
            return FrozenVectors(
                self.dimensions,
                self._trained_rows,
                self._reach,
                lists.centroids if lists.is_trained else None,
                lists.freeze(),
                self._lock,
            )

    def restore(self, source: BlockReader, rows: int) -> None:
        """Fill an empty lane with what ``FrozenVectors.dump`` wrote, of a namespace of ``rows`` rows.

        Raises:
            IntegrityError: it is of another form.
        """
        made, trained, reach = read_vectors(source, self.dimensions, rows)
        with self._lock.write:
            self._lists = made
            self._trained_rows = trained if made.is_trained else 0
            self._even = made.imbalance()
            self._reach = reach
            self._samples = Samples(reach)
            self._sample_at_s = time.monotonic() + SAMPLE_INTERVAL_S

    # -- searching --------------------------------------------------------------------------------
    def search(
        self, query: Rows, k: int, allowed: Rids | NDArray[np.bool_] | None = None
    ) -> tuple[Rids, Rows]:
        """The ``k`` nearest: (rids, cosines), best first, equal cosines with the newer rid first.

        Never fewer than min(k, allowed rows that have a vector).

        Args:
            query: float32 of norm 1, shape (dimensions,).
            allowed: sorted rids, or a mask by rid; None: all.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        query = self._checked(query)
        self.tend()
        with self._lock.read, one_thread():
            lists = self._lists
            if lists.is_trained:  # filtered ones too: where a question lies has nothing to do with its filter
                self._questions.append(query)
            if k <= 0 or not lists.rows:
                return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
            if allowed is None:
                return self._found(lists, query, k, lists.rows, None)
            is_mask = allowed.dtype == np.bool_
            size = int(np.count_nonzero(allowed)) if is_mask else len(allowed)
            if size <= NARROW_ROWS:
                rids = np.flatnonzero(allowed) if is_mask else allowed.astype(np.int64, copy=False)
                return self._among(lists, query, k, rids[lists.has(rids)])
            mask = allowed if is_mask else _mask(allowed.astype(np.int64, copy=False))
            return self._found(lists, query, k, size, np.packbits(mask, bitorder="little"))

    @staticmethod
    def _among(lists: InvertedLists, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
        """The best of few rows, exactly."""
        fetch = min(k + TIES_ROWS, len(rids))
        while len(rids) > TINY_ROWS and fetch < len(rids) // 4:
            found, scores = lists.search_among(query, fetch, rids)
            if scores[k - 1] != scores[-1]:
                return best(lists.scores(query, found), found, k)
            fetch *= 4
        return best(lists.scores(query, rids), rids, k)

    def _found(
        self, lists: InvertedLists, query: Rows, k: int, size: int, bitmap: NDArray[np.uint8] | None
    ) -> tuple[Rids, Rows]:
        """``size``: how many rows are allowed, more or less."""
        probes = lists.lists
        if lists.is_trained and k * 8 < size:
            share = min(1.0, size / lists.rows)
            probes, again = self._reach.look(k, share, lists.rows / lists.lists)
            if again and lists.codes is not None:
                found = self._sketched(lists, query, k, (probes, again), bitmap)
                if found is not None:
                    return found
        fetch = min(k + TIES_ROWS, lists.rows)
        while True:
            rids, scores = lists.search(query, fetch, probes, bitmap)
            if len(rids) < k and probes < lists.lists:
                probes *= 4
            elif fetch == len(rids) < lists.rows and scores[k - 1] == scores[-1]:
                fetch = min(fetch * 4, lists.rows)
            else:
                return best(lists.scores(query, rids), rids, k)

    @staticmethod
    def _sketched(
        lists: InvertedLists, query: Rows, k: int, look: tuple[int, int], bitmap: NDArray[np.uint8] | None
    ) -> tuple[Rids, Rows] | None:
        """The best of the rows that come first by their short codes.

        None: there are too few in those lists, or the cut may go through equal rows.
        """
        probes, again = look
        again = max(again, k + TIES_ROWS)
        rids, near = lists.sketch(query, again, probes, bitmap)
        if len(rids) < k:
            return None
        found, scores = lists.search_among(query, min(k + TIES_ROWS, len(rids)), rids)
        last = scores[k - 1]
        if len(found) < len(rids) and last == scores[-1]:
            return None
        if len(rids) == again and _meet(found[scores == last], rids[near == near[-1]]):
            return None  # equal rows have equal codes: some of the last ones may be missing
        return best(lists.scores(query, found), found, k)

    def _checked(self, query: Rows) -> Rows:
        if query.shape != (self.dimensions,):
            raise InvalidVectorError(
                f"the query vector has {query.size} components, expected {self.dimensions}"
            )
        return np.ascontiguousarray(query, dtype=np.float32)

    def similarity(self, query: Rows, rids: Rids) -> Rows:
        """The cosine of each rid, shape (len(rids),); NaN where there is no vector.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        query = self._checked(query)
        rids = np.asarray(rids, dtype=np.int64)
        out = np.full(len(rids), np.nan, dtype=np.float32)
        with self._lock.read, one_thread():
            have = np.flatnonzero(self._lists.has(rids))
            for start in range(0, len(have), PIECE_ROWS):
                part = have[start : start + PIECE_ROWS]
                out[part] = self._lists.scores(query, rids[part])
        return out

    def every_similarity(self, query: Rows) -> NDArray[np.float64]:
        """The cosine of every rid from 0 on, NaN where there is no vector; later rids are left out.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        query = self._checked(query)
        with self._lock.read, one_thread():
            return self._lists.everything(query)

    def vectors(self, rids: Rids) -> Rows:
        """A copy of the vectors of ``rids``, shape (len(rids), dimensions); NaN rows where there is none."""
        rids = np.asarray(rids, dtype=np.int64)
        out = np.full((len(rids), self.dimensions), np.nan, dtype=np.float32)
        with self._lock.read, one_thread():
            have = self._lists.has(rids)
            out[have] = self._lists.gather(rids[have])
        return out

    # -- upkeep -----------------------------------------------------------------------------------
    def tend(self) -> None:
        """Start what is due: lists, or a look at how well they answer. Every search does so.

        Adding alone does not: a bulk load trains once, when its first question comes.
        """
        if self._wants_rebuild():
            self._task.start(self._rebuild)
        elif self._lists.is_trained and self._questions and time.monotonic() >= self._sample_at_s:
            self._task.start(self._sample)

    def _wants_rebuild(self) -> bool:
        lists = self._lists
        rows = lists.rows
        if rows < self._retry_above:
            return False
        if not lists.is_trained:
            return rows > self._exact_rows_max
        trained = self._trained_rows
        if rows >= 2 * trained or rows < SHRUNK_SHARE * trained:
            return True
        if rows >= FINER_GROWTH * trained and list_count(rows) > lists.lists:
            return True
        return rows > UNEVEN_GROWTH * trained and lists.imbalance() > UNEVEN_FACTOR * self._even

    def _rebuild(self) -> None:
        """Build lists beside the present ones, catch up, and switch."""
        while self._wants_rebuild() and not self._task.stopping:
            old = self._lists
            try:
                with at_most(len(os.sched_getaffinity(0)) // 2):  # the other half is for searches
                    done = self._rebuild_from(old)
            except (MemoryError, RuntimeError) as e:  # FAISS reports every failure as RuntimeError
                self._retry_above = int(old.rows * RETRY_GROWTH) + 1
                name = type(e).__name__
                _log.warning("vector lists could not be built (%s); the search goes on as before", name)
                return
            finally:
                self._journal = None
            if not done:  # too few vectors for lists, or closed
                self._retry_above = int(old.rows * RETRY_GROWTH) + 1
                return
        give_back()

    def _rebuild_from(self, old: InvertedLists) -> bool:
        """Make lists of what ``old`` holds and take them into use; False when there are none to be made."""
        with self._lock.write:
            self._journal = []
            rows = old.rows
        made = self._build(old) if rows > self._exact_rows_max else plain_lists(old, self._lock, self._task)
        if made is None:
            return False
        reach = first_reach(made.lists, codes=made.codes is not None)
        samples = Samples(reach)
        if made.is_trained:
            questions = self._asked(made)
            real = min(len(self._questions), PRETENDED) >= PRETENDED
            samples.add(*self._seen(made, questions, shared=False), pretended=not real)
            reach = samples.reach(made.lists, made.rows, samples.reach(made.lists, made.rows, reach))
        while not self._task.stopping:
            with self._lock.write:
                taken, self._journal = self._journal or [], []
                if sum(len(rids) for _, rids, _ in taken) <= JOURNAL_INLINE:
                    for change in taken:
                        _apply(made, change)
                    self._lists, self._reach, self._samples = made, reach, samples
                    self._trained_rows = rows if made.is_trained else 0
                    self._even = made.imbalance()
                    self._sample_at_s = time.monotonic() + SAMPLE_INTERVAL_S / EARLY
                    return True
            for change in taken:
                _apply(made, change)
        return False

    def _build(self, old: InvertedLists) -> InvertedLists | None:
        return trained_lists(old, self._lock, self._task)

    # -- how well it answers ------------------------------------------------------------------------
    def _asked(self, lists: InvertedLists) -> Rows:
        """The newest questions, and made-up ones when they are few."""
        asked = self._some_questions(PRETENDED)
        missing = PRETENDED - len(asked)
        if not missing:
            return np.stack(asked)
        rids = np.random.default_rng(_SEED).choice(np.flatnonzero(lists.places >= 0), size=4 * PRETENDED)
        pretended = between(lists.gather(rids), missing, _SEED)
        return np.concatenate([np.stack(asked), pretended]) if asked else pretended

    def _some_questions(self, count: int) -> list[Rows]:
        """At most so many of the newest questions, drawn by lot: those of one moment are often alike."""
        asked = list(self._questions)
        return self._lot.sample(asked, min(count, len(asked)))

    def _seen(self, lists: InvertedLists, questions: Rows, *, shared: bool) -> tuple[Rids, _Marks | None]:
        """Where the true neighbours of each question lie: ranks of their lists, and marks (``Samples``)."""
        depth = min(DEPTHS[-1], lists.rows)
        truth = Truth(questions, depth)
        for numbers in lists.groups(PIECE_ROWS):
            if self._task.stopping:
                break
            with self._lock.read if shared else nullcontext():
                truth.take(*lists.best_in(numbers, questions, depth))
        ranks = truth.ranks(lists)
        if lists.codes is None or not ranks.shape[1]:
            return ranks, None
        marks = np.empty_like(ranks)
        probes = int(SCAN_ROWS * lists.lists / max(1, lists.rows)) + 1
        for number, question in enumerate(questions):
            with self._lock.read if shared else nullcontext():
                found, _ = lists.sketch(question, MARKS_MAX, probes, None)
            marks[number] = truth.marks(number, found)
        marks[(marks == FAR) & (ranks >= probes)] = 0  # not looked for: the lists alone decide
        return ranks, marks

    def _sample(self) -> None:
        """Look up the truth of some new questions, and probe as many lists as it takes."""
        started = time.monotonic()
        self._sample_at_s = started + SAMPLE_INTERVAL_S  # also when this one fails
        lists = self._lists
        asked = self._some_questions(SAMPLE_QUESTIONS)
        self._questions.clear()
        with one_thread():
            ranks, marks = self._seen(lists, np.stack(asked), shared=True)
        if ranks.shape[1] and lists is self._lists and not self._task.stopping:
            self._samples.add(ranks, marks)
            self._reach = self._samples.reach(lists.lists, lists.rows, self._reach)
        took = time.monotonic() - started
        pause_s = max(SAMPLE_INTERVAL_S, SAMPLE_DUTY * took)
        self._sample_at_s = time.monotonic() + (pause_s if self._samples.are_complete else pause_s / EARLY)

    def wait_built(self, timeout_s: float | None = None) -> bool:
        """Wait for a build that runs; False when the time was up."""
        return self._task.wait(timeout_s)

    def close(self) -> None:
        """Stop building; searches still work."""
        self._task.close()

    def memory_bytes(self) -> int:
        """Bytes of the vectors and tables."""
        return self._lists.memory_bytes()


def _apply(lists: InvertedLists, change: _Change) -> None:
    """Make a change; one that is made a second time changes nothing."""
    kind, rids, given = change
    if kind == "remove":
        lists.remove(rids)
    elif given is not None and kind == "move":
        lists.move(rids, given.astype(np.int64, copy=False))
    elif given is not None:
        lists.add(rids, given.astype(np.float32, copy=False))


def _meet(some: Rids, others: Rids) -> bool:
    return not set(some.tolist()).isdisjoint(others.tolist())


def _mask(rids: Rids) -> NDArray[np.bool_]:
    mask = np.zeros(int(rids.max(initial=-1)) + 1, dtype=np.bool_)
    mask[rids] = True
    return mask
