"""Attribute policies: Cedar with a schema of our own, decided one by one or as a filter on rows.

Pure logic: the texts, the asker and the clock are passed in (docs/access.md, docs/adr/).
"""

from importlib.resources import files

from strongroom.policy._asker import ROOT, Asker, Circumstances
from strongroom.policy._cases import ACTIONS, BadCases, CaseResult, PolicyCase, read_cases, run_case
from strongroom.policy._load import PolicyProblems, Problem, digest_of, load
from strongroom.policy._set import Leftover, PolicySet, RowSet, Verdict, attributes_of, schema_text

__all__ = [
    "ACTIONS",
    "ROOT",
    "Asker",
    "BadCases",
    "CaseResult",
    "Circumstances",
    "Leftover",
    "PolicyCase",
    "PolicyProblems",
    "PolicySet",
    "Problem",
    "RowSet",
    "Verdict",
    "attributes_of",
    "digest_of",
    "load",
    "read_cases",
    "run_case",
    "schema_text",
    "starter_files",
]


def starter_files() -> dict[str, bytes]:
    """The starter set: policy files, and their cases below ``tests/``, by path."""
    root = files("strongroom.policy") / "starter"
    found = {f.name: f.read_bytes() for f in root.iterdir() if f.name.endswith(".cedar")}
    found |= {f"tests/{f.name}": f.read_bytes() for f in (root / "tests").iterdir() if f.is_file()}
    return found
