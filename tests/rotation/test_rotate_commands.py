"""strongroom rotate, keyring and respond on the command line, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from tests.engine.conftest import OpenRoom
from tests.rotation.rotated import NS, assert_all_there, fill, states

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, RotationConfig


def command(data: Path, *arguments: str, status: int = 0) -> Any:
    env = {k: v for k, v in os.environ.items() if not k.startswith("STRONGROOM")}
    done = subprocess.run(
        [sys.executable, "-m", "strongroom.cli", "--data", str(data), "--json", *arguments],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_the_way_of_an_operator(tmp_path: Path) -> None:
    """Two workers seal anew, finalising ends it, the tree shows it, a drill and its report verify."""
    data = tmp_path / "data"
    rotation = RotationConfig(worker=False, batch_rows=20)
    strongroom.init(data, config=Config(embedding=EmbeddingConfig(provider="none"), rotation=rotation))
    with strongroom.open(data, worker=False) as room:
        room.store_many({"content": f"alpha {i}", "namespace": NS, "subject": f"u{i % 5}"} for i in range(60))
    (moved,) = command(data, "rotate", "data", "-n", NS, "--workers", "2")["rotations"]
    assert moved["state"] == "moved" and moved["done"] == 1.0 and moved["moved"] >= 60
    assert [r["id"] for r in command(data, "rotate", "status")["rotations"]] == [moved["id"]]
    (ended,) = command(data, "rotate", "finalise", str(moved["id"]), "--yes")["rotations"]
    assert ended["state"] == "finalised"
    keys = command(data, "keyring", "list", "--destroyed")["keys"]
    assert {k["state"] for k in keys} == {"active", "decrypt-only", "destroyed"}
    report = tmp_path / "report.json"
    drill = command(
        data, "respond", "key-compromise", "--key", f"namespace:{NS}", "--drill", "--report", str(report)
    )
    assert drill["drill"] and drill["coverage"]["records_under_exposed_keys"] == 0
    assert command(data, "respond", "verify", str(report))["verified"]
    assert command(data, "respond", "kms-outage", "--dry-run")["ok"]


def test_a_response_asks_before_it_destroys(data: Path, open_room: OpenRoom) -> None:
    """Without --yes and an answer nothing is done; a dry run and a drill do not ask."""
    room = open_room()
    wanted = fill(room, 8)
    before = states(room)
    room.close()
    runner = CliRunner()
    command = ["--data", str(data), "respond", "key-compromise", "--key", f"namespace:{NS}"]
    for refused in (runner.invoke(cli, command, input="n\n"), runner.invoke(cli, command)):
        assert refused.exit_code != 0 and "Go on?" in refused.output
    assert runner.invoke(cli, [*command, "--dry-run"]).exit_code == 0
    room = open_room()
    assert states(room) == before
    room.close()
    done = runner.invoke(cli, [*command, "--yes"])
    assert done.exit_code == 0, done.output
    room = open_room()
    assert states(room) != before
    assert_all_there(room, wanted)
