"""What work on keys reads of the keyring grows with the namespaces, not with their square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import strongroom
from strongroom.config import Config, EmbeddingConfig, RotationConfig
from strongroom.engine import Room, _rotation_policy
from strongroom.keyring._rows import NamespaceRow, WrapRow

SPACES = 40
# Each namespace key is verified a handful of times by each; with the square it would be 40 times a handful.
PER_SPACE_MAX = 25

ACTS: dict[str, Callable[[Room], object]] = {
    "rotate namespace": lambda room: room.rotate_namespace(),
    "rotation policy": lambda room: _rotation_policy.apply(room.engine, room.engine.rotations.waves),
    "respond": lambda room: room.respond_key_compromise("namespace:team/39", dry_run=True),
    "kms status": lambda room: room.kms_status(),
}


@pytest.fixture
def wide(tmp_path: Path) -> Room:
    config = Config(
        embedding=EmbeddingConfig(provider="none", dimensions=8), rotation=RotationConfig(worker=False)
    )
    strongroom.init(tmp_path / "data", config=config)
    room = strongroom.open(tmp_path / "data", worker=False)
    for number in range(SPACES):
        room.create_namespace(f"team/{number}")
    return room


@pytest.mark.parametrize("name", list(ACTS))
def test_no_work_on_keys_reads_all_namespaces_for_each_of_them(
    wide: Room, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Rows of namespace keys and of wraps that are verified, counted: at most so many for each namespace."""
    verified = 0

    def counted(act: Callable[..., object]) -> Callable[..., object]:
        def verify(*arguments: object) -> object:
            nonlocal verified
            verified += 1
            return act(*arguments)

        return verify

    for kind in (NamespaceRow, WrapRow):
        monkeypatch.setattr(kind, "verified", counted(kind.verified))
    with wide:
        ACTS[name](wide)
    assert SPACES <= verified <= PER_SPACE_MAX * SPACES
