"""Connections that say nothing, half of something, or take no answer: they end, and keep nobody out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.served import Served, served

from strongroom.client._tls import client_context
from strongroom.servers import serve
from strongroom.servers.http import _patience
from strongroom.servers.serve import ServerThread, server_files

BYTES = 24 << 20
HEAD = b"POST /v1/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, in fractions of a second."""
    monkeypatch.setattr(_patience, "_HANDSHAKE_S", 1.5)
    monkeypatch.setattr(_patience, "_LOOK_S", 0.05)
    monkeypatch.setattr(_patience, "_SILENT_S", 1.5)
    monkeypatch.setattr(_patience, "_REQUEST_S", 1.5)
    monkeypatch.setattr(_patience, "_STALLED_S", 1.0)


@pytest.fixture
def own(tmp_path: Path, hurried: None) -> Iterator[Served]:
    with served(tmp_path / "data") as made:
        yield made


def connected(port: int, ca: Path, *, receive_bytes: int | None = None) -> socket.socket:
    raw = socket.socket()
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", port))
    return client_context(ca).wrap_socket(raw, server_hostname="127.0.0.1")


def is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("part", ["nothing", "half a head", "half a body"])
def test_a_client_that_keeps_the_server_waiting_is_let_go(own: Served, part: str) -> None:
    """What never comes, or never ends, is waited for only so long; others are served meanwhile."""
    bearer = f"authorization: Bearer {own.admin_key}\r\n".encode()
    sent = {
        "nothing": b"",
        "half a head": HEAD,
        "half a body": HEAD + bearer + b'content-length: 99\r\n\r\n{"',
    }
    with connected(own.port, own.ca) as silent, own.http() as client:
        silent.sendall(sent[part])
        assert client.get("/v1/namespaces").status_code == 200
        assert is_closed(silent)
    with own.http() as client:  # another one: the first has kept the server waiting meanwhile, too
        assert client.get("/v1/namespaces").status_code == 200


def test_a_handshake_that_never_comes_is_not_waited_for(own: Served) -> None:
    """A socket without a word of TLS is closed as well."""
    with socket.create_connection(("127.0.0.1", own.port), 20) as silent:
        assert is_closed(silent)


def test_strangers_who_say_nothing_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More silent connections than there may be in all: whoever has something to say is answered, not 503."""
    monkeypatch.setattr(serve, "_CONNECTIONS_MAX", 16)
    with served(tmp_path / "data") as own:
        silent = [connected(own.port, own.ca) for _ in range(40)]
        try:
            for _ in range(3):
                with own.http() as client:
                    assert client.get("/v1/namespaces").status_code == 200
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize("reads", [False, True], ids=["takes nothing", "takes it slowly"])
def test_an_answer_that_nobody_takes_is_not_kept(own: Served, reads: bool) -> None:
    """A client that reads nothing is dropped with its answer; one that is slow gets all of it."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for answer in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{answer}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(BYTES)})

    certificate, private_key = server_files(own.directory, own.config)
    with (
        ServerThread(
            own.engine, own.config, certificate=certificate, private_key=private_key, application=application
        ) as server,
        connected(server.port, own.ca, receive_bytes=65536) as client,
    ):
        client.sendall(HEAD + b"content-length: 0\r\n\r\n")
        if reads:
            received = 0
            for _ in range(24):  # for longer than may pass without any progress
                part = 0
                while part < BYTES // 24:
                    piece = len(client.recv(65536))
                    assert piece, "it was dropped on the way"
                    part += piece
                received += part
                time.sleep(0.08)
            while piece := len(client.recv(65536)):
                received += piece
            assert received > BYTES
            return
        deadline = time.monotonic() + 20
        while server._server.server_state.connections:
            assert time.monotonic() < deadline, "its answer is still kept"
            time.sleep(0.02)
