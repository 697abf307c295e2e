"""docs/audit.md says what is so: its commands run as they are written, in their order, against a store."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text("utf-8")


def commands() -> Iterator[tuple[list[str], str]]:
    """The commands of the page, each with the file that its output goes to ("" for none)."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M):
        if language:
            continue
        for line in block.splitlines():
            for part in line.split("#")[0].split(" ; "):
                words = shlex.split(part)
                if words and words[0] == "strongroom":
                    target = words[words.index(">") + 1] if ">" in words else ""
                    yield words[1 : words.index(">") if ">" in words else None], target


def test_every_command_of_the_page_runs(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, checkpoints, exports, proofs, verification away from the store, queries, other formats."""
    monkeypatch.chdir(tmp_path)
    strongroom.init(tmp_path / "DIR", config=Config(embedding=EmbeddingConfig(dimensions=64)))
    with strongroom.open(tmp_path / "DIR", provider=WordModel()) as room:
        for number in range(9):
            room.store(f"memory {number}", namespace="acme/support", subject="user:42")
    early = command("--data", "DIR", "audit", "checkpoint").out
    (tmp_path / "head-of-42").write_text(early)
    size = early.splitlines()[1]
    seen = set()
    for words, target in commands():
        words = [size if w == "42" else w for w in words if w != "-f"]  # to follow the log takes for ever
        answer = command(*words)
        if target:
            (tmp_path / target).write_text(answer.out)
        at = words.index("audit")
        seen.add(" ".join(words[at - 1 : at + 1] if "rotate" in words else words[at : at + 2]))
        if "--subject" in words:
            assert answer.out.count(" store") == 9
        if "verify" in words and "--head" in words and words[2].endswith(".jsonl"):
            assert "signed and as they were signed" in answer.out
    wanted = ("key", "checkpoint", "export", "verify", "prove", "consistency", "query", "tail")
    assert seen == {*(f"audit {c}" for c in wanted), "rotate audit"}
    assert (tmp_path / "events.ocsf").read_text().startswith("{")
