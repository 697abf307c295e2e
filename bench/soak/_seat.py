"""One process of the soak, until it is killed: ``-m bench.soak._seat STORE WORK SEAT SEATS SEED RATE``.

It searches, stores, changes and deletes at a steady rate, keeps its book, and holds every answer to what
it knows. What is wrong goes into the book as a fault, and the process goes on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

import strongroom
from bench._harness import resident_mib
from bench._stores import NAMESPACE, is_settled
from bench.soak._book import GONE, OWN, TICKET, Book, Pool, has_vector, id_of, own_ticket, subject_of
from strongroom.errors import MemoryNotFoundError, StrongroomError
from strongroom.model import Memory

_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"kinds": ["observation"]},
    {"tags_any": ["escalated"]},
    {"subjects": ["user:17"]},
)
_K = 10
_FOUND_S = 60.0
_LATEST = 200
_SHARES = {"search": 0.50, "store": 0.22, "update": 0.15, "delete": 0.09, "subject": 0.005, "read": 0.035}
_NOTE_S = 10.0


class Seat:
    """Its part of the memories: those it stored, and the corpus's rows with its remainder."""

    def __init__(self, room: Any, work: Path, seat: int, seats: int, seed: int) -> None:
        self.room, self.seat, self.seats = room, seat, seats
        self.pool = Pool.load(work / "pool.npz")
        self.ids = np.load(work / "ids.npy", mmap_mode="r")  # uint8, shape (rows, 16)
        self.book = Book.read(work / f"seat-{seat}.book")
        self.rng = np.random.default_rng((seed, seat, self.book.acts))
        known = [*self.book.state, *([self.book.open[0]] if self.book.open else [])]
        self.next = 1 + max((t - own_ticket(seat, 0) for t in known if t >= OWN), default=-1)

    def place(self, ticket: int) -> UUID:
        return id_of(ticket) if ticket >= OWN else UUID(bytes=self.ids[ticket].tobytes())

    def mine(self, ticket: int) -> bool:
        if ticket >= OWN:
            return own_ticket(self.seat, 0) <= ticket < own_ticket(self.seat + 1, 0)
        return ticket % self.seats == self.seat

    def look(self, ticket: int) -> int:
        """The version that the store has; a fault when neither that nor the content may be."""
        may_be = self.book.may_be(ticket)
        try:
            memory = self.room.get(self.place(ticket), namespace=NAMESPACE)
        except MemoryNotFoundError:
            memory = None
        version = GONE if memory is None else memory.version
        if version not in may_be:
            self.book.fault(f"memory {ticket} has version {version}, may be {may_be}")
        elif memory is not None:
            self.held(ticket, memory)
        return version

    def held(self, ticket: int, memory: Memory) -> None:
        """A memory of this seat as it was answered: is it the one that was stored?"""
        if memory.version not in self.book.may_be(ticket):
            self.book.fault(f"memory {ticket} answered with version {memory.version}")
        elif ticket < OWN and memory.version == 1:
            return  # as the corpus has it, which this process does not know
        elif memory.content != self.pool.content(ticket, memory.version):
            self.book.fault(f"memory {ticket} has another content than version {memory.version}")

    def settle(self) -> None:
        """What the process before left open, and whether its last acts are there."""
        if self.book.open is not None:
            ticket = self.book.open[0]
            self.book.found(ticket, self.look(ticket))
        for ticket in list(self.book.state)[-_LATEST:]:
            self.look(ticket)

    def pick(self) -> int | None:
        """A memory of this seat that is there: one of its own or a row of the corpus."""
        if self.next and self.rng.random() < 0.4:
            ticket = own_ticket(self.seat, int(self.rng.integers(self.next)))
        else:
            ticket = int(self.rng.integers(len(self.ids) // self.seats)) * self.seats + self.seat
        return ticket if self.book.may_be(ticket) != (GONE,) else None

    def search(self) -> None:
        mode = ("hybrid", "semantic", "keyword")[int(self.rng.integers(3))]
        given = _FILTERS[int(self.rng.integers(len(_FILTERS)))]
        query = self.pool.queries[int(self.rng.integers(len(self.pool.queries)))]
        hits = self.room.search(query, namespaces=[NAMESPACE], k=_K, mode=mode, **given)
        if mode != "keyword" and len(hits) != _K:
            self.book.fault(f"a {mode} search inside {given} returned {len(hits)} of {_K}")
        for hit in hits:
            ticket = int(hit.memory.metadata["ticket"])
            ticket -= 0 if ticket >= OWN else TICKET
            if self.mine(ticket):
                self.held(ticket, hit.memory)

    def store(self) -> None:
        ticket = own_ticket(self.seat, self.next)
        self.next += 1
        vector = self.pool.vector(ticket, 1) if has_vector(ticket) else None
        self.book.begin(ticket, 1)
        self.room.store(
            self.pool.content(ticket, 1),
            namespace=NAMESPACE,
            memory_id=id_of(ticket),
            subject=subject_of(ticket),
            tags=["soak"],
            metadata={"ticket": ticket},
            embedding=vector,
        )
        self.book.end(ticket, 1)
        if vector is not None and ticket % 10 == 1:
            self.until_found(ticket, vector)

    def until_found(self, ticket: int, vector: object) -> None:
        started = time.monotonic()
        while time.monotonic() - started < _FOUND_S:
            hits = self.room.search(embedding=vector, mode="semantic", namespaces=[NAMESPACE], k=_K)
            if any(hit.memory.memory_id == id_of(ticket) for hit in hits):
                self.book.note("stored to found, s", time.monotonic() - started)
                return
            time.sleep(0.01)
        self.book.fault(f"memory {ticket} was not found {_FOUND_S:.0f} s after it was stored")

    def update(self) -> None:
        ticket = self.pick()
        if ticket is None:
            return
        version = self.book.may_be(ticket)[0]
        self.book.begin(ticket, version + 1)
        self.room.update(
            self.place(ticket),
            namespace=NAMESPACE,
            expected_version=version,
            content=self.pool.content(ticket, version + 1),
            embedding=self.pool.vector(ticket, version + 1),
        )
        self.book.end(ticket, version + 1)

    def delete(self, ticket: int | None = None) -> None:
        ticket = self.pick() if ticket is None else ticket
        if ticket is None:
            return
        self.book.begin(ticket, GONE)
        if not self.room.delete(self.place(ticket), namespace=NAMESPACE):
            self.book.fault(f"memory {ticket} was not there to be deleted")
        self.book.end(ticket, GONE)

    def subject(self) -> None:
        """Everything about one subject goes; then nothing of it is found by filter."""
        if not self.next:
            return
        name = subject_of(own_ticket(self.seat, int(self.rng.integers(self.next))))
        for ticket in [t for t, v in self.book.state.items() if v != GONE and t >= OWN]:
            if subject_of(ticket) == name:
                self.delete(ticket)
        page = self.room.list(namespaces=[NAMESPACE], subjects=[name], limit=_K)
        if page.memories:
            self.book.fault(f"{len(page.memories)} memories of a deleted subject are listed")

    def read(self) -> None:
        ticket = self.pick()
        if ticket is not None:
            self.look(ticket)
        if self.next and self.rng.random() < 0.3:
            name = subject_of(own_ticket(self.seat, int(self.rng.integers(self.next))))
            there = sum(v != GONE for t, v in self.book.state.items() if t >= OWN and subject_of(t) == name)
            statement = "SELECT count(*) FROM memories WHERE subject = ?"
            found = next(iter(self.room.sql(statement, [name], namespaces=[NAMESPACE]).rows()))[0]
            if found != there:
                self.book.fault(f"SQL counts {found} memories of a subject that has {there}")

    def act(self) -> None:
        name = str(self.rng.choice(list(_SHARES), p=list(_SHARES.values())))
        started = time.perf_counter()
        try:
            getattr(self, name)()
        except StrongroomError as e:  # an operation that fails is a fault; what it left is looked up
            self.book.fault(f"{name}: {e.code}: {e}")
            if self.book.open is not None:
                self.book.found(self.book.open[0], self.look(self.book.open[0]))
        self.book.note(f"{name}, s", time.perf_counter() - started)


def main() -> None:
    directory, work = Path(sys.argv[1]), Path(sys.argv[2])
    seat, seats, seed, rate = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
    started = time.monotonic()
    room = strongroom.open(directory)
    me = Seat(room, work, seat, seats, seed)
    room.search("a first question", namespaces=[NAMESPACE])
    me.book.note("opened to first answer, s", time.monotonic() - started)
    me.settle()
    due = noted = time.monotonic()
    while True:
        due = max(due + 1 / rate, time.monotonic() - 1.0)  # after a pause it does not catch up
        time.sleep(max(0.0, due - time.monotonic()))
        me.act()
        if time.monotonic() - noted > _NOTE_S:
            noted = time.monotonic()
            sampled = room.engine.metrics.registry.get_sample_value("strongroom_recall_sampled")
            me.book.note("recall sampled", 1.0 if sampled is None else sampled)
            if is_settled(room):  # what it holds then, and since when it runs
                me.book.note("at rest, s", noted - started)
                me.book.note("at rest, MiB", resident_mib())
                me.book.note("counted, MiB", room.engine.indexes.residency.total_bytes() / 2**20)


if __name__ == "__main__":
    main()
