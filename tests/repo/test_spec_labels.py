"""spec/README.md names every page of the directory, and every label by which keys are kept apart."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = {p: p.read_text("utf-8") for p in (ROOT / "src/strongroom").rglob("*.py")}
INDEX = (ROOT / "spec/README.md").read_text("utf-8")


def labels() -> set[str]:
    """What the code puts into derivations, contexts and hashes: versioned labels, names of derived keys."""
    text = "\n".join(SOURCE.values())
    found = set(re.findall(r'b?"(strongroom/[a-z-]+(?:@v\d+)?)(?:\\0)?"', text))
    found |= set(re.findall(r'\.derive\("([a-z][a-z/-]+)"', text))
    found |= set(re.findall(r'purpose_key\([\w. ]+, "([a-z-]+)"', text))
    found |= set(re.findall(r'_(?:WRAP_LABEL|NEXT|LABEL|PURPOSE|SUBJECT)(?:: Final)? = "([a-z/-]+)"', text))
    return found


def test_every_label_of_the_code_stands_in_the_index_of_the_formats() -> None:
    """A new use of a key is written down: its label is in spec/README.md, with the page that says more."""
    found = labels()
    assert len(found) > 30
    assert found & {"strongroom/sealed-record@v1", "keyring-row", "blind-index", "kms-local-wrap"}
    not_of_keys = {"namespace-key", "key-agent-log"}  # purposes in the context of a KMS
    assert sorted(label for label in found - not_of_keys if f"`{label}`" not in INDEX) == []


def test_no_versioned_label_is_the_beginning_of_another() -> None:
    """Two uses of one key never share an HKDF info: a label ends where no other one goes on."""
    versioned = sorted(label for label in labels() if "@v" in label)
    assert len(versioned) > 15
    for one, other in pairwise(versioned):
        assert not other.startswith(one)


def test_every_page_of_a_format_is_in_the_index() -> None:
    """Who opens spec/ finds every format from its first page."""
    pages = {p.name for p in (ROOT / "spec").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"^\| \[[\w-]+\]\(([\w.-]+)\)", INDEX, re.M)) == pages
