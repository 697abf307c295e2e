"""The log on the command line, from a public key to a verified export."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from tests.cli.conftest import Run


@pytest.fixture
def log(run: Run, tmp_path: Path) -> Path:
    """A directory with the public keys, a head kept elsewhere and an export that is younger."""
    for i in range(3):
        run("store", f"memory {i}", "-n", "company_a/support")
    for name, command in (("key", ["key"]), ("head", ["checkpoint"])):
        (tmp_path / name).write_text(run("audit", *command).out, "utf-8")
    run("audit", "export", str(tmp_path / "export"))
    return tmp_path


def test_an_export_is_verified_without_a_store(command: Run, log: Path) -> None:
    """With and without a head; said for people and for programs; the file is private."""
    export, key = str(log / "export"), str(log / "key")
    alone = command("audit", "verify", export, "--key", key)
    assert "as they were signed" in alone.out and "no head" in alone.err
    answer = command("--json", "audit", "verify", export, "--key", key, "--head", str(log / "head")).json
    assert answer["ok"] and answer["heads"] == 1 and answer["size"] == 7
    assert stat.S_IMODE((log / "export").stat().st_mode) == 0o600


def test_a_changed_export_ends_with_status_8(command: Run, log: Path) -> None:
    """One entry gone: the status of things that were tampered with."""
    lines = (log / "export").read_text("utf-8").splitlines(keepends=True)
    (log / "export").write_text("".join(lines[:3] + lines[4:]), "utf-8")
    failed = command("audit", "verify", str(log / "export"), "--key", str(log / "key"), status=8)
    assert "tampered" in failed.err
    assert (
        "hint: keep this file" in failed.err and "--data" not in failed.err
    )  # there is no store to look into


def test_a_file_that_holds_no_public_key_is_named_with_what_makes_one(command: Run, log: Path) -> None:
    """An auditor who takes the files for each other is told which one is wrong."""
    failed = command("audit", "verify", str(log / "export"), "--key", str(log / "export"), status=2)
    assert "export: a public key is not" in failed.err and "strongroom audit key" in failed.err


def test_proofs_are_printed_and_verified(run: Run, command: Run, log: Path) -> None:
    """Inclusion, and consistency with a checkpoint of before."""
    key = str(log / "key")
    (log / "proof").write_text(run("audit", "prove", "2").out, "utf-8")
    assert command("audit", "verify", str(log / "proof"), "--key", key).out
    size = (log / "head").read_text("utf-8").splitlines()[1]
    (log / "both").write_text(run("audit", "consistency", size).out, "utf-8")
    command("audit", "verify", str(log / "both"), "--key", key, "--head", str(log / "head"))
    command("audit", "verify", str(log / "both"), "--key", key, status=2)
    run("audit", "prove", "999", status=3)


def test_the_listing_is_as_it_was(run: Run, log: Path) -> None:
    """``audit`` without a command lists, with its options and as JSON lines."""
    assert "store" in run("audit").out
    entries = run("audit", "--json", "--limit", "2").lines
    assert len(entries) == 2
    assert run("--json", "audit", "--after", "1", "--limit", "1").lines[0]["seq"] == 2


def test_queries_and_tail_take_filters(run: Run, log: Path) -> None:
    """One entry a line with --json, a table without; wrong filters are refused."""
    found = run("audit", "query", "--action", "store", "-n", "company_a/*", "--since", "1h", "--json").lines
    assert [e["action"] for e in found] == ["store"] * 3
    assert len(run("audit", "tail", "--last", "2", "--action", "store").out.splitlines()) == 2
    assert run("audit", "query", "--until", "1h").out == ""
    run("audit", "query", "-n", "*/x", status=2)


@pytest.mark.parametrize(
    ("form", "first"), [("csv", "seq,at"), ("json", '{"seq":1,'), ("ocsf", '{"category_uid"')]
)
def test_entries_are_exported_for_other_tools(run: Run, log: Path, form: str, first: str) -> None:
    """With filters, which an export that can be verified does not take; and never over a file."""
    file = log / form
    answer = run("--json", "audit", "export", str(file), "--format", form, "--action", "store").json
    assert answer["entries"] == 3
    assert file.read_text("utf-8").startswith(first if form != "json" else '{"seq":')
    run("audit", "export", str(file), status=4)
    run("audit", "export", str(log / "whole"), "--action", "store", status=2)
    assert not (log / "whole").exists()
    assert sorted(p.name for p in log.iterdir() if p.name.startswith(".")) == []


def test_opened_entries_stand_beside_the_sealed_ones(run: Run, command: Run, log: Path) -> None:
    """And the export verifies just the same."""
    run("audit", "export", str(log / "opened"), "--opened")
    lines = [json.loads(line) for line in (log / "opened").read_text("utf-8").splitlines()]
    assert lines[2]["entry"]["action"] == "store"
    command("audit", "verify", str(log / "opened"), "--key", str(log / "key"))
