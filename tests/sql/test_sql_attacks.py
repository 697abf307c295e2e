# ruff: noqa: E501 - statements are read best as they are
"""No statement of the families gives a foreign row, a foreign name, or an error that tells."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sql.attacks import ATTACKS
from tests.sql.conftest import CANARY, FOREIGN, OpenRoom, drafts

from strongroom.engine.session import Session
from strongroom.errors import InternalError, SqlForbiddenError, SqlUndefinedError, StrongroomError

FAMILIES = sorted(ATTACKS)


def shown(caller: Session, statement: str) -> str:
    """Everything that comes back: rows and columns, or the error with its hint."""
    try:
        result = caller.sql(statement)
    except InternalError:
        raise
    except StrongroomError as e:
        assert e.__cause__ is None
        return repr(sorted(e.as_dict().items()))
    return repr([c.name for c in result.columns]) + repr(list(result.rows()))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attack_shows_nothing_foreign(room: Any, caller: Session, family: str) -> None:
    token = room.engine.indexes.sql.front.names.token
    secret = room.engine.indexes._columnar._secret
    for statement in ATTACKS[family]:
        answer = shown(caller, statement)
        for word in (CANARY, FOREIGN, token, secret):
            assert word not in answer, statement
        assert caller.sql("SELECT count(*) FROM memories").fetch() == [(120,)], statement


@pytest.mark.parametrize(
    "family",
    ["system catalogues", "other schemas", "query and table functions", "replacement scans", "changes"],
)
def test_what_is_not_offered_is_refused(caller: Session, family: str) -> None:
    for statement in ATTACKS[family]:
        with pytest.raises(StrongroomError) as e:
            caller.sql(statement)
        assert e.value.code.startswith("sql_"), statement


def test_a_change_is_refused_as_read_only_and_the_hint_names_the_operation(caller: Session) -> None:
    with pytest.raises(SqlForbiddenError) as e:
        caller.sql("DELETE FROM memories")
    assert e.value.sqlstate == "25006" and "delete" in str(e.value.hint)


def test_an_unknown_table_and_a_foreign_one_give_the_same_words(caller: Session) -> None:
    def words(name: str) -> tuple[str, str | None, str]:
        with pytest.raises(SqlUndefinedError) as e:
            caller.sql(f"SELECT * FROM {name}")
        return e.value.message.replace(name, "NAME"), e.value.hint, e.value.sqlstate

    assert words("n3.mem") == words("n9.mem") == words("duckdb_tables") == words("no_such_thing")


def test_answers_do_not_change_when_foreign_rows_do(open_room: OpenRoom) -> None:
    room = open_room()
    room.store_many(drafts(40))
    room.flush()
    _, key = room.keys_create("reader", "read-only", ["company_a/*"])
    caller = room.engine.authenticate(key)
    questions = (
        "SELECT count(*), max(importance) FROM memories", "SELECT content, keyword_rank(content, 'billing') FROM memories ORDER BY memory_id",
        "SELECT content, hybrid_rank(content, 'billing') FROM memories ORDER BY memory_id", "SELECT * FROM namespaces ORDER BY ALL",
        "EXPLAIN SELECT * FROM memories", "SELECT * FROM embedding_queue", "SELECT content FROM memories ORDER BY semantic_rank(content, 'rome') DESC LIMIT 5",
        "SELECT count(*) FROM audit WHERE action <> 'sql' AND namespaces <> []",
    )  # fmt: skip
    before = [list(caller.sql(q).rows()) for q in questions]
    room.store_many({"content": f"{CANARY} billing rome {i}", "namespace": FOREIGN} for i in range(200))
    room.flush()
    assert [list(caller.sql(q).rows()) for q in questions] == before


def test_a_statement_dies_with_the_grant(room: Any) -> None:
    info, key = room.keys_create("short", "read-only", ["company_a/*"])
    caller = room.engine.authenticate(key)
    assert caller.sql("SELECT count(*) FROM memories").fetch() == [(120,)]
    room.keys_revoke(info.key_id)
    with pytest.raises(StrongroomError) as e:
        caller.sql("SELECT count(*) FROM memories")
    assert e.value.code == "unauthenticated"
    with pytest.raises(StrongroomError):
        caller.sql_describe("SELECT content FROM memories")


def test_two_callers_with_one_statement_see_their_own(room: Any, caller: Session) -> None:
    _, key = room.keys_create("other", "read-only", [FOREIGN])
    other = room.engine.authenticate(key)
    statement = "SELECT count(*), min(namespace) FROM memories"
    for _ in range(3):
        assert caller.sql(statement).fetch() == [(120, "company_a/sales")]
        assert other.sql(statement).fetch() == [(31, FOREIGN)]


def test_namespaces_that_are_named_must_be_granted(caller: Session) -> None:
    assert caller.sql("SELECT count(*) FROM memories", namespaces=["company_a/sales"]).fetch() == [(60,)]
    for name in (FOREIGN, "company_b/none"):
        with pytest.raises(StrongroomError) as e:
            caller.sql("SELECT 1", namespaces=[name])
        assert e.value.code == "access_denied"


def test_the_audit_log_holds_a_digest_and_no_word_of_the_statement(room: Any, caller: Session) -> None:
    caller.sql("SELECT 'password-of-the-user' AS x FROM memories LIMIT 3")
    entry = room.audit(limit=1)[0]
    assert entry.action == "sql" and entry.count == 3 and entry.reason.startswith("statement ")
    assert "password" not in repr(entry)
    mine = list(caller.sql("SELECT DISTINCT principal FROM audit").rows())
    assert mine == [(entry.principal,)]
    assert room.sql("SELECT count(DISTINCT principal) FROM audit").fetch()[0][0] >= 2


# -- each layer alone -----------------------------------------------------------------------------------
def test_the_second_look_stops_a_statement_that_the_walk_let_through(
    room: Any, caller: Session, monkeypatch: Any
) -> None:
    from strongroom.recall.sql import walk

    monkeypatch.setattr(walk.Walk, "_base_table", lambda self, node, scope: [])
    with pytest.raises(InternalError):
        caller.sql("SELECT * FROM duckdb_tables")


def test_the_engines_plan_stops_a_statement_that_both_looks_let_through(
    room: Any, caller: Session, monkeypatch: Any
) -> None:
    from strongroom.recall.sql import plan, walk

    index = room.engine.indexes.ready(room.engine.registry.get(FOREIGN))
    schema, table = index.table.qualified.split(".")[1:]
    monkeypatch.setattr(walk.Walk, "_base_table", lambda self, node, scope: [])
    monkeypatch.setattr(plan, "_is_meant", lambda *a: True)
    with pytest.raises(InternalError, match="not the caller's"):
        caller.sql(f"SELECT * FROM {schema}.{table}")
    with pytest.raises(InternalError, match="would have read"):
        caller.sql("SELECT * FROM duckdb_tables")


def test_a_name_that_cannot_be_guessed_stops_a_statement_that_every_look_let_through(
    room: Any, caller: Session, monkeypatch: Any
) -> None:
    from strongroom.recall.sql import binding, plan, walk

    monkeypatch.setattr(walk.Walk, "_base_table", lambda self, node, scope: [])
    monkeypatch.setattr(plan, "_is_meant", lambda *a: True)
    monkeypatch.setattr(binding, "check_scans", lambda *a: None)
    for number in range(1, 6):
        with pytest.raises(SqlUndefinedError):
            caller.sql(f"SELECT * FROM n{number}.mem")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT json_transform('[]', $1)",
        "SELECT from_json_strict('[]', array_to_string(list_transform(range(10000), x -> '['), ''))",
        "SELECT json_transform('[]', '" + "[" * 201 + "]" * 201 + "')",
        "SELECT from_json('[]', content) FROM memories",
        "SELECT json_contains(content::JSON, '1') FROM memories",
        "SELECT json_pretty(content::JSON) FROM memories",
        "SELECT damerau_levenshtein(content, content) FROM memories",
        "SELECT levenshtein(content, content) FROM memories",
        "SELECT nfc_normalize(content) FROM memories",
    ],
    ids=lambda s: s[:32],
)
def test_what_no_clock_and_no_limit_could_stop_is_refused(caller: Session, statement: str) -> None:
    """Deep structures took the stack, and with it the process; the others time and memory without end."""
    with pytest.raises((SqlForbiddenError, SqlUndefinedError)):
        caller.sql(statement)
    assert len(list(caller.sql("SELECT from_json('[1]', '[\"INT\"]') AS x").rows())) == 1
