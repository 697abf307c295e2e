from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.isolation.matrix import Stage, make_stage
from tests.isolation.worlds import World, make_world


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    """A store with foreign namespaces and its twin without."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("planted", "clean"):
        (folder / name).mkdir()
    worlds = [
        make_world(folder / name / "data", planted=name == "planted", folder=folder / "loot")
        for name in ("planted", "clean")
    ]
    yield worlds[0], worlds[1]
    for world in worlds:
        world.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Twins with the engine's lockdown, and twins without."""
    out = make_stage(tmp_path_factory.mktemp("stage"))
    yield out
    out.close()
