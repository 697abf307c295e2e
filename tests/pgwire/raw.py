"""A client that speaks the protocol by hand, over TLS, so that tests can say exactly what is sent."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from types import TracebackType

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)


def startup(version: int = 3 << 16, **parameters: str) -> bytes:
    body = struct.pack("!I", version)
    body += b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def tls(ca: Path, *, maximum: ssl.TLSVersion | None = None, alpn: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if maximum is not None:
        context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(["postgresql"])
    return context


class Raw:
    """One connection; ``messages`` are (type, payload)."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._data = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.send(SSL_REQUEST)
        assert self.socket.recv(1) == b"S"
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def sign_in(self, key: str, user: str = "anybody", **parameters: str) -> list[tuple[bytes, bytes]]:
        """Key as password; what the server says up to its first ReadyForQuery."""
        self.send(startup(user=user, database="strongroom", **parameters))
        kind, body = self.one()
        assert (kind, body) == (b"R", struct.pack("!I", 3)), (kind, body)
        self.send(message(b"p", text(key)))
        return self.until(b"Z")

    def read(self) -> bytes:
        """Everything up to the end of the connection."""
        out = self._data
        self._data = b""
        while True:
            try:
                part = self.socket.recv(65_536)
            except (ConnectionError, ssl.SSLError):
                return out
            if not part:
                return out
            out += part

    def one(self) -> tuple[bytes, bytes]:
        while len(self._data) < 5 or len(self._data) < 1 + struct.unpack("!I", self._data[1:5])[0]:
            part = self.socket.recv(65_536)
            if not part:
                raise EOFError(self._data)
            self._data += part
        end = 1 + struct.unpack("!I", self._data[1:5])[0]
        kind, body = self._data[:1], self._data[5:end]
        self._data = self._data[end:]
        return kind, body

    def until(self, last: bytes) -> list[tuple[bytes, bytes]]:
        out = [self.one()]
        while out[-1][0] != last:
            assert out[-1][0] != b"E" or last == b"E" or b"VFATAL" not in out[-1][1], out[-1]
            out.append(self.one())
        return out


def sqlstate(body: bytes) -> str:
    """The code of an ErrorResponse."""
    fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
    return fields[b"C"].decode()


def kinds(found: list[tuple[bytes, bytes]]) -> str:
    return b"".join(k for k, _ in found).decode()
