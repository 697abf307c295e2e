"""How fast a wave may go: as fast as it can alone, and so that live traffic hardly notices beside it.

Every process that serves writes the median duration of its latest operations into a file of its own in
``DIR/live``; a worker reads them all. It learns what the median is while it rests, and rests longer when it
has grown by more than its allowance, less when it has not.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Lock, get_ident
from typing import Final

from strongroom.locks import work_under

DIRECTORY: Final = "live"
_FORM: Final = struct.Struct("<8sddI")  # magic, seconds since boot, median in seconds, operations
_MAGIC: Final = b"SRLIVE1\0"
_WRITE_S: Final = 0.2
_WINDOW_S: Final = 1.5
_SAMPLES_MAX: Final = 256
_SAMPLES_MIN: Final = 4
_STALE_S: Final = 1.0
_LOOK_S: Final = 0.3
_BASELINE_S: Final = 30.0
_BASELINE_REST_S: Final = 1.2
_LIMIT_S: Final = 5.0
_OLD_S: Final = 3600.0


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class TrafficMeter:
    """The serving side: notes how long operations take, and tells it to the workers of other processes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / DIRECTORY / f"{os.getpid()}-{os.urandom(4).hex()}"
        self._samples: deque[tuple[float, float, int]] = deque(maxlen=_SAMPLES_MAX)
        self._write_at = 0.0
        self._descriptor: int | None = None
        self._failed = False
        self._lock = Lock()

    def note(self, seconds: float) -> None:
        """An operation took so long. Costs about a microsecond; never fails."""
        now = _clock()
        self._samples.append((now, seconds, get_ident()))
        if now >= self._write_at:
            work_under(self._lock, partial(self._write_now, now))

    def recent(self, but: int) -> list[float]:
        """What operations of other threads than ``but`` took a moment ago."""
        since = _clock() - _STALE_S
        return [seconds for at, seconds, thread in list(self._samples) if at > since and thread != but]

    def _write_now(self, now: float) -> None:
        self._write_at = now + _WRITE_S
        self._write(now)

    def _write(self, now: float) -> None:
        recent = [s for at, s, _ in list(self._samples) if at > now - _WINDOW_S]
        if self._failed or not recent:
            return
        try:
            if self._descriptor is None:
                self.path.parent.mkdir(mode=0o700, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self.path, flags, 0o600)
            os.pwrite(self._descriptor, _FORM.pack(_MAGIC, now, median(recent), len(recent)), 0)
        except OSError:  # a hint for others, nothing more
            self._failed = True

    def close(self) -> None:
        """Take the file away."""
        with self._lock:
            self._failed = True
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
                with suppress(OSError):
                    self.path.unlink()


class TrafficView:
    """The worker's side: the median duration of what any process of the store serves just now.

    ``own``: the meter of this process; what the thread that asks has done itself does not count.
    """

    def __init__(self, directory: Path, own: TrafficMeter | None = None) -> None:
        self._directory = directory / DIRECTORY
        self._own = own

    def median_s(self) -> float | None:
        """Weighted by operations over the processes; None: nobody serves."""
        found: list[tuple[float, int]] = []
        if self._own is not None and (recent := self._own.recent(get_ident())):
            found.append((median(recent), len(recent)))
        now = _clock()
        try:
            files = list(self._directory.iterdir())
        except OSError:
            files = []
        for file in files:
            if self._own is not None and file == self._own.path:
                continue
            try:
                raw = file.read_bytes()
            except OSError:
                continue
            if len(raw) != _FORM.size:
                continue
            magic, at, seconds, count = _FORM.unpack(raw)
            if magic != _MAGIC or not 0 <= now - at < _STALE_S:
                if now - at > _OLD_S or at > now:
                    with suppress(OSError):
                        file.unlink()
                continue
            found.append((seconds, count))
        total = sum(count for _, count in found)
        if total < _SAMPLES_MIN:
            return None
        return sum(seconds * count for seconds, count in found) / total


class Pace:
    """Called after each batch with the seconds that it took; rests in proportion.

    ``allowance``: by how much the median may grow, 0.1 for a tenth. ``rest_max``: seconds of rest for a
    second of work, at most; a worker that works a tenth of the time touches a tenth of the operations, and
    does not move their median. What is slow nevertheless is slow for another reason, so at that limit it
    learns anew soon. ``rest_min``: at least so much while there is traffic. ``stop`` ends a rest.
    """

    def __init__(
        self,
        view: Callable[[], float | None],
        stop: Event,
        *,
        allowance: float,
        rest_max: float = 10.0,
        rest_min: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._stop = stop
        self._allowance = allowance
        self._rest_max = rest_max
        self._rest_min = rest_min
        self._clock = clock
        self._ratio = 0.0
        self._baseline: float | None = None
        self._baseline_at = 0.0
        self._look_at = 0.0

    @property
    def ratio(self) -> float:
        """Seconds of rest for a second of work."""
        return self._ratio

    def __call__(self, worked_s: float) -> None:
        if self._clock() >= self._look_at:
            self._look()
            self._look_at = self._clock() + _LOOK_S
        if self._ratio > 0.0:
            self._stop.wait(worked_s * self._ratio)

    def _look(self) -> None:
        now_s = self._view()
        if now_s is None:  # nobody to be considerate of
            self._ratio = self._ratio / 2 if self._ratio > 0.05 else 0.0
            return
        wait_s = _LIMIT_S if self._ratio >= self._rest_max else _BASELINE_S
        if self._baseline is None or self._clock() >= self._baseline_at + wait_s:
            self._learn()
            return
        if now_s > self._baseline * (1 + self._allowance):
            self._ratio = min(max(2 * self._ratio, 0.5), self._rest_max)
        elif now_s < self._baseline * (1 + self._allowance / 2):
            self._ratio *= 0.85
        self._ratio = max(self._ratio, self._rest_min)

    def _learn(self) -> None:
        """What the median is while this worker rests."""
        self._stop.wait(_BASELINE_REST_S if self._baseline is not None else _WINDOW_S + _WRITE_S)
        quiet = self._view()
        if quiet is not None:
            old = self._baseline
            capped = old is not None and self._ratio < self._rest_max  # others may be at work meanwhile
            self._baseline = min(quiet, 1.25 * old) if old is not None and capped else quiet
            self._ratio = max(self._ratio, 1.0 if old is None else 0.0, self._rest_min)
        self._baseline_at = self._clock()
