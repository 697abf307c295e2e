"""What the lanes of a search find, and what the keyword lane proposes to the vector lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._beside import Beside
from strongroom.recall._look import Proposed

Key = tuple[int, int]  # position of the index, rid
_NONE = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Lane:
    """What one lane found: things best first, the score of each, and how long it took; ``rids``: the rows of
    each index, by its position; ``is_near``: the scores are right to the order alone."""

    order: list[Key] = field(default_factory=list)
    score: dict[Key, float] = field(default_factory=dict)
    seconds: float = 0.0
    rids: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    is_near: bool = False


def timed(lane: Callable[[], Lane]) -> Lane:
    started = perf_counter()
    found = lane()
    found.seconds = perf_counter() - started
    return found


class Matched:
    """What the keyword lane finds: worked out by now, or still on its way on another thread."""

    def __init__(self, lane: Lane | None, beside: Beside[Lane] | None = None) -> None:
        """``beside``: who works at it; without one there is a ``lane`` already."""
        self._lane = lane
        self._beside = beside
        self.waited_s = 0.0

    def lane(self) -> Lane:
        """Wait for it. What the work raised is raised by the first call."""
        if self._lane is None:
            started = perf_counter()
            assert self._beside is not None
            self._lane = self._beside.result()
            self.waited_s = perf_counter() - started
        return self._lane

    def proposes(self, number: int, sure: int, *, is_compared: bool) -> Proposed:
        """The rows of the index at a position, to its vector lane, which is to find ``sure`` without them."""
        known, now = partial(self._known, number), partial(self._rids, number)
        return Proposed(sure, known, now, is_compared=is_compared)

    def _known(self, number: int) -> NDArray[np.int64] | None:
        if self._lane is None and self._beside is not None and not self._beside.has_ended:
            return None
        return self._rids(number)

    def _rids(self, number: int) -> NDArray[np.int64]:
        return self.lane().rids.get(number, _NONE)
