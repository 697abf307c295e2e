"""Why a caller may, or may not, do something somewhere: the three layers one by one, for administrators."""

from __future__ import annotations

from dataclasses import replace

from strongroom import access
from strongroom.engine._call import Call
from strongroom.engine._decide import Answer, decide
from strongroom.engine._policies import NOT_IN_USE
from strongroom.engine._single import OUT_OF_SIGHT, known_facts, sees
from strongroom.engine._validate import check_id, check_text
from strongroom.errors import CredentialNotFoundError, InvalidInputError, MemoryNotFoundError
from strongroom.model import (
    Action,
    Decision,
    ExplainedLayer,
    Explanation,
    NamespacePattern,
    Principal,
    RequestContext,
    check_namespace,
)
from strongroom.model.rows import ALL
from strongroom.recall import rows_sql

_TEXT_BYTES_MAX = 256
_NEEDS_SIGHT = frozenset({Action.UPDATE, Action.DELETE, Action.REVEAL})


def explain(
    call: Call,
    key_id: object,
    action: object,
    namespace: str | None,
    memory_id: object,
    context: RequestContext,
    surface: str,
) -> Explanation:
    """What would be decided for the key ``key_id``; its own audit entry is the only trace."""
    call.reason = "explain a decision"
    call.require(Action.ADMINISTER, None)
    try:
        wanted = Action(check_text(action, "action", _TEXT_BYTES_MAX))
    except ValueError:
        raise InvalidInputError(
            "unknown action", hint="one of: " + ", ".join(a.value for a in Action)
        ) from None
    place = None if namespace is None else check_namespace(namespace)
    who = _principal(call, check_text(key_id, "key_id", _TEXT_BYTES_MAX))
    asked = Call(call.engine, who.id, surface, call.request_id, wanted.value, context=context)
    asked._principal = who
    answer = decide(asked, wanted, place)
    if memory_id is not None and answer.decision.allowed:
        answer = _about_memory(asked, wanted, place, memory_id, answer)
    return _told(asked, answer, access.decide(who, wanted, place), wanted, place)


def _principal(call: Call, key_id: str) -> Principal:
    call.engine.registry.refresh()
    credential = call.engine.registry.credential(key_id)
    if credential is None:
        raise CredentialNotFoundError
    return access.principal_of(credential)


def _about_memory(call: Call, action: Action, place: str | None, memory_id: object, answer: Answer) -> Answer:
    raw_id = check_id(memory_id)
    entry = None if place is None else call.engine.registry.get(place)
    row = None if entry is None else call.engine.live_row(entry, raw_id)
    if entry is None or row is None:
        raise MemoryNotFoundError
    facts, _ = known_facts(call, entry, row)
    found = decide(call, action, entry.name, facts)
    if found.decision.allowed and action in _NEEDS_SIGHT and not sees(call, entry, facts):
        reason = f"{answer.decision.reason}; {OUT_OF_SIGHT}"
        return Answer(replace(found.decision, allowed=False, reason=reason))
    return found


def _told(call: Call, answer: Answer, first: Decision, action: Action, place: str | None) -> Explanation:
    who = call.principal
    by_scope = access.decide(replace(who, grants=(NamespacePattern("*"),)), action, place)
    scope = f"scope {who.scope.value}" if by_scope.allowed else by_scope.reason
    layers = [ExplainedLayer("key scope", by_scope.allowed, scope)]
    grant = first.reason if by_scope.allowed else "not asked: the scope denies"
    layers.append(ExplainedLayer("namespace grant", first.allowed, grant))
    in_force = call.engine.policies.current()
    if not first.allowed:
        layers.append(ExplainedLayer("attribute policy", False, "not asked: another layer denies"))
    elif in_force is None:
        layers.append(ExplainedLayer("attribute policy", True, NOT_IN_USE))
    else:
        reason = answer.decision.reason.removeprefix(f"{first.reason}; ")
        layers.append(ExplainedLayer("attribute policy", answer.decision.allowed, reason))
    allowed, reach = answer.decision.allowed, answer.reach
    return Explanation(
        allowed=allowed,
        layers=tuple(layers),
        policies=answer.decision.policies,
        policy_set="" if in_force is None else in_force.digest,
        supervising=answer.decision.supervising,
        rows=rows_sql(reach.seen) if allowed and reach.seen != ALL else "",
        opened=rows_sql(reach.opened) if allowed and reach.opened != ALL else "",
    )
