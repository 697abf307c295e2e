"""Which loaded indexes are let go when all together take more memory than they may.

The one that was asked longest ago goes first. It is detached at once, so that the next question loads it
anew (from its snapshot, when there is one), and closed a little later, when the questions that were put
to it have ended. The ledger holds everything, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from strongroom.recall import NamespaceIndex

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

FIXED_BYTES = 512 << 10  # of an index with few memories, measured: schema, tables, objects
REST_S = 2.0  # between detaching and closing


class Loaded(Protocol):
    """What is needed of the indexes of a process."""

    def detach(self, ns: int, index: NamespaceIndex) -> None: ...
    def let_go(self, index: NamespaceIndex) -> None: ...
    def is_busy(self, ns: int) -> bool: ...


class Residency:
    """Keeps the indexes of a process within ``recall.resident_bytes_max``. Thread-safe."""

    def __init__(self, engine: Engine, indexes: Loaded) -> None:
        self._engine = engine
        self._indexes = indexes
        self._limit = engine.config.recall.resident_bytes_max
        self._lock = Lock()
        self._known: dict[int, tuple[NamespaceIndex, int]] = {}  # ns -> index, bytes when last measured
        self._used_s: dict[int, float] = {}
        self._leaving: list[tuple[float, NamespaceIndex]] = []
        self._asking: dict[int, float] = {}  # questions that are under way, and since when
        self._questions = count()

    def used(self, ns: int) -> None:
        """A namespace was asked."""
        self._used_s[ns] = monotonic()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A question is under way: no index that it has got is closed meanwhile.

        One over many namespaces loads them one after the other, and the first may have to go before the last
        one is there.
        """
        number = next(self._questions)
        self._asking[number] = monotonic()
        try:
            yield
        finally:
            del self._asking[number]

    def loaded(self, ns: int, index: NamespaceIndex) -> None:
        """An index has come; others may have to go."""
        self.used(ns)
        with self._lock:
            self._known[ns] = (index, _size(index))
            self._engine.metrics.loaded_namespaces.set(len(self._known))
        self._shrink()

    def gone(self, ns: int) -> None:
        """An index was let go for another reason."""
        with self._lock:
            self._known.pop(ns, None)

    def total_bytes(self) -> int:
        with self._lock:
            return sum(size for _, size in self._known.values())

    def tend(self) -> None:
        """Measure anew, let go what is too much, and close what was let go before."""
        with self._lock:
            self._known = {ns: (index, _size(index)) for ns, (index, _) in self._known.items()}
        self._shrink()
        self._close(before_s=min([monotonic() - REST_S, *list(self._asking.values())]))

    def _shrink(self) -> None:
        if not self._limit:
            return
        with self._lock:
            total = sum(size for _, size in self._known.values())
            oldest = sorted(self._known, key=lambda ns: self._used_s.get(ns, 0.0))
            going: list[tuple[int, NamespaceIndex]] = []
            for ns in oldest[:-1]:  # the last one is being asked
                if total <= self._limit:
                    break
                if not self._indexes.is_busy(ns):
                    index, size = self._known.pop(ns)
                    total -= size
                    going.append((ns, index))
        for ns, index in going:
            self._leave(ns, index)
            self._engine.metrics.evicted.inc()

    def _leave(self, ns: int, index: NamespaceIndex) -> None:
        self._indexes.detach(ns, index)
        with self._lock:
            self._leaving.append((monotonic(), index))

    def release(self, ns: int, index: NamespaceIndex) -> None:
        """Let an index go that was loaded for a look at it."""
        with self._lock:
            known = self._known.get(ns)
            if known is None or known[0] is not index or self._indexes.is_busy(ns):
                return
            del self._known[ns]
        self._leave(ns, index)

    def _close(self, before_s: float) -> None:
        with self._lock:
            due = [index for at, index in self._leaving if at <= before_s]
            self._leaving = [(at, index) for at, index in self._leaving if at > before_s]
        for index in due:
            with index.lock.write:  # the last question has ended
                pass
            self._indexes.let_go(index)

    def close(self) -> None:
        """Close what was let go."""
        self._close(before_s=float("inf"))


def _size(index: NamespaceIndex) -> int:
    return FIXED_BYTES + index.memory_bytes() + index.table.memory_bytes()
