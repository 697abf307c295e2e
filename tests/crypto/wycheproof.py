"""Finds the Wycheproof files: STRONGROOM_WYCHEPROOF, or shared/data/wycheproof beside the repository."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def directory() -> Path:
    given = os.environ.get("STRONGROOM_WYCHEPROOF")
    return Path(given) if given else ROOT.parent / "shared" / "data" / "wycheproof"


def groups(name: str) -> list[dict[str, Any]]:
    """The test groups of a file; skips the test when the file is not on this machine."""
    path = directory() / name
    if not path.is_file():
        pytest.skip(f"Wycheproof file {name} not found; set STRONGROOM_WYCHEPROOF to its directory")
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found: list[dict[str, Any]] = data["testGroups"]
    return found


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, case) of a file, in order."""
    for group in groups(name):
        for case in group["tests"]:
            yield group, case
