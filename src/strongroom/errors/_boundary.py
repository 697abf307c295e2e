"""What becomes of an exception where nobody could catch it: in threads, plug-ins, and on the way out."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from strongroom.errors._base import StrongroomError
from strongroom.errors._state import LimitExceededError


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


def thread_started(thread: Thread) -> bool:
    """Start a thread; False: the system gives no more of them, and whoever asks goes on without.

    A thread that could not be started must not be kept: nobody can wait for it, and it looks as if it ran.
    """
    try:
        thread.start()
    except RuntimeError:  # at the limit of threads, and at the end of the process
        return False
    return True


def require_thread(thread: Thread) -> None:
    """Start a thread that the work cannot do without.

    Raises:
        LimitExceededError: the system gives no more of them.
    """
    if not thread_started(thread):
        raise LimitExceededError(
            "the system starts no more threads", hint="raise its limit (ulimit -u, pids.max), or repeat later"
        )
