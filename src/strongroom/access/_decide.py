"""Scopes and namespace grants; both must agree, and nothing is allowed by default.

    scope        may
    read-only    search, read, list, stats, reveal, sql, export
    read-write   the same, and store, update, delete
    admin        the same, and administer, erase

A grant names a namespace, a subtree or all. It binds every scope, admin included: an admin key for
``company_a/*`` administers nothing else. What concerns the whole store (``namespace=None``: the
audit log, for example) takes the grant ``*``. API keys are managed by an admin; without the grant
``*`` only keys whose every grant lies within the admin's own.

A grant to supervise (``supervise:company_a/*``) lets its holder read there, whatever the scope, and do
nothing else there; the decision says that it was needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from strongroom.errors import AccessDeniedError, InvalidInputError, InvalidNamespaceError
from strongroom.model import Action, Decision, NamespacePattern, Principal, Scope

GRANTS_MAX = 64

_READS = frozenset(
    {Action.SEARCH, Action.READ, Action.LIST, Action.STATS, Action.REVEAL, Action.SQL, Action.EXPORT}
)
_WRITES = frozenset({Action.STORE, Action.UPDATE, Action.DELETE})
_ACTIONS_OF: dict[Scope, frozenset[Action]] = {
    Scope.READ_ONLY: _READS,
    Scope.READ_WRITE: _READS | _WRITES,
    Scope.ADMIN: _READS | _WRITES | {Action.ADMINISTER, Action.ERASE},
}
_ALL = "*"


def check_grants(patterns: object) -> tuple[NamespacePattern, ...]:
    """Read the grants of a new key: 1 to 64 namespace patterns, no two the same.

    Raises:
        InvalidInputError: there are none or too many. InvalidNamespaceError: one is no pattern.
    """
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InvalidInputError("grants are a list of namespace patterns")
    texts = [p.text if isinstance(p, NamespacePattern) else p for p in patterns]
    if not 1 <= len(texts) <= GRANTS_MAX:
        raise InvalidInputError(
            "a key needs at least one grant",
            hint=f"1 to {GRANTS_MAX} patterns, for example company_a/support, company_a/* or *",
        )
    parsed = tuple(NamespacePattern.parse(t) for t in texts)
    if len({p.text for p in parsed}) != len(parsed):
        raise InvalidInputError("a grant is given twice")
    return parsed


def decide(principal: Principal, action: Action, namespace: str | None) -> Decision:
    """May the caller do this there? ``namespace=None`` is the whole store.

    The reason is for the operator's log, never for the caller.
    """
    if principal.is_owner:
        return Decision(True, "owner of the store")
    if principal.elevations:
        return _decide_elevated(principal, action, namespace)
    if action not in _ACTIONS_OF[principal.scope]:
        return Decision(False, f"scope {principal.scope.value} does not include {action.value}")
    for grant in principal.grants:
        if grant.text == _ALL or (namespace is not None and grant.matches(namespace)):
            return Decision(True, f"scope {principal.scope.value}, grant {grant.text}")
    if namespace is None:
        return Decision(False, "the whole store takes the grant *")
    for grant in principal.grants:
        if action in _READS and grant.supervises(namespace):
            reason = f"scope {principal.scope.value}, grant {grant.text}"
            return Decision(True, reason, supervising=True)
    return Decision(False, "no grant covers the namespace")


def _faces(principal: Principal) -> list[Principal]:
    """The caller as it is by itself, and as each of its elevations makes it; they do not add up."""
    if not principal.elevations:
        return [principal]
    lent = [replace(principal, scope=e.scope, grants=e.grants, elevations=()) for e in principal.elevations]
    return [replace(principal, elevations=()), *lent]


def _decide_elevated(principal: Principal, action: Action, namespace: str | None) -> Decision:
    own, *lent = _faces(principal)
    first = decide(own, action, namespace)
    if first.allowed:
        return first
    for face, elevation in zip(lent, principal.elevations, strict=True):
        decision = decide(face, action, namespace)
        if decision.allowed:
            return replace(decision, reason=f"elevation {elevation.id}: {decision.reason}")
    return first


def require(principal: Principal, action: Action, namespace: str | None) -> Decision:
    """The decision when it allows.

    Raises:
        AccessDeniedError: it does not; nothing tells why, nor whether the namespace exists.
    """
    decision = decide(principal, action, namespace)
    if not decision.allowed:
        raise AccessDeniedError
    return decision


def visible(principal: Principal, action: Action, names: Iterable[str]) -> list[str]:
    """Those of ``names`` in which the caller may do this, in their order."""
    if principal.is_owner:
        return list(names)
    if principal.elevations:
        known = list(names)
        seen = {n for face in _faces(principal) for n in visible(face, action, known)}
        return [n for n in known if n in seen]
    if action not in _ACTIONS_OF[principal.scope]:
        return []
    if any(g.text == _ALL for g in principal.grants):
        return list(names)
    reads = action in _READS
    return [n for n in names if any(g.matches(n) or (reads and g.supervises(n)) for g in principal.grants)]


def expand(
    patterns: Sequence[str | NamespacePattern],
    principal: Principal,
    action: Action,
    known: Iterable[str],
) -> list[str]:
    """The namespaces that an operation over ``patterns`` touches, each once, in the order asked.

    An exact name must be granted; it is kept whether or not it is ``known``. A wildcard selects, of
    the known names, those that are granted; that may be none.

    Raises:
        AccessDeniedError: an exact name is not granted (the same whether it exists or not), or the
            scope does not include the action.
        InvalidInputError: no pattern is given. InvalidNamespaceError: one is malformed.
    """
    if isinstance(patterns, str | NamespacePattern) or not isinstance(patterns, Iterable):
        raise InvalidInputError("namespaces are a list of names or patterns")
    parsed = [NamespacePattern.parse(p.text if isinstance(p, NamespacePattern) else p) for p in patterns]
    if not parsed:
        raise InvalidInputError("no namespace is given", hint="name at least one; * means all granted")
    if any(p.is_supervising for p in parsed):
        raise InvalidNamespaceError("supervise: stands in grants", hint="name the namespaces themselves")
    if not principal.is_owner and not any(action in _ACTIONS_OF[f.scope] for f in _faces(principal)):
        raise AccessDeniedError
    chosen: dict[str, None] = {}
    granted: list[str] | None = None
    for pattern in parsed:
        if pattern.is_exact:
            require(principal, action, pattern.text)
            chosen[pattern.text] = None
        else:
            if granted is None:
                granted = visible(principal, action, known)
            chosen.update(dict.fromkeys(n for n in granted if pattern.matches(n)))
    return list(chosen)


def pattern_texts(patterns: Iterable[object]) -> list[str]:
    """The texts of those that are patterns, for the audit entry of a refusal; at most 64 of them."""
    texts = (p.text if isinstance(p, NamespacePattern) else p for p in islice(patterns, GRANTS_MAX))
    return [str.__str__(t) for t in texts if isinstance(t, str)]


def covers(outer: NamespacePattern, inner: NamespacePattern) -> bool:
    """Whether everything that ``inner`` selects, now or later, is selected by ``outer``."""
    if outer.is_supervising and not inner.is_supervising:
        return False
    outer, inner = outer.plain, inner.plain
    if outer.text in (_ALL, inner.text):
        return True
    return not outer.is_exact and inner.text != _ALL and inner.text.startswith(outer.text[:-1])


def decide_key_management(
    principal: Principal, grants: Sequence[NamespacePattern], scope: Scope | None = None
) -> Decision:
    """May the caller create, see or revoke a key with these grants (and this scope)?

    An admin with the grant ``*`` may manage every key. Any other admin manages only the keys whose
    every grant is covered by one of its own; a key with a wider grant is out of its sight. What an elevation
    lends does not count: nothing that outlives it is made with it.
    """
    if principal.is_owner:
        return Decision(True, "owner of the store")
    if Action.ADMINISTER not in _ACTIONS_OF[principal.scope]:
        return Decision(False, f"scope {principal.scope.value} does not include key management")
    if scope is not None and not _ACTIONS_OF[scope] <= _ACTIONS_OF[principal.scope]:
        return Decision(False, "the key would have a wider scope than its maker")
    if not grants:
        return Decision(False, "a key without grants")
    administered = [own for own in principal.grants if not own.is_supervising]
    if all(any(covers(own, asked) for own in administered) for asked in grants):
        return Decision(True, "within the grants of the admin")
    return Decision(False, "the key reaches further than the grants of the admin")
