"""What to embed next, and what a failure means: a state machine without threads, clock or I/O.

    offer -> ready -> flying -> done
               ^         |-- outage   -> ready (the model is asked again later, one item at a time)
               |         |-- fault    -> delayed, then ready; dead after ``attempts_max``
               +---------+-- rejected -> halves, until one item is left: that one is dead

An *outage* says nothing about the items, so it costs them no attempt; while it lasts single items
probe, each time another one. When a probe succeeds the model is up, and what had failed meanwhile
counts one attempt: so an item that brings the model down by itself is found in the end. An item
with n attempts travels in batches of at most ``batch_size_max / 2**n``, away from its neighbours.

Namespaces take turns (``_turns``), and a full channel makes room for one that has less than its share: the
newest item of the one that has most goes back to the durable queue alone. So nobody's load keeps the others
waiting longer than one item of his does.

Waiting times are exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from strongroom.embedding._turns import Turns

PROBE_S_MAX = 5.0  # a model that is back is found within this time


@dataclass(frozen=True, slots=True)
class PendingRef:
    """One content that waits for its vector. ``memory_id``: 16 bytes."""

    ns: int
    memory_id: bytes
    content_version: int


class Failure(Enum):
    """Why a batch failed, as far as the queue has to know."""

    OUTAGE = "outage"
    FAULT = "fault"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Limits; times in seconds."""

    batch_size_max: int = 32
    channel_items_max: int = 10_000
    attempts_max: int = 8
    backoff_s_min: float = 0.1
    backoff_s_max: float = 60.0


Batch = tuple[PendingRef, ...]


class QueueState:
    """The channel between writers and the worker. Not thread-safe: the driver holds a lock.

    ``random`` gives floats in [0, 1). Times are seconds of the driver's monotonic clock.
    """

    def __init__(self, settings: QueueSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random
        self._known: set[PendingRef] = set()
        self._ready: Turns[PendingRef] = Turns()
        self._forced: deque[Batch] = deque()
        self._delayed: list[tuple[float, int, PendingRef]] = []
        self._delayed_count = 0
        self._flying: Batch = ()
        self._attempts: dict[PendingRef, int] = {}
        self._suspects: dict[PendingRef, str] = {}
        self._dead: dict[PendingRef, str] = {}
        self._outages = 0
        self._probe_at = 0.0
        self.displaced = 0  # items that made room for other namespaces

    # -- what the driver asks -------------------------------------------------------------------
    def __len__(self) -> int:
        """Items held in any state, the dead that are not yet recorded included."""
        return len(self._known)

    @property
    def room(self) -> int:
        """How many more items fit."""
        return max(0, self._settings.channel_items_max - len(self._known))

    @property
    def is_out(self) -> bool:
        """True while the model is taken to be down."""
        return self._outages > 0

    @property
    def flying(self) -> Batch:
        return self._flying

    @property
    def delayed(self) -> int:
        return len(self._delayed)

    def knows(self, ref: PendingRef) -> bool:
        return ref in self._known

    def held(self) -> set[PendingRef]:
        """A copy of everything held."""
        return set(self._known)

    def attempts(self, ref: PendingRef) -> int:
        return self._attempts.get(ref, 0)

    def dead(self) -> dict[str, list[PendingRef]]:
        """Given up and not yet recorded, by error code."""
        found: dict[str, list[PendingRef]] = {}
        for ref, code in self._dead.items():
            found.setdefault(code, []).append(ref)
        return found

    # -- in and out ------------------------------------------------------------------------------
    def offer(self, ref: PendingRef) -> bool:
        """Take an item; False when the channel is full. One that is held already is taken once."""
        if ref in self._known:
            return True
        if len(self._known) >= self._settings.channel_items_max and not self._make_room(ref.ns):
            return False
        self._known.add(ref)
        self._ready.add(ref)
        return True

    def _make_room(self, ns: int) -> bool:
        """Let go of the newest item of who has most, for a namespace that has less than its share."""
        mine = self._ready.waiting(ns)
        others = self._ready.namespaces - (mine > 0)
        if mine >= self._settings.channel_items_max // (others + 1):
            return False
        displaced = self._ready.pop_newest_of_most(mine + 1)
        if displaced is None:
            return False
        self._known.discard(displaced)  # its attempts count on when it comes back
        self.displaced += 1
        return True

    def next_batch(self, now: float) -> Batch:
        """Items to embed together now; empty when there is nothing to do yet."""
        if self._flying:
            raise AssertionError("one batch at a time")
        self._undelay(now)
        if self.is_out and now < self._probe_at:
            return ()
        self._flying = self._take_forced() or self._take_ready()
        return self._flying

    def _undelay(self, now: float) -> None:
        """Make ready what is due, and drop what was ended while it waited."""
        while self._delayed and (self._delayed[0][0] <= now or self._is_over(self._delayed[0][2])):
            ref = heapq.heappop(self._delayed)[2]
            if not self._is_over(ref):
                self._ready.add(ref)

    def _is_over(self, ref: PendingRef) -> bool:
        return ref not in self._known or ref in self._dead

    def _take_forced(self) -> Batch:
        batch: Batch = ()
        while self._forced and not batch:
            batch = tuple(r for r in self._forced.popleft() if not self._is_over(r))
        if self.is_out and len(batch) > 1:
            self._forced.appendleft(batch[1:])
            batch = batch[:1]
        return batch

    def _take_ready(self) -> Batch:
        limit = 1 if self.is_out else self._settings.batch_size_max
        batch: list[PendingRef] = []
        while (ref := self._ready.peek()) is not None:
            limit = min(limit, max(1, self._settings.batch_size_max >> self.attempts(ref)))
            if len(batch) >= limit:
                break
            self._ready.pop()
            batch.append(ref)
        return tuple(batch)

    def wait_s(self, now: float) -> float | None:
        """Seconds until ``next_batch`` has something; None: not before the next offer."""
        self._undelay(now)
        if self._ready or self._forced:
            return max(0.0, self._probe_at - now) if self.is_out else 0.0
        if self._delayed:
            due = self._delayed[0][0]
            return max(0.0, max(due, self._probe_at) - now if self.is_out else due - now)
        return None

    def probe_now(self) -> None:
        """Ask the model again at once, and let nothing wait longer."""
        self._probe_at = 0.0
        self._undelay(float("inf"))

    # -- what became of a batch ------------------------------------------------------------------
    def forget(self, refs: Iterable[PendingRef]) -> None:
        """Items that need no vector any more, or whose death is recorded."""
        gone = set(refs)
        self._flying = tuple(r for r in self._flying if r not in gone)
        self._known -= gone
        for ref in gone:
            self._ready.discard(ref)
            self._attempts.pop(ref, None)
            self._suspects.pop(ref, None)
            self._dead.pop(ref, None)

    def completed(self) -> None:
        """The batch that was flying has its vectors."""
        self.forget(self._flying)
        self._model_is_up()

    def failed(self, failure: Failure, code: str, now: float) -> None:
        """The batch that was flying has none. ``code`` is a stable error code."""
        batch, self._flying = self._flying, ()
        if failure is Failure.OUTAGE:
            self._suspects.update(dict.fromkeys(batch, code))
            self._ready.update(batch)
            self._wait_for_model(now)
        elif failure is Failure.FAULT:
            for ref in batch:
                self._count_attempt(ref, code)
                if ref not in self._dead:
                    self._delay(ref, now)
            if self.is_out:
                self._wait_for_model(now)
        else:
            self._reject(batch, code)
            self._model_is_up()

    def _reject(self, batch: Sequence[PendingRef], code: str) -> None:
        if len(batch) == 1:
            self._dead[batch[0]] = code
            self._suspects.pop(batch[0], None)
        elif batch:
            middle = len(batch) // 2
            self._forced.extendleft((tuple(batch[middle:]), tuple(batch[:middle])))

    def _model_is_up(self) -> None:
        self._outages = 0
        self._probe_at = 0.0
        suspects, self._suspects = self._suspects, {}
        for ref, code in suspects.items():
            self._count_attempt(ref, code)

    def _count_attempt(self, ref: PendingRef, code: str) -> None:
        attempts = self.attempts(ref) + 1
        self._attempts[ref] = attempts
        if attempts >= self._settings.attempts_max:
            self._dead[ref] = code
            self._ready.discard(ref)

    def _delay(self, ref: PendingRef, now: float) -> None:
        due = now + self._jitter(self.attempts(ref), self._settings.backoff_s_max)
        self._delayed_count += 1
        heapq.heappush(self._delayed, (due, self._delayed_count, ref))

    def _wait_for_model(self, now: float) -> None:
        self._outages += 1
        self._probe_at = now + self._jitter(self._outages, min(PROBE_S_MAX, self._settings.backoff_s_max))

    def _jitter(self, attempt: int, longest: float) -> float:
        return self._random() * min(longest, self._settings.backoff_s_min * 2.0 ** min(attempt - 1, 30))

    def landed(self) -> None:
        """The worker died with a batch in flight: let go of it, the durable queue has it."""
        self.forget(self._flying)
        self._flying = ()
