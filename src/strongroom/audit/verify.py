"""The offline verifier: an export or a proof against public keys, without server, store or keyring.

It shares no code with the rooms that write the log: only hashlib, base64, json, cryptography and the error
tree. The tree is added up as a row of equal-sized subtrees that merge in pairs, and the root at the size of
every head kept elsewhere is taken on the way, so that consistency needs no proof: the leaves are there.
Formats: spec/audit-log.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from strongroom.errors import IntegrityError, InvalidInputError, TamperedError

EXPORT_FORMAT: Final = "strongroom-audit-export/v1"
PROOF_FORMAT: Final = "strongroom-audit-proof/v1"
CONSISTENCY_FORMAT: Final = "strongroom-audit-consistency/v1"
KEY_CHANGE_FORMAT: Final = "strongroom-audit-keys/v1"
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
SIGNATURES_MAX: Final = 64
_ED25519: Final = b"\x01"
_ML_DSA_44: Final = b"\x06"
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_HASH_BYTES: Final = 32
_LOG_PREFIX: Final = "strongroom/audit/"
_DASH: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key. ``kind`` is the signature type, ``key_id`` its short name in signature lines."""

    name: str
    kind: bytes
    key_id: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says, its signatures verified."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """A change of signing keys, verified. ``compromised``: the keys before had been exposed, so that their
    signature proves nothing: compare ``after`` with what the store's owner says."""

    origin: str
    size: int
    after: tuple[str, ...]
    compromised: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """What was verified. ``heads``: how many heads kept elsewhere are in it."""

    origin: str
    size: int
    root: bytes
    heads: int = 0


# -- keys and checkpoints ------------------------------------------------------------------------------
def parse_keys(text: str) -> tuple[VerifierKey, ...]:
    """Verifier keys, one a line, as ``strongroom audit key`` prints them.

    Raises:
        InvalidInputError: there is none, or a line is none.
    """
    keys = tuple(_parse_key(line.strip()) for line in text.splitlines() if line.strip())
    if not keys:
        raise InvalidInputError("there is no public key", hint="it is what this prints: strongroom audit key")
    return keys


def _parse_key(line: str) -> VerifierKey:
    parts = line.split("+", 2)
    try:
        name, key_id, material = parts[0], bytes.fromhex(parts[1]), base64.b64decode(parts[2], validate=True)
    except (IndexError, ValueError):
        raise InvalidInputError("a public key is not of the form NAME+ID+BASE64") from None
    for kind in (_ED25519, _ML_DSA_44):
        public = material[len(kind) :]
        if (
            not material.startswith(kind)
            or hashlib.sha256(name.encode() + b"\n" + material).digest()[:4] != key_id
        ):
            continue
        try:
            _load(kind, public)
        except ValueError:
            break
        return VerifierKey(name, kind, key_id, public)
    raise InvalidInputError("a public key is of an unknown type, or its id is not its own")


def _load(kind: bytes, public: bytes) -> Ed25519PublicKey | MLDSA44PublicKey:
    try:
        if kind == _ED25519:
            return Ed25519PublicKey.from_public_bytes(public)
        return MLDSA44PublicKey.from_public_bytes(public)
    except UnsupportedAlgorithm:
        raise InvalidInputError("the installed cryptography does not know ML-DSA-44") from None


def open_checkpoint(note: str, keys: Sequence[VerifierKey]) -> Head:
    """Read a checkpoint that every one of ``keys`` has signed.

    Raises:
        IntegrityError: it is no checkpoint. TamperedError: a signature is missing or wrong, or it is that
        of another log.
    """
    if not keys:
        raise InvalidInputError("there is no public key to verify with")
    text, separator, tail = note.rpartition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) != 3 or not tail.endswith("\n") or len(note) > LINE_BYTES_MAX:
        raise IntegrityError("a checkpoint is not of its form")
    origin, size, root = lines[0], lines[1], _hash(lines[2])
    if not origin or not _DECIMAL.fullmatch(size):
        raise IntegrityError("a checkpoint is not of its form")
    head = Head(origin, int(size), root)
    signatures = _signatures(tail)
    for key in keys:
        if key.name != origin:
            raise TamperedError("a checkpoint is that of another log than the public key")
        found = [raw for name, raw in signatures if name == key.name and raw[:4] == key.key_id]
        if not found:
            raise TamperedError("a checkpoint lacks the signature of a public key")
        for raw in found:
            _verify(key, head, f"{text}\n".encode(), raw[4:])
    return head


def _signatures(tail: str) -> list[tuple[str, bytes]]:
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise IntegrityError("a checkpoint has too many signatures")
    out = []
    for line in lines:
        name, _, raw = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not name:
            raise IntegrityError("a signature of a checkpoint is not of its form")
        out.append((name, _base64(raw)))
    return out


def _verify(key: VerifierKey, head: Head, text: bytes, signature: bytes) -> None:
    public = _load(key.kind, key.public)
    try:
        if key.kind == _ED25519:
            public.verify(signature, text)
            return
        name = head.origin.encode()
        sized = bytes([len(name)]) + name
        message = b"subtree/v1\n\x00" + sized + signature[:8] + sized
        public.verify(signature[8:], message + struct.pack(">QQ", 0, head.size) + head.root)
    except (InvalidSignature, ValueError):
        raise TamperedError("a signature of a checkpoint is wrong") from None


def parse_heads(text: str) -> list[str]:
    """The notes in a file: one note, or one JSON document ``{"checkpoint": note}`` a line.

    Raises:
        IntegrityError: it is neither.
    """
    if not text.lstrip().startswith("{"):
        return [text]
    notes = []
    for line in text.splitlines():
        if line.strip():
            notes.append(_text(_object(line.encode()), "checkpoint"))
    return notes


# -- the export ----------------------------------------------------------------------------------------
class _Adder:
    """The root over leaves as they come; ``marks`` are the sizes at which it is wanted."""

    def __init__(self, marks: Iterable[int]) -> None:
        self.count = 0
        self.roots: dict[int, bytes] = {}
        self._marks = set(marks)
        self._row: list[tuple[int, bytes]] = []  # (leaves, hash), left to right
        self._note()

    def add(self, sealed: bytes) -> None:
        row, width, value = self._row, 1, hashlib.sha256(b"\x00" + sealed).digest()
        while row and row[-1][0] == width:
            value = hashlib.sha256(b"\x01" + row.pop()[1] + value).digest()
            width *= 2
        row.append((width, value))
        self.count += 1
        if self.count in self._marks:
            self._note()

    def _note(self) -> None:
        value = hashlib.sha256().digest() if not self._row else self._row[-1][1]
        for _, left in reversed(self._row[:-1]):
            value = hashlib.sha256(b"\x01" + left + value).digest()
        self.roots[self.count] = value


def open_kept(note: str, keys: Sequence[VerifierKey], former: Sequence[Sequence[VerifierKey]] = ()) -> Head:
    """A head that was kept elsewhere: signed by ``keys``, or by one of the sets of keys before them.

    Raises:
        IntegrityError, TamperedError: as ``open_checkpoint``.
    """
    for before in former:
        try:
            return open_checkpoint(note, before)
        except TamperedError:
            continue
    return open_checkpoint(note, keys)


def verify_export(
    lines: Iterable[bytes],
    keys: Sequence[VerifierKey],
    heads: Sequence[str] = (),
    former: Sequence[Sequence[VerifierKey]] = (),
) -> Verified:
    """Verify an export (JSON Lines) and that each of ``heads`` (notes kept elsewhere) is a beginning of it.

    ``former``: sets of keys that signed before ``keys`` took their place; heads may be theirs. The sealed
    entries are verified; opened ones that stand beside them are not, since that takes the keys.

    Raises:
        IntegrityError: it is no whole export. TamperedError: entries, order, size or signatures are not
        those that were signed; a head kept elsewhere is of a longer or of another log.
    """
    stream = iter(lines)
    header = _object(next(stream, b""))
    if header.get("format") != EXPORT_FORMAT:
        raise IntegrityError("the file is no export of an audit log")
    size = header.get("size")
    if type(size) is not int or size < 0:
        raise IntegrityError("the export does not say its size")
    kept = [open_kept(note, keys, former) for note in heads]
    longest = max((head.size for head in kept), default=0)
    if longest > size:
        raise TamperedError(
            f"a head kept elsewhere has {longest} entries, the export {size}: the end is gone"
        )
    adder = _Adder({size, *(head.size for head in kept)})
    checkpoint = _add_leaves(stream, adder)
    signed = open_checkpoint(checkpoint, keys)
    if next(stream, None) is not None:
        raise TamperedError("something stands behind the checkpoint of the export")
    if not adder.count == size == signed.size:
        raise TamperedError(f"the export has {adder.count} entries, its checkpoint {signed.size}")
    if adder.roots[size] != signed.root:
        raise TamperedError("the entries are not those that the checkpoint was signed for")
    for head in kept:
        if adder.roots[head.size] != head.root:
            raise TamperedError(
                f"the log is not that of a head kept elsewhere: the first {head.size} entries differ"
            )
    return Verified(signed.origin, size, signed.root, len(kept))


def _add_leaves(stream: Iterable[bytes], adder: _Adder) -> str:
    """Add up the leaves; the note that ends them."""
    for line in stream:
        document = _object(line)
        if "checkpoint" in document:
            return _text(document, "checkpoint")
        if document.get("seq") != adder.count + 1:
            raise TamperedError(f"entry {adder.count + 1} is not where it belongs")
        adder.add(_base64(_text(document, "sealed")))
    raise TamperedError("the export ends without its checkpoint")


# -- changes of keys ------------------------------------------------------------------------------------
def verify_key_changes(raw: bytes, keys: Sequence[VerifierKey]) -> list[KeysChanged]:
    """Verify one or more changes, one a line, oldest first: each hands over what the one before it made.

    Raises:
        As ``verify_key_change``.
    """
    found: list[KeysChanged] = []
    for line in raw.splitlines():
        if line.strip():
            found.append(verify_key_change(line, keys))
            keys = parse_keys("\n".join(found[-1].after))
    if not found:
        raise IntegrityError("the file is no change of signing keys")
    return found


def verify_key_change(raw: bytes, keys: Sequence[VerifierKey]) -> KeysChanged:
    """Verify a document by which ``keys`` have handed over to others, which have signed it too.

    Raises:
        IntegrityError: it is no such document. TamperedError: it is not what was signed, or by other keys.
    """
    document = _object(raw)
    notes, size = document.pop("notes", None), document.get("size")
    lists = [document.get("before"), document.get("after"), notes]
    if (
        document.get("format") != KEY_CHANGE_FORMAT
        or type(size) is not int
        or type(document.get("compromised")) is not bool
        or not all(isinstance(a, list) and len(a) == 2 and all(isinstance(t, str) for t in a) for a in lists)
    ):
        raise IntegrityError("the file is no change of signing keys")
    origin = _text(document, "origin")
    before, after = (parse_keys("\n".join(found or ())) for found in lists[:2])
    if set(before) != set(keys):
        raise TamperedError("the keys that have handed over are not the public keys given")
    store = origin.removeprefix(_LOG_PREFIX)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(b"strongroom/audit-keys@v1\0" + canonical.encode()).digest()
    for note, signers in zip(lists[2] or (), (before, after), strict=True):
        head = open_checkpoint(note, [_under(key, f"strongroom/audit-keys/{store}") for key in signers])
        if any(key.name != origin for key in signers) or (head.size, head.root) != (1, digest):
            raise TamperedError("the change of keys is not what was signed")
    return KeysChanged(origin, size, tuple(document["after"]), document["compromised"])


def _under(key: VerifierKey, name: str) -> VerifierKey:
    """The same public key under another name."""
    key_id = hashlib.sha256(name.encode() + b"\n" + key.kind + key.public).digest()[:4]
    return VerifierKey(name, key.kind, key_id, key.public)


# -- single proofs -------------------------------------------------------------------------------------
def verify_proof(raw: bytes, keys: Sequence[VerifierKey]) -> Verified:
    """Verify that an entry is in the log of a checkpoint (RFC 9162, section 2.1.3.2).

    Raises:
        IntegrityError: it is no proof. TamperedError: it does not prove.
    """
    document = _object(raw)
    if document.get("format") != PROOF_FORMAT:
        raise IntegrityError("the file is no proof of an audit entry")
    head = open_checkpoint(_text(document, "checkpoint"), keys)
    seq = document.get("seq")
    if type(seq) is not int or not 1 <= seq <= head.size:
        raise TamperedError("the entry is beyond the checkpoint")
    value = hashlib.sha256(b"\x00" + _base64(_text(document, "sealed"))).digest()
    first, last = seq - 1, head.size - 1
    for step in _hashes(document):
        if last == 0:
            raise TamperedError("the proof is too long")
        if first & 1 or first == last:
            value = hashlib.sha256(b"\x01" + step + value).digest()
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            value = hashlib.sha256(b"\x01" + value + step).digest()
        first, last = first >> 1, last >> 1
    if last != 0 or value != head.root:
        raise TamperedError("the proof does not lead from the entry to the checkpoint")
    return Verified(head.origin, head.size, head.root)


def verify_consistency(
    raw: bytes, keys: Sequence[VerifierKey], old: str, former: Sequence[Sequence[VerifierKey]] = ()
) -> Verified:
    """Verify that the log of the checkpoint ``old`` is the beginning of that in the proof (2.1.4.2).

    ``former``: as in ``verify_export``.

    Raises:
        IntegrityError: it is no proof. TamperedError: it does not prove.
    """
    document = _object(raw)
    if document.get("format") != CONSISTENCY_FORMAT:
        raise IntegrityError("the file is no proof of consistency")
    head, before = open_checkpoint(_text(document, "checkpoint"), keys), open_kept(old, keys, former)
    path = _hashes(document)
    if before.size > head.size:
        raise TamperedError("the older checkpoint has more entries")
    if before.size in (0, head.size):
        same = before.root == (head.root if before.size else hashlib.sha256().digest())
        if path or not same:
            raise TamperedError("the proof does not lead from one checkpoint to the other")
        return Verified(head.origin, head.size, head.root, 1)
    _walk(before, head, path)
    return Verified(head.origin, head.size, head.root, 1)


def _walk(before: Head, head: Head, path: list[bytes]) -> None:
    """Steps 3 to 6 of RFC 9162, section 2.1.4.2."""
    if before.size & (before.size - 1) == 0:
        path.insert(0, before.root)
    if not path:
        raise TamperedError("the proof is too short")
    first, last = before.size - 1, head.size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    was = now = path[0]
    for step in path[1:]:
        if last == 0:
            raise TamperedError("the proof is too long")
        if first & 1 or first == last:
            was = hashlib.sha256(b"\x01" + step + was).digest()
            now = hashlib.sha256(b"\x01" + step + now).digest()
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            now = hashlib.sha256(b"\x01" + now + step).digest()
        first, last = first >> 1, last >> 1
    if last != 0 or was != before.root or now != head.root:
        raise TamperedError("the proof does not lead from one checkpoint to the other")


# -- the parts of a document -----------------------------------------------------------------------------
def _object(raw: bytes) -> dict[str, Any]:
    if len(raw) > LINE_BYTES_MAX:
        raise IntegrityError("a line of the file is too long")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise IntegrityError("a line of the file is not JSON") from None
    if not isinstance(found, dict):
        raise IntegrityError("a line of the file is not a JSON object")
    return found


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise IntegrityError(f"a line of the file has no {name}")
    return value


def _hashes(document: dict[str, Any]) -> list[bytes]:
    found = document.get("hashes")
    if not isinstance(found, list) or len(found) > 128 or not all(isinstance(h, str) for h in found):
        raise IntegrityError("the hashes of a proof are not of their form")
    return [_hash(h) for h in found]


def _hash(text: str) -> bytes:
    raw = _base64(text)
    if len(raw) != _HASH_BYTES:
        raise IntegrityError("a hash has not 32 bytes")
    return raw


def _base64(text: str) -> bytes:
    try:
        given = text.encode("ascii")
        raw = binascii.a2b_base64(given, strict_mode=True)
    except ValueError:
        raise IntegrityError("a value of the file is not base64") from None
    if binascii.b2a_base64(raw, newline=False) != given:
        raise IntegrityError("a value of the file is not in canonical base64")
    return raw
