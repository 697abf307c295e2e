"""Make the test vectors again, byte for byte. Run: python vectors/generate.py [DIRECTORY].

Salts are counters here, so that the files do not change; real salts are random.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.crypto import SealContext, SealStream, SecretKey, new_password_header, password_kdf
from strongroom.crypto._chunks import CHUNKED_OKM_BYTES, ChunkKey
from strongroom.crypto._kdf import hkdf_expand
from strongroom.crypto._record import CHUNK_BYTES, seal_with
from strongroom.crypto._suites import SUITES, Aead
from strongroom.crypto._wrap import wrap_with
from strongroom.crypto.danger import expose

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
INNER_KEY = bytes(range(64, 96))
CONTEXT = SealContext("acme", 7, bytes(range(16)), 0, 1, 1)
STREAM_CHUNK = 16384
NAMES = {1: "aes-256-gcm", 2: "chacha20-poly1305", 3: "aes-256-gcm-siv"}


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    comment: str
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    plaintext: bytes | None = None  # None: it must be refused

    def text(self) -> str:
        lines = [f"expect: {'refused' if self.plaintext is None else 'success'}", f"kind: {self.kind}"]
        lines += [f"comment: {self.comment}"]
        lines += [f"{name}: {value}" for name, value in self.fields.items()]
        if self.plaintext is not None:
            digest = hashlib.sha256(self.plaintext).hexdigest()
            lines += [f"plaintext-bytes: {len(self.plaintext)}", f"plaintext-sha256: {digest}"]
        if len(self.body) <= 2048:
            return "\n".join([*lines, "encoding: hex", "", self.body.hex(), ""])
        packed = base64.b64encode(zlib.compress(self.body, 9)).decode("ascii")
        wrapped = [packed[i : i + 100] for i in range(0, len(packed), 100)]
        return "\n".join([*lines, "encoding: zlib-base64", "", *wrapped, ""])


def salt(number: int) -> bytes:
    return hashlib.sha256(b"salt of vector %d" % number).digest()[:24]


def flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def zero_plaintext(chunks: ChunkKey, length: int, chunk_bytes: int) -> bytes:
    """The plaintext that a counter-mode suite turns into zeros."""
    out = b""
    for number in range(length // chunk_bytes + 1):
        size = min(chunk_bytes, length - number * chunk_bytes)
        out += chunks.aead.encrypt(chunks.nonce(number), bytes(size), b"")[:size]
    return out


# -- sealed records -----------------------------------------------------------------------------
def record_fields(key: bytes, context: SealContext) -> dict[str, str]:
    return {
        "key": key.hex(),
        "tenant": context.tenant.encode().hex(),
        "ns": str(context.ns),
        "memory-id": context.memory_id.hex(),
        "field": str(context.field),
        "version": str(context.version),
        "schema": str(context.schema),
    }


def record_okm(label: bytes, suite: int, number: int, length: int, key: bytes = KEY) -> bytes:
    return hkdf_expand(key, label + bytes((suite,)) + salt(number) + CONTEXT.encode(), length)


def chunk_key(suite: int, number: int) -> tuple[ChunkKey, bytes]:
    okm = record_okm(b"strongroom/sealed-chunks@v1\0", suite, number, CHUNKED_OKM_BYTES)
    return ChunkKey(SUITES[suite], okm), okm[44:]


def chunked_by_hand(suite: int, number: int, pieces: list[tuple[int, int, bytes]]) -> bytes:
    """A format-2 record of chunks (counter, final flag, plaintext), well-formed or not."""
    chunks, commitment = chunk_key(suite, number)
    header = struct.pack(">BBI", 2, suite, 9) + salt(number) + commitment
    out = header
    for counter, final, piece in pieces:
        aad = header + CONTEXT.encode() + bytes((final,))
        out += chunks.aead.encrypt(chunks.nonce(counter), piece, aad)
    return out


def records() -> Iterator[Case]:
    key, fields, number = SecretKey.from_bytes(KEY), record_fields(KEY, CONTEXT), 0
    for suite, name in NAMES.items():
        for length in (0, 1, 14, 1000):
            number += 1
            plaintext = bytes(i % 251 for i in range(length))
            body = seal_with(key, 9, CONTEXT, plaintext, suite=suite, salt=salt(number))
            yield Case("sealed-record", f"{name}-{length}", f"{length} bytes", fields, body, plaintext)
    contexts = {
        "empty-tenant": replace(CONTEXT, tenant=""),
        "utf8-tenant": replace(CONTEXT, tenant="Ä/\N{SNOWMAN}"),
        "greatest-numbers": SealContext("t" * 1024, 2**64 - 1, b"\xff" * 16, 65535, 2**64 - 1, 65535),
    }
    for name, context in contexts.items():
        number += 1
        body = seal_with(key, 2**32 - 1, context, b"context", suite=1, salt=salt(number))
        yield Case("sealed-record", f"context-{name}", name, record_fields(KEY, context), body, b"context")
    number = 100
    for suite in (1, 2):
        okm = record_okm(b"strongroom/sealed-record@v1\0", suite, number, 64)
        plaintext = Aead(SUITES[suite], okm[:32]).encrypt(bytes(12), bytes(65536), b"")[:65536]
        body = seal_with(key, 9, CONTEXT, plaintext, suite=suite, salt=salt(number))
        yield Case(
            "sealed-record", f"{NAMES[suite]}-65536", "the longest whole record", fields, body, plaintext
        )
        for length in (65537, 131072, 200000):
            number += 1
            plaintext = zero_plaintext(chunk_key(suite, number)[0], length, CHUNK_BYTES)
            body = seal_with(key, 9, CONTEXT, plaintext, suite=suite, salt=salt(number))
            yield Case(
                "sealed-record", f"{NAMES[suite]}-{length}", "in chunks of 64 KiB", fields, body, plaintext
            )


def hostile_records() -> Iterator[Case]:
    fields, kind = record_fields(KEY, CONTEXT), "sealed-record"
    good = seal_with(SecretKey.from_bytes(KEY), 9, CONTEXT, b"attack at dawn", suite=1, salt=salt(200))
    regions = {"format": 0, "suite": 1, "key-id": 5, "salt": 6, "commitment": 30, "ciphertext": 62, "tag": -1}
    for name, at in regions.items():
        yield Case(kind, f"flipped-{name}", f"one bit of the {name} is flipped", fields, flip(good, at))
    yield Case(kind, "suite-swapped", "suite 1 turned into suite 2", fields, good[:1] + b"\x02" + good[2:])
    yield Case(kind, "suite-zero", "suite 0 does not exist", fields, good[:1] + b"\x00" + good[2:])
    yield Case(kind, "format-zero", "format 0 does not exist", fields, b"\x00" + good[1:])
    yield Case(kind, "empty", "no bytes at all", fields, b"")
    yield Case(kind, "header-only", "only the header", fields, good[:62])
    yield Case(kind, "no-tag", "the tag is missing", fields, good[:-16])
    yield Case(kind, "one-byte-short", "the last byte is missing", fields, good[:-1])
    yield Case(kind, "one-byte-long", "a byte was added", fields, good + b"\0")
    yield Case(kind, "wrong-key", "sealed under another key", record_fields(OTHER_KEY, CONTEXT), good)
    others = {
        "tenant": replace(CONTEXT, tenant="acme2"),
        "ns": replace(CONTEXT, ns=8),
        "memory-id": replace(CONTEXT, memory_id=bytes(range(1, 17))),
        "field": replace(CONTEXT, field=1),
        "version": replace(CONTEXT, version=2),
        "schema": replace(CONTEXT, schema=2),
    }
    for name, context in others.items():
        yield Case(kind, f"wrong-{name}", f"opened with another {name}", record_fields(KEY, context), good)
    yield from salamander()


def hostile_chunks() -> Iterator[Case]:
    fields, kind, n = record_fields(KEY, CONTEXT), "sealed-record", 300
    full = CHUNK_BYTES
    data = zero_plaintext(chunk_key(1, n)[0], 2 * full + 5, full)
    a, b, c = data[:full], data[full : 2 * full], data[2 * full :]
    header, step = 62, full + 16
    good = chunked_by_hand(1, n, [(0, 0, a), (1, 0, b), (2, 1, c)])
    first, second, last = good[header : header + step], good[header + step : header + 2 * step], good[-21:]
    head = good[:header]
    yield Case(kind, "chunks-by-hand", "two full chunks and a short one", fields, good, data)
    bad: dict[str, tuple[str, bytes]] = {
        "chunks-swapped": ("the first two chunks changed places", head + second + first + last),
        "chunk-repeated": ("the first chunk stands in place of the second", head + first + first + last),
        "chunk-missing": ("the first chunk is gone", head + second + last),
        "last-chunk-missing": ("the short last chunk is gone", head + first + second),
        "chunks-extended": ("a byte follows the last chunk", good + b"\0"),
        "chunk-added": ("the last chunk stands there twice", good + last),
        "chunks-cut-inside": ("cut inside the second chunk", good[: header + step + 1000]),
        "chunks-cut-in-tag": ("cut inside the last tag", good[:-7]),
        "chunk-flipped": ("one bit of the second chunk is flipped", flip(good, header + step + 7)),
        "chunk-key-id": ("another key_id in the header", flip(good, 5)),
        "chunked-as-whole": ("format 2 turned into format 1", b"\x01" + good[1:]),
    }
    for name, (comment, body) in bad.items():
        yield Case(kind, name, comment, fields, body)
    # sealed with the right key, but not in the one canonical form
    okm = record_okm(b"strongroom/sealed-record@v1\0", 1, n + 2, 64)
    whole = Aead(SUITES[1], okm[:32])
    long_header = struct.pack(">BBI", 1, 1, 9) + salt(n + 2) + okm[32:]
    zero = whole.encrypt(bytes(12), bytes(65537), b"")[:65537]
    body = long_header + whole.encrypt(bytes(12), zero, long_header + CONTEXT.encode())
    yield Case(kind, "whole-too-long", "a plaintext of 65537 bytes in format 1", fields, body)
    later = zero_plaintext(chunk_key(1, n)[0], 3 * full + 5, full)[full:]
    d, e, g = later[:full], later[full : 2 * full], later[2 * full :]
    pieces = {
        "final-flag-missing": ("last chunk sealed as not final", [(0, 0, a), (1, 0, b), (2, 0, c)]),
        "final-flag-early": ("first chunk sealed as final", [(0, 1, a), (1, 0, b), (2, 1, c)]),
        "full-chunk-at-end": ("the last chunk is full", [(0, 0, a), (1, 1, b)]),
        "short-in-chunks": ("a plaintext of 5 bytes in format 2", [(0, 1, c)]),
        "64k-in-chunks": ("a plaintext of 65536 bytes in format 2", [(0, 0, a), (1, 1, b"")]),
        "counter-from-one": ("chunks numbered from 1", [(1, 0, d), (2, 0, e), (3, 1, g)]),
    }
    for name, (comment, parts) in pieces.items():
        yield Case(kind, name, comment, fields, chunked_by_hand(1, n, parts))
    packed = zero_plaintext(chunk_key(1, n + 1)[0], 2 * full, full)[full:]
    other = chunked_by_hand(1, n + 1, [(0, 0, a), (1, 0, packed), (2, 1, c)])
    spliced = head + first + other[header + step : header + 2 * step] + last
    yield Case(kind, "chunk-spliced", "the second chunk comes from another record", fields, spliced)


def _gf_mul(x: int, y: int) -> int:
    """Multiplication in the field of GCM (SP 800-38D, 6.3)."""
    z = 0
    for i in range(128):
        if (y >> (127 - i)) & 1:
            z ^= x
        x = (x >> 1) ^ (0xE1 << 120 if x & 1 else 0)
    return z


def _gf_power(x: int, n: int) -> int:
    out = 1 << 127
    while n:
        out = _gf_mul(out, x) if n & 1 else out
        x, n = _gf_mul(x, x), n >> 1
    return out


def salamander_parts() -> tuple[bytes, list[bytes], bytes, bytes]:
    """A GCM ciphertext that is valid under two record keys; (header, record keys, sealed, aad).

    Dodis, Grubbs, Ristenpart, Woodage, "Fast Message Franking" (2018): with one free block the two
    tags can be made equal, because the tag is a polynomial in a block that the sealer chooses.
    """
    label = b"strongroom/sealed-record@v1\0"
    okms = [record_okm(label, 1, 400, 64, key) for key in (KEY, OTHER_KEY)]
    keys = [okm[:32] for okm in okms]
    header = struct.pack(">BBI", 1, 1, 9) + salt(400) + okms[0][32:]
    aad = header + CONTEXT.encode()
    tags = []
    for key in keys:
        # tag of an all-zero two-block ciphertext: decrypting is encrypting in counter mode
        zeros = Aead(SUITES[1], key).encrypt(bytes(12), bytes(32), b"")[:32]
        tags.append(int.from_bytes(Aead(SUITES[1], key).encrypt(bytes(12), zeros, aad)[-16:], "big"))
    hs = [_hash_subkey(key) for key in keys]
    # the first ciphertext block enters the tag multiplied by H^3, the second by H^2
    cubes = _gf_power(hs[0], 3) ^ _gf_power(hs[1], 3)
    block = _gf_mul(tags[0] ^ tags[1], _gf_power(cubes, 2**128 - 2))
    ciphertext = block.to_bytes(16, "big") + bytes(16)
    tag = tags[0] ^ _gf_mul(block, _gf_power(hs[0], 3))
    return header, keys, ciphertext + tag.to_bytes(16, "big"), aad


def _hash_subkey(key: bytes) -> int:
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16))
    return int.from_bytes(block, "big")


def salamander() -> Iterator[Case]:
    header, keys, sealed, aad = salamander_parts()
    plaintext = Aead(SUITES[1], keys[0]).decrypt(bytes(12), sealed, aad)
    fields = record_fields(KEY, CONTEXT)
    body = header + sealed
    yield Case("sealed-record", "two-keys-committed", "the key that is committed to", fields, body, plaintext)
    comment = "the AEAD message is valid under this key too, but the commitment is of another"
    yield Case("sealed-record", "two-keys", comment, record_fields(OTHER_KEY, CONTEXT), body)


# -- wrapped keys -------------------------------------------------------------------------------
def wrapped_keys() -> Iterator[Case]:
    kek, kind = SecretKey.from_bytes(KEY), "wrapped-key"
    fields = {"key": KEY.hex(), "context": b"namespace 7".hex()}
    for suite, name in NAMES.items():
        body = wrap_with(kek, INNER_KEY, b"namespace 7", suite, salt(500 + suite))
        yield Case(kind, name, "a wrapped key", fields, body, INNER_KEY)
    good = wrap_with(kek, INNER_KEY, b"namespace 7", 1, salt(510))
    regions = {"format": 0, "suite": 1, "salt": 2, "commitment": 26, "ciphertext": 58, "tag": -1}
    for name, at in regions.items():
        yield Case(kind, f"flipped-{name}", f"one bit of the {name} is flipped", fields, flip(good, at))
    yield Case(kind, "short", "the last byte is missing", fields, good[:-1])
    yield Case(kind, "long", "a byte was added", fields, good + b"\0")
    yield Case(kind, "wrong-context", "another context", {**fields, "context": b"namespace 8".hex()}, good)
    yield Case(kind, "wrong-key", "another wrapping key", {**fields, "key": OTHER_KEY.hex()}, good)
    # sealed with the right key, but under a header that is not the one canonical header
    okm = hkdf_expand(KEY, b"strongroom/wrapped-key@v1\0\x01" + salt(510) + b"namespace 7", 64)
    for name, head in (
        ("other-format", b"\x04\x01" + salt(510) + okm[32:]),
        ("no-commitment", b"\x03\x01" + salt(510) + bytes(32)),
    ):
        tail = Aead(SUITES[1], okm[:32]).encrypt(bytes(12), INNER_KEY, head + b"namespace 7")
        yield Case(kind, f"resealed-{name}", f"valid but for: {name}", fields, head + tail)
    record = seal_with(kek, 9, CONTEXT, INNER_KEY, suite=1, salt=salt(511))
    yield Case(kind, "record-as-key", "a sealed record is no wrapped key", fields, record)


# -- streams ------------------------------------------------------------------------------------
def stream_chunks(suite: int, number: int, context: bytes) -> ChunkKey:
    iana = SUITES[suite].iana_name.encode()
    info = b"c2sp.org/chunked-encryption@v1+" + iana + b"\0" + salt(number) + context
    return ChunkKey(SUITES[suite], hkdf_expand(KEY, info, CHUNKED_OKM_BYTES))


def seal_stream(suite: int, number: int, context: bytes, plaintext: bytes) -> bytes:
    sink = io.BytesIO()
    random: Callable[[int], bytes] = lambda n: salt(number)[:n]  # noqa: E731
    with SealStream(SecretKey.from_bytes(KEY), sink, context, suite=suite, random=random) as out:
        out.write(plaintext)
    return sink.getvalue()


def streams() -> Iterator[Case]:
    context, kind, number = b"snapshot 1", "stream", 600
    for suite, name in NAMES.items():
        fields = {"key": KEY.hex(), "context": context.hex(), "suite": str(suite)}
        lengths = (0, 7, 16384, 16385, 40000) if suite != 3 else (0, 7)
        for length in lengths:
            number += 1
            plaintext = zero_plaintext(stream_chunks(suite, number, context), length, STREAM_CHUNK)
            body = seal_stream(suite, number, context, plaintext)
            yield Case(kind, f"{name}-{length}", f"{length} bytes", fields, body, plaintext)
    fields = {"key": KEY.hex(), "context": context.hex(), "suite": "1"}
    data = zero_plaintext(stream_chunks(1, 650, context), 2 * STREAM_CHUNK + 5, STREAM_CHUNK)
    good, step = seal_stream(1, 650, context, data), STREAM_CHUNK + 16
    head, first, second, last = good[:56], good[56 : 56 + step], good[56 + step : 56 + 2 * step], good[-21:]
    bad: dict[str, tuple[str, bytes]] = {
        "empty": ("no bytes at all", b""),
        "header-cut": ("cut inside the header", good[:40]),
        "header-only": ("no chunk at all", head),
        "salt-flipped": ("one bit of the salt is flipped", flip(good, 0)),
        "commitment-flipped": ("one bit of the commitment is flipped", flip(good, 24)),
        "chunk-flipped": ("one bit of the second chunk is flipped", flip(good, 56 + step)),
        "tag-flipped": ("one bit of the last tag is flipped", flip(good, -1)),
        "chunks-swapped": ("the first two chunks changed places", head + second + first + last),
        "chunk-repeated": ("the first chunk stands in place of the second", head + first + first + last),
        "chunk-missing": ("the first chunk is gone", head + second + last),
        "last-missing": ("the short last chunk is gone", head + first + second),
        "extended": ("a byte follows", good + b"\0"),
        "last-cut": ("cut inside the last tag", good[:-7]),
    }
    for name, (comment, body) in bad.items():
        yield Case(kind, name, comment, fields, body)
    yield Case(kind, "wrong-context", "another context", {**fields, "context": b"other".hex()}, good)
    yield Case(kind, "wrong-key", "another key", {**fields, "key": OTHER_KEY.hex()}, good)
    yield Case(kind, "wrong-suite", "read as another suite", {**fields, "suite": "2"}, good)


# -- passphrases and derived keys ---------------------------------------------------------------
def passwords() -> Iterator[Case]:
    kind = "password"
    header = new_password_header(memory_kib=19456, iterations=2, lanes=1, random=lambda n: salt(700)[:n])
    for name, passphrase in (("ascii", "correct horse"), ("nfd", "u\u0308ber"), ("nfc", "\u00fcber")):
        fields = {"passphrase": passphrase.encode().hex()}
        key = expose(password_kdf(passphrase, header))
        yield Case(kind, name, f"passphrase in {name}", fields, header, key)
    fields = {"passphrase": b"correct horse".hex()}
    bad = {
        "weak-memory": struct.pack(">BBHII20s", 1, 1, 1, 2, 19455, salt(701)[:20]),
        "huge-memory": struct.pack(">BBHII20s", 1, 1, 1, 2, 2**32 - 1, salt(701)[:20]),
        "one-iteration": struct.pack(">BBHII20s", 1, 1, 1, 1, 19456, salt(701)[:20]),
        "many-iterations": struct.pack(">BBHII20s", 1, 1, 1, 17, 19456, salt(701)[:20]),
        "no-lanes": struct.pack(">BBHII20s", 1, 1, 0, 2, 19456, salt(701)[:20]),
        "many-lanes": struct.pack(">BBHII20s", 1, 1, 17, 2, 19456, salt(701)[:20]),
        "other-version": struct.pack(">BBHII20s", 2, 1, 1, 2, 19456, salt(701)[:20]),
        "other-algorithm": struct.pack(">BBHII20s", 1, 2, 1, 2, 19456, salt(701)[:20]),
        "short-header": header[:-1],
        "long-header": header + b"\0",
    }
    for name, body in bad.items():
        yield Case(kind, name, name.replace("-", " "), fields, body)
    yield Case(kind, "empty-passphrase", "empty passphrase", {"passphrase": ""}, header)


def derived() -> Iterator[Case]:
    key = SecretKey.from_bytes(KEY)
    for name, label, context in (("label", "head", b""), ("label-and-context", "blind-index", b"\x00\x01")):
        fields = {"key": KEY.hex(), "operation": "derive", "label": label.encode().hex()}
        yield Case("derive", name, "a derived key", fields, context, expose(key.derive(label, context)))
    for operation, result in (("mac", key.mac(b"some data")), ("blind", key.blind(b"some data"))):
        fields = {"key": KEY.hex(), "operation": operation, "label": ""}
        yield Case("derive", operation, f"{operation} of the body", fields, b"some data", result)


def all_cases() -> Iterator[Case]:
    for group in (records, hostile_records, hostile_chunks, wrapped_keys, streams, passwords, derived):
        yield from group()


def main(directory: Path) -> int:
    count = 0
    for case in all_cases():
        path = directory / case.kind / f"{case.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and directory != Path(__file__).parent:
            raise SystemExit(f"two vectors have the name {path.name}")
        path.write_text(case.text(), "utf-8")
        count += 1
    print(f"{count} vectors written")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
