"""The help: every command once, below what it is for, in the order of the documentation and of completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from strongroom.cli._main import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_help_shows_every_command_once_below_its_part_and_no_sentence_is_cut(
    command: Run, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """What a newcomer needs comes first; narrow terminals wrap what wide ones show on one line."""
    monkeypatch.setenv("COLUMNS", columns)
    shown = command("--help").out
    titles = [title for title, _ in cli.parts]
    assert re.findall(r"^(\w.*):$", shown, re.M) == ["Options", *titles] and titles[0] == "First steps"
    listed = re.findall(r"^  ([a-z][a-z-]*) {2,}\S", shown.partition("\nFirst steps:")[2], re.M)
    assert listed == [name for _, names in cli.parts for name in names]
    assert sorted(listed) == sorted(cli.commands)
    assert "..." not in shown.partition("\nFirst steps:")[2]


def test_the_index_of_the_documentation_has_the_parts_of_the_help_and_links_that_lead_somewhere() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    for title, names in cli.parts:
        (line,) = re.findall(rf"^- {re.escape(title)}: (.*)$", page, re.M)
        assert re.findall(r"\[([a-z-]+)\]\(#strongroom-\1\)", line) == list(names)
        assert all(f"\n### strongroom {name}\n" in page for name in names)


def test_a_shell_completes_commands_and_options() -> None:
    """As docs/cli.md says it is switched on."""
    found = {}
    for words in ("strongroom ", "strongroom keys create --sc"):
        env = {**os.environ, "_STRONGROOM_COMPLETE": "bash_complete", "COMP_WORDS": words}
        env["COMP_CWORD"] = str(words.count(" "))
        run = [sys.executable, "-m", "strongroom.cli"]
        out = subprocess.run(run, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
        found[words] = [line.partition(",")[2] for line in out.split()]
    assert found["strongroom "] == [name for _, names in cli.parts for name in names]
    assert found["strongroom keys create --sc"] == ["--scope"]


def test_the_lines_that_the_help_begins_with_run_as_they_stand(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real model: what was stored is found by its meaning."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^  strongroom (--data .*)$", command("--help").out, re.M)
    assert len(lines) == 3
    answers = [command(*shlex.split(line)).out for line in lines]
    assert "Prefers annual billing" in answers[-1]
