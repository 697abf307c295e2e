"""The wire beside REST in one server process: it starts with it, shares its keys, and stops with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from tests.servers.served import make_store
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import PgwireConfig
from strongroom.engine import Engine

SERVE = """
import sys
from pathlib import Path
from tests.support.word_model import WordModel
from strongroom.engine import Engine
from strongroom.servers.serve import run_server, server_files
engine = Engine.open(Path(sys.argv[1]), provider=WordModel(64))
certificate, private_key = server_files(Path(sys.argv[1]), engine.config)
run_server(engine, engine.config, certificate=certificate, private_key=private_key, port=0)
"""


def start(directory: Path) -> tuple[subprocess.Popen[str], int, int | None]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(directory)], env=env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "serving":
            return process, event["port"], event["pgwire_port"]
    raise AssertionError("the server did not start")


def make(directory: Path, **settings: object) -> str:
    make_store(directory, pgwire=PgwireConfig(drain_ms=1_000, **settings))  # type: ignore[arg-type]
    engine = Engine.open(directory, provider=WordModel(64))
    key = engine.owner_session("test").keys_create("k", "read-write", ["*"])[1]
    engine.close()
    return key


def test_what_rest_stores_the_wire_shows_and_a_signal_ends_both(tmp_path: Path) -> None:
    """At the signal one session idles and one is at work: they are told 57P01 and 57014, none hangs."""
    key = make(tmp_path / "data")
    ca = tmp_path / "data.keys" / "tls" / "ca.pem"
    process, port, wire_port = start(tmp_path / "data")
    try:
        dsn = (
            f"host=localhost port={wire_port} user={key[8:20]} password={key} dbname=strongroom"
            f" sslmode=verify-full sslrootcert={ca}"
        )
        with strongroom.connect(f"https://127.0.0.1:{port}", api_key=key, ca=ca, timeout_s=20) as room:
            room.store_many([{"content": f"memory {n}", "namespace": "a/b"} for n in range(60)])
        idle, busy = psycopg.connect(dsn, autocommit=True), psycopg.connect(dsn, autocommit=True)
        assert idle.execute("SELECT count(*) FROM memories").fetchone() == (60,)
        ended: list[str | None] = []
        began = threading.Event()

        def work() -> None:
            began.set()
            try:
                busy.execute(
                    "SELECT count(*) FROM memories a, memories b, memories c, memories d,"
                    " memories e, memories f, memories g"
                )
            except psycopg.Error as e:
                ended.append(e.sqlstate)

        worker = threading.Thread(target=work)
        worker.start()
        began.wait(10)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        worker.join(30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in err
    assert ended == ["57014"]
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    busy.close()


def test_switched_off_there_is_no_port(tmp_path: Path) -> None:
    make(tmp_path / "data", enabled=False)
    process, _, wire_port = start(tmp_path / "data")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert wire_port is None
