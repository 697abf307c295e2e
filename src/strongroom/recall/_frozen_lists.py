"""Inverted lists at one moment, to be written out while they go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from strongroom.recall._ivf import InvertedLists


class FrozenLists:
    """Lists at one moment: ``ids`` in their order; the codes are read one list after the other.

    The caller holds the lane's lock around every call, as for the lists themselves.
    """

    def __init__(self, lists: InvertedLists, sizes: NDArray[np.int64], ids: NDArray[np.int64]) -> None:
        self.sizes = sizes
        self.ids = ids
        self._lists = lists
        self._before: dict[int, NDArray[np.uint16]] = {}  # what a change would have spoilt
        self._read = np.zeros(len(sizes), dtype=np.bool_)
        self.values = None if lists.codes is None else lists.codes.values  # of the short codes
        self._before_blocks: dict[int, NDArray[np.uint8] | None] = {}
        self._read_blocks = np.full(len(sizes), lists.codes is None)

    def preserve(self, number: int) -> None:
        """A list is about to lose or move entries."""
        if not self._read[number] and number not in self._before:
            self._before[number] = self._lists.first(number, int(self.sizes[number]))
        if not self._read_blocks[number] and number not in self._before_blocks:
            self._before_blocks[number] = self._lists.first_blocks(number, int(self.sizes[number]))

    def codes(self, number: int) -> NDArray[np.uint16]:
        """The codes of a list as they were; each list can be read once."""
        self._read[number] = True
        kept = self._before.pop(number, None)
        return self._lists.first(number, int(self.sizes[number])) if kept is None else kept

    def blocks(self, number: int) -> NDArray[np.uint8] | None:
        """The short codes of a list as they were; each list can be read once. None: there are none."""
        self._read_blocks[number] = True
        if number in self._before_blocks:
            return self._before_blocks.pop(number)
        return self._lists.first_blocks(number, int(self.sizes[number]))

    def close(self) -> None:
        self._lists.thaw(self)
        self._before, self._before_blocks = {}, {}


class FrozenTogether:
    """Several of them as one, whose lists are mere pieces: without centroids and short codes."""

    def __init__(self, parts: Sequence[FrozenLists]) -> None:
        self.sizes = np.concatenate([part.sizes for part in parts])
        self.ids = np.concatenate([part.ids for part in parts])
        self.values = None
        self._parts = parts

    def codes(self, number: int) -> NDArray[np.uint16]:
        """The codes of a list as they were; each list can be read once."""
        for part in self._parts:
            if number < len(part.sizes):
                return part.codes(number)
            number -= len(part.sizes)
        raise IndexError(number)

    def blocks(self, number: int) -> None:
        """There are no short codes."""

    def close(self) -> None:
        for part in self._parts:
            part.close()
