"""policy init, check, test, explain, schema, and reveal, as commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.faults import no_space_at_fsync

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, load_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none")))
    return directory


def run(data: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["--data", str(data), *args])


def test_init_check_test_and_enable(data: Path) -> None:
    """The starter set is written, passes its check and its cases, and is in force once it is enabled."""
    assert run(data, "policy", "check").exit_code != 0  # not in use, and says so
    done = run(data, "policy", "init", "--enable", "--json")
    assert done.exit_code == 0, done.output
    assert load_config(data).access.policy_directory == "policies"
    checked = json.loads(run(data, "policy", "check", "--json").output)
    assert checked["ok"] and "restricted-is-closed" in checked["policies"]
    tested = json.loads(run(data, "policy", "test", "--json").output)
    assert tested["cases"] >= 12 and tested["failed"] == []
    assert run(data, "policy", "init").exit_code != 0  # nothing is written over


def test_an_init_that_ran_out_of_space_leaves_nothing_and_can_be_repeated(data: Path) -> None:
    """The disk is full when the n-th file or name is to be durable: all is as before, or in force."""
    before = {p: p.read_bytes() for p in data.glob("*.toml")}
    for at in range(100):
        with no_space_at_fsync(at):
            done = run(data, "policy", "init", "--enable")
        if done.exit_code == 0:
            break
        assert "(storage_full)" in done.output and "hint: " in done.output
        assert not [p for p in data.iterdir() if "toml." in p.name]
        if load_config(data).access.policy_directory:  # it has its name, and that was not made durable
            break
        assert not (data / "policies").exists()
        assert {p: p.read_bytes() for p in data.glob("*.toml")} == before
    assert at > 6
    assert load_config(data).access.policy_directory == "policies"
    assert run(data, "policy", "check").exit_code == 0


def test_nobody_else_can_write_configuration_and_policies_whatever_the_umask(tmp_path: Path) -> None:
    """A umask of 0 gives away nothing: a configuration that others can write is theirs."""
    before = os.umask(0)
    try:
        strongroom.init(tmp_path / "data", config=Config(embedding=EmbeddingConfig(provider="none")))
        assert run(tmp_path / "data", "policy", "init", "--enable").exit_code == 0
    finally:
        os.umask(before)
    made = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(made) > 8
    assert [p.name for p in made if p.stat().st_mode & 0o022] == []


def test_what_is_wrong_is_named_with_its_file_and_policy(data: Path) -> None:
    """A typo, a condition without a filter, a case that is not as expected."""
    run(data, "policy", "init", "--enable")
    folder = data / "policies"
    (folder / "z.cedar").write_text('@id("typo") permit(principal, action == Action::"serch", resource);')
    wrong = run(data, "policy", "check", "--json")
    problems = json.loads(wrong.output)["problems"]
    assert wrong.exit_code == 1 and {(p["file"], p["policy"]) for p in problems} == {("z.cedar", "typo")}
    (folder / "z.cedar").unlink()
    (folder / "tests" / "z.toml").write_text(
        '[[case]]\nexpect = "allow"\naction = "store"\nnamespace = "a"\nname = "nobody stores"\n'
    )
    failed = run(data, "policy", "test", "--json")
    assert failed.exit_code == 1
    assert [f["case"] for f in json.loads(failed.output)["failed"]] == ["nobody stores"]


def test_explain_and_reveal(data: Path) -> None:
    """explain names layer and policy; reveal prints the content."""
    run(data, "policy", "init", "--enable")
    room = strongroom.open(data)
    memory = room.store("the code is 4711", namespace="acme/x", sensitivity="restricted")
    key, _ = room.keys_create("k", "read-only", ["acme/*"])
    room.close()
    told = run(data, "policy", "explain", "--key", key.key_id, "--action", "search", "-n", "acme/x", "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["allowed"] is False and found["layers"][2]["reason"] == "no policy permits it"
    shown = run(data, "reveal", str(memory.memory_id), "-n", "acme/x", "--purpose", "audit")
    assert shown.exit_code == 0 and "4711" in shown.output
    assert "entity Memory" in run(data, "policy", "schema").output
