"""How long an unwrapped namespace key may be used without the KMS being asked again: a state machine.

A *lease* begins when the KMS has unwrapped (or just wrapped) the key. In its first part the key is used
without a question. Later the KMS is asked again beside the use; while it does not answer, the key is
used on. At the end of the lease, or when the KMS refuses, the key is not used any more until the KMS
unwraps it again.

Namespaces under the same master keys are a *group*. An answer about one of them shows that the master key is
there and enabled, so the others need not ask yet; but each asks about itself before half of its lease is
over, and its end is moved by nobody else. A refusal makes the others ask at once.
No I/O; times are seconds of one clock that the caller gives. Not thread-safe: hold a lock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.errors import StrongroomError

CACHE_S: Final = 7200.0
FRESH_PART: Final = 0.125  # of the lease: how long nobody of a group asks
FRESH_JITTER: Final = 0.25  # of that: so that namespaces which began together do not ask together
OWN_PART: Final = 0.5  # of the lease: when the key itself is asked for, whoever else of its group was
OWN_JITTER: Final = 0.1
RETRY_PART: Final = 0.01  # of the lease: between two questions without an answer
PAUSE_S: Final = 1.0  # between two questions about a key that may not be used


class LeaseState(StrEnum):
    """``fresh``: used without a question. ``due``: asked for beside the use. ``over``: not to be used."""

    FRESH = "fresh"
    DUE = "due"
    OVER = "over"


Group = tuple[int, ...]  # the master keys of a namespace, by their numbers in the keyring


@dataclass(slots=True)
class _Lease:
    began: float
    fresh_until: float
    ask_at: float
    own_until: float = 0.0
    group: Group = ()
    over: bool = False


class Leases:
    """The leases of one process, by namespace."""

    def __init__(self, cache_s: float, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._cache_s = cache_s
        self._uniform = uniform
        self._leases: dict[int, _Lease] = {}
        self._refusals: dict[int, tuple[StrongroomError, float]] = {}

    def fresh(self, ns: int, now: float) -> bool:
        """Whether the key may be used without further ado; True without a lease: nothing is held."""
        lease = self._leases.get(ns)
        return lease is None or now < lease.ask_at

    def state(self, ns: int, now: float) -> LeaseState | None:
        """The state; None: this process has never had the key."""
        lease = self._leases.get(ns)
        if lease is None:
            return None
        if lease.over or now >= lease.began + self._cache_s:
            return LeaseState.OVER
        return LeaseState.FRESH if now < lease.fresh_until else LeaseState.DUE

    def begin(self, ns: int, asked_at: float, group: Group = ()) -> None:
        """The KMS was asked at that time and has answered with the key; the group of the key is not empty."""
        own_until = self._before(asked_at, OWN_PART, OWN_JITTER)
        fresh_until = self._before(asked_at, FRESH_PART, FRESH_JITTER)
        self._leases[ns] = _Lease(asked_at, fresh_until, fresh_until, own_until, group)
        self._refusals.pop(ns, None)
        for lease in self._siblings(ns, group, asked_at):
            vouched = min(lease.own_until, self._before(asked_at, FRESH_PART, FRESH_JITTER))
            if vouched > lease.fresh_until:
                lease.fresh_until = lease.ask_at = vouched

    def _before(self, asked_at: float, share: float, jitter: float) -> float:
        """A time when so much of the lease is over, or somewhat earlier."""
        part = self._cache_s * share
        return asked_at + part - self._uniform(0, part * jitter)

    def _siblings(self, ns: int, group: Group, now: float) -> list[_Lease]:
        """The other leases of a group that are not over."""
        if not group:
            return []
        return [
            lease
            for other, lease in self._leases.items()
            if other != ns and lease.group == group and not lease.over and now < lease.began + self._cache_s
        ]

    def postpone(self, ns: int, now: float) -> None:
        """A question is on its way, or was not answered: the next one not at once, the end as before."""
        lease = self._leases.get(ns)
        if lease is not None and not lease.over:
            wait = max(PAUSE_S, self._cache_s * RETRY_PART)
            lease.ask_at = min(now + wait, lease.began + self._cache_s)

    def end(self, ns: int) -> None:
        """The key may not be used from now on."""
        lease = self._leases.get(ns)
        if lease is None:
            lease = self._leases[ns] = _Lease(0.0, 0.0, 0.0)
        lease.over, lease.ask_at = True, float("-inf")

    def refuse(self, ns: int, error: StrongroomError, now: float) -> None:
        """Remember why a key that may not be used could not be had."""
        self._refusals[ns] = (error, now + PAUSE_S)

    def doubt(self, ns: int, now: float) -> None:
        """The KMS has refused this key: what its group was told by others is not relied on any more."""
        refused = self._leases.get(ns)
        if refused is not None:
            for lease in self._siblings(ns, refused.group, now):
                lease.fresh_until, lease.ask_at = min(lease.fresh_until, now), min(lease.ask_at, now)

    def refusal(self, ns: int, now: float) -> StrongroomError | None:
        """The error of a moment ago: the KMS need not be asked for it again."""
        found = self._refusals.get(ns)
        if found is None or now >= found[1]:
            return None
        error = found[0]
        return type(error)(error.message, hint=error.hint)

    def last_error(self, ns: int) -> StrongroomError | None:
        """Why the key could not be had when it was last asked for."""
        found = self._refusals.get(ns)
        return None if found is None else found[0]

    def age_s(self, ns: int, now: float) -> float | None:
        """Seconds since the KMS has last answered with the key."""
        lease = self._leases.get(ns)
        return None if lease is None or lease.began == 0.0 else now - lease.began

    def known(self) -> list[int]:
        """The namespaces that this process has asked for."""
        return sorted({*self._leases, *self._refusals})

    def over(self, now: float) -> list[int]:
        """Those whose lease has run out without having been ended."""
        return [
            ns for ns, lease in self._leases.items() if not lease.over and now >= lease.began + self._cache_s
        ]
