"""From the text of policy files to a ``PolicySet``; everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cedarpy

from strongroom.policy._policy import Policy, compile_policy
from strongroom.policy._set import PolicySet, schema_text
from strongroom.policy._truth import Refused

BYTES_MAX: Final = 1024 * 1024  # of all files together
POLICIES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong. ``policy``: the id of the policy, "" where it concerns a file or the set."""

    file: str
    policy: str
    message: str

    def __str__(self) -> str:
        place = ", ".join(p for p in (self.file, f"policy '{self.policy}'" if self.policy else "") if p)
        return f"{place}: {self.message}" if place else self.message


class PolicyProblems(Exception):
    """The files make no policy set; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems[:3])))
        self.problems = problems


@lru_cache(maxsize=1)
def _schema() -> Any:
    return cedarpy.Schema.from_str(schema_text())


def digest_of(texts: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over the files in the order of their names; lengths keep names and texts apart."""
    h = hashlib.sha256()
    for name in sorted(texts):
        for part in (name.encode("utf-8", "surrogateescape"), texts[name]):
            h.update(len(part).to_bytes(8, "big"))
            h.update(part)
    return h.hexdigest()


def load(texts: Mapping[str, bytes]) -> PolicySet:
    """Read, validate and compile policy files, given by name.

    Raises:
        PolicyProblems: one of them is no Cedar, breaks the schema, or cannot become a filter on rows; or
            there is no policy at all.
    """
    if sum(map(len, texts.values())) > BYTES_MAX:
        raise PolicyProblems([Problem("", "", f"the policy files have more than {BYTES_MAX} bytes together")])
    problems: list[Problem] = []
    policies: list[Policy] = []
    whole: list[str] = []
    for name in sorted(texts):
        text, found = _read(name, texts[name], len(policies), problems)
        whole.append(text)
        policies += found
    if not problems:
        problems += _of_set(policies)
    if problems:
        raise PolicyProblems(problems)
    return PolicySet("\n".join(whole), policies, digest_of(texts))


def _read(name: str, raw: bytes, first: int, problems: list[Problem]) -> tuple[str, list[Policy]]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        problems.append(Problem(name, "", "the file is not UTF-8"))
        return "", []
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError) as e:
        problems.append(Problem(name, "", f"not Cedar: {str(e)[:300]}"))
        return "", []
    if document.get("templates") or document.get("templateLinks"):
        problems.append(Problem(name, "", "templates (?principal, ?resource) are not used here"))
        return "", []
    trees = document.get("staticPolicies", {})
    problems += _invalid(name, text, trees)
    found: list[Policy] = []
    for place in range(len(trees)):
        tree = trees[f"policy{place}"]
        try:
            found.append(compile_policy(f"policy{first + place}", tree))
        except Refused as e:
            problems.append(Problem(name, _id(tree, place), str(e)))
        except (KeyError, TypeError, RecursionError):
            problems.append(Problem(name, _id(tree, place), "a form of policy that is not known"))
    return text, found


def _id(tree: Mapping[str, Any], place: int) -> str:
    return str(tree.get("annotations", {}).get("id") or f"number {place + 1}")


def _invalid(name: str, text: str, trees: Mapping[str, Any]) -> list[Problem]:
    result = cedarpy.validate_policies(text, _schema())
    problems = []
    for error in result.errors:
        number = error.policy_id
        message = error.error.replace(f"for policy `{number}`, ", "")
        problems.append(
            Problem(name, _id(trees.get(number, {}), 0) if number in trees else "", message[:400])
        )
    if not result.validation_passed and not problems:
        problems.append(Problem(name, "", "the policies do not keep to the schema"))
    return problems


def _of_set(policies: list[Policy]) -> list[Problem]:
    if not policies:
        return [Problem("", "", "there is no policy: an empty set denies everything")]
    if len(policies) > POLICIES_MAX:
        return [Problem("", "", f"more than {POLICIES_MAX} policies")]
    twice = [i for i, n in Counter(p.id for p in policies).items() if n > 1]
    return [Problem("", i, "the @id is given twice") for i in twice]
