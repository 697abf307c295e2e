"""The key agent: a process of its own that alone talks to the KMS (spec/key-agent.md).

One thread for each connection; connections are few and stay open. A request is checked, done, written to
the log, and answered, in that order; what cannot be written to the log is not answered.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import lend
from strongroom.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    KmsDeniedError,
    KmsThrottledError,
    StrongroomError,
    require_thread,
    thread_started,
)
from strongroom.kms._agent_log import LOG_PURPOSE, AgentLog, read_agent_log
from strongroom.kms._agent_wire import (
    ANSWER_HEAD,
    FAILED,
    FRAME_BYTES_MAX,
    KEY_BYTES,
    LENGTH,
    OK,
    VERSION,
    Operation,
    code_of,
    describe_payload,
    health_payload,
    read_context,
    split_unwrap,
)
from strongroom.kms._contract import KmsProvider
from strongroom.kms._directory import key_uris
from strongroom.kms._envelope import EnvelopeKms
from strongroom.kms.agent import peer_of, receive_into
from strongroom.kms.files import storage_error

__all__ = ["AgentLimits", "AgentLog", "AgentServer", "Bucket", "read_agent_log"]

_LOGGED: Final = ("store_id", "namespace", "key_version", "purpose")
_LOGGED_CHARACTERS_MAX: Final = 100
_SYNC_S: Final = 1.0
_BACKLOG: Final = 64
_NOISE_PER_S: Final = 1.0
_NOISE_BURST: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """Rates count wraps and unwraps of one user together."""

    connections_max: int = 64
    connections_per_user_max: int = 32
    requests_per_s_max: float = 100.0
    requests_burst_max: int = 1_000
    frame_s_max: float = 10.0  # from the first byte of a request to its last
    idle_s_max: float = 300.0  # without a request


class Bucket:
    """A token bucket: ``per_s`` on average, ``burst`` at once. Times are seconds of the caller's clock."""

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = float(burst), now

    def take(self, now: float) -> bool:
        """Whether one more may pass."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class AgentServer:
    """Serves ``provider`` on a socket to the users ``allowed``, for the stores ``stores`` (empty: all)."""

    def __init__(
        self,
        path: Path,
        provider: KmsProvider,
        log: AgentLog,
        *,
        allowed: frozenset[int],
        stores: frozenset[str] = frozenset(),
        limits: AgentLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the socket; nobody is served before ``serve``.

        Raises:
            ConflictError: an agent listens there. ConfigurationError: nobody is allowed, or something
            else has the path. StorageError: it cannot be made.
        """
        if not allowed:
            raise ConfigurationError("a key agent that serves nobody is of no use")
        self._path, self._provider, self._log = path, provider, log
        self._allowed, self._stores = allowed, stores
        self._limits = limits or AgentLimits()
        self._clock = clock
        self._lock = threading.RLock()  # a signal may stop the server while its thread holds it
        self._stop = threading.Event()
        self._connections: dict[socket.socket, int] = {}
        self._buckets: dict[int, Bucket] = {}
        self._noise: dict[int, Bucket] = {}
        self._counts = {"wraps": 0, "unwraps": 0, "refused": 0}
        self._listener = _bound(path, private=allowed <= {os.geteuid()})
        self._identity = _identity(path)

    def serve(self) -> None:
        """Until ``stop``."""
        syncer = threading.Thread(target=self._sync, name="key-agent-sync", daemon=True)
        require_thread(syncer)
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._stop.is_set():
                    break
                self._stop.wait(0.1)  # out of descriptors, most likely: some will be free again
                continue
            if not self._admit(connection):
                connection.close()
        syncer.join(timeout=5)

    def stop(self) -> None:
        """Close the socket and all connections. May be called twice, and by a signal handler's thread."""
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for a connection
        self._listener.close()
        if _identity(self._path) == self._identity:  # not one that another agent has put there since
            self._path.unlink(missing_ok=True)
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def health(self) -> dict[str, str]:
        """Figures, as texts."""
        breaker = self._provider.health().breaker.value if isinstance(self._provider, EnvelopeKms) else ""
        with self._lock:
            return {
                **{name: str(count) for name, count in self._counts.items()},
                "connections": str(len(self._connections)),
                "breaker": breaker,
                "log_entries": str(self._log.entries),
            }

    # -- connections ----------------------------------------------------------------------------------
    def _admit(self, connection: socket.socket) -> bool:
        try:
            pid, uid = peer_of(connection)
            connection.settimeout(self._limits.idle_s_max)
        except OSError:
            return False
        with self._lock:
            full = (
                len(self._connections) >= self._limits.connections_max
                or sum(u == uid for u in self._connections.values()) >= self._limits.connections_per_user_max
            )
            if uid in self._allowed and not full:
                self._connections[connection] = uid
        if uid not in self._allowed:
            self._count("refused")
            with suppress(StrongroomError):  # it gets nothing, so nothing happens that had to be written
                self.note_refusal("connect", "kms_denied", {"uid": uid, "pid": pid}, uid)
            return False
        if full:
            self._count("refused")
            return False
        thread = threading.Thread(
            target=self._converse, args=(connection, pid, uid), name="key-agent-connection", daemon=True
        )
        if not thread_started(thread):
            with self._lock:
                del self._connections[connection]
            self._count("refused")
            return False
        return True

    def _converse(self, connection: socket.socket, pid: int, uid: int) -> None:
        room = memoryview(bytearray(FRAME_BYTES_MAX))
        try:
            while not self._stop.is_set():
                length = self._read(connection, room)
                if length is None or room[0] != VERSION or room[1] not in list(Operation):
                    return
                try:
                    self._answer(connection, Operation(room[1]), room[2:length], pid, uid)
                finally:
                    room[:length] = bytes(length)
        except (OSError, EOFError):
            return  # the peer has gone, or was too slow
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _read(self, connection: socket.socket, room: memoryview) -> int | None:
        """The length of the next frame, which is in ``room`` then; None: it is out of bounds."""
        connection.settimeout(self._limits.idle_s_max)
        receive_into(connection, room[:1])
        until = self._clock() + self._limits.frame_s_max
        self._fill(connection, room[1 : LENGTH.size], until)
        (length,) = LENGTH.unpack(room[: LENGTH.size])
        if not 2 <= length <= FRAME_BYTES_MAX:
            return None
        self._fill(connection, room[:length], until)
        return int(length)

    def _fill(self, connection: socket.socket, room: memoryview, until: float) -> None:
        at = 0
        while at < len(room):
            left = until - self._clock()
            if left <= 0:
                raise EOFError
            connection.settimeout(left)
            got = connection.recv_into(room[at:])
            if not got:
                raise EOFError
            at += got

    # -- requests -------------------------------------------------------------------------------------
    def _answer(
        self, connection: socket.socket, operation: Operation, payload: memoryview, pid: int, uid: int
    ) -> None:
        key: SecretKey | None = None
        try:
            if operation is Operation.DESCRIBE:
                uris = key_uris(self._provider)
                answer: bytes | memoryview = describe_payload(self._provider.describe(), uris[1:])
            elif operation is Operation.HEALTH:
                answer = health_payload(self.health())
            elif operation is Operation.WRAP:
                answer = self._wrap(payload, pid, uid)
            else:
                key = self._unwrap(payload, pid, uid)
                answer = lend(key)
        except StrongroomError as e:
            self._count("refused")
            self._send(connection, FAILED, code_of(e))
            return
        self._send(connection, OK, answer)

    def _wrap(self, payload: memoryview, pid: int, uid: int) -> bytes:
        if len(payload) <= KEY_BYTES:
            raise InvalidInputError("the request has not the form of a wrap")
        context = read_context(bytes(payload[KEY_BYTES:]))
        with self._logged("wrap", context, pid, uid):
            wrapped = self._provider.wrap(SecretKey.from_bytes(payload[:KEY_BYTES]), context)
        self._count("wraps")
        return wrapped

    def _unwrap(self, payload: memoryview, pid: int, uid: int) -> SecretKey:
        bound, wrapped = split_unwrap(bytes(payload))
        context = read_context(bound)
        with self._logged("unwrap", context, pid, uid):
            key = self._provider.unwrap(wrapped, context)
        self._count("unwraps")
        return key

    def _logged(self, op: str, context: Mapping[str, str], pid: int, uid: int) -> _Logged:
        fields: dict[str, str | int] = {"uid": uid, "pid": pid}
        fields.update({name: _brief(context[name]) for name in _LOGGED if name in context})
        return _Logged(self, op, fields, context, uid)

    def check(self, context: Mapping[str, str], uid: int) -> None:
        """Raises: KmsThrottledError: too many requests of this user. KmsDeniedError: not a store of ours."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.get(uid)
            if bucket is None:
                limits = self._limits
                bucket = self._buckets[uid] = Bucket(
                    limits.requests_per_s_max, limits.requests_burst_max, now
                )
            passed = bucket.take(now)
        if not passed:
            raise KmsThrottledError
        if self._stores and context.get("store_id", "") not in self._stores:
            raise KmsDeniedError("the key agent does not serve this store")
        if context.get("purpose") == LOG_PURPOSE:
            raise KmsDeniedError("the key of its log is for the key agent alone")

    def note(self, op: str, outcome: str, fields: Mapping[str, str | int]) -> None:
        """One line of the log. Raises: StorageError."""
        self._log.append(op, outcome=outcome, **fields)

    def note_refusal(self, op: str, outcome: str, fields: Mapping[str, str | int], uid: int) -> None:
        """One line of the log, unless there were too many of these lately: a flood is counted, not told."""
        now = self._clock()
        with self._lock:
            bucket = self._noise.setdefault(uid, Bucket(_NOISE_PER_S, _NOISE_BURST, now))
            passed = bucket.take(now)
        if passed:
            self.note(op, outcome, fields)

    def _send(self, connection: socket.socket, status: int, payload: bytes | memoryview) -> None:
        connection.settimeout(self._limits.frame_s_max)
        head = ANSWER_HEAD.pack(1 + len(payload), status)
        sent = connection.sendmsg((head, payload))
        if sent < len(head) + len(payload):
            at = max(0, sent - len(head))
            connection.sendall(head[sent:])
            connection.sendall(memoryview(payload)[at:])

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _sync(self) -> None:
        while not self._stop.wait(_SYNC_S):
            with suppress(OSError):
                self._log.sync()


class _Logged:
    """Around one request: admission before it, one line of the log after it, whatever it came to."""

    def __init__(
        self,
        server: AgentServer,
        op: str,
        fields: dict[str, str | int],
        context: Mapping[str, str],
        uid: int,
    ) -> None:
        self._server, self._op, self._fields = server, op, fields
        self._context, self._uid = context, uid

    def __enter__(self) -> None:
        try:
            self._server.check(self._context, self._uid)
        except StrongroomError as e:
            self._server.note_refusal(self._op, e.code, self._fields, self._uid)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        outcome = "ok" if error is None else getattr(error, "code", "internal")
        self._server.note(self._op, str(outcome), self._fields)


def _brief(text: str) -> str:
    """A value of a client's context for the log: those of a store are short, others are cut."""
    if len(text) <= _LOGGED_CHARACTERS_MAX:
        return text
    return f"{text[:_LOGGED_CHARACTERS_MAX]}... ({len(text)} characters)"


def _bound(path: Path, *, private: bool) -> socket.socket:
    """A listening socket at ``path``; one that a dead agent has left behind is taken away."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        before = os.umask(0o177 if private else 0o111)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        listener.settimeout(0.5)
    except OSError as e:
        listener.close()
        raise storage_error(e, path.name) from None
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError("the path of the key agent's socket is taken by something else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise ConflictError("a key agent listens at this socket already")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
