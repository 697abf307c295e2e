"""The bytes of the PostgreSQL protocol 3: messages of the client taken apart, messages of the server made.

Layout of a message: type (1 byte; none in the start-up packet) | length (4, itself included) | payload.
Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol". Pure functions and one buffer;
no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from strongroom.servers.pgwire._errors import PgError

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
CANCEL_REQUEST = 1234 << 16 | 5678
SSL_REQUEST = 1234 << 16 | 5679
GSSENC_REQUEST = 1234 << 16 | 5680

STARTUP_BYTES_MAX = 10_000  # as PostgreSQL
AUTH_BYTES_MAX = 16 * 1024
_CODES = frozenset({CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST})
_I16 = struct.Struct("!h")
_U16 = struct.Struct("!H")
_I32 = struct.Struct("!i")
_U32 = struct.Struct("!I")
_FIELD = struct.Struct("!IhIhih")

KNOWN = frozenset(b"QPBDECHSXFdcfp")  # types that a client may send


def protocol_violation(text: str) -> PgError:
    """The error for bytes that are no message of the protocol; it ends the connection."""
    return PgError("08P01", text, fatal=True)


class Inbox:
    """Collects bytes of the client and gives out whole messages; never holds more than one's limit.

    What is read beyond one message stays for the next call.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        if self._at > 65_536 and self._at * 2 > len(self._data):
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def __len__(self) -> int:
        return len(self._data) - self._at

    def startup(self) -> bytes | None:
        """The payload of a start-up packet (its code first); None: more bytes are needed.

        Raises:
            PgError: 08P01, its length cannot be.
        """
        return self._payload(0, 8, STARTUP_BYTES_MAX)

    def message(self, bytes_max: int) -> tuple[int, bytes] | None:
        """Type and payload of the next message; None: more bytes are needed.

        Raises:
            PgError: 08P01, no type of the protocol, or longer than ``bytes_max``.
        """
        if len(self) < 1:
            return None
        kind = self._data[self._at]
        if kind not in KNOWN:
            raise protocol_violation(f"invalid frontend message type {kind}")
        payload = self._payload(1, 4, bytes_max)
        return None if payload is None else (kind, payload)

    def _payload(self, skip: int, least: int, bytes_max: int) -> bytes | None:
        start = self._at + skip
        if len(self._data) - start < 4:
            return None
        (length,) = _U32.unpack_from(self._data, start)
        if not least <= length <= bytes_max:
            raise protocol_violation("invalid message length")
        if len(self._data) - start < length:
            return None
        payload = bytes(memoryview(self._data)[start + 4 : start + length])
        self._at = start + length
        if self._at == len(self._data):
            self._data.clear()
            self._at = 0
        return payload


class Reader:
    """Reads the parts of one payload; whatever does not fit is a protocol violation."""

    def __init__(self, payload: bytes) -> None:
        self._data = payload
        self._at = 0

    def i16(self) -> int:
        return self._number(_I16, 2)

    def u16(self) -> int:
        return self._number(_U16, 2)

    def i32(self) -> int:
        return self._number(_I32, 4)

    def u32(self) -> int:
        return self._number(_U32, 4)

    def _number(self, form: struct.Struct, size: int) -> int:
        if self._at + size > len(self._data):
            raise protocol_violation("insufficient data left in message")
        (value,) = form.unpack_from(self._data, self._at)
        self._at += size
        return int(value)

    def take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise protocol_violation("insufficient data left in message")
        out = self._data[self._at : self._at + count]
        self._at += count
        return out

    def text(self) -> str:
        """A string up to its zero byte, as UTF-8."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise protocol_violation("invalid string in message")
        raw = self._data[self._at : end]
        self._at = end + 1
        return utf8(raw)

    def end(self) -> None:
        if self._at != len(self._data):
            raise protocol_violation("invalid message format")


def utf8(raw: bytes) -> str:
    """Raises: PgError 22021: not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise PgError("22021", 'invalid byte sequence for encoding "UTF8"') from None


# -- what clients send ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Startup:
    """A start-up message. ``minor`` is what was asked for; ``options`` are unknown ``_pq_`` names."""

    minor: int
    parameters: Mapping[str, str]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    process_id: int
    secret: bytes = field(repr=False)


def startup_code(payload: bytes) -> int:
    """The code of a request without parameters, or the protocol version."""
    return Reader(payload).u32()


def parse_cancel(payload: bytes) -> Cancel:
    reader = Reader(payload)
    reader.u32()
    process_id = reader.u32()
    secret = reader.take(len(payload) - 8)
    if not 4 <= len(secret) <= 256:
        raise protocol_violation("invalid length of cancel request packet")
    return Cancel(process_id, secret)


def parse_startup(payload: bytes) -> Startup:
    """Raises: PgError: 0A000, another major version; 08P01, malformed."""
    reader = Reader(payload)
    version = reader.u32()
    major, minor = version >> 16, version & 0xFFFF
    if major != 3:
        raise PgError(
            "0A000",
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2",
            fatal=True,
        )
    parameters: dict[str, str] = {}
    unknown: list[str] = []
    while name := reader.text():
        value = reader.text()
        if name.startswith("_pq_."):
            unknown.append(name)
        else:
            parameters[name] = value
    reader.end()
    return Startup(minor, parameters, tuple(unknown))


@dataclass(frozen=True, slots=True)
class Parse:
    name: str
    sql: str
    types: tuple[int, ...]


def parse_parse(payload: bytes) -> Parse:
    reader = Reader(payload)
    name, sql = reader.text(), reader.text()
    types = tuple(reader.u32() for _ in range(reader.u16()))
    reader.end()
    return Parse(name, sql, types)


@dataclass(frozen=True, slots=True)
class Bind:
    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...] = field(repr=False)
    result_formats: tuple[int, ...] = ()


def parse_bind(payload: bytes) -> Bind:
    reader = Reader(payload)
    portal, statement = reader.text(), reader.text()
    formats = tuple(reader.i16() for _ in range(reader.u16()))
    values: list[bytes | None] = []
    for _ in range(reader.u16()):
        length = reader.i32()
        values.append(None if length == -1 else reader.take(length))
    results = tuple(reader.i16() for _ in range(reader.u16()))
    reader.end()
    if any(f not in (0, 1) for f in (*formats, *results)):
        raise PgError("22023", "unsupported format code")
    if len(formats) > 1 and len(formats) != len(values):
        raise PgError(
            "08P01", f"bind message has {len(formats)} parameter formats but {len(values)} parameters"
        )
    return Bind(portal, statement, formats, tuple(values), results)


def parse_target(payload: bytes) -> tuple[bool, str]:
    """Of Describe and Close: (is it a statement, its name)."""
    reader = Reader(payload)
    kind = reader.take(1)
    name = reader.text()
    reader.end()
    if kind not in (b"S", b"P"):
        raise protocol_violation("invalid subtype of a message")
    return kind == b"S", name


def parse_execute(payload: bytes) -> tuple[str, int]:
    """(portal, most rows; 0: all)."""
    reader = Reader(payload)
    name = reader.text()
    limit = reader.i32()
    reader.end()
    return name, max(0, limit)


def parse_query(payload: bytes) -> str:
    reader = Reader(payload)
    sql = reader.text()
    reader.end()
    return sql


# -- what the server sends --------------------------------------------------------------------------
def message(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + _I32.pack(len(payload) + 4) + payload


PARSE_COMPLETE = message(b"1")
BIND_COMPLETE = message(b"2")
CLOSE_COMPLETE = message(b"3")
NO_DATA = message(b"n")
EMPTY_QUERY = message(b"I")
PORTAL_SUSPENDED = message(b"s")
COPY_DONE = message(b"c")
AUTH_OK = message(b"R", _I32.pack(0))
AUTH_CLEARTEXT = message(b"R", _I32.pack(3))


def auth_sasl(mechanisms: Sequence[str]) -> bytes:
    return message(b"R", _I32.pack(10) + b"".join(m.encode() + b"\0" for m in mechanisms) + b"\0")


def auth_sasl_continue(data: bytes) -> bytes:
    return message(b"R", _I32.pack(11) + data)


def auth_sasl_final(data: bytes) -> bytes:
    return message(b"R", _I32.pack(12) + data)


def negotiate_version(minor: int, unknown: Sequence[str]) -> bytes:
    names = b"".join(n.encode() + b"\0" for n in unknown)
    return message(b"v", struct.pack("!Ii", 3 << 16 | minor, len(unknown)) + names)


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key(process_id: int, secret: bytes) -> bytes:
    return message(b"K", _U32.pack(process_id) + secret)


def ready(status: bytes) -> bytes:
    """``status``: I outside, T inside, E in a failed transaction."""
    return message(b"Z", status)


def complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def _fields(error: PgError, severity: str) -> bytes:
    parts = {"S": severity, "V": severity, "C": error.sqlstate, "M": error.text}
    if error.hint:
        parts["H"] = error.hint
    if error.position:
        parts["P"] = str(error.position)
    raw = (k.encode() + v.replace("\0", " ").encode("utf-8", "replace") + b"\0" for k, v in parts.items())
    return b"".join(raw) + b"\0"


def error_response(error: PgError) -> bytes:
    return message(b"E", _fields(error, "FATAL" if error.fatal else "ERROR"))


def notice(sqlstate: str, text: str, severity: str = "WARNING") -> bytes:
    return message(b"N", _fields(PgError(sqlstate, text), severity))


def parameter_description(oids: Sequence[int]) -> bytes:
    return message(b"t", _U16.pack(len(oids)) + b"".join(_U32.pack(o) for o in oids))


def row_description(columns: Sequence[tuple[str, int, int, int]], formats: Sequence[int]) -> bytes:
    """``columns``: (name, type, size of the type, modifier)."""
    out = [_U16.pack(len(columns))]
    for (name, oid, size, modifier), form in zip(columns, formats, strict=True):
        out.append(name.encode("utf-8", "replace").replace(b"\0", b"") + b"\0")
        out.append(_FIELD.pack(0, 0, oid, size, modifier, form))
    return message(b"T", b"".join(out))


def copy_out(form: int, columns: int) -> bytes:
    return message(b"H", struct.pack("!bH", form, columns) + _I16.pack(form) * columns)


def copy_data(data: bytes) -> bytes:
    return message(b"d", data)
