"""Sealed streams for files: byte for byte C2SP chunked-encryption. Version 1 of spec/stream.md.

    0           24                56
    +-----------+-----------------+---------------------+-----+-------------------------------+
    | salt (24) | commitment (32) | 16384 bytes | tag   | ... | 0 to 16383 bytes | tag        |
    +-----------+-----------------+---------------------+-----+-------------------------------+

key (32) | base nonce (12) | commitment (32) = HKDF-Expand-SHA512(input key,
    "c2sp.org/chunked-encryption@v1+" | IANA name of the AEAD | 0x00 | salt | context)
Chunk i has nonce = base nonce XOR i and no associated data. The last chunk is always short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hmac import compare_digest
from types import TracebackType
from typing import Final, Protocol, Self

from strongroom.crypto._chunks import CHUNKED_OKM_BYTES, COMMITMENT_BYTES, ChunkKey, chunked_length
from strongroom.crypto._encoding import PART_BYTES_MAX
from strongroom.crypto._keys import SecretKey, prf_of
from strongroom.crypto._suites import AES_256_GCM, TAG_BYTES, BytesLike, Suite, suite_by_number
from strongroom.errors import ClosedError, DecryptionError, InvalidInputError

STREAM_CHUNK_BYTES: Final = 16 * 1024
STREAM_HEADER_BYTES: Final = 56

_SALT_BYTES: Final = 24
_SEALED_CHUNK_BYTES: Final = STREAM_CHUNK_BYTES + TAG_BYTES
_AHEAD_CHUNKS: Final = 16
_LABEL: Final = b"c2sp.org/chunked-encryption@v1+"


class ByteSink(Protocol):
    """What a sealed stream is written to: any binary file object."""

    def write(self, data: memoryview, /) -> int | None: ...


class ByteSource(Protocol):
    """What a sealed stream is read from: any binary file object in blocking mode."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


def stream_length(plaintext_bytes: int) -> int:
    """The length in bytes of the sealed stream of a plaintext of that length."""
    return STREAM_HEADER_BYTES + chunked_length(plaintext_bytes, STREAM_CHUNK_BYTES)


def _derive(key: SecretKey, suite: Suite, salt: bytes, context: bytes) -> tuple[ChunkKey, bytes]:
    """The chunk key and the commitment."""
    if len(context) > PART_BYTES_MAX:
        raise InvalidInputError("a context is longer than 65535 bytes")
    info = _LABEL + suite.iana_name.encode("ascii") + b"\0" + salt + context
    okm = prf_of(key).expand(info, CHUNKED_OKM_BYTES)
    return ChunkKey(suite, okm), okm[-COMMITMENT_BYTES:]


class SealStream:
    """Seals what is written to it into ``sink``, in memory of two chunks, whatever the length.

    The header is written at once. One thread at a time.
    ``close`` writes the last chunk; a stream that was not closed does not open again. Leaving a
    ``with`` block by an exception aborts instead. Closing leaves ``sink`` open. Errors of ``sink``
    (OSError) pass through; after one, the stream cannot be continued.

    Raises:
        InvalidInputError: the suite is unknown or the context is longer than 65535 bytes.
        KeyStateError: the key was wiped.
    """

    def __init__(
        self,
        key: SecretKey,
        sink: ByteSink,
        context: bytes,
        *,
        suite: int = AES_256_GCM,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        salt = random(_SALT_BYTES)
        if len(salt) != _SALT_BYTES:
            raise InvalidInputError("a salt must be 24 bytes")
        self._chunks, commitment = _derive(key, suite_by_number(suite), salt, context)
        self._sink = sink
        self._counter = 0
        self._filled = 0
        self._plain = memoryview(bytearray(STREAM_CHUNK_BYTES))
        self._sealed = memoryview(bytearray(_SEALED_CHUNK_BYTES))
        self._usable = True
        self._closed = False
        self._emit(memoryview(salt + commitment))

    def write(self, data: BytesLike) -> int:
        """Take all of ``data``; returns its length in bytes.

        Raises:
            ClosedError: the stream was closed or has failed. ContentTooLargeError: 2^38 chunks are full.
        """
        self._check_usable()
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            if not self._filled and len(view) - at >= STREAM_CHUNK_BYTES:
                self._seal_chunk(view[at : at + STREAM_CHUNK_BYTES])
                at += STREAM_CHUNK_BYTES
                continue
            n = min(STREAM_CHUNK_BYTES - self._filled, len(view) - at)
            self._plain[self._filled : self._filled + n] = view[at : at + n]
            self._filled += n
            at += n
            if self._filled == STREAM_CHUNK_BYTES:
                self._seal_chunk(self._plain)
                self._filled = 0
        return len(view)

    def close(self) -> None:
        """Write the last chunk. Closing twice does nothing.

        Raises:
            ClosedError: the stream has failed before, so that it cannot be finished.
        """
        if self._closed:
            return
        self._check_usable()
        self._seal_chunk(self._plain[: self._filled])
        self._closed = True
        self.abort()

    def abort(self) -> None:
        """Give up without the last chunk: what was written so far will not open."""
        self._usable = False
        self._plain[:] = bytes(STREAM_CHUNK_BYTES)

    def _check_usable(self) -> None:
        if not self._usable:
            raise ClosedError("the sealed stream is closed")

    def _seal_chunk(self, piece: memoryview) -> None:
        out = self._sealed[: len(piece) + TAG_BYTES]
        self._chunks.aead.encrypt_into(self._chunks.nonce(self._counter), piece, b"", out)
        self._counter += 1
        self._emit(out)

    def _emit(self, data: memoryview) -> None:
        """Write all of ``data``; a stream whose sink failed must never seal under the same nonce again."""
        self._usable = False
        while len(data):
            n = self._sink.write(data)
            if n is None or not 0 < n <= len(data):
                raise InvalidInputError("the sink of a sealed stream must take bytes in blocking mode")
            data = data[n:]
        self._usable = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class OpenStream:
    """Reads the plaintext of a sealed stream out of ``source``, in memory of 17 chunks (270 KiB).

    ``source`` is read ahead: where it stands meanwhile says nothing.
    Every byte that ``read`` gives was verified, but a cut at the end shows only at the end: act on
    what was read only after ``read`` has returned ``b""`` (``finished`` is true then). Once a stream
    has failed it fails for ever. Errors of ``source`` (OSError) pass through.

    Raises:
        DecryptionError: wrong key, context or suite, or a damaged or missing header.
        InvalidInputError: the suite is unknown or the context is longer than 65535 bytes.
        KeyStateError: the key was wiped.
    """

    def __init__(
        self, key: SecretKey, source: ByteSource, context: bytes, *, suite: int = AES_256_GCM
    ) -> None:
        self._source = source
        spec = suite_by_number(suite)
        self._sealed = memoryview(bytearray(_AHEAD_CHUNKS * _SEALED_CHUNK_BYTES))
        self._at = self._have = 0  # of what was read ahead
        self._ended = False
        self._read_up_to(STREAM_HEADER_BYTES)
        header = bytes(self._take(STREAM_HEADER_BYTES))
        if len(header) != STREAM_HEADER_BYTES:
            raise DecryptionError
        self._chunks, commitment = _derive(key, spec, header[:_SALT_BYTES], context)
        if not compare_digest(commitment, header[_SALT_BYTES:]):
            raise DecryptionError
        self._counter = 0
        self.position = 0  # of the plaintext: what comes next
        self._plain = memoryview(bytearray(STREAM_CHUNK_BYTES))
        self._start = self._end = 0
        self._last = False
        self._failed = False

    @property
    def finished(self) -> bool:
        """True when the whole stream was read and its end has been verified."""
        return self._last and not self._failed and self._start == self._end

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer only at the end; all that is left when ``size`` is negative.

        Raises:
            DecryptionError: the stream was altered, cut or extended. Nothing of this call is returned.
        """
        parts: list[bytes] = []
        left = size
        while left != 0 and self._fill():
            n = self._end - self._start
            if size >= 0:
                n = min(n, left)
                left -= n
            parts.append(bytes(self._plain[self._start : self._start + n]))
            self._start += n
            self.position += n
        return b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` (contiguous, writable); fewer bytes only at the end. Returns how many.

        Whole chunks are opened straight into it, without a copy.

        Raises:
            DecryptionError: the stream was altered, cut or extended; ``buffer`` is all zero then.
        """
        view = memoryview(buffer).cast("B")
        at = 0
        try:
            while at < len(view):
                if self._start == self._end and len(view) - at >= STREAM_CHUNK_BYTES and not self._last:
                    length = self._open_chunk(view[at : at + STREAM_CHUNK_BYTES])
                    at += length
                    continue
                if not self._fill():
                    break
                n = min(self._end - self._start, len(view) - at)
                view[at : at + n] = self._plain[self._start : self._start + n]
                self._start += n
                at += n
        except BaseException:
            view[:] = bytes(len(view))
            raise
        self.position += at
        return at

    def skip_to(self, position: int, seek: Callable[[int, int], object]) -> None:
        """Go on at that byte of the plaintext, before anything was read; ``seek`` is the source's own.

        What was passed over is not verified: a stream that has to be whole is read from its beginning.

        Raises:
            InvalidInputError: something was read already. DecryptionError: the stream is shorter.
        """
        if self._counter or self._failed or position < 0:
            raise InvalidInputError("a sealed stream begins elsewhere only before it was read")
        self._counter, rest = divmod(position, STREAM_CHUNK_BYTES)
        self.position = position - rest
        seek(self._counter * _SEALED_CHUNK_BYTES, os.SEEK_CUR)
        if len(self.read(rest)) != rest:
            raise DecryptionError

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of at most 16 KiB, to the verified end."""
        while piece := self.read(STREAM_CHUNK_BYTES):
            yield piece

    def _fill(self) -> bool:
        """Make sure that a byte is there; False at the verified end."""
        if self._failed:
            raise DecryptionError
        if self._start < self._end:
            return True
        if self._last:
            return False
        self._start = self._end = 0
        self._end = self._open_chunk(self._plain)
        return self._end > 0

    def _open_chunk(self, out: memoryview) -> int:
        """Open the next chunk into ``out`` (16 KiB); how long it is. ``out`` is all zero when it fails."""
        if self._failed:
            raise DecryptionError
        self._failed = True  # until the chunk has verified; an error of the source leaves it so
        sealed = self._take(_SEALED_CHUNK_BYTES)
        length = len(sealed) - TAG_BYTES
        nonce = self._chunks.nonce(self._counter)
        if length < 0 or not self._chunks.aead.decrypt_into(nonce, sealed, b"", out[:length]):
            out[:] = bytes(STREAM_CHUNK_BYTES)
            raise DecryptionError
        self._counter += 1
        self._last = length < STREAM_CHUNK_BYTES
        self._failed = False
        return length

    def _take(self, size: int) -> memoryview:
        """``size`` bytes of the source, fewer only where it ends; good until the next call."""
        if self._have - self._at < size and not self._ended:
            left = self._have - self._at
            self._sealed[:left] = self._sealed[self._at : self._have]
            self._at, self._have = 0, left
            self._read_up_to(len(self._sealed))
        start = self._at
        self._at = min(self._have, start + size)
        return self._sealed[start : self._at]

    def _read_up_to(self, size: int) -> None:
        """Fill the buffer to ``size`` bytes, or as far as the source reaches."""
        while self._have < size and not self._ended:
            room = self._sealed[self._have : size]
            got = self._source.readinto(room)
            if got is None or not 0 <= got <= len(room):
                raise InvalidInputError("the source of a sealed stream must give bytes in blocking mode")
            self._ended = not got
            self._have += got
