"""Secret keys are handles."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import (
    SealContext,
    SealStream,
    SecretKey,
    encode_pairs,
    open_sealed,
    seal,
    suite_by_name,
    suite_by_number,
    unwrap_key,
    wrap_key,
)
from strongroom.crypto._kdf import KeyedHash, hkdf_expand
from strongroom.crypto._keys import material_of
from strongroom.crypto.danger import expose
from strongroom.errors import InvalidInputError, KeyStateError

RAW = bytes(range(200, 232))
relaxed = settings(deadline=None)


@pytest.mark.parametrize(
    "leak",
    [
        lambda k: pickle.dumps(k),
        lambda k: copy.copy(k),
        lambda k: copy.deepcopy(k),
        lambda k: copy.deepcopy({"nested": [k]}),
        lambda k: bytes(k),
        lambda k: f"{k}",
        lambda k: format(k, "s"),
        lambda k: hash(k),
        lambda k: {k: 1},
        lambda k: k == k,
        lambda k: k != SecretKey.generate(),
        lambda k: k == RAW,
        lambda k: json.dumps(k),
        lambda k: memoryview(k),
        lambda k: list(k),
        lambda k: len(k),
        lambda k: vars(k),
        lambda k: SecretKey(),
    ],
)
def test_no_ordinary_operation_yields_the_bytes(leak: Callable[[SecretKey], object]) -> None:
    """Pickling, copying, formatting, comparing, hashing, listing and the rest raise TypeError."""
    with pytest.raises(TypeError) as caught:
        leak(SecretKey.from_bytes(RAW))
    assert RAW.hex() not in str(caught.value)
    assert repr(RAW)[2:-1] not in str(caught.value)


def test_repr_and_logs_show_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """``repr``, ``str`` and a log line name the type and nothing of the key."""
    key = SecretKey.from_bytes(RAW)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r", key, key)
    assert caplog.messages == ["<SecretKey> <SecretKey>"]


def test_a_key_cannot_be_subclassed_into_openness() -> None:
    """No attribute can be added to a handle."""
    with pytest.raises(AttributeError):
        SecretKey.generate().note = "x"  # type: ignore[attr-defined]


@pytest.mark.parametrize("raw", [b"", RAW[:-1], RAW + b"\0", RAW * 2, "x" * 32, None, 32])
def test_only_32_bytes_make_a_key(raw: object) -> None:
    """Any other length or type is refused, and the message does not repeat it."""
    with pytest.raises(InvalidInputError) as caught:
        SecretKey.from_bytes(raw)  # type: ignore[arg-type]
    assert str(caught.value) == "a secret key must be 32 bytes"


def test_danger_exposes_exactly_the_bytes() -> None:
    """The one door gives what went in; a generated key has 32 bytes that differ each time."""
    assert expose(SecretKey.from_bytes(RAW)) == RAW
    made = {expose(SecretKey.generate()) for _ in range(8)}
    assert len(made) == 8
    assert {len(raw) for raw in made} == {32}


def test_the_key_keeps_its_own_copy() -> None:
    """Overwriting the buffer that a key was made from does not change the key."""
    buffer = bytearray(RAW)
    key = SecretKey.from_bytes(buffer)
    buffer[:] = bytes(32)
    assert expose(key) == RAW


def test_a_wiped_key_is_gone_and_refuses_every_use() -> None:
    """``wipe`` overwrites the bytes in place; afterwards every operation raises KeyStateError."""
    key, other = SecretKey.from_bytes(RAW), SecretKey.generate()
    context = SealContext("t", 1, bytes(16), 0, 1, 1)
    sealed, wrapped = seal(key, 1, context, b"x"), wrap_key(key, other, b"")
    key.mac(b""), key.blind(b"")
    material = material_of(key)
    assert material == RAW
    key.wipe()
    key.wipe()
    assert material == bytes(32)
    uses: list[Callable[[], object]] = [
        lambda: expose(key),
        lambda: key.derive("x"),
        lambda: key.mac(b""),
        lambda: key.blind(b""),
        lambda: seal(key, 1, context, b"x"),
        lambda: open_sealed(key, context, sealed),
        lambda: wrap_key(key, other, b""),
        lambda: wrap_key(other, key, b""),
        lambda: unwrap_key(key, wrapped, b""),
        lambda: SealStream(key, None, b""),  # type: ignore[arg-type]
    ]
    for use in uses:
        with pytest.raises(KeyStateError):
            use()


@relaxed
@given(st.binary(max_size=300), st.integers(0, 300))
def test_expand_is_hkdf(info: bytes, length: int) -> None:
    """Our HKDF-Expand equals the one of the cryptography package for any info and length."""
    theirs = HKDFExpand(algorithm=SHA512(), length=length, info=info).derive(RAW) if length else b""
    assert hkdf_expand(RAW, info, length) == theirs


@relaxed
@given(st.binary(max_size=300))
def test_one_hmac_block_is_hkdf_expand(info: bytes) -> None:
    """The record format's shortcut, one HMAC-SHA512 of info and 0x01, is HKDF-Expand of 64 bytes."""
    block = KeyedHash(RAW, "sha512").digest(info + b"\x01")
    assert block == hmac.digest(RAW, info + b"\x01", "sha512")
    assert block == HKDFExpand(algorithm=SHA512(), length=64, info=info).derive(RAW)


def test_derived_keys_depend_on_label_context_and_their_border() -> None:
    """Same label and context: same key. Anything else, moved borders included: another key."""
    key = SecretKey.from_bytes(RAW)
    assert expose(key.derive("a", b"b")) == expose(key.derive("a", b"b"))
    derived = {
        expose(k)
        for k in (
            key,
            key.derive("a"),
            key.derive("ab"),
            key.derive("a", b"b"),
            key.derive("b", b"a"),
            key.derive("a", b"\0"),
            SecretKey.generate().derive("a"),
        )
    }
    assert len(derived) == 7


@pytest.mark.parametrize("label", ["", "x" * 65536, "\ud800"])
def test_bad_labels_are_refused(label: str) -> None:
    """An empty, endless or malformed label is an error."""
    with pytest.raises(InvalidInputError):
        SecretKey.generate().derive(label)


def test_mac_and_blind_are_hmac_sha256_under_different_keys() -> None:
    """``mac`` is HMAC-SHA256 under the key, ``blind`` under a key derived from it; both are 32 bytes."""
    key = SecretKey.from_bytes(RAW)
    assert key.mac(b"data") == hmac.digest(RAW, b"data", hashlib.sha256)
    blind_key = expose(key.derive("strongroom/blind@v1"))
    assert key.blind(b"data") == key.blind(b"data") == hmac.digest(blind_key, b"data", hashlib.sha256)
    assert key.blind(b"data") != key.mac(b"data")
    assert key.blind(b"data") != SecretKey.generate().blind(b"data")


def test_suites_by_number_and_name() -> None:
    """The three suites are found by number and by name, each with its limit; others are refused."""
    table = {1: "AES-256-GCM", 2: "ChaCha20-Poly1305", 3: "AES-256-GCM-SIV"}
    for number, name in table.items():
        suite = suite_by_number(number)
        assert suite is suite_by_name(name)
        assert (suite.number, suite.name, suite.max_uses) == (number, name, 2**32)
        with pytest.raises(FrozenInstanceError):
            suite.max_uses = 1  # type: ignore[misc]
    for bad in (0, 4, -1, 255, 256):
        with pytest.raises(InvalidInputError):
            suite_by_number(bad)
    for text in ("", "aes-256-gcm", "AES-256-GCM ", "none", "AES-128-GCM"):
        with pytest.raises(InvalidInputError):
            suite_by_name(text)


@relaxed
@given(
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=5),
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=5),
)
def test_pairs_have_one_encoding_each(a: dict[str, str], b: dict[str, str]) -> None:
    """Two mappings encode alike exactly when they are equal, whatever order they were made in."""
    assert encode_pairs(dict(reversed(a.items()))) == encode_pairs(a)
    assert (encode_pairs(a) == encode_pairs(b)) == (a == b)


def test_pairs_with_moved_borders_differ() -> None:
    """A character moved from a name to its value changes the encoding; bad parts are refused."""
    assert encode_pairs({"ab": "c"}) != encode_pairs({"a": "bc"})
    assert encode_pairs({"a": "b", "c": "d"}) != encode_pairs({"a": "bcd"})
    for bad in ({"\ud800": ""}, {"a": "x" * 65536}):
        with pytest.raises(InvalidInputError):
            encode_pairs(bad)
