"""Floods of the Postgres wire, driven to their end: ``python -m bench.soak.pgwire_flood --seconds 10``.

A server process of its own with a small store; twenty connections of one key, each pipelining without pause
one of

    statements   Parse under a new name each time, until there are too many, and on
    portals      Bind to a new portal each time in one transaction, and on
    describe     Parse and Describe of a statement that nobody has asked before
    unsynced     Parse, Bind, Describe, Execute, again and again without Sync or Flush, answers taken
    untaken      the same with nobody who takes the answers
    tiny         Flush and Close: five to eleven bytes each
    failing      an error, then messages that are skipped, without end

Beside them another key looks up a row every 20 ms, and signs in anew every quarter of a second. Told are
messages sent per second (many wait in the buffers of sockets), what the other key waited, and the memory of
the server: at the start, at most, and after the flood. ``--messages`` ends a flood when each connection has
sent so many. Exit status 1 when the server has died, an answer to the other key failed, or memory passed
``--memory-mib``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import psycopg
from tests.pgwire.raw import Raw, message, text, tls

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.identity import create_local_ca

CONNECTIONS: Final = 20
_ROWS: Final = 2_000
_BATCH: Final = 200  # messages in one write
_PAUSE_S: Final = 0.02
_SIGN_IN_EVERY: Final = 12


def parse(name: str, sql: str) -> bytes:
    return message(b"P", text(name) + text(sql) + struct.pack("!H", 0))


def bind(portal: str, statement: str = "") -> bytes:
    return message(b"B", text(portal) + text(statement) + struct.pack("!HHH", 0, 0, 0))


EXECUTE: Final = message(b"E", text("") + struct.pack("!i", 0))
DESCRIBE: Final = message(b"D", b"S" + text(""))
SYNC: Final = message(b"S")
ASK: Final = [parse("", "SELECT memory_id FROM memories LIMIT 1"), bind(""), DESCRIBE, EXECUTE]


def statements() -> Iterator[bytes]:
    n = 0
    while True:
        n += 1
        yield parse(f"statement_{n}", "SELECT content FROM memories WHERE kind = 'fact'")
        if n % 50 == 0:
            yield SYNC


def portals() -> Iterator[bytes]:
    yield message(b"Q", text("BEGIN"))
    yield parse("", "SELECT content FROM memories")
    n = 0
    while True:
        n += 1
        yield bind(f"portal_{n}")
        if n % 150 == 0:
            yield SYNC
            yield message(b"Q", text("ROLLBACK"))
            yield message(b"Q", text("BEGIN"))
            yield parse("", "SELECT content FROM memories")


def describe() -> Iterator[bytes]:
    n = os.getpid() * 1_000_000 + threading.get_ident() % 1_000_000
    while True:
        n += 1
        yield parse("", f"SELECT content, {n} AS n FROM memories WHERE importance > {n % 97} / 100.0")
        yield DESCRIBE
        yield SYNC


def unsynced() -> Iterator[bytes]:
    while True:
        yield from ASK


def tiny() -> Iterator[bytes]:
    while True:
        yield message(b"H")
        yield message(b"C", b"S" + text("none"))


def failing() -> Iterator[bytes]:
    yield parse("", "SELECT nothing FROM nowhere")
    while True:
        yield from ASK


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "statements": statements,
    "portals": portals,
    "describe": describe,
    "unsynced": unsynced,
    "untaken": unsynced,
    "tiny": tiny,
    "failing": failing,
}


def _flood(port: int, ca: str, key: str, name: str, most: int, over: Event, sent: Any) -> None:
    """The connections of one attacking process."""

    def take(raw: Raw) -> None:
        with suppress(OSError, ssl.SSLError):
            while raw.socket.recv(262_144):
                pass

    def drive(place: int) -> None:
        with suppress(OSError, ssl.SSLError, EOFError, AssertionError), Raw(port) as raw:
            raw.start_tls(tls(Path(ca)))
            raw.sign_in(key)
            raw.socket.settimeout(120)
            if name != "untaken":
                threading.Thread(target=take, args=(raw,), daemon=True).start()
            source, count = FLOODS[name](), 0
            while not over.is_set() and count < most:
                raw.send(b"".join(next(source) for _ in range(_BATCH)))
                count += _BATCH
                sent[place] = count
            raw.send(SYNC)
            over.wait()

    threads = [threading.Thread(target=drive, args=(p,), daemon=True) for p in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    over.wait()
    os._exit(0)  # whoever is in the middle of a write stays there


def _memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class _Bystander:
    """Another key: what it waits for look-ups and for signing in, in ms; and whether anything failed."""

    def __init__(self, where: dict[str, Any], memory_id: str) -> None:
        self._where, self._memory_id = where, memory_id
        self.lookups: list[float] = []
        self.sign_ins: list[float] = []
        self.failed: list[str] = []

    def look(self, until: float, pid: int) -> float:
        """Until then; the greatest memory seen."""
        highest, turn = 0.0, 0
        asked = psycopg.connect(**self._where, autocommit=True)
        while time.monotonic() < until:
            turn += 1
            try:
                began = time.perf_counter()
                if turn % _SIGN_IN_EVERY == 0:
                    psycopg.connect(**self._where).close()
                    self.sign_ins.append((time.perf_counter() - began) * 1e3)
                else:
                    found = asked.execute(
                        "SELECT content FROM memories WHERE memory_id = %s", (self._memory_id,)
                    ).fetchall()
                    self.lookups.append((time.perf_counter() - began) * 1e3)
                    if len(found) != 1:
                        self.failed.append("no row")
            except psycopg.Error as e:
                self.failed.append(f"{type(e).__name__} {e.sqlstate}")
                with suppress(psycopg.Error):
                    asked = psycopg.connect(**self._where, autocommit=True)
            highest = max(highest, _memory_mib(pid))
            time.sleep(_PAUSE_S)
        asked.close()
        return highest


def _told(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    values = sorted(values)
    at = [values[min(len(values) - 1, int(len(values) * part))] for part in (0.5, 0.99)]
    return f"{at[0]:.1f} / {at[1]:.1f} / {values[-1]:.1f}"


def _store(place: Path) -> tuple[str, str, str]:
    directory = place / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=8)))
    create_local_ca(place / "data.keys" / "tls")
    with strongroom.open(directory, worker=False) as room:
        made = room.store_many(
            {"content": f"memory {n}", "namespace": "a/b", "kind": "fact", "embedding": [1.0] * 8}
            for n in range(_ROWS)
        )
        attacker, bystander = (
            room.keys_create(name, "read-only", ["*"])[1] for name in ("attacker", "bystander")
        )
    return str(made[0].memory_id), attacker, bystander


def _served(directory: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "strongroom.cli", "--data", str(directory), "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == "serving":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, int(json.loads(line)["pgwire_port"])
    raise RuntimeError("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("floods", nargs="*", choices=[[], *FLOODS], help="all of them without a name")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--messages", type=int, default=100_000, help="of each connection, at most")
    parser.add_argument("--memory-mib", type=float, default=1_500.0)
    given = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as place:
        memory_id, attacker, bystander = _store(Path(place))
        process, port = _served(Path(place) / "data")
        ca = Path(place) / "data.keys" / "tls" / "ca.pem"
        where = {
            "host": "localhost", "hostaddr": "127.0.0.1", "port": port, "user": bystander[8:20],
            "password": bystander, "dbname": "strongroom", "sslmode": "verify-full", "sslrootcert": str(ca),
        }  # fmt: skip
        print(
            "flood          sent/s   look-up ms p50/p99/max   sign-in ms p50/p99/max   MiB before/most/after"
        )
        try:
            for name in ["none", *(given.floods or FLOODS)]:
                over, sent = multiprocessing.Event(), multiprocessing.Array("q", CONNECTIONS, lock=False)
                before, seen = _memory_mib(process.pid), _Bystander(where, memory_id)
                args = (port, str(ca), attacker, name, given.messages, over, sent)
                flood = multiprocessing.Process(target=_flood, args=args, daemon=True)
                if name != "none":
                    flood.start()
                    time.sleep(0.5)
                started = time.monotonic()
                highest = seen.look(started + given.seconds, process.pid)
                rate = sum(sent) / (time.monotonic() - started + 0.5)
                over.set()
                if name != "none":
                    flood.join(10)
                time.sleep(2)
                after = _memory_mib(process.pid)
                bad |= bool(seen.failed) or process.poll() is not None or highest > given.memory_mib
                print(
                    f"{name:12} {rate:10,.0f}   {_told(seen.lookups):22}   {_told(seen.sign_ins):22}   "
                    f"{before:.0f} / {highest:.0f} / {after:.0f}   {'; '.join(sorted(set(seen.failed)))}",
                    flush=True,
                )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)
    print(f"the server ended with {process.returncode}")
    sys.exit(1 if bad or process.returncode else 0)


if __name__ == "__main__":
    main()
