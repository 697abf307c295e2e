"""Disks that fill up, fail, or cannot be written."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, assert_whole, memory
from tests.support.faults import Countdown, FaultVfs

from strongroom.config import LedgerConfig
from strongroom.errors import StorageBusyError, StorageError, StorageFullError, StorageReadOnlyError
from strongroom.ledger import SqliteLedger, WriteBatch, _checkpoint
from strongroom.ledger._connect import from_os_error

ID = b"i" * 16


def made(directory: Path) -> None:
    with SqliteLedger.create(directory, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1], puts=[memory(1, ID)]))


def one(n: int, size: int = 100) -> WriteBatch:
    return WriteBatch(
        puts=[memory(1, n.to_bytes(16, "big"), sealed=os.urandom(size), expect=0)], audit=[b"x"]
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    """StorageFullError once 4 MB are full, reads go on, and after making room so do writes."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with SqliteLedger.create(small_disk, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1]))
        stored = 0
        with pytest.raises(StorageFullError) as refused:
            for stored in range(2000):
                ledger.commit(one(stored, 3000))
        assert refused.value.hint
        assert 0 < stored < 2000
        assert ledger.head(1)[0] == stored
        assert all(ledger.get(1, n.to_bytes(16, "big")) for n in range(stored))
        with pytest.raises(StorageFullError):
            ledger.commit(one(9999, 3000))
        ballast.unlink()
        ledger.commit(one(9999, 3000))
        assert_whole(ledger)
    with SqliteLedger.open(small_disk, SumHooks()) as ledger:
        assert ledger.head(1)[0] == stored + 1
        assert_whole(ledger)


def test_no_ledger_is_left_when_creating_it_fills_the_disk(small_disk: Path) -> None:
    """A creation that fails leaves no file behind."""
    (small_disk / "ballast").write_bytes(bytes((4 << 20) - 8192))
    with pytest.raises(StorageFullError):
        SqliteLedger.create(small_disk, uuid.uuid4(), SumHooks())
    assert [p.name for p in small_disk.iterdir()] == ["ballast"]


def _as_nobody(directory: str, names: object) -> None:
    os.setgid(65534)
    os.setuid(65534)
    seen = []
    for attempt in (
        lambda: SqliteLedger.open(Path(directory), SumHooks()),
        lambda: SqliteLedger.create(Path(directory) / "new", uuid.uuid4(), SumHooks()),
    ):
        try:
            attempt()
            seen.append("done")
        except StorageError as e:
            seen.append(e.code)
    names.put(seen)  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["directory", "file", "unreadable file"])
def test_a_place_that_cannot_be_written_says_so(what: str) -> None:
    """An unprivileged process meets a read-only directory or file: storage_read_only, no other error."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    store = Path(tempfile.mkdtemp())  # not below tmp_path, which only its owner may enter
    (store / "new").mkdir()
    try:
        made(store)
        if what == "directory":
            (store / "ledger.db").chmod(0o666)
            store.chmod(0o555)
        else:
            (store / "ledger.db").chmod(0o444 if what == "file" else 0)
            store.chmod(0o777)
        (store / "new").chmod(0o555)
        context = multiprocessing.get_context("spawn")
        names = context.Queue()
        process = context.Process(target=_as_nobody, args=(str(store), names))
        process.start()
        assert names.get(timeout=60) == ["storage_read_only", "storage_read_only"]
        process.join(60)
    finally:
        shutil.rmtree(store)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EROFS, StorageReadOnlyError),
        (errno.EACCES, StorageReadOnlyError),
        (errno.EIO, StorageError),
    ],
)
def test_errors_of_the_system_become_errors_of_the_tree(number: int, expected: type[StorageError]) -> None:
    """By errno, and without the path that the system's message holds."""
    own = from_os_error(OSError(number, "text", "/secret/path"))
    assert type(own) is expected
    assert "secret" not in str(own)


def test_a_lock_held_too_long_is_busy(tmp_path: Path) -> None:
    """Another process in a write transaction: StorageBusyError after the limit, then all is well."""
    made(tmp_path)
    config = LedgerConfig(busy_timeout_ms=50)
    with SqliteLedger.open(tmp_path, SumHooks(), config) as ledger:
        other = apsw.Connection(str(tmp_path / "ledger.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusyError):
            ledger.commit(one(1))
        assert ledger.get(1, ID) is not None
        other.execute("ROLLBACK")
        ledger.commit(one(1))
        other.close()


@pytest.mark.parametrize("full", [False, True])
def test_the_nth_failing_write_or_sync_loses_nothing(tmp_path: Path, full: bool) -> None:
    """Each write, sync and truncation of a commit and a checkpoint fails once, for good until it heals.

    The commit raises an error of the tree and leaves nothing; the same ledger works when the disk does.
    """
    countdown = Countdown()
    name = f"faults-{uuid.uuid4().hex}"
    vfs = FaultVfs(name, countdown)
    made(tmp_path)
    expected = StorageFullError if full else StorageError
    with SqliteLedger.open(tmp_path, SumHooks(), vfs=name) as ledger:
        failures = checkpoints = number = 0
        for at in range(60):
            countdown.full = full
            seq = ledger.head(1)[0]
            countdown.left = at
            try:
                ledger.commit(one(number, 9000))
                stored = True
            except expected:
                stored = False
                failures += 1
            if stored:
                try:
                    ledger.checkpoint()
                except expected:
                    checkpoints += 1
            countdown.left = -1
            assert ledger.head(1)[0] == seq + stored
            ledger.commit(one(number + (1 if stored else 0)))
            number += 1 + stored
            assert_whole(ledger)
        assert failures > 5
        assert checkpoints > 5
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        assert ledger.head(1)[0] == number + 1
        assert_whole(ledger)
    vfs.unregister()


def read_only(path: Path, *, shared: bool) -> apsw.Connection:
    """What SQLite opens when the system gave the file, or the memory shared by all, for reading alone."""
    if not shared:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{path}?readonly_shm=1", flags=flags)


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_that_was_opened_for_reading_alone_for_a_moment_is_written_again(
    tmp_path: Path, shared: bool
) -> None:
    """No descriptor left, or a file system that was read-only: one write is refused, the next is not."""
    made(tmp_path)
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        ledger.commit(one(1))
        ledger.head(1)
        keep = ctypes.c_int(1)  # the log and the shared memory, when the last connection ends
        ledger._writer_connection().file_control(
            "main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep)
        )
        ledger._pool.renew()
        ledger._drop_writer()
        poor = read_only(tmp_path / "ledger.db", shared=shared)
        poor.execute("SELECT count(*) FROM record").fetchall()  # the shared memory is there from now on
        if shared:
            ledger._pool.give(poor)
        else:
            ledger._writer = poor
        with pytest.raises(StorageReadOnlyError):
            ledger.commit(one(2))
        ledger.commit(one(3))
        assert ledger.head(1)[0] == 3
        assert_whole(ledger)


def test_connections_that_are_lent_while_all_are_renewed_are_not_lent_again(tmp_path: Path) -> None:
    """A reader goes on with what it has, and its connection ends when it is given back."""
    made(tmp_path)
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        with ledger.snapshot() as state:
            connection = state._connection
            ledger._pool.renew()
            assert state.head(1)[0] == 1
        assert connection not in ledger._pool._idle
        with pytest.raises(apsw.ConnectionClosedError):
            connection.execute("SELECT 1")  # type: ignore[union-attr]


def test_the_log_is_copied_again_after_a_checkpointer_had_the_file_for_reading_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread opens the file anew after an error; it kept the connection, and the log grew for ever."""
    monkeypatch.setattr(_checkpoint, "LOG_BYTES_TARGET", 64 << 10)
    monkeypatch.setattr(_checkpoint, "QUIET_BYTES", 16 << 10)
    monkeypatch.setattr(_checkpoint, "STEP_BYTES", 16 << 10)
    made(tmp_path)
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        poor = [read_only(tmp_path / "ledger.db", shared=False)]
        connect = ledger._checkpointer._connect
        ledger._checkpointer._connect = lambda: poor.pop() if poor else connect()
        before = (tmp_path / "ledger.db").stat().st_mtime_ns
        for n in range(2, 400):
            ledger.commit(one(n, 2000))
            if (tmp_path / "ledger.db").stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        assert not poor and (tmp_path / "ledger.db").stat().st_mtime_ns != before
