"""Large pages: what is asked for, when, and that nothing is changed or taken besides."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from strongroom import pages
from strongroom.engine import _large_pages as large
from strongroom.engine._large_pages import BLOCK_BYTES, INDEX_BYTES_MIN, LargePages

_BLOCKS = 4


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, int]]:
    """Memory of our own, not touched yet, and the address of its first whole block."""
    made = mmap.mmap(-1, (_BLOCKS + 1) * BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    holder = ctypes.c_char.from_buffer(made)
    start = ctypes.addressof(holder)
    yield made, -(-start // BLOCK_BYTES) * BLOCK_BYTES
    del holder
    made.close()


def _touch(memory: tuple[mmap.mmap, int], block: int, pages_there: int) -> None:
    for page in range(pages_there):
        address = memory[1] + block * BLOCK_BYTES + page * mmap.PAGESIZE
        ctypes.memset(address, page % 251 + 1, mmap.PAGESIZE)


def _of(memory: tuple[mmap.mmap, int]) -> list[int]:
    """Which of its blocks would be asked for."""
    return sorted(
        (block - memory[1]) // BLOCK_BYTES
        for block in large.own_blocks()
        if 0 <= block - memory[1] < _BLOCKS * BLOCK_BYTES
    )


def test_only_blocks_that_are_there_are_asked_for(memory: tuple[mmap.mmap, int]) -> None:
    """A block of which little is there would cost memory: it is left; one that is nearly whole is taken."""
    assert _of(memory) == []
    whole = BLOCK_BYTES // mmap.PAGESIZE
    _touch(memory, 1, whole)
    _touch(memory, 2, whole // 2)
    _touch(memory, 3, whole - 1)
    assert _of(memory) == [1, 3]


def test_a_block_keeps_what_it_holds(memory: tuple[mmap.mmap, int]) -> None:
    """Where the system moves the pages of a block together, every byte of it is as before."""
    _touch(memory, 1, BLOCK_BYTES // mmap.PAGESIZE)
    address = memory[1] + BLOCK_BYTES
    before = ctypes.string_at(address, BLOCK_BYTES)
    done = large.collapse(address)
    assert ctypes.string_at(address, BLOCK_BYTES) == before
    if done:
        assert large.collapse(address)  # once more is no error


def test_memory_that_is_gone_is_no_error() -> None:
    """What was given back between the looking and the asking is refused by the system; nothing happens."""
    assert large.collapse(BLOCK_BYTES) is False


def test_pages_of_keys_are_in_no_block() -> None:
    """No block that is asked for holds a page of keys, however keys are kept."""
    blocks_before = set(large.own_blocks())
    regions = [pages.new_region(64 * 1024) for _ in range(8)]
    for region in regions:
        ctypes.memset(region.address, 1, region.size_bytes)
    held = {region.address // BLOCK_BYTES * BLOCK_BYTES for region in regions}
    assert not held & (blocks_before | set(large.own_blocks()))


def test_a_round_ends_when_nothing_comes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After many refusals in a row the rest is not tried; refusals between successes do not count."""
    monkeypatch.setattr(large, "own_blocks", lambda: iter(range(1_000)))
    asked: list[int] = []

    def refuse(block: int) -> bool:
        asked.append(block)
        return block == 10

    assert large.one_round(refuse, Event()) == BLOCK_BYTES
    assert len(asked) == 11 + large.FAILURES_MAX


def test_a_round_ends_when_the_store_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for the rest of a round."""
    monkeypatch.setattr(large, "own_blocks", lambda: iter(range(1_000)))
    stop, asked = Event(), list[int]()

    def take(block: int) -> bool:
        asked.append(block)
        stop.set()
        return True

    large.one_round(take, stop)
    assert asked == [0]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rounds that were begun; each of them takes no time."""
    begun: list[int] = []
    monkeypatch.setattr(large, "may_be_asked_for", lambda: True)
    monkeypatch.setattr(large, "one_round", lambda _, __: begun.append(1) or 7)
    return begun


def _tend(pages_of: LargePages, index_bytes: int) -> None:
    pages_of.tend(index_bytes)
    if pages_of._thread is not None:
        pages_of._thread.join()


def test_a_round_comes_when_much_has_changed(rounds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Little memory is left alone; the next round waits for growth, or for its time."""
    told: list[int] = []
    pages_of = LargePages(told.append)
    _tend(pages_of, INDEX_BYTES_MIN - 1)
    assert not rounds
    _tend(pages_of, INDEX_BYTES_MIN)
    _tend(pages_of, INDEX_BYTES_MIN + 1)
    assert (len(rounds), told) == (1, [7])
    _tend(pages_of, INDEX_BYTES_MIN * 2)
    assert len(rounds) == 2
    monkeypatch.setattr(large, "monotonic", lambda: 1e12)
    _tend(pages_of, INDEX_BYTES_MIN * 2)
    assert len(rounds) == 3
    pages_of.close()


def test_who_does_not_want_it_is_not_asked(rounds: list[int]) -> None:
    """``large_pages = false`` in the configuration: no round, however much there is."""
    _tend(LargePages(lambda _: None, wanted=False), 1 << 40)
    assert not rounds


@pytest.mark.parametrize(
    ("switch", "expected"),
    [("always [madvise] never", True), ("[always] madvise never", True), ("always madvise [never]", False)],
)
def test_the_operators_word_counts(
    switch: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where large pages are switched off for the machine, none are asked for; so where nothing is said."""
    monkeypatch.setattr(large, "scrubs_freed_memory", lambda: False)
    monkeypatch.setattr(large, "_SWITCH", tmp_path / "enabled")
    assert not large.may_be_asked_for()
    (tmp_path / "enabled").write_text(switch + "\n", "ascii")
    assert large.may_be_asked_for() is expected


def test_a_process_that_overwrites_what_it_frees_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page held stays behind when it is moved: a process that scrubs does not do it."""
    monkeypatch.setattr(large, "scrubs_freed_memory", lambda: True)
    assert not large.may_be_asked_for()
