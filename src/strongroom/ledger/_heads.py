"""A head made anew from the rows that are there: for a repair that accepts a loss."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from strongroom.errors import NamespaceNotFoundError
from strongroom.ledger._types import ELEMENT_PREFIX_BYTES, LedgerHooks, element

_SEQ = (
    "SELECT max(seq, (SELECT coalesce(max(seq), 0) FROM record WHERE ns = ?1)) FROM namespace WHERE ns = ?1"
)
_ROWS = (
    f"SELECT field, memory_id, seq, version, state, substr(sealed, 1, {ELEMENT_PREFIX_BYTES})"  # noqa: S608
    " FROM record WHERE ns = ?"
)
_SET = "UPDATE namespace SET seq = ?, head = ? WHERE ns = ?"


def reset(ns: int, hooks: LedgerHooks) -> Callable[[apsw.Connection], int]:
    """A job that seals a head over the present rows of a namespace; it gives their number.

    Raises (in the job):
        NamespaceNotFoundError: the namespace was never made.
    """

    def job(connection: apsw.Connection) -> int:
        found = connection.execute(_SEQ, (ns,)).fetchone()
        if found is None:
            raise NamespaceNotFoundError()
        elements = [element(*row) for row in connection.execute(_ROWS, (ns,))]
        head = hooks.advance_head(ns, None, 0, int(found[0]), [], elements)
        connection.execute(_SET, (found[0], head, ns))
        return len(elements)

    return job
