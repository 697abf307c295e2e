"""The least that a server of the Postgres wire in Python can take: it answers and does nothing.

``python -m bench._wire_floor CERTIFICATE PRIVATE_KEY`` prints its port and serves until its standard input
ends: asyncio, TLS 1.3, the extended protocol; every statement is answered with the same row, made before.
No statement is parsed, nobody is authenticated, nothing is looked up, opened or written.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_SSL_REQUEST: Final = 80_877_103
_CONTENT: Final = b"a row of the sample " * 8


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


_READY: Final = _message(b"Z", b"I")
_COLUMN: Final = b"content\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
_ANSWERS: Final = {
    ord("P"): _message(b"1"),
    ord("B"): _message(b"2"),
    ord("D"): _message(b"T", struct.pack("!h", 1) + _COLUMN),
    ord("E"): _message(b"D", struct.pack("!hI", 1, len(_CONTENT)) + _CONTENT) + _message(b"C", b"SELECT 1\0"),
    ord("S"): _READY,
    ord("Q"): _message(b"C", b"SET\0") + _READY,
}


class _Connection(asyncio.Protocol):
    """After TLS: a start-up message, then messages answered from the table."""

    def __init__(self) -> None:
        self._started = False
        self._rest = b""
        self.transport: Any = None  # comes when TLS stands; what came before waits

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if self.transport is None:
            self._rest = data
            return
        at, out = 0, []
        while len(data) - at >= 5:
            if not self._started:
                (length,) = struct.unpack_from("!I", data, at)
                self._started = True
                at += length
                out.append(_message(b"R", bytes(4)) + _message(b"S", b"server_version\x0015.0\0") + _READY)
                continue
            (length,) = struct.unpack_from("!I", data, at + 1)
            if len(data) - at < length + 1:
                break
            out.append(_ANSWERS.get(data[at], b""))
            at += length + 1
        self._rest = data[at:]
        if out:
            self.transport.write(b"".join(out))


class _Opening(asyncio.Protocol):
    """Before TLS: asks for it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()  # until TLS has taken over
        if data[4:8] != struct.pack("!I", _SSL_REQUEST):
            self.transport.close()
            return
        self.transport.write(b"S")
        self._upgrade = asyncio.ensure_future(self._to_tls())

    async def _to_tls(self) -> None:
        inner = _Connection()
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self.transport, inner, self._context, server_side=True)
        inner.connection_made(transport)


async def _serve(certificate: str, private_key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, private_key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Opening(context), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def floor(certificate: Path, private_key: Path) -> Iterator[str]:
    """The conninfo of such a server in a process of its own."""
    command = [sys.executable, "-m", "bench._wire_floor", str(certificate), str(private_key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield f"host=127.0.0.1 port={port} user=bench dbname=bench sslmode=require"
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:3]))
