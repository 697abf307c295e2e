"""How often somebody may ask, and how long one waits after wrong credentials. Pure: the clock comes in.

Two guards with bounded memory, for one process:

- ``RateLimit``: a token bucket for each key. A bucket that is full again is forgotten, so that memory holds
  only those who have asked lately.
- ``Backoff``: after some failures in a row each further one doubles the time for which that key has to wait.
  Success forgets; so does silence.

When the table is full the entry that was used longest ago goes: whoever floods it with new addresses loses
nobody's protection but that of the quietest.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Final

__all__ = ["Backoff", "RateLimit", "network_of"]

_SHIFT_MAX: Final = 32
_SOURCES_KEPT: Final = 1024


@lru_cache(_SOURCES_KEPT)
def network_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class RateLimit:
    """``per_s`` requests a second on average, ``burst`` at once; 0 a second: no limit."""

    def __init__(self, per_s: float, burst: int, entries_max: int) -> None:
        self._per_s = per_s
        self._burst = max(1, burst)
        self._entries_max = max(1, entries_max)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, when
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, now: float) -> float:
        """0: it may ask, and has; otherwise how many seconds too early it is."""
        if self._per_s <= 0:
            return 0.0
        with self._lock:
            left, then = self._buckets.pop(key, (float(self._burst), now))
            left = min(float(self._burst), left + max(0.0, now - then) * self._per_s)
            allowed = left >= 1.0
            self._buckets[key] = (left - 1.0 if allowed else left, max(now, then))
            if len(self._buckets) > self._entries_max:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_s


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    until: float


class Backoff:
    """``free`` failures cost nothing; then ``first_s``, doubled up to ``longest_s``."""

    def __init__(
        self, free: int, first_s: float, longest_s: float, forget_s: float, entries_max: int
    ) -> None:
        self._free = free
        self._first_s = first_s
        self._longest_s = longest_s
        self._forget_s = forget_s
        self._entries_max = max(1, entries_max)
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, key: str, now: float) -> float:
        """0: it need not wait; otherwise how many seconds too early it is."""
        found = self._failures.get(key)
        return 0.0 if found is None else max(0.0, found.until - now)

    def failed(self, key: str, now: float) -> None:
        """A wrong credential was shown."""
        if self._free <= 0:
            return
        with self._lock:
            found = self._failures.pop(key, None)
            if found is None or now - found.last > self._forget_s:
                found = _Failures(0, now, 0.0)
            found.count += 1
            found.last = now
            over = found.count - self._free
            if over > 0:
                found.until = now + min(self._longest_s, self._first_s * 2.0 ** min(over - 1, _SHIFT_MAX))
            self._failures[key] = found
            if len(self._failures) > self._entries_max:
                self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """A right credential was shown."""
        if key in self._failures:
            with self._lock:
                self._failures.pop(key, None)
