"""Vectors as 16-bit floats in lists, each under its rid: the one copy of them that is in memory.

Without centroids the lists are mere pieces and every search looks at all of them: it is exact. With
centroids (k-means) a search looks at the lists nearest to the question. Either way a score is the inner
product of the 32-bit question with the 16-bit row, summed in 32 bits: for vectors of norm 1 it is within
2**-11 of the cosine of the vector that was given, in practice within 2e-5.

``places`` (FAISS's direct map) says for each rid ``list << 32 | offset``, -1: no vector. A row that is
removed is overwritten by the last one of its list at once, so there are no dead rows.

Beside the rows there may be short codes (``_codes``), entry by entry in step with them. They only say which
rows to look at: every score is of the 16-bit row.

Not thread-safe: the lane above holds its lock. Memory: 2 * dimensions + 8 bytes a row in the lists, 8 bytes
a rid for its place, dimensions / 4 + 8 bytes a row for short codes; lists grow by doubling, so that some
address space stays unused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import lru_cache
from threading import Event, Semaphore, Thread

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InternalError
from strongroom.recall._allocator import give_back_behind
from strongroom.recall._codes import ShortCodes, clear, have_codes
from strongroom.recall._faiss import faiss, nearest
from strongroom.recall._frozen_lists import FrozenLists
from strongroom.recall._ids import ROWS_MIN

PLAIN_LISTS = 8  # without centroids
PLAIN_RUN = 1_024  # rows that go into one of them before the next one's turn
TRAIN_PER_LIST = 40  # vectors that k-means sees for each list
TRAIN_ROUNDS = 8
AHEAD_ROWS_MIN = 50_000  # of a snapshot: from here on memory is taken by another thread
PIECE_ROWS = 8_192  # rows that are decoded in one go
_SEED = 0x5EED

Rids = NDArray[np.int64]
Rows = NDArray[np.float32]
Codes = NDArray[np.uint16]


def list_count(rows: int) -> int:
    """How many lists ``rows`` vectors get: the power of two nearest to 4 * sqrt(rows), 16 to 4096."""
    wanted = 4.0 * max(rows, 16) ** 0.5
    return int(min(4096, 2 ** round(float(np.log2(wanted)))))


def decoded(codes: Codes) -> Rows:
    """The vectors behind codes of shape (n, dimensions)."""
    return codes.view(np.float16).astype(np.float32)


class _Quantizers:
    """What says which lists are near; ``many``: to many rows at a time; ``one``: to one question, from half
    the bytes. Nobody changes them."""

    def __init__(self, centroids: Rows) -> None:
        self.centroids: Rows = np.ascontiguousarray(centroids).astype(np.float16).astype(np.float32)
        dimensions = self.centroids.shape[1]
        self.many = faiss.IndexFlatIP(dimensions)
        self.one = faiss.IndexScalarQuantizer(
            dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self.many.add(self.centroids)
        self.one.add(self.centroids)


@lru_cache(maxsize=64)
def _plain(dimensions: int, lists: int) -> _Quantizers:
    """Those of lists without centroids: all namespaces share them."""
    made = _Quantizers(np.zeros((lists, dimensions), np.float32))
    made.centroids.flags.writeable = False
    return made


class InvertedLists:
    """Vectors under their rids.

    Args:
        dimensions: length of every vector.
        centroids: shape (lists, dimensions), of norm 1, kept as 16-bit floats; None: ``PLAIN_LISTS`` lists
            without.
    """

    def __init__(self, dimensions: int, centroids: Rows | None = None, *, plain: int = PLAIN_LISTS) -> None:
        self.dimensions = dimensions
        self.is_trained = centroids is not None
        self.lists = plain if centroids is None else len(centroids)
        self.sizes = np.zeros(self.lists, dtype=np.int64)
        self._room = np.zeros(self.lists, dtype=np.int64)  # rows that a list is known to have memory for
        quantizers = _plain(dimensions, plain) if centroids is None else _Quantizers(centroids)
        self.centroids: Rows = quantizers.centroids
        self._assigner, self._quantizer = quantizers.many, quantizers.one
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer,
            dimensions,
            self.lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        self._index.is_trained = True
        self._kept = faiss.downcast_InvertedLists(self._index.invlists)
        self._map = self._index.direct_map
        self._map.type = faiss.DirectMap.Array
        self.places: Rids = np.empty(0, dtype=np.int64)  # a view of FAISS's memory
        self._added = 0
        self._frozen: list[FrozenLists] = []
        self.codes: ShortCodes | None = None

    @classmethod
    def trained(cls, sample: Rows, lists: int) -> InvertedLists:
        """Lists with centroids by k-means over ``sample``, at least as many rows as lists."""
        means = faiss.Kmeans(
            sample.shape[1],
            lists,
            niter=TRAIN_ROUNDS,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=TRAIN_PER_LIST,
            seed=_SEED,
        )
        means.train(sample)
        return cls(sample.shape[1], means.centroids)

    @property
    def rows(self) -> int:
        return int(self.sizes.sum())

    # -- changes ------------------------------------------------------------------------------------
    def assign(self, rows: Rows) -> Rids:
        """The list that each row belongs to."""
        if not self.is_trained:
            numbers = self._added + np.arange(len(rows), dtype=np.int64)
            return numbers // PLAIN_RUN % self.lists
        chosen: Rids = self._assigner.search(rows, 1)[1][:, 0]
        return chosen

    def add(
        self, rids: Rids, rows: Rows, lists: Rids | None = None, flat: NDArray[np.uint8] | None = None
    ) -> None:
        """Add ``rows`` under distinct ``rids``; one that has a vector gets the new one.

        ``lists``: where they belong; ``flat``: their short codes; when that is known.
        """
        if not len(rids):
            return
        self.remove(rids)
        self._reserve(int(rids.max()) + 1)
        lists = self.assign(rows) if lists is None else lists
        order = np.argsort(lists, kind="stable")
        ordered = lists[order]
        rank = np.empty(len(lists), dtype=np.int64)
        rank[order] = np.arange(len(lists)) - np.searchsorted(ordered, ordered)
        given = (np.ascontiguousarray(rows), np.ascontiguousarray(rids), np.ascontiguousarray(lists))
        self._map.type = faiss.DirectMap.NoMap  # FAISS refuses ids of ours beside its own map
        try:
            self._index.add_core(len(rids), *map(faiss.swig_ptr, given), None)
        except BaseException:
            for number in np.unique(lists).tolist():  # what some of them may have got
                self._kept.resize(number, int(self.sizes[number]))
            raise
        finally:
            self._map.type = faiss.DirectMap.Array
        self.places[rids] = lists << 32 | self.sizes[lists] + rank
        if self.codes is not None:
            self._encode(self.codes, order, ordered, given, flat)
        self.sizes += np.bincount(lists, minlength=self.lists)
        self._added += len(rids)
        self._give_back(lists)

    def _give_back(self, lists: Rids) -> None:
        """Let the system have what lists that grew do not use yet: one that is full gets twice its memory."""
        width = 2 * self.dimensions
        for number in np.unique(lists[self.sizes[lists] > self._room[lists]]).tolist():
            used = int(self.sizes[number]) * width
            self._room[number] = give_back_behind(int(self._kept.get_codes(number)), used) // width

    def _encode(
        self,
        codes: ShortCodes,
        order: Rids,
        ordered: Rids,
        given: tuple[Rows, Rids, Rids],
        flat: NDArray[np.uint8] | None,
    ) -> None:
        """Codes of rows that were added; ``order`` sorts them by their lists, which ``ordered`` is."""
        if flat is None:
            flat = codes.of(self.gather(given[1]))  # as they are kept: equal rows must have equal codes
        flat = flat[order]
        rids = given[1][order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            number = int(ordered[start])
            codes.append(number, int(self.sizes[number]), rids[start:end], flat[start:end])

    def give_codes(self, sample: Rows) -> None:
        """Have short codes from now on, by what k-means finds in ``sample``, if they can; while empty."""
        if have_codes(self.dimensions):
            self.codes = ShortCodes(self._quantizer, ShortCodes.trained(sample), self.lists)

    def _reserve(self, rids: int) -> None:
        have = len(self.places)
        if rids > have:
            size = max(rids, have + have // 2, ROWS_MIN)
            self._map.array.resize(size)
            self.places = faiss.rev_swig_ptr(self._map.array.data(), size)
            self.places[have:] = -1

    def presize(self, numbers: Rids, counts: Rids) -> None:
        """Have those of the lists that are empty take exactly the memory for their number of rows."""
        for number in numbers[self.sizes[numbers] == 0].tolist():
            self._kept.resize(number, int(counts[number]))
            self._kept.resize(number, 0)

    def has(self, rids: Rids) -> NDArray[np.bool_]:
        """Whether each rid has a vector."""
        out = (rids >= 0) & (rids < len(self.places))
        out[out] = self.places[rids[out]] >= 0
        return out

    def remove(self, rids: Rids) -> None:
        """Forget the vectors of ``rids``; unknown ones are passed over."""
        rids = np.unique(rids[self.has(rids)])
        if not len(rids):
            return
        places = np.sort(self.places[rids])
        self.places[rids] = -1
        lists = places >> 32
        starts = np.flatnonzero(np.diff(lists, prepend=-1))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(lists)], strict=True):
            self._cut(int(lists[start]), places[start:end] & 0xFFFFFFFF)

    def _cut(self, number: int, offsets: Rids) -> None:
        """Take entries (ascending) out of a list; the last ones fill the holes."""
        self._preserve(number)
        size = int(self.sizes[number])
        left = size - len(offsets)
        holes = offsets[offsets < left]
        stays = np.ones(size - left, dtype=np.bool_)
        stays[offsets[offsets >= left] - left] = False
        movers = left + np.flatnonzero(stays)
        if self.codes is not None:
            self.codes.cut(number, size, holes, movers, left)
        if len(holes):
            ids, codes = self._views(number, size)
            ids[holes], codes[holes] = ids[movers], codes[movers]
            self.places[ids[holes]] = number << 32 | holes
        self._kept.resize(number, left)
        self.sizes[number] = left

    def move(self, old: Rids, new: Rids) -> None:
        """Give the vectors of ``old`` to ``new``, pair by pair; pairs whose old has none are left out."""
        have = self.has(old)
        old, new = old[have], new[have]
        if not len(old):
            return
        self.remove(new)
        self._reserve(int(new.max()) + 1)
        places = self.places[old]
        self.places[old] = -1
        self.places[new] = places
        lists = places >> 32
        for number in np.unique(lists).tolist():
            self._preserve(number)
            mine = lists == number
            size, entries = int(self.sizes[number]), places[mine] & 0xFFFFFFFF
            self._views(number, size)[0][entries] = new[mine]
            if self.codes is not None:
                self.codes.ids(number, size)[entries] = new[mine]

    def _views(self, number: int, size: int) -> tuple[Rids, Codes]:
        """Ids and codes of the first ``size`` entries of a list, as they lie in FAISS's memory."""
        if not size:
            return np.empty(0, np.int64), np.empty((0, self.dimensions), np.uint16)
        ids = faiss.rev_swig_ptr(self._kept.get_ids(number), size)
        codes = faiss.rev_swig_ptr(self._kept.get_codes(number), size * 2 * self.dimensions)
        return ids, codes.view(np.uint16).reshape(size, self.dimensions)

    # -- looking ------------------------------------------------------------------------------------
    def search(self, query: Rows, k: int, probes: int, bitmap: NDArray[np.uint8] | None) -> tuple[Rids, Rows]:
        """At most ``k`` (rids, scores), best first, out of the ``probes`` nearest lists.

        ``bitmap``: bit r of the packed bits set, rid r allowed; None: all.
        """
        probes = min(probes, self.lists) if self.is_trained else self.lists
        return nearest(self._index, query, k, probes, bitmap)

    def search_among(self, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
        """The best ``k`` of ``rids``, all of which have a vector: every list that holds one is looked at."""
        held = np.zeros(self.lists, dtype=np.bool_)
        held[self.places[rids] >> 32] = True
        (numbers,) = held.nonzero()  # np.unique of a thousand takes ten times as long
        bitmap = np.zeros((int(rids.max()) >> 3) + 1, dtype=np.uint8)
        np.bitwise_or.at(bitmap, rids >> 3, np.left_shift(1, rids & 7).astype(np.uint8))
        selector = faiss.IDSelectorBitmap(bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=len(numbers), sel=selector)
        centroid_scores = np.zeros(len(numbers), dtype=np.float32)
        scores, found = np.empty(k, dtype=np.float32), np.empty(k, dtype=np.int64)
        given = map(faiss.swig_ptr, (numbers, centroid_scores, scores, found))
        self._index.search_preassigned_c(1, faiss.swig_ptr(query), k, *given, False, parameters)
        have = found >= 0
        return found[have], scores[have]

    def sketch(self, query: Rows, k: int, probes: int, bitmap: NDArray[np.uint8] | None) -> tuple[Rids, Rows]:
        """As ``search``, by the short codes, which there must be: the scores are no more than near."""
        if self.codes is None:
            raise InternalError("these lists have no short codes")
        return self.codes.search(query, k, min(probes, self.lists), bitmap)

    def best_in(self, numbers: Rids, queries: Rows, k: int) -> tuple[Rows, Rids, Rids]:
        """The best ``k`` of some lists for each query: scores, rids (-1: there are fewer), and lists.

        All of shape (queries, k).
        """
        asked = np.ascontiguousarray(np.broadcast_to(numbers, (len(queries), len(numbers))), dtype=np.int64)
        centroid_scores = np.zeros(asked.shape, dtype=np.float32)
        scores = np.empty((len(queries), k), dtype=np.float32)
        found = np.empty((len(queries), k), dtype=np.int64)
        parameters = faiss.SearchParametersIVF(nprobe=len(numbers))
        given = map(faiss.swig_ptr, (asked, centroid_scores, scores, found))
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        self._index.search_preassigned_c(len(rows), faiss.swig_ptr(rows), k, *given, False, parameters)
        return scores, found, np.where(found >= 0, self.places[found] >> 32, -1)

    def groups(self, rows: int) -> list[Rids]:
        """All lists that hold something, in groups of about so many rows."""
        held = np.flatnonzero(self.sizes)
        if not len(held):
            return []
        ends = np.cumsum(self.sizes[held])
        return np.split(held, np.flatnonzero(np.diff(ends // rows)) + 1)

    def everything(self, query: Rows) -> NDArray[np.float64]:
        """The score of every rid below ``len(places)``, NaN where it has no vector."""
        out = np.full(len(self.places), np.nan)
        _, scores, rids = self._index.range_search(
            query.reshape(1, -1), -4.0, params=faiss.SearchParametersIVF(nprobe=self.lists)
        )
        out[rids] = scores
        return out

    def gather(self, rids: Rids) -> Rows:
        """The vectors of ``rids``, all of which have one; shape (len(rids), dimensions)."""
        if not len(rids):
            return np.empty((0, self.dimensions), np.float32)
        rows: Rows = self._index.reconstruct_batch(np.ascontiguousarray(rids))
        return rows

    def scores(self, query: Rows, rids: Rids) -> Rows:
        """The score of each of ``rids``, all of which have a vector; the same bits whoever asks."""
        rows = self.gather(rids)
        out = np.empty(len(rids), dtype=np.float32)
        if len(rids):
            pointers = map(faiss.swig_ptr, (out, query, rows))
            faiss.fvec_inner_products_ny(*pointers, self.dimensions, len(rids))
        return out

    def copy(self, number: int, start: int = 0, count: int | None = None) -> tuple[Rids, Codes]:
        """Copies of the ids and codes of a list, or of ``count`` of them."""
        ids, codes = self._views(number, int(self.sizes[number]))
        part = slice(start, None if count is None else start + count)
        return ids[part].copy(), codes[part].copy()

    def last_ids(self, number: int, count: int) -> Rids:
        """The rids of the last entries of a list."""
        return self._views(number, int(self.sizes[number]))[0][-count:].copy()

    def memory_of(self, number: int, held: int) -> tuple[Rids, Codes]:
        """Ids and codes as they lie in memory, with what lies behind the last; it was once ``held`` long."""
        return self._views(number, held)

    def nearest(self, queries: Rows) -> Rids:
        """Ranks of the lists as each query probes them, 0 the first; shape (queries, lists)."""
        order = np.argsort(-(queries @ self.centroids.T), axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(self.lists)[None, :], axis=1)
        return ranks

    # -- snapshots ----------------------------------------------------------------------------------
    def freeze(self) -> FrozenLists:
        """The lists as they are now. Close it: until then a list that changes is copied first."""
        ids = [self._views(number, size)[0] for number, size in enumerate(self.sizes.tolist())]
        made = FrozenLists(self, self.sizes.copy(), np.concatenate(ids) if ids else np.empty(0, np.int64))
        self._frozen.append(made)
        return made

    @property
    def is_frozen(self) -> bool:
        """Whether somebody still needs them as they were at some moment."""
        return bool(self._frozen)

    def thaw(self, frozen: FrozenLists) -> None:
        """Nobody needs this any more."""
        self._frozen = [other for other in self._frozen if other is not frozen]

    def _preserve(self, number: int) -> None:
        for frozen in self._frozen:
            frozen.preserve(number)

    def first(self, number: int, size: int) -> Codes:
        """A copy of the first ``size`` codes of a list."""
        return self._views(number, size)[1].copy()

    def first_blocks(self, number: int, size: int) -> NDArray[np.uint8] | None:
        """A copy of the blocks of the first ``size`` short codes of a list; None: there are none."""
        if self.codes is None:
            return None
        blocks = self.codes.blocks(number, size).copy()
        clear(blocks, size)
        return blocks

    def restored_codes(self, values: Rows, sizes: Rids, ids: Rids) -> Iterator[NDArray[np.uint8]]:
        """Have short codes again: yields the memory of each list in turn, to be filled with its blocks."""
        made = ShortCodes(self._quantizer, values, self.lists)
        end = 0
        for number, size in enumerate(sizes.tolist()):
            made.resize(number, size)
            end += size
            made.ids(number, size)[:] = ids[end - size : end]
            yield made.blocks(number, size)
        self.codes = made

    def restored(self, sizes: Rids, ids: Rids) -> Generator[Codes, None, None]:
        """Become what was frozen: yields the memory of each list in turn, to be filled with its codes.

        Close it (``contextlib.closing``) when it is not used up.
        """
        self._reserve(int(ids.max(initial=-1)) + 1)
        ends = np.cumsum(sizes)
        with closing(self._resized(sizes.tolist())) as numbers:
            for number in numbers:
                size, end = int(sizes[number]), int(ends[number])
                mine, codes = self._views(number, size)
                mine[:] = ids[end - size : end]
                yield codes
                self.places[mine] = number << 32 | np.arange(size)
                self.sizes[number] = size
        self._added = self.rows

    def _resized(self, sizes: list[int]) -> Generator[int, None, None]:
        """The number of each list as soon as it has the memory for its rows.

        Of many rows another thread takes it, some lists ahead: to touch a page for the first time costs more
        than to read something into it, and FAISS does it without the interpreter's lock.
        """
        if sum(sizes) < AHEAD_ROWS_MIN:
            for number, size in enumerate(sizes):
                self._kept.resize(number, size)
                yield number
            return
        taken, stop, failed = Semaphore(0), Event(), []

        def take() -> None:
            try:
                for number, size in enumerate(sizes):
                    if stop.is_set():
                        return
                    self._kept.resize(number, size)
                    taken.release()
            except MemoryError as e:
                failed.append(e)
                taken.release()

        taker = Thread(target=take, name="strongroom-lists", daemon=True)
        taker.start()
        try:
            for number in range(len(sizes)):
                taken.acquire()
                if failed:
                    raise failed[0]
                yield number
        finally:
            stop.set()
            taker.join()

    def memory_bytes(self) -> int:
        """Bytes of codes, ids, places and centroids."""
        short = 0 if self.codes is None else self.codes.row_bytes
        row_bytes = 2 * self.dimensions + 8 + short
        shared = 0 if self.is_trained else self.centroids.nbytes  # by all lists without centroids
        return self.rows * row_bytes + self.places.nbytes + 5 * (self.centroids.nbytes - shared) // 2

    def imbalance(self) -> float:
        """How many times as many rows a probe meets as it would if all lists were alike."""
        rows = self.rows
        return float(self.lists * np.square(self.sizes, dtype=np.float64).sum() / rows**2) if rows else 1.0
