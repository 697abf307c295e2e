"""Check the test vectors without a line of the package that made them.

Run: python vectors/verify.py [DIRECTORY]. Written from spec/sealed-record.md and spec/stream.md with
hashlib, hmac and the primitives of the cryptography package. Exit status 1 when any vector disagrees.

Fields of each kind (numbers decimal, the rest hex); what the body is; what a success yields:
  sealed-record  key tenant ns memory-id field version schema; the record; its plaintext
  wrapped-key    key context; the wrapped key; the 32 bytes of the key inside
  stream         key context suite; the stream; its plaintext
  password       passphrase; the header; the 32 bytes of the key
  derive         key operation label; context or data; 32 bytes
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

Ciphers = dict[int, type[AESGCM] | type[ChaCha20Poly1305] | type[AESGCMSIV]]
CIPHERS: Ciphers = {1: AESGCM, 2: ChaCha20Poly1305, 3: AESGCMSIV}
IANA = {1: b"AEAD_AES_256_GCM", 2: b"AEAD_CHACHA20_POLY1305", 3: b"AEAD_AES_256_GCM_SIV"}


class Refused(Exception):
    """The bytes are not acceptable."""


def need(condition: bool) -> None:
    if not condition:
        raise Refused


def expand(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(algorithm=SHA512(), length=length, info=info).derive(key)


def part(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def xor_nonce(base: bytes, counter: int) -> bytes:
    return bytes(a ^ b for a, b in zip(base, counter.to_bytes(12, "big"), strict=True))


def sealed_record(f: dict[str, str], body: bytes) -> bytes:
    context = part(bytes.fromhex(f["tenant"])) + part(struct.pack(">Q", int(f["ns"])))
    context += part(bytes.fromhex(f["memory-id"])) + part(struct.pack(">H", int(f["field"])))
    context += part(struct.pack(">Q", int(f["version"]))) + part(struct.pack(">H", int(f["schema"])))
    need(len(body) >= 78)
    form, suite, salt, commitment = body[0], body[1], body[6:30], body[30:62]
    need(form in (1, 2) and suite in CIPHERS)
    key = bytes.fromhex(f["key"])
    if form == 1:
        need(len(body) - 78 <= 65536)
        okm = expand(key, b"strongroom/sealed-record@v1\0" + bytes([suite]) + salt + context, 64)
        need(hmac.compare_digest(okm[32:], commitment))
        return CIPHERS[suite](okm[:32]).decrypt(bytes(12), body[62:], body[:62] + context)
    okm = expand(key, b"strongroom/sealed-chunks@v1\0" + bytes([suite]) + salt + context, 76)
    need(hmac.compare_digest(okm[44:], commitment))
    cipher, rest, out, counter = CIPHERS[suite](okm[:32]), body[62:], b"", 0
    while True:
        chunk, rest = rest[:65552], rest[65552:]
        final = len(chunk) < 65552
        need(len(chunk) >= 16 and not (final and rest))
        aad = body[:62] + context + bytes([final])
        out += cipher.decrypt(xor_nonce(okm[32:44], counter), chunk, aad)
        counter += 1
        if final:
            need(len(out) > 65536)
            return out


def wrapped_key(f: dict[str, str], body: bytes) -> bytes:
    need(len(body) == 106 and body[0] == 3 and body[1] in CIPHERS)
    context = bytes.fromhex(f["context"])
    info = b"strongroom/wrapped-key@v1\0" + body[1:2] + body[2:26] + context
    okm = expand(bytes.fromhex(f["key"]), info, 64)
    need(hmac.compare_digest(okm[32:], body[26:58]))
    return CIPHERS[body[1]](okm[:32]).decrypt(bytes(12), body[58:], body[:58] + context)


def stream(f: dict[str, str], body: bytes) -> bytes:
    need(len(body) >= 56)
    suite = int(f["suite"])
    info = b"c2sp.org/chunked-encryption@v1+" + IANA[suite] + b"\0" + body[:24] + bytes.fromhex(f["context"])
    okm = expand(bytes.fromhex(f["key"]), info, 76)
    need(hmac.compare_digest(okm[44:], body[24:56]))
    cipher, out, at, counter = CIPHERS[suite](okm[:32]), b"", 56, 0
    while True:
        chunk = body[at : at + 16400]
        need(len(chunk) >= 16)
        out += cipher.decrypt(xor_nonce(okm[32:44], counter), chunk, b"")
        if len(chunk) < 16400:
            return out
        at, counter = at + 16400, counter + 1


def password(f: dict[str, str], body: bytes) -> bytes:
    need(len(body) == 32)
    version, algorithm, lanes, iterations, memory, salt = struct.unpack(">BBHII20s", body)
    need(version == 1 and algorithm == 1)
    need(1 <= lanes <= 16 and 2 <= iterations <= 16 and 19456 <= memory <= 2097152)
    text = unicodedata.normalize("NFC", bytes.fromhex(f["passphrase"]).decode("utf-8")).encode("utf-8")
    need(0 < len(text) <= 4096)
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory, ad=body)
    return kdf.derive(text)


def derive(f: dict[str, str], body: bytes) -> bytes:
    key = bytes.fromhex(f["key"])
    if f["operation"] == "mac":
        return hmac.new(key, body, hashlib.sha256).digest()
    label = b"strongroom/blind@v1" if f["operation"] == "blind" else bytes.fromhex(f["label"])
    context = b"" if f["operation"] == "blind" else body
    derived = expand(key, b"strongroom/derive@v1\0" + part(label) + part(context), 32)
    return hmac.new(derived, body, hashlib.sha256).digest() if f["operation"] == "blind" else derived


KINDS: dict[str, Callable[[dict[str, str], bytes], bytes]] = {
    "sealed-record": sealed_record,
    "wrapped-key": wrapped_key,
    "stream": stream,
    "password": password,
    "derive": derive,
}


def check(path: Path) -> str | None:
    """None when the vector holds, otherwise what is wrong."""
    head, _, packed = path.read_text("utf-8").partition("\n\n")
    fields = dict(line.partition(": ")[::2] for line in head.splitlines())
    if fields["kind"] != path.parent.name or fields["expect"] not in ("success", "refused"):
        return "malformed vector"
    joined = "".join(packed.split())
    body = bytes.fromhex(joined) if fields["encoding"] == "hex" else zlib.decompress(base64.b64decode(joined))
    try:
        plaintext = KINDS[fields["kind"]](fields, body)
    except (Refused, InvalidTag):
        return None if fields["expect"] == "refused" else "refused, but should open"
    if fields["expect"] == "refused":
        return "opened, but should be refused"
    digest = hashlib.sha256(plaintext).hexdigest()
    if len(plaintext) != int(fields["plaintext-bytes"]) or digest != fields["plaintext-sha256"]:
        return "opened to another plaintext"
    return None


def main(directory: Path) -> int:
    paths = sorted(directory.glob("*/*.txt"))
    bad = 0
    for path in paths:
        problem = check(path)
        if problem is not None:
            bad += 1
            print(f"{path.parent.name}/{path.name}: {problem}")
    print(f"{len(paths) - bad} of {len(paths)} vectors hold")
    return 1 if bad or not paths else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
