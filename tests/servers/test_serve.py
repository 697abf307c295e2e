"""The server as a process: it starts, answers, and stops without losing what it took."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing

import psycopg
import pytest
from tests.servers.served import make_store
from tests.support.word_model import WordModel

import strongroom
from strongroom.client._tls import client_context
from strongroom.engine import Engine
from strongroom.errors import ConfigurationError
from strongroom.servers import serve
from strongroom.servers.serve import ServerThread, run_server, server_files
from strongroom.servers.tls import renew_server_certificate

SERVE = """
import sys
from pathlib import Path
from tests.support.word_model import WordModel
from strongroom.engine import Engine
from strongroom.servers.serve import run_server, server_files
directory = Path(sys.argv[1])
engine = Engine.open(directory, provider=WordModel(64))
certificate, private_key = server_files(directory, engine.config)
run_server(engine, engine.config, certificate=certificate, private_key=private_key, port=0)
"""


def start(directory):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(directory)],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "serving":
            return process, event["port"], event["pgwire_port"]
    raise AssertionError("the server did not start")


@pytest.fixture
def store(tmp_path):
    directory = tmp_path / "data"
    make_store(directory)
    engine = Engine.open(directory, provider=WordModel(64))
    key = engine.owner_session("test").keys_create("k", "read-write", ["*"])[1]
    engine.close()
    return directory, key, directory.with_name("data.keys") / "tls" / "ca.pem"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_every_acknowledged_memory_is_there(store, number):
    """Writers are at work when the signal comes: what was acknowledged is kept, and the exit is clean."""
    directory, key, ca = store
    process, port, _ = start(directory)
    acknowledged: list[str] = []
    started = threading.Event()

    def write():
        with strongroom.connect(f"https://127.0.0.1:{port}", api_key=key, ca=ca, timeout_s=20) as room:
            for i in range(10_000):
                try:
                    acknowledged.append(str(room.store(f"memory {i}", namespace="a/b").memory_id))
                except strongroom.StrongroomError:
                    return
                if i == 5:
                    started.set()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for w in writers:
        w.start()
    assert started.wait(30)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    for w in writers:
        w.join(60)
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["event"] == "stopped" and not [x for x in lines if x["event"] == "unexpected_error"]
    assert "Traceback" not in err
    room = strongroom.open(directory, provider=WordModel(64))
    with room:
        page, found = None, set()
        while page is None or page.next_cursor:
            page = room.list(namespaces=["a/b"], limit=500, cursor=page.next_cursor if page else None)
            found |= {str(m.memory_id) for m in page.memories}
    assert len(acknowledged) > 5 and set(acknowledged) <= found


def test_an_idle_connection_does_not_keep_a_server_from_stopping(store, monkeypatch):
    """A pool keeps its connection and never looks at it: what it says to the end of TLS is not waited for."""
    directory, key, ca = store
    monkeypatch.setattr(asyncio.constants, "SSL_SHUTDOWN_TIMEOUT", 3_600)
    monkeypatch.setattr(serve, "_DRAIN_S", 3_600)
    engine = Engine.open(directory, provider=WordModel(64))
    certificate, private_key = server_files(directory, engine.config)
    server = ServerThread(engine, engine.config, certificate=certificate, private_key=private_key)
    with server:
        request = f"GET /v1/whoami HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\r\n"
        plain = socket.create_connection(("127.0.0.1", server.port))
        with client_context(ca).wrap_socket(plain, server_hostname="127.0.0.1") as idle:
            idle.sendall(request.encode())
            assert idle.recv(65_536).startswith(b"HTTP/1.1 200")
            stopping = threading.Thread(target=server.stop, daemon=True)
            stopping.start()
            stopping.join(60)
            assert not stopping.is_alive()
    engine.close()


def test_an_address_in_use_or_no_address_is_a_typed_error(store):
    directory, _, _ = store
    engine = Engine.open(directory, provider=WordModel(64))
    certificate, private_key = server_files(directory, engine.config)
    files = {"certificate": certificate, "private_key": private_key}
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ConfigurationError, match="cannot be bound") as raised:
                ServerThread(engine, engine.config, port=taken.getsockname()[1], **files)
            assert "another process listens there; give another port" in str(raised.value.hint)
        for host, port in (("no.such.host.invalid", 0), ("127.0.0.1", 70_000), ("203.0.113.7", 0)):
            with pytest.raises(ConfigurationError) as raised:
                ServerThread(engine, engine.config, host=host, port=port, **files)
            assert port or "an address or a name of this machine" in str(raised.value.hint)
        private_key.chmod(0o644)
        with pytest.raises(ConfigurationError, match="read by others"):
            run_server(engine, engine.config, port=0, **files)
        with pytest.raises(strongroom.StrongroomError):
            engine.owner_session("test").stats()  # run_server closes the engine even when it cannot start
    finally:
        engine.close()


def test_the_port_is_free_again_after_a_stop(store):
    directory, key, ca = store
    engine = Engine.open(directory, provider=WordModel(64))
    certificate, private_key = server_files(directory, engine.config)
    port = 0
    try:
        for _ in range(3):
            server = ServerThread(
                engine, engine.config, certificate=certificate, private_key=private_key, port=port
            )
            with server, strongroom.connect(server.url, api_key=key, ca=ca) as room:
                room.stats()
            port = server.port
    finally:
        engine.close()


def shown(port, alpn):
    """The certificate of the server, as somebody who connects now gets it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        return tls.getpeercert(binary_form=True)


def until(process, *events):
    """Read the log up to the first line with one of these events."""
    for line in process.stderr:
        if (event := json.loads(line)["event"]) in events:
            return event
    raise AssertionError("the server has ended")


def test_a_hangup_changes_the_certificate_and_cuts_nobody_off(store):
    """REST and the wire show the new one, SCRAM binds to it; one that does not fit leaves that of before."""
    directory, key, ca = store
    process, port, wire = start(directory)
    try:
        before = shown(port, "http/1.1")

        with closing(
            http.client.HTTPSConnection("127.0.0.1", port, context=client_context(ca))
        ) as open_before:
            open_before.connect()
            renew_server_certificate(ca.parent, ["127.0.0.1", "localhost"])
            process.send_signal(signal.SIGHUP)
            assert until(process, "certificate_renewed", "certificate_not_renewed") == "certificate_renewed"
            after = shown(port, "http/1.1")
            assert after != before and shown(wire, "postgresql") == after
            headers = {"authorization": f"Bearer {key}"}
            open_before.request("GET", "/v1/whoami", headers=headers)
            assert open_before.getresponse().status == 200
        named = f"host=localhost hostaddr=127.0.0.1 port={wire} user={key[8:20]} password={key}"
        how = f"sslmode=verify-full sslrootcert={ca} channel_binding=require dbname=strongroom"
        with psycopg.connect(f"{named} {how}") as c:
            assert c.execute("select 1").fetchone() == (1,)
        (ca.parent / "server.key").write_text("no key\n")
        process.send_signal(signal.SIGHUP)
        assert until(process, "certificate_renewed", "certificate_not_renewed") == "certificate_not_renewed"
        assert shown(port, "http/1.1") == after and shown(wire, "postgresql") == after
    finally:
        process.terminate()
        process.communicate(timeout=60)
