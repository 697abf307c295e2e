"""Everything but SQL: where expressions, patterns, cursors, identifiers, keys. The twins answer alike."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from tests.isolation.corpus import filled
from tests.isolation.worlds import BEGIN, FOREIGN, NEIGHBOURS, SECRET, World

from strongroom.engine import Session
from strongroom.errors import StrongroomError

Twins = tuple[World, World]
NEW = UUID(int=(7 << 76) | (2 << 62) | 9999)

WHERE = (
    "namespace = '{{ns}}'", "namespace LIKE 'zz%' OR true", "true) OR (true", "1=1 --", "true; SELECT 1",
    "memory_id = '{{id}}'", "content LIKE '%CANARY%'", "content IN (SELECT content FROM {{foreign}})",
    "EXISTS (SELECT 1 FROM {{foreign}})", "(SELECT count(*) FROM memories) > 0", "(FROM {{foreign}})",
    "query('SELECT 1')", "read_text('{{file}}') IS NOT NULL", "getenv('HOME') = 'x'", "error(content)",
    "CAST(content AS INTEGER) > 0", "1 / (CASE WHEN namespace = '{{ns}}' THEN 0 ELSE 1 END) = 1",
    "{{foreign}}.content = 'x'", "mem.content = 'x'", "rid > 0", "seq > 0", "kind_key > 0", "agent_key = 1",
    "COLUMNS(*) IS NOT NULL", "*", "content ->> '$' = 'x'", "list_transform([1], lambda x: x) = [1]",
    "tags[1] = '{{ns}}'", "count(*) > 1", "row_number() OVER () = 1", "true UNION SELECT 1",
    "true ORDER BY content", "true LIMIT 1", "true GROUP BY content", "content = $1", "content = ?",
    "current_setting('threads') = 'x'", "pg_catalog.version() = 'x'", "duckdb_tables()", "true /* */ --",
    "regexp_matches(content, '(a+)+$')", "namespace COLLATE NOCASE = 'AA/MINE'", "namespace ^@ 'aa'",
    "metadata->>'CANARY' IS NOT NULL", "semantic_rank(content, 'CANARY') > 0", "{{score}}(1, 0, 0) > 0",
    "NOT namespace LIKE 'aa/%'", "derived_from <> []", "access_count > 0", "subject LIKE '%{{canary}}%'",
    "\u200btrue", "tru\u0435", "\uff54rue", "true\x00", "'" * 501, "(" * 300 + "true" + ")" * 300, "", " ",
)  # fmt: skip
PATTERNS = (
    ["*"], ["aa/*"], ["zz/*"], ["aab/*"], ["AA/*"], ["aa"], ["zz/vault-CANARY"], ["zz/none"], ["aa/none"],
    ["aa/mine", "zz/vault-CANARY"], ["aa/mine", "zz/*"], ["a*"], ["aa*"], ["/*"], ["**"], ["*/*"],
    [""], [" "],
    ["aa/../zz/vault-CANARY"], ["aa/./mine"], ["aa//mine"], ["aa/mine/"], ["AA/mine"], ["aa/mine\x00"],
    ["\u0430a/mine"], ["aa/%"], ["aa/_ine"], ["aa/mine' OR '1'='1"], [], ["*", "aab/next-CANARY"],
)  # fmt: skip


def told(work: Callable[[], Any]) -> str:
    """All that an operation tells its caller."""
    try:
        return repr(work())
    except StrongroomError as e:
        return repr((type(e).__name__, e.code, e.message, e.hint))


def alike(twins: Twins, work: Callable[[Session], Any], sessions: list[Session] | None = None) -> str:
    one, two = (
        told(lambda s=s: work(s))
        for s in sessions or [world.attacker for world in twins]  # type: ignore[misc]
    )
    assert SECRET not in one
    assert one == two
    return one


@pytest.mark.parametrize("where", WHERE)
def test_where_expressions_tell_nothing(where: str, twins: Twins) -> None:
    """Listing, searching by words and by meaning, with every attack in the condition."""
    condition = filled(where, twins[0].names)
    alike(twins, lambda s: s.list(namespaces=["*"], where=condition))
    for mode in ("hybrid", "semantic", "keyword"):
        alike(twins, lambda s, m=mode: s.search("CANARY merger", namespaces=["*"], where=condition, mode=m))  # type: ignore[misc]


@pytest.mark.parametrize("patterns", PATTERNS, ids=str)
def test_patterns_tell_nothing(patterns: list[str], twins: Twins) -> None:
    """Every operation that takes namespaces, with names and patterns of what is not granted."""
    for work in (
        lambda s: s.list(namespaces=patterns),
        lambda s: s.search("common", namespaces=patterns),
        lambda s: s.stats(patterns),
        lambda s: s.queue(patterns),
        lambda s: list(s.sql("SELECT count(*) FROM memories", namespaces=patterns).rows()),
    ):
        alike(twins, work)


def test_filters_and_cursors_tell_nothing(twins: Twins) -> None:
    """Structured filters with foreign values, and cursors that name a foreign memory."""
    foreign = UUID(twins[0].names["id"])
    moment = int(BEGIN.timestamp() * 1e6)
    raw = struct.pack(">Bq16s", 1, moment + 3600 * 10**6, foreign.bytes)
    forged = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    page = alike(twins, lambda s: s.list(namespaces=["*"], cursor=forged, limit=3))
    assert "ListPage" in page
    for name, value in (
        ("kinds", ["CANARY-observation"]), ("tags_any", ["tag0", "CANARY"]),
        ("subjects", ["user:CANARY"]),
        ("agent_ids", ["CANARY agent1"]), ("session_ids", ["s"]), ("metadata", {"plan": "CANARY"}),
        ("importance_min", 0.0),
    ):  # fmt: skip
        alike(twins, lambda s, n=name, v=value: s.list(namespaces=["*"], **{n: v}))  # type: ignore[misc]
        alike(twins, lambda s, n=name, v=value: s.search("common words", namespaces=["*"], **{n: v}))  # type: ignore[misc]


def test_foreign_identifiers_tell_nothing(twins: Twins) -> None:
    """A memory_id that exists elsewhere behaves like one that exists nowhere, for readers and writers."""
    foreign = twins[0].names["id"]
    sessions = [
        w.room.engine.authenticate(w.room.keys_create("writer", "read-write", ["aa/*"])[1]) for w in twins
    ]
    for work in (
        lambda s: s.get(foreign, namespace="aa/mine"),
        lambda s: s.get(foreign, namespace=FOREIGN),
        lambda s: s.update(foreign, namespace="aa/mine", content="x"),
        lambda s: s.update(foreign, namespace=FOREIGN, content="x"),
        lambda s: s.delete(foreign, namespace="aa/mine"),
        lambda s: s.delete(foreign, namespace=FOREIGN),
        lambda s: s.store("x", namespace=FOREIGN, memory_id=foreign),
        lambda s: s.store("x", namespace="aa/mine", memory_id=foreign),
        lambda s: s.store("y", namespace="aa/mine", memory_id=foreign),
        lambda s: s.update(foreign, namespace="aa/mine", tags=["z"]),
        lambda s: s.delete(foreign, namespace="aa/mine"),
        lambda s: s.store("x", namespace="aa/mine", memory_id=NEW, derived_from=[UUID(foreign)]),
        lambda s: s.flush(),
        lambda s: s.stats(),
        lambda s: s.namespaces(),
    ):
        alike(twins, work, sessions)


def test_an_admin_of_a_subtree_learns_nothing_of_the_rest(twins: Twins) -> None:
    """Keys, namespaces and the audit log, asked by an admin key that is granted ``aa/*`` only."""
    sessions = [w.room.engine.authenticate(w.room.keys_create("admin", "admin", ["aa/*"])[1]) for w in twins]
    others = [w.room.keys_create("foreign " + SECRET, "read-only", ["zz/*"])[0].key_id for w in twins[:1]]
    for work in (
        lambda s: s.create_namespace(FOREIGN),
        lambda s: s.create_namespace("zz/never"),
        lambda s: s.create_namespace(NEIGHBOURS[0]),
        lambda s: s.update_namespace(FOREIGN, language="german"),
        lambda s: s.update_namespace("zz/never", language="german"),
        lambda s: s.keys_create("x", "read-only", [FOREIGN])[0].scope,
        lambda s: s.keys_create("x", "read-only", ["*"])[0].scope,
        lambda s: s.keys_create("x", "read-only", ["aa*"])[0].scope,
        lambda s: s.keys_revoke(others[0]),
        lambda s: s.audit(),
        lambda s: s.check(),
        lambda s: s.repair(),
        lambda s: s.requeue(["zz/*"]),
        lambda s: [k.name for k in s.keys_list() if k.name != "admin"],
        lambda s: list(s.sql("SELECT DISTINCT principal = 'owner' FROM audit").rows()),
        lambda s: list(s.sql("SELECT DISTINCT seq FROM audit").rows()),
    ):
        alike(twins, work, sessions)


def test_the_number_of_an_audit_entry_is_for_administrators(twins: Twins) -> None:
    """Its number in the log counts what others do: shown to the owner, not to a key with grants."""
    statement = "SELECT seq FROM audit LIMIT 1"
    assert list(twins[0].attacker.sql(statement).rows()) == [(None,)]
    assert next(iter(twins[0].room.sql(statement).rows()))[0] >= 1
