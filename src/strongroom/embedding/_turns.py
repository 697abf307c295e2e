"""Who waits for a vector, by namespace: namespaces take turns, and within one the order of arrival counts.

So the memory of a namespace that has little to embed waits behind one item of each of the others, however
much one of them has brought.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, Protocol, TypeVar


class Queued(Hashable, Protocol):
    """What waits: equal items are one. ``ns`` is the number of its namespace."""

    @property
    def ns(self) -> int: ...


T = TypeVar("T", bound=Queued)


class Turns(Generic[T]):
    """Ordered sets, one for each namespace, that are served by turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[int, dict[T, None]] = OrderedDict()  # whose turn it is comes first

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def namespaces(self) -> int:
        """How many have something to do."""
        return len(self._queues)

    def add(self, item: T) -> None:
        """To the end of its namespace; an item that is there keeps its place."""
        self._queues.setdefault(item.ns, {}).setdefault(item, None)

    def update(self, items: Iterable[T]) -> None:
        for item in items:
            self.add(item)

    def discard(self, item: T) -> None:
        queue = self._queues.get(item.ns)
        if queue is not None and item in queue:
            self._drop(queue, item)

    def waiting(self, ns: int) -> int:
        """How many items of a namespace wait."""
        return len(self._queues.get(ns, ()))

    def peek(self) -> T | None:
        """The item whose turn it is."""
        for queue in self._queues.values():
            return next(iter(queue))
        return None

    def pop(self) -> T | None:
        """Take the item whose turn it is; the next one comes from another namespace, if there is one."""
        item = self.peek()
        if item is not None:
            self._queues.move_to_end(item.ns)
            self._drop(self._queues[item.ns], item)
        return item

    def pop_newest_of_most(self, least: int) -> T | None:
        """Take the newest item of the namespace that has most, if that is more than ``least``."""
        most = max(self._queues.values(), key=len, default=None)
        if most is None or len(most) <= least:
            return None
        item = next(reversed(most))
        self._drop(most, item)
        return item

    def _drop(self, queue: dict[T, None], item: T) -> None:
        del queue[item]
        if not queue:
            del self._queues[item.ns]
