"""The pages about the command line say what the program does."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from strongroom.config import Config, to_toml
from strongroom.errors import all_errors

ROOT = Path(__file__).resolve().parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "script/generate_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_what_the_program_says_of_itself_is_in_the_documentation_as_it_is(name: str) -> None:
    """When this fails: python script/generate_docs.py"""
    page = ROOT / "docs" / name
    assert generator().updated(page) == page.read_text("utf-8")


def test_the_pages_have_every_command_and_every_setting() -> None:
    """The generator leaves nothing out."""
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    for name in ("keys create", "queue requeue", "embed-serve", "tls renew"):
        assert f"### strongroom {name}\n" in page
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    written = tomllib.loads(to_toml(Config()))
    assert len(written) > 10
    for section, values in written.items():
        part = page.partition(f"### [{section}]\n")[2].partition("\n### ")[0]
        assert [*values] == re.findall(r"^\| `(\w+)` \| `", part, re.M), section


def test_the_commands_that_need_the_directory_are_the_ones_of_the_page() -> None:
    """Each that refuses a server is named, by itself or by its group; and none that does not."""
    (line,) = re.findall(
        r"^These need the directory itself: (.*)$", (ROOT / "docs/cli.md").read_text("utf-8"), re.M
    )
    named = set(re.findall(r"`([a-z -]+)`", line)) - {"serve", "kms status"}
    refusing = {
        name
        for path in (ROOT / "src/strongroom/cli").glob("*.py")
        for name in re.findall(r'local_directory\("([a-z -]+)"\)', path.read_text("utf-8"))
    }
    assert {n for n in refusing if n not in named and n.partition(" ")[0] not in named} == set()
    assert {n for n in named if not any(r == n or r.startswith(f"{n} ") for r in refusing)} == set()


def test_every_variable_of_the_environment_that_is_read_is_in_the_documentation() -> None:
    page = (ROOT / "docs/configuration.md").read_text("utf-8").partition("## Environment")[2]
    read = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"STRONGROOM_[A-Z0-9_]+", path.read_text("utf-8"))
    }
    assert set(re.findall(r"`(STRONGROOM_[A-Z0-9_]+)`", page)) == read


def test_every_finding_of_the_doctor_is_in_the_documentation_and_none_is_invented() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8").partition("## The doctor")[2]
    documented = {
        code for row in re.findall(r"^\| (`.*?`) \|", page, re.M) for code in re.findall(r"`([a-z_]+)`", row)
    }
    found: set[str] = set()
    for path in (ROOT / "src/strongroom/governance").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                code = node.args[1]
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
    assert len(found) > 25
    assert found <= documented
    assert documented - found <= set(all_errors())
