"""The pages about the command line say what the program does."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from strongroom.errors import all_errors

ROOT = Path(__file__).resolve().parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli_docs", ROOT / "script/generate_cli_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_help_of_every_command_is_in_the_documentation_as_it_is() -> None:
    """When this fails: python script/generate_cli_docs.py"""
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    assert generator().updated(page) == page
    for name in ("keys create", "queue requeue", "embed-serve", "tls renew"):
        assert f"### strongroom {name}\n" in page


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
