"""Which rows a question may see: those of its filter and of the caller's conditions, alive and not expired.

The last answers are remembered as long as no row comes, goes or expires, with what the vector lane makes of
them: at ten million rows to put a mask together takes longer than to look at the vectors inside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from strongroom.model import Filter
from strongroom.model.rows import ALL, Rows

if TYPE_CHECKING:
    from strongroom.recall._roster import Pending
    from strongroom.recall.index import NamespaceIndex

__all__ = ["FEW_ROWS", "Allowed", "Packed", "Permits"]

FEW_ROWS: Final = 3_000  # allowed sets up to this size are given as rids
KEPT: Final = 4  # answers, a byte for each row of the namespace

Allowed = NDArray[np.int64] | NDArray[np.bool_] | None
_Asked = tuple[bytes, Rows]


class Permits:
    """The answers of one index. Its lock is held: for reading by whoever asks, for writing by ``note``."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[_Asked, Allowed], ...] = ()  # replaced, never changed: threads may share it

    def note(self, pending: Pending) -> None:
        """The index takes over these changes; all but counters of access may change who is allowed."""
        if len(pending) > len(pending.access):
            self._kept = ()

    def of(self, index: NamespaceIndex, filter: Filter, now_us: int, rows: Rows, expired: bool) -> Allowed:
        """Sorted rids when they are few, else a mask by rid that must not be changed.

        ``expired``: some rows are alive and have expired.
        """
        key = _key(index, filter, now_us, rows)
        if key is None:  # it looks at what changes without a new row
            return index.table.select(filter, now_us=now_us, rows=rows)
        asked = (key, rows)
        if not expired:
            for known, answer in self._kept:
                if known == asked:
                    return answer
        mask = None if filter.is_empty else index.table.mask(filter, now_us=now_us)
        if rows != ALL:
            permitted = index.mask(rows)
            mask = permitted.copy() if mask is None else mask[: len(permitted)] & permitted[: len(mask)]
        if mask is None:  # what a filter looks at does not change: it had a key
            return index.table.select(filter, now_us=now_us, rows=rows)
        answer = index.living(mask, now_us if expired else None)
        if np.count_nonzero(answer) <= FEW_ROWS:
            answer = np.flatnonzero(answer)
        answer.flags.writeable = False
        if not expired:
            self._kept = ((asked, answer), *self._kept[: KEPT - 1])
        return answer


def _key(index: NamespaceIndex, filter: Filter, now_us: int, rows: Rows) -> bytes | None:
    if filter.is_empty:
        return b""
    if filter.where is not None and rows != ALL:  # an expression of the caller meets none but its rows
        return None
    return index.table.mask_key(filter, now_us=now_us)


class Packed:
    """Allowed rows as bits; remembered for arrays that do not change."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[ref[NDArray[Any]], int, NDArray[np.uint8]], ...] = ()

    def of(self, allowed: NDArray[Any], few: int) -> tuple[int, NDArray[np.uint8] | None]:
        """How many rows there are in rids or a mask, and the bits; no bits for ``few`` or less."""
        for known, size, bits in self._kept:
            if known() is allowed:
                return size, bits
        is_mask = allowed.dtype == np.bool_
        size = int(np.count_nonzero(allowed)) if is_mask else len(allowed)
        if size <= few:
            return size, None
        bits = np.packbits(allowed if is_mask else _mask(allowed), bitorder="little")
        if not allowed.flags.writeable:
            self._kept = ((ref(allowed), size, bits), *self._kept[: KEPT - 1])
        return size, bits


def _mask(rids: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(int(rids.max(initial=-1)) + 1, dtype=np.bool_)
    mask[rids] = True
    return mask
