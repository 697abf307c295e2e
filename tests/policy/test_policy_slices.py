"""Only the policies whose scope can match are put to Cedar; nobody can tell from the answer."""

from __future__ import annotations

import json
import random

import cedarpy
import pytest
from tests.policy import naive

from strongroom.policy import PolicySet, _slice
from strongroom.policy._policy import compile_policy
from strongroom.policy._slice import Slices

PLACES = ("acme", "acme/support", "acme/support/tier1", "acme/x", "other", "*")
ACTIONS = ("read", "search", "store", "administer", "erase")


def compiled(text: str, slice_max: int) -> PolicySet:
    trees = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    made = [compile_policy(f"policy{i}", trees[f"policy{i}"]) for i in range(len(trees))]
    return PolicySet(text, made, "0" * 64, slice_max=slice_max)


def scope_and_body(r: random.Random, number: int) -> str:
    """A policy with any form of scope; its condition holds, does not, or fails."""
    kind, who = r.choice(("Agent", "Person")), r.choice(("k0", "k1"))
    principal = r.choice(("", f'== {kind}::"{who}"', f'in {kind}::"{who}"', f"is {kind}",
                          f'is {kind} in {kind}::"{who}"'))  # fmt: skip
    action = r.choice(("", 'in Action::"reading"', f'== Action::"{r.choice(ACTIONS)}"',
                       'in [Action::"writing", Action::"administer"]'))  # fmt: skip
    place = f'Namespace::"{r.choice(PLACES)}"'
    memory = f'Memory::"{naive.memory_name(r.randint(0, 2))}"'
    resource = r.choice(("", f"in {place}", f"== {place}", "is Memory", "is Namespace",
                         f"is Memory in {place}", f"is Namespace in {place}",
                         f"== {memory}", f"in {memory}"))  # fmt: skip
    body = r.choice(
        ("", "when { context.hour >= 0 }", "when { context.hour > 30 }", "when { context.nothing }")
    )
    effect = r.choice(("permit", "permit", "forbid"))
    return f'@id("p{number}") {effect}(principal {principal}, action {action}, resource {resource}) {body};'


@pytest.mark.parametrize("seed", range(4))
def test_a_slice_answers_as_the_whole_set_does(seed: int) -> None:
    """With every form of scope and failing conditions: decision, reason, policies and errors."""
    r = random.Random(seed)
    chance = naive.Chance(r)
    outcomes = set()
    for _ in range(60):
        text = "\n".join(scope_and_body(r, n) for n in range(r.randint(1, 12)))
        sliced, whole = compiled(text, 1000), compiled(text, -1)
        for _ in range(20):
            asker, action, place = chance.asker(), r.choice(ACTIONS), r.choice((*PLACES, "else/where"))
            facts = None if place == "*" or r.random() < 0.5 else chance.facts(r.randint(0, 3))
            verdict = whole.decide(asker, action, place, facts)
            assert sliced.decide(asker, action, place, facts) == verdict, (text, asker, action, place, facts)
            outcomes.add((verdict.allowed, bool(verdict.policies), facts is None))
    assert len(outcomes) == 6  # permitted, denied by somebody, denied by nobody; of both kinds of resource


def many(policies: int) -> tuple[cedarpy.PolicySet, list[object]]:
    text = "\n".join(
        f'@id("p{n}") permit(principal, action, resource in Namespace::"team{n}");' for n in range(policies)
    )
    trees = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    made = [compile_policy(f"policy{i}", trees[f"policy{i}"]) for i in range(policies)]
    return cedarpy.PolicySet.from_str(text), made


def test_what_cannot_match_is_not_asked() -> None:
    whole, made = many(40)
    slices = Slices(whole, made, _slice.SLICE_POLICIES_MAX)  # type: ignore[arg-type]
    who = naive.Chance(random.Random(1)).asker().entity
    assert len(slices.of(who, "read", "team7/x", memory=True)) == 1
    assert len(slices.of(who, "read", "elsewhere", memory=True)) == 0
    assert len(Slices(whole, made, 0).of(who, "read", "team7", memory=True)) == 40  # type: ignore[arg-type]
    assert len(Slices(whole, made, -1).of(who, "read", "team7", memory=True)) == 40  # type: ignore[arg-type]


def test_callers_do_not_make_slices_at_will(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places and people that no policy names share their slices, and what is kept is bounded."""
    whole, made = many(40)
    slices = Slices(whole, made, _slice.SLICE_POLICIES_MAX)  # type: ignore[arg-type]
    chance = naive.Chance(random.Random(1))
    first = slices.of(chance.asker().entity._replace(type="Agent"), "read", "team1", memory=True)
    for n in range(50):
        other = chance.asker().entity._replace(type="Agent", id=f"somebody-{n}")
        assert slices.of(other, "read", f"team1/{n}", memory=True) is slices.of(
            other, "read", f"team1/{n}/deeper", memory=True
        )
    assert len(first) == 1 and len(slices._handles) == 2  # team1 itself, and what lies below it
    monkeypatch.setattr(_slice, "SLICED_POLICIES_MAX", 10)
    for n in range(40):
        assert len(slices.of(other, "read", f"team{n}", memory=True)) == 1
    assert len(slices._handles) <= 5 and slices._held <= 10
