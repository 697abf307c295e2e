"""The disk is full at the n-th write of one store, for every n there is, in the ledger and in the keyring."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.faults import Countdown, FaultVfs
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.errors import StorageError, StorageFullError

NS = "company_a/support"
STEPS_MAX = 200


@pytest.fixture
def disk() -> Iterator[Countdown]:
    """Whatever SQLite does from here on goes through it; the same for every file of the store."""
    countdown = Countdown()
    vfs = FaultVfs(f"faults-{uuid.uuid4().hex}", countdown, for_all=True)
    yield countdown
    vfs.unregister()


@pytest.mark.parametrize("full", [True, False])
def test_a_store_that_fails_at_its_nth_write_leaves_nothing_and_harms_nothing(
    tmp_path: Path, disk: Countdown, full: bool
) -> None:
    """A typed error, no memory and no gap; what was acknowledged before opens, and the next store works."""
    directory = tmp_path / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(dimensions=64)))
    expected = StorageFullError if full else StorageError
    disk.full = full
    acknowledged: list[uuid.UUID] = []
    vector = np.ones(64, np.float32)
    with strongroom.open(directory, provider=WordModel(64), worker=False) as room:
        for at in range(STEPS_MAX):
            disk.left = at
            try:  # the first memory of a new data subject: a key is made, then the rows are written
                made = room.store(f"memory {at}", namespace=NS, subject=f"user:{at}", embedding=vector)
                acknowledged.append(made.memory_id)
            except expected:
                pass
            is_over = disk.left > 0  # there were fewer steps than that
            disk.left = -1
            made = room.store("after", namespace=NS, subject=f"user:{at}", embedding=vector)
            acknowledged.append(made.memory_id)
            assert room.stats([NS]).memories == len(acknowledged)
            if is_over:
                break
        assert 8 < at < STEPS_MAX - 1
        report = room.check(read_data=True)
        assert report.ok, report.findings
    with strongroom.open(directory, provider=WordModel(64), worker=False) as room:
        for memory_id in acknowledged:
            room.get(memory_id, namespace=NS)
        assert room.stats([NS]).memories == len(acknowledged)


READS: dict[str, Callable[[Room, uuid.UUID], int]] = {
    "get": lambda room, made: int(room.get(made, namespace=NS).memory_id == made),
    "search": lambda room, made: len(room.search("memory", namespaces=[NS])),
    "list": lambda room, made: len(room.list(namespaces=[NS]).memories),
    "sql": lambda room, made: room.sql("SELECT content FROM memories").row_count,
    "stats": lambda room, made: room.stats([NS]).memories,
}


@pytest.mark.parametrize("name", list(READS))
def test_nothing_is_answered_when_its_audit_entry_does_not_fit_on_the_disk(
    tmp_path: Path, disk: Countdown, name: str
) -> None:
    """Whatever was found and opened is withheld; with room again the same question is answered."""
    directory = tmp_path / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(dimensions=64)))
    with strongroom.open(directory, provider=WordModel(64), worker=False) as room:
        made = room.store("memory", namespace=NS, embedding=np.ones(64, np.float32)).memory_id
        assert READS[name](room, made) == 1
        before = room.engine.ledger.audit_count()
        disk.full, disk.left = True, 0
        with pytest.raises(StorageFullError):
            READS[name](room, made)
        disk.left = -1
        assert room.engine.ledger.audit_count() == before
        assert READS[name](room, made) == 1
        assert room.engine.ledger.audit_count() == before + 1
