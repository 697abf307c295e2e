"""Which rows a condition on rows permits, by rid.

A row never changes in what policies ask about (an updated memory is a new row), so what was found out about
it stays true: only rows that came since are looked at.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.model.rows import Rows

__all__ = ["Masks"]

CONDITIONS_MAX: Final = 64  # of one namespace that are kept


class Masks:
    """The masks of one namespace. ``ask(rows, first)`` gives the permitted rids from ``first`` on."""

    def __init__(self, ask: Callable[[Rows, int], NDArray[np.int64]]) -> None:
        self._ask = ask
        self._kept: OrderedDict[Rows, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, rows: Rows, end: int) -> NDArray[np.bool_]:
        """True for each rid below ``end`` that is permitted; shape (end,). Not to be changed."""
        with self._lock:
            known = self._kept.get(rows)
            if known is not None:
                self._kept.move_to_end(rows)
        if known is not None and len(known) == end:
            return known
        first = 0 if known is None or len(known) > end else len(known)
        mask = np.zeros(end, dtype=np.bool_)
        if known is not None and first:
            mask[:first] = known
        found = self._ask(rows, first)
        mask[found[found < end]] = True
        with self._lock:
            self._kept[rows] = mask
            while len(self._kept) > CONDITIONS_MAX:
                self._kept.popitem(last=False)
        return mask
