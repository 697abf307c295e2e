"""Which loaded indexes are let go when all together take more memory than they may.

The one that was asked longest ago goes first. It is detached at once, so that the next question loads it
anew (from its snapshot, when there is one), and closed when the questions that were put to it have ended: a
little later, or as soon as those that wait to be closed take much of what all may. The ledger holds
everything, so nothing is lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from strongroom.recall import NamespaceIndex

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

FIXED_BYTES = 50 << 10  # of an index beside what it counts itself, measured: objects, locks, empty arrays
REST_S = 2.0  # between detaching and closing
FEW = 256  # so many are measured whenever it is looked; of more only those that were asked since ...
EVERY_TURNS = 16  # ... and all now and then: what goes on in the background changes them too
LEAVING_SHARE = 8  # of the limit: above it they are closed without that rest


@dataclass(frozen=True, slots=True, eq=False)
class _Leaving:
    at_s: float
    index: NamespaceIndex
    size: int


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
        # ns -> index, bytes when last measured; the one that was asked longest ago first
        self._known: OrderedDict[int, tuple[NamespaceIndex, int]] = OrderedDict()
        self._total = 0  # of those
        self._asked: dict[int, None] = {}  # of those, since they were last measured
        self._turn = 0
        self._leaving: list[_Leaving] = []
        self._asking: dict[int, float] = {}  # questions that are under way, and since when
        self._questions = count()

    def used(self, ns: int) -> None:
        """A namespace was asked."""
        with self._lock:
            if ns in self._known:
                self._known.move_to_end(ns)
                self._asked[ns] = None

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
        size = _size(index)
        with self._lock:
            self._forget(ns)
            self._known[ns] = (index, size)
            self._asked[ns] = None  # what it is asked for comes after this
            self._total += size
            self._engine.metrics.loaded_namespaces.set(len(self._known))
        self._shrink()

    def gone(self, ns: int) -> None:
        """An index was let go for another reason."""
        with self._lock:
            self._forget(ns)

    def _forget(self, ns: int) -> int:
        """Needs the lock. How much it took."""
        self._asked.pop(ns, None)
        _, size = self._known.pop(ns, (None, 0))
        self._total -= size
        return size

    def total_bytes(self) -> int:
        """Of all that are loaded, and of those that are still to be closed."""
        with self._lock:
            return self._total + sum(leaving.size for leaving in self._leaving)

    def tend(self) -> None:
        """Measure anew, let go what is too much, and close what was let go before."""
        with self._lock:
            self._turn += 1
            every = len(self._known) <= FEW or not self._turn % EVERY_TURNS
            known = [(ns, self._known[ns]) for ns in (self._known if every else self._asked)]
            self._asked = {}
        sizes = {ns: (index, _size(index)) for ns, (index, _) in known}
        with self._lock:
            for ns, (index, size) in sizes.items():
                before = self._known.get(ns)
                if before is not None and before[0] is index:
                    self._known[ns] = (index, size)
                    self._total += size - before[1]
        self._shrink()
        self._close(before_s=min(monotonic() - REST_S, self._asked_since()))

    def _asked_since(self) -> float:
        """When the oldest of the questions that are under way came."""
        return min([monotonic(), *list(self._asking.values())])

    def _shrink(self) -> None:
        if not self._limit:
            return
        going: list[tuple[int, NamespaceIndex, int]] = []
        with self._lock:
            while self._total > self._limit and (ns := self._oldest()) is not None:
                going.append((ns, self._known[ns][0], self._forget(ns)))
        for ns, index, size in going:
            self._leave(ns, index, size)
            self._engine.metrics.evicted.inc()
        with self._lock:
            much = sum(leaving.size for leaving in self._leaving) > self._limit // LEAVING_SHARE
        if much:  # by whoever asks: nothing that it would have to wait for
            self._close(before_s=self._asked_since(), idle=True)

    def _oldest(self) -> int | None:
        """The one to go next; never the one that was asked last. Needs the lock."""
        last = next(reversed(self._known), None)
        return next((ns for ns in self._known if ns != last and not self._indexes.is_busy(ns)), None)

    def _leave(self, ns: int, index: NamespaceIndex, size: int) -> None:
        self._indexes.detach(ns, index)
        with self._lock:
            self._leaving.append(_Leaving(monotonic(), index, size))

    def release(self, ns: int, index: NamespaceIndex) -> None:
        """Let an index go that was loaded for a look at it."""
        with self._lock:
            known = self._known.get(ns)
            if known is None or known[0] is not index or self._indexes.is_busy(ns):
                return
            size = self._forget(ns)
        self._leave(ns, index, size)

    def _close(self, before_s: float, *, idle: bool = False) -> None:
        """Close what was detached up to then; ``idle``: only where nothing goes on in the background."""
        due: list[_Leaving] = []
        stay: list[_Leaving] = []
        with self._lock:
            for leaving in self._leaving:
                may_go = leaving.at_s <= before_s and (not idle or leaving.index.wait_idle(0.0))
                (due if may_go else stay).append(leaving)
            self._leaving = stay
        for leaving in due:
            with leaving.index.lock.write:  # the last question has ended
                pass
            self._indexes.let_go(leaving.index)

    def close(self) -> None:
        """Close what was let go."""
        self._close(before_s=float("inf"))


def _size(index: NamespaceIndex) -> int:
    return FIXED_BYTES + index.memory_bytes() + index.table.memory_bytes()
