"""What is behind the commit of a change cannot fail: an error says that nothing was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.support.word_model import WordModel

from strongroom.engine import Room
from strongroom.errors import KmsUnavailableError, StorageError
from strongroom.ledger import SqliteLedger, WriteBatch
from strongroom.recall.keywords import KeywordLane

OPEN, SEALED = "company_a/open", "company_a/sealed"
READS = ("get", "get_many", "get_parts", "head", "changes", "headers", "snapshot", "queue", "counts")


class Broken:
    """From the commit of the next change on, the disk can no longer be read and no key be had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed = self.on = False
        commit = SqliteLedger.commit

        def watched(ledger: SqliteLedger, batch: WriteBatch) -> list[int]:
            seqs = commit(ledger, batch)
            self.on = self.on or (self.armed and bool(batch.puts))
            return seqs

        monkeypatch.setattr(SqliteLedger, "commit", watched)
        for name in READS:
            self._break(monkeypatch, SqliteLedger, name, StorageError)
        self._break(monkeypatch, KeywordLane, "blinded", KmsUnavailableError)

    def _break(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: type[Exception]) -> None:
        method = getattr(owner, name)

        def may_fail(*arguments: Any, **options: Any) -> Any:
            if self.on:
                raise error
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, may_fail)

    def beside(self, act: Callable[[], Any]) -> Any:
        self.armed = True
        try:
            return act()
        finally:
            assert self.on, "nothing was committed"
            self.armed = self.on = False


def entries_of(room: Room) -> list[tuple[str, str]]:
    return [(e.action, e.outcome) for e in room.audit(limit=200) if e.action in ("store", "update", "delete")]


def test_a_change_whose_commit_was_the_last_that_the_disk_took_is_told_as_done(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores, updates and deletes answer, have one entry each, and are found when the disk is back."""
    room, model = open_room(worker=False), WordModel()
    room.create_namespace(OPEN)
    room.create_namespace(SEALED, sealed_in_memory=True)
    expected: list[tuple[str, str]] = []
    broken = Broken(monkeypatch)
    for ns in (OPEN, SEALED):
        first, second = (room.store(f"an {word} thing", namespace=ns).memory_id for word in ("old", "odd"))
        room.search("thing", namespaces=[ns], mode="keyword")
        room.get(first, namespace=ns)
        before = len(entries_of(room))
        acts: list[tuple[str, Callable[[], Any]]] = [
            ("store", lambda: room.store("a new thing", namespace=ns, subject=f"user:{ns}")),  # noqa: B023
            ("store", lambda: room.store_many([{"content": "another thing", "namespace": ns}])),  # noqa: B023
            ("update", lambda: room.update(first, namespace=ns, content="a changed thing")),  # noqa: B023
            ("update", lambda: room.update(first, namespace=ns, importance=0.9)),  # noqa: B023
            ("update", lambda: room.update(first, namespace=ns, embedding=model.vector("x"))),  # noqa: B023
            ("delete", lambda: room.delete(second, namespace=ns)),  # noqa: B023
        ]
        for _, act in acts:
            broken.beside(act)
        assert entries_of(room)[before:] == [(name, "ok") for name, _ in acts]
        found = {h.memory.content for h in room.search("thing", namespaces=[ns], mode="keyword")}
        assert found == {"a new thing", "another thing", "a changed thing"}
        changed = room.get(first, namespace=ns)
        assert (changed.version, changed.importance, changed.has_embedding) == (4, 0.9, True)
        expected += entries_of(room)[before:]
    assert room.check(read_data=True).ok and len(expected) == 12
