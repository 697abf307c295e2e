"""A change that the ledger makes by itself, and what the audit log says of it, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import apsw

from strongroom.ledger._heads import ResetHead

T = TypeVar("T")
Job = Callable[[apsw.Connection], int]


class Telling(NamedTuple, Generic[T]):
    """What is told of a change. ``entry`` makes it from what was done, inside the transaction; it must not
    call the ledger. ``relies_on``: as in ``WriteBatch``."""

    entry: Callable[[T], bytes]
    relies_on: int | None = None


class Told(NamedTuple):
    """Work for the group. ``entry``: of what the work has answered; None: there is nothing to tell."""

    work: Job | ResetHead
    entry: Callable[[apsw.Connection, int], bytes | None]
    relies_on: int | None


def counted(work: Job | ResetHead, telling: Telling[int] | None) -> Job | ResetHead | Told:
    """Work that answers with a number, which its entry has; there is always one."""
    if telling is None:
        return work
    return Told(work, lambda _, count: telling.entry(count), telling.relies_on)
