# ruff: noqa: E501  # one line per case
"""How the client reaches a server: TLS 1.3 to a trusted one, or a typed error."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from tests.servers.served import make_store

import strongroom
from strongroom import errors
from strongroom.client import _wire

KEY = "sr_live_0000000000000000000000000000000000000000000000000000000000000"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "ws://x",
        "127.0.0.1:8443",
        "",
        "https://",
        "https://u:p@x",
        "https://x?y",
        "https://x:99999",
        "file:///etc",
    ],
)
def test_only_https_addresses_are_taken(url):
    """A key is never sent over plain HTTP, not even once."""
    with pytest.raises(errors.ConfigurationError):
        strongroom.connect(url, api_key=KEY)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nx: y", "ü", None, "x" * 9000])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(key):
    with pytest.raises(errors.UnauthenticatedError):
        strongroom.connect("https://127.0.0.1:1", api_key=key)


def test_a_missing_or_malformed_authority_is_a_configuration_error(tmp_path):
    (tmp_path / "bad.pem").write_text("no certificate")
    for path in (tmp_path / "none.pem", tmp_path / "bad.pem"):
        with pytest.raises(errors.ConfigurationError):
            strongroom.connect("https://127.0.0.1:1", api_key=KEY, ca=path)


def test_a_server_that_is_not_trusted_is_not_spoken_to(server):
    with (
        strongroom.connect(server.url, api_key=server.admin_key) as room,
        pytest.raises(errors.TransportError) as refused,
    ):
        room.stats()
    assert "ca=" in refused.value.message and server.admin_key not in str(refused.value)


def test_nobody_there_is_a_transport_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with (
            strongroom.connect(f"https://127.0.0.1:{port}", api_key=KEY) as room,
            pytest.raises(errors.TransportError),
        ):
            room.stats()


def test_the_key_is_in_no_representation(server):
    room = strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca)
    assert server.admin_key not in repr(room)
    room.close()
    room.close()
    with pytest.raises(errors.TransportError):
        room.stats()


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    """An environment variable must not decide who sees memories and keys."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as room:
        assert room.stats().dead == 0


@contextmanager
def tls_server(tmp_path, answers, maximum=None):
    """Answers each connection with the next of ``answers`` (bytes; b"" hangs up) and counts the requests."""
    make_store(tmp_path / "tls-data")
    tls = tmp_path / "tls-data.keys" / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    if maximum:
        context.maximum_version = maximum
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []
    done = threading.Event()

    def serve():
        for answer in answers:
            raw, _ = listener.accept()
            if done.is_set():
                raw.close()
                return
            try:
                with context.wrap_socket(raw, server_side=True) as peer:
                    requests.append(peer.recv(65536))
                    if answer:
                        peer.sendall(answer)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with strongroom.connect(
            f"https://127.0.0.1:{listener.getsockname()[1]}", api_key=KEY, ca=tls / "ca.pem", timeout_s=5
        ) as room:
            yield room, requests
    finally:
        done.set()
        socket.create_connection(listener.getsockname()).close()  # wakes the thread
        thread.join(10)
        listener.close()


def answer(status, body, headers=b""):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s" % (
        status,
        len(body),
        headers,
        body,
    )


STATS = answer(
    200, b'{"memories":1,"embedded":1,"pending":0,"dead":0,"namespaces":1,"of_a_newer_server":true}'
)


def test_tls_1_2_is_refused_by_the_client_too(tmp_path):
    with (
        tls_server(tmp_path, [STATS] * 3, ssl.TLSVersion.TLSv1_2) as (room, requests),
        pytest.raises(errors.TransportError),
    ):
        room.stats()
    assert requests == []


def test_a_broken_connection_is_tried_again_for_what_changes_nothing(tmp_path):
    with tls_server(tmp_path, [b"", b"", STATS]) as (room, requests):
        assert room.stats().memories == 1
    assert len(requests) == 3


def test_the_tries_are_bounded(tmp_path):
    with tls_server(tmp_path, [b""] * 9) as (room, requests), pytest.raises(errors.TransportError):
        room.stats()
    assert len(requests) == 3


def test_a_write_is_never_sent_twice(tmp_path):
    """The answer was lost, the memory may be stored: repeating would store it again."""
    with tls_server(tmp_path, [b""] * 3) as (room, requests), pytest.raises(errors.TransportError):
        room.store("x", namespace="a/b")
    assert len(requests) == 1


def test_redirects_are_not_followed(tmp_path):
    """A redirect would carry the key elsewhere."""
    moved = answer(307, b"", b"Location: /elsewhere\r\n")
    with tls_server(tmp_path, [moved, STATS]) as (room, requests), pytest.raises(errors.TransportError):
        room.stats()
    assert len(requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b'{"memories": "many"}', b"\xff", b"[]", b'{"error": 5}'])
def test_an_answer_that_makes_no_sense_is_a_transport_error(tmp_path, body):
    for status in (200, 500):
        (tmp_path / str(status)).mkdir()
        with (
            tls_server(tmp_path / str(status), [answer(status, body)]) as (room, _),
            pytest.raises(errors.TransportError),
        ):
            room.stats()


@pytest.mark.parametrize("code", sorted(errors.all_errors()))
def test_every_error_is_made_again_from_its_answer(code):
    shown = errors.all_errors()[code]("a message", hint="a hint").as_dict()
    import json

    found = _wire.error_of(400, json.dumps({"error": shown}).encode())
    assert type(found) is errors.all_errors()[code] and (found.message, found.hint) == ("a message", "a hint")


def test_the_client_needs_nothing_of_the_engine():
    """Importing the client loads neither keys nor databases: it can live in an agent's small process."""
    import subprocess
    import sys

    code = (
        "import sys, strongroom; strongroom.connect; "
        "bad = [m for m in sys.modules if m.startswith(('strongroom.engine', 'strongroom.crypto', 'strongroom.keyring', "
        "'duckdb', 'faiss', 'apsw', 'onnxruntime', 'fastapi'))]; sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_timeouts_are_typed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        room = strongroom.connect(f"https://127.0.0.1:{silent.getsockname()[1]}", api_key=KEY, timeout_s=0.2)
        with room, pytest.raises((errors.OperationTimeoutError, errors.TransportError)):
            room.stats()


def test_head_and_body_of_a_request_come_together(tmp_path):
    """One read of the server gives the whole request, so that it is woken once."""
    with tls_server(tmp_path, [answer(200, b'{"hits": [], "notices": []}')]) as (room, requests):
        assert room.search("a question", namespaces=["a/b"]) == []
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/memories:search HTTP/1.1\r\n")
    assert b'"a question"' in body and len(body) == int(
        head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
    )


def test_a_question_goes_without_anything_that_was_not_asked_for(tmp_path):
    """The request names the server, the key and what is sent; no compression and no version of a library."""
    with tls_server(tmp_path, [answer(200, b'{"hits": [], "notices": []}')]) as (room, requests):
        room.search("a question", namespaces=["a/b"])
    names = [line.split(b":")[0].lower() for line in requests[0].split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert sorted(names) == [
        b"accept",
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    ]
