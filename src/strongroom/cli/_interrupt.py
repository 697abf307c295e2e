"""Signals, from the first line that Python runs of ours to the last.

Ctrl-C (SIGINT): one line, exit status 130.

    while modules are imported   nothing is open: the process ends at once
    while a command runs         KeyboardInterrupt closes what is open, in ``CLOSING_S_MAX`` at most; a second
                                 Ctrl-C ends the process at once, wherever it waits
    behind the command           whatever is left to do is left, and the status is that of the command; from
                                 the last step of the interpreter on, which nothing interrupts, it is ignored

The system tells of a signal that comes twice before Python looks as of one; each is counted where it
arrives (``signal.set_wakeup_fd``), so that the second one is never lost.

A server that starts: SIGTERM ends it with one line and status 0, as it does later; SIGHUP changes nothing
before there are certificates in use (``servers.serve`` takes it over).

It imports next to nothing, so that it is in force as early as it can be.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # as type checkers read it, without the time to import typing
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = [
    "INTERRUPTED",
    "SERVERS",
    "STOPPED",
    "Stopped",
    "at_once",
    "by_exception",
    "end",
    "leave",
    "line",
    "no_server",
    "server_at_once",
    "server_by_exception",
    "server_stops",
    "settled",
]

INTERRUPTED = 130
_LINE = b"interrupted\n"
_LINE_JSON = b'{"error": {"code": "interrupted", "message": "interrupted"}}\n'
STOPPED = b'{"event": "stopped", "level": "info"}\n'
CLOSING_S_MAX = 30.0
SERVERS = frozenset({"serve", "embed-serve"})


class Stopped(BaseException):
    """SIGTERM came while a server was started. ``came``: also when it was told as something else."""

    came = False


_counted = -1  # the end of a pipe that a byte comes out of for each signal


def line(*, as_json: bool) -> bytes:
    """What is said of it, on the standard error."""
    return _LINE_JSON if as_json else _LINE


def end(*_: object) -> None:
    """Say so, and end the process."""
    try:
        os.write(2, line(as_json="--json" in sys.argv))
    finally:
        os._exit(INTERRUPTED)


def _raise(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _presses() > 1:  # the second one came before the first was looked at
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, CLOSING_S_MAX)
    raise KeyboardInterrupt


def _count() -> None:
    """From now on every signal is counted where it arrives."""
    global _counted
    if _counted < 0:
        _counted, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)


def _presses() -> int:
    """How often Ctrl-C was pressed since it was last asked; 0 when an event loop counts."""
    try:
        return os.read(_counted, 512).count(signal.SIGINT)
    except OSError:
        return 0


def _ours() -> bool:
    """False: whoever started the command has it ignore Ctrl-C, or has a way of its own."""
    return signal.getsignal(signal.SIGINT) in (signal.default_int_handler, end, _raise)


def at_once() -> None:
    """From now on Ctrl-C ends the process."""
    if _ours():
        signal.signal(signal.SIGINT, end)
        atexit.register(_ignored)  # the first one, so it is the last that is called
    if SERVERS.intersection(sys.argv[1:]):  # what the command is shows later: see ``no_server``
        server_at_once()


def by_exception() -> None:
    """From now on Ctrl-C is KeyboardInterrupt, and a second one ends the process."""
    if _ours():
        _count()
        signal.signal(signal.SIGINT, _raise)


def settled(status: int) -> None:
    """The command is over, and what it has to say is said: from now on Ctrl-C ends the process at once with
    the status that it has anyway."""
    if _ours() or signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # the latter after the first Ctrl-C
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))


def leave() -> NoReturn:
    """End the process whose command was interrupted, and closed what was open.

    Not by way of the interpreter: what the interrupt has left behind, DuckDB calls leaked there, in dozens of
    lines. And where KeyboardInterrupt has left the text of an ``exec``, as it does while a dataclass is made
    at import, CPython at its end kills a module that is run (``python -m``) by the signal once more.
    """
    try:
        atexit._run_exitfuncs()  # stores whose closing was interrupted are among them
    finally:
        os._exit(INTERRUPTED)


def _ignored() -> None:
    """What comes now is the end of the interpreter: it puts handlers back to those of the system, and the
    process would be killed where all is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_server(*_: object) -> None:
    try:
        os.write(2, STOPPED)
    finally:
        os._exit(0)


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is stopping
    Stopped.came = True
    raise Stopped


def server_at_once() -> None:
    """A server may be about to start: SIGTERM ends it, SIGHUP does nothing, also while it begins anew."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_server)


def no_server() -> None:
    """It was another command with such a word in it: a terminal that is closed ends it."""
    if signal.getsignal(signal.SIGTERM) is _end_server:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def server_by_exception() -> None:
    """From now on SIGTERM is ``Stopped``, once."""
    server_at_once()
    if signal.getsignal(signal.SIGTERM) is _end_server:
        signal.signal(signal.SIGTERM, _stop)


def server_stops() -> None:
    """From now on neither SIGTERM nor SIGHUP has anything left to do."""
    if signal.getsignal(signal.SIGTERM) in (_stop, _end_server):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
