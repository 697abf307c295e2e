"""Answers on their way out: a source of rows, pulled in bounded pieces, encoded as DataRow messages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strongroom.servers.pgwire._encode import Encoder, encoder
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._messages import row_description
from strongroom.servers.pgwire._types import modifier_of, oid_of, type_of

__all__ = [
    "CHUNK_ROWS", "Column", "RowEncoder", "Shape", "Source", "columns_of", "formats_for", "listed", "pulled",
    "shape_of",
]  # fmt: skip

CHUNK_ROWS: Final = 256
_CHUNK_BYTES: Final = 64 * 1024
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = struct.Struct("!i")
_HEAD: Final = struct.Struct("!ciH")

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    oid: int
    modifier: int = -1

    def described(self) -> tuple[str, int, int, int]:
        """As ``row_description`` takes it."""
        return self.name, self.oid, type_of(self.oid).size if self.oid < 10_000 else -1, self.modifier


def columns_of(names_and_types: Iterable[tuple[str, str]]) -> tuple[Column, ...]:
    """Columns from names and the engine's type names."""
    return tuple(Column(n, oid_of(t), modifier_of(t)) for n, t in names_and_types)


class Source:
    """Rows that are pulled by ``fetch(n)``, which gives fewer only at the end.

    ``take`` and ``look`` may block and are called from worker threads, one at a time.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        fetch: Callable[[int], Sequence[Row]],
        size: int = 0,
        look: Callable[[], object] | None = None,
    ) -> None:
        """``size``: bytes that are held until the end. ``look``: refuses whoever may not have rows any more;
        it is called before every part but the first, which is taken at once when it is opened."""
        self.columns = tuple(columns)
        self._fetch: Callable[[int], Sequence[Row]] | None = fetch
        self._size = size
        self._look = look
        self._is_part = False  # of another source, which looks by itself
        self._is_due = False

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return 0 if self._fetch is None else self._size

    @property
    def exhausted(self) -> bool:
        return self._fetch is None

    def take(self, count: int) -> Sequence[Row]:
        """Up to ``count`` further rows; fewer only at the end."""
        if self._fetch is None or count <= 0:
            return ()
        if self._is_due:
            self.look()
        self._is_due = not self._is_part
        out = self._fetch(count)
        if len(out) < count:
            self.close()
        return out

    def first(self, count: int) -> Source:
        """The next ``count`` rows as a source of its own; the rest stays here."""
        left = count

        def fetch(wanted: int) -> Sequence[Row]:
            nonlocal left
            rows = self.take(min(wanted, left))
            left -= len(rows)
            return rows

        out = Source(self.columns, fetch, look=self._look)
        out._is_part = True
        return out

    def look(self) -> None:
        """Raises: StrongroomError: the caller may not have what is left."""
        if self._look is not None:
            self._look()

    def opened_for_later(self) -> None:
        """Not even the first part is taken at once."""
        self._is_due = True

    def close(self) -> None:
        """Give up what is left. May be called twice."""
        self._fetch = None


def listed(columns: Sequence[Column], rows: Sequence[Row]) -> Source:
    """A source of rows that are there already."""
    at = 0

    def fetch(count: int) -> Sequence[Row]:
        nonlocal at
        out = rows[at : at + count]
        at += len(out)
        return out

    return Source(columns, fetch)


def formats_for(given: Sequence[int], count: int) -> tuple[int, ...]:
    """One format for each column from what Bind said: none, one for all, or one each."""
    if not given:
        return (0,) * count
    if len(given) == 1:
        return (given[0],) * count
    return tuple(given)


class RowEncoder:
    """Writes rows of certain columns in certain formats."""

    def __init__(self, columns: Sequence[Column], formats: Sequence[int]) -> None:
        self._encoders: tuple[Encoder, ...] = tuple(
            encoder(c.oid, f == 1) for c, f in zip(columns, formats, strict=True)
        )

    def values(self, row: Row) -> list[bytes | None]:
        return [None if v is None else e(v) for v, e in zip(row, self._encoders, strict=True)]

    def data_row(self, row: Row) -> bytes:
        """One DataRow message."""
        parts: list[bytes] = [b""]
        size = 6
        for value, encode in zip(row, self._encoders, strict=True):
            if value is None:
                parts.append(_NULL)
                size += 4
            else:
                raw = encode(value)
                parts.append(_LENGTH.pack(len(raw)))
                parts.append(raw)
                size += 4 + len(raw)
        parts[0] = _HEAD.pack(b"D", size, len(self._encoders))
        return b"".join(parts)

    def pull(self, source: Source, count: int) -> list[bytes]:
        """Up to ``count`` further rows as messages, or until they make about 64 KiB."""
        return pulled(source, count, self.data_row)


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows of ``columns`` are told of and written, in formats as Bind has ``given`` them."""

    columns: tuple[Column, ...]
    given: tuple[int, ...]
    encoder: RowEncoder
    description: bytes


def shape_of(known: Shape | None, columns: tuple[Column, ...], given: tuple[int, ...]) -> Shape:
    """``known``, when it is that shape; else a new one.

    Raises:
        PgError: 08P01: there are formats for another number of columns.
    """
    if len(given) > 1 and len(given) != len(columns):
        raise PgError("08P01", "bind message has another number of result formats than columns")
    if known is not None and known.columns == columns and known.given == given:
        return known
    formats = formats_for(given, len(columns))
    described = row_description([column.described() for column in columns], formats)
    return Shape(columns, given, RowEncoder(columns, formats), described)


def pulled(source: Source, count: int, encode: Callable[[Row], bytes]) -> list[bytes]:
    """Up to ``count`` further rows, or until they make about 64 KiB."""
    out: list[bytes] = []
    size = 0
    while len(out) < count and not source.exhausted and size < _CHUNK_BYTES:
        room = 32 if not size else max(16, (_CHUNK_BYTES - size) * len(out) // size)
        for row in source.take(min(count - len(out), room)):
            encoded = encode(row)
            size += len(encoded)
            out.append(encoded)
    return out
