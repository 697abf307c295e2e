"""Wrapped keys, keys from passphrases, and the self-test."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import (
    PASSWORD_HEADER_BYTES,
    WRAPPED_BYTES,
    SealContext,
    SecretKey,
    _kdf,
    _password,
    _record,
    _selftest,
    _suites,
    new_password_header,
    password_kdf,
    seal,
    self_test,
    unwrap_key,
    wrap_key,
)
from strongroom.crypto._suites import SUITES
from strongroom.crypto.danger import expose
from strongroom.errors import (
    IntegrityError,
    InvalidInputError,
    KeystoreFormatError,
    SelfTestError,
    UnwrapError,
)

KEK = SecretKey.from_bytes(bytes(range(32)))
RAW = bytes(range(100, 132))
CONTEXT = b"namespace 7, epoch 1"


def assert_refused(wrapped: bytes, kek: SecretKey = KEK, context: bytes = CONTEXT) -> None:
    with pytest.raises(UnwrapError) as caught:
        unwrap_key(kek, wrapped, context)
    assert caught.value.as_dict() == UnwrapError().as_dict()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.sampled_from(sorted(SUITES)))
def test_round_trip(raw: bytes, context: bytes, suite: int) -> None:
    """A handle and the same 32 bytes wrap alike: 106 bytes that unwrap to that key."""
    for key in (raw, SecretKey.from_bytes(raw)):
        wrapped = wrap_key(KEK, key, context, suite)
        assert len(wrapped) == WRAPPED_BYTES == 106
        assert expose(unwrap_key(KEK, wrapped, context)) == raw
        assert raw not in wrapped


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_flipped_bit_and_every_other_length_is_refused(suite: int) -> None:
    """Each bit turned over, each cut and each added byte makes the wrapped key refused, always alike."""
    wrapped = wrap_key(KEK, RAW, CONTEXT, suite)
    for at in range(len(wrapped)):
        for bit in range(8):
            assert_refused(wrapped[:at] + bytes((wrapped[at] ^ (1 << bit),)) + wrapped[at + 1 :])
        assert_refused(wrapped[:at])
        assert_refused(wrapped[at + 1 :])
    assert_refused(wrapped + b"\0")


def test_swapped_wrapped_keys_are_refused() -> None:
    """A wrapped key put in the place of another, or under another master key, does not unwrap."""
    one = wrap_key(KEK, RAW, b"namespace 1")
    assert_refused(one, context=b"namespace 2")
    assert_refused(one, context=b"")
    assert_refused(one, kek=SecretKey.generate(), context=b"namespace 1")
    assert_refused(one, kek=SecretKey.from_bytes(RAW), context=b"namespace 1")


def test_every_other_suite_and_format_is_refused() -> None:
    """A wrapped key cannot be turned into one of another suite, nor a sealed record into a wrapped key."""
    wrapped = wrap_key(KEK, RAW, CONTEXT)
    for other in range(256):
        if other != wrapped[1]:
            assert_refused(wrapped[:1] + bytes((other,)) + wrapped[2:])
        if other != wrapped[0]:
            assert_refused(bytes((other,)) + wrapped[1:])
    record = seal(KEK, 0, SealContext("", 0, bytes(16), 0, 0, 0), bytes(28))
    assert len(record) == WRAPPED_BYTES
    assert_refused(record)
    assert_refused(b"\x03" + record[1:])


@pytest.mark.parametrize(
    "bad",
    [
        lambda: wrap_key(KEK, b"short", CONTEXT),
        lambda: wrap_key(KEK, RAW + RAW, CONTEXT),
        lambda: wrap_key(KEK, RAW, bytes(65536)),
        lambda: wrap_key(KEK, RAW, CONTEXT, 9),
        lambda: unwrap_key(KEK, bytes(106), bytes(65536)),
    ],
)
def test_bad_arguments_are_refused(bad: Callable[[], object]) -> None:
    """Keys of other lengths, endless contexts and unknown suites are errors of the caller."""
    with pytest.raises(InvalidInputError):
        bad()


# -- passphrases --------------------------------------------------------------------------------
def cheap(**changes: int) -> bytes:
    parameters = {"memory_kib": 19456, "iterations": 2, "lanes": 1} | changes
    return new_password_header(**parameters)  # type: ignore[arg-type]


def test_a_passphrase_gives_one_key_per_header() -> None:
    """Same passphrase and header: same key. Another passphrase or salt: another key."""
    header = cheap()
    assert len(header) == PASSWORD_HEADER_BYTES
    keys = [
        expose(password_kdf("correct horse", header)),
        expose(password_kdf("correct horse", header)),
        expose(password_kdf("correct horsf", header)),
        expose(password_kdf("correct horse", cheap())),
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_passphrase_is_normalised() -> None:
    """The same text typed on another keyboard (composed or decomposed) gives the same key."""
    header = cheap()
    assert expose(password_kdf("\u00fcber", header)) == expose(password_kdf("u\u0308ber", header))


def test_the_default_cost_is_the_documented_one() -> None:
    """A new header asks for 64 MiB, 3 iterations, 4 lanes."""
    assert struct.unpack(">BBHII20x", new_password_header()) == (1, 1, 4, 3, 64 * 1024)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 19 * 1024 - 1},
        {"memory_kib": 2 * 1024 * 1024 + 1},
        {"memory_kib": 2**32 - 1},
        {"iterations": 1},
        {"iterations": 0},
        {"iterations": 17},
        {"lanes": 0},
        {"lanes": 17},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused_both_ways(
    changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weak or ruinous parameter is neither written nor obeyed when read."""
    with pytest.raises(InvalidInputError):
        cheap(**changes)
    values = {"lanes": 1, "iterations": 2, "memory_kib": 19456} | changes
    header = struct.pack(">BBHII20s", 1, 1, *values.values(), bytes(20))

    def never(**parameters: object) -> None:
        raise AssertionError("the parameters were used")

    monkeypatch.setattr(_password, "Argon2id", never)
    with pytest.raises(KeystoreFormatError):
        password_kdf("correct horse", header)


@pytest.mark.parametrize("damage", ["version", "algorithm", "short", "long", "empty"])
def test_damaged_headers_are_refused(damage: str) -> None:
    """Unknown versions and algorithms and other lengths are refused before anything is computed."""
    good = cheap()
    bad = {
        "version": b"\x02" + good[1:],
        "algorithm": good[:1] + b"\x02" + good[2:],
        "short": good[:-1],
        "long": good + b"\0",
        "empty": b"",
    }[damage]
    with pytest.raises(KeystoreFormatError):
        password_kdf("correct horse", bad)


def test_every_byte_of_the_salt_matters() -> None:
    """Changing the salt or a parameter within its bounds changes the key."""
    good = cheap()
    keys = {expose(password_kdf("x", good))}
    for at in (12, 20, 31):
        keys.add(expose(password_kdf("x", good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])))
    keys.add(expose(password_kdf("x", good[:3] + b"\x02" + good[4:])))
    keys.add(expose(password_kdf("x", good[:7] + b"\x03" + good[8:])))
    assert len(keys) == 6


@pytest.mark.parametrize("passphrase", ["", "x" * 4097, "\ud800"])
def test_bad_passphrases_are_refused(passphrase: str) -> None:
    """Empty, endless and malformed passphrases are errors, whose message does not repeat them."""
    with pytest.raises(InvalidInputError) as caught:
        password_kdf(passphrase, cheap())
    assert "xxx" not in str(caught.value)


# -- self-test ----------------------------------------------------------------------------------
def test_self_test_passes_here() -> None:
    """The known answers hold on this machine."""
    self_test()


def _wrong(*args: object, **kwargs: object) -> bytes:
    return bytes(32)


def _flip(original: Callable[..., bytes]) -> Callable[..., bytes]:
    def wrong(*args: object, **kwargs: object) -> bytes:
        out = original(*args, **kwargs)
        return out[:-1] + bytes((out[-1] ^ 1,))

    return wrong


def _accept_all(original: Callable[..., bytes | None]) -> Callable[..., bytes]:
    def wrong(*args: object) -> bytes:
        return original(*args) or b"forged"

    return wrong


@pytest.mark.parametrize(
    ("owner", "name", "replacement"),
    [
        (_suites.Aead, "encrypt", _flip(_suites.Aead.encrypt)),
        (_suites.Aead, "decrypt", _wrong),
        (_suites.Aead, "decrypt", _accept_all(_suites.Aead.decrypt)),
        (_suites.Aead, "decrypt_into", lambda *args: True),
        (_suites.Aead, "encrypt_into", lambda *args: None),
        (_kdf.KeyedHash, "digest", _flip(_kdf.KeyedHash.digest)),
        (_kdf.KeyedHash, "expand", _flip(_kdf.KeyedHash.expand)),
        (_selftest.Argon2id, "derive", _wrong),
        (_record, "compare_digest", lambda a, b: False),
        (_selftest, "wrap_with", _wrong),
        (_selftest.os, "urandom", lambda n: bytes(n)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_self_test_notices_a_wrong_primitive(
    owner: object, name: str, replacement: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever primitive gives a wrong answer, the self-test raises, and says only which test failed."""
    if owner is _selftest.Argon2id:

        class Wrong:
            def __init__(self, **kwargs: object) -> None: ...

            derive = _wrong

        monkeypatch.setattr(_selftest, "Argon2id", Wrong)
    else:
        monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(SelfTestError) as caught:
        self_test()
    assert isinstance(caught.value, IntegrityError)
    assert caught.value.message.startswith("the known-answer test of ")


@pytest.mark.parametrize("number", sorted(SUITES))
def test_self_test_covers_every_suite(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite whose cipher is another one's is noticed."""
    other = SUITES[number % len(SUITES) + 1]
    broken = _suites.Suite(number, "x", SUITES[number].iana_name, 1, other.cipher)
    monkeypatch.setitem(SUITES, number, broken)
    with pytest.raises(SelfTestError):
        self_test()
