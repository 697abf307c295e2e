"""Search over several indexes: modes, filters, thresholds, fusion, and what is refused."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.recall.lane_tools import NOW_US, START, blind, memory, memory_id, unit

import strongroom.recall
from strongroom.config import RecallConfig
from strongroom.errors import ConfigurationError, InvalidFilterError, InvalidInputError, InvalidVectorError
from strongroom.model import Filter
from strongroom.recall import (
    Change,
    ColumnarStore,
    NamespaceIndex,
    Recall,
    RecallQuery,
    RecallSettings,
    Upsert,
    VectorPut,
)

D = 8
BASE = RecallQuery(now_us=NOW_US)
NOW = START + timedelta(microseconds=NOW_US - int(START.timestamp()) * 1_000_000)


@pytest.fixture
def store() -> Iterator[ColumnarStore]:
    made = ColumnarStore()
    yield made
    made.close()


def fill(index: NamespaceIndex, numbers: Sequence[int], text: str, embed: bool = True, **more: Any) -> None:
    """Memories ``numbers`` with one text; the vector of number n is ``towards(n)``."""
    changes: list[Change] = []
    seq = index.watermark
    for n in numbers:
        changes.append(Upsert(memory(n, text, **more), seq := seq + 1, 1))
        if embed:
            changes.append(VectorPut(memory_id(n).bytes, 1, towards(n), seq := seq + 1))
    index.apply(changes, seq)


def towards(number: int) -> Any:
    """A vector whose cosine to ``EAST`` falls as ``number`` grows, in steps that 16 bits can tell apart."""
    out = np.zeros(D, dtype=np.float32)
    out[0] = max(-1.0, 1 - number / 201)
    out[1] = np.sqrt(1 - out[0] ** 2)
    return out


EAST = towards(0)


@pytest.fixture
def index(store: ColumnarStore) -> Iterator[NamespaceIndex]:
    """0-99 about refunds, 100-119 about phones, 120-129 about refunds but not embedded."""
    made = NamespaceIndex(store.table(1, "acme/notes"), blind, ns=1, dimensions=D)
    fill(made, range(100), "a refund was asked for")
    fill(made, range(100, 120), "the phone is broken", kind="issue")
    fill(made, range(120, 130), "refund by telephone", embed=False)
    yield made
    made.close()


def numbers(found: Any) -> list[int]:
    by_id = {memory_id(n).bytes: n for n in range(2_000)}
    return [by_id[c.memory_id] for c in found]


def test_semantic_reaches_every_embedded_memory(index: NamespaceIndex) -> None:
    """Best first, the score is the cosine, and a large k leaves none out."""
    found = Recall.search([index], replace(BASE, vector=EAST, mode="semantic", k=1000))
    assert numbers(found) == list(range(120))
    for n, c in enumerate(found):
        assert c.score == c.similarity == pytest.approx((1 - n / 201), abs=1e-3)
        assert (c.keyword_score, c.vector_rank, c.keyword_rank) == (None, n + 1, None)
        assert c.has_embedding


def test_keyword_knows_words_alone(index: NamespaceIndex) -> None:
    """BM25 orders; without a vector in the question no similarity is told."""
    found = Recall.search([index], replace(BASE, text="telephone refunds", mode="keyword", k=200))
    assert set(numbers(found)[:10]) == set(range(120, 130))
    assert len(found) == 110
    assert not found.degraded
    assert all(c.similarity is None and c.score == c.keyword_score for c in found)
    assert [c.has_embedding for c in found][:11] == [False] * 10 + [True]


def test_hybrid_fuses_and_tells_all_it_knows(index: NamespaceIndex) -> None:
    """Every hit has its exact cosine, also those of the keyword lane, and its BM25 score if it matched."""
    found = Recall.search([index], replace(BASE, text="broken phone", vector=EAST, k=60))
    assert not found.degraded
    assert len(found) == 60
    for n, c in zip(numbers(found), found, strict=True):
        assert c.similarity == pytest.approx((1 - n / 201), abs=1e-3)
        assert (c.keyword_score is not None) == (100 <= n < 120)
        in_lanes = [1.0 / (60 + c.vector_rank)] if c.vector_rank else []
        in_lanes += [0.6 / (60 + c.keyword_rank)] if c.keyword_rank else []
        assert c.score == pytest.approx(sum(in_lanes))
    assert {119, 118, 0, 1} <= set(numbers(found))
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


def test_hybrid_without_a_vector_says_so(index: NamespaceIndex) -> None:
    """The model is down: keywords answer, and the result is marked."""
    found = Recall.search([index], replace(BASE, text="phone", k=5))
    assert found.degraded
    assert numbers(found) == [119, 118, 117, 116, 115]
    assert not Recall.search([index], replace(BASE, text="phone", k=5, min_similarity=0.1)).candidates


def test_a_question_embedded_meanwhile_gets_the_same_answers(three: list[NamespaceIndex]) -> None:
    """A vector that comes during the search: every hit, score and rank as with it given before."""
    rng = np.random.default_rng(3)
    for text in ("refund", "the broken phone", "", "of the", "refund telephone asked"):
        vector = unit(rng.standard_normal((1, D)))[0]
        given = replace(BASE, text=text, vector=vector, k=20)
        calls: list[int] = []

        def embed(vector: Any = vector, calls: list[int] = calls) -> Any:
            calls.append(1)
            return vector

        later = replace(given, vector=None, embed=embed)
        a, b = Recall.search(three, given), Recall.search(three, later)
        assert [(c.index.ns, c.memory_id, c.score, c.similarity, c.keyword_score) for c in a] == [
            (c.index.ns, c.memory_id, c.score, c.similarity, c.keyword_score) for c in b
        ]
        assert [(c.vector_rank, c.keyword_rank) for c in a] == [(c.vector_rank, c.keyword_rank) for c in b]
        assert not a.degraded
        assert not b.degraded
        assert len(calls) == 1


def test_a_question_that_cannot_be_embedded_meanwhile_goes_by_keyword(index: NamespaceIndex) -> None:
    """None is a model that is down: marked as before. What embedding raises is raised; nothing stays held."""
    found = Recall.search([index], replace(BASE, text="phone", k=5, embed=lambda: None))
    assert found.degraded
    assert numbers(found) == [119, 118, 117, 116, 115]

    def fail() -> Any:
        raise KeyError("of the model")

    with pytest.raises(KeyError, match="of the model"):
        Recall.search([index], replace(BASE, text="phone", embed=fail))
    with pytest.raises(InvalidVectorError):
        Recall.search([index], replace(BASE, text="phone", embed=lambda: np.ones(D + 1, np.float32)))
    fill(index, [300], "a phone that rings")  # would wait for ever for a reader that never left
    assert 300 in numbers(Recall.search([index], replace(BASE, text="phone", k=50)))


def test_hybrid_without_words_goes_by_meaning(index: NamespaceIndex) -> None:
    """A vector alone, or a text of stop words, leaves the order to the vector lane."""
    for text in (None, "of the", ""):
        found = Recall.search([index], replace(BASE, text=text, vector=EAST, k=3))
        assert numbers(found) == [0, 1, 2]
        assert not found.degraded


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_min_similarity_holds_for_every_hit(index: NamespaceIndex, mode: Any) -> None:
    """All hits reach the threshold, none that does is missed, and unembedded memories cannot."""
    query = replace(BASE, text="refund phone", vector=EAST, mode=mode, k=1000, min_similarity=0.9)
    wanted = {n for n in range(120) if (1 - n / 201) >= 0.9}
    found = Recall.search([index], query)
    assert set(numbers(found)) == wanted
    assert all(c.similarity is not None and c.similarity >= 0.9 for c in found)
    first = Recall.search([index], replace(query, k=7, text="broken phone refund"))
    assert len(first) == 7


def test_threshold_is_applied_before_the_keyword_cut(index: NamespaceIndex) -> None:
    """Similar memories far down the keyword order still fill the k places."""
    query = replace(BASE, text="broken phone refund", mode="keyword", vector=EAST, min_similarity=0.97, k=5)
    found = Recall.search([index], query)
    assert len(found) == 5
    assert all(n < 15 for n in numbers(found))


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_filters_come_before_ranking(index: NamespaceIndex, mode: Any) -> None:
    """All k places go to allowed memories, however far from the best they are."""
    query = replace(BASE, text="refund phone", vector=EAST, mode=mode, k=20, filter=Filter(kinds=("issue",)))
    assert sorted(numbers(Recall.search([index], query))) == list(range(100, 120))
    none = replace(query, filter=Filter(kinds=("nothing",)))
    assert len(Recall.search([index], none)) == 0


def test_where_is_checked(index: NamespaceIndex) -> None:
    """A bad expression is refused by search, list and count alike."""
    bad = Filter(where="importance > ")
    with pytest.raises(InvalidFilterError):
        Recall.search([index], replace(BASE, text="refund", filter=bad))
    with pytest.raises(InvalidFilterError):
        Recall.list([index], bad, now_us=NOW_US, limit=5)
    with pytest.raises(InvalidFilterError):
        Recall.count([index], bad, now_us=NOW_US)


def test_empty_index_and_no_index(store: ColumnarStore) -> None:
    """Nothing is found in nothing."""
    index = NamespaceIndex(store.table(1, "acme/notes"), blind)
    for mode in ("hybrid", "semantic", "keyword"):
        query = replace(BASE, text="refund", vector=EAST, mode=mode)
        assert len(Recall.search([index], query)) == 0
        assert len(Recall.search([], query)) == 0
    assert Recall.list([index], Filter(), now_us=NOW_US, limit=5) == []
    assert Recall.count([index], Filter(), now_us=NOW_US) == 0
    index.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "semantic", "text": "a"},
        {"mode": "keyword", "vector": EAST},
        {"mode": "keyword", "text": "a", "min_similarity": 0.5},
        {"mode": "fuzzy", "text": "a"},
        {"text": "a", "k": 0},
        {"text": "a", "vector": EAST, "min_similarity": 1.5},
        {"text": "a", "vector": EAST, "min_similarity": float("nan")},
        {"text": "a", "vector": EAST, "embed": lambda: EAST},
        {"text": "a", "embed": lambda: EAST, "min_similarity": 0.5},
        {"text": "a", "embed": lambda: EAST, "mode": "keyword"},
        {},
    ],
)
def test_bad_questions_are_refused(index: NamespaceIndex, fields: dict[str, Any]) -> None:
    """What cannot be answered is an error, never an empty answer."""
    with pytest.raises(InvalidInputError):
        Recall.search([index], replace(BASE, **fields))


@pytest.mark.parametrize("vector", [np.ones(D + 1), np.zeros(D), np.full(D, np.nan), np.ones((1, D))])
@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_bad_vectors_are_refused(index: NamespaceIndex, vector: Any, mode: Any) -> None:
    """Wrong length, zero, NaN, wrong shape: in every mode."""
    with pytest.raises(InvalidVectorError):
        Recall.search([index], replace(BASE, text="refund", vector=vector, mode=mode))


def test_query_vectors_need_not_be_normalised(index: NamespaceIndex) -> None:
    """Similarity is the cosine whatever the length of the query's vector."""
    found = Recall.search([index], replace(BASE, vector=EAST * 250, mode="semantic", k=1))
    assert found.candidates[0].score == pytest.approx(1.0, abs=1e-3)


# -- several namespaces -----------------------------------------------------------------------------
@pytest.fixture
def three(store: ColumnarStore) -> Iterator[list[NamespaceIndex]]:
    """Numbers 0-29, 30-59 and 60-89, each a namespace with a blinding of its own."""
    made = []
    for ns in range(3):

        def own(tokens: Sequence[str], ns: int = ns) -> list[int]:
            return [n ^ ns for n in blind(tokens)]

        index = NamespaceIndex(store.table(ns, f"acme/n{ns}"), own, ns=ns, dimensions=D)
        fill(index, range(30 * ns, 30 * ns + 29), "a refund was asked for")
        fill(index, [30 * ns + 29], "phone refund" if ns == 1 else "nothing of the kind")
        made.append(index)
    yield made
    for index in made:
        index.close()


def test_namespaces_are_ranked_together(three: list[NamespaceIndex]) -> None:
    """One order over all of them, the same for any order of the indexes, none twice."""
    query = replace(BASE, vector=EAST, mode="semantic", k=90)
    found = Recall.search(three, query)
    assert numbers(found) == list(range(90))
    assert [c.ns for c in found] == [n // 30 for n in range(90)]
    assert numbers(Recall.search([three[2], three[0], three[1], three[0]], query)) == list(range(90))
    assert numbers(Recall.search(three[1:2], query)) == list(range(30, 60))


def test_keyword_scores_compare_across_namespaces(three: list[NamespaceIndex], store: ColumnarStore) -> None:
    """Statistics are joined: the same scores as if all memories lay in one namespace."""
    one = NamespaceIndex(store.table(9, "acme/all"), blind, dimensions=D)
    for ns in range(3):
        fill(one, range(30 * ns, 30 * ns + 29), "a refund was asked for")
        fill(one, [30 * ns + 29], "phone refund" if ns == 1 else "nothing of the kind")
    query = replace(BASE, text="phone refund", mode="keyword", k=100)
    apart, whole = ({c.memory_id: c.score for c in Recall.search(i, query)} for i in (three, [one]))
    assert len(apart) == 88
    assert apart == pytest.approx(whole)
    assert numbers(Recall.search(three, query))[:3] == [59, 88, 87]
    one.close()


def test_weights_are_those_of_the_namespace(store: ColumnarStore) -> None:
    """A namespace that does not weigh keywords puts its matches behind those of one that does."""
    by_words = NamespaceIndex(
        store.table(1, "acme/a"), blind, RecallSettings(keyword_weight=9.0), ns=1, dimensions=D
    )
    by_meaning = NamespaceIndex(
        store.table(2, "acme/b"), blind, RecallSettings(keyword_weight=0.0), ns=2, dimensions=D
    )
    fill(by_words, [1], "refund")
    fill(by_meaning, [0], "refund")
    found = Recall.search([by_words, by_meaning], replace(BASE, text="refund", vector=EAST))
    assert numbers(found) == [1, 0]
    assert found.candidates[1].score == pytest.approx(1 / 61)
    by_words.close()
    by_meaning.close()


def test_list_pages_neither_skip_nor_repeat(three: list[NamespaceIndex]) -> None:
    """Newest first over all namespaces, page by page, also where many share one moment."""
    same = memory(500).created_at
    fill(three[0], range(500, 520), "later", created_at=same, updated_at=same)
    fill(three[2], range(520, 540), "later", created_at=same, updated_at=same)
    seen: list[bytes] = []
    before = None
    while page := Recall.list(three, Filter(), now_us=NOW_US, limit=7, before=before):
        seen += [item.memory_id for item in page]
        before = (page[-1].created_us, page[-1].memory_id)
    tied = sorted(memory_id(n).bytes for n in range(500, 540))
    assert seen == tied + [memory_id(n).bytes for n in range(89, -1, -1)]
    assert Recall.count(three, Filter(), now_us=NOW_US) == 130
    with pytest.raises(InvalidInputError):
        Recall.list(three, Filter(), now_us=NOW_US, limit=0)


def test_indexes_are_always_locked_in_one_order(
    three: list[NamespaceIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a question names them: two searches and two writers can then never wait in a ring."""
    entered: list[int] = []

    @contextmanager
    def noted(index: NamespaceIndex) -> Iterator[None]:
        entered.append(index.ns)
        yield

    for index in three:
        index.prepare()
        monkeypatch.setattr(index, "prepare", lambda: None)
        monkeypatch.setattr(index, "lock", SimpleNamespace(read=noted(index), write=index.lock.write))
    Recall.search([three[2], three[0], three[1], three[2]], replace(BASE, text="refund"))
    assert entered == [0, 1, 2]


def test_searches_over_the_same_indexes_do_not_block_each_other(three: list[NamespaceIndex]) -> None:
    """Searches in opposite orders beside writers come to an end, with whole answers."""
    finished = threading.Event()
    short: list[int] = []

    def look(indexes: list[NamespaceIndex]) -> None:
        while not finished.is_set():
            found = Recall.search(indexes, replace(BASE, text="refund", vector=EAST, k=50))
            if len(found) < 50:
                short.append(len(found))

    threads = [threading.Thread(target=look, args=(order,)) for order in (three, three[::-1], three[1:])]
    for thread in threads:
        thread.start()
    for n in range(600, 900):
        fill(three[n % 3], [n], "another refund")
    finished.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not short


def test_recall_cannot_decrypt() -> None:
    """No module of the room imports crypto, keyring or kms."""
    for path in Path(strongroom.recall.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith(("strongroom.crypto", "strongroom.keyring", "strongroom.kms"))


def test_vectors_of_random_memories_agree_with_brute_force(store: ColumnarStore) -> None:
    """The hybrid answer, computed a second time from the definition."""
    rng = np.random.default_rng(0)
    index = NamespaceIndex(store.table(1, "acme/notes"), blind, dimensions=D)
    rows = unit(rng.standard_normal((400, D)))
    vocabulary = ["refund", "phone", "price", "order", "late"]
    texts = [" ".join(rng.choice(vocabulary, 4)) for _ in range(400)]
    changes: list[Change] = []
    for n in range(400):
        changes += [Upsert(memory(n, texts[n]), 2 * n + 1, 1)]
        changes += [VectorPut(memory_id(n).bytes, 1, rows[n], 2 * n + 2)]
    index.apply(changes, 800)
    index.prepare()
    query = unit(rng.standard_normal(D))
    by_meaning = sorted(range(400), key=lambda n: (-rows[n] @ query, -n))[:50]
    terms = index.keywords.query_terms("late refund")
    bm25 = index.keywords.scores(terms)
    by_words = sorted((n for n in range(400) if bm25[n] > 0), key=lambda n: (-bm25[n], -n))[:50]
    fused = {n: 1.0 / (61 + r) for r, n in enumerate(by_meaning)}
    for r, n in enumerate(by_words):
        fused[n] = fused.get(n, 0.0) + 0.6 / (61 + r)
    wanted = sorted(fused, key=lambda n: (-fused[n], -n))[:10]
    assert numbers(Recall.search([index], replace(BASE, text="late refund", vector=query))) == wanted
    index.close()


def test_recency_and_importance_raise_scores_where_they_are_set(store: ColumnarStore) -> None:
    """The score is the fused one times 1 + recency + importance, and each part is told."""
    known = RecallSettings(recency_weight=0.5, recency_half_life_days=10.0, importance_weight=0.4)
    index = NamespaceIndex(store.table(1, "acme/a"), blind, known, ns=1, dimensions=D)
    day = timedelta(days=1)
    for number, (age, importance) in enumerate([(0, 0.0), (10, 1.0), (400, 0.5)]):
        when = NOW - age * day
        fill(index, [number], "refund", created_at=when, updated_at=when, importance=importance)
    found = Recall.search([index], replace(BASE, text="refund", vector=EAST))
    assert len(found) == 3
    parts = {number: (c.recency, c.importance) for number, c in zip(numbers(found), found, strict=True)}
    assert parts[0] == (pytest.approx(0.5), 0.0)
    assert parts[1] == (pytest.approx(0.25), pytest.approx(0.4))
    assert parts[2][0] < 1e-6 and parts[2][1] == pytest.approx(0.2)
    for c in found:
        told = c.explanation
        lanes = [(told.vector_weight, told.vector_rank), (told.keyword_weight, told.keyword_rank)]
        fused = sum(weight / (told.rrf_constant + rank) for weight, rank in lanes if rank)
        assert c.score == pytest.approx(fused * (1 + told.recency + told.importance))
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    plain = Recall.search([index], replace(BASE, text="refund", mode="keyword"))
    assert all(c.recency == c.importance == 0.0 for c in plain)


def test_lines_of_fusion_set_the_weights_of_namespaces() -> None:
    """The first line whose pattern fits counts; what it does not name stays as it is for all."""
    config = RecallConfig(fusion=("acme/notes keyword=2", "acme/* recency=0.3 half_life_days=7 vector=0"))
    notes = RecallSettings.from_config(config, namespace="acme/notes")
    other = RecallSettings.from_config(config, namespace="acme/other")
    assert (notes.keyword_weight, notes.recency_weight) == (2.0, 0.0)
    assert (other.keyword_weight, other.vector_weight) == (0.6, 0.0)
    assert (other.recency_weight, other.recency_half_life_days) == (0.3, 7.0)
    assert RecallSettings.from_config(config, namespace="b/c") == RecallSettings.from_config(RecallConfig())


@pytest.mark.parametrize(
    "line",
    ["", "a b=1", "a/* keyword", "a/* keyword=x", "a/* keyword=-1", "a/* half_life_days=0", "* vector=nan"],
)
def test_malformed_lines_of_fusion_are_refused(line: str) -> None:
    """An unknown name, no number, a negative one, no pattern: a configuration error."""
    with pytest.raises(ConfigurationError):
        RecallSettings.from_config(RecallConfig(fusion=(line,)), namespace="a/b")
