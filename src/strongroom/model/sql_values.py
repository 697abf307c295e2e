"""Values of an answer as Python objects, by the types of its columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from strongroom.errors import SqlDataError

__all__ = ["to_rows"]

Convert = Callable[[Any], Any]
_DAYS_OF_MONTH: Final = 30


def to_rows(table: Any, start: int, count: int, types: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """``count`` rows of an Arrow table from row ``start``, as tuples.

    UUID gives ``uuid.UUID``, whole numbers ``int``, DECIMAL ``Decimal``, times ``datetime`` in UTC,
    INTERVAL ``timedelta`` (a month as 30 days), lists ``list``, structs and maps ``dict``, BIT text.

    Raises:
        SqlDataError: a date or time is beyond what Python's can hold.
    """
    if count <= 0:
        return []
    part = table.slice(start, count)
    columns = []
    for column, type_ in zip(part.columns, types, strict=True):
        convert = _converter(type_, column.type)
        try:
            values = column.to_pylist()
        except (OverflowError, ValueError):
            raise SqlDataError(
                "a value has no form in Python", hint="CAST it to VARCHAR", sqlstate="22008"
            ) from None
        columns.append(values if convert is None else [None if v is None else convert(v) for v in values])
    return list(zip(*columns, strict=True)) if columns else [()] * count


def _converter(type_: str, arrow: Any) -> Convert | None:
    import pyarrow as pa  # only whoever asks for SQL pays for it

    if pa.types.is_decimal(arrow) and type_ in ("HUGEINT", "UHUGEINT"):
        return int
    if type_ == "UUID":
        return UUID
    if type_ == "BIT":
        return _bits
    if type_ == "INTERVAL":
        return _interval
    if type_ == "TIMESTAMP_NS":
        return lambda v: v.to_pydatetime() if hasattr(v, "to_pydatetime") else v
    if type_.endswith("]"):
        inner = _converter(type_[: type_.rindex("[")], arrow.value_type)
        return None if inner is None else lambda vs: [None if v is None else inner(v) for v in vs]
    if pa.types.is_map(arrow):
        return dict
    if pa.types.is_struct(arrow):
        return _struct(arrow)
    return None


def _struct(arrow: Any) -> Convert | None:
    """Structs keep the forms of Arrow inside, but for whole numbers and intervals."""
    import pyarrow as pa

    changes: dict[str, Convert] = {}
    for field in arrow:
        if pa.types.is_decimal(field.type) and field.type.scale == 0 and field.type.precision == 38:
            changes[field.name] = int
        elif pa.types.is_interval(field.type):
            changes[field.name] = _interval
    if not changes:
        return None
    return lambda v: {k: changes[k](x) if k in changes and x is not None else x for k, x in v.items()}


def _interval(value: Any) -> timedelta:
    return timedelta(days=value.months * _DAYS_OF_MONTH + value.days, microseconds=value.nanoseconds // 1000)


def _bits(value: bytes) -> str:
    """The engine's form: one byte that counts the padding, then the bits."""
    bits = "".join(f"{byte:08b}" for byte in value[1:])
    return bits[value[0] :]
