"""What stands between Strongroom and a service over a network: retries, a circuit breaker, figures.

``Breaker`` is a state machine without I/O and without a clock of its own. ``Guard`` drives it: it repeats
what failed because the service did not answer, with full jitter (Brooker, "Exponential Backoff And
Jitter", AWS 2015), and stops asking a service that is down. Answers, also refusals, are never repeated.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from strongroom.errors import ClosedError, InvalidInputError, KmsUnavailableError, StrongroomError

T = TypeVar("T")

ATTEMPTS_MAX: Final = 10
_OK: Final = "ok"


class BreakerState(StrEnum):
    """``closed``: requests pass. ``open``: none passes. ``half_open``: one passes, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after ``failures_max`` failures in a row; lets one request through after ``open_s`` seconds.

    Times are seconds of one monotonic clock, given by the caller. Not thread-safe: hold a lock.
    """

    def __init__(self, *, failures_max: int, open_s: float) -> None:
        if failures_max < 1 or open_s <= 0:
            raise InvalidInputError("a circuit breaker needs at least one failure and some time")
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._opened_at: float | None = None
        self._probe_at: float | None = None

    def state(self, now: float) -> BreakerState:
        """The state at ``now``."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opened_at + self._open_s else BreakerState.HALF_OPEN

    def admit(self, now: float) -> bool:
        """Whether a request may go out; in the state half-open only one until its outcome is told.

        A probe whose outcome nobody tells within ``open_s`` counts as lost, and another may go out.
        """
        state = self.state(now)
        if state is BreakerState.HALF_OPEN:
            if self._probe_at is not None and now < self._probe_at + self._open_s:
                return False
            self._probe_at = now
            return True
        return state is BreakerState.CLOSED

    def succeeded(self) -> None:
        """The service has answered, be it with a refusal."""
        self._failures, self._opened_at, self._probe_at = 0, None, None

    def failed(self, now: float) -> None:
        """The service has not answered."""
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._failures_max:
            self._opened_at, self._probe_at = now, None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """How patient a guard is. One call takes at most ``attempts_max`` requests and the waits between."""

    attempts_max: int = 4
    backoff_ms_base: int = 100
    backoff_ms_max: int = 2_000
    failures_max: int = 8  # requests in a row without an answer until the breaker opens
    open_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsHealth:
    """How a provider is doing. Holds no secret.

    ``calls`` counts requests by (operation, outcome): outcome is ``ok`` or the code of an error.
    ``seconds`` is the sum of their durations by operation. ``silent_s``: seconds since the
    last answer of any kind; None: there was none yet.
    """

    breaker: BreakerState = BreakerState.CLOSED
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    last_error: str | None = None
    silent_s: float | None = None

    @property
    def requests(self) -> int:
        """All requests so far."""
        return sum(self.calls.values())


class Guard:
    """Calls a service, patiently and not forever. Thread-safe."""

    def __init__(
        self,
        settings: GuardSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``wait(seconds)`` waits and says whether to give up; the default does when the guard is closed."""
        if not 1 <= settings.attempts_max <= ATTEMPTS_MAX:
            raise InvalidInputError(f"1 to {ATTEMPTS_MAX} attempts")
        self._settings = settings
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._uniform = uniform
        self._breaker = Breaker(failures_max=settings.failures_max, open_s=settings.open_ms / 1000)
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, float] = {}
        self._last_error: str | None = None
        self._answered_at: float | None = None

    def call(self, operation: str, ask: Callable[[], T]) -> T:
        """What ``ask`` returns; asked again while it raises KmsUnavailableError and attempts are left.

        Raises:
            KmsUnavailableError: no answer, or the breaker is open. ClosedError. What else ``ask`` raises.
        """
        for attempt in range(self._settings.attempts_max):
            if attempt and self._wait(self._delay_s(attempt)):
                raise ClosedError("the key management provider was closed")
            try:
                return self._once(operation, ask)
            except KmsUnavailableError:
                if attempt + 1 == self._settings.attempts_max or not self._closes_soon():
                    raise
        raise KmsUnavailableError  # not reached: there is at least one attempt

    def health(self) -> KmsHealth:
        """The figures at this moment."""
        with self._lock:
            now = self._clock()
            return KmsHealth(
                breaker=self._breaker.state(now),
                calls=dict(self._calls),
                seconds=dict(self._seconds),
                last_error=self._last_error,
                silent_s=None if self._answered_at is None else now - self._answered_at,
            )

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed.set()

    def _closes_soon(self) -> bool:
        with self._lock:
            return self._breaker.state(self._clock()) is BreakerState.CLOSED

    def _delay_s(self, attempt: int) -> float:
        longest = min(self._settings.backoff_ms_max, self._settings.backoff_ms_base * 2 ** (attempt - 1))
        return self._uniform(0, longest / 1000)

    def _once(self, operation: str, ask: Callable[[], T]) -> T:
        if self._closed.is_set():
            raise ClosedError("the key management provider was closed")
        started = self._clock()
        with self._lock:
            if not self._breaker.admit(started):
                raise KmsUnavailableError(
                    "the key management service did not answer lately; it is asked again in a few seconds"
                )
        outcome, answered = "internal", True
        try:
            value = ask()
            outcome = _OK
            return value
        except KmsUnavailableError as e:
            outcome, answered = e.code, e.code != KmsUnavailableError.code  # throttled is an answer
            raise
        except StrongroomError as e:
            outcome = e.code
            raise
        except Exception as e:  # noqa: BLE001 - an answer of a form that no library has foreseen is no answer
            outcome, answered, kind = KmsUnavailableError.code, False, type(e).__name__
        finally:
            self._note(operation, outcome, answered, started)
        raise KmsUnavailableError(f"the answer of the key management service was not understood ({kind})")

    def _note(self, operation: str, outcome: str, answered: bool, started: float) -> None:
        now = self._clock()
        with self._lock:
            self._calls[operation, outcome] = self._calls.get((operation, outcome), 0) + 1
            self._seconds[operation] = self._seconds.get(operation, 0.0) + now - started
            if outcome != _OK:
                self._last_error = outcome
            if answered:
                self._answered_at = now
                self._breaker.succeeded()
            else:
                self._breaker.failed(now)
