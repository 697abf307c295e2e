"""Attribute policies: Cedar with a schema of our own, decided one by one or as a filter on rows.

Pure logic: the texts, the asker and the clock are passed in (docs/access.md, docs/adr/).
"""

from strongroom.policy._asker import ROOT, Asker, Circumstances
from strongroom.policy._load import PolicyProblems, Problem, digest_of, load
from strongroom.policy._set import Leftover, PolicySet, RowSet, Verdict, attributes_of, schema_text

__all__ = [
    "ROOT",
    "Asker",
    "Circumstances",
    "Leftover",
    "PolicyProblems",
    "PolicySet",
    "Problem",
    "RowSet",
    "Verdict",
    "attributes_of",
    "digest_of",
    "load",
    "schema_text",
]
