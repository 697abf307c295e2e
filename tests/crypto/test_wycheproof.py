"""The Wycheproof vectors, run through the functions that records, keys and streams use."""

from __future__ import annotations

import hashlib
import hmac
import io
import zlib

import pytest
from tests.crypto.wycheproof import cases

from strongroom.crypto import (
    AES_256_GCM,
    AES_256_GCM_SIV,
    CHACHA20_POLY1305,
    OpenStream,
    SealStream,
    SecretKey,
    suite_by_number,
)
from strongroom.crypto._chunks import ChunkKey
from strongroom.crypto._kdf import KeyedHash, hkdf_expand
from strongroom.crypto._stream import STREAM_CHUNK_BYTES, _derive
from strongroom.crypto._suites import TAG_BYTES, Aead
from strongroom.errors import DecryptionError, InvalidInputError

AEADS = {
    "aes_gcm_test.json": (AES_256_GCM, 39, 66),
    "aes_gcm_siv_test.json": (AES_256_GCM_SIV, 69, 34),
    "chacha20_poly1305_test.json": (CHACHA20_POLY1305, 256, 69),
}


@pytest.mark.parametrize("name", AEADS)
def test_aead_opens_the_valid_and_refuses_the_invalid(name: str) -> None:
    """Every AEAD vector of 256-bit keys gives its published result, by value and into a buffer."""
    suite, valid, invalid = AEADS[name]
    seen = {"valid": 0, "invalid": 0}
    for group, case in cases(name):
        if group["keySize"] != 256:
            continue
        key, nonce, aad, msg = (bytes.fromhex(case[part]) for part in ("key", "iv", "aad", "msg"))
        sealed = bytes.fromhex(case["ct"] + case["tag"])
        aead = Aead(suite_by_number(suite), key)
        room = bytearray(b"\xaa" * (len(sealed) - TAG_BYTES))
        if case["result"] == "valid" and group["ivSize"] == 96:
            seen["valid"] += 1
            assert aead.encrypt(nonce, msg, aad) == sealed, case["tcId"]
            assert aead.decrypt(nonce, sealed, aad) == msg, case["tcId"]
            assert aead.decrypt_into(nonce, sealed, aad, room), case["tcId"]
            assert room == msg, case["tcId"]
        else:
            seen["invalid"] += 1
            assert aead.decrypt(nonce, sealed, aad) is None, case["tcId"]
            assert not aead.decrypt_into(nonce, sealed, aad, room), case["tcId"]
            assert not any(room), case["tcId"]
    assert seen == {"valid": valid, "invalid": invalid}


@pytest.mark.parametrize("name", AEADS)
def test_nonces_of_other_lengths_are_refused_when_sealing(name: str) -> None:
    """A nonce that is not 12 bytes is an error, although the primitive would take it."""
    suite = AEADS[name][0]
    for group, case in cases(name):
        if group["keySize"] == 256 and group["ivSize"] != 96:
            aead = Aead(suite_by_number(suite), bytes.fromhex(case["key"]))
            with pytest.raises(InvalidInputError):
                aead.encrypt(bytes.fromhex(case["iv"]), b"", b"")


@pytest.mark.parametrize(
    ("name", "hash_name"), [("hkdf_sha512_test.json", "sha512"), ("hkdf_sha256_test.json", "sha256")]
)
def test_hkdf(name: str, hash_name: str) -> None:
    """Our HKDF-Expand gives every published output, and refuses more than 255 blocks."""
    count = 0
    for _, case in cases(name):
        which = "sha512" if hash_name == "sha512" else "sha256"
        salt = bytes.fromhex(case["salt"]) or bytes(hashlib.new(which).digest_size)
        prk = hmac.digest(salt, bytes.fromhex(case["ikm"]), which)  # HKDF-Extract: keys here need none
        info = bytes.fromhex(case["info"])
        if case["result"] == "valid":
            assert hkdf_expand(prk, info, case["size"], which).hex() == case["okm"], case["tcId"]
        else:
            with pytest.raises(InvalidInputError):
                hkdf_expand(prk, info, case["size"], which)
        count += 1
    assert count > 50


@pytest.mark.parametrize(
    ("name", "hash_name"), [("hmac_sha512_test.json", "sha512"), ("hmac_sha256_test.json", "sha256")]
)
def test_hmac(name: str, hash_name: str) -> None:
    """Our HMAC gives the published tags (long keys too) and never an invalid one; so does SecretKey.mac."""
    count = 0
    for group, case in cases(name):
        which = "sha512" if hash_name == "sha512" else "sha256"
        key, msg = bytes.fromhex(case["key"]), bytes.fromhex(case["msg"])
        tag = KeyedHash(key, which).digest(msg)
        matches = tag[: group["tagSize"] // 8].hex() == case["tag"]
        assert matches == (case["result"] == "valid"), case["tcId"]
        if which == "sha256" and len(key) == 32:
            assert SecretKey.from_bytes(key).mac(msg) == tag
        count += 1
    assert count > 100


def test_chunked_encryption() -> None:
    """All 35 C2SP vectors: valid ones open and seal to the same bytes, the others fail and keep failing."""
    count = 0
    for group, case in cases("c2sp_chunked_encryption_aes_256_gcm_test.json"):
        assert group["aead"] == suite_by_number(AES_256_GCM).iana_name
        count += 1
        sealed = zlib.decompressobj().decompress(bytes.fromhex(case["ct"]))
        raw, context = bytes.fromhex(case["key"]), bytes.fromhex(case["ctx"])
        if "InvalidKeySize" in case["flags"]:
            with pytest.raises(InvalidInputError):
                SecretKey.from_bytes(raw)
            continue
        key = SecretKey.from_bytes(raw)
        if "HeaderFailure" in case["flags"]:
            with pytest.raises(DecryptionError):
                OpenStream(key, io.BytesIO(sealed), context)
            continue
        stream = OpenStream(key, io.BytesIO(sealed), context)
        if case["result"] == "valid":
            plaintext = stream.read()
            assert stream.finished
            assert len(plaintext) == case["msgLength"]
            assert hashlib.sha512(plaintext).hexdigest() == case["msgSha512"]
            sink = io.BytesIO()
            with SealStream(key, sink, context, random=lambda n, s=sealed: s[:n]) as out:  # type: ignore[misc]
                out.write(plaintext)
            assert sink.getvalue() == sealed, case["tcId"]
        else:
            prefix = hashlib.sha512()
            length = 0
            with pytest.raises(DecryptionError):
                for piece in stream:
                    prefix.update(piece)
                    length += len(piece)
            assert length == case.get("msgLength", 0), case["tcId"]
            if "PartialPlaintext" in case["flags"]:
                assert prefix.hexdigest() == case["msgSha512"], case["tcId"]
            for size in (-1, 1, 0x10000):
                with pytest.raises(DecryptionError):
                    stream.read(size)
            assert not stream.finished
    assert count == 35


def test_chunk_keys_are_the_published_ones() -> None:
    """The AEAD key and base nonce that we derive are the published ones, seen through what they seal."""
    checked = 0
    for _, case in cases("c2sp_chunked_encryption_aes_256_gcm_test.json"):
        if "aeadKey" not in case:
            continue
        sealed = zlib.decompressobj().decompress(bytes.fromhex(case["ct"]))
        key = SecretKey.from_bytes(bytes.fromhex(case["key"]))
        suite = suite_by_number(AES_256_GCM)
        ours, commitment = _derive(key, suite, sealed[:24], bytes.fromhex(case["ctx"]))
        published = ChunkKey(suite, bytes.fromhex(case["aeadKey"] + case["baseNonce"]))
        assert commitment == sealed[24:56]
        for counter in (0, 1, 255, 256, 2**32, 2**38 - 1):
            assert ours.nonce(counter) == published.nonce(counter)
        block = bytes(STREAM_CHUNK_BYTES)
        assert ours.aead.encrypt(bytes(12), block, b"") == published.aead.encrypt(bytes(12), block, b"")
        checked += 1
    assert checked > 20
