"""Key exchange by X25519MLKEM768; our TLS object keeps the contract of ssl.SSLObject."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from OpenSSL import SSL
from tests.servers.served import Served, served

from strongroom.config import ServerConfig
from strongroom.errors import ConfigurationError
from strongroom.servers.tls import HYBRID, create_local_ca, negotiated_group, server_context


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    create_local_ca(directory)
    return directory


@contextmanager
def dial(port: int, ca: Path, groups: bytes | None = None) -> Iterator[SSL.Connection]:
    """A client over the same OpenSSL that has the hybrid group; ``groups``: only these."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(ca))
    context.set_verify(SSL.VERIFY_PEER)
    if groups is not None:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        connection = SSL.Connection(context, raw)
        connection.setblocking(True)
        connection.set_connect_state()
        connection.set_tlsext_host_name(b"localhost")
        yield connection


def ask(connection: SSL.Connection, key: str, path: bytes) -> bytes:
    connection.do_handshake()
    request = b"POST " if path == b"/mcp" else b"GET "
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}' if path == b"/mcp" else b""
    connection.sendall(
        request + path + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + key.encode()
        + b"\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json"
        + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\nConnection: close\r\n\r\n" + body
    )  # fmt: skip
    out = b""
    try:
        while part := connection.recv(65536):
            out += part
    except SSL.ZeroReturnError:
        return out
    raise AssertionError("the server went without close_notify")


def test_rest_and_mcp_exchange_keys_by_the_hybrid_group_and_say_so(server: Served) -> None:
    """Seen from the client, in the audit entry of the request, and in the metric."""
    for path in (b"/v1/stats", b"/mcp"):
        with dial(server.port, server.ca) as connection:
            assert b" 200 " in ask(connection, server.admin_key, path)
            assert connection.get_group_name() == HYBRID
    entry = next(e for e in server.owner.audit(limit=20) if e.surface == "rest")
    assert dict(entry.details)["tls_group"] == HYBRID
    assert f'strongroom_tls_connections_total{{group="{HYBRID}",surface="https"}}' in (
        server.engine.metrics.text().decode()
    )


def test_a_client_without_it_is_served_by_x25519(server: Served) -> None:
    with dial(server.port, server.ca, b"X25519") as connection:
        assert b" 200 " in ask(connection, server.admin_key, b"/v1/stats")
    entry = [e for e in server.owner.audit(limit=20) if e.surface == "rest"][-1]
    assert dict(entry.details)["tls_group"] == "X25519"


def test_weak_and_odd_groups_are_not_offered(server: Served) -> None:
    for group in (b"X448", b"P-521", b"ffdhe2048"):
        with dial(server.port, server.ca, group) as connection, pytest.raises(SSL.Error):
            connection.do_handshake()


def test_require_refuses_the_others_and_the_audit_log_says_why(tmp_path: Path) -> None:
    """A downgrade to X25519 fails in the handshake, whatever key would have come after it."""
    with served(tmp_path / "data", server=ServerConfig(post_quantum="require")) as server:
        with dial(server.port, server.ca) as connection:
            assert b" 200 " in ask(connection, server.admin_key, b"/v1/stats")
        for groups in (b"X25519", b"P-256:P-384"):
            with dial(server.port, server.ca, groups) as connection, pytest.raises(SSL.Error):
                connection.do_handshake()
        with server.http() as http, pytest.raises(httpx.TransportError):
            http.get("/v1/stats")
        server.engine.doors.watch.flush()
        notes = [e for e in server.owner.audit(limit=20) if e.action == "handshake"]
        assert sum(int(dict(e.details)["times"]) for e in notes) == 3
        assert all(e.outcome == "denied" for e in notes)


def test_require_without_a_runtime_that_knows_it_does_not_start(
    tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.servers.tls._context.hybrid_known", lambda: False)
    with pytest.raises(ConfigurationError, match=HYBRID):
        server_context(tls / "server.pem", tls / "server.key", post_quantum="require")
    fallback = server_context(tls / "server.pem", tls / "server.key", post_quantum="prefer")
    assert fallback.minimum_version == ssl.TLSVersion.TLSv1_3


class Pair:
    """A server object under test and a client of the interpreter's ssl, joined by bytes in memory."""

    def __init__(self, context: ssl.SSLContext, ca: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.s_in, self.s_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.c_in, self.c_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context(cafile=str(ca))
        self.client = client.wrap_bio(self.c_in, self.c_out, server_hostname="localhost")
        self.server = context.wrap_bio(self.s_in, self.s_out, server_side=True)

    def carry(self) -> None:
        """Move bytes in pieces of odd sizes."""
        for source, target in ((self.c_out, self.s_in), (self.s_out, self.c_in)):
            target.write(source.read(self.random.choice((1, 7, 500, 5_000, 100_000))))

    def until(self, *steps: object) -> list[object]:
        """Repeat the steps until each was done once."""
        results: list[object] = [None] * len(steps)
        left = set(range(len(steps)))
        for _ in range(200_000):
            for i in list(left):
                try:
                    results[i] = steps[i]()  # type: ignore[operator]
                    left.discard(i)
                except ssl.SSLWantReadError:
                    pass
            if not left:
                return results
            self.carry()
        raise AssertionError("no progress")


@pytest.fixture(params=["off", "prefer"])
def context(request: pytest.FixtureRequest, tls: Path) -> ssl.SSLContext:
    """Both implementations: what is shown holds for the interpreter's own as well."""
    return server_context(tls / "server.pem", tls / "server.key", post_quantum=request.param)


@pytest.fixture
def pair(context: ssl.SSLContext, tls: Path) -> Iterator[Pair]:
    out = Pair(context, tls / "ca.pem", 7)
    out.until(out.client.do_handshake, out.server.do_handshake)
    yield out


def collect(tls: object, size: int) -> object:
    got = bytearray()

    def step() -> bytes:
        while len(got) < size:
            part = tls.read(65_536)  # type: ignore[attr-defined]
            assert part
            got.extend(part)
        return bytes(got)

    return step


def test_an_answer_of_many_records_is_taken_at_once(pair: Pair) -> None:
    """Nothing is left for asyncio to copy: it would copy the rest of the answer for each record of it."""
    text = pair.random.randbytes(3_000_001)
    assert pair.server.write(text) == len(text)
    assert pair.until(collect(pair.client, len(text)))[0] == text


@pytest.mark.parametrize("seed", range(6))
def test_what_goes_in_comes_out_in_both_directions(context: ssl.SSLContext, tls: Path, seed: int) -> None:
    """Megabytes through torn pieces, both ways at once, with partial writes."""
    pair = Pair(context, tls / "ca.pem", seed)
    pair.until(pair.client.do_handshake, pair.server.do_handshake)
    texts = [pair.random.randbytes(pair.random.choice((1, 16_384, 16_385, 300_000))) for _ in range(2)]

    def writer(end: object, text: bytes) -> object:
        left = memoryview(text)

        def step() -> None:
            nonlocal left
            while left:
                left = left[end.write(left) :]  # type: ignore[attr-defined]

        return step

    steps = [
        writer(pair.server, texts[0]), writer(pair.client, texts[1]),
        collect(pair.client, len(texts[0])), collect(pair.server, len(texts[1])),
    ]  # fmt: skip
    results = pair.until(*steps)
    assert results[2] == texts[0] and results[3] == texts[1]


def test_reading_into_a_buffer(pair: Pair) -> None:
    pair.client.write(b"abcdef")
    buffer = bytearray(4)
    assert pair.until(lambda: pair.server.read(4, memoryview(buffer))) == [4] and bytes(buffer) == b"abcd"
    assert pair.server.pending() == 2 and pair.server.read(10) == b"ef"
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(10)


def test_close_notify_goes_both_ways(pair: Pair) -> None:
    """The server waits for the answer of the client, and a client that closes is read as an end."""
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.until(pair.client.unwrap, pair.server.unwrap)


def test_a_client_that_closes_first_is_an_end_and_can_be_answered(pair: Pair) -> None:
    pair.client.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.s_in.write(pair.c_out.read())
    assert pair.server.read(100) == b"last words"
    assert pair.server.read(100) == b""
    pair.until(pair.server.unwrap, pair.client.unwrap)


def test_an_end_without_close_notify_is_no_clean_end(pair: Pair) -> None:
    """Truncation by somebody on the way is told apart from a goodbye."""
    pair.s_in.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        pair.server.read(100)


def test_changed_bytes_break_the_connection(pair: Pair) -> None:
    pair.client.write(b"pay 10 to alice")
    record = bytearray(pair.c_out.read())
    record[-1] ^= 1
    pair.s_in.write(bytes(record))
    with pytest.raises(ssl.SSLError) as refused:
        pair.server.read(100)
    assert not isinstance(refused.value, ssl.SSLWantReadError)


def test_garbage_and_silence_in_the_handshake(context: ssl.SSLContext, tls: Path) -> None:
    """Errors of the other library never come out."""
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100),
        b"\x16\x03\x01\x00\x05hello",
        random.Random(1).randbytes(300),
    ):
        pair = Pair(context, tls / "ca.pem", 1)
        pair.s_in.write(data)
        with pytest.raises(ssl.SSLError):
            pair.server.do_handshake()
    pair = Pair(context, tls / "ca.pem", 1)
    pair.s_in.write_eof()
    with pytest.raises(ssl.SSLError):
        pair.server.do_handshake()


def test_what_a_connection_says_of_itself(context: ssl.SSLContext, pair: Pair) -> None:
    assert pair.server.version() == "TLSv1.3" and pair.server.compression() is None
    assert pair.server.cipher()[1] == "TLSv1.3" and pair.server.cipher()[2] in (128, 256)
    assert pair.server.selected_alpn_protocol() is None and pair.server.getpeercert() is None
    assert negotiated_group(pair.server) in (None, "X25519")
    assert pair.server.context is context


def test_no_connection_is_resumed(tls: Path) -> None:
    """A ticket of an earlier connection does not save the key exchange of the next one."""
    context = server_context(tls / "server.pem", tls / "server.key", post_quantum="prefer")
    client = ssl.create_default_context(cafile=str(tls / "ca.pem"))
    session = None
    for _ in range(3):
        pair = Pair(context, tls / "ca.pem", 3)
        pair.client = client.wrap_bio(pair.c_in, pair.c_out, server_hostname="localhost", session=session)
        pair.until(pair.client.do_handshake, pair.server.do_handshake)
        pair.server.write(b"x")
        pair.until(lambda p=pair: p.client.read(10))
        assert not pair.client.session_reused
        session = pair.client.session
