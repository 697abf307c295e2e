"""The comparison with other stores: each is set to the wanted recall, and what is said of it was measured."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from bench import data, peers
from bench._harness import Spread
from bench.plot import bars

ROWS = 3000
PEER = '''
"""Exact, over a share of the rows that its setting tells."""
import os
import numpy as np

VERSION, DURABLE, EFFORTS = "1", False, (0.1, 0.5, 1.0)

def build(path, vectors, texts, marked):
    os.mkdir(path)
    np.save(path + "/vectors.npy", vectors)
    np.save(path + "/marked.npy", marked)
    with open(path + "/texts", "w") as out:
        out.write(chr(10).join(texts))

def reopen(path):
    return {"vectors": np.load(path + "/vectors.npy"), "marked": np.load(path + "/marked.npy"), "more": {}}

def search(handle, query, k, effort, marked_only):
    scores = handle["vectors"] @ query
    scores[int(len(scores) * effort):] = -2
    if marked_only:
        scores[~handle["marked"]] = -2
    return np.argsort(-scores)[:k].tolist()

def insert(handle, number, vector, text):
    assert number not in handle["more"]
    handle["more"][number] = text

def close(handle):
    pass
'''


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> peers.Peers:
    (tmp_path / "peer_fake.py").write_text(PEER)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ROWS, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"a text of some length that is like no other, {i}" for i in range(ROWS)]
    tags = [["escalated"] if x else [] for x in rng.random(ROWS) < 0.05]
    corpus = data.Corpus(texts, vectors, ["fact"] * ROWS, tags, [], {})
    stored = tmp_path / "corpus.npz"
    np.savez(stored, vectors=vectors, texts=np.frombuffer("\n".join(texts).encode(), np.uint8))
    asked = rng.normal(size=(400, 32)).astype(np.float32)
    monkeypatch.setattr(data, "make", lambda *_: corpus)
    monkeypatch.setattr(data, "place_of", lambda *_: stored)
    monkeypatch.setattr(peers, "_embedded", lambda _: asked)
    monkeypatch.setattr(peers, "_environment", lambda _: Path(sys.executable))
    monkeypatch.setattr(peers, "_packages", lambda: {"fake": []})
    monkeypatch.setattr(peers, "_BLOCK", 50)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    work = tmp_path / "work"
    work.mkdir()
    return peers.Peers(work, ROWS)


def test_a_store_is_set_to_the_wanted_recall_measured_in_rounds_and_reported(bench: peers.Peers) -> None:
    """The fastest setting that finds enough is taken, every round counts, what is readable is seen."""
    bench.prepare()
    bench.build(["fake"])
    bench.reopen(["fake"])
    bench.open(["fake"])
    try:
        bench.tune(["fake"])
        for kind in ("search", "filtered", "insert", "insert"):
            bench.round(kind, ["fake"])
    finally:
        bench.close(["fake"])
    bench.scan(["fake"])
    found = json.loads((bench.work / "fake.json").read_text())
    assert found["search_setting"] == {"effort": "1.0", "recall": 1.0, "questions": 200}
    assert [r["recall"] for r in found["search"]] == [1.0]
    assert [r["recall"] for r in found["filtered"]] == [1.0]
    assert [r["count"] for r in found["insert"]] == [100, 100]
    assert len(found["reopen_warm"]) == len(found["reopen_cold"]) == 1
    assert (found["readable_texts"], found["readable_vectors"]) == (100, 100)
    (row,) = bench.report()
    assert "not durable" in row.measured and "recall 1.0000" in row.measured
    assert "readable in them 100 of 100 texts" in row.against
    drawn = ElementTree.fromstring(bars(bench.panels()))
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 5


def test_a_setting_that_finds_too_little_is_not_taken(bench: peers.Peers) -> None:
    """The exact answers are those of all rows and of the marked ones: a tenth of the rows finds a tenth."""
    bench.prepare()
    with np.load(bench.work / f"asked-{ROWS}.npz") as asked:
        marked = set(np.flatnonzero(asked["marked"]).tolist())
        tenth = np.mean(asked["ask_search"] < ROWS // 10)
        assert 0.05 < tenth < 0.15
        assert set(asked["ask_filtered"].ravel().tolist()) <= marked
        vectors = data.make(ROWS, 7).vectors
        scores = asked["ask"] @ vectors.T
        assert (asked["ask_search"] == np.argsort(-scores, axis=1)[:, :10]).all()


def test_the_longest_bar_is_the_slowest_store() -> None:
    """Bars end at the median, so that they can be compared."""
    panel = ("search", "ms", [("a", Spread(1, 1, 2), ""), ("b", Spread(5, 4, 9), "recall 0.98")])
    drawn = ElementTree.fromstring(bars([panel]))
    rects = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))[1:]  # the first is the ground
    widths = [float(r.get("width", "0")) for r in rects]
    assert widths[0] < widths[1]
