"""Reading a sealed stream straight into a buffer gives what ``read`` gives, and nothing when it fails."""

from __future__ import annotations

import io
import random

import pytest

from strongroom.crypto import OpenStream, SealStream, SecretKey
from strongroom.errors import DecryptionError, InvalidInputError

CHUNK = 16 * 1024
KEY = SecretKey.from_bytes(bytes(range(32)))
CONTEXT = b"a test"


def sealed(plaintext: bytes) -> bytes:
    sink = io.BytesIO()
    with SealStream(KEY, sink, CONTEXT) as stream:
        stream.write(plaintext)
    return sink.getvalue()


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 77])
@pytest.mark.parametrize("size", [1000, CHUNK, CHUNK + 1, 3 * CHUNK, 7 * CHUNK])
def test_readinto_gives_the_plaintext_in_any_pieces(length: int, size: int) -> None:
    plaintext = random.Random(length).randbytes(length)
    stream = OpenStream(KEY, io.BytesIO(sealed(plaintext)), CONTEXT)
    out = b""
    while True:
        buffer = bytearray(size)
        n = stream.readinto(buffer)
        out += buffer[:n]
        assert buffer[n:] == bytes(size - n)
        if n < size:
            break
    assert out == plaintext
    assert stream.readinto(bytearray(5)) == 0 and stream.finished


def test_read_and_readinto_can_take_turns() -> None:
    plaintext = random.Random(1).randbytes(4 * CHUNK + 5)
    stream = OpenStream(KEY, io.BytesIO(sealed(plaintext)), CONTEXT)
    buffer = bytearray(2 * CHUNK)
    first = stream.read(10)
    assert stream.readinto(buffer) == 2 * CHUNK
    assert first + buffer + stream.read(-1) == plaintext


@pytest.mark.parametrize("at", [56, 56 + CHUNK + 20, -1])
def test_a_damaged_chunk_leaves_nothing_of_the_call_in_the_buffer(at: int) -> None:
    raw = bytearray(sealed(bytes([7]) * (3 * CHUNK + 9)))
    raw[at] ^= 1
    stream = OpenStream(KEY, io.BytesIO(bytes(raw)), CONTEXT)
    buffer = bytearray(b"x" * (4 * CHUNK))
    with pytest.raises(DecryptionError):
        stream.readinto(buffer)
    assert buffer == bytes(4 * CHUNK)
    with pytest.raises(DecryptionError):
        stream.readinto(buffer)


@pytest.mark.parametrize("cut", [1, 16, 25, CHUNK, 2 * CHUNK])
def test_a_cut_stream_fails_however_it_is_read(cut: int) -> None:
    raw = sealed(bytes(3 * CHUNK + 9))[:-cut]
    stream = OpenStream(KEY, io.BytesIO(raw), CONTEXT)
    with pytest.raises(DecryptionError):
        while stream.readinto(bytearray(CHUNK)):
            pass


@pytest.mark.parametrize("position", [0, 5, CHUNK, 3 * CHUNK + 100, 70 * CHUNK, 70 * CHUNK + 9])
def test_a_stream_can_begin_further_on(position: int) -> None:
    """What follows is what follows there, verified to the end; an altered chunk behind it is noticed."""
    plaintext = random.Random(2).randbytes(70 * CHUNK + 9)
    raw = sealed(plaintext)
    source = io.BytesIO(raw)
    stream = OpenStream(KEY, source, CONTEXT)
    stream.skip_to(position, source.seek)
    assert stream.read() == plaintext[position:] and stream.finished
    source = io.BytesIO(raw[:-1] + bytes((raw[-1] ^ 1,)))
    with pytest.raises(DecryptionError):
        stream = OpenStream(KEY, source, CONTEXT)
        stream.skip_to(position, source.seek)
        stream.read()


def test_a_stream_that_was_read_does_not_begin_again_and_none_beyond_its_end() -> None:
    """Chunks are counted from where the reading began: that is chosen at first, within the stream."""
    source = io.BytesIO(sealed(bytes(2 * CHUNK)))
    stream = OpenStream(KEY, source, CONTEXT)
    stream.read(CHUNK)
    with pytest.raises(InvalidInputError):
        stream.skip_to(0, source.seek)
    source = io.BytesIO(sealed(bytes(2 * CHUNK)))
    with pytest.raises(DecryptionError):
        OpenStream(KEY, source, CONTEXT).skip_to(2 * CHUNK + 1, source.seek)
