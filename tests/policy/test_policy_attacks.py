"""A caller tries to learn of memories that the policies keep from it.

Twin stores: one holds memories of a label that the caller may not see, the other does not. Whatever the
caller does, both answer the same; so there is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.policy.conftest import Stage, opened

from strongroom.engine import Session
from strongroom.errors import StrongroomError

NS = "acme/support"
POLICIES = """
@id("see") permit(principal, action in Action::"reading", resource) when { resource.sensitivity != "hidden" };
@id("write") permit(principal, action in Action::"writing", resource)
  when { resource.sensitivity != "hidden" };
@id("reveal-anything-for-audit") permit(principal, action == Action::"reveal", resource)
  when { context has purpose && context.purpose == "audit" && resource.sensitivity != "hidden" };
"""
START = datetime(2026, 9, 1, tzinfo=UTC)
HIDDEN = [UUID(int=0x4000_8000_0000_0000_0900 + n) for n in range(4)]
SHOWN = [UUID(int=0x4000_8000_0000_0000_0100 + n) for n in range(6)]


def fill(stage: Stage, *, planted: bool) -> None:
    room = stage.room
    for n, memory_id in enumerate(SHOWN):
        room.store(
            f"{n} 12{n}",
            namespace=NS,
            memory_id=memory_id,
            created_at=START + timedelta(minutes=n),
            kind="fact",
            metadata={"n": n},
            tags=["shown"],
        )
    room.store("a zebra in plain sight", namespace=NS, memory_id=UUID(int=0x4000_8000_0000_0000_0200),
               created_at=START, kind="zoo")  # fmt: skip
    for n, memory_id in enumerate(HIDDEN if planted else ()):
        room.store(
            f"the zebra secret number {n}",
            namespace=NS,
            memory_id=memory_id,
            created_at=START + timedelta(seconds=30 * n),
            sensitivity="hidden",
            kind="plan",
            subject="ada",
            tags=["shown", "secret"],
            metadata={"n": n},
        )
    room.flush()
    room.engine.models.wait_idle(10.0)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Stage]]:
    with ExitStack() as stack:
        made = []
        for name in ("planted", "clean"):
            stage = stack.enter_context(opened(tmp_path_factory.mktemp(name)))
            stage.policies(POLICIES)
            fill(stage, planted=name == "planted")
            made.append(stage)
        yield made[0], made[1]


def plain(value: Any) -> Any:
    """Without what differs from run to run."""
    if isinstance(value, StrongroomError):
        return value.as_dict()
    if hasattr(value, "memory") and hasattr(value, "score"):
        return (plain(value.memory), value.score, value.similarity, value.keyword_score)
    if hasattr(value, "memory_id") and hasattr(value, "content"):
        return (value.memory_id, value.content, value.sensitivity, value.kind, value.tags, value.redacted)
    if hasattr(value, "memories") and hasattr(value, "next_cursor"):
        return ([plain(m) for m in value.memories], value.next_cursor)
    if hasattr(value, "created_at"):
        return repr(value).replace(repr(value.created_at), "")
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def outcome(session: Session, attack: Callable[[Session], Any]) -> Any:
    try:
        return plain(attack(session))
    except StrongroomError as e:
        return plain(e)


def pages(s: Session, **filters: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        page = s.list(namespaces=[NS], limit=1, cursor=cursor, **filters)
        found.append(plain(page))
        cursor = page.next_cursor
        if cursor is None:
            return found


def sql(statement: str, *parameters: Any) -> Callable[[Session], Any]:
    def run(s: Session) -> Any:
        answer = s.sql(statement, parameters)
        return [answer.plan, *answer.rows()]

    return run


WHERE = [
    "content LIKE '%secret%'",
    "sensitivity = 'hidden'",
    "sensitivity != 'internal'",
    "CAST(content AS INTEGER) > 0",  # fails on the first text that is no number
    "kind = 'plan' OR CAST(json_extract_string(metadata, '/n') AS INTEGER) > 3",
    "CASE WHEN kind = 'plan' THEN CAST('x' AS INTEGER) ELSE 1 END = 1",
    "CASE WHEN sensitivity = 'hidden' THEN CAST(content AS INTEGER) ELSE 1 END = 1",
    "NOT (sensitivity = 'internal')",
    "subject IS NOT NULL",
    "list_contains(tags, 'secret')",
]
STATEMENTS = [
    "SELECT count(*) FROM memories",
    "SELECT count(*), count(content), max(importance), min(created_at) FROM memories",
    "SELECT sensitivity, count(*) FROM memories GROUP BY 1 ORDER BY 1",
    "SELECT memory_id FROM memories ORDER BY created_at, memory_id LIMIT 3",
    "SELECT memory_id FROM memories ORDER BY created_at, memory_id LIMIT 3 OFFSET 4",
    "SELECT memory_id, row_number() OVER (ORDER BY created_at, memory_id) FROM memories ORDER BY 2",
    "SELECT count(*) FROM memories WHERE CAST(content AS INTEGER) > 0",
    "SELECT count(*) FROM memories WHERE CASE WHEN kind = 'plan' THEN CAST('x' AS INTEGER) END IS NULL",
    "SELECT CAST(content AS INTEGER) FROM memories WHERE kind = 'fact' AND sensitivity = 'internal' LIMIT 1",
    "SELECT 1 FROM memories WHERE sensitivity = 'hidden' AND CAST(content AS INTEGER) = 1",
    "SELECT count(*) FROM memories a JOIN memories b ON a.kind = b.kind",
    "SELECT count(*) FROM memories WHERE memory_id = '" + str(HIDDEN[0]) + "'",
    "SELECT * EXCLUDE (access_count, last_accessed_at, updated_at) FROM memories WHERE kind = 'plan'",
    "SELECT memory_id, keyword_rank(content, 'zebra') FROM memories ORDER BY 2 DESC, 1 LIMIT 20",
    "SELECT memory_id, semantic_rank(content, 'zebra secret') r FROM memories ORDER BY r DESC LIMIT 20",
    "SELECT memory_id, semantic_rank(content, 'zebra secret') r FROM memories ORDER BY r DESC LIMIT 2",
    "SELECT memory_id, hybrid_rank(content, 'zebra secret') r FROM memories ORDER BY r DESC, 1 LIMIT 20",
    "SELECT count(*) FROM memories WHERE semantic_match(content, 'zebra secret number')",
    "SELECT sum(keyword_rank(content, 'secret')) FROM memories",
    "SELECT name, memories, embedded, pending FROM namespaces",
    "SELECT count(*) FROM embedding_queue",
    "EXPLAIN SELECT * FROM memories WHERE sensitivity = 'hidden'",
    "WITH m AS (SELECT * FROM memories) SELECT count(*) FROM m WHERE tags IS NOT NULL",
    "SELECT unnest(tags) t, count(*) FROM memories GROUP BY 1 ORDER BY 1",
    "SELECT (SELECT count(*) FROM memories x WHERE x.created_at <= m.created_at) FROM memories m ORDER BY 1",
    "SELECT approx_count_distinct(memory_id) FROM memories",
    "SELECT count(*) FROM memories TABLESAMPLE 100 PERCENT",
]
ATTACKS: dict[str, Callable[[Session], Any]] = {
    **{
        f"search {mode}": lambda s, mode=mode: s.search("zebra secret", namespaces=[NS], k=20, mode=mode)
        for mode in ("hybrid", "semantic", "keyword")
    },
    **{
        f"search k={k}": lambda s, k=k: s.search("zebra", namespaces=["*"], k=k, mode="keyword")
        for k in (1, 2, 5)
    },
    "a word's weight": lambda s: s.search("zebra sight", namespaces=[NS], mode="keyword"),
    "threshold": lambda s: s.search("the zebra secret number 1", namespaces=[NS], min_similarity=0.3),
    "subject": lambda s: s.search("zebra", namespaces=[NS], subjects=["ada"]),
    "tags": lambda s: s.list(namespaces=[NS], tags_any=["secret"]),
    "metadata": lambda s: s.list(namespaces=[NS], metadata={"n": 2}),
    "kinds": lambda s: s.list(namespaces=[NS], kinds=["plan"]),
    "pages": pages,
    "pages of a tag": lambda s: pages(s, tags_all=["shown"]),
    "a time window": lambda s: s.list(namespaces=[NS], created_before=START + timedelta(minutes=1)),
    **{f"where {w}": lambda s, w=w: s.list(namespaces=[NS], where=w) for w in WHERE},
    **{f"search where {w}": lambda s, w=w: s.search("zebra", namespaces=[NS], where=w) for w in WHERE},
    **{f"sql {q}": sql(q) for q in STATEMENTS},
    "stats": lambda s: s.stats([NS]),
    "stats of all": lambda s: s.stats(),
    "namespaces": lambda s: [(n.name, n.memories, n.embedded, n.pending) for n in s.namespaces()],
    "queue": lambda s: s.queue([NS]),
    "requeue": lambda s: s.requeue(["*"]),
    "get": lambda s: s.get(HIDDEN[0], namespace=NS),
    "reveal": lambda s: s.reveal(HIDDEN[0], namespace=NS, purpose="audit"),
    "update": lambda s: s.update(HIDDEN[1], namespace=NS, sensitivity="internal"),
    "update of a version": lambda s: s.update(HIDDEN[1], namespace=NS, expected_version=7, kind="x"),
    "delete": lambda s: s.delete(HIDDEN[2], namespace=NS),
    "label it hidden": lambda s: s.update(SHOWN[5], namespace=NS, sensitivity="hidden"),
    "store it hidden": lambda s: s.store("mine", namespace=NS, sensitivity="hidden"),
    "store many, one hidden": lambda s: s.store_many(
        [{"content": "x", "namespace": NS, "sensitivity": t} for t in ("internal", "hidden")]
    ),
    "own audit": sql("SELECT action, outcome, reason, count FROM audit WHERE action != 'sql' ORDER BY at"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_can_be_learnt_of_memories_that_may_not_be_seen(
    twins: tuple[Stage, Stage], attack: str
) -> None:
    """The answer is the same whether or not the store holds memories that the caller may not see."""
    seen = [outcome(stage.caller(), ATTACKS[attack]) for stage in twins]
    assert seen[0] == seen[1]
    assert "secret number" not in str(seen[0])
    assert not any(str(h) in str(seen[0]) for h in HIDDEN)


def test_what_was_attacked_is_still_there_and_the_log_tells_of_it(tmp_path: Path) -> None:
    """Denials that look like absence are denials in the audit log, with the policies' version."""
    with opened(tmp_path) as stage:
        stage.policies(POLICIES)
        fill(stage, planted=True)
        s = stage.caller()
        for name in ("get", "reveal", "update", "update of a version", "delete"):
            outcome(s, ATTACKS[name])
        assert stage.room.get(HIDDEN[2], namespace=NS).content == "the zebra secret number 2"
        assert stage.room.get(HIDDEN[1], namespace=NS).version == 1
        entries = [e for e in stage.audit() if e.principal == "k-test"]
        assert [(e.action, e.outcome) for e in entries] == [
            (action, "denied") for action in ("read", "reveal", "update", "update", "delete")
        ]
        assert all(dict(e.details)["policy_set"] for e in entries)
        assert [dict(e.details)["answered"] for e in entries] == [*["memory_not_found"] * 4, "ok"]
