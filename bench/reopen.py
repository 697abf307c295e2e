"""A new process on a large store: from its start to the first answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from bench import _stores as stores
from bench._harness import Options, Row, Spread, note

_PROGRAM = """
import json, sys, time
begun = time.monotonic()
import strongroom
room = strongroom.open(sys.argv[1])
opened = time.monotonic()
hits = room.search("who asked for a discount", namespaces=[sys.argv[2]], k=10)
answered = time.monotonic()
steps = {}
for metric in room.engine.metrics.registry.collect():
    if metric.name == "strongroom_step_seconds":
        for s in metric.samples:
            if s.name.endswith("_sum"):
                steps[s.labels["step"]] = s.value
print(json.dumps({"begun": begun, "opened": opened, "answered": answered, "hits": len(hits), "steps": steps}))
sys.stdout.flush()
room.close()
"""


def run(options: Options) -> list[Row]:
    directory = stores.large(options)
    note("opening in new processes")
    start(directory)  # closing it writes a snapshot
    cases = (
        ("from a snapshot", True, True),
        ("from a snapshot", True, False),
        ("from the rows", False, False),
    )
    rows = []
    for source, snapshots, cold in cases:
        stores.set_recall(directory, snapshots=snapshots)
        whole, parts = [], []
        for _ in range(options.repeats if snapshots else min(2, options.repeats)):
            forgotten = _forget(directory) if cold else True
            found = start(directory)
            whole.append(found.pop("whole"))
            parts.append(found)
        spread = Spread.of(whole)
        middle = {k: Spread.of([p.get(k, 0.0) for p in parts]).median for k in parts[0]}
        shown = ", ".join(f"{k} {v:.2f}" for k, v in middle.items())
        where = "its files dropped from the page cache" if cold and forgotten else "page cache warm"
        rows.append(
            Row(
                f"reopen {options.rows:,} to first answer, new process, {source}, {where}",
                spread.show(1, 2, " s"),
                "< 3 s" if snapshots else "",
                spread.median < 3.0 if snapshots else None,
                f"seconds: {shown}",
                {"seconds": whole, "parts": parts, "cold": cold and forgotten, "snapshots": snapshots},
            )
        )
    stores.set_recall(directory, snapshots=True)
    return rows


def _compiled() -> dict[str, str]:
    """An environment in which modules come from bytecode, as an installer leaves it beside them."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept = Path(tempfile.gettempdir()) / "strongroom-bench-data" / "bytecode"
    kept.mkdir(parents=True, exist_ok=True)
    given["PYTHONPYCACHEPREFIX"] = str(kept)
    subprocess.run(
        [sys.executable, "-c", "import strongroom; strongroom.open"], env=given, check=True, timeout=300
    )
    return given


def start(directory: Path, namespace: str = stores.NAMESPACE) -> dict[str, float]:
    """Seconds from before the process is started to its first answer, and of the parts."""
    environment = _compiled()
    started = monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(directory), namespace],
        env=environment,
        stdout=subprocess.PIPE,  # what goes wrong is told on stderr
        text=True,
        check=True,
        timeout=900,
    )
    raw = json.loads(done.stdout)
    if raw["hits"] != 10:
        raise RuntimeError("the first answer is not whole")
    out = {
        "whole": raw["answered"] - started,
        "interpreter": raw["begun"] - started,
        "import and open": raw["opened"] - raw["begun"],
        "first search": raw["answered"] - raw["opened"],
    }
    for step, seconds in sorted(raw["steps"].items(), key=lambda x: -x[1]):
        if seconds >= 0.01:
            out[f"of which {step}"] = seconds
    return out


def _forget(directory: Path) -> bool:
    """Ask the kernel to drop the store's files from its page cache; libraries and model stay there."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for root in (directory, directory.with_name(directory.name + ".keys")):
        for path in root.rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)
    return True
