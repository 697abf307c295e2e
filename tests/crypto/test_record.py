"""Sealed records: what goes in comes out, and nothing else does."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import generate

from strongroom.crypto import (
    AES_256_GCM,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    SealContext,
    SealJob,
    SecretKey,
    _record,
    open_sealed,
    seal,
    seal_many,
    sealed_header,
    sealed_length,
)
from strongroom.crypto._suites import SUITES, Aead, open_once, seal_once
from strongroom.errors import ContentTooLargeError, DecryptionError, InvalidInputError, StrongroomError

KEY = SecretKey.from_bytes(bytes(range(32)))
CONTEXT = SealContext("acme", 7, bytes(range(16)), 0, 3, 1)
SMALL_CHUNK = 256
relaxed = settings(deadline=None)


def assert_refused(sealed: bytes, key: SecretKey = KEY, context: SealContext = CONTEXT) -> None:
    """It raises the one DecryptionError, which looks the same every time and hangs on no other exception."""
    with pytest.raises(DecryptionError) as caught:
        open_sealed(key, context, sealed)
    error = caught.value
    assert type(error) is DecryptionError
    assert str(error) == "Decryption failed."
    assert error.args == ("Decryption failed.",)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.as_dict() == DecryptionError().as_dict()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunked records from 257 bytes on, so that every byte of one can be tried."""
    monkeypatch.setattr(_record, "WHOLE_BYTES_MAX", SMALL_CHUNK)
    monkeypatch.setattr(_record, "CHUNK_BYTES", SMALL_CHUNK)


contexts = st.builds(
    SealContext,
    tenant=st.text(max_size=40),
    ns=st.integers(0, 2**64 - 1),
    memory_id=st.binary(min_size=16, max_size=16),
    field=st.integers(0, 2**16 - 1),
    version=st.integers(0, 2**64 - 1),
    schema=st.integers(0, 2**16 - 1),
)


@relaxed
@given(contexts, st.binary(max_size=3000), st.sampled_from(sorted(SUITES)), st.integers(0, 2**32 - 1))
def test_round_trip(context: SealContext, plaintext: bytes, suite: int, key_id: int) -> None:
    """Any plaintext under any context opens again, and the header tells suite and key id."""
    sealed = seal(KEY, key_id, context, plaintext, suite)
    assert open_sealed(KEY, context, sealed) == plaintext
    assert sealed_header(sealed) == (suite, key_id)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES == sealed_length(len(plaintext))


@pytest.mark.parametrize("suite", sorted(SUITES))
@pytest.mark.parametrize("length", [65535, 65536, 65537, 131071, 131072, 131073, 1_000_000])
def test_round_trip_around_the_chunk_borders(suite: int, length: int) -> None:
    """Up to 64 KiB a record is whole, above it is chunked; both open again, at exactly the told length."""
    plaintext = (b"0123456789abcde" * (length // 15 + 1))[:length]
    sealed = seal(KEY, 5, CONTEXT, plaintext, suite)
    assert sealed[0] == (1 if length <= 65536 else 2)
    assert len(sealed) == sealed_length(length)
    assert open_sealed(KEY, CONTEXT, sealed) == plaintext
    assert plaintext[:40] not in sealed


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_round_trip_of_small_chunks(data: st.DataObject) -> None:
    """With chunks of 256 bytes, every length from nothing to six chunks opens again."""
    plaintext = data.draw(st.binary(max_size=1600))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_record, "WHOLE_BYTES_MAX", SMALL_CHUNK)
        patch.setattr(_record, "CHUNK_BYTES", SMALL_CHUNK)
        sealed = seal(KEY, 5, CONTEXT, plaintext)
        assert open_sealed(KEY, CONTEXT, sealed) == plaintext
        assert len(sealed) == sealed_length(len(plaintext))


def test_the_layout_is_the_specified_one() -> None:
    """Format, suite, big-endian key id and salt stand where spec/sealed-record.md puts them."""
    salt = bytes(range(50, 74))
    sealed = _record.seal_with(KEY, 0x01020304, CONTEXT, b"hello", suite=2, salt=salt)
    assert sealed[:6] == b"\x01\x02\x01\x02\x03\x04"
    assert sealed[6:30] == salt
    assert len(sealed) == 62 + 5 + 16
    assert (HEADER_BYTES, OVERHEAD_BYTES) == (62, 78)


def test_the_context_encoding_is_the_specified_one() -> None:
    """Each component stands in its place with its length in front."""
    context = SealContext("ab", 1, b"\xaa" * 16, 2, 3, 4)
    parts = (b"ab", struct.pack(">Q", 1), b"\xaa" * 16, struct.pack(">H", 2), struct.pack(">Q", 3), b"\0\4")
    assert context.encode() == b"".join(struct.pack(">H", len(part)) + part for part in parts)


@relaxed
@given(contexts, contexts)
def test_contexts_encode_alike_only_when_equal(a: SealContext, b: SealContext) -> None:
    """The encoding is injective."""
    assert (a.encode() == b.encode()) == (a == b)


def test_contexts_are_frozen() -> None:
    """A context cannot change after it was made."""
    with pytest.raises(FrozenInstanceError):
        CONTEXT.ns = 8  # type: ignore[misc]


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_flipped_bit_is_refused(suite: int) -> None:
    """Each bit of a sealed record, turned over, makes it refused."""
    sealed = seal(KEY, 5, CONTEXT, b"the plan is enterprise", suite)
    for at, bit in itertools.product(range(len(sealed)), range(8)):
        assert_refused(sealed[:at] + bytes((sealed[at] ^ (1 << bit),)) + sealed[at + 1 :])


def test_every_truncation_and_extension_is_refused() -> None:
    """Every shorter prefix and suffix, and every added byte, is refused."""
    sealed = seal(KEY, 5, CONTEXT, b"the plan is enterprise")
    for n in range(len(sealed)):
        assert_refused(sealed[:n])
        assert_refused(sealed[n + 1 :])
    for extra in (b"\0", b"\x01", sealed):
        assert_refused(sealed + extra)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("length", [257, 512, 600])
def test_every_flip_and_truncation_of_a_chunked_record_is_refused(length: int) -> None:
    """Each byte of a chunked record, changed or cut off, makes it refused."""
    sealed = seal(KEY, 5, CONTEXT, bytes(length))
    assert sealed[0] == 2
    for at in range(len(sealed)):
        assert_refused(sealed[:at] + bytes((sealed[at] ^ 0x80,)) + sealed[at + 1 :])
        assert_refused(sealed[:at])
    assert_refused(sealed + b"\0")


@pytest.mark.usefixtures("small_chunks")
def test_every_rearrangement_of_chunks_is_refused() -> None:
    """Of all sequences of up to four of a record's chunks, only the original one opens."""
    plaintext = bytes(range(256)) * 3 + b"tail"
    sealed = seal(KEY, 5, CONTEXT, plaintext)
    step = SMALL_CHUNK + 16
    chunks = [sealed[62 + i * step : 62 + (i + 1) * step] for i in range(4)]
    opened = 0
    for count in range(5):
        for order in itertools.product(range(4), repeat=count):
            body = sealed[:62] + b"".join(chunks[i] for i in order)
            if order == (0, 1, 2, 3):
                opened += open_sealed(KEY, CONTEXT, body) == plaintext
            else:
                assert_refused(body)
    assert opened == 1


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_another_record_are_refused() -> None:
    """A chunk of another record under the same key and context does not fit, at the same place either."""
    plaintext = bytes(700)
    one, two = (seal(KEY, 5, CONTEXT, plaintext) for _ in range(2))
    step = SMALL_CHUNK + 16
    for number in range(3):
        start = 62 + number * step
        assert_refused(one[:start] + two[start : start + step] + one[start + step :])
    assert_refused(one[:62] + two[62:])


@pytest.mark.usefixtures("small_chunks")
def test_no_plaintext_stays_in_the_buffer_of_a_refused_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last chunk fails, the chunks that were decrypted before it are overwritten with zeros."""
    rooms: list[memoryview] = []
    original = Aead.decrypt_into

    def spy(self: Aead, nonce: bytes, ciphertext: bytes, aad: bytes, out: memoryview) -> bool:
        rooms.append(out)
        return original(self, nonce, ciphertext, aad, out)

    monkeypatch.setattr(Aead, "decrypt_into", spy)
    sealed = seal(KEY, 5, CONTEXT, b"s" * 700)
    assert_refused(sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    assert [len(room) for room in rooms] == [256, 256, 188]
    assert not any(any(room) for room in rooms)


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_a_buffer_is_zeroed_when_its_tag_is_wrong(suite: int) -> None:
    """The primitive leaves unverified plaintext behind; our wrapper does not."""
    aead = Aead(SUITES[suite], bytes(32))
    sealed = bytearray(aead.encrypt(bytes(12), b"secret" * 50, b""))
    sealed[-1] ^= 1
    room = bytearray(b"\xff" * 300)
    assert not aead.decrypt_into(bytes(12), bytes(sealed), b"", room)
    assert room == bytes(300)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "acme2"},
        {"tenant": "acm"},
        {"tenant": ""},
        {"tenant": "ACME"},
        {"ns": 8},
        {"ns": 7 << 8},
        {"memory_id": bytes(range(1, 17))},
        {"field": 1},
        {"version": 2},
        {"version": 4},
        {"schema": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [10, 70_000])
def test_another_context_is_refused(other: dict[str, object], length: int) -> None:
    """A record moved to another tenant, namespace, id, field, version or schema does not open there."""
    sealed = seal(KEY, 5, CONTEXT, bytes(length))
    assert_refused(sealed, context=replace(CONTEXT, **other))  # type: ignore[arg-type]


def test_swapped_rows_are_refused() -> None:
    """Two rows that changed places, and an old version put back, are refused."""
    other = replace(CONTEXT, memory_id=bytes(16))
    newer = replace(CONTEXT, version=4)
    one, two = seal(KEY, 5, CONTEXT, b"one"), seal(KEY, 5, other, b"two")
    assert_refused(one, context=other)
    assert_refused(two, context=CONTEXT)
    assert_refused(one, context=newer)


def test_another_key_is_refused() -> None:
    """A record does not open under another key of the same store."""
    assert_refused(seal(KEY, 5, CONTEXT, b"x"), key=SecretKey.generate())


@pytest.mark.parametrize("length", [10, 70_000])
def test_changing_the_suite_is_refused(length: int) -> None:
    """A record cannot be turned into one of another suite, existing or not."""
    for suite in SUITES:
        sealed = seal(KEY, 5, CONTEXT, bytes(length), suite)
        for other in range(256):
            if other != suite:
                assert_refused(sealed[:1] + bytes((other,)) + sealed[2:])


@pytest.mark.parametrize("length", [10, 65_536, 70_000])
def test_changing_the_format_is_refused(length: int) -> None:
    """A record cannot be turned into one of another format, existing or not."""
    sealed = seal(KEY, 5, CONTEXT, bytes(length))
    for other in range(256):
        if other != sealed[0]:
            assert_refused(bytes((other,)) + sealed[1:])


def test_one_ciphertext_for_two_keys_opens_under_one_of_them() -> None:
    """A GCM message made to be valid under two keys is refused under the key it does not commit to."""
    header, record_keys, sealed, aad = generate.salamander_parts()
    raw = [Aead(SUITES[AES_256_GCM], key).decrypt(bytes(12), sealed, aad) for key in record_keys]
    assert None not in raw  # the primitive accepts both ...
    assert raw[0] != raw[1]
    committed, other = (SecretKey.from_bytes(key) for key in (generate.KEY, generate.OTHER_KEY))
    assert open_sealed(committed, generate.CONTEXT, header + sealed) == raw[0]
    assert_refused(header + sealed, key=other, context=generate.CONTEXT)  # ... the record does not


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_sealing_once_is_the_tested_aead_with_a_zero_nonce(suite: int) -> None:
    """The fast path of a record gives the bytes of the AEAD wrapper that Wycheproof runs through."""
    spec, key, aead = SUITES[suite], bytes(range(32)), Aead(SUITES[suite], bytes(range(32)))
    sealed = seal_once(spec, key, b"message", b"aad")
    assert sealed == aead.encrypt(bytes(12), b"message", b"aad")
    assert open_once(spec, key, sealed, b"aad") == b"message"
    for bad in (sealed[:-1], sealed[:15], b"", sealed + b"\0", b"\0" + sealed[1:]):
        assert open_once(spec, key, bad, b"aad") is None
    assert open_once(spec, key, sealed, b"") is None


def test_the_commitment_is_checked_before_any_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wrong commitment the cipher is not even called, in both formats."""

    def never(*args: object) -> bytes:
        raise AssertionError("decrypted before the commitment was checked")

    for length in (10, 70_000):
        sealed = seal(KEY, 5, CONTEXT, bytes(length))
        with monkeypatch.context() as patch:
            patch.setattr(_record, "open_once", never)
            patch.setattr(Aead, "decrypt_into", never)
            assert_refused(sealed[:30] + bytes(32) + sealed[62:])


def test_sealing_twice_gives_different_bytes() -> None:
    """Salt, commitment and ciphertext of two seals of the same thing have nothing in common."""
    one, two = (seal(KEY, 5, CONTEXT, bytes(64)) for _ in range(2))
    assert one[:6] == two[:6]
    assert not any(one[i : i + 8] == two[i : i + 8] for i in range(6, len(one) - 8))


@pytest.mark.parametrize(
    "bad",
    [
        lambda: seal(KEY, 5, CONTEXT, b"", 0),
        lambda: seal(KEY, 5, CONTEXT, b"", 4),
        lambda: seal(KEY, 5, CONTEXT, bytes(70_000), 4),
        lambda: seal(KEY, -1, CONTEXT, b""),
        lambda: seal(KEY, 2**32, CONTEXT, b""),
        lambda: seal(KEY, 5, replace(CONTEXT, ns=-1), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, ns=2**64), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, memory_id=bytes(15)), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, memory_id=bytes(17)), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, field=2**16), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, version=-1), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, schema=2**16), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, tenant="\ud800"), b""),
        lambda: seal(KEY, 5, replace(CONTEXT, tenant="x" * 1025), b""),
        lambda: open_sealed(KEY, replace(CONTEXT, ns=-1), bytes(100)),
        lambda: _record.seal_with(KEY, 5, CONTEXT, b"", suite=1, salt=bytes(23)),
    ],
)
def test_arguments_out_of_range_are_refused(bad: Callable[[], bytes]) -> None:
    """An unknown suite, and key ids and contexts that the format cannot hold, are errors of the caller."""
    with pytest.raises(InvalidInputError):
        bad()


def test_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plaintext over the limit is refused when sealed, and its record when opened."""
    monkeypatch.setattr(_record, "PLAINTEXT_BYTES_MAX", 100_000)
    longest = seal(KEY, 5, CONTEXT, bytes(100_000))
    assert len(open_sealed(KEY, CONTEXT, longest)) == 100_000
    with pytest.raises(ContentTooLargeError):
        seal(KEY, 5, CONTEXT, bytes(100_001))
    monkeypatch.setattr(_record, "PLAINTEXT_BYTES_MAX", 99_999)
    assert_refused(longest)
    with pytest.raises(DecryptionError):
        sealed_header(longest)


@pytest.mark.parametrize(
    "sealed",
    [
        b"",
        bytes(78),
        b"\x01\x01" + bytes(75),
        b"\x01\x00" + bytes(76),
        b"\x01\x04" + bytes(76),
        b"\x00\x01" + bytes(76),
        b"\x03\x01" + bytes(76),
        b"\x01\x01" + bytes(76 + 65537),
        b"\x02\x01" + bytes(76),
        b"\x02\x01" + bytes(60 + 65552 + 15),
        b"\x02\x01" + bytes(60 + 65552 + 16),
        b"\x02\x01" + bytes(60 + 2 * 65552 + 15),
        b"\x02\x01" + bytes(60 + 2 * 65552),
    ],
    ids=lambda b: f"{b[:2].hex()}-{len(b)}",
)
def test_headers_that_cannot_be_are_refused(sealed: bytes) -> None:
    """Unknown formats and suites, and lengths that no plaintext gives, are refused without any key."""
    with pytest.raises(DecryptionError):
        sealed_header(sealed)
    assert_refused(sealed)


@relaxed
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    """Arbitrary bytes give the one error and never another exception."""
    assert_refused(noise)
    assert_refused(b"\x01\x01" + noise)
    assert_refused(b"\x02\x01" + noise)


@relaxed
@given(st.binary(max_size=400))
def test_headers_of_noise_never_crash(noise: bytes) -> None:
    """Reading the header of arbitrary bytes gives two numbers or an error of this package."""
    try:
        suite, key_id = sealed_header(noise)
    except StrongroomError as error:
        assert type(error) is DecryptionError
    else:
        assert suite in SUITES
        assert 0 <= key_id < 2**32


def test_what_is_sealed_together_opens_one_by_one_and_shares_no_salt() -> None:
    """``seal_many`` is ``seal`` for each item of each key: own context and salt, any size, in their order."""
    items = [(replace(CONTEXT, version=n), bytes([n]) * size) for n, size in enumerate((0, 1, 500, 70_000))]
    encoded = [(c.encode(), p) for c, p in items]
    other = SecretKey.generate()
    sealed, of_other, none = seal_many(
        [SealJob(KEY, 5, 2, encoded), SealJob(other, 6, 1, encoded[:2]), SealJob(KEY, 5, 2, [])]
    )
    assert none == [] and open_sealed(other, items[1][0], of_other[1]) == items[1][1]
    assert {sealed_header(s) for s in of_other} == {(1, 6)}
    assert [open_sealed(KEY, c, s) for (c, _), s in zip(items, sealed, strict=True)] == [p for _, p in items]
    assert {sealed_header(s) for s in sealed} == {(2, 5)}
    assert len({s[6:30] for s in sealed + of_other}) == len(items) + 2
    assert seal_many([]) == []
    assert_refused(sealed[1], context=items[2][0])
