from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keyring.keyring_tools import CACHE_S, Clock, Keys, Switch

from strongroom.keyring import Keyring


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    found = Keys(tmp_path / "store.keys")
    yield found
    found.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kms(keys: Keys) -> Switch:
    return Switch(keys)


@pytest.fixture
def ring(keys: Keys, kms: Switch, clock: Clock) -> Keyring:
    return keys.create(cache_s=CACHE_S, clock=clock, recheck_ms=0)
