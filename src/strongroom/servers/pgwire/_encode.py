"""Values of an answer in PostgreSQL's text and binary formats.

``encoder(oid, binary)`` gives a function from a Python value (never None) to bytes. Integers are big-endian;
dates and times count from 2000-01-01 UTC in days and microseconds; numeric is base 10,000.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import numpy as np

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._types import element_of

__all__ = ["Encoder", "encoder", "plain_text"]

Encoder = Callable[[Any], bytes]

_EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001  # of PostgreSQL; zones are taken off before
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()
_US: Final = timedelta(microseconds=1)


def _float_text(value: Any) -> bytes:
    number = float(value)
    if math.isnan(number):
        return b"NaN"
    if math.isinf(number):
        return b"Infinity" if number > 0 else b"-Infinity"
    text = repr(number)
    return (text[:-2] if text.endswith(".0") else text).encode()


def _float4_text(value: Any) -> bytes:
    number = float(value)
    if not math.isfinite(number):
        return _float_text(number)
    text = str(np.float32(number))
    return (text[:-2] if text.endswith(".0") else text).encode()


def _numeric_text(value: Any) -> bytes:
    return (format(value, "f") if isinstance(value, Decimal) else str(value)).encode()


def _micros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date_text(value: date) -> bytes:
    return value.isoformat()[:10].encode()


def _naive(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value


def _timestamp_text(value: datetime) -> bytes:
    return _micros(_naive(value).isoformat(" ")).encode()


def _timestamptz_text(value: datetime) -> bytes:
    return _timestamp_text(value) + b"+00"


def _time_text(value: time) -> bytes:
    return _micros(value.replace(tzinfo=None).isoformat()).encode()


def _timetz_text(value: time) -> bytes:
    shift = value.utcoffset() or timedelta()
    minutes = int(shift.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    zone = f"{sign}{hours:02d}" + (f":{rest:02d}" if rest else "")
    return _time_text(value) + zone.encode()


def interval_parts(value: Any) -> tuple[int, int, int]:
    """(months, days, microseconds) of a ``timedelta`` or of a (months, days, nanoseconds) tuple."""
    if isinstance(value, timedelta):
        return 0, value.days, value.seconds * 1_000_000 + value.microseconds
    months, days, nanoseconds = value
    return int(months), int(days), int(nanoseconds) // 1000


def _interval_text(value: Any) -> bytes:
    months, days, micros = interval_parts(value)
    years, months = int(months / 12), int(math.fmod(months, 12))
    parts = []
    for number, name in ((years, "year"), (months, "mon"), (days, "day")):
        if number:
            parts.append(f"{number} {name}{'' if number == 1 else 's'}")
    if micros or not parts:
        sign = "-" if micros < 0 else ""
        seconds, fraction = divmod(abs(micros), 1_000_000)
        clock = f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        parts.append(_micros(f"{clock}.{fraction:06d}"))
    return " ".join(parts).encode()


def _json_default(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    return plain_text(value)


def _json_text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    keyed = _text_keys(value)
    return json.dumps(keyed, ensure_ascii=False, default=_json_default).encode("utf-8")


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {k if isinstance(k, str) else plain_text(k): _text_keys(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_text_keys(v) for v in value]
    return value


def plain_text(value: Any) -> str:
    """A value without a type of its own, as PostgreSQL would write it."""
    if isinstance(value, str):
        return value
    for kinds, write in _BY_CLASS:
        if isinstance(value, kinds):
            return write(value).decode("utf-8")
    return str(value)


def _text(value: Any) -> bytes:
    return (value if isinstance(value, str) else plain_text(value)).encode("utf-8", "replace")


def _bytea_text(value: Any) -> bytes:
    return b"\\x" + bytes(value).hex().encode()


_BY_CLASS: Final[tuple[tuple[Any, Encoder], ...]] = (
    (bool, lambda v: b"t" if v else b"f"),
    (int, lambda v: str(v).encode()),
    (float, _float_text),
    (Decimal, _numeric_text),
    (datetime, lambda v: _timestamptz_text(v) if v.tzinfo is not None else _timestamp_text(v)),
    (date, _date_text),
    (time, _time_text),
    (timedelta, _interval_text),
    (bytes | bytearray | memoryview, _bytea_text),
    (dict | list | tuple, _json_text),
)


def _item_text(raw: bytes) -> bytes:
    special = not raw or raw.lower() == b"null" or any(c in b'{}",\\ \t\n\r\v\f' for c in raw)
    if not special:
        return raw
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _array_text(item: Encoder) -> Encoder:
    def encode(value: Any) -> bytes:
        return b"{" + b",".join(b"NULL" if v is None else _item_text(item(v)) for v in value) + b"}"

    return encode


# -- binary -------------------------------------------------------------------------------------------
def _packed(form: str, kind: Callable[[Any], Any] = int) -> Encoder:
    pack = struct.Struct(form).pack

    def encode(value: Any) -> bytes:
        try:
            return pack(kind(value))
        except (struct.error, OverflowError, ValueError, TypeError):
            raise PgError("22003", "a value is out of range for its type") from None

    return encode


def _numeric_binary(value: Any) -> bytes:
    number = value if isinstance(value, Decimal) else Decimal(value)
    if not number.is_finite():
        sign = 0xC000 if number.is_nan() else 0xF000 if number < 0 else 0xD000
        return struct.pack("!hhHh", 0, 0, sign, 0)
    negative, digits, exponent = number.as_tuple()
    places = int(exponent)
    scale = max(0, -places)
    text = "".join(map(str, digits)) + "0" * max(0, places)
    text = text.rjust(scale + 1, "0")
    whole, fraction = (text[:-scale], text[-scale:]) if scale else (text, "")
    whole = whole.lstrip("0")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[i : i + 4]) for i in range(0, len(whole) + len(fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        weight, negative = 0, 0
    head = struct.pack("!hhHh", len(groups), weight, 0x4000 if negative else 0, scale)
    return head + struct.pack(f"!{len(groups)}h", *groups)


def _timestamp_binary(value: datetime) -> bytes:
    return struct.pack("!q", (_naive(value) - _EPOCH) // _US)


def _date_binary(value: date) -> bytes:
    return struct.pack("!i", value.toordinal() - _EPOCH_DAY)


def _time_us(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _interval_binary(value: Any) -> bytes:
    months, days, micros = interval_parts(value)
    return struct.pack("!qii", micros, days, months)


def _timetz_binary(value: time) -> bytes:
    shift = value.utcoffset() or timedelta()
    return struct.pack("!qi", _time_us(value), -int(shift.total_seconds()))


def _uuid_binary(value: Any) -> bytes:
    return (value if isinstance(value, UUID) else UUID(str(value))).bytes


def _array_binary(item: Encoder, element: int) -> Encoder:
    def encode(value: Any) -> bytes:
        items = list(value)
        if not items:
            return struct.pack("!iiI", 0, 0, element)
        nulls = any(v is None for v in items)
        out = [struct.pack("!iiIii", 1, int(nulls), element, len(items), 1)]
        for v in items:
            if v is None:
                out.append(b"\xff\xff\xff\xff")
            else:
                raw = item(v)
                out.append(struct.pack("!i", len(raw)))
                out.append(raw)
        return b"".join(out)

    return encode


_TEXT: Final[dict[int, Encoder]] = {
    16: lambda v: b"t" if v else b"f",
    17: _bytea_text,
    114: _json_text,
    700: _float4_text,
    701: _float_text,
    1082: _date_text,
    1083: _time_text,
    1114: _timestamp_text,
    1184: _timestamptz_text,
    1186: _interval_text,
    1266: _timetz_text,
    1700: _numeric_text,
    3802: _json_text,
    **dict.fromkeys((20, 21, 23, 26), lambda v: str(int(v)).encode()),
}
_BINARY: Final[dict[int, Encoder]] = {
    16: lambda v: b"\1" if v else b"\0",
    17: bytes,
    20: _packed("!q"),
    21: _packed("!h"),
    23: _packed("!i"),
    26: _packed("!I"),
    114: _json_text,
    700: _packed("!f", float),
    701: _packed("!d", float),
    1082: _date_binary,
    1083: lambda v: struct.pack("!q", _time_us(v)),
    1114: _timestamp_binary,
    1184: _timestamp_binary,
    1186: _interval_binary,
    1266: _timetz_binary,
    1700: _numeric_binary,
    2950: _uuid_binary,
    3802: lambda v: b"\1" + _json_text(v),
}
# int2vector and oidvector in text are numbers with spaces between.
_VECTORS: Final = {22: 21, 30: 26}


def encoder(oid: int, binary: bool) -> Encoder:
    """How values of a type are written."""
    if oid in _VECTORS:
        if binary:
            return _array_binary(_BINARY[_VECTORS[oid]], _VECTORS[oid])
        return lambda v: " ".join(str(i) for i in v).encode() if not isinstance(v, str) else v.encode()
    element = element_of(oid)
    if element:
        item = encoder(element, binary)
        return _array_binary(item, element) if binary else _array_text(item)
    return (_BINARY if binary else _TEXT).get(oid, _text)
