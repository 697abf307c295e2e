"""``python -m bench [--quick] [NAME...]``: run the measurements and print the table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench._harness import RESULTS, Options, Row, machine, options_of, table
from bench.plot import plot

ON_REQUEST = ("peers", "scale", "small")  # packages of others; minutes
NAMES = (
    "store",
    "search",
    "sealing",
    "sql",
    "remote",
    "fresh",
    "reopen",
    "audit",
    "tls",
    "kms",
    "access",
    "rotate",
    "embedding",
)


def main() -> int:
    options, place, keep, names = options_of()
    if names == ["--list"]:
        print("\n".join((*NAMES, *ON_REQUEST)))
        return 0
    unknown = [n for n in names if n not in (*NAMES, *ON_REQUEST)]
    if unknown:
        known = ", ".join((*NAMES, *ON_REQUEST))
        print(f"error: there is no measurement {unknown[0]}\nhint: there are: {known}", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="strongroom-bench-", dir=place))
    options = replace(options, work=work)
    results: list[dict[str, Any]] = []
    failed = []
    # in this order whatever was asked for: some use the store that one before has made
    ordered = [n for n in (*NAMES, *ON_REQUEST) if n in names] or NAMES
    try:
        for name in ordered:
            print(f"== {name}", file=sys.stderr, flush=True)
            out = work / f"{name}.json"
            done = subprocess.run(
                [sys.executable, "-m", "bench._one", name, options.text(), str(out)], check=False
            )
            if done.returncode == 0:
                results.append(json.loads(out.read_text("utf-8")))
            else:
                failed.append(name)
        about = machine(work)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    _report(results, about, options)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _report(results: list[dict[str, Any]], about: dict[str, Any], options: Options) -> None:
    now = datetime.now(UTC)
    whole = {
        "at": now.isoformat(timespec="seconds"),
        "options": {
            "rows": options.rows,
            "repeats": options.repeats,
            "quick": options.quick,
            "seed": options.seed,
        },
        "machine": about,
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(whole, indent=1), "utf-8")
    drawn = plot([whole])
    if drawn is not None:
        path.with_suffix(".svg").write_text(drawn, "utf-8")
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    print(
        f"\n{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}, ",
        end="",
    )
    print(f"{about['file_system']}, Python {about['python']}; {versions}")
    print(f"{options.rows:,} memories, {options.repeats} repeats, {now:%Y-%m-%d %H:%M} UTC\n")
    print(table([Row(**row) for result in results for row in result["rows"]]))
    print()
    for result in results:
        before, after = result["load_average"]
        print(f"{result['name']}: {result['seconds']} s; load average {before} before, {after} after")
    print(f"\nresults: bench/results/{path.name}" + (" and .svg" if drawn is not None else ""))


if __name__ == "__main__":
    sys.exit(main())
