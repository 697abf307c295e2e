from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers.served import Served, served

import strongroom
from strongroom.client import RemoteRoom


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for a file of tests; each test takes namespaces of its own."""
    with served(tmp_path_factory.mktemp("served") / "data") as out:
        yield out


@pytest.fixture
def room(server: Served) -> Iterator[RemoteRoom]:
    """A client with an admin key for everything."""
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as out:
        yield out
