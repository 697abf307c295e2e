#!/usr/bin/env python3
"""Make ``client/_sync.py`` from ``client/_async.py``; with ``--check``, fail when it is not up to date."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "src" / "strongroom" / "client"
HEAD = '''"""The client of a Strongroom server, blocking.

Generated from _async.py by script/generate_sync.py; do not edit.
"""
'''
REPLACEMENTS = (
    (r"\basync def\b", "def"),
    (r"\basync with\b", "with"),
    (r"\bawait ", ""),
    (r"\bAsyncRemoteRoom\b", "RemoteRoom"),
    (r"\bhttpx\.AsyncClient\b", "httpx.Client"),
    (r"\baclose\b", "close"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baconnect\b", "connect"),
    (r"\bimport asyncio\b", "import time"),
    (r"\basyncio\.sleep\b", "time.sleep"),
)


def generate(source: str) -> str:
    """The blocking client as text."""
    _, rest = source.split("\n", 1)  # the first line is the docstring of the asynchronous one
    out = HEAD + rest
    for pattern, new in REPLACEMENTS:
        out = re.sub(pattern, new, out)
    return out


def main() -> int:
    wanted = generate((HERE / "_async.py").read_text("utf-8"))
    target = HERE / "_sync.py"
    if "--check" in sys.argv[1:]:
        if target.read_text("utf-8") != wanted:
            print("src/strongroom/client/_sync.py is not up to date; run script/generate_sync.py")
            return 1
        return 0
    target.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
