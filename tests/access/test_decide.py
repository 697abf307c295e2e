"""Scopes and grants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import access
from strongroom.errors import AccessDeniedError, InvalidInputError, InvalidNamespaceError
from strongroom.model import Action, NamespacePattern, Principal, Scope

NAMES = ["company_a", "company_a/support", "company_a/sales", "company_ab/x", "company_b/support"]
P = NamespacePattern.parse


def who(scope=Scope.READ_ONLY, *grants):
    return Principal(id="k", name="k", scope=scope, grants=tuple(P(g) for g in grants))


OWNER = Principal(id="owner", name="owner", scope=Scope.ADMIN, grants=(), is_owner=True)
READS = {
    Action.SEARCH,
    Action.READ,
    Action.LIST,
    Action.STATS,
    Action.REVEAL,
    Action.SQL,
    Action.EXPORT,
}
WRITES = {Action.STORE, Action.UPDATE, Action.DELETE}


@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        (Scope.READ_ONLY, READS),
        (Scope.READ_WRITE, READS | WRITES),
        (Scope.ADMIN, READS | WRITES | {Action.ADMINISTER, Action.ERASE}),
    ],
)
def test_the_scope_table_is_total(scope, actions):
    """Every action is decided for every scope, and only those of the table are allowed."""
    caller = who(scope, "*")
    assert {a for a in Action if access.decide(caller, a, "n").allowed} == actions


@pytest.mark.parametrize("action", list(Action))
def test_nothing_is_allowed_without_a_grant(action):
    for namespace in ("company_a", None, "*", ""):
        assert not access.decide(who(Scope.ADMIN), action, namespace).allowed


def test_a_subtree_grant_reaches_below_and_neither_beside_nor_the_root_itself():
    caller = who(Scope.READ_ONLY, "company_a/*")
    assert [n for n in NAMES if access.decide(caller, Action.READ, n).allowed] == NAMES[1:3]


def test_an_admin_is_bound_by_its_grants_and_the_whole_store_takes_the_star():
    caller = who(Scope.ADMIN, "company_a/*")
    assert access.decide(caller, Action.ADMINISTER, "company_a/new").allowed
    assert not access.decide(caller, Action.ADMINISTER, "company_b/new").allowed
    assert not access.decide(caller, Action.ADMINISTER, None).allowed
    assert access.decide(who(Scope.ADMIN, "*"), Action.ADMINISTER, None).allowed
    assert not access.decide(who(Scope.READ_WRITE, "*"), Action.ADMINISTER, None).allowed


def test_the_owner_may_do_everything():
    assert all(access.decide(OWNER, a, n).allowed for a in Action for n in ("x", None))
    assert access.visible(OWNER, Action.READ, NAMES) == NAMES


def test_every_decision_has_a_reason():
    for caller in (OWNER, who(), who(Scope.ADMIN, "*"), who(Scope.READ_ONLY, "company_a")):
        assert all(access.decide(caller, a, n).reason for a in Action for n in ("company_a", "z", None))


def test_require_gives_the_decision_or_a_denial_that_says_nothing():
    assert access.require(who(Scope.READ_ONLY, "a"), Action.READ, "a").allowed
    with pytest.raises(AccessDeniedError) as denial:
        access.require(who(Scope.READ_ONLY, "a"), Action.READ, "secret-name")
    assert "secret-name" not in str(denial.value.as_dict())


def test_an_exact_name_that_is_not_granted_is_denied_whether_it_exists_or_not():
    caller = who(Scope.READ_ONLY, "company_a/*")
    told = set()
    for name in ("company_b/support", "company_b/none"):
        with pytest.raises(AccessDeniedError) as denial:
            access.expand(["company_a/support", name], caller, Action.SEARCH, NAMES)
        told.add(str(denial.value.as_dict()))
    assert len(told) == 1


def test_a_wildcard_selects_only_what_is_granted():
    caller = who(Scope.READ_ONLY, "company_a/support", "company_b/*")
    assert access.expand(["*"], caller, Action.SEARCH, NAMES) == ["company_a/support", "company_b/support"]
    assert access.expand(["company_a/*"], caller, Action.SEARCH, NAMES) == ["company_a/support"]
    assert access.expand(["company_ab/*"], caller, Action.SEARCH, NAMES) == []


def test_an_exact_granted_name_is_kept_even_when_unknown_and_nothing_comes_twice():
    caller = who(Scope.READ_ONLY, "*")
    assert access.expand(["new", "company_b/*", "new", "*"], caller, Action.SEARCH, NAMES) == [
        "new", "company_b/support", *NAMES[:4],
    ]  # fmt: skip


def test_a_scope_that_lacks_the_action_denies_wildcards_too():
    with pytest.raises(AccessDeniedError):
        access.expand(["*"], who(Scope.READ_ONLY, "*"), Action.STORE, NAMES)
    assert access.visible(who(Scope.READ_ONLY, "*"), Action.STORE, NAMES) == []


@pytest.mark.parametrize("patterns", [[], "company_a", None, P("*")])
def test_no_namespaces_never_means_all_of_them(patterns):
    with pytest.raises(InvalidInputError):
        access.expand(patterns, OWNER, Action.SEARCH, NAMES)


@pytest.mark.parametrize("pattern", ["", "**", "company_a*", "*/support", "a//b", "../a", "a/*/b", 7, None])
def test_malformed_patterns_are_refused(pattern):
    with pytest.raises(InvalidNamespaceError):
        access.expand([pattern], OWNER, Action.SEARCH, NAMES)


segment = st.sampled_from(["a", "ab", "b"])
names = st.lists(segment, min_size=1, max_size=3).map("/".join)
patterns = st.one_of(st.just("*"), names, names.map(lambda n: n + "/*"))


@given(patterns, patterns, names)
def test_covers_agrees_with_matching(outer, inner, name):
    """Whatever a covered pattern selects, the covering one selects."""
    if access.covers(P(outer), P(inner)) and P(inner).matches(name):
        assert P(outer).matches(name)


@given(st.lists(patterns, min_size=1, max_size=3), st.lists(patterns, min_size=1, max_size=3), names)
def test_expand_never_leaves_the_grants(asked, grants, extra):
    caller = who(Scope.READ_ONLY, *dict.fromkeys(grants))
    try:
        chosen = access.expand(asked, caller, Action.SEARCH, [*NAMES, extra])
    except AccessDeniedError:
        return
    assert all(access.decide(caller, Action.SEARCH, n).allowed for n in chosen)


def test_a_namespaced_admin_makes_keys_only_within_its_own_grants():
    admin = who(Scope.ADMIN, "company_a/*")
    allowed = [["company_a/support"], ["company_a/*"], ["company_a/x/*", "company_a/y"]]
    refused = [["*"], ["company_a"], ["company_b/x"], ["company_a/x", "company_b/x"], ["company_ab/*"], []]
    for grants in allowed:
        assert access.decide_key_management(admin, [P(g) for g in grants], Scope.ADMIN).allowed
    for grants in refused:
        assert not access.decide_key_management(admin, [P(g) for g in grants], Scope.READ_ONLY).allowed


def test_an_admin_of_everything_manages_every_key():
    assert access.decide_key_management(who(Scope.ADMIN, "*"), [P("*"), P("x")], Scope.ADMIN).allowed
    assert access.decide_key_management(OWNER, [P("*")], Scope.ADMIN).allowed


@pytest.mark.parametrize("scope", [Scope.READ_ONLY, Scope.READ_WRITE])
def test_only_admins_manage_keys(scope):
    assert not access.decide_key_management(who(scope, "*"), [P("a")], Scope.READ_ONLY).allowed


@pytest.mark.parametrize("grants", [[], "company_a", None, ["a"] * 2, [f"n{i}" for i in range(65)], ["a*"]])
def test_empty_doubled_or_malformed_grants_are_refused(grants):
    with pytest.raises(InvalidInputError):
        access.check_grants(grants)


def test_grants_are_read():
    assert access.check_grants(["a/*", P("b")]) == (P("a/*"), P("b"))


@pytest.mark.parametrize("scope", list(Scope))
def test_a_grant_to_supervise_reads_and_does_nothing_else(scope):
    """Whatever the scope: reading there is allowed and says that it is supervising; nothing more is."""
    caller = who(scope, "company_a/own", "supervise:company_a/*")
    for action in Action:
        found = access.decide(caller, action, "company_a/other")
        assert (found.allowed, found.supervising) == (action in READS, action in READS)
        assert not access.decide(caller, action, "company_b/other").allowed
        assert not access.decide(caller, action, "company_a/own").supervising
    assert not access.decide(who(scope, "supervise:*"), Action.READ, None).allowed
    names = ["company_a/own", "company_a/x", "company_b"]
    assert access.visible(caller, Action.SEARCH, names) == names[:2]
    assert "company_a/x" not in access.visible(caller, Action.DELETE, names)


def test_supervising_is_granted_not_asked_for():
    """A query cannot ask as a supervisor, and a supervisor's grant covers no ordinary one."""
    caller = who(Scope.READ_ONLY, "supervise:*")
    with pytest.raises(InvalidNamespaceError):
        access.expand(["supervise:*"], caller, Action.READ, ["a"])
    for text in ("supervise:", "supervise:supervise:a", "supervise:a*", "supervise: a"):
        with pytest.raises(InvalidNamespaceError):
            NamespacePattern.parse(text)
    wide, narrow = NamespacePattern.parse("supervise:a/*"), NamespacePattern.parse("supervise:a/b")
    plain = NamespacePattern.parse("a/b")
    assert access.covers(wide, narrow)
    assert access.covers(NamespacePattern.parse("a/*"), narrow)
    assert not access.covers(wide, plain)
    assert not access.covers(narrow, wide)
    assert not wide.matches("a/b")
