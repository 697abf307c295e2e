"""The part of a policy set that can say something about a question.

Cedar evaluates the scope of a policy (principal, action, resource) before its conditions, and a scope that
does not match ends the evaluation: the policy is not satisfied, and nothing in it can fail. A policy whose
scope cannot match may therefore be left out: the decision, the policies that decide it and the errors stay
what they are. A hundred policies cost a hundred evaluations; most of them are about other places.

And where a scope is known to match, for every memory of the namespace, it need not be evaluated again:
the slice has the policy with an open scope, which halves the cost of what is left.

Slices are kept by what policies tell apart, not by who asks about which namespace, so that callers cannot
make new ones at will. They are parsed once each, and weigh at most ``SLICED_POLICIES_MAX`` policies together.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import cedarpy

from strongroom.policy._asker import lineage
from strongroom.policy._values import Entity

SLICED_POLICIES_MAX: Final = 10_000
SLICE_POLICIES_MAX: Final = 200  # a larger part is not parsed anew: the whole set is asked


@dataclass(frozen=True, slots=True)
class Part:
    """What the scope says of the principal, or of the resource; None where it says nothing.

    ``exactly``: the entity itself, not what lies below it.
    """

    type: str | None = None
    entity: Entity | None = None
    exactly: bool = False

    @property
    def place(self) -> str | None:
        """The namespace that is named."""
        return self.entity.id if self.entity is not None and self.entity.type == "Namespace" else None


@dataclass(frozen=True, slots=True)
class Reach:
    """The scope of a policy without its conditions; ``actions``: None means any."""

    principal: Part
    actions: frozenset[str] | None
    resource: Part

    def may_match(self, asked: Asked) -> bool:
        """False only where Cedar's evaluation ends in the scope, for every memory of the namespace."""
        if self.actions is not None and asked.action not in self.actions:
            return False
        who, what = self.principal, self.resource
        if who.type not in (None, asked.principal.type) or who.entity not in (None, asked.principal):
            return False
        if what.type not in (None, asked.kind):
            return False
        return what.entity is None or _lies_in(what.entity, asked, what.exactly)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as scopes see it. ``kind``: Memory, or Namespace where it is about the place itself."""

    principal: Entity
    action: str
    kind: str
    namespace: str
    above: tuple[str, ...]  # with the namespace itself


def _lies_in(named: Entity, asked: Asked, exactly: bool) -> bool:
    if named.type == "Memory":
        return asked.kind == "Memory"  # perhaps this one
    if named.type != "Namespace" or (exactly and asked.kind == "Memory"):
        return False
    return named.id == asked.namespace if exactly else named.id in asked.above


class Sliceable(Protocol):
    """``number``: Cedar's name of the policy; ``tree``: its JSON form (EST) for slices, as text."""

    @property
    def number(self) -> str: ...
    @property
    def reach(self) -> Reach: ...
    @property
    def tree(self) -> str: ...


class Slices:
    """The slices of one policy set, as handles that Cedar has parsed. Safe to share between threads."""

    def __init__(self, whole: cedarpy.PolicySet, policies: Sequence[Sliceable], policies_max: int) -> None:
        self._whole = whole
        self._policies_max = policies_max
        self._principals = {p.reach.principal.entity for p in policies}
        self._at: dict[str | None, list[Sliceable]] = {None: []}  # by the place named; None: by none
        for policy in policies:
            self._at.setdefault(policy.reach.resource.place, []).append(policy)
        self._handles: OrderedDict[tuple[object, ...], tuple[cedarpy.PolicySet, int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def of(self, principal: Entity, action: str, namespace: str, *, memory: bool) -> cedarpy.PolicySet:
        """The policies that may match when ``principal`` asks about the namespace, or a memory in it."""
        asked = Asked(principal, action, "Memory" if memory else "Namespace", namespace, lineage(namespace))
        key = (
            principal if principal in self._principals else principal.type,
            action,
            memory,
            namespace in self._at,
            tuple(n for n in asked.above if n in self._at),
        )
        known = self._handles.get(key)
        return known[0] if known is not None else self._make(key, asked)

    def _make(self, key: tuple[object, ...], asked: Asked) -> cedarpy.PolicySet:
        near = (p for place in (None, *asked.above) for p in self._at.get(place, ()))
        kept = [p for p in near if p.reach.may_match(asked)]
        if len(kept) > self._policies_max:
            handle, weight = self._whole, 1
        else:
            handle, weight = cedarpy.PolicySet.from_json_str(document(kept)), 1 + len(kept)
        with self._lock:
            if key not in self._handles:
                self._handles[key] = (handle, weight)
                self._held += weight
            while self._held > SLICED_POLICIES_MAX:
                _, (_, gone) = self._handles.popitem(last=False)
                self._held -= gone
        return handle


def document(policies: Iterable[Sliceable]) -> str:
    """Policies as Cedar's JSON form of a set, under the numbers that they have in the whole."""
    trees = ",".join(f'"{p.number}":{p.tree}' for p in policies)
    return f'{{"staticPolicies":{{{trees}}},"templates":{{}},"templateLinks":[]}}'


def open_scope(tree: Mapping[str, Any], reach: Reach) -> dict[str, Any]:
    """A policy for the slices that it is in: without its scope, but where that names a memory."""
    named = reach.resource.entity
    if named is not None and named.type == "Memory":
        return dict(tree)
    anything = {"op": "All"}
    return {**tree, "principal": anything, "action": anything, "resource": anything}


def part_of(scope: Mapping[str, Any]) -> Part:
    """One side of a scope, from Cedar's JSON form."""
    named = scope["entity"] if "entity" in scope else scope.get("in", {}).get("entity")
    entity = None if named is None else Entity(named["type"], named["id"])
    return Part(scope.get("entity_type"), entity, scope["op"] == "==")
