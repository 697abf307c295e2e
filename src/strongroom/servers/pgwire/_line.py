"""A signed-in connection on a thread of its own: it waits, works and answers there, without handing over.

A statement of a millisecond does not bear three changes of thread. The socket is the one of the event loop,
taken over after signing in; the protocol is the same generator of effects. What works counts in the worker
pool like everything else, and waits in its line when others are at work.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from strongroom.config import PgwireConfig
from strongroom.errors import require_thread
from strongroom.servers.http import Log, WorkerPool
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._budget import Share
from strongroom.servers.pgwire._effects import (
    Effect,
    IdleTimeoutError,
    Pause,
    Receive,
    Send,
    ShutdownError,
    StartTls,
    Steps,
    Work,
    drive_here,
)
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._metrics import WireMetrics
from strongroom.servers.pgwire._tls import TlsPipe

__all__ = ["Line"]

_READ_BYTES: Final = 65_536
_LONG_S: Final = 1_000_000.0  # stands for "no limit": the sockets stay in the mode that has limits
_CLOSE_S: Final = 1.0
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class _GoneError(Exception):
    """The client is not there any more, or takes no answer."""


class Line:
    """The socket of a connection, with its TLS, driven by one thread.

    ``cancel`` stops the statement under way. ``shut_down``, ``abort`` and ``look`` may be called from any
    thread; ``run`` is the thread.

    Args:
        fd: the socket; it is owned from here on, unless OSError is raised: no descriptor is left.
        first: bytes that were read from it and not decrypted yet.
        share: what the connection holds.
        turn: of its caller, held while its messages are read and answers are written down, but not while
            it waits or works.
    """

    def __init__(
        self,
        fd: int,
        pipe: TlsPipe,
        first: bytes,
        config: PgwireConfig,
        workers: WorkerPool,
        metrics: WireMetrics,
        log: Log,
        cancel: Callable[[str], None],
        request_id: str | None,
        share: Share,
        turn: threading.Lock,
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        try:
            self._writer = self._socket.dup()  # a limit of its own, without a system call for each change
        except OSError:
            self._socket.detach()
            raise
        self._idle_s = config.idle_timeout_ms / 1000
        self._socket.settimeout(self._idle_s or _LONG_S)
        self._writer.settimeout(config.send_timeout_ms / 1000 or _LONG_S)
        self._pipe = pipe
        self._first: bytes | None = first
        self._workers = workers
        self._metrics = metrics
        self._log = log
        self._cancel = cancel
        self._request_id = request_id
        self._share = share
        self._turn = turn
        self._closing = threading.Lock()  # whoever shuts a socket down must not meet the number of another
        self._closed = False
        self._shut_down = self._aborted = self._sending = False
        self._working_since: float | None = None

    # -- from other threads -------------------------------------------------------------------------------
    def shut_down(self) -> None:
        """End once nothing is under way."""
        self._shut_down = True
        self._end(socket.SHUT_RD)

    def abort(self) -> None:
        """End at once."""
        self._aborted = True
        self._cancel("user request")
        self._end(socket.SHUT_RDWR)

    def _end(self, how: int) -> None:
        with self._closing, suppress(OSError):
            if not self._closed:
                self._socket.shutdown(how)

    def give_way(self) -> None:
        """End, because others need what the connection holds while its client does not come."""
        self._metrics.refused.labels("held").inc()
        self._end(socket.SHUT_RDWR if self._sending else socket.SHUT_RD)

    def look(self, working_s: float) -> None:
        """Cancel what has been under way for so long when its client has hung up."""
        since = self._working_since
        if since is None or time.monotonic() - since < working_s:
            return
        with self._closing:
            if self._closed:
                return
            poll = select.poll()
            poll.register(self._socket, _HUNG_UP)
            gone = any(events & _HUNG_UP for _, events in poll.poll(0))
        if gone and not self._shut_down:
            self._cancel("user request")

    # -- the thread ---------------------------------------------------------------------------------------
    def run(self, steps: Steps[None]) -> None:
        """Carry out a conversation to its end, and close the socket."""
        try:
            with self._turn:
                drive_here(steps, self._carry_out)
        except PgError as e:
            self._refuse(e)
        except (_GoneError, OSError):  # ssl.SSLError is one
            self._metrics.refused.labels("connection").inc()
        except Exception as e:  # noqa: BLE001  # the outermost boundary of a connection's thread
            self._log.error("unexpected_error", surface="pgwire", type=type(e).__name__)
            self._refuse(PgError("XX000", "internal error", fatal=True))
        finally:
            self._close()

    def turn_away(self, error: PgError) -> None:
        """Instead of ``run``: tell the client why not."""
        self._refuse(error)
        self._close()

    def _carry_out(self, effect: Effect) -> Any:
        self._turn.release()
        try:
            return self._carried_out(effect)
        finally:
            self._turn.acquire()

    def _carried_out(self, effect: Effect) -> Any:
        if isinstance(effect, Send | Receive):
            self._share.wait()
            try:
                return self._send(effect.data) if isinstance(effect, Send) else self._receive()
            finally:
                self._share.work()
        if isinstance(effect, Pause):
            time.sleep(0)
            return None
        if isinstance(effect, StartTls) or self._aborted:
            raise _GoneError  # TLS has begun already; what was aborted between two statements begins no other
        return self._work(effect)

    def _work(self, effect: Work) -> Any:
        limit = _Limit(self._cancel, effect.time_limit_ms) if effect.time_limit_ms else None
        self._working_since = time.monotonic()
        try:
            return self._workers.run_here(
                partial(self._in_turn, effect.run) if effect.encodes else effect.run
            )
        finally:
            self._working_since = None
            if limit is not None:
                limit.over()

    def _in_turn(self, run: Callable[[], Any]) -> Any:
        with self._turn:
            return run()

    # -- bytes --------------------------------------------------------------------------------------------
    def _receive(self) -> bytes:
        if self._first is not None:  # also what came together with the end of the handshake
            first, self._first = self._first, None
            if plain := self._decrypted(first):
                return plain
        began = time.monotonic()
        while True:
            if self._shut_down:
                raise ShutdownError
            self._share.check()
            if self._idle_s and time.monotonic() - began > self._idle_s:  # bytes that make no message
                raise IdleTimeoutError
            try:
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                if self._idle_s:
                    raise IdleTimeoutError from None
                continue
            if not data:
                if self._shut_down:
                    raise ShutdownError
                self._share.check()
                return b""
            if plain := self._decrypted(data):
                return plain

    def _decrypted(self, data: bytes) -> bytes:
        if data:
            self._pipe.feed(data)
        try:
            plain = self._pipe.read()
        except ssl.SSLZeroReturnError:
            raise _GoneError from None  # the client has said goodbye inside TLS
        self._push()
        return plain

    def _send(self, data: bytes) -> None:
        self._pipe.write(data)
        self._push()

    def _push(self) -> None:
        out = self._pipe.outgoing()
        if not out:
            return
        self._sending = True
        try:
            self._writer.sendall(out)
        except TimeoutError:
            self._metrics.refused.labels("send_timeout").inc()
            raise _GoneError from None
        finally:
            self._sending = False

    def _refuse(self, error: PgError) -> None:
        self._metrics.refused.labels(error.sqlstate).inc()
        self._log.info("disconnected", surface="pgwire", sqlstate=error.sqlstate, request_id=self._request_id)
        with suppress(_GoneError, OSError):
            self._send(m.error_response(error))

    def _close(self) -> None:
        with suppress(_GoneError, OSError):
            self._writer.settimeout(_CLOSE_S)
            self._pipe.close()
            self._push()
        with self._closing:
            self._closed = True
            self._writer.close()
            self._socket.close()


class _Limit:
    """Cancels a piece of work after a time; never what comes after it.

    Raises:
        LimitExceededError: there is no thread that could.
    """

    def __init__(self, cancel: Callable[[str], None], limit_ms: int) -> None:
        self._cancel = cancel
        self._lock = threading.Lock()
        self._is_over = False
        self._timer = threading.Timer(limit_ms / 1000, self._reached)
        self._timer.daemon = True
        require_thread(self._timer)

    def _reached(self) -> None:
        with self._lock:
            if not self._is_over:
                self._cancel("statement timeout")

    def over(self) -> None:
        """The work has ended."""
        self._timer.cancel()
        with self._lock:
            self._is_over = True
