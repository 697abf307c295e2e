"""The commands of docs/access.md run as they are written, in their order, against a store."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import strongroom
from strongroom.config import Config, EmbeddingConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text("utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("strongroom ")]


def test_every_command_of_the_page_runs(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter set is written, passes check and cases, explains; keys get their attributes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRONGROOM_DATA", str(tmp_path / "data"))
    strongroom.init(tmp_path / "data", config=Config(embedding=EmbeddingConfig(provider="none")))
    with strongroom.open(tmp_path / "data") as room:
        room.store("account takeover", namespace="acme/support")
        key = room.keys_create("analyst", "read-only", ["*"], kind="person", labels=["analyst"])[0].key_id
    ran = [" ".join(words) for words in commands()]
    for words in commands():
        words = [w.replace("KEY_ID", key) for w in words]
        if "search" in words and "--action" not in words:
            words += ["--mode", "keyword"]  # this store has no model
        answer = command(*words)
        if "explain" in words:
            assert "analyst-reads" in answer.out
        if words[:2] == ["policy", "test"]:
            assert re.search(r"\d+ cases", answer.out) and "failed" not in answer.out
    assert {f"policy {w}" for w in ("init --enable", "check", "test")} <= set(ran)
    made = {k["name"]: k for k in command("--json", "keys", "list").json["keys"]}
    assert (made["bot-7"]["tenant"], made["bot-7"]["labels"]) == ("acme", ["support"])
    assert "supervise:company_a/*" in made["watcher"]["grants"]
