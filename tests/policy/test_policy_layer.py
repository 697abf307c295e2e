"""The attribute layer as a whole: in use or not, reloaded, versioned, cached, explained; supervisors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.policy.conftest import NOW_US, Stage, opened

import strongroom
from strongroom.engine import Session
from strongroom.errors import AccessDeniedError, MemoryNotFoundError, NamespaceNotFoundError, StrongroomError
from strongroom.model import PrincipalKind, RequestContext, Scope
from strongroom.policy import PolicyProblems, load

NS = "acme/support"
NOTES = """@id("notes") permit(principal, action, resource)
  when { resource is Memory && resource.kind == "note" };"""
ALL = '@id("all") permit(principal, action, resource);'


def test_without_a_directory_there_is_no_attribute_layer_and_decisions_say_so(tmp_path: Path) -> None:
    """Scopes and grants decide alone; explain and the audit log tell that no policy had a part."""
    with opened(tmp_path, policy_directory="") as stage:
        key, text = stage.room.keys_create("k", "read-write", ["acme/*"])
        s = stage.room.engine.authenticate(text)
        s.store("x", namespace=NS)
        told = stage.room.policy_explain(key.key_id, "search", namespace=NS)
        assert told.allowed and told.policy_set == "" and told.rows == ""
        assert [la.reason for la in told.layers][-1] == "attribute policies not in use"
        assert not any("policy_set" in dict(e.details) for e in stage.audit())


@pytest.mark.parametrize(
    "text",
    ["", "// nothing\n", "permit(", '@id("a") permit(principal, action == Action::"serch", resource);'],
    ids=["empty", "comment", "broken", "unknown action"],
)
def test_an_empty_or_broken_set_denies_everything_and_says_so(stage: Stage, text: str) -> None:
    """Every operation of every caller but the owner is denied, with the reason in the audit log."""
    memory = stage.room.store("x", namespace=NS)
    stage.policies(text)
    s = stage.caller(scope=Scope.ADMIN)
    for attempt in (
        lambda: s.search("x", namespaces=[NS]),
        lambda: s.get(memory.memory_id, namespace=NS),
        lambda: s.store("y", namespace=NS),
        lambda: s.sql("SELECT 1", namespaces=[NS]),
        lambda: s.stats([NS]),
        lambda: s.create_namespace("acme/new"),
        lambda: s.audit(),
        lambda: s.keys_create("k", "read-only", ["acme/*"]),
    ):
        with pytest.raises(AccessDeniedError):
            attempt()
    assert s.search("x", namespaces=["*"]) == [] and list(s.namespaces()) == []
    denied = [e for e in stage.audit() if e.principal == "k-test" and e.outcome == "denied"]
    assert len(denied) == 8 and all("denies everything" in e.reason for e in denied)
    (loaded,) = [e for e in stage.audit() if e.action == "policy_load"]
    assert loaded.outcome == "denied" and "denies everything" in loaded.reason


def test_a_directory_that_is_gone_denies(stage: Stage) -> None:
    """What cannot be read permits nothing."""
    stage.policies(ALL)
    s = stage.caller()
    s.store("x", namespace=NS)
    (stage.directory / "policies" / "a.cedar").unlink()
    (stage.directory / "policies").rmdir()
    stage.room.engine.policies._look_at = 0.0
    with pytest.raises(AccessDeniedError):
        s.search("x", namespaces=[NS])


def test_a_change_is_seen_without_a_restart_and_each_version_is_recorded(stage: Stage) -> None:
    """Within a second; the log has one entry a version, and operations name the version that decided."""
    stage.policies(ALL)
    s = stage.caller()
    s.store("x", namespace=NS)
    (stage.directory / "policies" / "b.cedar").write_text(
        '@id("lock") forbid(principal, action == Action::"store", resource);'
    )
    deadline = time.monotonic() + 20
    with pytest.raises(AccessDeniedError):
        while time.monotonic() < deadline:
            s.store("x", namespace=NS)
            time.sleep(0.05)
    loads = [e for e in stage.audit() if e.action == "policy_load"]
    assert [e.count for e in loads] == [1, 2] and all(e.principal == "system" for e in loads)
    versions = [dict(e.details)["policy_set"] for e in loads]
    last = [e for e in stage.audit() if e.principal == "k-test"][-1]
    assert len(set(versions)) == 2 and dict(last.details)["policy_set"] == versions[1]
    assert dict(last.details)["policies"] == "lock" and "'lock' forbids it" in last.reason


def test_the_directory_is_looked_at_once_a_second_at_most(stage: Stage) -> None:
    """A thousand decisions in a second ask the file system once."""
    stage.policies(ALL)
    s = stage.caller()
    s.store("x", namespace=NS)
    with (
        mock.patch("strongroom.engine._policies.stamp_of", wraps=lambda d: None) as looked,
        mock.patch(
            "strongroom.engine._policies.time.monotonic",
            return_value=stage.room.engine.policies._look_at - 0.5,
        ),
    ):
        for _ in range(20):
            s.search("x", namespaces=[NS], mode="keyword")
    assert looked.call_count == 0


def test_the_three_layers_must_all_agree(stage: Stage) -> None:
    """Scope, grant and policy: each alone can deny, and explain names the one that does."""
    stage.policies(NOTES)
    room = stage.room
    ids: dict[str, str] = {}
    for name, scope, grant in (
        ("ok", "read-write", "acme/*"),
        ("ro", "read-only", "acme/*"),
        ("far", "read-write", "zeta/*"),
    ):
        ids[name] = room.keys_create(name, scope, [grant])[0].key_id
    told = {name: room.policy_explain(i, "store", namespace=NS) for name, i in ids.items()}
    assert told["ok"].allowed and "'note'" in told["ok"].rows and told["ok"].policies == ("notes",)
    assert [la.allowed for la in told["ro"].layers] == [False, False, False]
    assert [la.allowed for la in told["far"].layers] == [True, False, False]
    note, other = room.store("a", namespace=NS, kind="note"), room.store("b", namespace=NS)
    one = room.policy_explain(ids["ok"], "read", namespace=NS, memory_id=note.memory_id)
    two = room.policy_explain(ids["ok"], "read", namespace=NS, memory_id=other.memory_id)
    assert (one.allowed, one.policies) == (True, ("notes",))
    assert (two.allowed, two.layers[2].reason) == (False, "no policy permits it")
    s = stage.caller("acme/*")
    s.store("c", namespace=NS, kind="note")
    with pytest.raises(AccessDeniedError):
        s.store("c", namespace=NS)
    with pytest.raises(AccessDeniedError):
        s.policy_explain(ids["ok"], "read", namespace=NS)


def test_an_explanation_tells_policies_that_permit_from_those_that_forbid(stage: Stage) -> None:
    """Both have a part in which rows are seen; only one of them permits."""
    stage.policies(
        '@id("all") permit(principal, action, resource);'
        '@id("not drafts") forbid(principal, action, resource is Memory) when { resource.kind == "draft" };'
    )
    key_id = stage.room.keys_create("k", "read-write", ["acme/*"])[0].key_id
    told = stage.room.policy_explain(key_id, "search", namespace=NS)
    assert told.allowed and set(told.policies) == {"all", "not drafts"} and "'draft'" in told.rows
    reason = "permitted by policy 'all', but for rows that policy 'not drafts' forbids"
    assert told.layers[-1].reason == reason


def test_namespaces_without_a_permitted_row_are_out_of_reach(stage: Stage) -> None:
    """An exact name is refused the same whether it exists or not; a pattern passes it over."""
    stage.policies('@id("a") permit(principal, action, resource in Namespace::"acme");')
    for name in (NS, "globex/x"):
        stage.room.store("x", namespace=name)
    s = stage.caller("*")
    assert [m.namespace for m in s.list(namespaces=["*"]).memories] == [NS]
    assert [n.name for n in s.namespaces()] == [NS]
    seen = []
    for name in ("globex/x", "globex/never"):
        with pytest.raises(AccessDeniedError) as caught:
            s.search("x", namespaces=[name])
        seen.append(caught.value.as_dict())
    assert seen[0] == seen[1]
    with pytest.raises(NamespaceNotFoundError):
        s.search("x", namespaces=["acme/never"])


def test_circumstances_decide(stage: Stage) -> None:
    """The hour in the operator's zone, the address, the surface, the kind of principal and its labels."""
    stage.policies(
        """
        @id("by-day") permit(principal is Service, action, resource)
          when { context.hour >= 8 && context.hour < 20 };
        @id("from-inside") permit(principal is Person, action, resource)
          when { context has source && context.source.isInRange(ip("10.0.0.0/8")) };
        @id("labelled") permit(principal is Agent, action, resource)
          when { resource is Memory && principal.labels.contains(resource.sensitivity) };
        """
    )
    clock = [NOW_US]
    stage.room.engine._clock_us = lambda: clock[0]
    stage.room.store("x", namespace=NS)

    def may(s: Session) -> bool:
        try:
            return bool(s.search("x", namespaces=[NS], mode="keyword"))
        except AccessDeniedError:
            return False

    service = stage.caller(kind=PrincipalKind.SERVICE)
    assert may(service)
    clock[0] += 8 * 3_600_000_000
    assert not may(service)
    person = {"kind": PrincipalKind.PERSON}
    assert may(stage.caller(context=RequestContext(source_address="10.9.8.7"), **person))
    assert may(stage.caller(context=RequestContext(source_address="::ffff:10.9.8.7"), **person))
    assert not may(stage.caller(context=RequestContext(source_address="192.0.2.1"), **person))
    assert not may(stage.caller(**person))
    assert may(stage.caller(labels=("internal",))) and not may(stage.caller(labels=("public",)))


def test_a_supervisor_reads_across_namespaces_and_changes_nothing(stage: Stage) -> None:
    """By a grant of its own form, whatever the scope; policies and the audit log see that it supervises."""
    stage.policies(
        """
        @id("own") permit(principal, action, resource) unless { context.supervising };
        @id("watch") permit(principal, action in Action::"reading", resource)
          when { context.supervising && resource.sensitivity != "restricted" };
        """
    )
    room = stage.room
    theirs = room.store("theirs", namespace="acme/other")
    room.store("private", namespace="acme/other", sensitivity="restricted")
    key, text = room.keys_create("watcher", "read-write", ["acme/mine", "supervise:acme/*"])
    assert [g.text for g in key.grants] == ["acme/mine", "supervise:acme/*"]
    s = room.engine.authenticate(text)
    s.store("mine", namespace="acme/mine")
    assert {m.content for m in s.list(namespaces=["acme/*"]).memories} == {"mine", "theirs"}
    assert s.stats(["acme/other"]).memories == 1
    for attempt in (
        lambda: s.store("x", namespace="acme/other"),
        lambda: s.update(theirs.memory_id, namespace="acme/other", kind="x"),
        lambda: s.delete(theirs.memory_id, namespace="acme/other"),
        lambda: s.search("x", namespaces=["globex/x"]),
    ):
        with pytest.raises(AccessDeniedError):
            attempt()
    told = room.policy_explain(key.key_id, "read", namespace="acme/other")
    assert told.supervising and "supervise:acme/*" in told.layers[1].reason
    (listed,) = [e for e in stage.audit() if e.principal == key.key_id and e.action == "list"]
    assert dict(listed.details)["supervising"] == "yes"


def test_policies_that_permit_everything_do_not_let_a_supervisor_write(stage: Stage) -> None:
    """The grant itself is for reading: no policy makes more of it."""
    stage.policies('@id("all") permit(principal, action, resource);')
    theirs = stage.room.store("theirs", namespace="acme/other")
    s = stage.room.engine.authenticate(stage.room.keys_create("w", "read-write", ["supervise:acme/*"])[1])
    assert s.get(theirs.memory_id, namespace="acme/other").content == "theirs"
    for attempt in (
        lambda: s.store("x", namespace="acme/other"),
        lambda: s.update(theirs.memory_id, namespace="acme/other", kind="x"),
        lambda: s.delete(theirs.memory_id, namespace="acme/other"),
    ):
        with pytest.raises(AccessDeniedError):
            attempt()


def test_policies_reach_keys_namespaces_and_the_log(stage: Stage) -> None:
    """administer is asked for each grant of a key, and of the whole store for the audit log."""
    stage.policies(
        '@id("acme") permit(principal, action == Action::"administer", resource in Namespace::"acme");'
    )
    s = stage.caller("*", scope=Scope.ADMIN)
    s.create_namespace("acme/a")
    made, _ = s.keys_create("k", "read-only", ["acme/a", "supervise:acme/*"])
    hidden, _ = stage.room.keys_create("other", "read-only", ["globex/x"])
    assert [k.key_id for k in s.keys_list()] == [made.key_id]
    for attempt in (
        lambda: s.create_namespace("globex/a"),
        lambda: s.keys_create("k", "read-only", ["acme/a", "globex/x"]),
        lambda: s.keys_create("k", "read-only", ["*"]),
        lambda: s.audit(),
        lambda: s.check(),
    ):
        with pytest.raises(AccessDeniedError):
            attempt()
    with pytest.raises(StrongroomError):
        s.keys_revoke(hidden.key_id)


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("resource.importance + 1 > 500", "+"),
        ("resource.kind == resource.sensitivity", "=="),
        ("resource.importance < resource.age_days", "<"),
        ('resource.tags == ["a"]', "=="),
        ('(if resource.kind == "a" then 1 else 2) == 1', "=="),
        ('decimal("1.0").lessThan(decimal("2.0"))', "lessThan"),
    ],
)
def test_a_condition_that_has_no_filter_is_refused_when_it_is_loaded(condition: str, word: str) -> None:
    """Never approximated: the message names the policy and the form."""
    text = f'@id("p") permit(principal, action == Action::"read", resource) when {{ {condition} }};'
    with pytest.raises(PolicyProblems) as caught:
        load({"f.cedar": text.encode()})
    assert all(p.policy == "p" for p in caught.value.problems)
    assert any(word in p.message for p in caught.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        "permit(principal, action, resource);",
        '@id("a") permit(principal, action, resource); @id("a") forbid(principal, action, resource);',
        '@id("a") permit(principal == ?principal, action, resource);',
        '@id("a") permit(principal, action == Action::"read", resource) when { resource.subject == "x" };',
        '@id("a") permit(principal is Robot, action, resource);',
        b"\xff",
    ],
    ids=["no id", "twice", "template", "unguarded", "unknown type", "no text"],
)
def test_sets_that_are_refused(text: str | bytes) -> None:
    """Each defect alone makes the set unusable."""
    with pytest.raises(PolicyProblems):
        load({"f.cedar": text if isinstance(text, bytes) else text.encode()})


def test_a_decision_is_worked_out_once(stage: Stage) -> None:
    """Equal questions are answered from the cache; what the policies do not ask about makes no difference."""
    stage.policies(
        '@id("a") permit(principal, action, resource) when { resource is Memory && resource.kind == "note" };'
    )
    s = stage.caller()
    s.store("x", namespace=NS, kind="note")
    policies = stage.room.engine.policies.current()
    assert policies is not None and policies.policies is not None
    with (
        mock.patch.object(type(policies.policies), "_decide", side_effect=AssertionError),
        mock.patch.object(type(policies.policies), "_work_out", side_effect=AssertionError),
    ):
        s.store("y", namespace=NS, kind="note", sensitivity="public", tags=["z"])
    assert s.list(namespaces=[NS]).memories


def test_rows_stored_later_are_filtered_too(stage: Stage) -> None:
    """What was found out about the rows before is kept; new ones and changed ones are looked at."""
    stage.policies(
        '@id("a") permit(principal, action, resource) when { resource is Memory && resource.kind == "note" };'
    )
    s = stage.caller()
    made: list[Any] = []
    for n in range(40):
        made.append(stage.room.store(f"word {n}", namespace=NS, kind="note" if n % 2 else "other"))
        want = {m.memory_id for m in made if m.kind == "note"}
        assert {h.memory.memory_id for h in s.search("word", namespaces=[NS], k=100, mode="keyword")} == want
    stage.room.update(made[1].memory_id, namespace=NS, kind="other")
    stage.room.update(made[2].memory_id, namespace=NS, kind="note")
    found = {h.memory.memory_id for h in s.search("word", namespaces=[NS], k=100, mode="keyword")}
    assert made[1].memory_id not in found and made[2].memory_id in found
    with pytest.raises(MemoryNotFoundError):
        s.get(made[1].memory_id, namespace=NS)
    assert strongroom.__version__
