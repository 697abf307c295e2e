"""A corpus with the structure of a real one: clusters of near neighbours, in real embedding space.

The sample of the package and a few thousand variants of its texts (parts of two memories of one
namespace, other names, numbers and products) are embedded by the real model. Further rows lie between
neighbours of that set, moved along differences of other real embeddings, so that the cloud keeps its shape;
their texts are composed of the same neighbours. ``report`` tells the cosines of nearest
neighbours, of the embedded set and of the whole, to be compared.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench._harness import note

DIMENSIONS = 384
SUBJECTS = 1000  # one in a thousand memories belongs to each
_VARIANTS = 4000
_VERSION = 4
_NEAR = 24
_BLOCK = 65_536
_STEP = 0.35  # how far a row is moved, in units of a difference of two real embeddings
_FIRST = ["Anna", "Jonas", "Priya", "Marek", "Lucia", "Tom", "Ingrid", "Yusuf", "Claire", "Diego", "Hana"]
_LAST = ["Berg", "Novak", "Silva", "Costa", "Meyer", "Okafor", "Lind", "Haddad", "Rossi", "Tanaka", "Dubois"]
_PRODUCTS = ["Atlas", "Beacon", "Cobalt", "Drift", "Ember", "Falcon", "Granite", "Harbor", "Iris", "Juniper"]
_ASKED = ("what did {} say about {}", "who asked for {1}", "anything on {1}", "{1}", "why {1}", "{0}: {1}")


@dataclass(frozen=True)
class Corpus:
    """``texts[i]`` with the unit vector ``vectors[i]``, float32, shape (rows, 384)."""

    texts: list[str]
    vectors: NDArray[np.float32]
    kinds: list[str]
    tags: list[list[str]]
    queries: list[str]
    report: dict[str, Any]

    def items(self, namespace: str, start: int = 0, count: int | None = None) -> list[dict[str, Any]]:
        """Arguments of ``store`` for rows from ``start``, vectors included."""
        end = len(self.texts) if count is None else min(len(self.texts), start + count)
        return [
            item(namespace, i, self.texts[i], self.kinds[i], self.tags[i], self.vectors[i])
            for i in range(start, end)
        ]

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors in their order: the number of the first, and some tens of thousands."""
        for start in range(0, len(self.vectors), _BLOCK):
            yield start, self.vectors[start : start + _BLOCK]

    def passes(self, name: str) -> NDArray[np.bool_]:
        """Which rows a filter of ``FILTERS`` lets through; "" all."""
        if name == "50 %":
            return np.array([kind == "observation" for kind in self.kinds])
        if name == "5 %":
            return np.array(["escalated" in tags for tags in self.tags])
        rows = np.arange(len(self.texts))
        return rows % SUBJECTS == 17 if name else rows >= 0

    def other_questions(self, count: int, rng: np.random.Generator) -> list[str]:
        """Questions that are not among ``queries``, made in the same way."""
        chosen = [self.texts[int(i)] for i in rng.integers(len(self.texts), size=count)]
        return [_question(text, rng) for text in chosen]

    def vector(self, row: int) -> NDArray[np.float32]:
        return self.vectors[row % len(self.vectors)]


class Chance(Protocol):
    """What makes texts differ."""

    def integers(self, low: int, high: int | None = None, /) -> Any: ...


def item(
    namespace: str, row: int, text: str, kind: str, tags: list[str], vector: NDArray[np.float32]
) -> dict[str, Any]:
    """Arguments of ``store`` for one row."""
    return {
        "content": text,
        "namespace": namespace,
        "kind": kind,
        "tags": tags,
        "subject": f"user:{row % SUBJECTS}",
        "agent_id": f"agent-{row % 7}",
        "session_id": f"session-{row // 20}",
        "metadata": {"plan": ("starter", "team", "enterprise")[row % 3], "ticket": 10_000 + row},
        "importance": (row * 37 % 100) / 100,
        "embedding": vector,
    }


FILTERS: dict[str, dict[str, Any]] = {
    "50 %": {"kinds": ["observation"]},
    "5 %": {"tags_any": ["escalated"]},
    "0.1 %": {"subjects": ["user:17"]},
}


def make(rows: int, seed: int, queries: int = 200) -> Corpus:
    """The corpus of these parameters, from a cache in the temporary directory when it is there."""
    path = place_of(rows, seed, queries)
    if not path.exists():
        note(f"making a corpus of {rows} rows")
        _write(path, *_generate(rows, seed, queries))
    return _read(path, rows, seed)


def kept(name: str) -> Path:
    """Where something that takes long to make is kept between runs."""
    directory = Path(tempfile.gettempdir()) / "strongroom-bench-data"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


def more_questions(corpus: Corpus, count: int, seed: int) -> list[str]:
    """``count`` other questions about the texts that the model has embedded."""
    rng = np.random.default_rng(seed)
    known = min(len(corpus.texts), _VARIANTS)
    return [_question(corpus.texts[int(i)], rng) for i in rng.integers(known, size=count)]


def place_of(rows: int, seed: int, queries: int = 200) -> Path:
    """Where ``make`` keeps the corpus of these parameters."""
    name = hashlib.sha256(f"{_VERSION} {rows} {seed} {queries} {_VARIANTS} {_STEP}".encode()).hexdigest()[:16]
    return kept(f"{name}.npz")


def _write(path: Path, texts: list[str], vectors: NDArray[np.float32], asked: list[str], report: str) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as out:
        np.savez(
            out,
            vectors=vectors,
            texts=np.frombuffer("\n".join(texts).encode(), np.uint8),
            queries=np.frombuffer("\n".join(asked).encode(), np.uint8),
            report=np.frombuffer(report.encode(), np.uint8),
        )
    draft.replace(path)


def _read(path: Path, rows: int, seed: int) -> Corpus:
    import json

    with np.load(path) as stored:
        texts = stored["texts"].tobytes().decode().split("\n")
        queries = stored["queries"].tobytes().decode().split("\n")
        report = json.loads(stored["report"].tobytes())
        vectors = stored["vectors"]
    kinds, tags = _labels(rows, np.random.default_rng(seed + 1))
    return Corpus(texts, vectors, kinds, tags, queries, report)


def _labels(rows: int, rng: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """Kinds and tags of rows."""
    others = ["decision", "fact", "preference", "goal"]
    kinds = ["observation" if x < 0.5 else others[int(x * 1000) % 4] for x in rng.random(rows)]
    themes = ["pricing", "account", "contact", "safety", "outage", "privacy", "bug", "reporting"]
    marked = rng.random(rows) < 0.05
    tags = [
        [themes[t]] + (["escalated"] if m else [])
        for t, m in zip(rng.integers(0, 8, rows), marked, strict=True)
    ]
    return kinds, tags


def _embedded(rng: np.random.Generator) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64]]:
    """Texts, what the model makes of them, and the nearest others of each."""
    from strongroom.config import EmbeddingConfig
    from strongroom.data import sample_rows
    from strongroom.embedding import make_provider

    by_namespace: dict[str, list[str]] = {}
    for row in sample_rows():
        by_namespace.setdefault(row["namespace"], []).append(row["content"].replace("\n", " "))
    base = [text for texts in by_namespace.values() for text in texts]
    groups = list(by_namespace.values())
    while len(base) < _VARIANTS:
        group = groups[int(rng.integers(len(groups)))]
        a, b = (group[int(i)] for i in rng.integers(len(group), size=2))
        base.append(_varied(_spliced(a, b, rng), rng))
    provider = make_provider(EmbeddingConfig())
    try:
        real = np.concatenate([provider.embed(base[i : i + 32]) for i in range(0, len(base), 32)])
    finally:
        provider.close()
    return base, real, _nearest(real, real, _NEAR + 1)[0][:, 1:]


def _generate(rows: int, seed: int, queries: int) -> tuple[list[str], NDArray[np.float32], list[str], str]:
    import json

    rng = np.random.default_rng(seed)
    base, real, near = _embedded(rng)
    texts, vectors = _grown(base, real, near, rows, rng)
    asked = [_question(base[int(i)], rng) for i in rng.integers(len(base), size=queries)]
    probe = rng.choice(rows, min(rows, 500), replace=False)
    report = {
        "rows": rows,
        "embedded by the model": len(base),
        "cosine to the 1st neighbour, embedded set": _deciles(_nearest(real[:500], real, 11)[1][:, 1]),
        "cosine to the 1st neighbour, whole": _deciles(_nearest(vectors[probe], vectors, 11)[1][:, 1]),
        "cosine to the 10th neighbour, embedded set": _deciles(_nearest(real[:500], real, 11)[1][:, 10]),
        "cosine to the 10th neighbour, whole": _deciles(_nearest(vectors[probe], vectors, 11)[1][:, 10]),
        "characters per text, mean": round(float(np.mean([len(t) for t in texts])), 1),
    }
    return texts, vectors, asked, json.dumps(report)


def _grown(
    base: list[str], real: NDArray[np.float32], near: NDArray[np.int64], rows: int, rng: np.random.Generator
) -> tuple[list[str], NDArray[np.float32]]:
    """Rows around the embedded set: some places are dense, most are not."""
    centre = rng.permutation(len(base))[rng.choice(len(base), rows, p=_weights(len(base)))]
    centre[: min(rows, len(base))] = np.arange(min(rows, len(base)))  # the embedded texts themselves
    other = near[centre, rng.integers(0, near.shape[1], rows)]
    share = rng.random(rows, dtype=np.float32)[:, None] * 0.5
    vectors = np.empty((rows, real.shape[1]), np.float32)
    for start in range(0, rows, 20_000):
        part = slice(start, start + 20_000)
        vectors[part] = _mixed(real, centre[part], other[part], share[part], rng)
    vectors[: min(rows, len(base))] = real[: min(rows, len(base))]
    texts = [
        base[c] if i < len(base) else _varied(_spliced(base[c], base[o], rng), rng)
        for i, (c, o) in enumerate(zip(centre.tolist(), other.tolist(), strict=True))
    ]
    return texts, vectors


def _weights(places: int) -> NDArray[np.float64]:
    """How often each place occurs: few are dense, most are not."""
    weight = 1.0 / (1.0 + np.arange(places)) ** 0.6
    made: NDArray[np.float64] = weight / weight.sum()
    return made


def _mixed(
    real: NDArray[np.float32],
    centre: NDArray[np.int64],
    other: NDArray[np.int64],
    share: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Points between two embeddings each, moved along the difference of two others."""
    size = len(centre)
    moved = real[rng.integers(len(real), size=size)] - real[rng.integers(len(real), size=size)]
    step = _STEP * rng.random((size, 1), dtype=np.float32)
    mixed = (1 - share) * real[centre] + share * real[other] + step * moved
    made: NDArray[np.float32] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return made


def _spliced(a: str, b: str, rng: Chance) -> str:
    """The beginning of one text and the end of another."""
    first, second = a.split(" "), b.split(" ")
    cut = 1 + int(rng.integers(max(1, len(first) - 1)))
    return " ".join(first[:cut] + second[len(second) * cut // len(first) :]) or a


def _varied(text: str, rng: Chance) -> str:
    """Other numbers, and whom or what it is about."""
    text = re.sub(r"\d+", lambda _: str(int(rng.integers(2, 400))), text)
    who = f"{_FIRST[int(rng.integers(len(_FIRST)))]} {_LAST[int(rng.integers(len(_LAST)))]}"
    what = f"{_PRODUCTS[int(rng.integers(len(_PRODUCTS)))]} {int(rng.integers(1, 900))}"
    return (text, f"{who}: {text}", f"{text} ({what})", f"{what} - {text}")[int(rng.integers(4))]


def _question(text: str, rng: Chance) -> str:
    words = text.split(" ")
    start = int(rng.integers(max(1, len(words) - 6)))
    about = " ".join(words[start : start + 3 + int(rng.integers(5))]).strip(".,;:()")
    who = _FIRST[int(rng.integers(len(_FIRST)))]
    return _ASKED[int(rng.integers(len(_ASKED)))].format(who, about)


def _nearest(
    asked: NDArray[np.float32], among: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Exact neighbours, best first: positions and cosines, shape (len(asked), k)."""
    at = np.empty((len(asked), k), np.int64)
    cosine = np.empty((len(asked), k), np.float32)
    for start in range(0, len(asked), 500):
        scores = asked[start : start + 500] @ among.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.take_along_axis(scores, best, 1).argsort(axis=1)[:, ::-1]
        at[start : start + 500] = np.take_along_axis(best, order, 1)
        cosine[start : start + 500] = np.take_along_axis(scores, at[start : start + 500], 1)
    return at, cosine


def _deciles(values: NDArray[np.float32]) -> list[float]:
    """10th, 50th and 90th percentile."""
    return [round(float(x), 3) for x in np.quantile(values, (0.1, 0.5, 0.9))]
