#!/usr/bin/env python3
"""Make ``client/_sync/`` from ``client/_async/``; with ``--check``, fail when it is not up to date."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "src" / "strongroom" / "client"
NOTE = "# Generated from _async/{name} by script/generate_sync.py; do not edit.\n"
REPLACEMENTS = (
    (r"\basync def\b", "def"),
    (r"\basync with\b", "with"),
    (r"\basync for\b", "for"),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b_async\b", "_sync"),
    (r", asynchronous:", ", blocking:"),
    (r"\baclose\b", "close"),
    (r"\baiter_stream\b", "iter_stream"),
    (r"\bhandle_async_request\b", "handle_request"),
    (r"\bAnyIOBackend\b", "SyncBackend"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\baread\b", "read"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baconnect\b", "connect"),
    (r"\bimport asyncio\b", "import time"),
    (r"\basyncio\.sleep\b", "time.sleep"),
)


def generate(name: str, source: str) -> str:
    """A module of the blocking client as text."""
    for pattern, new in REPLACEMENTS:
        source = re.sub(pattern, new, source)
    source = re.sub(r"(?m)(?<=^from collections\.abc import )[\w, ]+$", _in_order, source)
    return NOTE.format(name=name) + source


def _in_order(names: re.Match[str]) -> str:
    """Imported names that lost their Async are out of order."""
    return ", ".join(sorted(names[0].split(", ")))


def main() -> int:
    wanted = {p.name: generate(p.name, p.read_text("utf-8")) for p in sorted((HERE / "_async").glob("*.py"))}
    made = {p.name: p for p in (HERE / "_sync").glob("*.py")}
    if "--check" in sys.argv[1:]:
        if wanted != {name: p.read_text("utf-8") for name, p in made.items()}:
            print("src/strongroom/client/_sync is not up to date; run script/generate_sync.py")
            return 1
        return 0
    for name in made.keys() - wanted.keys():
        made[name].unlink()
    for name, text in wanted.items():
        (HERE / "_sync" / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
