"""What becomes of an exception where nobody could catch it: in threads, plug-ins, and on the way out."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from strongroom.errors._base import StrongroomError
from strongroom.errors._input import InvalidInputError
from strongroom.errors._state import LimitExceededError

_S = TypeVar("_S")
_T = TypeVar("_T")


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


def callers_own(work: Callable[[_S], _T], given: _S, what_failed: str) -> _T:
    """Do what runs code of the caller's own: its errors, which could hold content, are told by their type.

    Raises:
        InvalidInputError: ``what_failed``, and the type of the error.
    """
    try:
        return work(given)
    except StrongroomError:
        raise
    except Exception as e:  # noqa: BLE001 - an iterator, mapping or function of the caller raises what it likes
        failure = type(e).__name__
    raise InvalidInputError(f"{what_failed} ({failure})")


def thread_started(thread: Thread) -> bool:
    """Start a thread; False: the system gives no more of them, and whoever asks goes on without.

    A thread that could not be started must not be kept: nobody can wait for it, and it looks as if it ran.
    """
    try:
        thread.start()
    except RuntimeError:  # at the limit of threads, and at the end of the process
        return False
    return True


def no_memory() -> StrongroomError:
    """What a ``MemoryError`` is told as."""
    return LimitExceededError(
        "the system gives the process no more memory", hint="give it more, or do less at a time"
    )


def require_thread(thread: Thread) -> None:
    """Start a thread that the work cannot do without.

    Raises:
        LimitExceededError: the system gives no more of them.
    """
    if not thread_started(thread):
        raise LimitExceededError(
            "the system starts no more threads", hint="raise its limit (ulimit -u, pids.max), or repeat later"
        )
