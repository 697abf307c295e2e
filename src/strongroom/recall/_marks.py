"""What a large piece of an inverted file knows beside its postings, so that few of them have to be read.

Made from the postings and kept in memory alone. Of the rows: how many terms each has, in a byte. Of each term
with some postings: bits, several for each posting, so that most rows that do not hold it have none. Of every
term a list of its shortest rows, and the rows in which it stands more than once, with their counts, lengths,
and whether another term stands there more than once as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._threads import BackgroundTask

MARKED_MIN: Final = 2_000_000  # documents of a piece that is worth it
BITS_MIN: Final = 512  # postings of a term that has bits; of fewer each is looked up among them
BITS: Final = 6  # at least so many for each posting, less than twice that, and no more than rows
SHORT_MAX: Final = 0xFF  # terms that the byte of a row tells; 255: so many or more
SHORTEST_SHARE: Final = 32  # one row in so many is one of the shortest
STEP: Final = 1 << 22  # postings that are gone through in one go

COUNT_BITS: Final = 8  # where in a code the count begins
COUNTED_MAX: Final = 7  # the greatest count in a code: so often or more
OTHERS: Final = 0x80  # of a code: another term stands in the row more than once, too
LENGTH_MAX: Final = 0x7F  # the greatest length in a code: so many terms or more
CODES: Final = (COUNTED_MAX + 1) << COUNT_BITS

_ODD: Final = 2_654_435_761  # 2^32 times the golden section
_WORD: Final = 1 << 32
_BIT: Final = np.array([1, 2, 4, 8, 16, 32, 64, 128], dtype=np.uint8)


def _is_set(bits: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.bool_]:
    found = bits.take(at >> 3)
    found &= _BIT.take(at & 7)
    return found.astype(np.bool_)


def _second(rows: NDArray[np.intp], number: int) -> NDArray[np.intp]:
    """Of each row the place of its other bit among ``number``, a power of 2 (multiplicative hashing)."""
    return ((rows * _ODD) & 0xFFFFFFFF) // (_WORD // number)


@dataclass(frozen=True, slots=True, eq=False)
class TermMarks:
    """Of one term: bits (a Bloom filter of two bits a row, or a bit for each row), the rows that hold it and
    have at most ``short`` terms (``shortest``, ascending), and those that hold it more than once
    (``several``, ascending), with a code for each. ``lengths``: of every row from ``base`` on."""

    base: int
    lengths: NDArray[np.uint8]
    short: int
    bits: NDArray[np.uint8] | None
    shortest: NDArray[np.uint32]
    several: NDArray[np.uint32]
    codes: NDArray[np.uint16]

    def lengths_of(self, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        return self.lengths.take(at - self.base if self.base else at)

    def may_hold(self, at: NDArray[np.intp]) -> NDArray[np.bool_] | None:
        """False for rows that do not hold the term; None: there are no bits."""
        if self.bits is None:
            return None
        row = at - self.base if self.base else at
        number = len(self.bits) * 8
        if number >= len(self.lengths):
            return _is_set(self.bits, row)
        may = _is_set(self.bits, row & (number - 1))
        (which,) = may.nonzero()
        may[which] = _is_set(self.bits, _second(row.take(which), number))
        return may


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """A list of rows for each term."""

    starts: NDArray[np.int64]
    rids: NDArray[np.uint32]

    @classmethod
    def at(cls, places: NDArray[np.intp], offsets: NDArray[np.int64], rids: NDArray[np.uint32]) -> _Lists:
        """The postings at these places, ascending."""
        return cls(places.searchsorted(offsets), rids[places])

    def range(self, term: int) -> slice:
        return slice(int(self.starts[term]), int(self.starts[term + 1]))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    base: int
    lengths: NDArray[np.uint8]
    short: int
    bits: NDArray[np.uint8]
    bits_starts: NDArray[np.int64]  # by term, in bytes, and the end
    shortest: _Lists
    several: _Lists
    codes: NDArray[np.uint16]

    def of(self, term: int) -> TermMarks:
        """Of the term at this place."""
        bits = self.bits[self.bits_starts[term] : self.bits_starts[term + 1]]
        shortest, several = self.shortest.range(term), self.several.range(term)
        return TermMarks(
            self.base,
            self.lengths,
            self.short,
            bits if len(bits) else None,
            self.shortest.rids[shortest],
            self.several.rids[several],
            self.codes[several],
        )

    def memory_bytes(self) -> int:
        lists = sum(lists.starts.nbytes + lists.rids.nbytes for lists in (self.shortest, self.several))
        return self.lengths.nbytes + self.bits.nbytes + self.bits_starts.nbytes + lists + self.codes.nbytes


def marked(
    offsets: NDArray[np.int64],
    rids: NDArray[np.uint32],
    counts: NDArray[np.uint8],
    lengths: NDArray[np.uint16],
    task: BackgroundTask,
) -> Marks | None:
    """The marks of postings as a segment holds them, at least one; ``lengths`` by rid.

    None: ``task`` was told to stop.
    """
    base = int(rids.min()) // 8 * 8
    rows = int(rids.max()) + 1 - base
    near = lengths[base : base + rows]
    few = near <= (short := _short(near))
    shortest, several = [], []
    for at in range(0, len(counts), STEP):
        shortest.append(few[rids[at : at + STEP] - np.uint32(base)].nonzero()[0] + at)
        several.append((counts[at : at + STEP] > 1).nonzero()[0] + at)
        if task.stopping:
            return None
    bits = _bits(offsets, rids, base, rows, task)
    if bits is None:
        return None
    places = np.concatenate(several)
    lists = _Lists.at(places, offsets, rids)
    return Marks(
        base,
        np.minimum(near, SHORT_MAX).astype(np.uint8),
        short,
        *bits,
        _Lists.at(np.concatenate(shortest), offsets, rids),
        lists,
        _codes(lists.rids - np.uint32(base), counts[places], near),
    )


def _short(lengths: NDArray[np.uint16]) -> int:
    """The greatest length that, with all below, so few rows have that they are the shortest."""
    below = np.bincount(lengths).cumsum()
    return int(below.searchsorted(len(lengths) // SHORTEST_SHARE, side="right")) - 1


def _bits(
    offsets: NDArray[np.int64], rids: NDArray[np.uint32], base: int, rows: int, task: BackgroundTask
) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """The bits of all terms one after the other, and where each begins."""
    postings = np.diff(offsets)
    number = 1 << np.ceil(np.log2(postings * BITS)).astype(np.int64)
    size = np.where(postings < BITS_MIN, 0, np.minimum(number, rows) + 7 >> 3)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), size.cumsum()])
    bits = np.empty(int(starts[-1]), dtype=np.uint8)
    room = np.zeros((rows + 7) // 8 * 8, dtype=np.bool_)
    for term in size.nonzero()[0].tolist():
        if task.stopping:
            return None
        at = (rids[offsets[term] : offsets[term + 1]] - np.uint32(base)).astype(np.intp)
        number = int(size[term]) * 8
        if number < rows:
            at = np.concatenate([at & (number - 1), _second(at, number)])
        room[at] = True
        bits[starts[term] : starts[term + 1]] = np.packbits(room[:number], bitorder="little")
        room[:number] = False
    return bits, starts


def _codes(
    rows: NDArray[np.uint32], counts: NDArray[np.uint8], lengths: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """``rows``: those that hold a term more than once, each as often as there are such terms."""
    number = np.arange(len(rows), dtype=np.uint32)
    last = np.zeros(len(lengths), dtype=np.uint32)
    last[rows] = number
    others = np.zeros(len(lengths), dtype=np.bool_)
    others[rows[last[rows] != number]] = True
    codes = np.minimum(counts, COUNTED_MAX).astype(np.uint16) << np.uint16(COUNT_BITS)
    codes |= np.minimum(lengths[rows], LENGTH_MAX)
    codes[others[rows]] |= np.uint16(OTHERS)
    return codes
