"""The wire parser under a fuzzer that follows coverage; script/soak gives it a minute and more."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform"
)
def test_atheris_finds_no_crash_no_hang_and_no_growing_memory_in_some_seconds() -> None:
    """libFuzzer itself ends with another status at an exception, after 10 s on one input, or at 2 GiB."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak.pgwire_atheris", "4", "3"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = int(done.stderr.partition("stat::number_of_executed_units:")[2].split()[0])
    assert runs > 60  # more than its seeds
