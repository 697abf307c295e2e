"""A structured ``Filter`` as SQL conditions with parameters; no value of the caller enters the text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from strongroom.errors import InvalidFilterError
from strongroom.model import Filter, JsonValue
from strongroom.recall._columns import tag_bits, text_key, to_us
from strongroom.recall.where import CheckedWhere, WhereChecker

__all__ = ["OUTSIDE", "Compiled", "compile_filter", "json_pointer", "looks_inside"]

OUTSIDE: Final = frozenset({"memory_id", "namespace", "sensitivity", "created_at"})
"""The columns of a memory that is seen and not opened."""

VALUES_MAX: Final = 1000
PATHS_MAX: Final = 32
PATH_KEYS_MAX: Final = 32
PATH_BYTES_MAX: Final = 1024
_NOW: Final = "make_timestamptz(CAST($now_us AS BIGINT))"
_LAZY_COLUMNS: Final = frozenset({"has_embedding", "access_count", "last_accessed_at"})


@dataclass(slots=True)
class Compiled:
    """``conditions`` joined by AND, with ``parameters`` by name; ``where`` is the checked expression."""

    conditions: list[str] = field(default_factory=list, repr=False)
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)
    where: CheckedWhere | None = None

    @property
    def needs_counters(self) -> bool:
        """Whether it looks at columns whose changes are applied late."""
        return self.where is not None and not _LAZY_COLUMNS.isdisjoint(self.where.columns)

    def bind(self, value: Any) -> str:
        """A parameter for ``value``; returns how it is written."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


def compile_filter(
    filter: Filter, checker: WhereChecker, *, namespace: str, now_us: int, may_expire: bool
) -> Compiled:
    """The conditions of ``filter`` over a table of ``namespace`` at ``now_us``.

    Raises:
        InvalidFilterError: a value has the wrong type, or ``where`` is refused.
    """
    out = Compiled()
    if may_expire:
        out.conditions.append(f"(expires_at IS NULL OR expires_at > {_NOW})")
        out.parameters["now_us"] = now_us
    _any_of(out, "kind", "kind_key", filter.kinds)
    _any_of(out, "subject", "subject_key", filter.subjects)
    _any_of(out, "agent_id", "agent_key", filter.agent_ids)
    _any_of(out, "session_id", "session_key", filter.session_ids)
    if filter.importance_min is not None:
        least = _number(filter.importance_min, "importance_min")
        out.conditions.append(f"importance >= {out.bind(least)}")
    for name, sign, moment in (
        ("created_after", ">=", filter.created_after),
        ("created_before", "<", filter.created_before),
    ):
        if moment is not None:
            if not isinstance(moment, datetime) or moment.utcoffset() is None:
                raise InvalidFilterError(f"{name} must be a time with a time zone")
            out.conditions.append(
                f"created_at {sign} make_timestamptz(CAST({out.bind(to_us(moment))} AS BIGINT))"
            )
    _tags(out, filter)
    for path, value in _items(filter.metadata):
        _metadata(out, path, value)
    if filter.where is not None and _text(filter.where, "where").strip():
        out.where = checker.check(filter.where)
        out.conditions.append(out.where.sql)
        if out.where.uses_clock:
            out.parameters["now_us"] = now_us
        if "namespace" in out.where.columns:
            out.parameters["namespace"] = namespace
    return out


def looks_inside(filter: Filter, checker: WhereChecker) -> bool:
    """Whether it looks at more than ``OUTSIDE`` of a memory.

    Raises:
        InvalidFilterError: ``where`` is refused.
    """
    apart = replace(filter, created_after=None, created_before=None, where=None)
    if not apart.is_empty:
        return True
    where = filter.where
    if where is None or not _text(where, "where").strip():
        return False
    return not checker.check(where).columns <= OUTSIDE


_NUMBER_MAX = sys.float_info.max  # NaN is no number below it either, and an int may be above


def _texts(values: Sequence[str], name: str) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence | set | frozenset):
        raise InvalidFilterError(f"{name} must be a list of texts")
    if len(values) > VALUES_MAX:
        raise InvalidFilterError(f"{name} holds more than {VALUES_MAX} values")
    return list(dict.fromkeys(_text(text, name) for text in values))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidFilterError(f"{name} must be text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidFilterError(f"{name} is not valid Unicode") from None
    return value


def _number(value: object, name: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -_NUMBER_MAX <= value <= _NUMBER_MAX
    ):
        raise InvalidFilterError(f"{name} must be a finite number")
    return float(value)


def _any_of(out: Compiled, column: str, key_column: str, given: Sequence[str]) -> None:
    values = _texts(given, column)
    if values:
        keys, texts = [text_key(v) for v in values], values
        out.conditions.append(
            f"{key_column} {_equals(out, keys)} AND {_late(f'{column} {_equals(out, texts)}')}"
        )


def _equals(out: Compiled, values: Sequence[Any]) -> str:
    if len(values) == 1:
        return f"= {out.bind(values[0])}"
    return f"IN ({', '.join(out.bind(v) for v in values)})"


def _late(condition: str) -> str:
    """``condition``, looked at only for rows that passed the cheap ones before it.

    A condition on one column alone would be pushed into the scan, which then reads the texts of all
    rows; naming a second column keeps it out. No rid is negative, so the meaning stays the same.
    """
    return f"({condition} OR rid < 0)"


def _tags(out: Compiled, filter: Filter) -> None:
    every, some = _texts(filter.tags_all, "tags_all"), _texts(filter.tags_any, "tags_any")
    if every:
        bits = f"CAST({out.bind(tag_bits(every))} AS UBIGINT)"
        out.conditions.append(f"(tag_bits & {bits}) = {bits}")
        out.conditions.extend(f"list_contains(tags, {out.bind(t)})" for t in every)
    if some:
        bits = f"CAST({out.bind(tag_bits(some))} AS UBIGINT)"
        out.conditions.append(f"(tag_bits & {bits}) <> CAST(0 AS UBIGINT)")
        either = " OR ".join(f"list_contains(tags, {out.bind(t)})" for t in some)
        out.conditions.append(f"({either})")


def _items(metadata: Mapping[str, JsonValue] | None) -> list[tuple[str, JsonValue]]:
    if metadata is None:
        return []
    if not isinstance(metadata, Mapping):
        raise InvalidFilterError("metadata must map paths to values")
    if len(metadata) > PATHS_MAX:
        raise InvalidFilterError(f"metadata names more than {PATHS_MAX} paths")
    try:
        return list(metadata.items())
    except RuntimeError:
        raise InvalidFilterError("metadata changed while it was read") from None


def _metadata(out: Compiled, path: str, value: JsonValue) -> None:
    at = out.bind(json_pointer(path))
    kind, text = f"json_type(metadata, {at})", f"json_extract_string(metadata, {at})"
    # The value first: it rules out most rows, and each look into a document costs one parse of it.
    if value is None:
        conditions = [f"ifnull({kind}, 'NULL') = 'NULL'"]
    elif isinstance(value, bool):
        conditions = [f"{text} = {out.bind('true' if value else 'false')}", f"{kind} = 'BOOLEAN'"]
    elif isinstance(value, str):
        conditions = [f"{text} = {out.bind(_text(value, 'metadata'))}", f"{kind} = 'VARCHAR'"]
    elif isinstance(value, int | float):
        conditions = _same_number(out, text, value)
        conditions.append(f"{kind} IN ('BIGINT', 'UBIGINT', 'DOUBLE')")
    else:
        raise InvalidFilterError(
            "metadata compares with text, a number, true, false or null",
            hint="for lists and objects use where with json_contains(metadata, ...)",
        )
    out.conditions.extend(conditions)


def _same_number(out: Compiled, text: str, value: float) -> list[str]:
    """Numbers compare by value as Python compares them: 1 equals 1.0, and 2**60 + 1 only itself."""
    if not -1e300 < value < 1e300:  # false for NaN, too
        raise InvalidFilterError("metadata compares with numbers between -1e300 and 1e300")
    ways: list[str] = []
    if int(value) == value:
        ways.append(f"{text} = {out.bind(str(int(value)))}")
    if float(value) == value:
        ways.append(f"contains({text}, '.') OR contains({text}, 'e')")
    return [f"TRY_CAST({text} AS DOUBLE) = {out.bind(float(value))}", f"({' OR '.join(ways)})"]


def json_pointer(path: str) -> str:
    """``plan.tier`` as the JSON pointer ``/plan/tier`` (RFC 6901).

    Keys are joined by ``.``; a key in double quotes may hold dots, and ``\\"`` and ``\\\\`` inside.

    Raises:
        InvalidFilterError: the path is empty, too long, or a quote is not closed.
    """
    text = _text(path, "a metadata path")
    if len(text.encode("utf-8")) > PATH_BYTES_MAX:
        raise InvalidFilterError(f"a metadata path is longer than {PATH_BYTES_MAX} bytes")
    keys: list[str] = []
    at = 0
    while True:
        key, at = _quoted_key(text, at) if text.startswith('"', at) else _plain_key(text, at)
        keys.append(key.replace("~", "~0").replace("/", "~1"))
        if at == len(text):
            break
        if text[at] != "." or len(keys) == PATH_KEYS_MAX:
            raise _bad_path()
        at += 1
    return "/" + "/".join(keys)


def _bad_path() -> InvalidFilterError:
    return InvalidFilterError(
        "a metadata path is malformed",
        hint=f'up to {PATH_KEYS_MAX} keys joined by ".", a key with dots in double quotes: plan."a.b".tier',
    )


def _plain_key(text: str, at: int) -> tuple[str, int]:
    end = text.find(".", at)
    end = len(text) if end < 0 else end
    key = text[at:end]
    if not key or '"' in key:
        raise _bad_path()
    return key, end


def _quoted_key(text: str, at: int) -> tuple[str, int]:
    key: list[str] = []
    at += 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(key), at + 1
        if char == "\\":
            at += 1
            if text[at : at + 1] not in ('"', "\\"):
                raise _bad_path()
            char = text[at]
        key.append(char)
        at += 1
    raise _bad_path()
