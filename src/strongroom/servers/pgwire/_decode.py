"""Parameters in PostgreSQL's text and binary formats as Python values.

``decode(raw, oid, binary)`` refuses what is no value of the type with the SQLSTATE that PostgreSQL gives.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._messages import utf8
from strongroom.servers.pgwire._types import element_of, type_of

__all__ = ["decode", "decode_all"]

_EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001  # of PostgreSQL, in UTC
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()
_ARRAY_ITEMS_MAX: Final = 100_000
_ITEMS_MAX: Final = 1_000_000  # of all arrays of a statement; [limits] sql_value_parts_max has that too
_DIGITS_MAX: Final = 4_000
_SPACE: Final = " \t\n\r\v\f"
_UNITS: Final = {
    "us": 1, "microsecond": 1, "ms": 1_000, "millisecond": 1_000, "s": 1_000_000, "sec": 1_000_000,
    "second": 1_000_000, "m": 60_000_000, "min": 60_000_000, "minute": 60_000_000, "h": 3_600_000_000,
    "hour": 3_600_000_000, "d": 86_400_000_000, "day": 86_400_000_000, "week": 604_800_000_000,
}  # fmt: skip
_INTERVAL_PART = re.compile(
    r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-z]+)|\s*([+-]?)(\d+):(\d\d)(?::(\d\d(?:\.\d{1,6})?))?"
)


def decode_all(
    raws: Sequence[bytes | None], oids: Sequence[int], formats: Sequence[int]
) -> tuple[tuple[Any, ...], int]:
    """All parameters of a statement, and how many elements its arrays have.

    Raises:
        PgError: as ``decode``; 54000: too many elements, before more of them are made.
    """
    values: list[Any] = []
    items = 0
    for raw, oid, form in zip(raws, oids, formats, strict=True):
        value = None if raw is None else decode(raw, oid, form == 1)
        values.append(value)
        if isinstance(value, list):
            items += len(value)
            if items > _ITEMS_MAX:
                raise PgError("54000", "the array parameters have too many elements")
    return tuple(values), items


def decode(raw: bytes, oid: int, binary: bool) -> Any:
    """One parameter.

    Raises:
        PgError: 22P02 or 22007, no value of the type; 22P03, no binary form of it; 22003, out of range.
    """
    element = element_of(oid)
    try:
        if element:
            return _array_binary(raw, element) if binary else _array_text(utf8(raw), element)
        if binary:
            return _BINARY.get(oid, utf8)(raw)
        return _TEXT.get(oid, str)(utf8(raw))
    except (struct.error, IndexError):
        raise PgError("22P03", f"incorrect binary data format for type {type_of(oid).sql_name}") from None
    except OverflowError:
        raise PgError("22008", f"a value is out of range for type {type_of(oid).sql_name}") from None
    except (ValueError, InvalidOperation):
        code = "22007" if type_of(oid).category in "DT" else "22P02"
        raise PgError(code, f"invalid input syntax for type {type_of(oid).sql_name}") from None


# -- text -----------------------------------------------------------------------------------------------
def _bool(text: str) -> bool:
    word = text.strip().lower()
    if (word and any(full.startswith(word) for full in ("true", "yes"))) or word in ("on", "1"):
        return True
    if (word and any(full.startswith(word) for full in ("false", "no"))) or word in ("off", "of", "0"):
        return False
    raise ValueError


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if len(text) > 64 or "_" in text:
            raise ValueError
        number = int(text)
        if not low <= number <= high:
            raise PgError("22003", "a value is out of range for its integer type")
        return number

    return read


def _float(text: str) -> float:
    if "_" in text:
        raise ValueError
    return float(text)


def _numeric(text: str) -> Decimal:
    if len(text) > _DIGITS_MAX or "_" in text:
        raise ValueError
    number = Decimal(text.strip())
    if number.is_finite() and abs(number.adjusted()) > 1_000:
        raise PgError("22003", "value overflows numeric format")
    return number


def _bytea(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    out = bytearray()
    at = 0
    raw = text.encode()
    while at < len(raw):
        if raw[at] != 0x5C:
            out.append(raw[at])
            at += 1
        elif raw[at + 1 : at + 2] == b"\\":
            out.append(0x5C)
            at += 2
        else:
            out.append(int(raw[at + 1 : at + 4], 8))
            at += 4
    return bytes(out)


def _moment(text: str) -> datetime:
    cleaned = text.strip().replace(" ", "T", 1).replace(" ", "")
    if re.search(r"[+-]\d\d$", cleaned) and "T" in cleaned:
        cleaned += ":00"
    return datetime.fromisoformat(cleaned)


def _timestamp(text: str) -> datetime:
    return _moment(text).replace(tzinfo=None)  # PostgreSQL ignores a zone here


def _timestamptz(text: str) -> datetime:
    moment = _moment(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _day(text: str) -> date:
    return _moment(text).date()


def _interval(text: str) -> timedelta:
    micros, at, word = 0, 0, text.strip().lower()
    while at < len(word):
        part = _INTERVAL_PART.match(word, at)
        if part is None:
            raise ValueError
        at = part.end()
        if part[2]:
            unit = part[2]
            scale = _UNITS.get(unit) or _UNITS.get(unit.rstrip("s"))
            if scale is None:
                raise _months() if unit.startswith(("mon", "y")) else ValueError
            micros += int(Decimal(part[1]) * scale)
        else:
            seconds = (int(part[4]) * 60 + int(part[5])) * 60 + Decimal(part[6] or 0)
            micros += int(seconds * 1_000_000) * (-1 if part[3] == "-" else 1)
    if not word:
        raise ValueError
    return timedelta(microseconds=micros)


def _months() -> PgError:
    return PgError(
        "0A000", "interval parameters with months or years are not supported", hint="write them as literals"
    )


def _array_text(text: str, element: int) -> list[Any]:
    """One dimension: ``{1,NULL,"a b"}``."""
    body = text.strip(_SPACE)
    if not (body.startswith("{") and body.endswith("}")):
        raise ValueError
    items: list[Any] = []
    at, end = 1, len(body) - 1
    if not body[1:end].strip(_SPACE):
        return items
    while True:
        while at < end and body[at] in _SPACE:
            at += 1
        if at < end and body[at] == '"':
            item, at = _quoted(body, at + 1, end)
            items.append(decode(item.encode(), element, False))
            while at < end and body[at] in _SPACE:
                at += 1
        else:
            stop = body.find(",", at, end)
            stop = end if stop < 0 else stop
            word = body[at:stop].strip(_SPACE)
            if not word or any(c in word for c in '{}"'):
                raise ValueError
            plain = word.replace("\\", "")
            items.append(None if word.lower() == "null" else decode(plain.encode(), element, False))
            at = stop
        if len(items) > _ARRAY_ITEMS_MAX:
            raise PgError("54000", "an array parameter has too many elements")
        if at >= end:
            return items
        if body[at] != ",":
            raise ValueError
        at += 1


def _quoted(body: str, at: int, end: int) -> tuple[str, int]:
    out: list[str] = []
    while at < end:
        c = body[at]
        if c == '"':
            return "".join(out), at + 1
        if c == "\\":
            at += 1
            c = body[at]
        out.append(c)
        at += 1
    raise ValueError


# -- binary -------------------------------------------------------------------------------------------
def _unpacked(form: str) -> Callable[[bytes], Any]:
    unpack = struct.Struct(form).unpack
    return lambda raw: unpack(raw)[0]


def _numeric_binary(raw: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack_from("!hhHh", raw)
    if sign in (0xC000, 0xD000, 0xF000):
        return Decimal({0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[sign])
    if count < 0 or len(raw) != 8 + 2 * count or sign not in (0, 0x4000) or count * 4 > _DIGITS_MAX:
        raise struct.error
    if not -300 <= weight <= 300 or not 0 <= scale <= 1_000:
        raise PgError("22003", "value overflows numeric format")
    digits = struct.unpack_from(f"!{count}h", raw, 8)
    if any(not 0 <= d <= 9_999 for d in digits):
        raise struct.error
    whole = 0
    for d in digits:
        whole = whole * 10_000 + d
    number = Decimal((sign == 0x4000, tuple(map(int, str(whole))), 4 * (weight - count + 1)))
    with_scale = Decimal((0, (1,), -scale))
    return number if number.as_tuple().exponent == -scale else _rescaled(number, with_scale)


def _rescaled(number: Decimal, scale: Decimal) -> Decimal:
    import decimal

    with decimal.localcontext() as context:
        context.prec = 3_000
        return number.quantize(scale)


def _timestamp_binary(raw: bytes) -> datetime:
    (micros,) = struct.unpack("!q", raw)
    return _EPOCH + timedelta(microseconds=micros)


def _timestamptz_binary(raw: bytes) -> datetime:
    return _timestamp_binary(raw).replace(tzinfo=UTC)


def _date_binary(raw: bytes) -> date:
    (days,) = struct.unpack("!i", raw)
    return date.fromordinal(days + _EPOCH_DAY)


def _time_of(micros: int) -> time:
    if not 0 <= micros < 86_400_000_000:
        raise ValueError
    return (_EPOCH + timedelta(microseconds=micros)).time()


def _interval_binary(raw: bytes) -> timedelta:
    micros, days, months = struct.unpack("!qii", raw)
    if months:
        raise _months()
    return timedelta(days=days, microseconds=micros)


def _timetz_binary(raw: bytes) -> time:
    micros, west = struct.unpack("!qi", raw)
    return _time_of(micros).replace(tzinfo=timezone(timedelta(seconds=-west)))


def _uuid_binary(raw: bytes) -> UUID:
    if len(raw) != 16:
        raise struct.error
    return UUID(bytes=raw)


def _jsonb_binary(raw: bytes) -> str:
    if raw[:1] != b"\1":
        raise struct.error
    return utf8(raw[1:])


def _bool_binary(raw: bytes) -> bool:
    if len(raw) != 1:
        raise struct.error
    return raw != b"\0"


def _array_binary(raw: bytes, element: int) -> list[Any]:
    dimensions, _, given = struct.unpack_from("!iiI", raw)
    if dimensions == 0:
        return []
    if dimensions != 1:
        raise PgError("0A000", "array parameters of several dimensions are not supported")
    count, _ = struct.unpack_from("!ii", raw, 12)
    if not 0 <= count <= _ARRAY_ITEMS_MAX or count * 4 > len(raw):
        raise PgError("54000", "an array parameter has too many elements")
    at = 20
    items: list[Any] = []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", raw, at)
        at += 4
        if length < 0:
            items.append(None)
            continue
        if at + length > len(raw):
            raise struct.error
        items.append(decode(raw[at : at + length], given or element, True))
        at += length
    if at != len(raw):
        raise struct.error
    return items


_INT2 = _integer(-(2**15), 2**15 - 1)
_INT4 = _integer(-(2**31), 2**31 - 1)
_INT8 = _integer(-(2**63), 2**63 - 1)
_TEXT: Final[dict[int, Callable[[str], Any]]] = {
    16: _bool,
    17: _bytea,
    20: _INT8,
    21: _INT2,
    23: _INT4,
    26: _integer(0, 2**32 - 1),
    700: _float,
    701: _float,
    1082: _day,
    1083: lambda text: time.fromisoformat(text.strip()),
    1114: _timestamp,
    1184: _timestamptz,
    1186: _interval,
    1266: lambda text: time.fromisoformat(text.strip()),
    1700: _numeric,
    2950: lambda text: UUID(text.strip()),
}
_BINARY: Final[dict[int, Callable[[bytes], Any]]] = {
    16: _bool_binary,
    17: bytes,
    20: _unpacked("!q"),
    21: _unpacked("!h"),
    23: _unpacked("!i"),
    26: _unpacked("!I"),
    700: _unpacked("!f"),
    701: _unpacked("!d"),
    1082: _date_binary,
    1083: lambda raw: _time_of(_unpacked("!q")(raw)),
    1114: _timestamp_binary,
    1184: _timestamptz_binary,
    1186: _interval_binary,
    1266: _timetz_binary,
    1700: _numeric_binary,
    2950: _uuid_binary,
    3802: _jsonb_binary,
}
