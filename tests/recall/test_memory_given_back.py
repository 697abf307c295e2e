"""What the allocator keeps of work that is done, and of lists that have outgrown their memory, goes back."""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recall.lane_tools import blind

from strongroom.recall import keywords
from strongroom.recall._allocator import give_back_behind
from strongroom.recall._codes import BLOCK_ROWS, ShortCodes
from strongroom.recall._ivf import InvertedLists
from strongroom.recall.analyze import Analyzer
from strongroom.recall.columnar import ColumnarStore
from strongroom.recall.keywords import KeywordLane

D = 64
ROWS = 400
LIBC = ctypes.CDLL(None)
LIBC.malloc_usable_size.restype = ctypes.c_size_t


def used_before() -> None:
    """Leave free memory that was written to, so that what is asked for next is likely to lie there."""
    pieces = [np.ones(120_000, np.uint8) for _ in range(40)]
    del pieces


def taken_behind(address: int, used: int) -> int:
    """How many whole pages behind the first ``used`` bytes of a piece take memory; there are some."""
    size = LIBC.malloc_usable_size(ctypes.c_void_p(address))
    first = -(-(address + used) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = (address + size - first) // mmap.PAGESIZE
    assert pages > 0
    there: NDArray[np.uint8] = np.zeros(pages, np.uint8)
    at = ctypes.c_void_p(there.ctypes.data)
    assert LIBC.mincore(ctypes.c_void_p(first), ctypes.c_size_t(pages * mmap.PAGESIZE), at) == 0
    return int(np.count_nonzero(there & 1))


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is there")
def test_a_list_that_outgrows_its_memory_takes_no_more_than_it_needs() -> None:
    """A row more than a list has room for doubles its memory: what is free of it takes none, and its rows and
    those that come after are what they were."""
    rows = np.random.default_rng(1).integers(-9, 9, (2 * ROWS, D)).astype(np.float32)
    lists = InvertedLists(D, plain=1)
    lists.presize(np.array([0]), np.array([ROWS]))
    lists.add(np.arange(ROWS), rows[:ROWS])
    used_before()
    for end in (ROWS + 1, 2 * ROWS):
        lists.add(np.arange(lists.rows, end), rows[lists.rows : end])
        if end < 2 * ROWS:
            assert taken_behind(int(lists._kept.get_codes(0)), 2 * D * end) == 0
        np.testing.assert_array_equal(lists.gather(np.arange(end)), rows[:end])


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is there")
def test_short_codes_that_outgrow_their_memory_take_no_more_than_they_need() -> None:
    """A block more than the short codes of a list have room for doubles their memory: what is free of it
    takes none, and all codes are what they were."""
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((4_096, D)).astype(np.float32)
    lists = InvertedLists(D, rows[:1])
    lists.give_codes(rows)
    codes = lists.codes
    assert codes is not None
    flat = codes.of(rows)
    full = 2_048  # 32 KiB of codes: a power of two, as FAISS takes memory for them
    codes.fill(0, np.arange(full), flat[:full])
    used_before()
    codes.append(0, full, np.arange(full, full + BLOCK_ROWS), flat[full : full + BLOCK_ROWS])
    end = full + BLOCK_ROWS
    assert taken_behind(int(codes._kept.get_codes(0)), end // BLOCK_ROWS * codes.block_bytes) == 0
    other = ShortCodes(lists._quantizer, codes.values, 1)
    other.fill(0, np.arange(end), flat[:end])
    np.testing.assert_array_equal(codes.blocks(0, end), other.blocks(0, end))


def test_nothing_is_given_back_where_the_size_of_a_piece_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the function of the C library nothing is touched, and lists grow as before."""
    from strongroom.recall import _allocator

    monkeypatch.setattr(_allocator, "_SIZE_OF", None)
    assert give_back_behind(1, 2) == 0
    rows = np.random.default_rng(3).integers(-9, 9, (ROWS, D)).astype(np.float32)
    lists = InvertedLists(D, plain=1)
    for rid in range(ROWS):
        lists.add(np.array([rid]), rows[rid : rid + 1])
    np.testing.assert_array_equal(lists.gather(np.arange(ROWS)), rows)


def test_a_merge_in_the_background_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What merging many postings took is given back once, after the merge."""
    calls: list[int] = []
    lane = KeywordLane(Analyzer(), blind)
    monkeypatch.setattr(keywords, "MERGE_INLINE_MAX", 500)
    monkeypatch.setattr(keywords, "give_back", lambda: calls.append(len(lane._segments)))
    for start in range(0, 2_400, 600):
        lane.add(range(start, start + 600), ["a note about something"] * 600)
        assert lane.wait_merged(30)
    assert calls and set(calls) == {1}
    lane.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is resident from /proc")
def test_what_the_columnar_engine_frees_goes_back_without_being_asked() -> None:
    """Rows that are dropped take no memory soon after, although nobody asks the engine for anything."""
    store = ColumnarStore()
    with store.own_cursor() as cursor:
        cursor.execute("CREATE TABLE large AS SELECT random() AS a, random() AS b FROM range(6000000)")
        full_mib = resident_mib()
        cursor.execute("DROP TABLE large")
    until = time.monotonic() + 60
    while resident_mib() > full_mib - 60 and time.monotonic() < until:
        time.sleep(0.2)
    assert resident_mib() <= full_mib - 60
    store.close()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / 2**20
