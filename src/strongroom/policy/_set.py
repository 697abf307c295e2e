"""A set of policies that was read, checked and compiled: decisions about one memory, and about rows.

One memory, or a namespace: Cedar itself decides. The rows of a namespace: the compiled conditions. Both
are kept by everything that the policies ask about, so that the same question is not worked out twice.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, TypeVar
from uuid import UUID

import cedarpy

from strongroom.model.rows import ALL, DAY_US, HOUR_US, NONE, Facts, Rows, every, holds, negate, some
from strongroom.policy._asker import ROOT, Asker, lineage
from strongroom.policy._expression import GROUPS, fixed
from strongroom.policy._policy import Policy
from strongroom.policy._slice import SLICE_POLICIES_MAX, Slices
from strongroom.policy._truth import Env
from strongroom.policy._values import Entity

_T = TypeVar("_T")
CACHE_ENTRIES_MAX: Final = 8192
_SURROUNDINGS_MAX: Final = 1024


@lru_cache(maxsize=1)
def schema_text() -> str:
    """The schema that policies are validated against."""
    return (files("strongroom.policy") / "strongroom.cedarschema").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies say about one resource. ``policies``: the ids of those that decided."""

    allowed: bool
    policies: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one policy leaves open: the rows for which it is satisfied, and for which it fails."""

    id: str
    forbids: bool
    holds: Rows
    fails: Rows


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows for which something is permitted. ``policies``: the ids of those that had a part in it."""

    rows: Rows
    policies: tuple[str, ...]
    leftovers: tuple[Leftover, ...]

    def why(self, facts: Facts) -> Verdict:
        """The same for one memory, with the policies that decide."""
        failed = sorted({p.id for p in self.leftovers if holds(p.fails, facts)})
        forbidding = [p.id for p in self.leftovers if p.forbids and holds(p.holds, facts)]
        permitting = [p.id for p in self.leftovers if not p.forbids and holds(p.holds, facts)]
        return judged(permitting, forbidding, failed)


def judged(permitting: Sequence[str], forbidding: Sequence[str], failed: Sequence[str]) -> Verdict:
    """One failed evaluation denies, then one that forbids; without one that permits nothing is allowed."""
    if failed:
        return Verdict(False, tuple(failed), f"the evaluation of {_names(failed)} failed")
    if forbidding:
        return Verdict(False, tuple(forbidding), f"{_names(forbidding)} forbids it")
    if permitting:
        return Verdict(True, tuple(permitting), f"{_names(permitting)} permits it")
    return Verdict(False, (), "no policy permits it")


def _names(ids: Sequence[str]) -> str:
    shown = ", ".join(f"'{i}'" for i in ids[:4])
    return f"policy {shown}" + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")


class _Cache:
    """The newest answers; safe to share between threads."""

    def __init__(self, entries_max: int = CACHE_ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        return self._kept.get(key)

    def put(self, key: Hashable, value: _T) -> _T:
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._entries_max:
                self._kept.popitem(last=False)
        return value


class PolicySet:
    """Policies in force. Made by ``load``; ``digest`` (hex, SHA-256) names the version.

    ``slice_max``: how many policies a slice may have (``_slice``); -1 never slices.
    """

    def __init__(
        self, text: str, policies: Sequence[Policy], digest: str, *, slice_max: int = SLICE_POLICIES_MAX
    ) -> None:
        self.digest = digest
        self.policies = tuple(policies)
        self._slices = Slices(cedarpy.PolicySet.from_str(text), policies, slice_max)
        self._ids = {p.number: p.id for p in policies}
        self._asks = frozenset(a for p in policies for a in p.asks)
        self._of_action: dict[str, tuple[Policy, ...]] = {}
        self._facts_asked = tuple(
            sorted(a.partition(".")[2] for a in self._asks if a.startswith("resource."))
        )
        self._context_asked = tuple(
            sorted(a.partition(".")[2] for a in self._asks if a.startswith("context."))
        )
        self._unit = (
            HOUR_US if "resource.age_hours" in self._asks
            else DAY_US if "resource.age_days" in self._asks else 0
        )  # fmt: skip
        self._rows = _Cache()
        self._joined = _Cache()
        self._verdicts = _Cache()
        self._surroundings = _Cache(_SURROUNDINGS_MAX)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(p.id for p in self.policies)

    # -- rows -------------------------------------------------------------------------------------------
    def rows(self, asker: Asker, action: str, namespace: str) -> RowSet:
        """The memories of a namespace for which ``action`` is permitted."""
        key = (asker.key, self._circumstances(asker), action, namespace)
        known: RowSet | None = self._rows.get(key)
        return known if known is not None else self._rows.put(key, self._work_out(asker, action, namespace))

    def kept(self, asker: Asker, question: Hashable, make: Callable[[], _T]) -> _T:
        """What ``make`` gives, kept for askers in circumstances that no policy can tell from these.

        ``make`` works it out from what the set says to this asker about ``question``, and from nothing else.
        """
        key = (asker.key, self._circumstances(asker), question)
        known: _T | None = self._joined.get(key)
        return known if known is not None else self._joined.put(key, make())

    def _work_out(self, asker: Asker, action: str, namespace: str) -> RowSet:
        env = Env(asker, action, namespace, lineage(namespace))
        found = [Leftover(p.id, p.forbids, *p.rows(env)) for p in self._about(action)]
        left = tuple(p for p in found if p.holds != NONE or p.fails != NONE)
        failing = some(p.fails for p in left)
        forbidden = some(p.holds for p in left if p.forbids)
        permitted = some(p.holds for p in left if not p.forbids)
        rows = every((permitted, negate(forbidden), negate(failing)))
        if rows == NONE:
            whole = [p for p in left if ALL in (p.holds if p.forbids else NONE, p.fails)]
            deciding = [p.id for p in (whole or [p for p in left if p.forbids])]
        else:
            deciding = [p.id for p in left]
        return RowSet(rows, tuple(dict.fromkeys(deciding)), left)

    def _about(self, action: str) -> tuple[Policy, ...]:
        known = self._of_action.get(action)
        if known is None:
            known = tuple(p for p in self.policies if p.reach.actions is None or action in p.reach.actions)
            self._of_action[action] = known
        return known

    def _circumstances(self, asker: Asker) -> tuple[object, ...]:
        context = asker.context
        age = asker.circumstances.now_us // self._unit if self._unit else 0
        return (age, *(context.get(name) for name in self._context_asked))

    # -- one resource -----------------------------------------------------------------------------------
    def decide(self, asker: Asker, action: str, namespace: str, facts: Facts | None = None) -> Verdict:
        """Cedar's decision about one memory, or about the namespace itself when there are no ``facts``."""
        asked = None if facts is None else tuple(self._fact(facts, name) for name in self._facts_asked)
        key = (asker.key, self._circumstances(asker), action, namespace, asked)
        known: Verdict | None = self._verdicts.get(key)
        if known is None:
            known = self._verdicts.put(key, self._decide(asker, action, namespace, facts))
        return known

    def refuses_below(self, asker: Asker, action: str, place: str, known: Iterable[str]) -> Verdict | None:
        """What forbids ``action`` somewhere below a place that it may be permitted at; None: nothing does.

        Asked about the namespaces that policies name, whether or not there are such, and about the ``known``
        ones where a policy looks at their names.
        """
        about = self._about(action)
        named = {n for p in about for n in p.places}
        if any({"resource.name", "resource.tenant"} & p.asks for p in about):
            named.update(known)
        for name in sorted(named):
            if name != place and place in lineage(name):
                verdict = self.decide(asker, action, name)
                if not verdict.allowed and verdict.policies:
                    return verdict
        return None

    def _fact(self, facts: Facts, name: str) -> object:
        if name in ("age_hours", "age_days"):
            return facts.created_us // (HOUR_US if name == "age_hours" else DAY_US)
        return getattr(facts, name, None)

    def _decide(self, asker: Asker, action: str, namespace: str, facts: Facts | None) -> Verdict:
        slice_ = self._slices.of(asker.entity, action, namespace, memory=facts is not None)
        resource = Entity("Namespace", namespace) if facts is None else _memory(facts)
        request = {
            "principal": asker.entity._asdict(),
            "action": {"type": "Action", "id": action},
            "resource": resource._asdict(),
            "context": asker.context_json(),
        }
        try:
            known = self._around(asker, action, namespace)
            if facts is not None:
                known = known.with_added_json_str(json.dumps([_memory_json(facts, namespace, asker)]))
            answer = cedarpy.is_authorized(request, slice_, known)
        except (ValueError, TypeError):
            return Verdict(False, (), "the question could not be put to the policies")
        reasons = [self._ids[n] for n in sorted(answer.diagnostics.reasons, key=_place)]
        if answer.diagnostics.errors:
            failed = [
                self._ids[n] for n in self._ids if any(f"`{n}`" in e for e in answer.diagnostics.errors)
            ]
            return judged((), (), failed or ["?"])
        if answer.allowed:
            return judged(reasons, (), ())
        return judged((), reasons, ())

    def _around(self, asker: Asker, action: str, namespace: str) -> cedarpy.Entities:
        """The caller, the action and the place: the entities that every memory of a namespace shares."""
        key = (asker.key, action, namespace)
        known: cedarpy.Entities | None = self._surroundings.get(key)
        if known is None:
            made = [asker.entity_json(), *_places_json(namespace), _action_json(action)]
            known = self._surroundings.put(key, cedarpy.Entities.from_json_str(json.dumps(made)))
        return known


def _place(number: str) -> int:
    """Where a policy stands in the set; Cedar tells them in any order."""
    return int(number.removeprefix("policy"))


# -- entities, as Cedar's JSON ----------------------------------------------------------------------------
def _places_json(namespace: str) -> list[dict[str, Any]]:
    above = lineage(namespace)
    return [
        {
            "uid": {"type": "Namespace", "id": name},
            "attrs": {"name": name, "tenant": "" if name == ROOT else name.partition("/")[0]},
            "parents": [{"type": "Namespace", "id": parent} for parent in above[place + 1 : place + 2]],
        }
        for place, name in enumerate(above)
    ]


def _action_json(action: str) -> dict[str, Any]:
    groups = [{"type": "Action", "id": group} for group in GROUPS.get(action, ())]
    return {"uid": {"type": "Action", "id": action}, "attrs": {}, "parents": groups}


def _memory(facts: Facts) -> Entity:
    return Entity("Memory", str(UUID(bytes=facts.memory_id)))


def _memory_json(facts: Facts, namespace: str, asker: Asker) -> dict[str, Any]:
    return {
        "uid": _memory(facts)._asdict(),
        "attrs": attributes_of(facts, namespace, asker.circumstances.now_us),
        "parents": [{"type": "Namespace", "id": namespace}],
    }


def attributes_of(facts: Facts, namespace: str, now_us: int) -> dict[str, Any]:
    """A memory's attributes as policies see them."""
    optional: Mapping[str, str | None] = {
        "subject": facts.subject,
        "agent_id": facts.agent_id,
        "session_id": facts.session_id,
        "source": facts.source,
    }
    return {
        "namespace": fixed("namespace", namespace),
        "tenant": fixed("tenant", namespace),
        "kind": facts.kind,
        "sensitivity": facts.sensitivity,
        "importance": facts.importance,
        "age_hours": now_us // HOUR_US - facts.created_us // HOUR_US,
        "age_days": now_us // DAY_US - facts.created_us // DAY_US,
        "tags": sorted(facts.tags),
        **{name: text for name, text in optional.items() if text is not None},
    }
