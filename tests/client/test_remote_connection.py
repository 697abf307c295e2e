"""One connection of the client: what it makes of any server's answers, and when it is used again."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.servers.served import make_store

import strongroom
from strongroom import errors
from strongroom.client._sync._connection import plain_answer

KEY = "sr_live_0000000000000000000000000000000000000000000000000000000000000"
BODY = json.dumps(
    {"hits": [], "notices": [{"code": "x", "message": "y" * 40, "namespace": None, "hint": None}]}
).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
OK = b"HTTP/1.1 200 OK\r\n"

# The pieces of an answer, and whether the connection may be used again behind it.
GOOD: dict[str, tuple[Sequence[bytes], bool]] = {
    "plain": ([OK + LENGTH + b"\r\n" + BODY], True),
    "body apart": ([OK + LENGTH + b"\r\n", BODY[:9], BODY[9:]], True),
    "head in pieces": ([OK + LENGTH[:5], LENGTH[5:] + b"\r\n" + BODY], True),
    "chunks": ([OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)], True),
    "hints before": ([b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY], True),
    "closing": ([OK + LENGTH + b"Connection: close\r\n\r\n" + BODY], False),
    "keeping": ([OK + LENGTH + b"Connection: keep-alive\r\n\r\n" + BODY], True),
    "old": ([b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY], False),
    "no reason": ([b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + BODY], True),
    "more than the answer": ([OK + LENGTH + b"\r\n" + BODY + b"HTTP/1.1 200 OK\r\n"], False),
}
BAD: dict[str, Sequence[bytes]] = {
    "cut short": [OK + LENGTH + b"\r\n" + BODY[:-1]],
    "nothing": [b""],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "two lengths": [OK + LENGTH + b"Content-Length: 1\r\n\r\n" + BODY],
    "a head without end": [OK + b"X: " + b"x" * 200_000],
}


@contextmanager
def answering(directory: Path, pieces: Sequence[bytes]) -> Iterator[tuple[str, Path, list[int]]]:
    """Answers every request with the pieces; the address, the authority, and which connection each request
    came on."""
    make_store(directory)
    tls = directory.with_name(directory.name + ".keys") / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[int] = []
    done = threading.Event()

    def one(raw: socket.socket, number: int) -> None:
        try:
            with context.wrap_socket(raw, server_side=True) as peer:
                peer.settimeout(20)
                while peer.recv(65536):
                    seen.append(number)
                    for piece in pieces:
                        peer.sendall(piece)
                    if b"".join(pieces) in map(b"".join, BAD.values()):
                        return
        except OSError:
            return

    def serve() -> None:
        number = 0
        while True:
            raw, _ = listener.accept()
            if done.is_set():
                raw.close()
                return
            threading.Thread(target=one, args=(raw, number), daemon=True).start()
            number += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", tls / "ca.pem", seen
    finally:
        done.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join(10)
        listener.close()


@pytest.mark.parametrize("case", GOOD)
def test_any_answer_is_read_and_the_connection_kept_if_it_may_be(tmp_path: Path, case: str) -> None:
    """Plain or not, blocking and asynchronous: the same answer, and the same end of the connection."""
    pieces, kept = GOOD[case]
    with answering(tmp_path / "data", pieces) as (url, ca, seen):
        with strongroom.connect(url, api_key=KEY, ca=ca, timeout_s=20) as room:
            for _ in range(3):
                assert [n.code for n in room.search("a", namespaces=["a/b"]).notices] == ["x"]
        assert len(set(seen)) == (1 if kept else 3)
        before = len(seen)

        async def scene() -> None:
            async with await strongroom.aconnect(url, api_key=KEY, ca=ca, timeout_s=20) as room:
                for _ in range(2):
                    assert [n.code for n in (await room.search("a", namespaces=["a/b"])).notices] == ["x"]

        asyncio.run(scene())
        assert len(set(seen[before:])) == (1 if kept else 2)


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_whole_answer_is_a_transport_error(tmp_path: Path, case: str) -> None:
    """A cut, an end, another protocol or a head without end never make half an answer."""
    with answering(tmp_path / "data", BAD[case]) as (url, ca, seen):
        with (
            strongroom.connect(url, api_key=KEY, ca=ca, timeout_s=20) as room,
            pytest.raises(errors.TransportError),
        ):
            room.store("a", namespace="a/b")
        assert len(seen) == 1  # it may have been carried out


def test_connections_are_shared_by_threads(tmp_path: Path) -> None:
    """Eight threads on one client get their answers, on no more connections than threads."""
    with (
        answering(tmp_path / "data", GOOD["plain"][0]) as (url, ca, seen),
        strongroom.connect(url, api_key=KEY, ca=ca, timeout_s=20) as room,
    ):
        got: list[int] = []

        def ask() -> None:
            for _ in range(20):
                got.append(len(room.search("a", namespaces=["a/b"]).notices))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == [1] * 160
        assert len(seen) == 160 and len(set(seen)) <= 8


def test_a_call_that_is_given_up_leaves_no_connection_half_read(tmp_path: Path) -> None:
    """After a cancelled call the next one gets an answer of its own."""

    async def scene(url: str, ca: Path) -> None:
        async with await strongroom.aconnect(url, api_key=KEY, ca=ca, timeout_s=20) as room:
            await room.search("a", namespaces=["a/b"])
            for pause in (0, 0.001, 0.002):
                task = asyncio.create_task(room.search("b", namespaces=["a/b"]))
                await asyncio.sleep(pause)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert len((await room.search("c", namespaces=["a/b"])).notices) == 1

    with answering(tmp_path / "data", GOOD["plain"][0]) as (url, ca, _):
        asyncio.run(scene(url, ca))


_names = st.sampled_from(
    [b"Content-Length", b"content-type", b"Transfer-Encoding", b"Connection", b"X", b"A b"]
)
_values = st.one_of(
    st.sampled_from([b"0", b"3", b"+3", b"3, 3", b"chunked", b"close", b"a b"]), st.binary(max_size=5)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 304 X"]
    ),
    lines=st.lists(st.tuples(_names, st.sampled_from([b": ", b":", b" : "]), _values), max_size=4),
    end=st.sampled_from([b"\r\n", b"\n"]),
)
@example(
    first=b"HTTP/1.1 200 OK",
    lines=[(b"Content-Length", b": ", b"3"), (b"Transfer-Encoding", b": ", b"chunked")],
    end=b"\r\n",
)
@example(
    first=b"HTTP/1.1 200 OK",
    lines=[(b"Content-Length", b": ", b"3"), (b"Connection", b": ", b"close")],
    end=b"\r\n",
)
def test_what_is_plain_is_read_as_h11_reads_it(
    first: bytes, lines: list[tuple[bytes, bytes, bytes]], end: bytes
) -> None:
    """Status, headers and length of a plain answer are what h11 makes of it, and it would keep the connection
    too."""
    data = first + end + b"".join(b"".join(line) + end for line in lines) + end
    found = plain_answer(data)
    if found is None:
        return
    status, headers, length, at = found
    conn = h11.Connection(h11.CLIENT)
    conn.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(data + b"x" * length)
    event = conn.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, at) == (status, len(data))
    assert [(n.lower(), v) for n, v in headers] == list(event.headers)
    got = b""
    while isinstance(event := conn.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage) and got == b"x" * length
    assert conn.our_state is h11.DONE
