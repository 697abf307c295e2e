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
    number: int  # of what happened, in order
    fresh_until: float = 0.0  # by its own answer
    jitter: float = 0.0
    own_until: float = 0.0
    group: Group = ()
    over: bool = False
    postponed_until: float = 0.0
    postponed: int = 0  # the number of that; 0: it was not
    postponed_fresh: float = 0.0  # until when it was fresh then


@dataclass(slots=True)
class _Word:
    """What was last heard of a group: an answer, which vouches for all, and a doubt. Numbers in order."""

    answered_at: float = 0.0
    answered: int = 0
    doubted_at: float = 0.0
    doubted: int = 0


_SILENCE: Final = _Word()


class Leases:
    """The leases of one process, by namespace. Each step looks at one of them, however many there are."""

    def __init__(self, cache_s: float, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._cache_s = cache_s
        self._uniform = uniform
        self._leases: dict[int, _Lease] = {}
        self._words: dict[Group, _Word] = {}
        self._number = 0
        self._refusals: dict[int, tuple[StrongroomError, float]] = {}

    def fresh(self, ns: int, now: float) -> bool:
        """Whether the key may be used without further ado; True without a lease: nothing is held."""
        lease = self._leases.get(ns)
        return lease is None or (not lease.over and now < self._ask_at(lease))

    def state(self, ns: int, now: float) -> LeaseState | None:
        """The state; None: this process has never had the key."""
        lease = self._leases.get(ns)
        if lease is None:
            return None
        if lease.over or now >= lease.began + self._cache_s:
            return LeaseState.OVER
        return LeaseState.FRESH if now < self._fresh_until(lease) else LeaseState.DUE

    def begin(self, ns: int, asked_at: float, group: Group = ()) -> None:
        """The KMS was asked at that time and has answered with the key; the group of the key is not empty."""
        number = self._next()
        own_until = asked_at + self._cache_s * OWN_PART
        own_until -= self._uniform(0, self._cache_s * OWN_PART * OWN_JITTER)
        jitter = self._uniform(0, self._fresh_s * FRESH_JITTER)
        fresh_until = asked_at + self._fresh_s - jitter
        self._leases[ns] = _Lease(asked_at, number, fresh_until, jitter, own_until, group)
        self._refusals.pop(ns, None)
        if group:
            word = self._words.setdefault(group, _Word())
            late = word.answered > word.doubted  # what was asked first may be answered last
            word.answered_at = max(asked_at, word.answered_at) if late else asked_at
            word.answered = number

    @property
    def _fresh_s(self) -> float:
        return self._cache_s * FRESH_PART

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _fresh_until(self, lease: _Lease) -> float:
        """By its own answer, by that of another of its group, and by no answer from before a doubt."""
        word = self._words.get(lease.group, _SILENCE)
        fresh = lease.fresh_until
        if word.doubted > lease.number:
            fresh = min(fresh, word.doubted_at)
            if word.answered < word.doubted:
                return fresh
        if word.answered > lease.number:
            fresh = max(fresh, min(lease.own_until, word.answered_at + self._fresh_s - lease.jitter))
        return fresh

    def _ask_at(self, lease: _Lease) -> float:
        fresh = self._fresh_until(lease)
        if not lease.postponed:
            return fresh
        word = self._words.get(lease.group, _SILENCE)
        vouched = word.answered > lease.postponed and fresh > lease.postponed_fresh
        return fresh if vouched or word.doubted > lease.postponed else lease.postponed_until

    def postpone(self, ns: int, now: float) -> None:
        """A question is on its way, or was not answered: the next one not at once, the end as before."""
        lease = self._leases.get(ns)
        if lease is not None and not lease.over:
            wait = max(PAUSE_S, self._cache_s * RETRY_PART)
            lease.postponed_fresh = self._fresh_until(lease)
            lease.postponed_until = min(now + wait, lease.began + self._cache_s)
            lease.postponed = self._next()

    def end(self, ns: int) -> None:
        """The key may not be used from now on."""
        lease = self._leases.get(ns)
        if lease is None:
            lease = self._leases[ns] = _Lease(0.0, self._next())
        lease.over = True

    def refuse(self, ns: int, error: StrongroomError, now: float) -> None:
        """Remember why a key that may not be used could not be had."""
        self._refusals[ns] = (error, now + PAUSE_S)

    def doubt(self, ns: int, now: float) -> None:
        """The KMS has refused this key: what its group was told by others is not relied on any more."""
        refused = self._leases.get(ns)
        if refused is not None and refused.group:
            word = self._words.setdefault(refused.group, _Word())
            word.doubted_at, word.doubted = now, self._next()

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
