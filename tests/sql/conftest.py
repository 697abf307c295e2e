from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, LimitsConfig
from strongroom.engine import Room
from strongroom.engine.session import Session

OWN = ("company_a/support", "company_a/sales")
FOREIGN = "company_b/secret"
CANARY = "canary-7f3a-xylophone"
TOPICS = (
    "billing invoice refund",
    "travel to rome by train",
    "cooking pasta with basil",
    "server outage at night",
)

OpenRoom = Callable[..., Room]


def drafts(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Memories of two namespaces, with every kind of value and of NULL."""
    random = Random(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for i in range(count):
        made.append(
            {
                "content": f"note {i}: {random.choice(TOPICS)} {random.randrange(50)}",
                "namespace": OWN[i % 2],
                "kind": random.choice(["observation", "fact", "preference"]),
                "metadata": {"n": i, "plan": random.choice(["team", "enterprise"]), "deep": {"x": [i, None]}},
                "tags": random.sample(["pricing", "urgent", "billing", "it's"], random.randrange(3)),
                "subject": random.choice([None, "user:1", "user:2"]),
                "agent_id": random.choice([None, "agent-1", "agent-2", "agent-3"]),
                "session_id": random.choice([None, "s1", "s2"]),
                "importance": random.randrange(100) / 100,
                "created_at": start + timedelta(hours=random.randrange(5000), microseconds=i),
            }
        )
    return made


@pytest.fixture
def open_room(tmp_path: Path) -> Iterator[OpenRoom]:
    opened: list[Room] = []

    def open_it(limits: LimitsConfig | None = None, **options: Any) -> Room:
        directory = tmp_path / "data"
        if not directory.exists():
            config = Config(embedding=EmbeddingConfig(dimensions=64), limits=limits or LimitsConfig())
            strongroom.init(directory, config=config)
        room = strongroom.open(directory, provider=options.pop("provider", WordModel()), **options)
        opened.append(room)
        return room

    yield open_it
    for room in opened:
        room.close()


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    """A store with a foreign namespace full of canaries beside the caller's own."""
    room = open_room()
    room.store_many(drafts(120))
    room.store_many(
        {
            "content": f"{CANARY} {i}", "namespace": FOREIGN, "agent_id": CANARY, "subject": CANARY,
            "tags": [CANARY], "metadata": {CANARY: CANARY}, "importance": 0.987654,
        }
        for i in range(31)
    )  # fmt: skip
    room.flush()
    return room


@pytest.fixture
def caller(room: Room) -> Session:
    """Somebody who may read company_a and nothing else."""
    _, key = room.keys_create("reader", "read-only", ["company_a/*"])
    return room.engine.authenticate(key)
