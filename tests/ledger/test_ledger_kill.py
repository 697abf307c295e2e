"""Processes that die at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from tests.ledger.ledger_hooks import A, M, SumHooks, V, assert_whole, memory
from tests.ledger.ledger_writer import content_of, id_of

from strongroom.ledger import Put, SqliteLedger, WriteBatch

WRITER = [sys.executable, "-m", "tests.ledger.ledger_writer"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def assert_acknowledged(ledger: SqliteLedger, lines: list[str]) -> None:
    """Every acknowledged batch is there as a whole, byte for byte, unless a later one deleted from it."""
    for line in lines:
        name, ns_text, number_text = line.split()
        ns, number = int(ns_text), int(number_text)
        first = ledger.get(ns, id_of(name, number))
        assert first is not None, line
        assert first.sealed == content_of(name, number)
        second = ledger.get(ns, id_of(name, -number - 1))
        assert second is not None, line
        if number % 5 == 3 and second.state == 2:
            assert ledger.get(ns, id_of(name, -number - 1), V) is None
        else:
            assert second.sealed == content_of(name, number)
            assert ledger.get(ns, id_of(name, -number - 1), V) is not None
        if number % 5 == 4:
            gone = ledger.get(ns, id_of(name, -number))
            assert gone is not None
            assert gone.state == 2


def drain(fd: int) -> list[str]:
    data = b""
    while select.select([fd], [], [], 0)[0]:
        more = os.read(fd, 1 << 16)
        if not more:
            break
        data += more
    return data.decode().splitlines()


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_is_half_written_after_25_kills(tmp_path: Path) -> None:
    """Four writers in two processes are killed with SIGKILL at random moments, 25 times."""
    SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()).close()
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1, 2]))
    chance = random.Random(7)
    acknowledged = 0
    for kill in range(25):
        reader, writer = os.pipe()
        command = [*WRITER, str(tmp_path), str(writer)]
        writers = [
            subprocess.Popen(
                [*command, f"k{kill}p{p}", "2", "100000", "small-log"], pass_fds=[writer], env=ENVIRONMENT
            )
            for p in range(2)
        ]
        os.close(writer)
        assert select.select([reader], [], [], 30)[0], "no writer got going"
        time.sleep(chance.uniform(0.0, 0.15))
        for process in writers:
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = drain(reader)
        os.close(reader)
        acknowledged += len(lines)
        with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
            assert_acknowledged(ledger, lines)
            assert_whole(ledger)
    assert acknowledged > 100


def hammer(directory: str, number: int, count: int, counter: bytes) -> None:
    """Store rows of one's own and raise one shared counter by compare and set."""
    from strongroom.errors import VersionConflictError

    with SqliteLedger.open(Path(directory), SumHooks()) as ledger:
        for i in range(count):
            memory_id = number.to_bytes(8, "big") + i.to_bytes(8, "big")
            (seq,) = ledger.commit(WriteBatch(puts=[memory(1, memory_id, expect=0)], audit=[b"x"]))
            assert seq > 0
            while True:
                row = ledger.get(1, counter)
                assert row is not None
                value = int.from_bytes(row.sealed, "big") + 1
                put = Put(1, counter, M, row.version + 1, 1, 7, 1, 0, value.to_bytes(8, "big"), row.version)
                try:
                    ledger.commit(WriteBatch(puts=[put]))
                    break
                except VersionConflictError:
                    continue


def test_two_processes_lose_no_update_and_leave_no_gap_in_seq(tmp_path: Path) -> None:
    """Compare-and-set of one row from two processes adds up; seq counts every change exactly once."""
    counter = b"c" * 16
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1], puts=[memory(1, counter, sealed=bytes(8))]))
        context = multiprocessing.get_context("spawn")
        count = 150
        processes = [
            context.Process(target=hammer, args=(str(tmp_path), n, count, counter)) for n in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        row = ledger.get(1, counter)
        assert row is not None
        assert int.from_bytes(row.sealed, "big") == 2 * count
        assert ledger.head(1)[0] == 1 + 4 * count
        assert ledger.audit_count() == 2 * count
        seqs = [r.seq for r in ledger.iter_changes(1)]
        assert len(seqs) == len(set(seqs)) == 1 + 2 * count
        assert_whole(ledger)
        assert ledger.get(1, counter, A) is None
