"""Several processes on one keyring, and processes that are killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.keyring.keyring_tools import STORE, Keys, context, subject

from strongroom.errors import ClosedError

SCRIPT = Path(__file__).with_name("keyring_process.py")


@contextlib.contextmanager
def process(keys: Keys, mode: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), mode, str(keys.path.parent), str(STORE), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def read(child: subprocess.Popen[str]) -> Any:
    assert child.stdout
    line = child.stdout.readline()
    assert line, "the process ended early"
    return json.loads(line)


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin
    child.stdin.write("go\n")
    child.stdin.flush()


def test_racing_processes_get_the_same_keys(keys: Keys) -> None:
    """Three processes that make keys for the same new subjects at once end with the same keys, once each."""
    ring = keys.create()
    ns = ring.create_namespace("company_a")
    with process(keys, "race") as a, process(keys, "race") as b, process(keys, "race") as c:
        children = (a, b, c)
        for child in children:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
        for child in children:
            tell(child)
        told = [read(child) for child in children]
        assert told[0]["found"] == told[1]["found"] == told[2]["found"]
        assert len(set(told[0]["found"].values())) == 200
        assert len({t["one"] for t in told}) == 1
        assert {t["made"] for t in told} == {2, 3, 4}
        for t in told:  # found on demand, while the others still run
            assert ring.key(t["one"]).open(context(ns), bytes.fromhex(t["sealed"])) == b"from another process"
        assert ring.data_key(ns, subject(5), create=True).key_id == told[0]["found"][subject(5).hex()]
        assert ring.data_key(4, None, create=False).ns == 4
        for child in children:
            tell(child)
            assert child.wait(30) == 0
    assert ring.check() == []
    assert keys.sql("SELECT unflushed FROM sessions") == [(0,)]


def test_killed_between_creation_and_use(keys: Keys) -> None:
    """Every key that a process had in hand when it was killed is there afterwards and opens its record."""
    ring = keys.create()
    ns = ring.create_namespace("company_a")
    for round_ in range(6):
        with process(keys, "make-and-wait") as child:
            told = [read(child) for _ in range(5 + 7 * round_)]
            child.kill()
            child.wait(30)
            assert child.stdout
            told += [json.loads(t) for t in child.stdout.read().splitlines(keepends=True) if t.endswith("\n")]
        again = keys.open()
        for t in told:
            plain = again.key(t["key_id"]).open(context(ns), bytes.fromhex(t["sealed"]))
            assert plain == bytes.fromhex(t["subject"])
            assert again.data_key(ns, plain, create=False).key_id == t["key_id"]
        by_id = {k.key_id: k.uses for k in again.list_keys(ns)}
        assert all(by_id[t["key_id"]] >= 1 for t in told)
        assert again.check() == []
        again.close()
    assert keys.sql("SELECT unflushed FROM sessions") == [(6,)]


def test_killed_while_it_is_created(keys: Keys) -> None:
    """Killed at any fsync of its creation, a keyring is whole under its name or can be made anew."""
    seen = set()
    for at in range(1, 7):
        with process(keys, "create-and-die", str(at)) as child:
            child.wait(30)
        seen.add(keys.path.exists())
        if keys.path.exists():
            ring = keys.open()
            assert ring.check() == []
            ring.close()
            keys.path.unlink()
        else:
            keys.create().close()
            keys.path.unlink()
    assert seen == {True, False}


def test_a_forked_child_is_refused(keys: Keys) -> None:
    """In a forked child the database is refused rather than shared."""
    ring = keys.create(recheck_ms=0)
    ring._book._pid += 1
    with pytest.raises(ClosedError):
        ring.data_key(0, subject(1), create=True)
    ring._book._pid -= 1
