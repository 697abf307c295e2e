from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.ledger_hooks import SumHooks

from strongroom.ledger import SqliteLedger, WriteBatch


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """An empty ledger with the namespaces 0, 1 and 2."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as made:
        made.commit(WriteBatch(new_namespaces=[0, 1, 2]))
        yield made
