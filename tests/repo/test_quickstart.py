"""The quickstart: from an empty directory to answers, a denied read, and noise on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_venv = pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="runs only from .venv, as script/test does"
)


def quickstart(directory: Path) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith("STRONGROOM_") or k == "STRONGROOM_CACHE"
    }
    return subprocess.run(
        [ROOT / "script/quickstart", directory],
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@needs_venv
@pytest.mark.slow
def test_the_quickstart_ends_with_answers_a_denied_read_and_a_clean_scan(tmp_path: Path) -> None:
    done = quickstart(tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())  # tables break their lines
    assert "hard to defend in front of their board" in said  # meaning, in one namespace
    assert "left the house dark for twenty minutes" in said  # with a condition on importance and time
    assert "denied, as it should be" in said
    assert "for 300 phrases" in said
    assert "300 vectors (float32, float16): 0 found" in said
    assert "all is well" in said
    pasted = json.loads(done.stdout[done.stdout.rindex('{\n  "mcpServers"') :])
    server = pasted["mcpServers"]["strongroom"]
    assert Path(server["command"]).is_file()
    assert server["args"][-1] == "mcp"
    assert server["env"]["STRONGROOM_API_KEY"].startswith("sr_live_")


def test_the_quickstart_does_not_touch_a_directory_that_exists(tmp_path: Path) -> None:
    kept = tmp_path / "data"
    kept.mkdir()
    (kept / "precious").write_text("x")
    done = quickstart(kept)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "exists already" in done.stderr
    assert (kept / "precious").read_text() == "x"
