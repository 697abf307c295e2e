"""One snapshot file: header, wrapped key, sealed stream. Version 1 of spec/snapshot.md.

    0           8               24      32       40           48                    154
    +-----------+---------------+-------+--------+------------+---------------------+--------------------+
    | "SRSNAP", | store id (16) | ns u64| seq u64| made us u64| wrapped key (106)   | sealed stream ...  |
    |  0, 1     |               |       |        |            | spec/sealed-record  | spec/stream.md     |
    +-----------+---------------+-------+--------+------------+---------------------+--------------------+

Inside the stream: length u32 | description (MessagePack) | 8 bytes for each memory | the arrays of
``recall``. Numbers of the header are big-endian. Both seals bind the header and the tenant.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO, Final
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from strongroom.crypto import WRAPPED_BYTES, OpenStream, SealStream, SecretKey
from strongroom.errors import DecryptionError, IntegrityError, UnwrapError
from strongroom.keyring import PurposeKey

MAGIC: Final = b"SRSNAP\0\1"
HEADER_BYTES: Final = 48
PRINT_BYTES: Final = 8

_HEADER: Final = struct.Struct(">8s16sQQQ")
_LENGTH: Final = struct.Struct(">I")
_LABEL: Final = b"strongroom/snapshot@v1\0"
_DESCRIPTION_BYTES_MAX: Final = 4096
_BUFFER_BYTES: Final = 1 << 20
_SYNC_BYTES: Final = 2 << 20  # a few milliseconds: a commit that comes meanwhile waits for no more


class Description(msgspec.Struct, array_like=True, frozen=True):
    """What the index was built for; sealed, because it says something about the contents.

    ``head_sum``: the sum in the namespace's head at the watermark (32 bytes), empty when it was not known.
    """

    layout: int
    model_no: int
    language: str
    analysis: str
    rows: int
    head_sum: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The clear part. Believe it only after the key has been unwrapped."""

    store_id: UUID
    ns: int
    seq: int
    made_us: int

    def encode(self) -> bytes:
        return _HEADER.pack(MAGIC, self.store_id.bytes, self.ns, self.seq, self.made_us)


class SnapshotSink:
    """Writes a file so that neither the page cache nor a disk queue fills up at once.

    ``rest`` is called after each 2 MiB with the seconds they took; what it raises ends the writing.
    """

    def __init__(self, file: IO[bytes], rest: Callable[[float], None]) -> None:
        self._file = file
        self._rest = rest
        self._unsynced = 0
        self._since_s = perf_counter()

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_BYTES:
            self._unsynced = 0
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._rest(perf_counter() - self._since_s)
            self._since_s = perf_counter()
        return len(data)


def context_of(header: bytes, tenant: str) -> bytes:
    """What both seals of a snapshot bind."""
    return _LABEL + header + tenant.encode()


def begin(
    sink: SnapshotSink, header: Header, tenant: str, kek: PurposeKey, suite: int, description: Description
) -> SealStream:
    """Write header and description under a fresh random key; the stream for what follows.

    Raises:
        OSError: of the file.
    """
    raw = header.encode()
    context = context_of(raw, tenant)
    key = SecretKey.generate()
    sink.write(raw)
    sink.write(kek.wrap(key, context, suite))
    stream = SealStream(key, sink, context, suite=suite)
    described = msgspec.msgpack.encode(description)
    stream.write(_LENGTH.pack(len(described)) + described)
    return stream


OpenedFile = io.BufferedReader


def read_header(file: IO[bytes]) -> tuple[Header, bytes]:
    """The header and its bytes.

    Raises:
        IntegrityError: it is no snapshot of this version. FileNotFoundError: it was overwritten.
    """
    raw = file.read(HEADER_BYTES)
    if len(raw) != HEADER_BYTES:
        raise IntegrityError("a snapshot is cut short")
    if not any(raw):
        raise FileNotFoundError("thrown away meanwhile")
    magic, store_id, ns, seq, made_us = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise IntegrityError("a snapshot of another version")
    return Header(UUID(bytes=store_id), ns, seq, made_us), raw


def open_file(path: Path) -> OpenedFile:
    """Raises: OSError. Only a regular file is opened, and no symbolic link is followed."""
    return io.BufferedReader(io.FileIO(_opened(path, os.O_RDONLY), "rb"), _BUFFER_BYTES)


def erase_key(path: Path) -> None:
    """Overwrite header and wrapped key of a file.

    One that goes by a second name is left as it is: whoever can write the directory could have given the name
    of a snapshot to a file that is none, the keyring for example.

    Raises:
        OSError: it is not there, or not ours to write.
    """
    descriptor = _opened(path, os.O_WRONLY)
    try:
        if os.fstat(descriptor).st_nlink == 1:
            os.pwrite(descriptor, bytes(HEADER_BYTES + WRAPPED_BYTES), 0)
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    return descriptor


def open_stream(file: OpenedFile, raw: bytes, tenant: str, kek: PurposeKey) -> OpenStream:
    """The stream behind a header that was read.

    Raises:
        DecryptionError: key, header or tenant are not those that it was sealed with.
    """
    wrapped = file.read(WRAPPED_BYTES)
    context = context_of(raw, tenant)
    try:
        key = kek.unwrap(wrapped, context)
    except UnwrapError:
        raise DecryptionError from None
    return OpenStream(key, file, context, suite=wrapped[1])


def read_description(stream: OpenStream) -> Description:
    """Raises: IntegrityError: it is of another form."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _DESCRIPTION_BYTES_MAX:
        raise IntegrityError("a snapshot has a form that this version does not know")
    try:
        return msgspec.msgpack.decode(_exactly(stream, length), type=Description)
    except msgspec.MsgspecError:
        raise IntegrityError("a snapshot has a form that this version does not know") from None


def read_prints(stream: OpenStream, rows: int) -> NDArray[np.uint64]:
    """Eight bytes for each memory, shape (rows,).

    Raises:
        IntegrityError: the stream is shorter.
    """
    if not 0 <= rows < 2**32:
        raise IntegrityError("a snapshot has a form that this version does not know")
    prints = np.empty(rows, dtype="<u8")
    if rows and stream.readinto(prints.data.cast("B")) != prints.nbytes:
        raise IntegrityError("a snapshot is cut short")
    return prints


def _exactly(stream: OpenStream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise IntegrityError("a snapshot is cut short")
    return data
