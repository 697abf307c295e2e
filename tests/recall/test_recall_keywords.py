"""Analysis of text, and BM25 against the formula written out."""

from __future__ import annotations

import math
import pickle
import threading
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recall.lane_tools import blind

from strongroom.errors import InvalidInputError
from strongroom.recall import analyze
from strongroom.recall import keywords as module
from strongroom.recall.analyze import (
    LANGUAGES,
    MARKS_MAX,
    TEXT_CHARACTERS_MAX,
    TOKEN_CHARACTERS_MAX,
    TOKENS_MAX,
    Analyzer,
    check_language,
    tokenize,
)
from strongroom.recall.keywords import K1, B, KeywordLane

WORDS = [
    "invoice",
    "refund",
    "price",
    "plan",
    "upgrade",
    "cancel",
    "card",
    "late",
    "order",
    "ship",
    "broken",
    "phone",
    "help",
    "thanks",
]


def naive(docs: dict[int, str], query: str, analyzer: Analyzer) -> dict[int, float]:
    """The oracle: BM25 term by term, document by document."""
    terms = {rid: analyzer.terms(text) for rid, text in docs.items()}
    average = sum(map(len, terms.values())) / max(1, len(docs))
    out: dict[int, float] = {}
    for word in dict.fromkeys(analyzer.terms(query)):
        holding = sum(word in t for t in terms.values())
        idf = math.log(1 + (len(docs) - holding + 0.5) / (holding + 0.5))
        for rid, found in terms.items():
            if count := found.count(word):
                norm = K1 * (1 - B + B * len(found) / average)
                out[rid] = out.get(rid, 0.0) + idf * count * (K1 + 1) / (count + norm)
    return out


def agree(lane: KeywordLane, docs: dict[int, str], query: str, allowed: list[int] | None = None) -> None:
    """The lane gives the rows and scores of the oracle, in a right order."""
    wanted = naive(docs, query, Analyzer())
    if allowed is not None:
        wanted = {rid: s for rid, s in wanted.items() if rid in allowed}
    only = None if allowed is None else np.array(sorted(allowed), dtype=np.int64)
    rids, scores = lane.search(lane.query_terms(query), 10_000, only)
    assert sorted(rids.tolist()) == sorted(wanted)
    np.testing.assert_allclose(scores, [wanted[r] for r in rids.tolist()], rtol=1e-5)
    assert list(zip(-scores, -rids, strict=True)) == sorted(zip(-scores, -rids, strict=True))


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(count)]


# -- analysis -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Invoice INV-2041 paid", ["invoice", "inv-2041", "inv", "2041", "paid"]),
        ("follow-up and/or", ["follow", "up", "and", "or"]),
        (
            "mail jane.doe@example.com now",
            ["mail", "jane.doe@example.com", "jane", "doe", "example", "com", "now"],
        ),
        ("https://app.example.com/a?x=y", ["https", "app", "example", "com", "a", "x", "y"]),
        ("user_id at 10:30", ["user_id", "user", "id", "at", "10:30", "10", "30"]),
        ("don\u2019t STRASSE Stra\u00dfe", ["don't", "strasse", "strasse"]),
        ("\ufb01ne caf\u00e9 cafe\u0301", ["fine", "caf\u00e9", "caf\u00e9"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("\u6771\u4eac\u90fd x", ["\u6771\u4eac", "\u4eac\u90fd", "x"]),
        ("  \t\n-- ... \u200b", []),
        ("", []),
    ],
)
def test_tokenize(text: str, tokens: list[str]) -> None:
    """Identifiers stay whole beside their parts; scripts, ligatures and marks are understood."""
    assert tokenize(text) == tokens


def test_stems_and_stop_words() -> None:
    """English inflections meet in one stem, stop words vanish, identifiers stay as they are."""
    analyzer = Analyzer("english")
    assert analyzer.terms("the invoices were invoiced") == analyzer.terms("invoice invoicing")
    assert analyzer.terms("it is what it is") == []
    assert "inv-2041s" in analyzer.terms("inv-2041s")
    assert Analyzer("none").terms("the invoices") == ["the", "invoices"]
    assert Analyzer("german").terms("die Rechnungen") == Analyzer("german").terms("der Rechnung")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_works(language: str) -> None:
    """Each language that is offered has a stemmer behind it."""
    assert Analyzer(check_language(language)).terms("strongroom 42")[-1] == "42"


@pytest.mark.parametrize("language", ["klingon", "", None, "English"])
def test_unknown_language_is_refused(language: object) -> None:
    """A typo is no silent default."""
    with pytest.raises(InvalidInputError):
        check_language(language)


def test_tokens_are_bounded() -> None:
    """A long word is cut, and a long text stops counting."""
    assert tokenize("a" * 500) == ["a" * TOKEN_CHARACTERS_MAX]
    assert tokenize("\u00e9" * 500) == ["\u00e9" * TOKEN_CHARACTERS_MAX]
    assert len(tokenize("x-1 " * (TOKENS_MAX + 9))) == TOKENS_MAX


@pytest.mark.parametrize(
    "text",
    ["a" + "\u0301" * 400_000 + "\u0316" * 400_000, "a" + "\u0f73" * 800_000, "a" + "\u3099\uff9e" * 400_000],
)
def test_marks_without_end_are_cut_before_they_are_sorted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalising sorts the marks of a character in quadratic time: hours for one text, if all were taken."""

    def bounded(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
        assert len(text) <= 1 + 3 * MARKS_MAX
        return normalize(form, text)

    monkeypatch.setattr(analyze.unicodedata, "normalize", bounded)
    assert 1 <= len(tokenize(text)) <= 1 + MARKS_MAX


def test_characters_that_become_many_are_bounded() -> None:
    """One character that stands for eighteen does not make a text eighteen times as long to look at."""
    text = "\ufdfa" * 1_000_000
    looked_at: list[int] = []

    def counted(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
        out = normalize(form, text)
        looked_at.append(len(out))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyze.unicodedata, "normalize", counted)
        assert len(tokenize(text)) == TOKENS_MAX
    assert sum(looked_at) <= 2 * TEXT_CHARACTERS_MAX


def test_words_across_the_pieces_of_a_long_text_stay_whole() -> None:
    """A long text is normalised in pieces, which are cut between words."""
    words = [f"caf\u00e9{i}" for i in range(TOKENS_MAX)]
    assert tokenize(" ".join(words)) == words


@given(st.text(max_size=200))
def test_any_text_can_be_analysed(text: str) -> None:
    """No text makes the analysis fail, and analysing twice gives the same."""
    terms = Analyzer().terms(text)
    assert terms == Analyzer().terms(text)
    assert all(0 < len(t) <= 2 * TOKEN_CHARACTERS_MAX for t in terms)


# -- BM25 -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 7, 600, 2_000])
def test_scores_are_those_of_the_formula(batch: int) -> None:
    """Additions one by one, in small and in large batches give the scores of the formula."""
    docs = dict(enumerate(texts(2_000, 1)))
    lane = KeywordLane(Analyzer(), blind)
    for start in range(0, 2_000, batch):
        rids = range(start, min(2_000, start + batch))
        lane.add(rids, [docs[r] for r in rids])
    for query in ("refund", "late invoice price", "thanks thanks plan", "unknown card", "nothing known"):
        agree(lane, docs, query)
    lane.close()


def test_merges_keep_every_posting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through many flushes and merges, inline and in the background, the scores stay right."""
    monkeypatch.setattr(module, "DELTA_DOCUMENTS_MAX", 64)
    monkeypatch.setattr(module, "MERGE_INLINE_MAX", 500)
    docs = dict(enumerate(texts(4_000, 2)))
    lane = KeywordLane(Analyzer(), blind)
    for rid, text in docs.items():
        lane.add([rid], [text])
    lane.wait_merged(30)
    agree(lane, docs, "late invoice price")
    assert len(lane._segments) < 10
    lane.close()


def test_removed_texts_count_no_more() -> None:
    """Removal changes frequencies and the average length, as if the text had never been there."""
    docs = dict(enumerate(texts(1_500, 3)))
    lane = KeywordLane(Analyzer(), blind)
    lane.add(list(docs), list(docs.values()))
    gone = list(range(0, 1_500, 3))
    lane.remove(gone)
    lane.remove([*gone, 99_999, -4])
    left = {r: t for r, t in docs.items() if r % 3}
    assert len(lane) == len(left)
    agree(lane, left, "late invoice price")


def test_clean_up_drops_dead_postings(monkeypatch: pytest.MonkeyPatch) -> None:
    """When most texts are gone their postings are dropped too, those in the delta included."""
    monkeypatch.setattr(module, "DEAD_DOCUMENTS_MIN", 100)
    docs = dict(enumerate(texts(2_000, 4)))
    lane = KeywordLane(Analyzer(), blind)
    lane.add(range(1_900), [docs[r] for r in range(1_900)])
    lane.add(range(1_900, 2_000), [docs[r] for r in range(1_900, 2_000)])
    before = sum(s.memory_bytes() for s in lane._segments)
    lane.remove(range(50, 1_950))
    lane.wait_merged(30)
    assert sum(s.memory_bytes() for s in lane._segments) < before / 4
    agree(lane, {r: t for r, t in docs.items() if not 50 <= r < 1_950}, "late invoice price")


@pytest.mark.parametrize("share", [0.5, 0.05, 0.001])
def test_filter_is_applied_inside_the_lane(share: float) -> None:
    """Only allowed rows are ranked, none of them is missed, and their scores do not change."""
    docs = dict(enumerate(texts(3_000, 5)))
    lane = KeywordLane(Analyzer(), blind)
    lane.add(list(docs), list(docs.values()))
    allowed = np.flatnonzero(np.random.default_rng(6).random(3_000) < share).tolist()
    agree(lane, docs, "refund invoice", allowed)
    mask = np.zeros(3_000, dtype=np.bool_)
    mask[allowed] = True
    terms = lane.query_terms("refund invoice")
    a = lane.search(terms, 10, mask)
    b = lane.search(terms, 10, np.array(allowed, dtype=np.int64))
    assert a[0].tolist() == b[0].tolist()


def test_equal_scores_come_newest_first() -> None:
    """Ties have one order, also where the cut goes through them."""
    lane = KeywordLane(Analyzer(), blind)
    lane.add(range(10), ["late refund"] * 10)
    assert lane.search(lane.query_terms("refund"), 3)[0].tolist() == [9, 8, 7]


def test_empty_lane_and_empty_query() -> None:
    """Nothing is found in nothing, with nothing, or with stop words alone."""
    lane = KeywordLane(Analyzer(), blind)
    assert len(lane.search(lane.query_terms("refund"), 5)[0]) == 0
    lane.add([0, 1], ["", "the"])
    assert len(lane.search(lane.query_terms("refund"), 5)[0]) == 0
    lane.add([2], ["refund"])
    assert len(lane.search(lane.query_terms("of the"), 5)[0]) == 0
    assert lane.search(lane.query_terms("refunds"), 5)[0].tolist() == [2]
    assert len(lane.search(lane.query_terms("refund"), 0)[0]) == 0


def test_no_word_is_kept() -> None:
    """Neither postings, delta nor cache hold a word that was indexed or asked for."""
    lane = KeywordLane(Analyzer(), blind)
    lane.add(range(700), ["zyzzogeton quixotry"] * 700)
    lane.add([700], ["xylophagous"])
    lane.query_terms("floccinaucinihilipilification")
    held = pickle.dumps(
        [[s.terms, s.rids, s.counts, s.offsets] for s in lane._segments] + [lane._delta, lane._cache]
    )
    for word in (b"zyzzoget", b"quixotr", b"xylophag", b"floccin"):
        assert word not in held
    assert all(type(k) is int and type(v) is int for k, v in lane._cache.items())


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of different words does not grow the cache, and does not change the answers."""
    monkeypatch.setattr(module, "CACHE_TERMS_MAX", 50)
    lane = KeywordLane(Analyzer(), blind)
    lane.add([0], [" ".join(f"word{i}" for i in range(500))])
    for i in range(300):
        lane.add([i + 1], [f"other{i} thing"])
    assert len(lane._cache) <= 50
    assert lane.search(lane.query_terms("word77"), 5)[0].tolist() == [0]
    lane._cache = {}
    assert lane.search(lane.query_terms("other299"), 5)[0].tolist() == [300]


def test_statistics_of_two_lanes_make_one_collection() -> None:
    """Scores with joint statistics are those that one lane with all texts would give."""
    docs = dict(enumerate(texts(600, 7)))
    one, two, both = (KeywordLane(Analyzer(), blind) for _ in range(3))
    both.add(list(docs), list(docs.values()))
    one.add(range(200), [docs[r] for r in range(200)])
    two.add(range(200, 600), [docs[r] for r in range(200, 600)])
    terms = both.query_terms("late invoice refund")
    joint = one.statistics(terms) + two.statistics(terms)
    whole = both.scores(terms)[:600]
    np.testing.assert_allclose(one.scores(terms, joint)[:200], whole[:200], rtol=1e-6)
    np.testing.assert_allclose(two.scores(terms, joint)[200:600], whole[200:], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=8), min_size=1, max_size=30),
    st.sets(st.integers(0, 29)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
)
def test_any_history_agrees_with_the_formula(
    words: list[list[str]], gone: set[int], query: list[str]
) -> None:
    """Whatever was added and removed, the scores are those of the texts that are left."""
    docs = {rid: " ".join(w) for rid, w in enumerate(words)}
    lane = KeywordLane(Analyzer(), blind)
    for rid, text in docs.items():
        lane.add([rid], [text])
    lane.remove(sorted(gone))
    agree(lane, {r: t for r, t in docs.items() if r not in gone}, " ".join(query))


def test_searches_go_on_while_texts_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers beside a writer and its merges always see at least what was there before."""
    monkeypatch.setattr(module, "DELTA_DOCUMENTS_MAX", 128)
    monkeypatch.setattr(module, "MERGE_INLINE_MAX", 300)
    lane = KeywordLane(Analyzer(), blind)
    finished = threading.Event()
    problems: list[str] = []

    def look() -> None:
        while not finished.is_set():
            before = len(lane)
            rids, _ = lane.search(lane.query_terms("refund"), 100_000)
            if len(rids) < before or len(np.unique(rids)) != len(rids):
                problems.append(f"{len(rids)} of {before}")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for rid in range(3_000):
        lane.add([rid], [f"refund {rid}"])
    finished.set()
    for thread in threads:
        thread.join()
    assert not problems
    lane.close()
