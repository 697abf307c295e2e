"""Recall after many random updates and deletes: ``python -m bench.soak.changed --rows 1000000 --store DIR``.

One process changes contents and vectors of random rows of a copy of a store of ``script/bench scale``, or
deletes them, half and half, without a rebuild. Then another one compares every row that was touched, and
measures recall@10 against exact cosines of what is there; contents and vectors, old and new, are looked for
in all files, snapshots and temporary ones included. Exit status 1: something is lost, readable, or recall
fell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, load_average, note
from bench.soak import _prove
from bench.soak._seat import Seat
from bench.soak.mixed import _RECALL_MIN, _scanned


def _change(state: State, work: Path, changes: int, seed: int) -> float:
    """Updates and deletes by turns, each durable before the next; seconds."""
    seat = Seat(state["room"], work, 0, 1, seed)
    started = time.monotonic()
    for number in range(changes):
        if number % 2:
            seat.delete()
        else:
            seat.update()
        if number % 1000 == 0:  # so that the index takes in what has come, as beside searches
            seat.search()
    return time.monotonic() - started


def changed(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Both processes; ``found["wrong"]`` is empty when all holds."""
    options = Options(work=work, rows=given.rows, seed=7)
    directory = stores.large(options, given.store)
    (work / "temporary").mkdir()
    before = load_average()
    with Child() as child:
        began = child.call(_prove.begin, directory, work, options)
    note(f"{given.changes:,} changes")
    os.environ["TMPDIR"] = str(work / "temporary")  # of the process that changes
    with Child() as child:
        child.call(stores.open_store, directory)
        seconds = child.call(_change, work, given.changes, given.seed)
    del os.environ["TMPDIR"]
    books = [work / "seat-0.book"]
    note("looking for contents on disk")
    scan = _scanned(directory, work, books, given.rows)
    note("opening and comparing")
    with Child() as child:
        after = child.call(_prove.finish, directory, work, books, options, given.read_data)
    wrong = [*after["lost"], *(f"readable on disk: {x}" for x in scan["findings"][:20])]
    wrong += [f"recall@10 {name} is {x:.4f}" for name, x in after["recall"].items() if x < _RECALL_MIN]
    wrong += [] if after["check_ok"] else [f"check: {sorted(set(after['findings']))}"]
    load = [before, load_average()]
    return {
        "rows": given.rows, "changes": given.changes, "seconds": seconds, "load": load,
        "before": began, "after": after, "scan": scan, "wrong": wrong,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak.changed", description=__doc__)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--changes", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", type=Path, help="a store of script/bench scale, to be copied")
    parser.add_argument("--dir", type=Path, help="where to work; default: the temporary directory")
    parser.add_argument("--read-data", action="store_true", help="open every sealed row at the end")
    parser.add_argument("--out", type=Path, help="the figures, as JSON")
    given = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="strongroom-changed-", dir=given.dir))
    try:
        found = changed(given, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1, default=str), "utf-8")
    after, scan = found["after"], found["scan"]
    print(
        f"{found['changes']:,} updates and deletes of {found['rows']:,} memories in {found['seconds']:,.0f} "
        f"s, load average {found['load']}\n"
        f"{after['touched']:,} touched memories compared, {after['count']:,} counted, {len(after['lost'])} "
        f"wrong; check: {after['check_rows']:,} rows, {after['check_opened']:,} opened\n"
        f"recall@10 against exact cosines: before {found['before']['recall']}, after {after['recall']}\n"
        f"{scan['texts']} texts and {scan['vectors']} vectors looked for in {scan['mib']:,.0f} MiB "
        f"({'; '.join(scan['files'])}): {len(scan['findings'])} found\n"
        + "\n".join(["nothing is wrong"] if not found["wrong"] else found["wrong"][:50]),
        flush=True,
    )
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
