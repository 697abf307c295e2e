"""The parts of script/quickstart that are easier in Python.

_quickstart.py sample | key | audit DIR | scan DIR | mcp DIR
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import strongroom
from strongroom.config import EmbeddingConfig
from strongroom.data import canaries, sample_file, sample_rows
from strongroom.embedding import make_provider
from strongroom.lifecycle.noise_scan import scan_directory

AUDIT_LINES = 12


def sample(_: list[str]) -> int:
    """Print the path of the sample."""
    with resources.as_file(sample_file()) as path:
        print(path)
    return 0


def key(_: list[str]) -> int:
    """Read the answer of ``keys create --json`` and print the secret alone."""
    answer = json.load(sys.stdin)
    print(next(v for v in answer.values() if isinstance(v, str) and v.startswith("sr_live_")))
    return 0


def audit(arguments: list[str]) -> int:
    """Print the last entries of the audit log, as the owner of the directory."""
    with strongroom.open(arguments[0]) as room:
        entries = room.audit(limit=AUDIT_LINES)
    for entry in entries:
        at = datetime.fromtimestamp(entry.at_us / 1e6, UTC)
        where = ", ".join(entry.namespaces)
        print(f"{entry.seq:>5}  {at:%H:%M:%S}  {entry.principal:<14}  {entry.action:<16}", end="  ")
        print(f"{entry.outcome:<8}  {where}  {entry.reason}".rstrip())
    return 0


def scan(arguments: list[str]) -> int:
    """Look for 300 phrases of the sample, and for the vectors of their memories, in every file."""
    phrases = canaries()
    contents = [next(r["content"] for r in sample_rows() if phrase in r["content"]) for phrase in phrases]
    provider = make_provider(EmbeddingConfig())
    try:
        vectors = provider.embed(contents)
    finally:
        provider.close()
    report = scan_directory(Path(arguments[0]), phrases, list(vectors))
    for figure in report.files:
        print(f"{figure.path:<20} {figure.bytes:>10,} bytes   {figure.entropy_bits:.2f} bits/byte")
    print(
        f"searched {report.bytes_total:,} bytes for {len(phrases)} phrases (UTF-8, UTF-16, base64, hex) and "
        f"{len(vectors)} vectors (float32, float16): {len(report.findings)} found"
    )
    print(
        "below 8 bits/byte: SQLite's own numbers and unused space; strongroom.toml is clear, without secrets"
    )
    for finding in report.findings[:10]:
        print(f"  {finding.form} of number {finding.index} in {finding.path} at {finding.offset}")
    return 0 if report.clean else 1


def mcp(arguments: list[str]) -> int:
    """Print what goes into an MCP client's configuration."""
    command = {
        "command": str(Path(sys.prefix) / "bin/strongroom"),
        "args": ["--data", arguments[0], "mcp"],
        "env": {"STRONGROOM_API_KEY": os.environ["STRONGROOM_API_KEY"]},
    }
    print(json.dumps({"mcpServers": {"strongroom": command}}, indent=2))
    return 0


PARTS: dict[str, Callable[[list[str]], int]] = {f.__name__: f for f in (sample, key, audit, scan, mcp)}

if __name__ == "__main__":
    sys.exit(PARTS[sys.argv[1]](sys.argv[2:]))
