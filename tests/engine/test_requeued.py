"""Dead letters that several bring back at once, while the worker is at the queue: each is embedded once."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from tests.engine.conftest import OpenRoom
from tests.support.word_model import WordModel

from strongroom.engine import Room
from strongroom.model import QueueStats

SPACES = ("a/one", "b/two", "c/three")
COUNT = 600


def dead_letters(room: Room) -> None:
    """Memories that were given up, in several namespaces."""
    room.store_many([{"content": f"memory {n}", "namespace": SPACES[n % 3]} for n in range(COUNT)])
    ledger, after, dead = room.engine.ledger, 0, 0
    while page := ledger.queue(after=after, limit=100):
        dead += ledger.queue_mark([row.item for row in page], error_code="embedding_rejected", dead=True)
        after = page[-1].id
    assert dead == COUNT


def heads(room: Room) -> int:
    """How many changes there were in all of the namespaces."""
    return sum(room.engine.ledger.head(e.ns)[0] for e in room.engine.registry.entries())


def test_dead_letters_requeued_by_two_at_once_are_embedded_once_and_counted_once(
    open_room: OpenRoom, data: Path
) -> None:
    """Two stores on one directory requeue again and again, each with a worker: one vector for each memory,
    and what they were told they had brought back adds up to what was dead."""
    with open_room(worker=False) as room:
        dead_letters(room)
        before, said_before = heads(room), room.engine.ledger.audit_count()
    models = [WordModel(), WordModel()]
    rooms = [open_room(provider=model) for model in models]
    told: list[int] = []
    go_on = threading.Barrier(2)

    def work(room: Room) -> None:
        go_on.wait(30)
        for _ in range(60):
            told.append(room.requeue())

    threads = [threading.Thread(target=work, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rooms[0].flush(60)
    assert len(told) == 120 and sum(told) == COUNT
    stats = rooms[1].stats()
    assert (stats.embedded, stats.pending, stats.dead) == (COUNT, 0, 0)
    assert heads(rooms[0]) - before == COUNT, "a vector was written twice, or not at all"
    texts = Counter(text for model in models for text in model.texts)
    assert {text for text in texts if text.startswith("memory ")} == {f"memory {n}" for n in range(COUNT)}
    entries = [e for e in rooms[0].audit(limit=500, after=said_before) if e.action == "update"]
    assert len(entries) == 120 and sum(e.count for e in entries) == COUNT
    assert rooms[0].engine.ledger.queue_stats() == QueueStats(pending=0, dead=0)
    assert rooms[0].check(read_data=True).findings == ()
    for room in rooms:
        room.close()
