# ruff: noqa: E501 - statements are read best as they are
"""Functions of meaning against brute force over the model's own vectors."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from tests.sql.conftest import OpenRoom, drafts
from tests.support.word_model import WordModel

from strongroom.engine.session import Session
from strongroom.errors import EmbeddingUnavailableError, SqlError, SqlForbiddenError, SqlSyntaxError

TEXTS = ("billing refund", "train to rome", "pasta", "outage of a server at night")


class Oracle:
    """Every memory of the caller with its cosine, without an index."""

    def __init__(self, caller: Session) -> None:
        self.model = WordModel()
        self.rows = list(caller.sql("SELECT memory_id, content, importance, kind, agent_id FROM memories"))

    def cosine(self, content: str, text: str) -> float:
        return float(np.dot(self.model.vector(content), self.model.vector(text)))


@pytest.fixture
def oracle(caller: Session) -> Oracle:
    return Oracle(caller)


@pytest.mark.parametrize("text", TEXTS)
def test_semantic_rank_is_the_cosine_of_every_memory(caller: Session, oracle: Oracle, text: str) -> None:
    found = dict(caller.sql("SELECT memory_id, semantic_rank(content, ?) FROM memories", [text]).rows())
    assert len(found) == 120
    for memory_id, content, *_ in oracle.rows:
        assert found[memory_id] == pytest.approx(oracle.cosine(content, text), abs=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_k_with_any_filter_are_those_of_brute_force(
    caller: Session, oracle: Oracle, seed: int
) -> None:
    random = Random(seed)
    text, k, least = random.choice(TEXTS), random.randrange(1, 12), random.random() * 0.8
    offset = random.choice([0, 0, 3])
    kept = [r for r in oracle.rows if r[2] > least and r[3] != "fact"]
    wanted = sorted((oracle.cosine(r[1], text) for r in kept), reverse=True)[offset : offset + k]
    statement = (
        "SELECT content, semantic_rank(content, $1) AS score FROM memories AS m"
        " WHERE m.importance > $2 AND kind <> 'fact' ORDER BY score DESC LIMIT $3 OFFSET $4"
    )
    result = caller.sql(statement, [text, least, k, offset])
    assert result.plan == ("index" if len(kept) >= k + offset else "exact")
    assert [score for _, score in result.rows()] == pytest.approx(wanted, abs=1e-3)


def test_every_place_of_an_expression_takes_a_function_of_meaning(caller: Session, oracle: Oracle) -> None:
    billing = {r[0]: oracle.cosine(r[1], "billing") for r in oracle.rows}
    rome = {r[0]: oracle.cosine(r[1], "rome") for r in oracle.rows}
    near = {i for i, c in billing.items() if c >= 0.3}

    def one(statement: str, *parameters: object) -> Any:
        return caller.sql(statement, parameters).fetch()[0][0]

    assert one("SELECT count(*) FROM memories WHERE semantic_match(content, 'billing', 0.3)") == len(near)
    assert one("SELECT max(semantic_rank(content, 'rome')) FROM memories") == pytest.approx(
        max(rome.values()), abs=1e-3
    )
    assert one(
        "SELECT count(*) FILTER (WHERE semantic_match(content, ?, ?)) FROM memories", "billing", 0.3
    ) == len(near)
    both = sum(1 for i in near if rome[i] > billing[i])
    assert one("SELECT count(*) FROM memories WHERE semantic_rank(content, 'rome') > semantic_rank(content, 'billing')"
               " AND semantic_match(content, 'billing', 0.3)") == both  # fmt: skip
    pairs = sum(1 for i in near for r in oracle.rows if rome[r[0]] >= 0.3)
    assert one("SELECT count(*) FROM memories a JOIN memories b ON semantic_match(a.content, 'billing', 0.3)"
               " AND semantic_match(b.content, 'rome', 0.3)") == pairs  # fmt: skip
    assert one("SELECT count(*) FROM (SELECT agent_id, avg(semantic_rank(content, 'rome')) FROM memories GROUP BY 1"
               " HAVING avg(semantic_rank(content, 'rome')) > -2)") == 4  # fmt: skip
    assert one("WITH c AS (SELECT content AS c, kind FROM memories WHERE kind <> 'x'), d AS (SELECT * FROM c)"
               " SELECT count(*) FROM d AS e WHERE semantic_match(e.c, 'billing', 0.3)") == len(near)  # fmt: skip
    assert one("SELECT count(*) FROM memories m WHERE EXISTS (SELECT 1 FROM range(1) WHERE semantic_match(m.content, 'billing', 0.3))"
               ) == len(near)  # fmt: skip
    assert (
        one("SELECT CASE WHEN semantic_match(content, 'billing', -1) THEN 'yes' END FROM memories LIMIT 1")
        == "yes"
    )
    assert one("SELECT count(*) FROM memories QUALIFY row_number() OVER (ORDER BY count(*)) = 1") == 120
    ranked = caller.sql(
        "SELECT memory_id FROM memories QUALIFY row_number() OVER (ORDER BY semantic_rank(content, 'rome') DESC) <= 3"
    )
    assert {r[0] for r in ranked.rows()} == set(sorted(rome, key=lambda i: -rome[i])[:3])


def test_a_hidden_column_never_shows(caller: Session) -> None:
    plain = [c.name for c in caller.sql("SELECT * FROM memories").columns]
    for statement in (
        "SELECT * FROM memories WHERE semantic_match(content, 'rome', 0.1)",
        "SELECT m.* FROM memories m ORDER BY semantic_rank(m.content, 'rome') DESC LIMIT 3",
        "WITH c AS (SELECT * FROM memories) SELECT * FROM c WHERE semantic_match(content, 'rome', 0.1)",
        "SELECT a.* FROM memories a SEMI JOIN memories b ON semantic_match(b.content, 'rome', 0.1)",
    ):
        assert [c.name for c in caller.sql(statement).columns] == plain
    assert [c.name for c in caller.sql("SELECT semantic_rank(content, 'rome'), max(keyword_rank(content, 'x')) OVER () FROM memories").columns] == [
        "semantic_rank", "max",
    ]  # fmt: skip


def test_a_memory_without_an_embedding_gives_null(open_room: OpenRoom) -> None:
    model = WordModel()
    room = open_room(provider=model)
    room.store_many(drafts(10))
    room.flush()
    model.down = True
    room.store("never embedded, about rome", namespace="company_a/support")
    model.texts.clear()
    model.down = False
    statement = (
        "SELECT count(*), count(semantic_rank(content, 'rome')), count(semantic_match(content, 'rome')),"
        " count(*) FILTER (WHERE NOT has_embedding AND semantic_match(content, 'rome') IS NULL) FROM memories"
    )
    count, ranked, matched, null = room.sql(statement).fetch()[0]
    assert count == 11 and ranked == matched and ranked + null == 11
    assert room.sql(
        "SELECT keyword_match(content, 'rome') FROM memories WHERE content LIKE 'never%'"
    ).fetch() == [(True,)]


def test_a_text_is_embedded_once_for_a_statement(open_room: OpenRoom) -> None:
    model = WordModel()
    room = open_room(provider=model)
    room.store_many(drafts(6))
    room.flush()
    model.texts.clear()
    room.sql("SELECT semantic_rank(content, 'rome'), semantic_match(content, 'rome', 0.1), semantic_rank(content, 'pasta')"
             " FROM memories WHERE semantic_match(content, 'rome')")  # fmt: skip
    assert sorted(model.texts) == ["pasta", "rome"]


def test_keyword_rank_is_the_score_of_search(caller: Session) -> None:
    for text in TEXTS[:3]:
        hits = caller.search(text, namespaces=["company_a/*"], k=5, mode="keyword")
        rows = caller.sql(
            "SELECT keyword_rank(content, ?) AS r FROM memories ORDER BY r DESC LIMIT 5", [text]
        )
        assert [r for (r,) in rows.rows()] == pytest.approx([h.score for h in hits], rel=1e-5)
        found = caller.sql(
            "SELECT count(*) FROM memories WHERE keyword_match(content, $1) <> (keyword_rank(content, $1) > 0)",
            [text],
        )
        assert found.fetch() == [(0,)]


def test_hybrid_rank_is_the_fusion_of_both_ranks_over_all_memories(caller: Session, oracle: Oracle) -> None:
    for text in TEXTS[:3]:
        rows = list(caller.sql("SELECT memory_id, content, created_at, keyword_rank(content, $1), semantic_rank(content, $1),"
                               " hybrid_rank(content, $1) FROM memories", [text]).rows())  # fmt: skip
        lanes = [[r for r in rows if r[3] > 0], [r for r in rows if r[4] is not None]]
        places = [
            {
                r[0]: n
                for n, r in enumerate(sorted(lane, key=lambda r: (-r[score], -r[2].timestamp())), start=1)
            }
            for lane, score in zip(lanes, (3, 4), strict=True)
        ]
        for memory_id, *_, hybrid in rows:
            parts = [
                w / (60 + p[memory_id]) for w, p in zip((0.6, 1.0), places, strict=True) if memory_id in p
            ]
            assert hybrid == pytest.approx(sum(parts), rel=1e-9)


def test_a_model_that_does_not_answer_is_an_error_of_its_own(open_room: OpenRoom) -> None:
    model = WordModel()
    room = open_room(provider=model)
    room.store_many(drafts(4))
    room.flush()
    model.down = True
    with pytest.raises(EmbeddingUnavailableError):
        room.sql("SELECT semantic_rank(content, 'rome') FROM memories")
    assert room.sql("SELECT count(*) FROM memories WHERE keyword_match(content, 'note')").fetch() == [(4,)]


@pytest.mark.parametrize(
    ("statement", "cls"),
    [
        ("SELECT semantic_rank(kind, 'x') FROM memories", SqlSyntaxError),
        ("SELECT semantic_rank(lower(content), 'x') FROM memories", SqlSyntaxError),
        ("SELECT semantic_rank('a', 'x')", SqlSyntaxError),
        ("SELECT semantic_rank(content, kind) FROM memories", SqlSyntaxError),
        ("SELECT semantic_rank(content, 'x') FROM (SELECT DISTINCT content FROM memories)", SqlSyntaxError),
        (
            "SELECT semantic_rank(content, 'x') FROM (SELECT content FROM memories UNION SELECT kind FROM memories)",
            SqlSyntaxError,
        ),
        (
            "SELECT semantic_rank(content, 'x') FROM (SELECT max(content) AS content FROM memories)",
            SqlSyntaxError,
        ),
        ("SELECT semantic_rank(content, 'x') FROM (VALUES ('a')) AS v(content)", SqlSyntaxError),
        ("SELECT semantic_rank(content) FROM memories", SqlError),
        ("SELECT semantic_match(content, 'x', 0.1, 3) FROM memories", SqlError),
        (
            "SELECT count(DISTINCT semantic_rank(content, 'x') ORDER BY 1) OVER () FROM memories GROUP BY content",
            SqlError,
        ),
        ("SELECT m FROM memories m WHERE semantic_match(content, 'x')", SqlForbiddenError),
    ],
)
def test_an_argument_that_is_no_memorys_content_is_refused(
    caller: Session, statement: str, cls: type[Exception]
) -> None:
    with pytest.raises(cls):
        caller.sql(statement)


def test_explain_shows_whether_the_index_answers(caller: Session) -> None:
    def plan(statement: str) -> str:
        return caller.sql("EXPLAIN " + statement).fetch()[0][0]

    assert plan(
        "SELECT content FROM memories WHERE kind = 'fact' ORDER BY semantic_rank(content, 'x') DESC LIMIT 2"
    ).startswith("vector index")
    for exact in (
        "SELECT content FROM memories ORDER BY semantic_rank(content, 'x') LIMIT 2",
        "SELECT content FROM memories ORDER BY semantic_rank(content, 'x') DESC",
        "SELECT DISTINCT content FROM memories ORDER BY semantic_rank(content, 'x') DESC LIMIT 2",
        "SELECT count(*) FROM memories WHERE semantic_match(content, 'x')",
        "SELECT content FROM memories ORDER BY keyword_rank(content, 'x') DESC LIMIT 2",
    ):
        assert plan(exact).startswith("exact"), exact
