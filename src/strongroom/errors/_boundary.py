"""What becomes of an exception where nobody could catch it: in threads, plug-ins, and on the way out."""

from __future__ import annotations

from collections.abc import Callable

from strongroom.errors._base import StrongroomError


def cause_of(error: BaseException) -> str:
    """What a log may say of an error: our code, or the type of a foreign one; its text could be content."""
    return error.code if isinstance(error, StrongroomError) else type(error).__name__


def failure_of(work: Callable[[], object]) -> str:
    """Do ``work``; why it failed, as ``cause_of`` puts it, or "" when it did not.

    For work that nobody waits for, on a thread or on the way out: an exception would end the thread, or leave
    open what comes after, and be told to nobody. Whoever calls this writes the cause down.
    """
    try:
        work()
    except Exception as e:  # noqa: BLE001 - no caller is there to tell one type from another; all go to a log
        return cause_of(e)
    return ""
