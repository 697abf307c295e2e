"""A corpus of any size that is never in memory as a whole: blocks of rows, each made from the seed alone.

The same clusters as ``data`` makes (a few thousand texts embedded by the real model, further rows between
neighbours of those), but block after block, and as often as wanted: a store is filled from them, and the
truth for the questions is found by going through the vectors again. Other rows than ``data`` makes for the
same seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import data
from bench._harness import note

BLOCK_ROWS = 10_000
ROWS_MIN = 2_000_000  # from here on a corpus is streamed
_VERSION = 1
_PLACES, _VECTORS, _TEXTS, _LABELS, _QUERIES = range(5)  # what a generator is for


class Streamed:
    """As ``data.Corpus``, without what holds every row."""

    def __init__(self, rows: int, seed: int, queries: int = 200) -> None:
        self.rows = rows
        self._seed = seed
        self.name = hashlib.sha256(f"{_VERSION} {rows} {seed} {queries}".encode()).hexdigest()[:16]
        path = data.kept(f"base-{_VERSION}-{seed}-{queries}.npz")
        if not path.exists():
            self._write(path, queries)
        with np.load(path) as stored:
            self._base = stored["texts"].tobytes().decode().split("\n")
            self.queries = stored["queries"].tobytes().decode().split("\n")
            self._real, self._near = stored["real"], stored["near"]
        self._place = self._rng(_PLACES).permutation(len(self._base))

    def _rng(self, purpose: int, block: int = 0) -> np.random.Generator:
        return np.random.default_rng((self._seed, purpose, block))

    def _write(self, path: Path, queries: int) -> None:
        note("embedding what a corpus grows from")
        base, real, near = data._embedded(self._rng(_PLACES, 1))
        rng = self._rng(_QUERIES)
        asked = [data._question(base[int(i)], rng) for i in rng.integers(len(base), size=queries)]
        texts, questions = (np.frombuffer("\n".join(x).encode(), np.uint8) for x in (base, asked))
        draft = path.with_suffix(".draft")
        with draft.open("wb") as out:
            np.savez(out, texts=texts, queries=questions, real=real, near=near)
        draft.replace(path)

    # -- one block ----------------------------------------------------------------------------------
    def _size(self, block: int) -> int:
        return min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)

    def _origins(
        self, block: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """The two embedded texts that each row lies between, and how many rows are such texts themselves."""
        size, first = self._size(block), block * BLOCK_ROWS
        base = len(self._base)
        centre = self._place[rng.choice(base, size, p=data._weights(base))]
        itself = max(0, min(size, base - first))
        centre[:itself] = first + np.arange(itself)
        return centre, self._near[centre, rng.integers(0, self._near.shape[1], size)], itself

    def vectors(self, block: int) -> NDArray[np.float32]:
        """The vectors of a block, of norm 1, float32, shape (rows, 384)."""
        rng = self._rng(_VECTORS, block)
        centre, other, itself = self._origins(block, rng)
        share = rng.random(len(centre), dtype=np.float32)[:, None] * 0.5
        made = data._mixed(self._real, centre, other, share, rng)
        made[:itself] = self._real[centre[:itself]]
        return made

    def texts(self, block: int) -> list[str]:
        """The texts of a block."""
        centre, other, itself = self._origins(block, self._rng(_VECTORS, block))
        chance = _Quick(f"{self._seed} {_TEXTS} {block}")
        base = self._base
        return [
            base[c] if row < itself else data._varied(data._spliced(base[c], base[o], chance), chance)
            for row, (c, o) in enumerate(zip(centre.tolist(), other.tolist(), strict=True))
        ]

    def _labels(self, block: int) -> tuple[list[str], list[list[str]]]:
        return data._labels(self._size(block), self._rng(_LABELS, block))

    # -- as data.Corpus -----------------------------------------------------------------------------
    def items(self, namespace: str, start: int, count: int) -> list[dict[str, Any]]:
        """Arguments of ``store`` for the rows of one block, vectors included."""
        block, rest = divmod(start, BLOCK_ROWS)
        if rest or count < self._size(block):
            raise ValueError("a streamed corpus is read block by block")
        kinds, tags = self._labels(block)
        rows = zip(self.texts(block), kinds, tags, self.vectors(block), strict=True)
        return [data.item(namespace, number, *row) for number, row in enumerate(rows, start)]

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for block in range(-(-self.rows // BLOCK_ROWS)):
            yield block * BLOCK_ROWS, self.vectors(block)

    @cached_property
    def _marked(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows of the kind and the tag of two filters."""
        kind, tag = np.zeros(self.rows, np.bool_), np.zeros(self.rows, np.bool_)
        for block in range(-(-self.rows // BLOCK_ROWS)):
            part = slice(block * BLOCK_ROWS, block * BLOCK_ROWS + self._size(block))
            kinds, tags = self._labels(block)
            kind[part] = [k == "observation" for k in kinds]
            tag[part] = ["escalated" in t for t in tags]
        return kind, tag

    def passes(self, name: str) -> NDArray[np.bool_]:
        if name in ("50 %", "5 %"):
            return self._marked[name == "5 %"]
        rows = np.arange(self.rows)
        return rows % data.SUBJECTS == 17 if name else rows >= 0

    def other_questions(self, count: int, rng: np.random.Generator) -> list[str]:
        blocks = rng.integers(-(-self.rows // BLOCK_ROWS), size=8)
        texts = [text for block in blocks.tolist() for text in self.texts(block)[: -(-count // 8)]]
        return [data._question(text, rng) for text in texts[:count]]

    def vector(self, row: int) -> NDArray[np.float32]:
        return self._first[row % len(self._first)]

    @cached_property
    def _first(self) -> NDArray[np.float32]:
        return self.vectors(0)


class _Quick:
    """A ``data.Chance`` for single numbers: a third of the time of numpy's."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed).random

    def integers(self, low: int, high: int | None = None, /) -> int:
        low, high = (0, low) if high is None else (low, high)
        return low + int(self._random() * (high - low))
