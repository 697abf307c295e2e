"""The vector lane: cosine search over the embeddings of one namespace.

Every vector is held once, as 16-bit floats (``_ivf``). While there are few, every search looks at all of
them; above ``exact_rows_max`` they lie in inverted lists. A search reads the short codes (``_codes``) of the
nearest lists and scores the rows that come first by them: as many lists and rows as finding 99 % of the true
ten takes, which is learnt from questions all the time (``_reach``). Where short codes do not pay it scores
all rows of the lists. The lists are made in the background when a search wants them, again when the number
of vectors has doubled or halved, and when new topics have made them uneven; searches and changes go on over
both: the vectors move from the lists before into the new ones, some thousand at a time.

Memory per million vectors of 384 dimensions: 0.89 GB, also while lists are made anew.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import replace
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidVectorError
from strongroom.recall._allocator import give_back
from strongroom.recall._allowed import Packed
from strongroom.recall._blocks import BlockReader
from strongroom.recall._faiss import at_most, faiss, one_thread
from strongroom.recall._frozen_lists import FrozenTogether
from strongroom.recall._ivf import PIECE_ROWS, PLAIN_LISTS, InvertedLists, Rids, Rows, list_count
from strongroom.recall._look import Proposed, among, look
from strongroom.recall._making import Move, Plan, plain_plan, trained_plan
from strongroom.recall._reach import (
    DEPTHS,
    FAR,
    MARKS_MAX,
    SCAN_ROWS,
    Reach,
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
RETRY_GROWTH = 1.25  # after a failed build: the growth before the next attempt
SHRUNK_SHARE = 0.5  # of the rows that were there at the last build: build again
FINER_GROWTH = 1.5  # ... when that makes more lists
UNEVEN_FACTOR = 1.6  # a probe meets so many times as many rows as after the last build: build again
UNEVEN_GROWTH = 1.1  # ... when so many rows have come since
PRETENDED = 48  # made-up questions, as long as there are too few real ones
FEW_ROWS = 256  # changes up to this size stay on one thread: a team of them costs more
QUESTIONS_MAX = 256  # that are remembered until their truth is looked up
SAMPLE_QUESTIONS = 8
SAMPLE_INTERVAL_S = 20.0
SAMPLE_DUTY = 200  # a sample is not taken more often than this many times as long as it took
EARLY = 10  # so many times sooner as long as fewer real questions were sampled than are kept

_log = logging.getLogger(__name__)
_SEED = 0x5EED
_LOT = Random()  # noqa: S311 - which questions are looked at is no secret
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
        self._move: Move | None = None  # the vectors that are still in other lists
        self._old_reach = first_reach(PLAIN_LISTS)  # ... and how far to look in those
        self._building = False
        self._packed = Packed()
        self._reach = first_reach(PLAIN_LISTS)
        self._samples = Samples(self._reach)
        self._questions: deque[Rows] = deque(maxlen=QUESTIONS_MAX)
        self._sample_at_s = 0.0

    def __len__(self) -> int:
        return sum(lists.rows for lists, _ in self._parts())

    def __contains__(self, rid: int) -> bool:
        with self._lock.read:
            return any(bool(lists.has(np.array([rid]))[0]) for lists, _ in self._parts())

    def _parts(self) -> list[tuple[InvertedLists, Reach]]:
        """All lists, and how far to look in them: the present ones, and those that vectors still leave."""
        mine = (self._lists, self._reach)
        move = self._move  # after the lists: whoever has no lock sees every vector, and none of them twice
        return [mine] if move is None or move.old is mine[0] else [mine, (move.old, self._old_reach)]

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
        return self._building or (self._task.running and self._wants_rebuild())

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
            kind, rids, given = change
            if kind == "add" and given is not None:
                if self._move is not None:
                    self._move.old.remove(rids)
                self._lists.add(rids, given.astype(np.float32, copy=False))
            elif kind == "move" and given is not None:
                self._hand_on(rids, given.astype(np.int64, copy=False))
            else:
                self._remove(rids)
            if self._move is not None:
                self._move.touched.append(rids)
                if kind == "move" and given is not None:
                    self._move.touched.append(given.astype(np.int64, copy=False))

    def _remove(self, rids: Rids) -> None:
        for lists, _ in self._parts():
            lists.remove(rids)

    def _hand_on(self, old: Rids, new: Rids) -> None:
        parts = [lists for lists, _ in self._parts()]
        for lists, have in [(lists, lists.has(old)) for lists in parts]:
            for other in parts:
                if other is not lists:
                    other.remove(new[have])
            lists.move(old[have], new[have])

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenVectors:
        """The lane as it is now; copies the ids alone."""
        with self._lock.write:
            lists, move = self._lists, self._move
            if move is not None:  # whoever reads them makes lists anew
                both = FrozenTogether([move.old.freeze(), lists.freeze()])
                return FrozenVectors(self.dimensions, 0, self._reach, None, both, self._lock)
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
        self,
        query: Rows,
        k: int,
        allowed: Rids | NDArray[np.bool_] | None = None,
        proposed: Proposed | None = None,
    ) -> tuple[Rids, Rows]:
        """The ``k`` nearest: (rids, cosines), best first, equal cosines with the newer rid first.

        Never fewer than min(k, allowed rows that have a vector).

        Args:
            query: float32 of norm 1, shape (dimensions,).
            allowed: sorted rids, or a mask by rid; None: all.
            proposed: what another lane proposes, inside ``allowed``; where lists are searched by short codes.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        query = self._checked(query)
        self.tend()
        with self._lock.read, one_thread():
            parts = [(lists, reach, rows) for lists, reach in self._parts() if (rows := lists.rows)]
            if self._lists.is_trained:  # filtered ones too: where a question lies has nothing to do with that
                self._questions.append(query)
            if proposed is not None and len(parts) > 1:
                proposed = replace(proposed, is_compared=True)
            if k <= 0 or not parts:
                return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
            if allowed is None:
                found = [look(each, reach, query, k, rows, None, proposed) for each, reach, rows in parts]
                return _best_of(found, k)
            size, bits = self._packed.of(allowed, NARROW_ROWS)
            if bits is None:
                is_mask = allowed.dtype == np.bool_
                rids = np.flatnonzero(allowed) if is_mask else allowed.astype(np.int64, copy=False)
                return _best_of([among(lists, query, k, rids[lists.has(rids)]) for lists, _, _ in parts], k)
            every = sum(rows for _, _, rows in parts)
            found = [
                look(each, reach, query, k, size * rows // every, bits, proposed)
                for each, reach, rows in parts
            ]
            return _best_of(found, k)

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
            for lists, _ in self._parts():
                have = np.flatnonzero(lists.has(rids))
                for start in range(0, len(have), PIECE_ROWS):
                    part = have[start : start + PIECE_ROWS]
                    out[part] = lists.scores(query, rids[part])
        return out

    def every_similarity(self, query: Rows) -> NDArray[np.float64]:
        """The cosine of every rid from 0 on, NaN where there is no vector; later rids are left out.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        query = self._checked(query)
        with self._lock.read, one_thread():
            every = [lists.everything(query) for lists, _ in self._parts()]
        out = max(every, key=len)
        for one in every:
            np.copyto(out[: len(one)], one, where=~np.isnan(one))
        return out

    def vectors(self, rids: Rids) -> Rows:
        """A copy of the vectors of ``rids``, shape (len(rids), dimensions); NaN rows where there is none."""
        rids = np.asarray(rids, dtype=np.int64)
        out = np.full((len(rids), self.dimensions), np.nan, dtype=np.float32)
        with self._lock.read, one_thread():
            for lists, _ in self._parts():
                have = lists.has(rids)
                out[have] = lists.gather(rids[have])
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
        rows = len(self)
        if rows < self._retry_above:
            return False
        if self._move is not None:
            return True
        if not lists.is_trained:
            return rows > self._exact_rows_max
        trained = self._trained_rows
        if rows >= 2 * trained or rows < SHRUNK_SHARE * trained:
            return True
        if rows >= FINER_GROWTH * trained and list_count(rows) > lists.lists:
            return True
        return rows > UNEVEN_GROWTH * trained and lists.imbalance() > UNEVEN_FACTOR * self._even

    def _rebuild(self) -> None:
        """Make lists beside the present ones, and have the vectors move into them."""
        self._building = True
        try:
            while self._wants_rebuild() and not self._task.stopping:
                rows = len(self)
                try:
                    with at_most(len(os.sched_getaffinity(0)) // 2):  # the other half is for searches
                        done = self._rebuild_once()
                except (MemoryError, RuntimeError) as e:  # FAISS reports every failure as RuntimeError
                    self._retry_above = int(rows * RETRY_GROWTH) + 1
                    name = type(e).__name__
                    _log.warning("vector lists could not be built (%s); the search goes on as before", name)
                    return
                if not done:  # too few vectors for lists, or closed
                    self._retry_above = int(rows * RETRY_GROWTH) + 1
                    return
        finally:
            self._building = False
        give_back()

    def _rebuild_once(self) -> bool:
        """Make lists and fill them, or go on with it; False: there are none to be made, or it has to end."""
        rows = len(self)
        move = self._move
        if move is None:
            plan = self._build(self._lists) if rows > self._exact_rows_max else plain_plan(self._lists)
            if plan is None:
                return False
            move = Move(self._lists, plan)
            made = plan.lists
            with self._lock.write:
                self._move, self._old_reach = move, self._reach
                self._lists = made
                self._reach = first_reach(made.lists, codes=made.codes is not None)
        if not move.carry_out(self._lock, self._task):
            return False
        with self._lock.write:
            made = self._lists
            self._move = None
            self._trained_rows = rows if made.is_trained else 0
            self._even = made.imbalance()
            self._samples = Samples(self._reach)
            self._sample_at_s = time.monotonic() + SAMPLE_INTERVAL_S / EARLY
        if made.is_trained:
            self._pretend(made)
        return True

    def _build(self, old: InvertedLists) -> Plan | None:
        return trained_plan(old, self._lock, self._task)

    def _pretend(self, lists: InvertedLists) -> None:
        """Let made-up questions tell how far to look, as long as there are too few real ones."""
        real = len(self._questions) >= PRETENDED
        ranks, marks = self._seen(lists, self._asked(lists))
        if self._task.stopping or not ranks.shape[1]:
            return
        reach = self._reach
        self._samples.add(ranks, marks, pretended=not real)
        for _ in range(2):
            reach = self._samples.reach(lists.lists, lists.rows, reach)
        self._reach = reach

    # -- how well it answers ------------------------------------------------------------------------
    def _asked(self, lists: InvertedLists) -> Rows:
        """The newest questions, and made-up ones when they are few."""
        asked = self._some_questions(PRETENDED)
        missing = PRETENDED - len(asked)
        if not missing:
            return np.stack(asked)
        with self._lock.read:
            there = np.flatnonzero(lists.places >= 0)
            rids = np.random.default_rng(_SEED).choice(there, size=4 * PRETENDED if len(there) else 0)
            rows = lists.gather(rids)
        pretended = between(rows, missing, _SEED) if len(rows) else np.empty((0, self.dimensions), np.float32)
        return np.concatenate([np.stack(asked), pretended]) if asked else pretended

    def _some_questions(self, count: int) -> list[Rows]:
        """At most so many of the newest questions, drawn by lot: those of one moment are often alike."""
        asked = list(self._questions)
        return _LOT.sample(asked, min(count, len(asked)))

    def _seen(self, lists: InvertedLists, questions: Rows) -> tuple[Rids, _Marks | None]:
        """Where the true neighbours of each question lie: ranks of their lists, and marks (``Samples``)."""
        depth = min(DEPTHS[-1], lists.rows)
        truth = Truth(questions, depth)
        for numbers in lists.groups(PIECE_ROWS):
            if self._task.stopping:
                break
            with self._lock.read:
                truth.take(*lists.best_in(numbers, questions, depth))
        ranks = truth.ranks(lists)
        if lists.codes is None or not ranks.shape[1]:
            return ranks, None
        marks = np.empty_like(ranks)
        probes = int(SCAN_ROWS * lists.lists / max(1, lists.rows)) + 1
        for number, question in enumerate(questions):
            with self._lock.read:
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
            ranks, marks = self._seen(lists, np.stack(asked))
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
        return sum(lists.memory_bytes() for lists, _ in self._parts())


def _best_of(found: list[tuple[Rids, Rows]], k: int) -> tuple[Rids, Rows]:
    """The best of what was found in several lists, each with its best first."""
    if len(found) == 1:
        return found[0]
    return best(
        np.concatenate([scores for _, scores in found]), np.concatenate([rids for rids, _ in found]), k
    )
