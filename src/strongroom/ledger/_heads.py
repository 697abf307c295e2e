"""A head made anew from the rows that are there: for a repair that accepts a loss."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from strongroom.ledger._types import ELEMENT_PREFIX_BYTES, element

_LAST = "SELECT coalesce(max(seq), 0) FROM record WHERE ns = ?"
_ROWS = (
    f"SELECT field, memory_id, seq, version, state, substr(sealed, 1, {ELEMENT_PREFIX_BYTES})"  # noqa: S608
    " FROM record WHERE ns = ?"
)


class ResetHead(NamedTuple):
    """Work for the group: forget the head of a namespace and seal one over its present rows."""

    ns: int


def present_rows(connection: apsw.Connection, ns: int) -> tuple[int, list[bytes]]:
    """The highest seq among the rows of a namespace (0: none), and their elements."""
    last = int(connection.execute(_LAST, (ns,)).get)
    return last, [element(*row) for row in connection.execute(_ROWS, (ns,))]
