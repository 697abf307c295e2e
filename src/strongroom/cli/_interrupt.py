"""Ctrl-C, from the first line that Python runs of ours to the last: one line, exit status 130.

    while modules are imported   nothing is open: the process ends at once
    while a command runs         KeyboardInterrupt closes what is open; a second Ctrl-C ends the process at
                                 once, wherever it waits
    behind the command           whatever is left to do is left

It imports next to nothing, so that it is in force as early as it can be.
"""

from __future__ import annotations

import os
import signal

__all__ = ["INTERRUPTED", "LINE", "at_once", "by_exception", "by_the_system", "end"]

INTERRUPTED = 130
LINE = b"interrupted\n"


def end(*_: object) -> None:
    """Say so, and end the process."""
    try:
        os.write(2, LINE)
    finally:
        os._exit(INTERRUPTED)


def _raise(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _ours() -> bool:
    """False: whoever started the command has it ignore Ctrl-C, or has a way of its own."""
    return signal.getsignal(signal.SIGINT) in (signal.default_int_handler, end, _raise)


def at_once() -> None:
    """From now on Ctrl-C ends the process."""
    if _ours():
        signal.signal(signal.SIGINT, end)


def by_exception() -> None:
    """From now on Ctrl-C is KeyboardInterrupt, and a second one ends the process."""
    if _ours():
        signal.signal(signal.SIGINT, _raise)


def by_the_system() -> None:
    """From now on Ctrl-C kills the process, without a word of Python's."""
    if _ours():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
