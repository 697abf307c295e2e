"""The three layers that must all agree: key scope, namespace grant, attribute policy.

The first two are decided by ``access``. The third is asked only when they allow, and says either yes or no
about one resource, or which rows of a namespace are within reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from strongroom import access
from strongroom.engine._policies import DIGEST_SHOWN, NOT_IN_USE
from strongroom.model import Action, Decision
from strongroom.model.rows import NONE, WHOLE, Facts, Reach, Rows, every
from strongroom.policy import ROOT, Asker, PolicySet, Verdict

if TYPE_CHECKING:
    from strongroom.engine._call import Call

_ROWS_OF: Final[Mapping[Action, tuple[str, ...]]] = {
    Action.SEARCH: ("search",),
    Action.LIST: ("search",),
    Action.READ: ("read",),
    Action.SQL: ("search", "sql"),
    Action.STATS: ("search", "analyze"),
    Action.REVEAL: ("reveal",),
    Action.EXPORT: ("search", "reveal", "export"),
    Action.STORE: ("store",),
    Action.UPDATE: ("update",),
    Action.DELETE: ("delete",),
    Action.ERASE: ("erase",),
}
"""The actions of policies that must all permit a row for it to be within the reach of an operation."""
_OPENING: Final = frozenset({Action.SEARCH, Action.LIST, Action.READ, Action.SQL})


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, and how far it reaches."""

    decision: Decision
    reach: Reach = WHOLE


def decide(call: Call, action: Action, namespace: str | None, facts: Facts | None = None) -> Answer:
    """May the caller do this there, and to which memories? ``facts``: to this one memory.

    ``namespace=None`` is the whole store.
    """
    decision = access.decide(call.principal, action, namespace)
    if decision.supervising:
        call.details["supervising"] = "yes"
    place = ROOT if namespace is None else namespace
    return decide_by_policy(call, decision, action, place, facts)


def decide_by_policy(
    call: Call, decision: Decision, action: Action, place: str, facts: Facts | None = None
) -> Answer:
    """The third layer, on top of the ``decision`` of the others; ``place`` is a namespace or ``ROOT``."""
    principal, policies = call.principal, call.engine.policies
    if not decision.allowed or principal.is_owner:
        return Answer(decision)
    in_force = policies.current()
    if in_force is None:
        return _answer(decision, True, NOT_IN_USE, decision.policies)
    call.details["policy_set"] = in_force.digest[:DIGEST_SHOWN]
    if in_force.policies is None:
        return Answer(Decision(False, f"the policy set denies everything: {in_force.problem}"))
    asker = policies.asker(principal, call.surface, call.context, supervising=decision.supervising)
    if action != Action.ADMINISTER and facts is None:
        return _rows(call, decision, in_force.policies, asker, action, place)
    verdict = Verdict(False, (), "no policy permits it")
    for name in _ROWS_OF.get(action, ("administer",)):
        verdict = in_force.policies.decide(asker, name, place, facts)
        if not verdict.allowed:
            break
    call.decided_by(verdict.policies, of_memory=facts is not None)
    return _answer(decision, verdict.allowed, verdict.reason, verdict.policies)


def refused_below(call: Call, decision: Decision, place: str, known: Iterable[str]) -> Decision:
    """``decision`` about administering a place, unless the policies forbid it somewhere below."""
    in_force = None if call.principal.is_owner else call.engine.policies.current()
    if not decision.allowed or in_force is None or in_force.policies is None:
        return decision
    asker = call.engine.policies.asker(call.principal, call.surface, call.context, supervising=False)
    verdict = in_force.policies.refuses_below(asker, Action.ADMINISTER.value, place, known)
    if verdict is None:
        return decision
    call.decided_by(verdict.policies, of_memory=False)
    return _answer(decision, False, f"below {place}: {verdict.reason}", verdict.policies).decision


def _rows(
    call: Call, decision: Decision, policies: PolicySet, asker: Asker, action: Action, place: str
) -> Answer:
    reach, reason = policies.kept(asker, (action, place), lambda: _reach(policies, asker, action, place))
    call.decided_by(reach.policies, of_memory=False)
    out = _answer(decision, reach.seen != NONE, reason, reach.policies)
    return Answer(out.decision, reach) if out.decision.allowed and not reach.is_whole else out


def _reach(policies: PolicySet, asker: Asker, action: Action, place: str) -> tuple[Reach, str]:
    """How far the policies let the asker go there, and why."""
    seen, ids, reason = _joined(policies, asker, _ROWS_OF[action], place)
    opened = seen
    if action in _OPENING and seen != NONE:
        revealed, more, _ = _joined(policies, asker, ("reveal",), place)
        opened = every((seen, revealed))
        ids = tuple(dict.fromkeys((*ids, *more)))
    return Reach(seen, opened, ids), reason


def _joined(
    policies: PolicySet, asker: Asker, actions: Sequence[str], place: str
) -> tuple[Rows, tuple[str, ...], str]:
    found = [policies.rows(asker, name, place) for name in actions]
    rows = every(f.rows for f in found)
    refusing = next((f for f in found if f.rows == NONE), None)
    if refusing is not None:
        names = ", ".join(f"'{i}'" for i in refusing.policies)
        return NONE, refusing.policies, f"policy {names} forbids it" if names else "no policy permits it"
    ids = tuple(dict.fromkeys(i for f in found for i in f.policies))
    against = {p.id for f in found for p in f.leftovers if p.forbids}
    reason = f"permitted by policy {', '.join(repr(i) for i in ids if i not in against)}"
    if against:
        reason += f", but for rows that policy {', '.join(repr(i) for i in ids if i in against)} forbids"
    return rows, ids, reason


def _answer(decision: Decision, allowed: bool, reason: str, policies: tuple[str, ...]) -> Answer:
    return Answer(Decision(allowed, f"{decision.reason}; {reason}", policies, decision.supervising))
