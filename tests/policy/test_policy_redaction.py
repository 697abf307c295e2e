"""Memories that may be found and not opened: what is shown, what never is, and how they are revealed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from tests.policy.conftest import Stage
from tests.support.opened import rows_opened

from strongroom.errors import AccessDeniedError, InvalidInputError, MemoryNotFoundError
from strongroom.model import Field, RequestContext

NS = "acme/support"
POLICIES = """
@id("find") permit(principal, action in Action::"reading", resource);
@id("write") permit(principal, action in Action::"writing", resource);
@id("restricted-is-closed") forbid(principal, action == Action::"reveal", resource)
  when { resource.sensitivity == "restricted" }
  unless { context has purpose && context.purpose == "fraud-review" };
"""


@pytest.fixture
def filled(stage: Stage) -> Stage:
    stage.policies(POLICIES)
    stage.open_one = stage.room.store("the picnic is on sunday", namespace=NS, tags=["a"])  # type: ignore[attr-defined]
    stage.closed = stage.room.store(  # type: ignore[attr-defined]
        "the vault code is 4711", namespace=NS, sensitivity="restricted", tags=["b"], subject="ada",
        metadata={"x": 1}, kind="secret", source="mail", agent_id="bot", importance=0.9,
    )  # fmt: skip
    stage.room.flush()
    return stage


def assert_redacted(memory: Any, closed: Any) -> None:
    assert memory.redacted
    assert (memory.memory_id, memory.namespace) == (closed.memory_id, closed.namespace)
    assert (memory.sensitivity, memory.created_at) == ("restricted", closed.created_at)
    assert (memory.content, memory.kind, dict(memory.metadata), memory.tags) == ("", "", {}, ())
    assert (memory.subject, memory.agent_id, memory.source, memory.importance) == (None, None, None, 0.0)


def test_search_list_and_get_show_a_label_and_open_nothing(filled: Stage) -> None:
    """The row of a memory that may not be opened is not opened for any answer."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    s.list(namespaces=[NS])  # the index is loaded, which opens all
    with rows_opened(filled.room.engine.vault) as opened:
        for mode in ("hybrid", "semantic", "keyword"):
            hits = s.search("vault code", namespaces=[NS], mode=mode)
            found = next(h for h in hits if h.memory.memory_id == closed.memory_id)
            assert_redacted(found.memory, closed)
            assert found.similarity is None and found.keyword_score is None
            assert mode == "hybrid" or round(found.score, 1) == found.score
        assert_redacted(s.get(closed.memory_id, namespace=NS), closed)
        page = s.list(namespaces=[NS])
        assert [m.redacted for m in page.memories] == [True, False]
    ids = {row.memory_id for row in opened if row.field == Field.MEMORY}
    assert ids == {filled.open_one.memory_id.bytes}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "filters",
    [
        {"where": "content LIKE '%vault%'"},
        {"where": "kind = 'secret'"},
        {"where": "length(content) > 0"},
        {"where": "CAST(json_extract_string(metadata, '/x') AS INTEGER) = 1"},
        {"kinds": ["secret"]},
        {"tags_any": ["b"]},
        {"subjects": ["ada"]},
        {"agent_ids": ["bot"]},
        {"metadata": {"x": 1}},
        {"importance_min": 0.8},
    ],
    ids=str,
)
def test_a_filter_does_not_look_into_a_redacted_memory(filled: Stage, filters: dict[str, Any]) -> None:
    """A condition on anything but id, namespace, label and age does not find it; one on those does."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    for found in (
        [m.memory_id for m in s.list(namespaces=[NS], **filters).memories],
        [h.memory.memory_id for h in s.search("vault code", namespaces=[NS], **filters)],
    ):
        assert closed.memory_id not in found
    for label in ({"where": "sensitivity = 'restricted'"}, {"created_after": closed.created_at}):
        assert closed.memory_id in [m.memory_id for m in s.list(namespaces=[NS], **label).memories]


def test_exact_distances_to_a_redacted_memory_are_not_told(filled: Stage) -> None:
    """A vector of the caller's own, or a threshold, does not reach it: its vector could be worked out."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    vector = np.ones(64, dtype=np.float32)
    for question in ({"embedding": vector}, {"query": "vault code", "min_similarity": -1.0}):
        hits = s.search(namespaces=[NS], **question)
        assert hits and closed.memory_id not in [h.memory.memory_id for h in hits]


def test_sql_shows_null_and_scores_nothing(filled: Stage) -> None:
    """All columns but the four of a redacted memory are NULL, in every place of a statement."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    rows = s.sql("SELECT * FROM memories WHERE sensitivity = 'restricted'")
    columns = [c.name for c in rows.columns]
    (row,) = rows.rows()
    shown = {name for name, value in zip(columns, row, strict=True) if value is not None}
    assert shown == {"memory_id", "namespace", "sensitivity", "created_at"}

    def one(statement: str) -> Any:
        ((value,),) = s.sql(statement).rows()
        return value

    assert one("SELECT count(*) FROM memories") == 2
    assert one("SELECT count(content) FROM memories") == 1
    assert one("SELECT count(*) FROM memories WHERE content LIKE '%vault%'") == 0
    assert one("SELECT count(*) FROM memories WHERE keyword_rank(content, 'vault') > 0") == 0
    for score in ("keyword_rank", "semantic_rank", "hybrid_rank"):
        of = f"SELECT {score}(content, 'vault code') FROM memories WHERE memory_id = '{closed.memory_id}'"
        assert one(of) is None
    assert not any("4711" in str(r) for r in s.sql("SELECT string_agg(content, ' ') FROM memories").rows())


def test_reveal_takes_a_purpose_and_is_recorded(filled: Stage) -> None:
    """Opened for the purpose that the policies ask for, refused for another; each in the log, by policy."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    with pytest.raises(AccessDeniedError):
        s.reveal(closed.memory_id, namespace=NS, purpose="curiosity")
    memory = s.reveal(closed.memory_id, namespace=NS, purpose="fraud-review", reason="case 7")
    assert memory.content == "the vault code is 4711" and not memory.redacted
    entries = [e for e in filled.audit() if e.action == "reveal"]
    assert [e.outcome for e in entries] == ["denied", "ok"]
    refused, done = (dict(e.details) for e in entries)
    assert refused["purpose"] == "curiosity" and refused["policies"] == "restricted-is-closed"
    assert (done["purpose"], done["purpose_reason"], done["policies"]) == ("fraud-review", "case 7", "find")
    assert "restricted-is-closed" in entries[0].reason
    for purpose in ("", " ", "a\nb", "x" * 300, None):
        with pytest.raises(InvalidInputError):
            s.reveal(closed.memory_id, namespace=NS, purpose=purpose)  # type: ignore[arg-type]
    with pytest.raises(MemoryNotFoundError):
        s.reveal(
            filled.room.store("x", namespace="acme/other").memory_id, namespace=NS, purpose="fraud-review"
        )


def test_a_purpose_of_the_whole_request_opens_searches_too(filled: Stage) -> None:
    """A session whose context has the purpose sees what the policies permit for it, everywhere."""
    s = filled.caller(context=RequestContext(purpose="fraud-review"))
    assert not any(h.memory.redacted for h in s.search("vault code", namespaces=[NS]))
    found = s.sql("SELECT count(*) FROM memories WHERE content LIKE '%vault%'")
    assert list(found.rows()) == [(1,)]


def test_an_update_echoes_nothing_that_may_not_be_opened(filled: Stage) -> None:
    """Who may change a memory and not open it gets it redacted; taking the label away is still an update."""
    s, closed = filled.caller(), filled.closed  # type: ignore[attr-defined]
    echoed = s.update(closed.memory_id, namespace=NS, kind="other")
    assert_redacted(echoed, closed)
    assert filled.room.get(closed.memory_id, namespace=NS).kind == "other"


def test_labels_can_be_kept_from_being_taken_away(filled: Stage) -> None:
    """A forbid on update of restricted memories holds for the state before and the state after."""
    filled.policies(
        POLICIES
        + """@id("labels-stay") forbid(principal, action == Action::"update", resource)
             when { resource.sensitivity == "restricted" };"""
    )
    s, closed, other = filled.caller(), filled.closed, filled.open_one  # type: ignore[attr-defined]
    for memory_id, label in ((closed.memory_id, "internal"), (other.memory_id, "restricted")):
        with pytest.raises(AccessDeniedError):
            s.update(memory_id, namespace=NS, sensitivity=label)
    assert s.update(other.memory_id, namespace=NS, sensitivity="public").sensitivity == "public"


def test_a_redacted_memory_that_has_expired_is_not_shown(stage: Stage) -> None:
    """Expiry counts for redacted rows in search, list, get and SQL alike, although it is not shown."""
    clock = [1_790_000_000_000_000]
    stage.room.engine._clock_us = lambda: clock[0]
    stage.policies(POLICIES)
    soon = datetime.fromtimestamp(clock[0] / 1e6, UTC) + timedelta(hours=1)
    made = stage.room.store("the vault", namespace=NS, sensitivity="restricted", expires_at=soon)
    s = stage.caller()
    count = "SELECT count(*) FROM memories"
    assert list(s.sql(count).rows()) == [(1,)] and s.get(made.memory_id, namespace=NS).redacted
    clock[0] += 7_200_000_000
    assert list(s.sql(count).rows()) == [(0,)]
    assert not s.list(namespaces=[NS]).memories
    assert not s.search("vault", namespaces=[NS], mode="keyword")
    with pytest.raises(MemoryNotFoundError):
        s.get(made.memory_id, namespace=NS)


_OPEN = """
@id("find") permit(principal, action in Action::"reading", resource);
@id("write") permit(principal, action in Action::"writing", resource);
"""
_NARROW = (
    _OPEN
    + """
@id("not-restricted") forbid(principal, action == Action::"search", resource)
  when { resource.sensitivity == "restricted" };
"""
)


@pytest.mark.parametrize("closing", [POLICIES, _NARROW])
def test_short_statements_that_are_known_keep_to_policies_that_came_later(stage: Stage, closing: str) -> None:
    """Statements that were answered without the columnar engine show no closed row, content or count once
    the policies close it; and the same as to a caller who never asked before."""
    stage.policies(_OPEN)
    stage.room.store("the picnic is on sunday", namespace=NS, importance=0.9)
    closed = stage.room.store(
        "the vault code is 4711", namespace=NS, sensitivity="restricted", kind="secret", importance=0.9
    )
    stage.room.flush()
    statements: list[tuple[str, list[Any]]] = [
        ("SELECT content, kind FROM memories WHERE memory_id = $1", [closed.memory_id]),
        ("SELECT count(*) FROM memories WHERE kind = $1", ["secret"]),
        ("SELECT kind, count(*), avg(importance) FROM memories GROUP BY kind", []),
        ("SELECT content FROM memories WHERE importance >= 0.5 ORDER BY created_at DESC LIMIT 5", []),
        ("SELECT content, semantic_rank(content, 'vault code') AS score FROM memories"
         " WHERE importance >= 0.5 ORDER BY score DESC LIMIT 1", []),
    ]  # fmt: skip
    known, fresh = stage.caller(), stage.caller(id="k-fresh")
    for statement, parameters in statements * 3:
        rows = known.sql(statement, parameters).fetch()
        assert "vault" in repr(rows) or "secret" in repr(rows) or rows == [(1,)], statement
    stage.policies(closing)
    for statement, parameters in statements:
        shown = known.sql(statement, parameters).fetch()
        assert "vault" not in repr(shown) and "secret" not in repr(shown) and shown != [(1,)], statement
        assert shown == fresh.sql(statement, parameters).fetch(), statement
    stage.policies(_OPEN)
    for statement, parameters in statements:
        rows = known.sql(statement, parameters).fetch()
        assert "vault" in repr(rows) or "secret" in repr(rows) or rows == [(1,)], statement
