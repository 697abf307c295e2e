"""The provider ``agent``: a key agent on this machine talks to the KMS (spec/key-agent.md).

What it wraps is what the agent's own provider wraps, so that a store moves behind an agent as it is.
Keys go between the socket and protected memory without a copy in between.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import blank, lend
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    InvalidInputError,
    KmsDeniedError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.kms._agent_wire import (
    ANSWER_HEAD,
    FRAME_BYTES_MAX,
    KEY_BYTES,
    OK,
    REQUEST_HEAD,
    VERSION,
    Operation,
    error_of,
    read_context,
    read_description,
    unwrap_payload,
)
from strongroom.kms._contract import KmsKeyInfo, encode_context
from strongroom.kms._guard import Guard, KmsHealth

T = TypeVar("T")

SOCKET_BYTES_MAX: Final = 107  # sun_path of Linux, without its final zero
WRAPPED_BYTES_MAX: Final = 20_480
_IDLE_MAX: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)
_Buffer = bytes | memoryview


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """``(process, user)`` at the other end, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def user_number(text: str) -> int:
    """A user by name or number.

    Raises:
        ConfigurationError: there is none.
    """
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ConfigurationError(f"there is no user {text!r} on this machine") from None


class AgentKms:
    """A ``KmsProvider`` over the socket of a key agent. ``trusted``: the users that the agent may run as."""

    def __init__(self, path: Path, *, guard: Guard, timeout_ms: int, trusted: Sequence[int]) -> None:
        """Asks nobody yet.

        Raises:
            ConfigurationError: the path is not absolute or too long for a socket.
        """
        if not path.is_absolute() or len(os.fsencode(path)) > SOCKET_BYTES_MAX:
            raise ConfigurationError(
                f"[keys] socket must be an absolute path of at most {SOCKET_BYTES_MAX} bytes"
            )
        self._path = path
        self._guard = guard
        self._timeout_s = timeout_ms / 1000
        self._trusted = frozenset(trusted)
        self._idle: list[tuple[int, socket.socket]] = []
        self._lock = threading.Lock()
        self._described: tuple[KmsKeyInfo, tuple[str, ...]] | None = None
        self._closed = False

    def describe(self) -> KmsKeyInfo:
        """The master key behind the agent; the agent is asked once.

        Raises:
            ClosedError: the provider was closed. KmsUnavailableError, KmsDeniedError.
        """
        return self._description()[0]

    def key_uris(self) -> tuple[str, ...]:
        """The master keys that the agent can unwrap with, the present one first. Raises as ``describe``."""
        return self._description()[1]

    def health(self) -> KmsHealth:
        """Requests to the agent, failures, breaker. Asks nobody."""
        return self._guard.health()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """As the provider behind the agent.

        Raises:
            InvalidInputError: the context. KmsUnavailableError: no agent, or no answer from what is
            behind it. KmsDeniedError: this user or store is not served. ClosedError. What the provider
            behind raises.
        """
        self._ensure_open()
        bound = encode_context(context)
        return self._guard.call("wrap", lambda: self._ask(Operation.WRAP, (lend(key), bound), _as_wrapped))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """As the provider behind the agent.

        Raises:
            UnwrapError: other master key, other context, or any bit changed. As ``wrap`` otherwise.
        """
        self._ensure_open()
        bound = encode_context(context)
        if not isinstance(wrapped, bytes) or not 0 < len(wrapped) <= WRAPPED_BYTES_MAX:
            raise UnwrapError
        payload = (unwrap_payload(bound, wrapped),)
        return self._guard.call("unwrap", lambda: self._ask(Operation.UNWRAP, payload, _as_key))

    def agent_health(self) -> dict[str, str]:
        """The agent's own figures (spec/key-agent.md). Raises as ``describe``."""
        self._ensure_open()
        return self._guard.call("health", lambda: self._ask(Operation.HEALTH, (), _as_figures))

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._closed = True
        self._guard.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def __repr__(self) -> str:
        return f"<AgentKms {self._path.name}>"

    def _description(self) -> tuple[KmsKeyInfo, tuple[str, ...]]:
        self._ensure_open()
        if self._described is None:
            self._described = self._guard.call(
                "describe", lambda: self._ask(Operation.DESCRIBE, (), _as_description)
            )
        return self._described

    def _ensure_open(self) -> None:
        if self._closed:
            raise ClosedError("the key management provider was closed")

    def _ask(
        self, operation: Operation, payload: Sequence[_Buffer], read: Callable[[socket.socket, int], T]
    ) -> T:
        """One request and its answer. A connection that has failed in any way is not used again."""
        length = 2 + sum(len(part) for part in payload)
        if length > FRAME_BYTES_MAX:
            raise InvalidInputError("the request is too long for a key agent")
        connection, used = self._connection()
        done = False
        try:
            try:
                _send(connection, (REQUEST_HEAD.pack(length, VERSION, operation), *payload))
                head = _receive(connection, ANSWER_HEAD.size)
            except (BrokenPipeError, ConnectionResetError, EOFError):
                if not used:
                    raise
                connection.close()  # the agent was started anew since, or has closed it: once more, afresh
                connection = self._connect()
                _send(connection, (REQUEST_HEAD.pack(length, VERSION, operation), *payload))
                head = _receive(connection, ANSWER_HEAD.size)
            size, status = ANSWER_HEAD.unpack(head)
            if not 1 <= size <= FRAME_BYTES_MAX or status > 1:
                raise KmsUnavailableError("the key agent gave an unexpected answer")
            if status != OK:
                error = error_of(_receive(connection, size - 1))
                done = True
                raise error
            value = read(connection, size - 1)
            done = True
            return value
        except (OSError, EOFError):
            raise KmsUnavailableError("the key agent does not answer") from None
        finally:
            self._put_back(connection, keep=done)

    def _connection(self) -> tuple[socket.socket, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            while self._idle:
                pid, connection = self._idle.pop()
                if pid == os.getpid():
                    return connection, True
        return self._connect(), False

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout_s)
            connection.connect(os.fspath(self._path))
            _, uid = peer_of(connection)
        except OSError as e:
            connection.close()
            if isinstance(e, PermissionError):
                raise KmsDeniedError(
                    "this user may not reach the key agent's socket", hint="allow it: key-agent --allow-user"
                ) from None
            raise KmsUnavailableError(
                "there is no key agent at its socket", hint="start it: strongroom key-agent --socket PATH"
            ) from None
        if uid not in self._trusted:
            connection.close()
            raise KmsDeniedError(
                f"the socket of the key agent is served by user {uid}, who is not trusted with keys",
                hint="if that is the agent's user, name it: [keys] agent_user",
            )
        return connection

    def _put_back(self, connection: socket.socket, *, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed and len(self._idle) < _IDLE_MAX:
                self._idle.append((os.getpid(), connection))
                return
        connection.close()


def _send(connection: socket.socket, parts: Sequence[_Buffer]) -> None:
    """All of the parts, each from where it lies."""
    total = sum(len(part) for part in parts)
    sent = connection.sendmsg(parts)
    if sent < total:  # a full buffer: the rest one by one
        for part in parts:
            skip = min(sent, len(part))
            sent -= skip
            connection.sendall(memoryview(part)[skip:])


def receive_into(connection: socket.socket, room: memoryview) -> None:
    """Fill ``room``.

    Raises:
        EOFError: the peer has closed. OSError.
    """
    at = 0
    while at < len(room):
        got = connection.recv_into(room[at:])
        if not got:
            raise EOFError
        at += got


def _receive(connection: socket.socket, size: int) -> bytes:
    room = bytearray(size)
    receive_into(connection, memoryview(room))
    return bytes(room)


def _as_wrapped(connection: socket.socket, size: int) -> bytes:
    if not 0 < size <= WRAPPED_BYTES_MAX:
        raise KmsUnavailableError("the key agent gave an unexpected answer")
    return _receive(connection, size)


def _as_key(connection: socket.socket, size: int) -> SecretKey:
    if size != KEY_BYTES:
        raise KmsUnavailableError("the key agent gave an unexpected answer")
    key = blank()
    receive_into(connection, lend(key))
    return key


def _as_description(connection: socket.socket, size: int) -> tuple[KmsKeyInfo, tuple[str, ...]]:
    return read_description(_receive(connection, size))


def _as_figures(connection: socket.socket, size: int) -> dict[str, str]:
    try:
        return read_context(_receive(connection, size))
    except InvalidInputError:
        raise KmsUnavailableError("the key agent gave an unexpected answer") from None
