"""The client of OpenAI-compatible endpoints against a real small server that misbehaves in every way."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from strongroom.config import EmbeddingConfig
from strongroom.embedding import OpenAICompatible, make_provider
from strongroom.embedding._openai import RETRY_AFTER_S_MAX, TEXT_CHARACTERS_MAX, check_url, retry_after_s
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
)

CANARY = "canary-5b1 secret content"


def answer(texts: list[str], dimensions: int = 4) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": i, "embedding": [float(len(t)), 1.0, 2.0, 3.0][:dimensions]}
        for i, t in enumerate(texts)
    ]
    return {"object": "list", "data": data, "model": "m"}


class Endpoint:
    """A real HTTP server; ``respond(texts)`` gives (status, headers, body bytes)."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.respond: Callable[[list[str]], tuple[int, dict[str, str], bytes]] = lambda texts: (
            200,
            {},
            json.dumps(answer(texts)).encode(),
        )
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.requests.append({"path": self.path, **body})
                endpoint.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, headers, out = endpoint.respond(body["input"])
                try:
                    self.send_response(status)
                    for k, v in headers.items():
                        self.send_header(k, v)
                    self.send_header("content-length", str(len(out)))
                    self.end_headers()
                    self.wfile.write(out)
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def say(self, body: object, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.respond = lambda texts: (status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.close()


Client = Callable[..., OpenAICompatible]


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Client]:
    made: list[OpenAICompatible] = []

    def make(**changes: Any) -> OpenAICompatible:
        clock = {"clock": changes.pop("clock")} if "clock" in changes else {}
        settings = {"provider": "openai", "url": endpoint.url, "model": "m", "dimensions": 4} | changes
        made.append(OpenAICompatible(EmbeddingConfig(**settings), **clock))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_vectors_come_back_in_order_with_norm_one(endpoint: Endpoint, client: Client) -> None:
    vectors = client(batch_size_max=2).embed(["a", "bbb", "cc"])
    expected = np.array([[1, 1, 2, 3], [3, 1, 2, 3], [2, 1, 2, 3]], np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32
    assert [len(r["input"]) for r in endpoint.requests] == [2, 1]
    assert endpoint.requests[0]["path"] == "/v1/embeddings"
    assert endpoint.requests[0]["model"] == "m"
    assert client().embed([]).shape == (0, 4)


def test_the_index_decides_the_order_not_the_place(endpoint: Endpoint, client: Client) -> None:
    straight = client().embed(["a", "bbb"])
    endpoint.respond = lambda texts: (
        200,
        {},
        json.dumps(answer(texts) | {"data": answer(texts)["data"][::-1]}).encode(),
    )
    np.testing.assert_array_equal(client().embed(["a", "bbb"]), straight)


def test_the_key_is_read_from_its_reference_and_sent_as_bearer(
    endpoint: Endpoint, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBED_KEY", "k-123")
    client(api_key="env:EMBED_KEY").embed(["a"])
    (tmp_path / "key").write_text("k-456\n")
    client(api_key=f"file:{tmp_path / 'key'}").embed(["a"])
    client().embed(["a"])
    assert [h.get("authorization") for h in endpoint.headers] == ["Bearer k-123", "Bearer k-456", None]
    kept = client(api_key="env:EMBED_KEY")
    monkeypatch.setenv("EMBED_KEY", "k-replaced")
    kept.embed(["a"])
    assert endpoint.headers[-1].get("authorization") == "Bearer k-replaced"
    monkeypatch.delenv("EMBED_KEY")
    with pytest.raises(EmbeddingUnavailableError):
        kept.embed(["a"])
    for wrong in ("k-789", "env:EMBED_ABSENT"):
        with pytest.raises(ConfigurationError) as caught:
            client(api_key=wrong)
        assert "k-789" not in str(caught.value.as_dict())


def vectors_of(*rows: object) -> dict[str, Any]:
    return {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}


MALFORMED: dict[str, object] = {
    "html": b"<html>" + CANARY.encode(),
    "empty": b"",
    "a list": [],
    "null": None,
    "no data": {},
    "data is a dict": {"data": {}},
    "too few": vectors_of(),
    "too many": vectors_of([1, 2, 3, 4], [1, 2, 3, 4]),
    "items are lists": {"data": [[1, 2, 3, 4]]},
    "index missing": {"data": [{"embedding": [1, 2, 3, 4]}]},
    "index is true": {"data": [{"index": False, "embedding": [1, 2, 3, 4]}]},
    "index negative": {"data": [{"index": -1, "embedding": [1, 2, 3, 4]}]},
    "index too large": {"data": [{"index": 1, "embedding": [1, 2, 3, 4]}]},
    "too short": vectors_of([1, 2, 3]),
    "too long": vectors_of([1, 2, 3, 4, 5]),
    "a text": vectors_of("AAAA"),
    "holds a text": vectors_of([1, 2, 3, CANARY]),
    "holds true": vectors_of([1, 2, 3, True]),
    "holds null": vectors_of([1, 2, 3, None]),
    "deeply nested": b"[" * 100_000,
    "huge": b" " * 1_000_000,
    "no base64": vectors_of("####"),
    "half a number": vectors_of(base64.b64encode(bytes(15)).decode()),
    "base64 of another length": vectors_of(base64.b64encode(bytes(12)).decode()),
    "base64 of no letters": vectors_of("ä" * 24),
    "bad bytes": b"\xff\xfe{}",
}
USELESS: dict[str, object] = {
    "base64 of NaN": vectors_of(base64.b64encode(np.full(4, np.nan, "<f4").tobytes()).decode()),
    "base64 of zeros": vectors_of(base64.b64encode(bytes(16)).decode()),
    "NaN": b'{"data": [{"index": 0, "embedding": [NaN, 1, 2, 3]}]}',
    "infinity": b'{"data": [{"index": 0, "embedding": [1e999, 1, 2, 3]}]}',
    "too large for float32": vectors_of([1e300, 1, 2, 3]),
    "a huge integer": vectors_of([10**400, 1, 2, 3]),
    "zero": vectors_of([0, 0, 0, 0]),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_is_no_vector_and_kills_no_text(
    body: object, endpoint: Endpoint, client: Client
) -> None:
    endpoint.say(body)
    with pytest.raises(EmbeddingUnavailableError) as caught:
        client().embed([CANARY])
    assert CANARY not in str(caught.value.as_dict())


@pytest.mark.parametrize("body", USELESS.values(), ids=USELESS.keys())
def test_a_vector_that_is_no_direction_is_refused(body: object, endpoint: Endpoint, client: Client) -> None:
    endpoint.say(body)
    with pytest.raises(EmbeddingRejectedError):
        client().embed([CANARY])


def test_vectors_in_base64_come_back_exactly(endpoint: Endpoint, client: Client) -> None:
    given = np.array([[0.1, -0.2, 0.3, 0.9], [1e-7, 1, 0, -1e-3]], "<f4")
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    packed = [base64.b64encode(row.tobytes()).decode() for row in given]
    endpoint.say({"data": [{"index": i, "embedding": packed[i]} for i in (1, 0)]})
    np.testing.assert_allclose(client().embed(["a", "b"]), given, rtol=2e-7)
    assert endpoint.requests[0]["encoding_format"] == "base64"


def test_an_endpoint_that_refuses_base64_is_asked_for_numbers_from_then_on(
    endpoint: Endpoint, client: Client
) -> None:
    """A refusal of the way is no refusal of a text; and a text that is refused in both ways is refused."""
    good = endpoint.respond

    def respond(texts: list[str]) -> tuple[int, dict[str, str], bytes]:
        asked = endpoint.requests[-1]["encoding_format"]
        return good(texts) if asked == "float" and texts != ["bad"] else (400, {}, b"{}")

    endpoint.respond = respond
    provider = client()
    with pytest.raises(EmbeddingRejectedError):
        provider.embed(["bad"])
    assert provider.embed(["a"]).shape == provider.embed(["b"]).shape == (1, 4)
    asked = [r["encoding_format"] for r in endpoint.requests]
    assert asked == ["base64", "float", "base64", "float", "float"]


def test_an_answer_that_is_too_large_is_not_read_to_its_end(endpoint: Endpoint, client: Client) -> None:
    endpoint.say(json.dumps(answer(["a"])).encode() + b" " * 1_000_000)
    with pytest.raises(EmbeddingUnavailableError, match="too large"):
        client().embed(["a"])


def test_a_repeated_index_is_refused(endpoint: Endpoint, client: Client) -> None:
    endpoint.say({"data": [{"index": 0, "embedding": [1, 2, 3, 4]}] * 2})
    with pytest.raises(EmbeddingUnavailableError):
        client().embed(["a", "b"])


@pytest.mark.parametrize(
    ("status", "expected"),
    [(s, EmbeddingRejectedError) for s in (400, 413, 415, 422)]
    + [(s, EmbeddingUnavailableError) for s in (201, 301, 307, 308, 401, 403, 404, 405, 408, 409, 425, 429)]
    + [(s, EmbeddingUnavailableError) for s in (500, 502, 503, 504, 529)],
)
def test_a_status_is_either_the_texts_fault_or_worth_another_try(
    status: int, expected: type[EmbeddingError], endpoint: Endpoint, client: Client
) -> None:
    endpoint.say({"error": {"message": CANARY}}, status, location=f"{endpoint.url}/embeddings")
    with pytest.raises(expected) as caught:
        client().embed([CANARY])
    assert type(caught.value) is expected
    assert CANARY not in str(caught.value.as_dict())
    asked = [r["encoding_format"] for r in endpoint.requests]
    ways = ["base64", "float"] if expected is EmbeddingRejectedError else ["base64"]
    assert asked == ways, "no redirect is followed, nothing is repeated here in the same way"


def test_a_wrong_key_points_at_the_settings(endpoint: Endpoint, client: Client) -> None:
    endpoint.say({}, 401)
    with pytest.raises(EmbeddingUnavailableError) as caught:
        client().embed(["a"])
    assert "api_key" in (caught.value.hint or "")


def test_retry_after_is_honoured_without_another_request(endpoint: Endpoint, client: Client) -> None:
    now = [100.0]
    provider = client(clock=lambda: now[0])
    good = endpoint.respond
    endpoint.say({}, 429, retry_after="7")
    with pytest.raises(EmbeddingUnavailableError):
        provider.embed(["a"])
    endpoint.respond = good
    now[0] = 106.9
    with pytest.raises(EmbeddingUnavailableError):
        provider.embed(["a"])
    assert len(endpoint.requests) == 1
    now[0] = 107.1
    assert provider.embed(["a"]).shape == (1, 4)


def test_retry_after_is_read_as_seconds_or_as_a_date_and_bounded() -> None:
    now = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
    assert retry_after_s("5", now) == 5
    assert retry_after_s("Thu, 01 Jan 2026 12:00:30 GMT", now) == 30
    assert retry_after_s("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    assert retry_after_s("9" * 30, now) == RETRY_AFTER_S_MAX
    for nonsense in (None, "", "soon", "-5", "1.5", "٣", "Thu, 99 Jan 2026"):
        assert retry_after_s(nonsense, now) == 0


def test_an_endpoint_that_hangs_is_unavailable(endpoint: Endpoint, client: Client) -> None:
    go_on = threading.Event()

    def hang(texts: list[str]) -> tuple[int, dict[str, str], bytes]:
        go_on.wait(30)
        return 200, {}, b""

    endpoint.respond = hang
    with pytest.raises(EmbeddingUnavailableError, match="in time"):
        client(request_timeout_ms=100).embed([CANARY])
    go_on.set()


def test_an_endpoint_that_is_not_there_is_unavailable(endpoint: Endpoint, client: Client) -> None:
    provider = client()
    endpoint.server.socket.close()
    with pytest.raises(EmbeddingUnavailableError, match="cannot be reached"):
        provider.embed([CANARY])


def test_a_long_text_that_is_refused_is_shortened_until_it_is_taken(
    endpoint: Endpoint, client: Client
) -> None:
    good = endpoint.respond
    endpoint.respond = lambda texts: good(texts) if len(texts[0]) <= 5000 else (400, {}, b"{}")
    assert client().embed(["x" * 1_000_000]).shape == (1, 4)
    sizes = [len(r["input"][0]) for r in endpoint.requests if r["encoding_format"] == "base64"]
    assert sizes == [TEXT_CHARACTERS_MAX, 16384, 8192, 4096]


def test_a_lone_surrogate_is_refused_before_anything_is_sent(endpoint: Endpoint, client: Client) -> None:
    with pytest.raises(EmbeddingRejectedError):
        client().embed(["a", "\udc80"])
    assert not endpoint.requests


def test_a_closed_client_says_so(client: Client) -> None:
    provider = client()
    provider.close()
    provider.close()
    with pytest.raises(ClosedError):
        provider.embed(["a"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "http://example.com/v1",
        "http://localhost/v1",
        "http://127.0.0.1.example.com/v1",
        "http://10.0.0.1/v1",
        "http://user:pw@127.0.0.1/v1",
        "https://example.com/v1?key=1",
        "https://example.com/#x",
        "https:///v1",
        "ftp://127.0.0.1/",
        "https://example.com:99999/",
        "http://[::1/v1",
    ],
)
def test_an_address_that_would_send_content_in_clear_or_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check_url(url)


def test_https_anywhere_and_http_on_loopback_are_taken() -> None:
    assert check_url("https://example.com/v1/") == "https://example.com/v1"
    assert check_url("http://127.0.0.9:8080/v1") == "http://127.0.0.9:8080/v1"
    assert check_url("http://[::1]:8080") == "http://[::1]:8080"


def test_a_proxy_in_the_environment_is_not_used(
    endpoint: Endpoint, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert client().embed(["a"]).shape == (1, 4)


def test_the_fingerprint_changes_with_address_model_and_dimensions(client: Client) -> None:
    prints = {
        client(**c).fingerprint for c in ({}, {"model": "n"}, {"dimensions": 5}, {"url": "https://a.b"})
    }
    assert len(prints) == 4


def test_make_provider_builds_this_client(endpoint: Endpoint) -> None:
    provider = make_provider(EmbeddingConfig(provider="openai", url=endpoint.url, model="m", dimensions=4))
    assert isinstance(provider, OpenAICompatible)
    provider.close()


def self_signed(directory: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    ca = directory / "ca.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return ca, context


def test_tls_is_verified_against_the_configured_authority(tmp_path: Path) -> None:
    ca, context = self_signed(tmp_path)
    running = Endpoint(context)
    try:
        settings: dict[str, Any] = {"provider": "openai", "url": running.url, "model": "m", "dimensions": 4}
        trusted = OpenAICompatible(EmbeddingConfig(**settings, ca_file=str(ca)))
        assert trusted.embed(["a"]).shape == (1, 4)
        trusted.close()
        stranger = OpenAICompatible(EmbeddingConfig(**settings))
        with pytest.raises(EmbeddingUnavailableError):
            stranger.embed([CANARY])
        stranger.close()
        assert len(running.requests) == 1, "nothing reaches a server that is not trusted"
        with pytest.raises(ConfigurationError):
            OpenAICompatible(EmbeddingConfig(**settings, ca_file=str(tmp_path / "absent.pem")))
    finally:
        running.close()
