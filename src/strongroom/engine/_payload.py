"""What is inside a seal: the plaintext encodings of memory, vector and access rows (spec/payloads.md).

Memory and system payloads are MessagePack arrays in a fixed order; a vector is a fixed header and
little-endian float32. The seal authenticates them, so decoding trusts the bytes but not the version.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError
from strongroom.model import Memory
from strongroom.model.memory import UnfrozenMemory

PAYLOAD_SCHEMA = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOAT32_LE = np.dtype("<f4")
_VECTOR_HEADER = struct.Struct("<BQII")  # schema, content version, model number, dimensions


class MemoryPayload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sealed part of a memory. Times are microseconds since the epoch, UTC."""

    content: str
    kind: str
    metadata: dict[str, Any]
    tags: list[str]
    subject: str | None
    agent_id: str | None
    session_id: str | None
    sensitivity: str
    importance: float
    source: str | None
    derived_from: list[bytes]
    created_us: int
    updated_us: int
    expires_us: int | None

    def __repr__(self) -> str:  # content stays out of logs and tracebacks
        return f"<MemoryPayload, {len(self.content)} characters>"


class AccessPayload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How often a memory was returned, and when last (microseconds since the epoch)."""

    count: int
    last_us: int


class NamespacePayload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A namespace's name and settings. ``model`` is a name of the configuration."""

    ns: int
    name: str
    created_us: int
    model: str
    model_no: int
    language: str
    sealed: bool = False  # content and metadata stay sealed in memory; absent in rows of before


class ModelPayload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An embedding model that vectors of this store were made with."""

    model_no: int
    fingerprint: str
    dimensions: int


T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()
_memory_decoder = msgspec.msgpack.Decoder(MemoryPayload)


def to_us(t: datetime) -> int:
    """Microseconds since the epoch of an aware time."""
    return (t - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The UTC time of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=us)


def encode(payload: msgspec.Struct) -> bytes:
    return _encoder.encode(payload)


def decode_memory(raw: bytes) -> MemoryPayload:
    """Raises: IntegrityError: the opened bytes are of another version."""
    try:
        return _memory_decoder.decode(raw)
    except msgspec.MsgspecError:
        raise IntegrityError("a memory has a form that this version does not know") from None


def decode_as(kind: type[T], raw: bytes) -> T:
    """Raises: IntegrityError: the opened bytes are of another version."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except msgspec.MsgspecError:
        raise IntegrityError("a record has a form that this version does not know") from None


def encode_vector(vector: NDArray[np.float32], content_version: int, model_no: int) -> bytes:
    """``vector``: float32, shape (dimensions,)."""
    head = _VECTOR_HEADER.pack(PAYLOAD_SCHEMA, content_version, model_no, vector.shape[0])
    return head + vector.astype(_FLOAT32_LE, copy=False).tobytes()


def decode_vector(raw: bytes) -> tuple[NDArray[np.float32], int, int]:
    """The vector, its content version and its model number.

    Raises:
        IntegrityError: the opened bytes are of another version.
    """
    try:
        schema, content_version, model_no, dimensions = _VECTOR_HEADER.unpack_from(raw)
    except struct.error:
        raise IntegrityError("a vector has a form that this version does not know") from None
    if schema != PAYLOAD_SCHEMA or len(raw) != _VECTOR_HEADER.size + 4 * dimensions:
        raise IntegrityError("a vector has a form that this version does not know")
    vector = np.frombuffer(raw, dtype="<f4", offset=_VECTOR_HEADER.size)
    return vector, content_version, model_no


def to_memory(
    payload: MemoryPayload,
    memory_id: bytes,
    namespace: str,
    version: int,
    *,
    has_embedding: bool = False,
    access: tuple[int, int] | None = None,
) -> Memory:
    """The opened memory; ``access`` is (count, microseconds of the last one)."""
    created = from_us(payload.created_us)
    return UnfrozenMemory(
        UUID(bytes=memory_id),
        namespace,
        payload.content,
        payload.kind,
        payload.metadata,
        tuple(payload.tags),
        payload.subject,
        payload.agent_id,
        payload.session_id,
        payload.sensitivity,
        payload.importance,
        payload.source,
        tuple([UUID(bytes=b) for b in payload.derived_from]),
        created,
        created if payload.updated_us == payload.created_us else from_us(payload.updated_us),
        None if payload.expires_us is None else from_us(payload.expires_us),
        access[0] if access else 0,
        from_us(access[1]) if access else None,
        has_embedding,
        version,
    ).freeze()
