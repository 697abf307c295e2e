"""The worker that gives every stored memory its vector.

Writers ``offer`` what they have stored and go on. One thread takes what is there, asks the source
for the texts, the provider for the vectors, and hands them back. The source's queue is durable, the
channel here is not: whatever is dropped, crashed over or never offered is found by the sweep.
"""

from __future__ import annotations

import logging
import random as _random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from strongroom.config import EmbeddingConfig
from strongroom.embedding._provider import EmbeddingProvider, FloatMatrix, embed_checked
from strongroom.embedding._queue_state import Batch, Failure, PendingRef, QueueSettings, QueueState
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    KmsUnavailableError,
    ModelFilesError,
    OperationTimeoutError,
    StorageError,
    StrongroomError,
    UnknownModelError,
    cause_of,
    thread_started,
)

T = TypeVar("T")

_log = logging.getLogger("strongroom.embedding")

SWEEP_INTERVAL_S = 1.0
_IDLE_POLL_S = 0.02
_HELD_POLL_S = 0.25
_RECORD_RETRY_S = 0.5
_CRASH_PAUSE_S = 0.2
# not the items' fault: they wait, and nothing is counted against them
_OUTAGES = (
    EmbeddingUnavailableError,
    ModelFilesError,
    ConfigurationError,
    UnknownModelError,
    StorageError,
    KmsUnavailableError,
    OperationTimeoutError,
    ClosedError,
)


class PendingSource(Protocol):
    """What the engine offers to the worker. Called from one thread at a time (``orphans`` from any)."""

    def load(self, refs: Sequence[PendingRef]) -> list[str | None]:
        """The texts, in order; None where the memory is gone, was replaced, or has its vector."""

    def complete(self, refs: Sequence[PendingRef], vectors: FloatMatrix) -> None:
        """Keep the vectors, float32 of shape (len(refs), dimensions), and take ``refs`` off the queue."""

    def fail(self, refs: Sequence[PendingRef], error_code: str, *, dead: bool) -> None:
        """Note a failed attempt; ``dead``: it was the last one."""

    def orphans(self, limit: int, *, by_turns: bool = False) -> list[PendingRef]:
        """What waits in the durable queue and is not dead, oldest first. What ``load`` answered with
        None must not come again. ``by_turns``: when there is more than ``limit``, some of every namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStats:
    """Figures since the start, and what is held now."""

    held: int
    in_flight: int
    delayed: int
    completed: int
    skipped: int
    dead: int
    dropped: int
    failures: int
    batches: int
    is_out: bool
    last_error: str | None


class EmbeddingPipeline:
    """``offer`` from any thread; ``start`` once; ``close`` in the end.

    An idle worker starts with what is there as soon as something is offered, so a lone write never
    waits for a batch to fill; under load a batch is what came while the last one was computed, at
    most ``batch_size_max``. So ``flush_interval_ms``, an upper bound, is kept without a timer.

    ``provider``: the model, or a function that gives it; the worker calls it for every batch, and a
    model that cannot be loaded is an outage. ``sweeper`` tells whether this process picks up orphans
    (``SweeperLock``); None: it always does. ``clock`` is monotonic seconds, ``random`` uniform in
    [0, 1). ``observe`` is told how many seconds the model took for a batch.
    """

    def __init__(
        self,
        config: EmbeddingConfig,
        provider: EmbeddingProvider | Callable[[], EmbeddingProvider],
        source: PendingSource,
        *,
        sweeper: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._get_provider = provider if callable(provider) else lambda: provider
        self._source = source
        self._sweeper = sweeper
        self._observe = observe
        self._clock = clock
        self._sweep_interval_s = sweep_interval_s
        self._state = QueueState(_settings(config), random)
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._started = False
        self._closing = False
        self._abandoned = False
        self._listing_items_max = 2 * config.channel_items_max
        self._sweep_at = 0.0
        self._sweep_all = True
        self._seen: set[PendingRef] = set()
        self._record_at = 0.0
        self._counts = {"completed": 0, "skipped": 0, "dead": 0, "dropped": 0, "failures": 0, "batches": 0}
        self._last_error: str | None = None

    # -- the door --------------------------------------------------------------------------------
    def offer(self, ref: PendingRef) -> bool:
        """Take ``ref`` when there is room. Never blocks, never raises.

        False: the channel is full or closed; the item stays in the durable queue.
        """
        with self._condition:
            if self._closing:
                return False
            taken = self._state.offer(ref)
            if not taken:
                self._counts["dropped"] += 1
            if not self._state.room:  # what did not fit, or made room, is found in the durable queue
                self._sweep_all = True
            self._keep_alive()
            self._condition.notify_all()
            return taken

    def start(self) -> None:
        """Start the worker. A second call does nothing.

        Raises:
            ClosedError: the pipeline was closed.
        """
        with self._condition:
            if self._closing:
                raise ClosedError("the embedding pipeline was closed")
            self._started = True
            self._keep_alive()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until all that was pending at the time of the call is embedded, gone or dead.

        What is offered later is not waited for. A model that is down is asked again at once.
        False: it took longer than ``timeout_s``.

        Raises:
            ClosedError: the pipeline was closed meanwhile.
        """
        end = self._clock() + timeout_s
        limit = self._listing_items_max
        waited_for: set[PendingRef] | None = None
        is_whole = False
        self._kick(probe=True)
        while True:
            listed = self._list_orphans(limit)
            with self._condition:
                pending = self._state.held().union(listed or ())
            if listed is not None and waited_for is None:
                waited_for, is_whole = pending, len(listed) < limit
            elif listed is not None and waited_for is not None:
                waited_for &= pending
            if waited_for is not None and not waited_for:
                if is_whole:
                    return True
                waited_for = None
            if not self._wait_while_held(waited_for or set(), end):
                return False

    def sweep_now(self) -> None:
        """Look at the durable queue now, and ask a model that is down again."""
        self._kick(probe=True)

    def stats(self) -> PipelineStats:
        with self._condition:
            return PipelineStats(
                held=len(self._state),
                in_flight=len(self._state.flying),
                delayed=self._state.delayed,
                is_out=self._state.is_out,
                last_error=self._last_error,
                **{**self._counts, "dropped": self._counts["dropped"] + self._state.displaced},
            )

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the worker and wait for it, ``timeout_s`` at most. May be called twice.

        What was not embedded stays in the durable queue.
        """
        with self._condition:
            self._closing = True
            thread = self._thread
            self._condition.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        with self._condition:
            self._abandoned = True

    # -- one turn of the worker -------------------------------------------------------------------
    def step(self) -> float | None:
        """One turn: record the dead, sweep, embed one batch. For the worker, and for tests.

        Returns seconds until the next turn is due; None: not before the next offer.
        """
        now = self._clock()
        self._record_dead(now)
        self._sweep(now)
        with self._condition:
            batch = self._state.next_batch(now)
        if batch:
            self._process(batch)
            return 0.0
        return self._rest_s(self._clock())

    def _rest_s(self, now: float) -> float | None:
        with self._condition:
            waits = [self._state.wait_s(now), self._sweep_at - now]
            if self._state.dead():
                waits.append(self._record_at - now)
        return max(0.0, min(w for w in waits if w is not None))

    def _process(self, batch: Batch) -> None:
        done = _contained(lambda: self._embedded(batch), self._failed)
        if not done:
            return
        with self._condition:
            self._counts["completed"] += done
            self._counts["batches"] += 1
            self._last_error = None
            was_out = self._state.is_out
            self._state.completed()
            self._condition.notify_all()
        if was_out:
            _log.info("embedding_model_is_back")

    def _embedded(self, batch: Batch) -> int:
        """Embed what is still wanted of a batch and hand it over; how many memories that were."""
        texts = self._source.load(batch)
        if len(texts) != len(batch):
            raise ValueError("load: one text or None per item")
        live = [(r, t) for r, t in zip(batch, texts, strict=True) if t is not None]
        self._skip([r for r, t in zip(batch, texts, strict=True) if t is None])
        if not live:
            return 0
        vectors = self._embed([t for _, t in live])
        if self._abandoned:
            return 0
        self._source.complete(tuple(r for r, _ in live), vectors)
        return len(live)

    def _embed(self, texts: list[str]) -> FloatMatrix:
        provider = self._get_provider()
        started = time.perf_counter()
        vectors = embed_checked(provider, texts)
        self._observe(time.perf_counter() - started)
        return vectors

    def _skip(self, refs: list[PendingRef]) -> None:
        with self._condition:
            self._counts["skipped"] += len(refs)
            self._state.forget(refs)
            self._condition.notify_all()

    def _failed(self, error: Exception) -> int:
        """Classify it and plan what comes next; 0 memories were embedded."""
        failure, code = classify(error)
        with self._condition:
            refs = self._state.flying
            known = self._state.is_out and failure is Failure.OUTAGE
            self._counts["failures"] += 1
            self._last_error = code
            self._state.failed(failure, code, self._clock())
            self._condition.notify_all()
        _log.log(
            logging.DEBUG if known else logging.WARNING,
            "embedding_batch_failed code=%s cause=%s failure=%s items=%d",
            *(code, cause_of(error), failure.value, len(refs)),
        )
        if failure is Failure.FAULT:  # one that is not recorded is counted here as well
            _contained(
                lambda: self._source.fail(refs, code, dead=False), _noted("embedding_attempt_not_recorded")
            )
        return 0

    def _record_dead(self, now: float) -> None:
        with self._condition:
            dead = self._state.dead()
        if not dead or now < self._record_at:
            return
        for code, refs in dead.items():
            if not self._is_recorded(code, refs):
                self._record_at = now + _RECORD_RETRY_S
                return
            with self._condition:
                self._counts["dead"] += len(refs)
                self._state.forget(refs)
                self._condition.notify_all()

    def _is_recorded(self, code: str, refs: Sequence[PendingRef]) -> bool:
        """Record dead letters of one code; False: they are kept, to be recorded later."""

        def record() -> bool:
            self._source.fail(refs, code, dead=True)
            return True

        return bool(_contained(record, _noted("embedding_dead_letter_not_recorded")))

    # -- orphans ----------------------------------------------------------------------------------
    def _sweep(self, now: float) -> None:
        """Take from the durable queue what nobody has in hand, when it is time and this process's turn.

        In the first sweep, after a drop and while someone waits, all of it; else only what was seen a
        second ago too, so that what another process has just stored is left to that process.
        """
        with self._condition:
            if now < self._sweep_at:
                return
            self._sweep_at = now + self._sweep_interval_s
            everything, self._sweep_all = self._sweep_all, False
            limit = len(self._state) + self._state.room
        listed = self._list_orphans(limit, by_turns=True) if self._is_sweeper() else None
        with self._condition:
            if listed is None:
                self._sweep_all = True  # the first sweep in this role takes all
                self._seen = set()
                return
            taken = [r for r in listed if everything or r in self._seen]
            self._seen = set(listed)
            for ref in taken:
                self._state.offer(ref)
            if len(listed) >= limit:
                self._sweep_all = True  # there is more than fits

    def _is_sweeper(self) -> bool:
        return self._sweeper is None or self._sweeper()

    def _list_orphans(self, limit: int, *, by_turns: bool = False) -> list[PendingRef] | None:
        """None: they could not be listed; they are asked for again at the next sweep."""
        return _contained(
            lambda: self._source.orphans(limit, by_turns=by_turns), _noted("embedding_orphans_not_listed")
        )

    # -- waiting ----------------------------------------------------------------------------------
    def _kick(self, *, probe: bool) -> None:
        with self._condition:
            if probe:
                self._state.probe_now()
            self._sweep_at = 0.0
            self._sweep_all = True
            self._keep_alive()
            self._condition.notify_all()

    def _wait_while_held(self, refs: set[PendingRef], end: float) -> bool:
        """Wait until the worker holds none of ``refs``, and then a moment; False at the end of time."""
        with self._condition:
            while self._may_wait(end) and any(self._state.knows(r) for r in refs):
                self._condition.wait(min(_HELD_POLL_S, max(0.0, end - self._clock())))
            if not self._may_wait(end):
                return False
        self._kick(probe=False)
        with self._condition:
            self._condition.wait(_IDLE_POLL_S)
        return True

    def _may_wait(self, end: float) -> bool:
        """Needs the lock."""
        if self._closing:
            raise ClosedError("the embedding pipeline was closed")
        self._keep_alive()
        return self._clock() < end

    # -- the thread ---------------------------------------------------------------------------------
    def _keep_alive(self) -> None:
        """Start the worker, or start it again when its thread has died. Needs the lock."""
        if not self._started or self._closing or (self._thread is not None and self._thread.is_alive()):
            return
        if self._thread is not None:
            _log.error("embedding_worker_restarted")
            self._state.landed()
            self._sweep_at, self._sweep_all = 0.0, True
        thread = threading.Thread(target=self._work, name="strongroom-embedding", daemon=True)
        if thread_started(thread):
            self._thread = thread
        else:  # the queue is durable, and the next one who offers something tries again
            _log.error("embedding_worker_not_started")

    def _work(self) -> None:
        while True:
            rest = _contained(self.step, self._crashed)
            with self._condition:
                if self._closing:
                    return
                if rest != 0.0 and (rest is None or not self._is_work_waiting()):
                    self._condition.wait(rest)
                    if self._closing:
                        return

    def _crashed(self, error: Exception) -> float:
        """The worker outlives its own faults: nothing is in flight and all is swept; seconds to rest."""
        _log.error("embedding_worker_fault code=%s", cause_of(error))
        with self._condition:
            self._state.landed()
            self._sweep_at, self._sweep_all = 0.0, True
        return _CRASH_PAUSE_S

    def _is_work_waiting(self) -> bool:
        """Something came between the turn and the wait. Needs the lock."""
        wait = self._state.wait_s(self._clock())
        return (wait is not None and wait <= 0.0) or self._sweep_at == 0.0


def _contained(work: Callable[[], T], otherwise: Callable[[Exception], T]) -> T:
    """The worker's boundary: what ``work`` raises goes to ``otherwise``, and no further."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - each turn decides by the type what becomes of its memories
        return otherwise(error)


def _noted(event: str) -> Callable[[Exception], None]:
    """Writes that something failed, and its cause, into the log."""
    return lambda error: _log.warning("%s code=%s", event, cause_of(error))


def classify(error: Exception) -> tuple[Failure, str]:
    """What an exception means for the queue, and its stable code. Looks at the type, never the text."""
    code = error.code if isinstance(error, StrongroomError) else "internal"
    if isinstance(error, EmbeddingRejectedError):
        return Failure.REJECTED, code
    if isinstance(error, _OUTAGES):
        return Failure.OUTAGE, code
    return Failure.FAULT, code


def _settings(config: EmbeddingConfig) -> QueueSettings:
    if not (config.batch_size_max and config.channel_items_max and config.attempts_max):
        raise ConfigurationError(
            "embedding.batch_size_max, channel_items_max and attempts_max must be positive"
        )
    return QueueSettings(
        batch_size_max=config.batch_size_max,
        channel_items_max=config.channel_items_max,
        attempts_max=config.attempts_max,
        backoff_s_min=max(config.backoff_ms_min, 1) / 1000,
        backoff_s_max=max(config.backoff_ms_max, config.backoff_ms_min, 1) / 1000,
    )
