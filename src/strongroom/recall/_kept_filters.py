"""Which rows passed a filter, remembered: rows never change what a filter looks at, they are replaced.

An entry says for every row below a mark whether it matches; only the rows from the mark on are asked for
again. Removed and expired rows stay in it and are left out by whoever knows them. The key is a digest, so
that no value of a filter is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._filter_sql import Compiled

__all__ = ["KeptFilters", "key_of"]

ENTRIES_MAX = 64
BYTES_MAX = 16 << 20  # of all entries of one namespace; a bit a row each


def key_of(compiled: Compiled) -> bytes:
    """The same for two filters only when they are the same."""
    text = repr((compiled.conditions, sorted(compiled.parameters.items())))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class KeptFilters:
    """The filters of one table that were asked for last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[NDArray[np.uint8], int]] = OrderedDict()

    def mask(self, key: bytes, rows: int, ask: Callable[[int], NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Whether each row below ``rows`` matches; ``ask`` gives the rids that match from a row on."""
        with self._lock:
            bits, mark = self._entries.pop(key, (np.empty(0, np.uint8), 0))
        mask = np.zeros(max(rows, mark), dtype=np.bool_)
        mask[:mark] = np.unpackbits(bits, count=mark)
        if mark < rows:
            found = ask(mark)
            mask[found[found < rows]] = True
            bits, mark = np.packbits(mask), len(mask)
        with self._lock:
            self._entries[key] = (bits, mark)
            while len(self._entries) > ENTRIES_MAX or (
                len(self._entries) > 1 and sum(b.nbytes for b, _ in self._entries.values()) > BYTES_MAX
            ):
                self._entries.popitem(last=False)
        return mask

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
