"""An answer leaves in one write; the conversation is that of uvicorn and h11 alone, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from strongroom.servers.http import connection_protocol
from strongroom.servers.http._gather import Gathering
from strongroom.servers.http._patience import PatientProtocol

HEAD = b"POST /v1/memories:search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def post(body: bytes, *further: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in further)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Wire(asyncio.Transport):
    """What a protocol writes, and whether it wants more and has closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4), "sockname": ("127.0.0.1", 5)})
        self.writes: list[bytes] = []
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        if data and not self.closed:
            self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def _settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def converse(
    kind: type[H11Protocol], pieces: Sequence[bytes], app: Any, *, going_down_after: int | None = None
) -> Wire:
    """Send the pieces, with time to answer between them."""

    async def scene() -> Wire:
        config = uvicorn.Config(app, http=kind, log_config=None, h11_max_incomplete_event_size=32 * 1024)
        config.load()
        protocol = kind(config, ServerState(), {}, asyncio.get_running_loop())
        wire = Wire()
        protocol.connection_made(wire)
        for number, piece in enumerate(pieces):
            if not wire.closed:
                protocol.data_received(piece)
            if number == going_down_after:
                protocol.shutdown()
            await _settle()
        wire.ended = wire.closed  # type: ignore[attr-defined]
        protocol.connection_lost(None)
        await _settle()
        return wire

    return asyncio.run(scene())


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Say what was asked, with a length."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    said = b"|".join(
        [scope["method"].encode(), scope["path"].encode(), scope["raw_path"], scope["query_string"]]
        + [b"%b=%b" % header for header in scope["headers"]]
        + [body]
    )
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def answering(*messages: dict[str, Any]) -> Any:
    """An application that sends this and reads nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


LENGTH = (b"content-length", b"4")
CONVERSATIONS: dict[str, list[bytes]] = {
    "one": [post(b"{}")],
    "kept": [
        post(b"{}"),
        post(b"[1]", b"Connection: keep-alive"),
        b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    "body in pieces": [post(b"abcdef")[:-4], b"cd", b"ef" + post(b"next")],
    "head in pieces": [post(b"abc")[:20], post(b"abc")[20:], post(b"more")],
    "pipelined": [post(b"1") + post(b"2") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post(b"4")[:-1], b"4"],
    "with chunks between": [
        post(b"1"),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        post(b"3"),
    ],
    "closing": [post(b"1", b"Connection: close"), post(b"2")],
    "old": [b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"],
    "expecting": [post(b"abc", b"Expect: 100-continue")],
    "no host": [b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"],
    "two hosts": [b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"],
    "two lengths": [HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    "a length and chunks": [HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    "folded": [b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"],
    "bare line feeds": [b"GET / HTTP/1.1\nHost: a\n\n"],
    "a space before the colon": [b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"],
    "rubbish behind": [post(b"1") + b"\x16\x03\x01 rubbish\r\n\r\n"],
    "a long head": [b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"],
    "a head without end": [b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, b"y" * 20_000, b"z" * 20_000],
    "a large body": [post(b"x" * 70_000)],
}
APPLICATIONS: dict[str, Any] = {
    "echo": echo,
    "before the body": answering(start(LENGTH, status=401), body(b"none")),
    "streamed": answering(start(), body(b"ab", more=True), body(b"cd")),
    "in two parts": answering(start(LENGTH), body(b"ab", more=True), body(b"cd")),
    "closing": answering(start(LENGTH, (b"connection", b"close")), body(b"abcd")),
    "nothing": answering(start(status=204), body(b"")),
    "too long": answering(start(LENGTH), body(b"abcde")),
    "begun alone": answering(start(LENGTH)),
    "not begun": answering(),
}


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_conversation_is_that_of_h11(conversation: str, application: str) -> None:
    """Answers, and whether the connection is kept, are those of h11 alone, whatever comes in which pieces."""
    pieces, app = CONVERSATIONS[conversation], APPLICATIONS[application]
    ours, theirs = converse(PatientProtocol, pieces, app), converse(H11Protocol, pieces, app)
    assert ours.ended == theirs.ended  # type: ignore[attr-defined]
    assert b"".join(ours.writes) == b"".join(theirs.writes)


def test_an_answer_leaves_in_one_write() -> None:
    """Head and body go into one write, which uvicorn does in two."""
    assert len(converse(PatientProtocol, [post(b"{}")], echo).writes) == 1
    assert len(converse(H11Protocol, [post(b"{}")], echo).writes) == 2


def test_an_answer_does_not_wait_for_what_follows_it() -> None:
    """An answer that is whole has left when the application goes on behind it, still in one write."""
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(LENGTH))
        seen.append(len(wires[-1].writes))
        await send(body(b"abcd"))
        seen.append(len(wires[-1].writes))

    wires: list[Wire] = []

    class Kept(PatientProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            wires.append(transport)  # type: ignore[arg-type]
            super().connection_made(transport)

    assert len(converse(Kept, [post(b"{}")], app).writes) == 1
    assert seen == [0, 1]


def test_a_header_with_a_line_break_is_not_sent() -> None:
    """An application that would split the answer is refused; nothing of its answer leaves."""
    app = answering(start(LENGTH, (b"x-request-id", b"1\r\nset-cookie: a=b")), body(b"abcd"))
    wire = converse(PatientProtocol, [post(b"{}")], app)
    assert wire.ended  # type: ignore[attr-defined]
    assert wire.writes == []


def test_a_server_that_stops_ends_the_connection_behind_the_answer() -> None:
    """A request under way is answered, then its connection ends."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.01)
        await echo(scope, receive, send)

    async def scene(wire: Wire, protocol: PatientProtocol) -> None:
        protocol.connection_made(wire)
        protocol.data_received(post(b"{}"))
        await asyncio.sleep(0)
        protocol.shutdown()
        await asyncio.gather(*protocol.tasks)

    async def run() -> Wire:
        config = uvicorn.Config(slow, http=PatientProtocol, log_config=None)
        config.load()
        wire = Wire()
        await scene(wire, PatientProtocol(config, ServerState(), {}, asyncio.get_running_loop()))
        return wire

    wire = asyncio.run(run())
    assert wire.closed
    assert wire.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_server_speaks_it() -> None:
    """The protocol of the product is this one: it would otherwise be tested for nothing."""
    assert issubclass(connection_protocol(lambda _: None), PatientProtocol)


def test_nothing_waits_when_the_connection_is_looked_at_or_closed() -> None:
    """What was written counts as unsent at once, leaves before a close, and is dropped by an abort."""

    class Lower(Wire):
        def get_write_buffer_size(self) -> int:
            return sum(map(len, self.writes))

        def abort(self) -> None:
            self.closed = True

    async def scene(how: str) -> Lower:
        lower = Lower()
        upper = Gathering(lower, asyncio.get_running_loop())
        upper.write(b"head")
        assert lower.writes == []
        assert upper.get_write_buffer_size() == 4
        upper.write(b"body")
        getattr(upper, how)()
        upper.write(b"late")
        await _settle()
        return lower

    assert asyncio.run(scene("close")).writes == [b"head", b"body"]
    assert asyncio.run(scene("abort")).writes == [b"head"]


def test_a_connection_that_is_closed_twice_can_still_be_looked_at() -> None:
    """asyncio's transport of TLS forgets its connection at the second close; it is looked at later."""

    class Tls(Wire):
        def close(self) -> None:
            self.connection = None if self.closed else "there"
            super().close()

        def get_write_buffer_size(self) -> int:
            assert self.connection is not None
            return 7

    loop = asyncio.new_event_loop()
    try:
        transport = Gathering(Tls(), loop)
        transport.close()
        transport.close()
        assert transport.get_write_buffer_size() == 7
    finally:
        loop.close()
