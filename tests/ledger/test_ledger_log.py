"""The write-ahead log is prepared, copied, and starts over, without ever touching what others write."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, assert_whole, memory

import strongroom.ledger._checkpoint as checkpoint
from strongroom.ledger import SqliteLedger, WriteBatch

STEP = 64 * 1024


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LOG_BYTES_TARGET", 8 * STEP)
    monkeypatch.setattr(checkpoint, "LOG_BYTES_MAX", 64 * STEP)
    for name in ("AHEAD_BYTES_MIN", "STEP_BYTES", "QUIET_BYTES"):
        monkeypatch.setattr(checkpoint, name, STEP)


@pytest.mark.usefixtures("small_log")
def test_the_log_stays_small_while_a_writer_never_rests(tmp_path: Path) -> None:
    """400 commits write some 16 MB of log; the file keeps to a fraction of it, because it starts over."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1]))
        for n in range(400):
            ledger.commit(WriteBatch(puts=[memory(1, n.to_bytes(16, "big"), sealed=b"x" * 2000)]))
        assert (tmp_path / "ledger.db-wal").stat().st_size < 100 * STEP
        assert_whole(ledger)


def test_a_process_that_writes_little_prepares_nothing(tmp_path: Path) -> None:
    """No thread and no zeros for a handful of commits."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1], puts=[memory(1, b"i" * 16)]))
        assert (tmp_path / "ledger.db-wal").stat().st_size < checkpoint.QUIET_BYTES
        assert ledger._checkpointer._thread is None


@pytest.mark.usefixtures("small_log")
def test_the_log_is_never_lengthened_while_somebody_writes(tmp_path: Path) -> None:
    """Zeros go after the end of the log only under the write lock: else they could fall on a commit."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1], puts=[memory(1, b"i" * 16)]))
        log = tmp_path / "ledger.db-wal"
        before = log.stat().st_size
        upkeep = ledger._connect()
        upkeep.set_busy_timeout(10)
        other = apsw.Connection(str(tmp_path / "ledger.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            ledger._checkpointer._prepare(upkeep, before)
        assert log.stat().st_size == before
        other.execute("ROLLBACK")
        ledger._checkpointer._prepare(upkeep, before)
        data = log.read_bytes()
        assert len(data) >= before + STEP
        assert not any(data[before:])
        ledger.commit(WriteBatch(puts=[memory(1, b"j" * 16)]))
        written = log.read_bytes()  # longer again, when the thread was awake
        assert written[:before] == data[:before] and any(written[before : len(data)])
        other.close()
        upkeep.close()
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        assert ledger.head(1)[0] == 2
        assert_whole(ledger)


class _Recorder:
    """Stands for a connection: notes each checkpoint and whether the writers were kept out."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bool]] = []
        self.kept_out = False

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        self.events.append((mode, self.kept_out))
        return 0, 0

    def pragma(self, name: str) -> int:
        assert name == "page_size"
        return 8192

    def between(self, action: Callable[[], None]) -> None:
        self.kept_out = True
        action()
        self.kept_out = False


@pytest.mark.parametrize(("used", "last_resort"), [(8 * STEP, False), (64 * STEP, True)])
@pytest.mark.usefixtures("small_log")
def test_the_last_bit_is_copied_while_no_group_writes(tmp_path: Path, used: int, last_resort: bool) -> None:
    """First beside the writers, then between two groups; only a huge log makes other processes wait."""
    recorder = _Recorder()
    upkeep = checkpoint.Checkpointer(tmp_path / "x", apsw.Connection, recorder.between)
    upkeep._last = used
    upkeep._once(recorder)  # type: ignore[arg-type]
    passive, restart = apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_RESTART
    assert recorder.events == [(passive, False), (passive, True)] + [(restart, False)] * last_resort


@pytest.mark.usefixtures("small_log")
def test_a_log_that_started_over_is_looked_after_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is woken once per step of growth, and again from the start in the next round."""
    upkeep = checkpoint.Checkpointer(tmp_path / "x", apsw.Connection, lambda action: action())
    monkeypatch.setattr(upkeep, "_start", lambda: None)
    woken = []
    for pages in [1, 7, 8, 9, 16, 17, 64, 1, 7, 8, 9]:
        upkeep._wake.clear()
        upkeep.on_commit(_Recorder(), "main", pages)  # type: ignore[arg-type]
        woken.append(upkeep._wake.is_set())
    assert woken == [False, False, True, False, True, False, True, False, False, True, False]
