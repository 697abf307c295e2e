"""Where the bytes of keys lie: slots in protected pages, zeroed when they are given back.

Two sizes of slots: 32 bytes for a key, 256 bytes for the two padded blocks of an HMAC. A chunk is 64 KiB
of slots of one size in a region of its own (``_pages``). Chunks are made when they are needed and
stay until the process ends; slots are used again.

A slot is a number: chunk << 16 | offset. After a fork the child has no chunk of its parent, so that a
parent's key is refused there and never taken for zeros.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from strongroom.errors import KeyMemoryError, KeyStateError
from strongroom.pages import (
    Protection,
    Region,
    fill_after_fork,
    fill_random,
    new_region,
    view_of,
)

CHUNK_BYTES: Final = 64 * 1024
ARENA_BYTES_MAX: Final = 64 * 1024 * 1024
KEY_SLOT_BYTES: Final = 32
PADS_SLOT_BYTES: Final = 256
_SIZES: Final = (KEY_SLOT_BYTES, PADS_SLOT_BYTES)
_OFFSET_MASK: Final = CHUNK_BYTES - 1
_LOCKED: Final = frozenset({Protection.SECRET, Protection.LOCKED})


@dataclass(frozen=True, slots=True)
class KeyMemory:
    """What the keys of this process lie in. All numbers are bytes, ``slots_used`` counts slots.

    ``why``: what stood in the way of something better, last seen; empty when nothing did.
    """

    secret_bytes: int
    locked_bytes: int
    unlocked_bytes: int
    open_bytes: int
    slots_used: int
    bytes_max: int
    why: str

    @property
    def protection(self) -> Protection:
        """The weakest that is in use."""
        if self.open_bytes:
            return Protection.OPEN
        if self.unlocked_bytes:
            return Protection.UNLOCKED
        return Protection.LOCKED if self.locked_bytes else Protection.SECRET


def forked_key() -> KeyStateError:
    """The error for a key of the process that this one was forked from."""
    return KeyStateError("a key does not outlive a fork", hint="open the store again in the new process")


class Arena:
    """Slots for secrets. Thread-safe; giving back takes no lock, because collectors do it at any point."""

    def __init__(
        self, *, bytes_max: int = ARENA_BYTES_MAX, make: Callable[[int], Region] = new_region
    ) -> None:
        self._bytes_max = bytes_max
        self._make = make
        self.epoch = 0  # the number of forks between the first process and this one
        self._lock = threading.RLock()
        self._free: dict[int, deque[int]] = {size: deque() for size in _SIZES}
        self._sizes: dict[int, int] = {}
        self._views: dict[int, memoryview] = {}
        self._regions: dict[int, Region] = {}
        self._next_chunk = 1
        self._locked_only = False
        self._why = ""

    def take(self, size: int) -> int:
        """The number of a zeroed slot of that size.

        Raises:
            KeyMemoryError: the arena is at its limit, or only memory that may be swapped is left and
            that is not allowed.
        """
        free = self._free[size]
        while True:
            try:
                return free.pop()
            except IndexError:
                self._grow(size)

    def view(self, slot: int) -> memoryview:
        """The bytes of a slot, writable.

        Raises:
            KeyStateError: the slot is of the process that this one was forked from.
        """
        chunk = slot >> 16
        view = self._views.get(chunk)
        if view is None:
            raise forked_key()
        at = slot & _OFFSET_MASK
        return view[at : at + self._sizes[chunk]]

    def holds(self, slot: int) -> bool:
        """Whether the slot is of this process."""
        return slot >> 16 in self._views

    def give_back(self, slot: int) -> None:
        """Zero a slot and let others have it. Each slot once."""
        chunk, at = slot >> 16, slot & 0xFFFF  # no name of the module: it may be gone when the last keys die
        view = self._views.get(chunk)
        if view is not None:
            size = self._sizes[chunk]
            view[at : at + size] = bytes(size)
            self._free[size].append(slot)

    def randomize(self, slot: int) -> None:
        """Fill a slot with random bytes.

        Raises:
            KeyStateError: as ``view``. KeyMemoryError: the system gave none.
        """
        view = self.view(slot)
        fill_random(self._regions[slot >> 16].address + (slot & _OFFSET_MASK), len(view))

    def require_locked(self) -> None:
        """From now on, memory that may be swapped is an error and no fallback.

        Raises:
            KeyMemoryError: some is in use already, or none can be locked.
        """
        with self._lock:
            self._locked_only = True
        self.give_back(self.take(KEY_SLOT_BYTES))
        if any(r.protection not in _LOCKED for r in self._regions.values()):
            raise self._not_locked()

    def report(self) -> KeyMemory:
        """How much there is of what."""
        with self._lock:
            held: Counter[Protection] = Counter()
            slots = 0
            for chunk, region in self._regions.items():
                held[region.protection] += region.size_bytes
                slots += region.size_bytes // self._sizes[chunk]
            free = sum(len(f) for f in self._free.values())
            return KeyMemory(
                secret_bytes=held[Protection.SECRET],
                locked_bytes=held[Protection.LOCKED],
                unlocked_bytes=held[Protection.UNLOCKED],
                open_bytes=held[Protection.OPEN],
                slots_used=slots - free,
                bytes_max=self._bytes_max,
                why=self._why,
            )

    def forked(self) -> None:
        """In a forked child: nothing of the parent's is here any more."""
        regions = list(self._regions.values())
        self.epoch += 1
        self._lock = threading.RLock()
        self._views.clear()
        self._sizes.clear()
        self._regions.clear()
        for free in self._free.values():
            free.clear()
        for region in regions:
            fill_after_fork(region)

    def _grow(self, size: int) -> None:
        with self._lock:
            if self._free[size]:
                return
            if (len(self._regions) + 1) * CHUNK_BYTES > self._bytes_max:
                raise KeyMemoryError(
                    f"the memory for keys is full: {self._bytes_max // 1024} KiB are in use",
                    hint="fewer namespaces and data subjects open in one process",
                )
            region = self._make(CHUNK_BYTES)
            self._why = region.why or self._why
            if self._locked_only and region.protection not in _LOCKED:
                raise self._not_locked()
            chunk = self._next_chunk
            self._next_chunk += 1
            self._regions[chunk] = region
            self._sizes[chunk] = size
            self._views[chunk] = view_of(region)
            self._free[size].extend(chunk << 16 | at for at in range(CHUNK_BYTES - size, -1, -size))

    def _not_locked(self) -> KeyMemoryError:
        return KeyMemoryError(
            f"memory for keys cannot be locked ({self._why or 'protection is switched off'})",
            hint='raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the service), or allow [keys] memory = "prefer"',
        )


ARENA: Final = Arena()
os.register_at_fork(after_in_child=ARENA.forked)


def key_memory() -> KeyMemory:
    """What the keys of this process lie in."""
    return ARENA.report()


def require_locked_keys() -> None:
    """Refuse, in this process and from now on, to hold keys in memory that may be swapped.

    Raises:
        KeyMemoryError: some are in such memory already, or none can be locked.
    """
    ARENA.require_locked()
