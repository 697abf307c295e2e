"""What the processes of a load say to each other, over pipes that nobody else can open.

frame from the parent:  kind (1) | position of the first item (8) | length (4) | body
    ORDER  the first one: who loads, and for which store (MessagePack, ``Order``)
    CHUNK  items (pickle, of a few known types), their vectors apart
    END    there are no more
frame from a worker:    kind (1) | position of an item (8) | length (4) | body
    READY  nobody can look into it (``harden_process``): items may come
    KEPT   every item before that one is durable
    FAILED what the load of this worker has ended with (MessagePack, ``StrongroomError.as_dict``)
    DONE   everything that it was given is durable, or somebody else has failed

Integers are big-endian. A pipe that ends without END or DONE: the process at its other end is gone. A frame
that is longer than it may be, or that says what cannot be, counts as that.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from strongroom.model import MemoryDraft

ORDER: Final = 1
CHUNK: Final = 2
END: Final = 3
KEPT: Final = 4
FAILED: Final = 5
DONE: Final = 6
READY: Final = 7

CHUNK_BYTES_MAX: Final = 256 << 20  # sixteen times the content of a chunk
WORD_BYTES_MAX: Final = 64 << 10  # of all other frames

_HEAD: Final = struct.Struct(">BQI")
_FLOAT32: Final = np.dtype("<f4")


class Order(msgspec.Struct, frozen=True):
    """Who loads into which store. ``key_id`` is None for its owner; no secret is among it.

    ``ring``: the file descriptors that the worker waits at, and passes its turn on by.
    """

    directory: str
    number: int
    key_id: str | None
    surface: str
    request_id: str
    purpose: str
    reason: str
    logs_to_stderr: bool
    ring: tuple[int, int]


class Frame(NamedTuple):
    kind: int
    position: int
    body: bytearray


class PipeBrokenError(Exception):
    """The process at the other end is gone, or a frame is not whole."""


class NonsenseError(PipeBrokenError):
    """What came is no frame, or says what cannot be."""


def send(pipe: int, kind: int, position: int = 0, body: bytes = b"") -> None:
    """Write a frame. Raises: PipeBrokenError: nobody reads it."""
    try:
        _write(pipe, _HEAD.pack(kind, position, len(body)))
        _write(pipe, body)
    except OSError:
        raise PipeBrokenError from None


def _write(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


def receive(pipe: int, bytes_max: int = WORD_BYTES_MAX) -> Frame:
    """The next frame. Raises: PipeBrokenError. NonsenseError: it is longer than ``bytes_max``."""
    kind, position, length = _HEAD.unpack(_read(pipe, _HEAD.size))
    if length > bytes_max:
        raise NonsenseError
    return Frame(kind, position, _read(pipe, length))


def _read(pipe: int, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            count = os.readv(pipe, [view])
        except OSError:
            count = 0
        if not count:
            raise PipeBrokenError
        view = view[count:]
    return data


def pack_items(items: list[Any]) -> bytes:
    """Items as they are, so that a worker refuses what the caller's own process would refuse.

    Raises:
        CannotBeHandedError: one of them holds an object of a type that only this process knows.
    """
    out = io.BytesIO()
    try:
        rest, vectors = _vectors_apart(items)
        _Pickler(out, protocol=5).dump((rest, [place for place, _ in vectors]))
    except CannotBeHandedError:
        raise
    except Exception as e:  # noqa: BLE001 - an object of the caller's own may raise what it likes
        raise CannotBeHandedError(type(e).__name__) from None
    out.writelines(vector.data for _, vector in vectors)
    return out.getvalue()


def unpack_items(body: bytearray) -> list[Any]:
    """What ``pack_items`` was given. The body may be overwritten afterwards."""
    source = io.BytesIO(body)
    items: list[Any]
    items, places = _Unpickler(source).load()
    if places:
        vectors = np.frombuffer(source.read(), _FLOAT32).reshape(len(places), -1)
        for place, vector in zip(places, vectors, strict=True):
            items[place]["embedding"] = vector
    return items


def _vectors_apart(items: list[Any]) -> tuple[list[Any], list[tuple[int, NDArray[np.float32]]]]:
    """The items without those of their vectors that are arrays of one length, and these with their places.

    Pickle would call us for each of them.
    """
    rest: list[Any] = []
    vectors: list[tuple[int, NDArray[np.float32]]] = []
    shape: tuple[int, ...] | None = None
    for place, item in enumerate(items):
        rest.append(item)
        if type(item) is not dict:
            continue
        vector = item.get("embedding")
        if type(vector) is np.ndarray and vector.dtype == _FLOAT32 and vector.ndim == 1 and vector.size:
            shape = shape or vector.shape
            if vector.shape == shape:
                vectors.append((place, np.ascontiguousarray(vector)))
                rest[place] = item.copy()
                del rest[place]["embedding"]
    return rest, vectors


class CannotBeHandedError(Exception):
    """An object cannot be handed to another process; the argument is the name of a type."""


class _Pickler(pickle.Pickler):
    """Plain values, and a few types of the library; of others what they are at heart, or nothing."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is np.ndarray and value.dtype == _FLOAT32 and value.ndim == 1:
            return _vector, (value.tobytes(),)
        if kind in _KNOWN:
            return NotImplemented
        if any(value is made for made in _MADE.values()):
            return NotImplemented  # how pickle names them
        for plain, plainly in _PLAIN:
            if isinstance(value, plain):
                return plain, (plainly(value),)
        if isinstance(value, np.ndarray):
            return _array, _parts_of(np.asarray(value))
        if isinstance(value, np.number | np.bool_):
            return _number, (value.dtype.str, value.tobytes())
        if isinstance(value, Mapping):
            return dict, (dict(value),)
        raise CannotBeHandedError(kind.__name__)


def _vector(raw: bytes) -> NDArray[np.float32]:
    return np.frombuffer(raw, _FLOAT32)


def _parts_of(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes. One that holds no numbers is refused wherever it stands: its shape is enough."""
    if array.dtype.kind not in "biufc":
        array = np.zeros(array.shape, np.bool_)
    return array.dtype.str, array.shape, array.tobytes()


def _array(kind: str, shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    return np.frombuffer(raw, kind).reshape(shape)


def _number(kind: str, raw: bytes) -> Any:
    return np.frombuffer(raw, kind)[0]


_PLAIN: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (str, str.__str__),
    (bytes, bytes),
    (int, int.__int__),
    (float, float.__float__),
    (list, list),
    (tuple, tuple),
)


_KNOWN: Final = frozenset((MemoryDraft, UUID, datetime, timedelta, timezone, ZoneInfo))


class _Unpickler(pickle.Unpickler):
    """Makes objects of the types that ``_Pickler`` lets through, and of no others."""

    def find_class(self, module: str, name: str) -> Any:
        found = _MADE.get((module, name))
        if found is None:
            raise pickle.UnpicklingError
        return found


_NAMED: Final[tuple[Any, ...]] = (
    *_KNOWN,
    _vector,
    _array,
    _number,
    dict,
    list,
    tuple,
    str,
    bytes,
    int,
    float,
)
_MADE: Final[dict[tuple[str, str], Any]] = {(made.__module__, made.__qualname__): made for made in _NAMED}
