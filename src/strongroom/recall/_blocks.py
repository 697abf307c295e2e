"""Typed arrays one after the other in a byte stream: the inside of a snapshot (spec/snapshot.md).

    0            4       5       8             12        20
    +------------+-------+-------+-------------+---------+------------------------------+
    | tag, ASCII | dtype | zero  | columns u32 | rows u64| rows * columns values        |
    +------------+-------+-------+-------------+---------+------------------------------+

Little-endian throughout. The stream below is authenticated; what does not have this form all the same
comes from another version, or from a defect, and is an IntegrityError.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError

ROWS_MAX: Final = 2**32 - 1  # of one block; row ids are kept in 32 bits
BYTES_MAX: Final = 2**40  # of one block

_HEAD: Final = struct.Struct("<4sB3xIQ")
_DTYPES: Final = tuple(np.dtype(d) for d in ("<u1", "<u2", "<u4", "<i8", "<u8", "<f4"))
_PART_BYTES: Final = 1 << 22


class ByteSink(Protocol):
    """Where a snapshot is written to; takes all of ``data``."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...


class ByteSource(Protocol):
    """Where a snapshot is read from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer``; fewer bytes only at the end."""
        ...


class Again(Protocol):
    """Gives a stream once more from that byte on, to be read in the background."""

    def __call__(self, position: int) -> AbstractContextManager[ByteSource]: ...


class BlockWriter:
    """Writes blocks to a sink."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink

    def head(self, tag: str, dtype: str, rows: int, columns: int = 1) -> None:
        """Begin a block; its values follow by ``part``."""
        number = _DTYPES.index(np.dtype(dtype))
        self._sink.write(_HEAD.pack(tag.encode("ascii"), number, columns, rows))

    def part(self, values: NDArray[Any]) -> None:
        """Some rows of the block that was begun."""
        if values.size:
            view = np.ascontiguousarray(values).data.cast("B")
            for at in range(0, len(view), _PART_BYTES):
                self._sink.write(view[at : at + _PART_BYTES])

    def array(self, tag: str, values: NDArray[Any], dtype: str) -> None:
        """A whole block: ``values`` of shape (rows,) or (rows, columns), stored as ``dtype``."""
        columns = values.shape[1] if values.ndim == 2 else 1
        self.head(tag, dtype, len(values), columns)
        self.part(values.astype(dtype, copy=False))


class BlockReader:
    """Reads blocks in the order in which they were written."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.position = 0  # bytes that were read

    def head(self, tag: str, dtype: str, columns: int = 1, rows: int | None = None) -> int:
        """How many rows the next block has, which must be as described (``rows`` None: any number).

        Raises:
            IntegrityError: it is another block.
        """
        raw = bytearray(_HEAD.size)
        self.fill(memoryview(raw))
        found, number, width, count = _HEAD.unpack(raw)
        wanted = np.dtype(dtype)
        if found != tag.encode("ascii") or number >= len(_DTYPES) or _DTYPES[number] != wanted:
            raise _malformed()
        if width != columns or count > ROWS_MAX or count * width * wanted.itemsize > BYTES_MAX:
            raise _malformed()
        if rows is not None and count != rows:
            raise _malformed()
        return int(count)

    def fill(self, view: memoryview) -> None:
        """Exactly the next bytes.

        Raises:
            IntegrityError: the stream is shorter.
        """
        if len(view) and self._source.readinto(view) != len(view):
            raise _malformed()
        self.position += len(view)

    def skip(self, size: int, scratch: memoryview) -> None:
        """Read the next ``size`` bytes for nothing but their being right.

        Raises:
            IntegrityError: the stream is shorter.
        """
        while size:
            n = min(size, len(scratch))
            self.fill(scratch[:n])
            size -= n

    def into(self, values: NDArray[Any]) -> None:
        """The next values of the block, into a contiguous array."""
        if values.size:
            self.fill(values.data.cast("B"))

    def array(self, tag: str, dtype: str, *, rows: int | None = None, columns: int = 0) -> NDArray[Any]:
        """A whole block, shape (rows,), or (rows, columns) when ``columns`` is given.

        Raises:
            IntegrityError: it is another block, or the stream is shorter.
        """
        count = self.head(tag, dtype, columns or 1, rows)
        values = np.empty((count, columns) if columns else count, dtype=dtype)
        self.into(values)
        return values


def _malformed() -> IntegrityError:
    return IntegrityError("a snapshot has a form that this version does not know")
