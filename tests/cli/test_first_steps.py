"""What a newcomer copies out of README.md, and an operator out of docs/operations.md, does what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import strongroom
from strongroom.config import Config, EmbeddingConfig

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, heading: str) -> list[tuple[str, str]]:
    """(language, text) of the code blocks of a page below a heading."""
    text = (ROOT / page).read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M)


def test_the_first_memory_of_the_readme_is_stored_and_found(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines in Python run as they stand, with the real model; then those of the command line."""
    monkeypatch.chdir(tmp_path)
    (code,) = (text for language, text in blocks("README.md", "A first memory") if language == "python")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "") and "Prefers annual billing" in ran.stdout
    shown = [text for language, text in blocks("README.md", "A first memory") if not language]
    lines = [line for text in shown for line in text.splitlines() if line.startswith("strongroom --data")]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert [words[2] for words in commands] == ["serve", "keys", "search"]
    assert command(*commands[1]).out.startswith("sr_live_")
    assert "Prefers annual billing" in command(*commands[2]).out


def test_the_program_of_the_page_about_python_runs_as_it_stands(tmp_path: Path) -> None:
    """Its blocks, one after another, in one program, with the real model."""
    text = (ROOT / "docs/python.md").read_text("utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    printed = ran.stdout.splitlines()
    assert printed[0].endswith("Wants invoices by post") and "access_denied" in printed
    assert any(line.startswith("memory_not_found") for line in printed)


def test_the_backup_of_the_page_is_taken_while_writers_go_on_and_restores_to_all_they_were_told(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every memory that was acknowledged before the backup began is in it, with its keys, and opens."""
    (script,) = (text for _, text in blocks("docs/operations.md", "Back up and restore"))
    data, keys = tmp_path / "restored", tmp_path / "restored.keys"
    for path in (data, keys):
        path.mkdir(mode=0o700)
    script = script.replace("/backup/data", str(data)).replace("/backup-of-keys", str(keys))
    monkeypatch.chdir(tmp_path)
    strongroom.init(tmp_path / "DIR", config=Config(embedding=EmbeddingConfig(provider="none", dimensions=4)))
    command("--data", "DIR", "tls", "renew")
    told: list[str] = []
    enough, stop = threading.Event(), threading.Event()
    with strongroom.open(tmp_path / "DIR") as room:

        def write() -> None:
            while not stop.is_set():
                number = len(told)
                room.store(f"note {number}", namespace=f"acme/n{number % 9}", subject=f"user:{number}")
                told.append(f"note {number}")
                if number == 40:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(60)
        before = set(told)
        subprocess.run(["bash", "-e", "-c", script], check=True, timeout=120)
        stop.set()
        writer.join()
    assert "all is well" in command("--data", str(data), "check", "--read-data").out
    command("--data", str(data), "doctor")
    with strongroom.open(data) as room:
        found = {
            m.content for n in range(9) for m in room.list(namespaces=[f"acme/n{n}"], limit=1000).memories
        }
    assert before <= found <= set(told)
    refused = subprocess.run(["bash", "-e", "-c", script], capture_output=True, check=False, timeout=120)
    assert refused.returncode != 0
