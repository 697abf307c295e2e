"""A writer process for the tests: writes batches and reports each as acknowledged on a descriptor.

usage: ledger_writer.py DIR FD NAME THREADS COUNT [small-log]
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

from tests.ledger.ledger_hooks import SumHooks, memory, tombstone, vector

import strongroom.ledger._checkpoint as checkpoint
from strongroom.ledger import QueueItem, SqliteLedger, WriteBatch


def id_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name}/{number}".encode()).digest()[:16]


def content_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"content {name}/{number}".encode()).digest() * (8 + number % 40)


def batch_of(name: str, number: int, ns: int) -> WriteBatch:
    """Two memories, a vector, queue items, audit; every fifth one deletes the memory of the one before."""
    first, second = id_of(name, number), id_of(name, -number - 1)
    batch = WriteBatch(
        puts=[
            memory(ns, first, sealed=content_of(name, number), expect=0),
            memory(ns, second, sealed=content_of(name, number), expect=0),
            vector(ns, second, sealed=content_of(name, number)[:200], expect=0),
        ],
        enqueue=[QueueItem(ns, first, 1)],
        audit=[f"{name}/{number}".encode()],
    )
    if number % 5 == 4:
        batch.puts.append(tombstone(ns, id_of(name, -number), 2, 1))
    return batch


def write(ledger: SqliteLedger, name: str, ns: int, count: int, out: int) -> None:
    for number in range(count):
        ledger.commit(batch_of(name, number, ns))
        os.write(out, f"{name} {ns} {number}\n".encode())


def main() -> None:
    directory, out, name, threads, count = sys.argv[1:6]
    if sys.argv[6:] == ["small-log"]:
        checkpoint.LOG_BYTES_TARGET = 512 * 1024
        checkpoint.LOG_BYTES_MAX = 8 * checkpoint.LOG_BYTES_TARGET
        checkpoint.AHEAD_BYTES_MIN = checkpoint.STEP_BYTES = checkpoint.QUIET_BYTES = 64 * 1024
    ledger = SqliteLedger.open(Path(directory), SumHooks())
    workers = [
        threading.Thread(target=write, args=(ledger, f"{name}.{i}", 1 + i % 2, int(count), int(out)))
        for i in range(int(threads))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    os._exit(0)  # no orderly close: the log stays as a crash would leave it


if __name__ == "__main__":
    main()
