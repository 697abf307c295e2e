"""What many connections together may keep in memory: a limit on the sum, told by type and by metric."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.servers.served import Served, served
from tests.servers.test_patience import HEAD, connected, is_closed

from strongroom.config import ServerConfig
from strongroom.errors import LimitExceededError
from strongroom.servers.http import Backlog, Incoming
from strongroom.servers.http._patience import _TLS_READ_BYTES
from strongroom.servers.serve import ServerThread, server_files

ANSWER = 12 << 20  # more than the kernel takes for a client that reads nothing
BODY = 700_000


class Client:
    """A connection that has not taken so many bytes."""

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent
        self.reason = ""

    def unsent_bytes(self) -> int:
        return self.unsent

    def drop(self, reason: str) -> None:
        self.reason = reason


def test_those_that_have_taken_longest_go_and_the_rest_stays() -> None:
    """Above the limit the oldest are closed, as many as it takes; whoever has read meanwhile is not."""
    backlog = Backlog(100)
    old, reader, middle, new = clients = Client(40), Client(50), Client(5), Client(60)
    for client in clients[:3]:
        backlog.note(client)
    assert backlog.bytes == 95
    reader.unsent = 10
    backlog.note(new)
    assert [c.reason for c in clients] == ["backlog", "", "", ""]
    assert backlog.bytes == 75
    new.unsent = 0
    backlog.note(new)
    backlog.forget(middle)
    backlog.forget(old)
    assert backlog.bytes == 10


def test_one_answer_alone_is_not_dropped_however_large() -> None:
    """The limit is on what many keep: a single large answer is sent, and smaller ones beside it go first."""
    backlog = Backlog(100)
    small, large = Client(30), Client(500)
    backlog.note(small)
    backlog.note(large)
    assert (small.reason, large.reason, backlog.bytes) == ("backlog", "", 500)


def test_bodies_are_counted_together_and_one_alone_may_always_come_in() -> None:
    """The second request that would be too much is refused; it fits when the first has ended."""
    refused: list[int] = []
    incoming = Incoming(100, lambda: refused.append(1))
    incoming.take(90, 0)
    incoming.take(90, 90)  # the only one
    with pytest.raises(LimitExceededError):
        incoming.take(1, 0)
    incoming.give_back(180)
    incoming.take(100, 0)
    assert refused == [1] and incoming.bytes == 100


def dropped(server: Served, reason: str) -> float:
    return (
        server.engine.metrics.registry.get_sample_value("strongroom_http_dropped_total", {"reason": reason})
        or 0.0
    )


async def large(scope: Any, receive: Any, send: Any) -> None:
    """An application with large answers."""
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % ANSWER)]}
    )
    await send({"type": "http.response.body", "body": bytes(ANSWER)})


def test_answers_that_nobody_takes_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Many clients ask for much and read nothing: the sum is kept below the limit, and a reader gets all."""
    most = 30 << 20
    with served(tmp_path / "data", server=ServerConfig(unsent_bytes_max=most)) as own:
        certificate, private_key = server_files(own.directory, own.config)
        with ServerThread(
            own.engine, own.config, certificate=certificate, private_key=private_key, application=large
        ) as server:
            silent = [connected(server.port, own.ca, receive_bytes=65536) for _ in range(8)]
            for client in silent:
                client.sendall(HEAD + b"content-length: 0\r\n\r\n")
            with connected(server.port, own.ca) as reader:
                reader.sendall(HEAD + b"content-length: 0\r\nconnection: close\r\n\r\n")
                received = 0
                while piece := len(reader.recv(1 << 20)):
                    received += piece
            assert received > ANSWER
            connections = server._server.server_state.connections
            deadline = time.monotonic() + 20
            while (kept := sum(c.unsent_bytes() for c in list(connections))) > most:  # type: ignore[union-attr]
                assert time.monotonic() < deadline, f"{kept} bytes are kept"
                time.sleep(0.02)
            assert dropped(own, "backlog") >= 5
            assert is_closed(silent[0])
            for client in silent:
                client.close()


def test_bodies_that_never_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Half of a large body each: the first is waited for, the next is told that the server is busy, with 429;
    other requests are answered, and when the first has gone there is room again."""
    with served(tmp_path / "data", server=ServerConfig(incoming_bytes_max=1_000_000)) as own:
        head = HEAD.replace(b"/v1/search", b"/v1/memories:search")
        head += f"authorization: Bearer {own.admin_key}\r\ncontent-length: 2000000\r\n\r\n".encode()

        def half() -> Any:
            client = connected(own.port, own.ca)
            client.sendall(head + b" " * BODY)
            return client

        first = half()
        with own.http() as http:
            deadline = time.monotonic() + 20
            while dropped(own, "incoming") == 0:
                assert time.monotonic() < deadline
                with half() as second:
                    second.settimeout(0.5)
                    try:
                        answer = second.recv(65536)
                    except TimeoutError:  # it came first
                        first.close()
                        continue
                    assert answer.startswith(b"HTTP/1.1 429") and b"limit_exceeded" in answer
            assert http.get("/v1/namespaces").status_code == 200
            first.close()
            question = {"namespaces": ["a/b"], "query": "x", "kinds": ["k" * 100] * 9000}
            while http.post("/v1/memories:search", json=question).status_code == 429:
                assert time.monotonic() < deadline


def test_a_connection_that_says_nothing_costs_little(tmp_path: Path) -> None:
    """The server's buffer for what a stranger may send is small: asyncio fills a quarter of a megabyte."""
    with served(tmp_path / "data") as own:
        certificate, private_key = server_files(own.directory, own.config)
        with (
            ServerThread(
                own.engine, own.config, certificate=certificate, private_key=private_key, application=large
            ) as server,
            connected(server.port, own.ca) as client,
        ):
            client.sendall(HEAD)
            deadline = time.monotonic() + 20
            while not (found := list(server._server.server_state.connections)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert len(found[0].transport._ssl_protocol._ssl_buffer) <= _TLS_READ_BYTES  # type: ignore[union-attr]
