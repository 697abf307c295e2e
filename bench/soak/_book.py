"""What every seat of the soak did, in a file that outlives its process, and what therefore has to be there.

A seat writes a line before an operation and one after it, straight to the file: a killed process loses
nothing of it. Of the last operation of a killed process either outcome is right; whoever opens the book
again asks the store and writes down what was found.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OWN = 10**9  # tickets from here on are memories that the soak stored; below: rows of the corpus
TICKET = 10_000  # the ticket of the corpus's first row
_PER_SEAT = 10**8
GONE = 0
_STEP = 0.35
_ABOUT_ONE = 20  # as many memories of a seat in a row are about one subject


@dataclass(frozen=True)
class Pool:
    """Texts and unit vectors (float32, shape (n, 384)) to make contents and neighbours of."""

    texts: list[str]
    vectors: NDArray[np.float32]
    queries: list[str]

    def save(self, path: Path) -> None:
        texts, queries = (np.frombuffer("\n".join(x).encode(), np.uint8) for x in (self.texts, self.queries))
        np.savez(path, vectors=self.vectors, texts=texts, queries=queries)

    @classmethod
    def load(cls, path: Path) -> Pool:
        with np.load(path) as stored:
            texts, queries = (stored[x].tobytes().decode().split("\n") for x in ("texts", "queries"))
            return cls(texts, stored["vectors"], queries)

    def content(self, ticket: int, version: int) -> str:
        return f"soak {ticket} edition {version}: {self.texts[(ticket * 31 + version) % len(self.texts)]}"

    def vector(self, ticket: int, version: int) -> NDArray[np.float32]:
        """A place near a real embedding, moved along the difference of two others, as the corpus is made."""
        rng = np.random.default_rng((ticket, version))
        a, b, c = self.vectors[rng.integers(len(self.vectors), size=3)]
        moved: NDArray[np.float32] = a + np.float32(_STEP * rng.random()) * (b - c)
        return moved / np.float32(np.linalg.norm(moved))


def own_ticket(seat: int, number: int) -> int:
    return OWN + seat * _PER_SEAT + number


def has_vector(ticket: int) -> bool:
    """Every fourth memory of the soak's own comes without a vector, for the model to embed."""
    return ticket < OWN or ticket % 4 != 0


def id_of(ticket: int) -> uuid.UUID:
    """The id of a memory of the soak's own."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"soak/{ticket}")


def subject_of(ticket: int) -> str:
    """Whom a memory of the soak's own is about."""
    return f"soak:{ticket // _ABOUT_ONE}"


@dataclass
class Book:
    """``state``: the version of every touched memory, 0: it is deleted. ``open``: an act without an end."""

    path: Path
    state: dict[int, int] = field(default_factory=dict)
    open: tuple[int, int] | None = None  # ticket, version that it would have
    acts: int = 0
    faults: list[str] = field(default_factory=list)
    notes: dict[str, list[float]] = field(default_factory=dict)
    _out: int = -1

    @classmethod
    def read(cls, path: Path) -> Book:
        book = cls(path)
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                book._take(line)
        return book

    def _take(self, line: str) -> None:
        what, _, rest = line.partition(" ")
        if what == "fault":
            self.faults.append(rest)
        elif what == "note":
            name, value = rest.rsplit(" ", 1)
            self.notes.setdefault(name, []).append(float(value))
        elif what in ("begin", "end", "found"):
            ticket, version = (int(x) for x in rest.split())
            self.open = (ticket, version) if what == "begin" else None
            if what != "begin":
                self.state[ticket] = version
                self.acts += 1

    def _write(self, line: str) -> None:
        if self._out < 0:
            self._out = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._out, (line + "\n").encode())
        self._take(line)

    def begin(self, ticket: int, version: int) -> None:
        self._write(f"begin {ticket} {version}")

    def end(self, ticket: int, version: int) -> None:
        self._write(f"end {ticket} {version}")

    def found(self, ticket: int, version: int) -> None:
        self._write(f"found {ticket} {version}")

    def fault(self, text: str) -> None:
        self._write("fault " + " ".join(text.split())[:500])

    def note(self, name: str, value: float) -> None:
        self._write(f"note {name} {value:.6g}")

    def may_be(self, ticket: int) -> tuple[int, ...]:
        """The versions that are right for it now; a row of the corpus that nobody touched has version 1."""
        known = self.state.get(ticket, 1 if ticket < OWN else GONE)
        if self.open is not None and self.open[0] == ticket:
            return (known, self.open[1])
        return (known,)
