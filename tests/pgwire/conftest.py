from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.pgwire.wired import Wired, wired


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    """One store behind the wire for a file of tests, with sixty memories."""
    with wired(tmp_path_factory.mktemp("wired") / "data") as out:
        yield out


@pytest.fixture(scope="module")
def connection(wire: Wired) -> Iterator[psycopg.Connection[Any]]:
    """An administrator's connection for a file of tests, each statement by itself."""
    with psycopg.connect(wire.dsn(), autocommit=True) as c:
        yield c
