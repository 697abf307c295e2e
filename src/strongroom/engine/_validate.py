"""Checks on what a caller hands in: before anything is sealed, each with one typed error and a hint."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from strongroom.config import LimitsConfig
from strongroom.engine._payload import MemoryPayload, to_us
from strongroom.errors import (
    ContentTooLargeError,
    InvalidInputError,
    LimitExceededError,
)
from strongroom.model import MemoryDraft, MemoryPatch, check_namespace
from strongroom.model.memory import Unset

_JSON_DEPTH_MAX = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_INT_MAX = 2**63 - 1
_LISTS = (
    list,
    tuple,
    Sequence,
    set,
    frozenset,
)  # the everyday types first: the abstract ones are slow to ask
_MAPPINGS = (dict, Mapping)
_SCALARS = frozenset((str, int, float, bool, type(None), bytes, UUID, datetime))
_ENCODER = msgspec.msgpack.Encoder()
_STORED_HINT = "it begins now where no created_at is given; old data is taken with its own created_at"
_UPDATED_HINT = "give a time after its created_at, past or not, or delete it"


def check_text(value: object, name: str, limit: int, *, empty: bool = False) -> str:
    """``value`` as a plain ``str`` when it is valid Unicode of at most ``limit`` UTF-8 bytes."""
    if type(value) is str and 0 < len(value) <= limit and value.isascii() and "\x00" not in value:
        return value
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string", hint="give it as str")
    if not value and not empty:
        raise InvalidInputError(f"{name} must not be empty", hint="at least one character")
    try:
        size = len(value) if value.isascii() else len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{name} is not valid Unicode (a lone surrogate)", hint="text that can be written as UTF-8"
        ) from None
    if size > limit:
        raise ContentTooLargeError(f"{name} has {size} bytes", hint=f"at most {limit} bytes")
    if "\x00" in value:
        raise InvalidInputError(f"{name} holds a NUL character", hint="take it out")
    return value if type(value) is str else str.__str__(value)


def _optional(value: object, name: str, limit: int) -> str | None:
    return None if value is None else check_text(value, name, limit)


def check_id(value: object, name: str = "memory_id") -> bytes:
    """The 16 bytes of a UUID given as UUID or text."""
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, str):
        try:
            return UUID(value).bytes
        except ValueError:
            pass
    raise InvalidInputError(f"{name} must be a UUID", hint="for example 123e4567-e89b-42d3-a456-426614174000")


def check_number(value: object, name: str, low: float, high: float) -> float:
    if type(value) is float and low <= value <= high:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise InvalidInputError(f"{name} must be a number", hint=f"between {low:g} and {high:g}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:  # NaN fails too
        raise InvalidInputError(
            f"{name} must be between {low:g} and {high:g}", hint="a finite number, the ends included"
        )
    return number


def check_count(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"{name} must be a whole number", hint=f"{low} to {high}")
    if value < low:
        raise InvalidInputError(f"{name} must be at least {low}", hint=f"{low} to {high}")
    if value > high:
        raise LimitExceededError(f"{name} is too large", hint=f"at most {high}")
    return value


def check_values(values: Sequence[object], nesting_max: int, parts_max: int) -> None:
    """Parameters of a statement: lists and mappings neither too deep (or without end) nor too many.

    The columnar engine walks them by recursion in C and would end the process.
    """
    waiting = [(value, 0) for value in values if type(value) not in _SCALARS]
    parts = 0
    while waiting:
        value, depth = waiting.pop()
        inner: list[object]
        if isinstance(value, Mapping):
            inner = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            inner = list(value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            inner = list(value.flat)
        else:
            continue
        parts += len(inner)
        if depth >= nesting_max or parts > parts_max:
            raise LimitExceededError(
                "a parameter is nested too deeply or has too many parts",
                hint=f"at most {nesting_max} deep, {parts_max} parts in all",
            )
        waiting += [(part, depth + 1) for part in inner if type(part) not in _SCALARS]


def check_time(value: object, name: str) -> int:
    """Microseconds since the epoch; a naive time is refused rather than guessed."""
    if not isinstance(value, datetime):
        raise InvalidInputError(
            f"{name} must be a datetime", hint="an aware one, for example datetime.now(UTC)"
        )
    if value.utcoffset() is None:
        raise InvalidInputError(f"{name} has no time zone", hint="give an aware datetime, for example in UTC")
    try:
        return to_us(value.astimezone(UTC))
    except OverflowError:
        raise InvalidInputError(f"{name} is out of range") from None


def _plain_json(value: Any, depth: int) -> Any:
    """A copy of a JSON value in plain types, which nobody else holds."""
    if type(value) is str or value is None:
        return value
    if depth > _JSON_DEPTH_MAX:
        raise InvalidInputError("metadata is nested too deeply", hint=f"at most {_JSON_DEPTH_MAX} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, int):
        if not -_INT_MAX <= value <= _INT_MAX:
            raise InvalidInputError("metadata holds an integer beyond 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError("metadata holds NaN or infinity")
        return float(value)
    if isinstance(value, _MAPPINGS):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError("metadata has a key that is not a string")
            plain[str.__str__(key)] = _plain_json(item, depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain_json(item, depth + 1) for item in value]
    raise InvalidInputError("metadata holds a value that JSON does not know")


def _flat_json(value: Mapping[Any, Any]) -> dict[str, Any] | None:
    """``_plain_json`` of a mapping of plain values, as most are; None: it is none, or would be refused."""
    if type(value) is not dict:
        return None
    own = value.copy()  # before the look: the caller's may change meanwhile
    for key, item in own.items():
        kind = type(item)
        if type(key) is not str or not (
            kind is str
            or (kind is int and -_INT_MAX <= item <= _INT_MAX)
            or kind is bool
            or (kind is float and math.isfinite(item))
            or item is None
        ):
            return None
    return own


def check_metadata(value: object, limits: LimitsConfig) -> dict[str, Any]:
    """A copy of the metadata in plain JSON types: what the caller does to its own later changes nothing."""
    if value is None:
        return {}
    if not isinstance(value, _MAPPINGS):
        raise InvalidInputError("metadata must be an object")
    if not value:
        return {}
    try:
        data: dict[str, Any] = _flat_json(value) or _plain_json(value, 1)
    except RuntimeError:
        raise InvalidInputError("metadata changed while it was read") from None
    try:
        size = len(_ENCODER.encode(data))
    except UnicodeEncodeError:
        raise InvalidInputError("metadata is not valid Unicode") from None
    if size > limits.metadata_bytes_max:
        raise ContentTooLargeError(
            f"metadata has {size} bytes", hint=f"at most {limits.metadata_bytes_max} bytes"
        )
    return data


def check_tags(value: object, limits: LimitsConfig) -> list[str]:
    if value is None or (type(value) is tuple and not value):
        return []
    if isinstance(value, str) or not isinstance(value, _LISTS):
        raise InvalidInputError("tags must be a list of strings")
    if len(value) > limits.tags_max:
        raise LimitExceededError(f"{len(value)} tags", hint=f"at most {limits.tags_max}")
    tags = [check_text(t, "a tag", limits.tag_bytes_max) for t in value]
    return list(dict.fromkeys(tags)) if len(tags) > 1 else tags


def _parents(value: object, limits: LimitsConfig) -> list[bytes]:
    if value is None or (type(value) is tuple and not value):
        return []
    if isinstance(value, str) or not isinstance(value, _LISTS):
        raise InvalidInputError("derived_from must be a list of UUIDs")
    if len(value) > limits.derived_from_max:
        raise LimitExceededError(f"{len(value)} parents", hint=f"at most {limits.derived_from_max}")
    return [check_id(p, "derived_from") for p in value]


def _end(value: object, created_us: int, hint: str) -> int | None:
    """When a memory ends, after it began: an end before that is a wrong unit or zone. An end that is past by
    now is one of old data, which comes with its ``created_at``, or of an update that ends it at once."""
    if value is None:
        return None
    expires_us = check_time(value, "expires_at")
    if expires_us <= created_us:
        raise InvalidInputError(
            "the memory would end before it begins: expires_at is not after created_at",
            hint=hint,
        )
    return expires_us


def check_draft(
    draft: MemoryDraft, limits: LimitsConfig, now_us: int, *, namespace_known: bool = False
) -> tuple[str, MemoryPayload]:
    """The checked namespace and payload of a draft; a known namespace needs no second look.

    Raises:
        InvalidInputError: any field is not of its form. ContentTooLargeError, LimitExceededError.
    """
    namespace = draft.namespace if namespace_known else check_namespace(draft.namespace)
    text = limits.text_field_bytes_max
    created = now_us if draft.created_at is None else check_time(draft.created_at, "created_at")
    payload = MemoryPayload(  # by position: as many names take as long as half of the checks
        check_text(draft.content, "content", limits.content_bytes_max),
        check_text(draft.kind, "kind", text),
        check_metadata(draft.metadata, limits),
        check_tags(draft.tags, limits),
        _optional(draft.subject, "subject", text),
        _optional(draft.agent_id, "agent_id", text),
        _optional(draft.session_id, "session_id", text),
        check_text(draft.sensitivity, "sensitivity", text),
        check_number(draft.importance, "importance", 0.0, 1.0),
        _optional(draft.source, "source", text),
        _parents(draft.derived_from, limits),
        created,
        max(now_us, created) if draft.created_at is None else now_us,
        _end(draft.expires_at, created, _STORED_HINT),
    )
    return namespace, payload


def patched(old: MemoryPayload, patch: MemoryPatch, limits: LimitsConfig, now_us: int) -> MemoryPayload:
    """The payload after an update; ``updated_us`` never goes back, whatever the clock does."""
    text = limits.text_field_bytes_max

    def pick(name: str, check: Any) -> Any:
        value = getattr(patch, name)
        return getattr(old, name) if isinstance(value, Unset) else check(value)

    expires = patch.expires_at
    return MemoryPayload(
        content=pick("content", lambda v: check_text(v, "content", limits.content_bytes_max)),
        kind=pick("kind", lambda v: check_text(v, "kind", text)),
        metadata=pick("metadata", lambda v: check_metadata(v, limits)),
        tags=pick("tags", lambda v: check_tags(v, limits)),
        subject=old.subject,
        agent_id=pick("agent_id", lambda v: _optional(v, "agent_id", text)),
        session_id=pick("session_id", lambda v: _optional(v, "session_id", text)),
        sensitivity=pick("sensitivity", lambda v: check_text(v, "sensitivity", text)),
        importance=pick("importance", lambda v: check_number(v, "importance", 0.0, 1.0)),
        source=pick("source", lambda v: _optional(v, "source", text)),
        derived_from=old.derived_from,
        created_us=old.created_us,
        updated_us=max(now_us, old.updated_us + 1),
        expires_us=old.expires_us
        if isinstance(expires, Unset)
        else _end(expires, old.created_us, _UPDATED_HINT),
    )


def draft_from(item: object) -> MemoryDraft:
    """A draft from a mapping with the names of ``store``.

    Raises:
        InvalidInputError: a name is unknown, or content or namespace is missing.
    """
    if isinstance(item, MemoryDraft):
        return item
    if not isinstance(item, _MAPPINGS):
        raise InvalidInputError("each item must be a mapping with content and namespace")
    try:
        return MemoryDraft(**item)  # an unknown name or a missing one is a TypeError
    except TypeError:
        known = set(MemoryDraft.__slots__)
        extra = [k for k in item if k not in known]
        if extra:
            # A name that is no name could be content in the wrong place: it is not repeated.
            named = next((f" {k!r}" for k in extra if isinstance(k, str) and _NAME.fullmatch(k)), "")
            raise InvalidInputError(
                f"unknown field{named}", hint="known: " + ", ".join(sorted(known))
            ) from None
        raise InvalidInputError("each item needs content and namespace") from None
