"""An index that is dropped while a question is put to it: the question is put again, to the next index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.sql.conftest import OpenRoom, drafts

from strongroom.engine import Room
from strongroom.recall.sql import SqlEngine

STATEMENTS = (
    "SELECT count(*) FROM memories WHERE kind = 'fact'",
    "SELECT memory_id, content FROM memories ORDER BY created_at DESC LIMIT 7",
    "SELECT memory_id FROM memories ORDER BY semantic_rank(content, 'a train to rome') DESC LIMIT 5",
    "SELECT content FROM memories WHERE subject = 'user:1' ORDER BY created_at DESC LIMIT 5",
    "SELECT kind, count(*) FROM memories GROUP BY kind ORDER BY kind",
    "SELECT kind, max(importance) FROM memories GROUP BY kind ORDER BY kind",  # never answered directly
)


def drop_all(room: Room) -> None:
    for entry in room.engine.registry.entries():
        room.engine.indexes.drop(entry.ns)


def once_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> list[int]:
    """Do something just before the first call of a method; the list has an item when it was done."""
    method = getattr(owner, name)
    done: list[int] = []

    def first(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(1)
            act()
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, first)
    return done


@pytest.mark.parametrize("place", ["run", "_run", "_rows", "_new_cursor"])
def test_a_statement_whose_namespaces_are_dropped_under_it_answers_as_before(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither too few rows (none at all, when it is answered directly) nor an error of the engine."""
    room = open_room()
    room.store_many(drafts(60))
    room.flush()
    dropped = 0
    for statement in STATEMENTS:
        expected = list(room.sql(statement).rows())
        assert expected
        if place == "_new_cursor":
            drop_all(room)  # so that one is needed
        with monkeypatch.context() as patched:
            done = once_before(patched, SqlEngine, place, lambda: drop_all(room))
            assert list(room.sql(statement).rows()) == expected
        dropped += len(done)
    assert dropped


def test_a_description_does_not_fail_when_its_namespaces_are_dropped(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The columns of a statement are told although its tables went away meanwhile."""
    room = open_room()
    room.store_many(drafts(10))
    done = once_before(monkeypatch, SqlEngine, "describe", lambda: drop_all(room))
    assert [c.name for c in room.sql_describe(STATEMENTS[4]).columns] == ["kind", "count_star()"]
    assert done
