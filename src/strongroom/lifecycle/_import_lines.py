"""One line of an import file to drafts of memories, or to an error that names line and key, never content.

The form is that of docs/import.md. Nothing here touches a file or a store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid5

from strongroom.config import LimitsConfig
from strongroom.errors import ContentTooLargeError, InvalidInputError, StrongroomError
from strongroom.model import MemoryDraft, check_namespace

MESSAGES_MAX: Final = 10_000
LINE_SLACK_BYTES: Final = 64 * 1024
IDS_NEAR: Final = 2  # how the ids of an import are made; 1: as before ADR 21
_LINES_NEAR: Final = 1000

_OPTIONAL_TEXT: Final = ("subject", "agent_id", "session_id", "source")
_SHARED: Final = frozenset(
    ("namespace", "subject", "agent_id", "source", "sensitivity", "tags", "metadata", "importance")
)
_MEMORY: Final = _SHARED | {
    "content", "memory_id", "kind", "session_id", "derived_from", "created_at", "expires_at", "age_s",
    "embedding",
}  # fmt: skip
# What a store sets itself and a listing shows: a line that ``list --all --json`` has printed can be imported.
_OF_A_STORE: Final = frozenset(
    ("updated_at", "access_count", "last_accessed_at", "has_embedding", "version", "redacted")
)
_CONVERSATION: Final = _SHARED | {"conversation_id", "messages"}
_MESSAGE: Final = frozenset(("role", "content", "at"))
_ROLES: Final = ("user", "assistant", "system", "tool")
_RESERVED: Final = ("role", "turn")
_ENDS_HINT: Final = (
    "give created_at or age_s, by default the beginning of the import; --skip-bad leaves it out"
)


@dataclass(frozen=True, slots=True)
class LineContext:
    """What an import knows beside the line. ``import_id`` is random and makes the ids of its memories, in the
    way that ``ids`` says: as ``_import_state``."""

    import_id: UUID
    started_at: datetime
    namespace: str | None
    limits: LimitsConfig
    ids: int = IDS_NEAR

    @property
    def line_bytes_max(self) -> int:
        return self.limits.content_bytes_max + self.limits.metadata_bytes_max + LINE_SLACK_BYTES


def parse_line(raw: bytes, number: int, context: LineContext) -> list[MemoryDraft]:
    """The memories of line ``number`` (from 1); none when it is empty.

    A memory without an id of its own gets one that the import's id and "line" or "line/turn" make: the same
    each time the import is repeated, and nothing about the content can be learned from it.

    Raises:
        InvalidInputError, ContentTooLargeError: the message names line and key.
    """
    try:
        if len(raw) > context.line_bytes_max:
            raise ContentTooLargeError("it is too long", hint=f"at most {context.line_bytes_max} bytes")
        if not raw.strip():
            return []
        data = _decode(raw)
        if "messages" in data:
            return _conversation(data, number, context)
        return [_memory(data, number, context)]
    except StrongroomError as e:
        raise at_line(e, number) from None


def at_line(error: StrongroomError, number: int) -> StrongroomError:
    """The same error, with the number of the line in its message."""
    return type(error)(f"line {number}: {error.message}", hint=error.hint)


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InvalidInputError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidInputError("it is not JSON") from None
    if not isinstance(data, dict):
        raise InvalidInputError("it is not a JSON object")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise InvalidInputError("a key stands twice in one object")
    return data


def _no_constant(_: str) -> Any:
    raise InvalidInputError("NaN and infinity are not JSON")


def _memory(data: dict[str, Any], number: int, context: LineContext) -> MemoryDraft:
    if data.get("redacted"):
        raise InvalidInputError(
            "the memory is redacted: there is nothing of it to import",
            hint="list it with a credential that policies let see it",
        )
    data = {name: value for name, value in data.items() if name not in _OF_A_STORE}
    _only(data, _MEMORY, "")
    if "age_s" in data and data.get("created_at") is not None:
        raise InvalidInputError("created_at and age_s exclude each other")
    created_at = _time(data, "created_at")
    if "age_s" in data:
        created_at = _before(data["age_s"], context.started_at)
    expires_at = _time(data, "expires_at")
    if expires_at is not None:
        created_at = created_at or context.started_at  # not the moment at which its batch is stored
        if expires_at <= created_at:
            raise InvalidInputError("expires_at is not after created_at", hint=_ENDS_HINT)
    given_id = data.get("memory_id")
    return MemoryDraft(
        **_shared(data, context),
        content=_content(data, "content", context.limits),
        memory_id=_made_id(context, number, str(number))
        if given_id is None
        else _uuid(given_id, "memory_id"),
        kind=_text(data, "kind", context.limits) or "observation",
        session_id=_text(data, "session_id", context.limits),
        derived_from=[_uuid(i, "derived_from") for i in _list(data, "derived_from")],
        created_at=created_at,
        expires_at=expires_at,
        embedding=_vector(data),
    )


def _conversation(data: dict[str, Any], number: int, context: LineContext) -> list[MemoryDraft]:
    _only(data, _CONVERSATION, "")
    conversation_id = _text(data, "conversation_id", context.limits)
    if conversation_id is None:
        raise InvalidInputError("conversation_id is missing")
    messages = _list(data, "messages")
    if not 1 <= len(messages) <= MESSAGES_MAX:
        raise InvalidInputError(f"messages must hold 1 to {MESSAGES_MAX} objects")
    shared = _shared(data, context)
    metadata: Mapping[str, Any] = shared.pop("metadata") or {}
    if any(key in metadata for key in _RESERVED):
        raise InvalidInputError("metadata of a conversation must not hold role or turn")
    out: list[MemoryDraft] = []
    at = context.started_at
    for turn, message in enumerate(messages):
        where = f"messages[{turn}]"
        if not isinstance(message, dict):
            raise InvalidInputError(f"{where} is not an object")
        _only(message, _MESSAGE, where + ".")
        if message.get("role") not in _ROLES:
            raise InvalidInputError(f"{where}.role must be one of: {', '.join(_ROLES)}")
        at = _time(message, "at", where + ".") or at
        out.append(
            MemoryDraft(
                **shared,
                content=_content(message, "content", context.limits, where + "."),
                memory_id=_made_id(context, number, f"{number}/{turn}"),
                kind="conversation",
                session_id=conversation_id,
                metadata={**metadata, "role": message["role"], "turn": turn},
                created_at=at,
            )
        )
    return out


def _made_id(context: LineContext, line: int, name: str) -> UUID:
    """UUIDv5(import_id, name), or a UUID of version 8 made of it, which begins like those of lines nearby.

    So these stand together in the store's index (ADR 21).
    """
    own = uuid5(context.import_id, name)
    if context.ids != IDS_NEAR:
        return own
    raw = bytearray(own.bytes)
    raw[:6] = _beginning(context.import_id, line // _LINES_NEAR)
    raw[6] = (raw[6] & 0x0F) | 0x80
    return UUID(bytes=bytes(raw))


@lru_cache(maxsize=4)
def _beginning(import_id: UUID, block: int) -> bytes:
    return uuid5(import_id, f"lines {block}").bytes[:6]


def _shared(data: dict[str, Any], context: LineContext) -> dict[str, Any]:
    limits = context.limits
    namespace = data.get("namespace", context.namespace)
    if namespace is None:
        raise InvalidInputError("namespace is missing", hint="add it to the line, or name one with -n")
    metadata = data.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidInputError("metadata must be an object")
    importance = data.get("importance", 0.5)
    if not _is_number(importance) or not 0 <= importance <= 1:
        raise InvalidInputError("importance must be a number from 0 to 1")
    tags = _list(data, "tags")
    if not all(isinstance(t, str) and t for t in tags):
        raise InvalidInputError("tags must be a list of strings that are not empty")
    return {
        "namespace": check_namespace(namespace),
        "subject": _text(data, "subject", limits),
        "agent_id": _text(data, "agent_id", limits),
        "source": _text(data, "source", limits),
        "sensitivity": _text(data, "sensitivity", limits) or "internal",
        "tags": tags,
        "metadata": metadata,
        "importance": float(importance),
    }


def _only(data: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sum(key not in known for key in data)
    if unknown:  # the key itself may be content that went astray
        raise InvalidInputError(
            f"{where}{'an object' if not where else 'it'} has {unknown} unknown "
            + ("key" if unknown == 1 else "keys"),
            hint="known: " + ", ".join(sorted(known)),
        )


def _text(data: Mapping[str, Any], name: str, limits: LimitsConfig) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{name} must be a string that is not empty")
    if _utf8_bytes(value, name) > limits.text_field_bytes_max:
        raise ContentTooLargeError(f"{name} is too long", hint=f"at most {limits.text_field_bytes_max} bytes")
    return value


def _content(data: Mapping[str, Any], name: str, limits: LimitsConfig, where: str = "") -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{where}{name} must be a string that is not empty")
    if _utf8_bytes(value, where + name) > limits.content_bytes_max:
        raise ContentTooLargeError(
            f"{where}{name} is too long", hint=f"at most {limits.content_bytes_max} bytes"
        )
    return value


def _utf8_bytes(value: str, name: str) -> int:
    if "\x00" in value:
        raise InvalidInputError(f"{name} holds a NUL character")
    try:
        return len(value) if value.isascii() else len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInputError(f"{name} is not valid Unicode") from None


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInputError(f"{name} must be a list")
    return value


def _uuid(value: object, name: str) -> UUID:
    try:
        if isinstance(value, str):
            return UUID(value)
    except ValueError:
        pass
    raise InvalidInputError(f"{name} must be a UUID")


def _time(data: Mapping[str, Any], name: str, where: str = "") -> datetime | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{where}{name} is not a time in ISO 8601") from None
    if moment.tzinfo is None:
        raise InvalidInputError(
            f"{where}{name} has no offset", hint="nobody can tell which zone it means: add Z, or +02:00"
        )
    return moment


def _before(age_s: Any, started_at: datetime) -> datetime:
    if not _is_number(age_s) or age_s < 0:
        raise InvalidInputError("age_s must be a number of seconds, not negative")
    try:
        return started_at - timedelta(seconds=float(age_s))
    except OverflowError:
        raise InvalidInputError("age_s is too large") from None


def _vector(data: Mapping[str, Any]) -> list[float] | None:
    value = data.get("embedding")
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_is_number(x) for x in value):
        raise InvalidInputError("embedding must be a list of numbers")
    return value


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False
