"""Arguments to JSON and JSON to nouns, without any I/O. Unknown fields of a newer server are ignored."""

from __future__ import annotations

import codecs
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import msgspec

from strongroom.errors import (
    ConfigurationError,
    InvalidInputError,
    StrongroomError,
    TransportError,
    UnauthenticatedError,
    callers_own,
    from_dict,
)
from strongroom.model import (
    ApiKeyInfo,
    AuditEntry,
    EncryptionKey,
    Hit,
    KeyChange,
    Memory,
    MemoryDraft,
    NamespaceInfo,
    NamespaceKms,
    NamespacePattern,
    Notice,
    PrincipalKind,
    QueueEntry,
    Rewrapped,
    Rotation,
    Scope,
    check_words,
)
from strongroom.model.memory import Unset

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEPTH_MAX = 32
_ITEM = re.compile(r"^item (\d{1,9}):")
_ITEM_FIELD = re.compile(r"\bitems\.(\d{1,9})\.")
_UNREAD = "the items could not be read"
CHUNK_BYTES_MAX = 8 * 1024 * 1024


class HitsAnswer(msgspec.Struct):
    hits: list[Hit]
    notices: list[Notice] = []


class Memories(msgspec.Struct):
    memories: list[Memory]


class Deleted(msgspec.Struct):
    deleted: bool


class Cancelled(msgspec.Struct):
    cancelled: bool


class Namespaces(msgspec.Struct):
    namespaces: list[NamespaceInfo]


class Kms(msgspec.Struct):
    namespaces: list[NamespaceKms]


class Queue(msgspec.Struct):
    entries: list[QueueEntry]


class Requeued(msgspec.Struct):
    requeued: int


class Key(msgspec.Struct):
    key_id: str
    name: str
    scope: Scope
    grants: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    kind: PrincipalKind = PrincipalKind.AGENT
    agent_id: str = ""
    tenant: str = ""
    labels: list[str] = []

    def noun(self) -> ApiKeyInfo:
        grants = tuple(NamespacePattern.parse(g) for g in self.grants)
        return ApiKeyInfo(
            key_id=self.key_id,
            name=self.name,
            scope=self.scope,
            grants=grants,
            created_at=self.created_at,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
            kind=self.kind,
            agent_id=self.agent_id,
            tenant=self.tenant,
            labels=tuple(self.labels),
        )


class NewKey(msgspec.Struct):
    key: Key
    api_key: str


class Keys(msgspec.Struct):
    keys: list[Key]


class Entry(msgspec.Struct):
    seq: int
    at: datetime
    request_id: str
    principal: str
    surface: str
    action: str
    namespaces: list[str]
    outcome: str
    reason: str
    memory_ids: list[UUID]
    count: int
    details: dict[str, str]
    subjects: list[str]

    def noun(self) -> AuditEntry:
        return AuditEntry(
            at_us=(self.at - _EPOCH) // timedelta(microseconds=1),
            request_id=self.request_id,
            principal=self.principal,
            surface=self.surface,
            action=self.action,
            namespaces=tuple(self.namespaces),
            outcome=self.outcome,
            reason=self.reason,
            memory_ids=tuple(i.bytes for i in self.memory_ids),
            count=self.count,
            details=tuple(self.details.items()),
            subjects=tuple(bytes.fromhex(s) for s in self.subjects),
            seq=self.seq,
        )


class Entries(msgspec.Struct):
    entries: list[Entry]


class KeyTree(msgspec.Struct):
    keys: list[EncryptionKey]


class KeyHistory(msgspec.Struct):
    history: list[KeyChange]


class Rotations(msgspec.Struct):
    rotations: list[Rotation]


class RewrappedList(msgspec.Struct):
    rewrapped: list[Rewrapped]


class Nothing(msgspec.Struct):
    """An answer whose content does not matter."""


class _Error(msgspec.Struct):
    error: dict[str, str]


_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}  # made at first use


def decode(kind: type[T], raw: bytes) -> T:
    """The noun in an answer.

    Raises:
        TransportError: it is not of the form that this client knows.
    """
    decoder = _DECODERS.get(kind) or _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    try:
        value: T = decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError("the answer is not of the form that this client knows") from None
    return value


def error_of(status: int, raw: bytes) -> StrongroomError:
    """The error that an answer shows."""
    try:
        return from_dict(decode(_Error, raw).error)
    except TransportError:
        return TransportError(f"the server answered with status {status} and no error that this client knows")


def base_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigurationError: it is not an ``https://`` address.
    """
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        raise ConfigurationError("the address of a server is https://host:port")
    if parts.scheme != "https":
        raise ConfigurationError("a server is only reached over TLS", hint="begin the address with https://")
    return url.rstrip("/")


def bearer(api_key: str) -> str:
    """The value of the Authorization header.

    Raises:
        UnauthenticatedError: the key cannot be one.
    """
    if not isinstance(api_key, str) or re.fullmatch(r"[A-Za-z0-9._~+/=-]{1,8192}", api_key, re.ASCII) is None:
        raise UnauthenticatedError
    return f"Bearer {api_key}"


def authorization(api_key: str | None, certificate: bool) -> list[tuple[bytes, bytes]]:
    """The header that says who calls; none when a certificate does.

    Raises:
        UnauthenticatedError: the key cannot be one, or there is neither.
    """
    if api_key is None:
        if not certificate:
            raise UnauthenticatedError
        return []
    return [(b"authorization", bearer(api_key).encode("ascii"))]


def spoken(purpose: str, reason: str) -> dict[bytes, bytes]:
    """The headers that say what requests are for; none for "".

    Raises:
        InvalidInputError: not at most 256 printable characters.
    """
    words = {
        b"strongroom-purpose": check_words("purpose", purpose),
        b"strongroom-reason": check_words("reason", reason),
    }
    return {name: text.encode() for name, text in words.items() if text}


def text_decoder() -> codecs.IncrementalDecoder:
    """Makes text of the pieces of an answer."""
    return codecs.getincrementaldecoder("utf-8")("replace")


def _hook(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # arrays, and their scalars
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    raise TypeError(type(value).__name__)


_ENCODER = msgspec.json.Encoder(enc_hook=_hook)


def encode(fields: Mapping[str, Any]) -> bytes:
    """The body for named arguments; those that are ``UNSET`` are left out.

    Raises:
        InvalidInputError: a value cannot be sent as JSON without changing it.
    """
    given = {k: v for k, v in fields.items() if not isinstance(v, Unset)}
    if given.get("metadata") is not None:
        _check_json(given["metadata"], 1)
    for name, value in given.items():
        if isinstance(value, bytes | bytearray | memoryview):
            raise InvalidInputError(f"{name} cannot be bytes")
    try:
        return _ENCODER.encode(given)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.EncodeError):
        raise InvalidInputError("an argument cannot be sent as JSON") from None


def quoted(part: str) -> str:
    """One segment of a path.

    Raises:
        InvalidInputError: it is empty, or ``.`` or ``..``, or not valid Unicode.
    """
    try:
        text = quote(part, safe="")
    except UnicodeEncodeError:
        text = ""
    if text in ("", ".", ".."):
        raise InvalidInputError("an id cannot be empty or a path")
    return text


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not None."""
    return {k: v for k, v in fields.items() if v is not None}


def names(namespaces: Sequence[str]) -> Sequence[str]:
    """The names or patterns; one without a list around it counts as a list of one, as in an open store."""
    return (namespaces,) if isinstance(namespaces, str) else namespaces


def item(draft: object) -> bytes:
    """One item of ``store_many`` as JSON.

    Raises:
        InvalidInputError: it is neither a draft nor a mapping, or cannot be sent.
    """
    if isinstance(draft, MemoryDraft):
        return encode(present({f.name: getattr(draft, f.name) for f in dataclasses.fields(draft)}))
    if isinstance(draft, Mapping) and all(isinstance(k, str) for k in draft):
        return encode(present(draft))
    raise InvalidInputError("each item must be a mapping with content and namespace")


def _next(source: Iterator[object]) -> tuple[object, ...]:
    """The next item, and nothing at the end of them."""
    for found in source:
        return (found,)
    return ()


def chunks(items: Iterable[object], items_max: int) -> Iterator[tuple[int, bytes]]:
    """Bodies of ``store_many``, each with the position of its first item: at most ``items_max`` items and
    about 8 MiB each.

    Raises:
        InvalidInputError: the items could not be read.
    """
    pending: list[bytes] = []
    size = first = 0
    source = callers_own(iter, items, _UNREAD)
    for position in count():
        found = callers_own(_next, source, _UNREAD)
        if not found:
            break
        try:
            one = callers_own(item, found[0], _UNREAD)
        except StrongroomError as e:
            e.message = f"item {position}: {e.message}"
            e.args = (e.message,)
            raise
        if pending and (len(pending) >= items_max or size + len(one) > CHUNK_BYTES_MAX):
            yield first, b'{"items":[' + b",".join(pending) + b"]}"
            pending, size, first = [], 0, position
        pending.append(one)
        size += len(one)
    if pending:
        yield first, b'{"items":[' + b",".join(pending) + b"]}"


def counted_from(error: StrongroomError, first: int) -> StrongroomError:
    """``error`` with the positions that it names counted from the first item of all, not of its chunk."""
    if first:
        error.message = _ITEM.sub(lambda m: f"item {int(m[1]) + first}:", error.message)
        error.args = (error.message,)
        if error.hint:
            error.advise(_ITEM_FIELD.sub(lambda m: f"items.{int(m[1]) + first}.", error.hint))
    return error


def _check_json(value: Any, depth: int) -> None:
    """What JSON would silently change is refused, as an embedded store refuses it."""
    if depth > _DEPTH_MAX:
        raise InvalidInputError("metadata is nested too deeply", hint=f"at most {_DEPTH_MAX} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError("metadata holds NaN or infinity")
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise InvalidInputError("metadata has a key that is not a string")
        for inner in value.values():
            _check_json(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_json(inner, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise InvalidInputError("metadata holds a value that JSON does not know")
