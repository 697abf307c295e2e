"""What waits for a namespace's table, as statements of the columnar engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import duckdb
import pyarrow as pa

from strongroom.recall._buffer import Batch
from strongroom.recall._columns import arrow_batch

__all__ = ["FLUSH_ROWS_MAX", "apply_batch", "with_arrow"]

FLUSH_ROWS_MAX: Final = 50_000  # rows of one INSERT, well inside the time limit of a statement
IN_LIST_MAX: Final = 64


def apply_batch(cursor: Any, table: str, batch: Batch) -> None:
    """Apply what waited, in one transaction; errors of the engine pass through."""
    # Only ``table`` (a name of our making), integers and booleans enter these texts.
    cursor.execute("BEGIN TRANSACTION")
    try:
        if batch.removed:
            _where_rids(cursor, f"DELETE FROM {table}", sorted(batch.removed))  # noqa: S608
        rows = list(batch.rows.values())
        for start in range(0, len(rows), FLUSH_ROWS_MAX):
            part = arrow_batch(rows[start : start + FLUSH_ROWS_MAX])
            with_arrow(cursor, part, f"INSERT INTO {table} SELECT * FROM arriving")  # noqa: S608
        for flag in (True, False):
            rids = [rid for rid, embedded in batch.embedded.items() if embedded is flag]
            if rids:
                statement = f"UPDATE {table} SET has_embedding = {flag}"  # noqa: S608
                _where_rids(cursor, statement, rids)
        if batch.access:
            _set_access(cursor, table, batch.access)
        cursor.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # the engine may have rolled back by itself
            cursor.execute("ROLLBACK")
        raise


def _where_rids(cursor: Any, statement: str, rids: Sequence[int]) -> None:
    if len(rids) <= IN_LIST_MAX:
        cursor.execute(f"{statement} WHERE rid IN ({', '.join(str(int(r)) for r in rids)})")
    else:
        arrow = pa.table({"rid": pa.array(rids, pa.int64())})
        with_arrow(cursor, arrow, f"{statement} WHERE rid IN (SELECT rid FROM arriving)")  # noqa: S608


def _set_access(cursor: Any, table: str, access: dict[int, tuple[int, int | None]]) -> None:
    arrow = pa.table(
        {
            "rid": pa.array(access.keys(), pa.int64()),
            "count": pa.array([c for c, _ in access.values()], pa.int64()),
            "last": pa.array([u for _, u in access.values()], pa.timestamp("us", "UTC")),
        }
    )
    with_arrow(
        cursor,
        arrow,
        f"UPDATE {table} AS m SET access_count = a.count, last_accessed_at = a.last"  # noqa: S608
        " FROM arriving AS a WHERE m.rid = a.rid",
    )


def with_arrow(cursor: Any, arrow: Any, statement: str) -> None:
    """Run ``statement`` with ``arrow`` visible to this cursor alone as ``arriving``."""
    cursor.register("arriving", arrow)
    try:
        cursor.execute(statement)
    finally:
        cursor.unregister("arriving")
