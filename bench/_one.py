"""One measurement in a process of its own: ``python -m bench._one NAME OPTIONS OUT``."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from time import perf_counter

from bench._harness import Options, load_average

if __name__ == "__main__":
    name, options, out = sys.argv[1:4]
    before, started = load_average(), perf_counter()
    rows = importlib.import_module(f"bench.{name}").run(Options.parse(options))
    result = {
        "name": name,
        "rows": [dataclasses.asdict(r) for r in rows],
        "seconds": round(perf_counter() - started, 1),
        "load_average": [before, load_average()],
    }
    Path(out).write_text(json.dumps(result), "utf-8")
