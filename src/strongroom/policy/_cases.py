"""Cases of a policy set: who asks what of which memory, and what the answer should be.

A file of cases is TOML (``[[case]]``) or JSON (``{"case": [...]}``); docs/access.md lists the fields. A case
is decided by Cedar and by the row filter; both must give what is expected.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from strongroom.model import (
    Authentication,
    NamespacePattern,
    Principal,
    PrincipalKind,
    Scope,
    check_namespace,
)
from strongroom.model.rows import DAY_US, HOUR_US, Facts
from strongroom.policy._asker import ROOT, Asker, Circumstances
from strongroom.policy._set import PolicySet, Verdict

NOW_US: Final = 1_790_000_000_000_000
_PRINCIPAL: Final = ("id", "kind", "tenant", "agent_id", "labels", "scope", "authn")
_CONTEXT: Final = ("hour", "weekday", "surface", "supervising", "purpose", "reason", "source", "tls_group")
_MEMORY: Final = (
    "memory_id", "kind", "sensitivity", "importance", "age_days", "age_hours", "tags",
    "subject", "agent_id", "session_id", "source",
)  # fmt: skip
_CASE: Final = (
    "name", "expect", "policies", "action", "namespace", "principal", "memory", "context",
)  # fmt: skip
ACTIONS: Final = (
    "search", "read", "reveal", "sql", "analyze", "export", "store", "update", "delete",
    "erase", "administer",
)  # fmt: skip


class BadCases(Exception):
    """A file of cases cannot be read; the text says where."""


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """One case. ``facts`` is None for ``administer``, which is asked of a namespace."""

    name: str
    allowed: bool
    policies: frozenset[str] | None
    action: str
    namespace: str
    asker: Asker
    facts: Facts | None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a case gave; ``problem`` is empty when it is what was expected."""

    case: PolicyCase
    verdict: Verdict
    problem: str


def read_cases(name: str, raw: bytes) -> list[PolicyCase]:
    """The cases of a file.

    Raises:
        BadCases: it is neither TOML nor JSON of this form.
    """
    try:
        text = raw.decode("utf-8")
        document = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadCases(f"{name}: {str(e)[:200]}") from None
    cases = document.get("case") if isinstance(document, dict) else None
    if not isinstance(cases, list) or set(document) != {"case"}:
        raise BadCases(f"{name}: a file of cases has one list, case")
    return [_case(f"{name}, case {n}", c) for n, c in enumerate(cases, start=1)]


def run_case(policies: PolicySet, case: PolicyCase) -> CaseResult:
    """Decide a case both ways."""
    verdict = policies.decide(case.asker, case.action, case.namespace, case.facts)
    problem = ""
    if verdict.allowed != case.allowed:
        problem = f"expected {_word(case.allowed)}, got {_word(verdict.allowed)}: {verdict.reason}"
    elif case.policies is not None and frozenset(verdict.policies) != case.policies:
        problem = f"expected by {sorted(case.policies)}, decided by {sorted(verdict.policies)}"
    if case.facts is not None and not problem:
        by_rows = policies.rows(case.asker, case.action, case.namespace).why(case.facts)
        if by_rows.allowed != verdict.allowed:
            problem = "the row filter and Cedar disagree: this is a fault of Strongroom, please report it"
    return CaseResult(case, verdict, problem)


def _word(allowed: bool) -> str:
    return "allow" if allowed else "deny"


def _case(place: str, given: Any) -> PolicyCase:
    case = _table(place, given, _CASE)
    if case.get("expect") not in ("allow", "deny"):
        raise BadCases(f'{place}: expect is "allow" or "deny"')
    action = case.get("action")
    if action not in ACTIONS:
        raise BadCases(f"{place}: action is one of {', '.join(ACTIONS)}")
    policies = case.get("policies")
    namespace = case.get("namespace", ROOT)
    try:
        memory = None if action == "administer" else _facts(place, case.get("memory", {}))
        return PolicyCase(
            name=str(case.get("name", place)),
            allowed=case["expect"] == "allow",
            policies=None if policies is None else frozenset(map(str, policies)),
            action=action,
            namespace=namespace if namespace == ROOT else check_namespace(namespace),
            asker=Asker(
                _principal(place, case.get("principal", {})), _circumstances(place, case.get("context", {}))
            ),
            facts=memory,
        )
    except (ValueError, TypeError) as e:
        raise BadCases(f"{place}: {str(e)[:200]}") from None


def _table(place: str, given: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise BadCases(f"{place}: a table is needed")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise BadCases(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return given


def _principal(place: str, given: Any) -> Principal:
    p = _table(place, given, _PRINCIPAL)
    return Principal(
        id=str(p.get("id", "k-case")),
        name="case",
        scope=Scope(p.get("scope", "read-write")),
        grants=(NamespacePattern("*"),),
        kind=PrincipalKind(p.get("kind", "agent")),
        tenant=str(p.get("tenant", "")),
        agent_id=str(p.get("agent_id", "")),
        labels=tuple(map(str, p.get("labels", ()))),
        authentication=Authentication(p.get("authn", "api-key")),
    )


def _circumstances(place: str, given: Any) -> Circumstances:
    c = dict(_table(place, given, _CONTEXT))
    c["source_address"] = c.pop("source", "")
    known = {f.name for f in fields(Circumstances)}
    made = {"hour": 12, "weekday": 2, "surface": "python", **c, "now_us": NOW_US}
    if not (type(made["hour"]) is int and type(made["weekday"]) is int and set(made) <= known):
        raise BadCases(f"{place}: hour and weekday are whole numbers")
    return Circumstances(**made)


def _facts(place: str, given: Any) -> Facts:
    m = _table(place, given, _MEMORY)
    texts = {n: str(m[n]) for n in ("subject", "agent_id", "session_id", "source") if n in m}
    age_us = int(m.get("age_days", 0)) * DAY_US + int(m.get("age_hours", 0)) * HOUR_US
    return Facts(
        memory_id=UUID(str(m.get("memory_id", UUID(int=0)))).bytes,
        kind=str(m.get("kind", "observation")),
        sensitivity=str(m.get("sensitivity", "internal")),
        importance=int(float(m.get("importance", 0.5)) * 1000),
        created_us=NOW_US - age_us,
        tags=frozenset(map(str, m.get("tags", ()))),
        **texts,
    )
