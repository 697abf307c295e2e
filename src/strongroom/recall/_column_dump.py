"""The columns of a namespace in a snapshot: Arrow IPC streams of a few thousand rows each.

What is written is the table without its hidden keys: those are hashes that hold for one process only,
and are made again from the texts when a snapshot is read. They are computed once for each distinct
text, not for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strongroom.errors import IntegrityError, InternalError
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._columns import TABLE_COLUMNS, tag_bits, text_key

__all__ = ["FrozenColumns", "passed_over", "restored_columns", "with_keys"]

PART_ROWS: Final = 16_384
_SCRATCH_BYTES: Final = 1 << 17
_KEYS: Final = {
    "kind": "kind_key",
    "subject": "subject_key",
    "agent_id": "agent_key",
    "session_id": "session_key",
}
_HIDDEN: Final = frozenset((*_KEYS.values(), "tag_bits"))
_SHOWN: Final = tuple(name for name in TABLE_COLUMNS if name not in _HIDDEN)
_AS_BYTES: Final = {"memory_id": "BLOB", "derived_from": "BLOB[]", "metadata": "VARCHAR"}
_SELECT: Final = ", ".join(
    f"CAST({name} AS {_AS_BYTES[name]}) AS {name}" if name in _AS_BYTES else name for name in _SHOWN
)


class FrozenColumns:
    """The rows of a table as one transaction sees them; close it soon."""

    def __init__(self, open_cursor: Callable[[], Any], table: str) -> None:
        """``open_cursor`` gives a context manager; ``table`` is a name of our own making."""
        self._table = table
        self._open = ExitStack()
        try:
            self._cursor = self._open.enter_context(open_cursor())
            self._cursor.execute("BEGIN TRANSACTION")
            self._open.callback(self._roll_back)
            self._cursor.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - fixes the state
        except BaseException:
            self.close()
            raise

    def dump(self, out: BlockWriter, rids: NDArray[np.int64]) -> None:
        """Write the rows ``rids`` (ascending) as the rows 0, 1, 2 ...

        Raises:
            InternalError: the columnar engine failed. ClosedError: it was closed.
        """
        starts = range(0, len(rids), PART_ROWS)
        out.array("COLN", np.array([len(starts)]), "<i8")
        for start in starts:
            wanted = rids[start : start + PART_ROWS]
            text = (
                f"SELECT {_SELECT} FROM {self._table}"  # noqa: S608 - integers and names of our own making
                f" WHERE rid BETWEEN {int(wanted[0])} AND {int(wanted[-1])} ORDER BY rid"
            )
            rows = self._fetch(text)
            places = np.searchsorted(wanted, rows.column("rid").to_numpy())
            number = pa.array(places + start, pa.int64())
            rows = rows.set_column(0, pa.field("rid", pa.int64()), number)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as stream:
                stream.write_table(rows)
            out.array("COLS", np.frombuffer(sink.getvalue(), dtype=np.uint8), "<u1")

    def _fetch(self, text: str) -> Any:
        try:
            return self._cursor.sql(text).to_arrow_table().combine_chunks()
        except duckdb.Error as e:
            raise InternalError(f"the columnar engine failed: {type(e).__name__}") from None

    def _roll_back(self) -> None:
        with suppress(duckdb.Error):  # the store may be closed by now
            self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        """Let the transaction go. May be called twice."""
        self._open.close()


def passed_over(source: BlockReader) -> int:
    """Read what ``FrozenColumns.dump`` wrote without keeping it; how many bytes it has.

    Raises:
        IntegrityError: it is of another form.
    """
    began = source.position
    scratch = memoryview(bytearray(_SCRATCH_BYTES))
    for _ in range(int(source.array("COLN", "<i8", rows=1)[0])):
        source.skip(source.head("COLS", "<u1"), scratch)
    return source.position - began


def restored_columns(source: BlockReader) -> Iterator[Any]:
    """The tables (Arrow, to be completed by ``with_keys``) that ``FrozenColumns.dump`` wrote.

    Raises:
        IntegrityError: they are of another form.
    """
    for _ in range(int(source.array("COLN", "<i8", rows=1)[0])):
        yield _read(source.array("COLS", "<u1"))


def _read(raw: NDArray[np.uint8]) -> Any:
    try:
        with pa.ipc.open_stream(pa.py_buffer(raw)) as stream:
            rows = stream.read_all().combine_chunks()
    except (pa.ArrowException, OSError):
        raise IntegrityError("a snapshot holds columns that cannot be read") from None
    if tuple(rows.column_names) != _SHOWN:
        raise IntegrityError("a snapshot holds columns that this version does not know")
    return rows


def with_keys(rows: Any) -> Any:
    """All columns of the namespace's table: those that were written, and the hidden keys."""
    made = {name: rows.column(name) for name in _SHOWN}
    for name, key in _KEYS.items():
        made[key] = _text_keys(made[name])
    made["tag_bits"] = _tag_bits(made["tags"])
    return pa.table([made[name] for name in TABLE_COLUMNS], names=list(TABLE_COLUMNS))


def _text_keys(texts: Any) -> Any:
    """``text_key`` of each text, null where there is none."""
    import pyarrow.compute as pc  # in the background: loading it would delay the first answer

    coded = pc.dictionary_encode(texts).combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # no rows
        return pa.array([], pa.int64())
    keys = pa.array([text_key(text) for text in coded.dictionary.to_pylist()], pa.int64())
    return keys.take(coded.indices)


def _tag_bits(lists: Any) -> Any:
    """``tag_bits`` of each list."""
    import pyarrow.compute as pc

    flat = pc.dictionary_encode(pc.list_flatten(lists)).combine_chunks()
    bits = np.zeros(len(lists), dtype=np.uint64)
    if len(flat):
        known = np.array([tag_bits((text,)) for text in flat.dictionary.to_pylist()], dtype=np.uint64)
        owners = pc.list_parent_indices(lists).to_numpy()
        np.bitwise_or.at(bits, owners, known[flat.indices.to_numpy()])
    return pa.array(bits, pa.uint64())
