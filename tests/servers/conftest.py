from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.servers.served import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for a file of tests; each test takes namespaces of its own."""
    with served(tmp_path_factory.mktemp("served") / "data") as out:
        yield out


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    """A client with an admin key for everything."""
    with server.http() as client:
        yield client
