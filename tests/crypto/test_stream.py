"""Sealed streams over files."""

from __future__ import annotations

import io
import itertools
import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import OpenStream, SealStream, SecretKey, _stream, stream_length
from strongroom.crypto._chunks import CHUNKS_MAX
from strongroom.crypto._suites import SUITES, Aead
from strongroom.errors import ClosedError, ContentTooLargeError, DecryptionError, InvalidInputError

KEY = SecretKey.from_bytes(bytes(range(32)))
CONTEXT = b"snapshot 17"
CHUNK = 16384
SMALL = 64


def sealed_of(plaintext: bytes, suite: int = 1, context: bytes = CONTEXT) -> bytes:
    sink = io.BytesIO()
    with SealStream(KEY, sink, context, suite=suite) as out:
        out.write(plaintext)
    return sink.getvalue()


def opened(sealed: bytes, suite: int = 1, context: bytes = CONTEXT, key: SecretKey = KEY) -> bytes:
    stream = OpenStream(key, io.BytesIO(sealed), context, suite=suite)
    plaintext = stream.read()
    assert stream.finished
    assert stream.read() == b""
    return plaintext


def assert_refused(sealed: bytes, suite: int = 1, context: bytes = CONTEXT, key: SecretKey = KEY) -> None:
    with pytest.raises(DecryptionError) as caught:
        opened(sealed, suite, context, key)
    assert type(caught.value) is DecryptionError
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 bytes, so that every byte and every order can be tried."""
    monkeypatch.setattr(_stream, "STREAM_CHUNK_BYTES", SMALL)
    monkeypatch.setattr(_stream, "_SEALED_CHUNK_BYTES", SMALL + 16)


@pytest.mark.parametrize("suite", sorted(SUITES))
@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_round_trip(suite: int, length: int) -> None:
    """A stream of any length opens again and has exactly the told length."""
    plaintext = bytes(i * 7 % 256 for i in range(length))
    sealed = sealed_of(plaintext, suite)
    assert opened(sealed, suite) == plaintext
    assert len(sealed) == stream_length(length)


@settings(max_examples=80, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=300), max_size=12),
    reads=st.lists(st.integers(0, 200), min_size=1, max_size=30),
)
def test_pieces_do_not_matter(pieces: list[bytes], reads: list[int]) -> None:
    """However it is written and read in pieces, the bytes on disk and the plaintext are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stream, "STREAM_CHUNK_BYTES", SMALL)
        patch.setattr(_stream, "_SEALED_CHUNK_BYTES", SMALL + 16)
        whole = b"".join(pieces)
        made = []
        for parts in (pieces, [whole]):
            sink = io.BytesIO()
            with SealStream(KEY, sink, CONTEXT, random=lambda n: bytes(n)) as out:
                for part in parts:
                    assert out.write(part) == len(part)
            made.append(sink.getvalue())
        assert made[0] == made[1]
        stream = OpenStream(KEY, io.BytesIO(made[0]), CONTEXT)
        got = b""
        for size in reads:
            piece = stream.read(size)
            assert len(piece) == min(size, len(whole) - len(got))
            got += piece
        got += stream.read()
        assert got == whole
        assert stream.finished


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("length", [0, 10, SMALL, 2 * SMALL + 5])
def test_every_flip_truncation_and_extension_is_refused(length: int) -> None:
    """Each byte changed, each cut and each added byte makes the stream fail."""
    sealed = sealed_of(bytes(length))
    for at in range(len(sealed)):
        assert_refused(sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :])
        assert_refused(sealed[:at])
    for extra in (b"\0", bytes(16), bytes(SMALL + 16), sealed[56:]):
        assert_refused(sealed + extra)


@pytest.mark.usefixtures("small_chunks")
def test_every_rearrangement_of_chunks_is_refused() -> None:
    """Of all sequences of up to four of a stream's chunks, only the original one opens."""
    sealed = sealed_of(bytes(range(3 * SMALL)) + b"tail")
    step = SMALL + 16
    chunks = [sealed[56 + i * step : 56 + (i + 1) * step] for i in range(4)]
    good = 0
    for count in range(5):
        for order in itertools.product(range(4), repeat=count):
            body = sealed[:56] + b"".join(chunks[i] for i in order)
            if order == (0, 1, 2, 3):
                good += len(opened(body)) == 3 * SMALL + 4
            else:
                assert_refused(body)
    assert good == 1


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_another_stream_are_refused() -> None:
    """A chunk of another stream under the same key and context does not fit."""
    one, two = sealed_of(bytes(150)), sealed_of(bytes(150))
    step = SMALL + 16
    for start in (56, 56 + step, 56 + 2 * step):
        assert_refused(one[:start] + two[start : start + step] + one[start + step :])


def test_key_context_and_suite_are_bound() -> None:
    """Another key, context or suite is refused at the header."""
    for suite in SUITES:
        sealed = sealed_of(b"x" * 100, suite)
        assert_refused(sealed, suite, key=SecretKey.generate())
        assert_refused(sealed, suite, context=CONTEXT + b"0")
        assert_refused(sealed, suite, context=b"")
        for other in SUITES:
            if other != suite:
                with pytest.raises(DecryptionError):
                    OpenStream(KEY, io.BytesIO(sealed), CONTEXT, suite=other)


@pytest.mark.usefixtures("small_chunks")
def test_a_failed_stream_fails_for_ever_and_keeps_nothing() -> None:
    """After a bad chunk the buffer is zero, nothing of it was returned, and later reads fail too."""
    sealed = bytearray(sealed_of(b"A" * SMALL + b"B" * SMALL + b"C"))
    sealed[56 + SMALL + 16] ^= 1
    stream = OpenStream(KEY, io.BytesIO(bytes(sealed)), CONTEXT)
    assert stream.read(10) == b"A" * 10
    with pytest.raises(DecryptionError):
        stream.read(SMALL)
    assert not any(stream._plain)
    for size in (1, -1):
        with pytest.raises(DecryptionError):
            stream.read(size)
    assert not stream.finished


@pytest.mark.usefixtures("small_chunks")
def test_a_good_chunk_after_a_bad_one_is_not_accepted() -> None:
    """A stream that failed does not recover, even if the right chunk comes next."""
    sealed = sealed_of(b"A" * SMALL + b"B")
    first = sealed[56 : 56 + SMALL + 16]
    stream = OpenStream(
        KEY, io.BytesIO(sealed[:56] + first[:-1] + bytes([first[-1] ^ 1]) + sealed[56:]), CONTEXT
    )
    for _ in range(3):
        with pytest.raises(DecryptionError):
            stream.read(SMALL)


@pytest.mark.usefixtures("small_chunks")
def test_a_bad_last_chunk_leaves_nothing_of_the_chunk_before() -> None:
    """When a short chunk fails, the whole buffer is zeroed, not only the part that it would have filled."""
    sealed = sealed_of(b"A" * SMALL + b"B" * 5)
    stream = OpenStream(KEY, io.BytesIO(sealed[:-1] + bytes((sealed[-1] ^ 1,))), CONTEXT)
    assert stream.read(SMALL) == b"A" * SMALL
    with pytest.raises(DecryptionError):
        stream.read(1)
    assert not any(stream._plain)


@pytest.mark.usefixtures("small_chunks")
def test_an_error_of_the_source_is_final() -> None:
    """A source that failed once may have lost bytes: the stream does not go on behind the gap."""

    class Faulty(io.BytesIO):
        broken = False

        def readinto(self, buffer: object) -> int:
            if self.broken:
                self.broken = False
                raise OSError(5, "input/output error")
            return super().readinto(buffer)  # type: ignore[arg-type]

    source = Faulty(sealed_of(bytes(2 * SMALL)))
    stream = OpenStream(KEY, source, CONTEXT)
    source.broken = True
    with pytest.raises(OSError, match="input/output error"):
        stream.read()
    with pytest.raises(DecryptionError):
        stream.read()


def test_finished_only_at_the_verified_end() -> None:
    """A reader that stops early can see that the end was not verified."""
    stream = OpenStream(KEY, io.BytesIO(sealed_of(bytes(CHUNK))), CONTEXT)
    assert not stream.finished
    assert len(stream.read(CHUNK)) == CHUNK
    assert not stream.finished  # a full chunk is never the last one
    assert stream.read(1) == b""
    assert stream.finished


def test_copying_between_files(tmp_path: Path) -> None:
    """Both ends work with ordinary files and shutil.copyfileobj."""
    plain, sealed, back = (tmp_path / name for name in ("plain", "sealed", "back"))
    plain.write_bytes(bytes(range(256)) * 400)
    with plain.open("rb") as source, sealed.open("wb") as sink, SealStream(KEY, sink, CONTEXT) as out:
        shutil.copyfileobj(source, out)
    with sealed.open("rb") as source, back.open("wb") as target:
        shutil.copyfileobj(OpenStream(KEY, source, CONTEXT), target)
    assert back.read_bytes() == plain.read_bytes()
    assert sealed.stat().st_size == stream_length(plain.stat().st_size)


class Trickle(io.RawIOBase):
    """A file that takes and gives a few bytes at a time, as pipes and sockets may."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__()
        self.data = data
        self.taken = bytearray()

    def readinto(self, buffer: object) -> int:
        room = memoryview(buffer)  # type: ignore[arg-type]
        piece, self.data = self.data[: min(len(room), 7)], self.data[min(len(room), 7) :]
        room[: len(piece)] = piece
        return len(piece)

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data)[:5])  # type: ignore[arg-type]
        self.taken += piece
        return len(piece)


def test_files_that_give_and_take_little() -> None:
    """Short writes and short reads lose nothing."""
    sink = Trickle()
    with SealStream(KEY, sink, CONTEXT) as out:
        out.write(b"z" * 20_000)
    assert opened(bytes(sink.taken)) == b"z" * 20_000
    assert OpenStream(KEY, Trickle(bytes(sink.taken)), CONTEXT).read() == b"z" * 20_000


class Broken(io.BytesIO):
    """A file whose disk is full after so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, data: object) -> int:
        if self.left == 0:
            raise OSError(28, "no space")
        self.left -= 1
        return super().write(data)  # type: ignore[arg-type]


def test_a_stream_whose_sink_failed_never_seals_again() -> None:
    """After an error of the sink nothing more is sealed, so no nonce is ever used for two plaintexts."""
    sink = Broken(writes=2)
    out = SealStream(KEY, sink, CONTEXT)
    out.write(bytes(CHUNK))
    with pytest.raises(OSError, match="no space"):
        out.write(bytes(CHUNK))
    sink.left = 100
    with pytest.raises(ClosedError):
        out.write(b"x")
    with pytest.raises(ClosedError):
        out.close()
    assert_refused(sink.getvalue())


def test_an_exception_inside_with_leaves_a_stream_that_does_not_open() -> None:
    """A half-written stream is not finished as if it were whole."""
    sink = io.BytesIO()
    with pytest.raises(RuntimeError), SealStream(KEY, sink, CONTEXT) as out:
        out.write(bytes(CHUNK + 5))
        raise RuntimeError
    assert_refused(sink.getvalue())
    with pytest.raises(ClosedError):
        out.write(b"")


def test_closing_twice_writes_one_last_chunk() -> None:
    """``close`` is idempotent; writing afterwards is an error; the buffer is zeroed."""
    sink = io.BytesIO()
    out = SealStream(KEY, sink, CONTEXT)
    out.write(b"secret")
    out.close()
    out.close()
    assert opened(sink.getvalue()) == b"secret"
    assert not any(out._plain)
    with pytest.raises(ClosedError):
        out.write(b"more")


def test_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    """Sealing and opening 8 MiB takes less than half a megabyte of Python memory."""
    path = tmp_path / "sealed"
    piece = bytes(100_000)
    tracemalloc.start()
    try:
        with path.open("wb") as sink, SealStream(KEY, sink, CONTEXT) as out:
            for _ in range(84):
                out.write(piece)
        with path.open("rb") as source:
            total = sum(len(part) for part in OpenStream(KEY, source, CONTEXT))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 8_400_000
    assert peak < 512 * 1024


def test_the_chunk_counter_ends() -> None:
    """After 2^38 chunks both ends refuse to go on; no nonce comes round again."""
    out = SealStream(KEY, io.BytesIO(), CONTEXT)
    out._counter = CHUNKS_MAX - 1
    out.write(bytes(CHUNK))
    with pytest.raises(ContentTooLargeError):
        out.write(bytes(CHUNK))


def test_nonces_differ_and_no_data_is_associated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk has its own nonce: the base nonce XOR its number."""
    seen: list[tuple[int, bytes]] = []
    original = Aead.encrypt_into

    def spy(self: Aead, nonce: bytes, plaintext: bytes, aad: bytes, out: memoryview) -> None:
        seen.append((int.from_bytes(nonce, "big"), bytes(aad)))
        original(self, nonce, plaintext, aad, out)

    monkeypatch.setattr(Aead, "encrypt_into", spy)
    sealed_of(bytes(CHUNK * 5))
    assert len({nonce for nonce, _ in seen}) == 6
    assert [nonce ^ seen[0][0] for nonce, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert {aad for _, aad in seen} == {b""}


def test_bad_arguments_are_refused() -> None:
    """Unknown suites, endless contexts, bad salts and files in non-blocking mode are errors."""

    class NonBlocking(io.BytesIO):
        def write(self, data: object) -> None:  # type: ignore[override]
            return None

        def readinto(self, buffer: object) -> None:  # type: ignore[override]
            return None

    with pytest.raises(InvalidInputError):
        SealStream(KEY, io.BytesIO(), CONTEXT, suite=4)
    with pytest.raises(InvalidInputError):
        OpenStream(KEY, io.BytesIO(bytes(100)), CONTEXT, suite=0)
    with pytest.raises(InvalidInputError):
        SealStream(KEY, io.BytesIO(), bytes(65536))
    with pytest.raises(InvalidInputError):
        SealStream(KEY, io.BytesIO(), CONTEXT, random=lambda n: bytes(n - 1))
    with pytest.raises(InvalidInputError):
        SealStream(KEY, NonBlocking(), CONTEXT)
    with pytest.raises(InvalidInputError):
        OpenStream(KEY, NonBlocking(), CONTEXT)
