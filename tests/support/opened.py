"""Which sealed rows are opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from strongroom.model import SealedRecord


@contextmanager
def rows_opened(vault: Any) -> Iterator[list[SealedRecord]]:
    """The rows that the vault is asked to open in the ``with`` block, one by one or many at once."""
    seen: list[SealedRecord] = []
    one, many = vault.open, vault.open_rows

    def open_one(tenant: str, row: SealedRecord) -> bytes:
        seen.append(row)
        return bytes(one(tenant, row))

    def open_many(tenant: str, rows: Sequence[SealedRecord], opened: list[bytes]) -> None:
        seen.extend(rows)
        many(tenant, rows, opened)

    with mock.patch.object(vault, "open", open_one), mock.patch.object(vault, "open_rows", open_many):
        yield seen
