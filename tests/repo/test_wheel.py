"""The wheel: built, installed elsewhere, and run from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": "", **env},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: script/setup --dev")
def test_the_wheel_installs_into_a_new_environment_and_runs_from_there(tmp_path: Path) -> None:
    """Dependencies are borrowed from this environment by a path file; the package itself is the wheel."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert "strongroom/py.typed" in names and "strongroom/data/sample.jsonl" in names
    assert not [n for n in names if n.startswith(("tests", "bench", "vectors"))]

    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    packages = next((home / "lib").glob("python*")) / "site-packages"
    run(*pip, "install", "-q", "--no-deps", "--no-index", "--target", packages, wheel)
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    python, data = home / "bin" / "python", tmp_path / "data"
    where = run(python, "-c", "import strongroom; print(strongroom.__file__)").strip()
    assert Path(where).is_relative_to(packages)
    tool = (python, "-m", "strongroom.cli", "--data", data, "--json")
    run(*tool, "init")
    run(*tool, "store", "-n", "company_a/support", "the wheel turns")
    found = json.loads(run(*tool, "search", "-n", "company_a/support", "--mode", "keyword", "wheel"))
    assert [hit["memory"]["content"] for hit in found["hits"]] == ["the wheel turns"]
