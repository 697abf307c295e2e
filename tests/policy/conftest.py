from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import AccessConfig, Config, EmbeddingConfig
from strongroom.engine import Room, Session
from strongroom.model import IN_PROCESS, NamespacePattern, Principal, RequestContext, Scope


class Stage:
    """A store with attribute policies, and callers with attributes."""

    def __init__(self, directory: Path, room: Room) -> None:
        self.directory = directory
        self.room = room

    def policies(self, text: str, name: str = "a.cedar") -> None:
        """Put a policy file in place of the one before, and let it be seen at once."""
        (self.directory / "policies" / name).write_text(text, "utf-8")
        self.room.engine.policies._look_at = 0.0

    def caller(self, *grants: str, context: RequestContext = IN_PROCESS, **fields: Any) -> Session:
        """A session of a principal with these grants and attributes."""
        fields = {"id": "k-test", "name": "test", "scope": Scope.READ_WRITE, **fields}
        who = Principal(grants=tuple(NamespacePattern.parse(g) for g in grants or ("*",)), **fields)
        return Session(self.room.engine, lambda: who, "python", caller=who.id, context=context)

    def audit(self, limit: int = 1000) -> list[Any]:
        return list(self.room.audit(limit=limit))


NOW_US = 1_790_000_000_000_000  # a Monday, 14:13 UTC


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with opened(tmp_path) as made:
        yield made


def opened(folder: Path, **access: Any) -> Any:
    return _Opened(folder, access)


class _Opened:
    def __init__(self, folder: Path, access: dict[str, Any]) -> None:
        directory = folder / "data"
        (directory / "policies").mkdir(parents=True)
        config = Config(
            embedding=EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50),
            access=dataclasses.replace(AccessConfig(policy_directory="policies"), **access),
        )
        strongroom.init(directory, config=config)
        self.stage = Stage(directory, strongroom.open(directory, provider=WordModel(), debug=True))

    def __enter__(self) -> Stage:
        return self.stage

    def __exit__(self, *_: object) -> None:
        self.stage.room.close()


Make = Callable[..., Session]
