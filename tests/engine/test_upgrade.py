"""A store of an older ledger is brought up: killed at any write, on a full disk, by several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.rotation.disk import Disk, copy_store, faulty_disk
from tests.support.listed import memories_of

import strongroom
from strongroom.config import Config, EmbeddingConfig, LedgerConfig
from strongroom.engine._audit_log import NOTHING, AuditLog
from strongroom.errors import StorageFullError
from strongroom.ledger import _schema

NS = "company_a/support"
CONFIG = Config(
    embedding=EmbeddingConfig(provider="none", dimensions=8), ledger=LedgerConfig(busy_timeout_ms=2000)
)
COUNT = 60
Oldest = tuple[Path, dict[str, str]]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
OPENS = """
import pathlib, time, strongroom, strongroom.engine
print("ready", flush=True)
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.001)
with strongroom.open({directory!r}, worker=False) as room:
    print(room.store("after", namespace={namespace!r}, embedding=[1.0] * 8).memory_id)
"""


@pytest.fixture
def disk() -> Iterator[Disk]:
    with faulty_disk() as disk:
        yield disk


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Oldest:
    """A closed store whose ledger is of version 1, and the content of its memories by id."""
    directory = tmp_path_factory.mktemp("oldest") / "data"
    strongroom.init(directory, config=CONFIG)
    kept: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patched, strongroom.open(directory, worker=False) as room:
        patched.setattr(AuditLog, "integrate", lambda self: NOTHING)  # version 1 knew no tree
        for n in range(COUNT):
            made = room.store(
                f"memory {n}", namespace=NS, subject=f"user:{n % 9}", embedding=[float(n + 1)] * 8
            )
            kept[str(made.memory_id)] = made.content
    downgrade(directory / "ledger.db")
    return directory, kept


def version_of(directory: Path) -> int:
    ledger = apsw.Connection(str(directory / "ledger.db"))
    found = ledger.execute("SELECT value FROM meta WHERE key = 'schema_version'").get
    ledger.close()
    return int(found)


def downgrade(path: Path) -> None:
    """What later versions have added is taken away again: the file as version 1 wrote it."""
    new, old = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    for step in _schema.MIGRATIONS:
        step(new)
    _schema.MIGRATIONS[0](old)
    names = "SELECT type, name FROM sqlite_schema WHERE sql IS NOT NULL"
    added = set(new.execute(names)) - set(old.execute(names))
    assert {name for kind, name in added if kind == "table"} >= {"audit_node"}
    ledger = apsw.Connection(str(path))
    for kind, name in sorted(added):  # indexes before tables
        ledger.execute(f"DROP {kind} IF EXISTS {name}")
    ledger.execute("UPDATE meta SET value = 1 WHERE key = 'schema_version'")
    ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()


def assert_whole(directory: Path, kept: dict[str, str]) -> None:
    """Every memory of before, nothing that a check finds, and an audit log that covers all of it."""
    with strongroom.open(directory, worker=False) as room:
        assert {str(m.memory_id): m.content for m in memories_of(room, NS)} == kept
        report = room.check(read_data=True)
        assert report.ok, report.findings
        assert report.audit_entries >= COUNT
        assert room.audit_checkpoint().size >= COUNT


def test_a_kill_at_any_write_of_the_upgrade_leaves_the_old_or_the_new_store(
    oldest: Oldest, tmp_path: Path, disk: Disk
) -> None:
    """The files as they are before every write, sync and truncation: each opens as the whole store."""
    directory, kept = oldest
    store = copy_store(directory, tmp_path / "store")
    images: list[Path] = []
    disk.arm(before=lambda step: images.append(copy_store(store, tmp_path / f"image{step}")))
    with strongroom.open(store, worker=False):
        disk.heal()
    assert {version_of(image) for image in images} == set(range(1, len(_schema.MIGRATIONS) + 1))
    for image in images:
        assert_whole(image, kept)


def test_a_disk_that_is_full_at_any_write_of_the_upgrade_leaves_a_store_that_goes_on(
    oldest: Oldest, tmp_path: Path, disk: Disk
) -> None:
    """A typed error until the upgrade fits, however often it is tried; then every memory is there."""
    directory, kept = oldest
    store = copy_store(directory, tmp_path / "store")
    refused = 0
    for step in range(1, 60):
        disk.arm(fail_at=step)
        try:
            with strongroom.open(store, worker=False):
                disk.heal()
        except StorageFullError as e:
            assert e.hint
            refused += 1
        disk.heal()
        if version_of(store) == len(_schema.MIGRATIONS):
            break
    assert refused >= len(_schema.MIGRATIONS)
    assert_whole(store, kept)


def test_processes_that_open_an_old_store_at_once_bring_it_up_together(
    oldest: Oldest, tmp_path: Path
) -> None:
    """Four processes, each of which opens it and stores: no error, all memories, and nothing for a check."""
    directory, kept = oldest
    store = copy_store(directory, tmp_path / "store")
    code = OPENS.format(directory=str(store), namespace=NS, gate=str(tmp_path / "gate"))
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    (tmp_path / "gate").touch()
    stored = dict(kept)
    for child in children:
        said, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        stored[said.strip()] = "after"
    assert len(stored) == COUNT + 4
    assert_whole(store, stored)
