"""One audit entry as bytes (spec/audit-entry.md): one msgpack array, sealed by the ledger's hook.

    [version, at_us, request_id, principal, surface, action, [namespace, ...], outcome, reason,
     [memory_id (16 bytes), ...], count]                                                  version 1
    [..., {name: text, ...}, [pseudonym (8 bytes), ...]]                                  version 2

An entry without details and subjects is written as version 1.

``seq`` is not among them: the ledger gives it and the sealing binds it. An entry is never refused for
being too long, because an operation must not escape the log by being big: long texts are cut, lists
are capped, and what was left out is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from strongroom.errors import IntegrityError, InvalidInputError, SchemaVersionError
from strongroom.model import AuditEntry

VERSION = 2
_VERSION_BARE = 1  # without details and subjects
TEXT_BYTES_MAX = 256  # request_id, principal, surface, action, outcome
REASON_BYTES_MAX = 512
NAMESPACES_MAX = 1024
MEMORY_IDS_MAX = 1024
DETAILS_MAX = 32
SUBJECTS_MAX = 1024
PSEUDONYM_BYTES = 8
_TIME_US_MAX = 1 << 60
_CUT = "…"


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    at_us: int
    request_id: str
    principal: str
    surface: str
    action: str
    namespaces: list[str]
    outcome: str
    reason: str
    memory_ids: list[bytes]
    count: int


class _DetailedWire(_Wire, array_like=True, forbid_unknown_fields=True, frozen=True):
    details: dict[str, str]
    subjects: list[bytes]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Wire, strict=True)
_DETAILED_DECODER = msgspec.msgpack.Decoder(_DetailedWire, strict=True)
_RAW_DECODER = msgspec.msgpack.Decoder(list[msgspec.Raw])


def encode(entry: AuditEntry) -> bytes:
    """The canonical bytes of an entry, at most about 300 KiB.

    Of more than 1024 memory ids the first 1024 are kept and ``count`` tells how many there were; of
    more than 1024 namespaces the first 1023, and ``+N more`` (no namespace can have that name). Of more
    than 32 details the first 32 by name, of more than 1024 subjects the first 1024.

    Raises:
        InvalidInputError: a time or count is out of range, or a memory id has not 16 bytes,
        a pseudonym not 8.
    """
    if not 0 <= entry.at_us <= _TIME_US_MAX or not 0 <= entry.count <= _TIME_US_MAX:
        raise InvalidInputError("a time or count of an audit entry is out of range")
    if not {16}.issuperset(map(len, entry.memory_ids)):
        raise InvalidInputError("a memory id has 16 bytes")
    if any(len(s) != PSEUDONYM_BYTES for s in entry.subjects):
        raise InvalidInputError("the pseudonym of a data subject has 8 bytes")
    names: Sequence[str] = entry.namespaces
    if len(names) > NAMESPACES_MAX:
        names = [*names[: NAMESPACES_MAX - 1], f"+{len(names) - NAMESPACES_MAX + 1} more"]
    values = (
        entry.at_us,
        _cut(entry.request_id, TEXT_BYTES_MAX),
        _cut(entry.principal, TEXT_BYTES_MAX),
        _cut(entry.surface, TEXT_BYTES_MAX),
        _cut(entry.action, TEXT_BYTES_MAX),
        [_cut(n, TEXT_BYTES_MAX) for n in names],
        _cut(entry.outcome, TEXT_BYTES_MAX),
        _cut(entry.reason, REASON_BYTES_MAX),
        list(entry.memory_ids[:MEMORY_IDS_MAX]),
        max(entry.count, len(entry.memory_ids)),
    )
    if not entry.details and not entry.subjects:
        return _ENCODER.encode(_Wire(_VERSION_BARE, *values))
    details, subjects = _cut_details(entry.details), list(entry.subjects[:SUBJECTS_MAX])
    return _ENCODER.encode(_DetailedWire(VERSION, *values, details, subjects))


def decode(data: bytes, seq: int = 0) -> AuditEntry:
    """Read what ``encode`` wrote; ``seq`` is the number that the ledger gave to the entry.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is nothing that this room wrote.
    """
    wire = _read(data)
    if wire.version > VERSION:
        raise SchemaVersionError
    detailed = wire if isinstance(wire, _DetailedWire) else None
    entry = AuditEntry(
        at_us=wire.at_us,
        request_id=wire.request_id,
        principal=wire.principal,
        surface=wire.surface,
        action=wire.action,
        namespaces=tuple(wire.namespaces),
        outcome=wire.outcome,
        reason=wire.reason,
        memory_ids=tuple(wire.memory_ids),
        count=wire.count,
        details=() if detailed is None else tuple(sorted(detailed.details.items())),
        subjects=() if detailed is None else tuple(detailed.subjects),
        seq=seq,
    )
    try:
        canonical = encode(entry)
    except InvalidInputError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("an audit entry is not of the form that was written")
    return entry


def leaf_hash(sealed: bytes) -> bytes:
    """The hash of one leaf of the log: SHA-256(0x00 | sealed), 32 bytes (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x00" + sealed).digest()


def _cut(text: str, bytes_max: int) -> str:
    """``text`` with lone surrogates replaced, cut at a character so that it fits."""
    if text.isascii() and len(text) <= bytes_max:
        return text
    raw = text.encode("utf-8", "replace")
    if len(raw) <= bytes_max:
        return raw.decode("utf-8")
    return raw[: bytes_max - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


def _cut_details(details: tuple[tuple[str, str], ...]) -> dict[str, str]:
    cut = {_cut(name, TEXT_BYTES_MAX): _cut(text, REASON_BYTES_MAX) for name, text in details}
    return dict(sorted(cut.items())[:DETAILS_MAX])


def _read(data: bytes) -> _Wire:
    decoder = _DECODER if data[1:2] == bytes([_VERSION_BARE]) else _DETAILED_DECODER
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _refuse_newer(data)
        raise IntegrityError("an audit entry is not of the form that was written") from None


def _refuse_newer(data: bytes) -> None:
    try:
        items = _RAW_DECODER.decode(data)
        version = msgspec.msgpack.decode(items[0], type=int) if items else VERSION
    except msgspec.DecodeError:
        return
    if version > VERSION:
        raise SchemaVersionError
