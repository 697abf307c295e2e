from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keyring.keyring_tools import Keys


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    found = Keys(tmp_path / "store.keys")
    yield found
    found.close()
