"""The audit log: entries group-committed by 16 callers, integration, proofs, and the offline verifier."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import strongroom
from bench._harness import Options, Row, Spread, Timed, measure, note
from strongroom import audit
from strongroom.audit import verify
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.ledger import WriteBatch
from strongroom.model import AuditEntry

_CALLERS = 16
_SEALED_BYTES = 300  # of an entry, roughly


def run(options: Options) -> list[Row]:
    directory = options.work / "audit"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none")))
    with strongroom.open(directory) as room:
        rows = [_append(room, options)]
        rows += _integrate(room, options)
        rows.append(_prove(room, options))
    return [*rows, _verify(options)]


def _entry(number: int) -> bytes:
    return audit.encode(
        AuditEntry(
            at_us=1_700_000_000_000_000 + number,
            request_id="0123456789abcdef",
            principal="sr_0123456789abcdef",
            surface="rest",
            action="search",
            namespaces=("company_a/support",),
            outcome="ok",
            count=10,
            memory_ids=(bytes(16),) * 10,
        )
    )


def _append(room: Room, options: Options) -> Row:
    note("appending")
    ledger = room.engine.ledger
    each = 200 if options.quick else 2500

    def caller() -> None:
        for i in range(each):
            ledger.commit(WriteBatch(audit=[_entry(i)]))

    rates = []
    for _ in range(options.repeats):
        threads = [threading.Thread(target=caller) for _ in range(_CALLERS)]
        started = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(_CALLERS * each / (perf_counter() - started))
    spread = Spread.of(rates)
    return Row(
        f"audit append, sealed, durable, group-committed, {_CALLERS} callers, integration on",
        spread.show(1, 0, " entries/s"), "> 10,000 entries/s", spread.median > 10_000,
        data={"entries_per_s": rates},
    )  # fmt: skip


def _fill(room: Room, count: int) -> None:
    """Rows of random bytes straight into the table: what is sealed plays no part in the tree."""
    connection = room.engine.ledger._connect()
    first = room.engine.ledger.audit_count()
    for start in range(first + 1, first + count + 1, 100_000):
        size = min(100_000, first + count + 1 - start)
        noise = os.urandom(size * 8)
        rows = ((start + i, noise[i * 8 : i * 8 + 8] * (_SEALED_BYTES // 8)) for i in range(size))
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO audit VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    connection.close()


def _integrate(room: Room, options: Options) -> list[Row]:
    note("integrating")
    room.engine.audit_log.integrate()
    count = 20_000 if options.quick else options.rows * 10
    before = room.engine.ledger.audit_count()
    _fill(room, count)
    started = perf_counter()
    head = room.engine.audit_log.integrate()
    seconds = perf_counter() - started
    done = max(1, head.size - before)
    rate = done / seconds
    return [
        Row(f"integration of a backlog of {count:,}", f"{rate:,.0f} entries/s", data={"seconds": seconds})
    ]


def _proof(log: Any, size: int, spots: Sequence[int], number: int) -> None:
    log.prove(audit.inclusion_ranges(spots[number], size))


def _prove(room: Room, options: Options) -> Row:
    note("proving")
    log = room.engine.audit_log
    size = log.head().size
    timed = Timed()
    for _ in range(options.repeats):
        spots = [(i * 7_919_993) % size for i in range(200)]
        timed.repeats.append(measure(partial(_proof, log, size, spots), 200))
    p50 = timed.quantile(0.5).median
    return Row(
        f"inclusion proof in {size:,} entries, without the signature", timed.show(3), "< 1 ms at 10,000,000",
        p50 < 1e-3 if size >= 10_000_000 else None, data=timed.data(),
    )  # fmt: skip


def _verify(options: Options) -> Row:
    count = 20_000 if options.quick else options.rows * 10
    note("verifying")
    signer = audit.Signer("strongroom/audit/bench", audit.Signer.new_payload())
    file = options.work / "export.jsonl"
    _export(file, signer, count)
    keys = verify.parse_keys("\n".join(signer.public_keys()))
    started = perf_counter()
    with file.open("rb") as stream:
        found = verify.verify_export(iter(lambda: stream.readline(1 << 22), b""), keys)
    seconds = perf_counter() - started
    if found.size != count:
        raise RuntimeError("not everything was verified")
    file.unlink()
    return Row(
        f"offline verification of {count:,} entries", f"{seconds:.1f} s", "< 60 s for 1,000,000",
        seconds < 60 if count >= 1_000_000 else None, data={"seconds": seconds, "entries": count},
    )  # fmt: skip


def _export(file: Path, signer: audit.Signer, count: int) -> None:
    tree = audit.Frontier(0, ())

    def leaves() -> Iterator[str]:
        for number in range(1, count + 1):
            sealed = os.urandom(_SEALED_BYTES)
            tree.extend([audit.leaf_hash(sealed)])
            yield audit.export_leaf(number, sealed, None) + "\n"

    with file.open("w", encoding="utf-8") as stream:
        stream.write(audit.export_header(signer.origin, count) + "\n")
        stream.writelines(leaves())
        stream.write(audit.export_end(signer.sign(tree.size, tree.root(), 1_700_000_000)) + "\n")
