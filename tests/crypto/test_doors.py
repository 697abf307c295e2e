"""Who may open which door of the crypto room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import strongroom.crypto as crypto

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "strongroom"
MAY_EXPOSE = {"keyring", "kms", "crypto"}


def imports(text: str, package: tuple[str, ...]) -> set[str]:
    """Every module that a source text names in an import, and everything that it takes from one."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    package = ("strongroom", *path.relative_to(SOURCE).parts[:-1])
    return imports(path.read_text("utf-8"), package)


def rooms() -> list[tuple[str, Path]]:
    return [(path.relative_to(SOURCE).parts[0], path) for path in SOURCE.rglob("*.py")]


def test_only_key_rooms_import_danger() -> None:
    """No room but keyring, kms and crypto names the door to key bytes, not even as text."""
    seen = False
    for room, path in rooms():
        seen = seen or path.name == "danger.py"
        if room not in MAY_EXPOSE:
            assert "strongroom.crypto.danger" not in imports_of(path), path
            assert "strongroom.crypto.danger" not in path.read_text("utf-8"), path
    assert seen


def test_no_room_reaches_behind_the_crypto_door() -> None:
    """Other rooms use what strongroom.crypto offers: no private module, no private bytes of a key."""
    for room, path in rooms():
        if room == "crypto":
            continue
        private = {name for name in imports_of(path) if name.startswith("strongroom.crypto._")}
        assert not private, path
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.Attribute) and node.attr == "_key_slot"), path


@pytest.mark.parametrize(
    "text",
    [
        "import strongroom.crypto.danger",
        "import strongroom.crypto.danger as d",
        "from strongroom.crypto.danger import expose",
        "from strongroom.crypto import danger",
        "from ..crypto import danger",
        "def f():\n    from ..crypto.danger import expose",
    ],
)
def test_the_import_finder_sees_every_spelling(text: str) -> None:
    """The tests above would notice: each way of writing the forbidden import is found."""
    assert "strongroom.crypto.danger" in imports(text, ("strongroom", "engine"))


def test_ordinary_import_leaves_danger_closed() -> None:
    """``import strongroom.crypto`` does not load the door to key bytes."""
    code = "import sys, strongroom.crypto; sys.exit('strongroom.crypto.danger' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_is_what_is_there() -> None:
    """``__all__`` is sorted, complete and names nothing that is missing."""
    public = {name for name in vars(crypto) if not name.startswith("_")} - {"danger"}
    assert public == set(crypto.__all__)
    assert len(crypto.__all__) == len(set(crypto.__all__))
