"""The examples of docs/access.md and the starter set do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strongroom.policy import load, read_cases, run_case, starter_files

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text("utf-8")
EXAMPLES = re.findall(r"```cedar\n(.*?)```", PAGE, re.DOTALL)
CASES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda t: re.findall(r'@id\("(.*?)"\)', t)[0])
def test_each_policy_of_the_page_is_one(text: str) -> None:
    """It keeps to the schema and becomes a filter."""
    assert load({"page.cedar": text.encode()}).policies


def test_the_cases_of_the_page_come_out_as_they_say() -> None:
    """Decided by all policies of the page together."""
    policies = load({f"{n}.cedar": t.encode() for n, t in enumerate(EXAMPLES)})
    results = [run_case(policies, c) for text in CASES for c in read_cases("page.toml", text.encode())]
    assert len(results) == 2 and not [r.problem for r in results if r.problem]


def test_the_starter_set_passes_its_cases() -> None:
    """Five files, each with a case that it decides."""
    files = starter_files()
    policies = load({n: raw for n, raw in files.items() if n.endswith(".cedar")})
    cases = [c for n, raw in files.items() if n.startswith("tests/") for c in read_cases(n, raw)]
    results = [run_case(policies, c) for c in cases]
    assert len(cases) >= 12 and not [r.problem for r in results if r.problem]
    assert {"analyst", "support", "supervisor", "after-hours", "restricted"} == {
        n.removesuffix(".cedar") for n in files if n.endswith(".cedar")
    }


def test_the_page_lists_the_actions_and_attributes_of_the_schema() -> None:
    """Nothing that a policy may ask is missing from the page."""
    from strongroom.policy import schema_text

    attributes = set(re.findall(r"^\s+(\w+)\??: ", schema_text(), re.MULTILINE)) - {"principal", "context"}
    assert not {a for a in attributes if f"`{a}`" not in PAGE} - {"resource"}
