"""Known-answer tests of every primitive and format in use. The engine runs them when it starts.

Sources: AES-256-GCM: McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
ChaCha20-Poly1305: RFC 8439, 2.8.2. AES-256-GCM-SIV: RFC 8452, C.2. HMAC: RFC 4231, case 2.
HKDF-Expand: RFC 5869, A.1. Argon2id: RFC 9106, 5.3. Stream: C2SP chunked-encryption, "chunked" under
"test context". Sealed record and wrapped key: vectors/, made twice, by this package and by an
independent program.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from strongroom.crypto._encoding import SealContext
from strongroom.crypto._kdf import KeyedHash, hkdf_expand
from strongroom.crypto._keys import SecretKey, material_of
from strongroom.crypto._password import derived
from strongroom.crypto._record import open_sealed, seal_with
from strongroom.crypto._stream import OpenStream, SealStream
from strongroom.crypto._suites import (
    AES_256_GCM,
    AES_256_GCM_SIV,
    CHACHA20_POLY1305,
    TAG_BYTES,
    Aead,
    suite_by_number,
)
from strongroom.crypto._wrap import unwrap_key, wrap_with
from strongroom.errors import LimitExceededError, SelfTestError, StrongroomError


class _AeadAnswer(NamedTuple):
    suite: int
    key: str
    nonce: str
    aad: str
    plaintext: str
    sealed: str


_AEADS: Final = (
    _AeadAnswer(
        AES_256_GCM,
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
    _AeadAnswer(
        CHACHA20_POLY1305,
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
        "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
        "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
        "637265656e20776f756c642062652069742e",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
        "1ae10b594f09e26a7e902ecbd0600691",
    ),
    _AeadAnswer(
        AES_256_GCM_SIV,
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "01",
        "02000000000000000000000000000000",
        "c91545823cc24f17dbb0e9e807d5ec17b292d28ff61189e8e49f3875ef91aff7",
    ),
)
_RECORDS: Final = {
    AES_256_GCM: "0101010203046465666768696a6b6c6d6e6f707172737475767778797a7b04acfe39bb88d79f"
    "6536e40e6d5399cc4059e1686a2ef0755226584bcf0a9a0835b958eab7ffdd8a96527e8a4dc9d4ae79a45156f0d7d9edf955b3b949ad",
    CHACHA20_POLY1305: "0102010203046465666768696a6b6c6d6e6f707172737475767778797a7b8ead9c015f87ef59"
    "af9ce794f7c306bc0aadc417731cd1fb54334c96746af83cab8c8ba4dd79fa3ba274ac6f92a48b1582166a9eac0cb4a7e2ba871b3638",
    AES_256_GCM_SIV: "0103010203046465666768696a6b6c6d6e6f707172737475767778797a7b0cd810ad54622c51"
    "dc67c40ee9a0154ca8ae565c2319a763c68a51ebc3455992036528405c482f0a9305e678e7882e2a9fc811d352989d4c6f24de783c97",
}
_WRAPPED: Final = (
    "03016465666768696a6b6c6d6e6f707172737475767778797a7baf6bde40a6daaec7088c35dd0b477960d6d2d0c6b145"
    "09a0e6f510c77fd6933fb4b30cfe3f0edde6828be05967f96dfabd14420ee228ef1bb9f3920dc620e00a3069dcc05417"
    "07860c03f801fdd213db"
)
_STREAM: Final = (
    "dbedaefc1c35dc6c0f22b743b03e488747166a51f33479e7ceb8b7e11cc0d2710f624a127501bc4aea7d0af6f83cfe35"
    "9b9e69415aa537f36adf86eb35b070475baa039bb7791432adbca49578bbd3"
)


def _aeads() -> bool:
    for answer in _AEADS:
        key, nonce, aad, plaintext, sealed = (bytes.fromhex(part) for part in answer[1:])
        aead = Aead(suite_by_number(answer.suite), key)
        if aead.encrypt(nonce, plaintext, aad) != sealed or aead.decrypt(nonce, sealed, aad) != plaintext:
            return False
        forged = sealed[:-1] + bytes((sealed[-1] ^ 1,))
        room = bytearray(b"x" * (len(sealed) - TAG_BYTES))
        if aead.decrypt(nonce, forged, aad) is not None or aead.decrypt_into(nonce, forged, aad, room):
            return False
        if any(room):
            return False
    return True


def _hashes() -> bool:
    data = b"what do ya want for nothing?"
    prk = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    return (
        KeyedHash(b"Jefe", "sha256").digest(data).hex()
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        and KeyedHash(b"Jefe", "sha512").digest(data).hex()
        == "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        and hkdf_expand(prk, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42, "sha256").hex() == okm
    )


def _argon2() -> bool:
    kdf = Argon2id(
        salt=b"\x02" * 16,
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        ad=b"\x04" * 12,
        secret=b"\x03" * 8,
    )
    expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    return derived(kdf, b"\x01" * 32).hex() == expected


def _formats() -> bool:
    key, salt = SecretKey.from_bytes(bytes(range(32))), bytes(range(100, 124))
    context = SealContext("acme", 7, bytes(range(16)), 0, 1, 1)
    for suite, known in _RECORDS.items():
        sealed = seal_with(key, 0x01020304, context, b"attack at dawn", suite=suite, salt=salt)
        if sealed.hex() != known or open_sealed(key, context, sealed) != b"attack at dawn":
            return False
    inner = bytes(range(32, 64))
    wrapped = wrap_with(key, inner, b"ctx", AES_256_GCM, salt)
    unwrapped = unwrap_key(key, wrapped, b"ctx")
    return wrapped.hex() == _WRAPPED and material_of(unwrapped) == inner


def _stream() -> bool:
    key, known = SecretKey.from_bytes(b"YELLOW SUBMARINE YELLOW SUBMARIN"), bytes.fromhex(_STREAM)
    sink = io.BytesIO()
    with SealStream(key, sink, b"test context", random=lambda n: known[:n]) as out:
        out.write(b"chunked")
    opened = OpenStream(key, io.BytesIO(known), b"test context").read()
    return sink.getvalue() == known and opened == b"chunked"


def _random() -> bool:
    draws = {os.urandom(32) for _ in range(4)}
    return len(draws) == 4 and bytes(32) not in draws


_TESTS: Final[tuple[tuple[str, Callable[[], bool]], ...]] = (
    ("AEAD", _aeads),
    ("HMAC and HKDF", _hashes),
    ("Argon2id", _argon2),
    ("sealed record", _formats),
    ("sealed stream", _stream),
    ("random source", _random),
)


def self_test() -> None:
    """Check every primitive and format against known answers; takes a few milliseconds.

    Raises:
        SelfTestError: one of them gives another answer, or is not there. LimitExceededError: there is not
        enough memory.
    """
    for name, test in _TESTS:
        try:
            passed = test()
        except LimitExceededError:  # no memory for it: nothing is wrong with the primitive
            raise
        except (StrongroomError, UnsupportedAlgorithm, ValueError):
            passed = False
        if not passed:
            raise SelfTestError(f"the known-answer test of {name} failed")
