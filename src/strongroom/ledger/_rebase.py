"""A namespace under another purpose root: a new head, and rows that are found by a keyed hash under new ids.

One transaction (spec/rotation.md). Rows keep their ``seq``, so projections have nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import apsw

from strongroom.ledger._types import ELEMENT_PREFIX_BYTES

_PREFIX = f"substr(sealed, 1, {ELEMENT_PREFIX_BYTES})"
_ROWS = f"SELECT id, memory_id, field, seq, version, key_id, state, {_PREFIX} FROM record WHERE ns = ?"  # noqa: S608
_SEALED = "SELECT sealed FROM record WHERE id = ?"
_RENAME = "UPDATE record SET memory_id = ?, key_id = ?, sealed = ? WHERE id = ?"


class RebaseRow(NamedTuple):
    """A row as it stands. ``prefix``: the first 62 of the sealed bytes."""

    id: int
    memory_id: bytes
    field: int
    seq: int
    version: int
    key_id: int
    state: int
    prefix: bytes


class Renamed(NamedTuple):
    """What a row is to be: under another id, sealed for it with the key ``key_id``."""

    id: int
    memory_id: bytes
    key_id: int
    sealed: bytes


Rows = Iterator[RebaseRow]
SealedOf = Callable[[int], bytes]


class Rebase(NamedTuple):
    """Work for the group. ``make`` gets seq and head of the namespace, all of its rows, and a way to the
    sealed bytes of one; it gives the new head and the rows that change. It must not call the ledger."""

    ns: int
    make: Callable[[int, bytes, Rows, SealedOf], tuple[bytes, list[Renamed]]]


def rows_of(connection: apsw.Connection, ns: int) -> Rows:
    for row in connection.execute(_ROWS, (ns,)):
        yield RebaseRow(*row)


def sealed_of(connection: apsw.Connection) -> SealedOf:
    return lambda row_id: bytes(connection.execute(_SEALED, (row_id,)).get)


def rename(connection: apsw.Connection, rows: list[Renamed]) -> None:
    connection.executemany(_RENAME, [(row.memory_id, row.key_id, row.sealed, row.id) for row in rows])
