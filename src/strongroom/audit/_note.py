"""Checkpoints as C2SP signed notes, and the keys that sign them (spec/audit-log.md).

    strongroom/audit/<store id>           origin, which is also the name of the keys
    20852163                              number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     root hash
                                          (no extension lines)
    — strongroom/audit/<store id> <base64: key id (4) | Ed25519 signature (64)>
    — strongroom/audit/<store id> <base64: key id (4) | time (8) | ML-DSA-44 signature (2420)>

Sources: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature; RFC 8032, FIPS 204.
The ML-DSA-44 line is a cosignature by the log itself, type 0x06 of tlog-cosignature.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import ConfigurationError, IntegrityError
from strongroom.model import Checkpoint

ED25519_TYPE: Final = b"\x01"
ML_DSA_44_TYPE: Final = b"\x06"
_LABEL: Final = b"subtree/v1\n\x00"
_SEED_BYTES: Final = 32
_FORM: Final = 2
_FIRST_FORM: Final = 1  # without changes
CHANGES_KEPT_MAX: Final = 64
CHANGE_FORMAT: Final = "strongroom-audit-keys/v1"
_CHANGE_LABEL: Final = b"strongroom/audit-keys@v1\0"


def origin_of(store_id: UUID) -> str:
    """The name of a store's audit log."""
    return f"strongroom/audit/{store_id}"


def change_origin_of(store_id: UUID) -> str:
    """The name under which a store's keys sign that others take their place."""
    return f"strongroom/audit-keys/{store_id}"


class KeyChange(msgspec.Struct, array_like=True, frozen=True):
    """A change of the signing keys as it is kept. ``before``: the verifier keys that signed until then.
    ``document``: what was signed (spec/audit-log.md)."""

    before: tuple[str, str]
    size: int
    document: str


class Signer:
    """The two private keys of an audit log. They have no repr and leave the process only as sealed seeds."""

    __slots__ = ("_ed25519", "_ml_dsa", "changes", "origin")

    changes: tuple[KeyChange, ...]

    def __init__(self, origin: str, payload: bytes) -> None:
        """``payload``: what ``new_payload`` made.

        Raises:
            IntegrityError: it is something else. ConfigurationError: this OpenSSL has no ML-DSA.
        """
        self.origin = origin
        try:
            form, ed25519, ml_dsa, self.changes = _decode(payload)
            if form not in (_FIRST_FORM, _FORM) or len(ed25519) != _SEED_BYTES or len(ml_dsa) != _SEED_BYTES:
                raise ValueError
            self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519)
            self._ml_dsa = MLDSA44PrivateKey.from_seed_bytes(ml_dsa)
        except (msgspec.MsgspecError, ValueError):
            raise IntegrityError("the signing key of the audit log is not of its form") from None
        except UnsupportedAlgorithm:
            raise ConfigurationError("the installed cryptography cannot sign with ML-DSA-44") from None

    @staticmethod
    def new_payload(random: Callable[[int], bytes] = os.urandom) -> bytes:
        """Two random seeds, to be sealed."""
        return msgspec.msgpack.encode((_FORM, random(_SEED_BYTES), random(_SEED_BYTES), ()))

    @staticmethod
    def next_payload(
        store_id: UUID, payload: bytes, *, size: int, root: bytes, at: datetime, compromised: bool
    ) -> bytes:
        """Two new seeds, to be sealed in the place of ``payload``, with the signed document of the change.

        ``size``, ``root``: of the log when the keys change. The oldest of more than 64 changes is forgotten.
        """
        fresh = Signer.new_payload()
        origin, name = origin_of(store_id), change_origin_of(store_id)
        old, new = Signer(origin, payload), Signer(origin, fresh)
        change = {
            "format": CHANGE_FORMAT,
            "origin": origin,
            "before": list(old.public_keys()),
            "after": list(new.public_keys()),
            "size": size,
            "root": base64.b64encode(root).decode(),
            "at": at.isoformat(timespec="seconds"),
            "compromised": compromised,
        }
        digest, at_s = change_digest(change), int(at.timestamp())
        notes = [Signer(name, raw).sign(1, digest, at_s).note for raw in (payload, fresh)]
        document = json.dumps({**change, "notes": notes}, sort_keys=True, separators=(",", ":"))
        changes = (*old.changes, KeyChange(old.public_keys(), size, document))[-CHANGES_KEPT_MAX:]
        _, ed25519, ml_dsa, _ = _decode(fresh)
        return msgspec.msgpack.encode((_FORM, ed25519, ml_dsa, changes))

    def public_keys(self) -> tuple[str, str]:
        """The verifier keys, ``name+key id+base64(type | public key)``: Ed25519, ML-DSA-44."""
        return (
            _vkey(self.origin, ED25519_TYPE, self._ed25519_public()),
            _vkey(self.origin, ML_DSA_44_TYPE, self._ml_dsa_public()),
        )

    def sign(self, size: int, root: bytes, at_s: int) -> Checkpoint:
        """The checkpoint of a tree. ``at_s``: seconds since the epoch, stated in the cosignature."""
        text = f"{self.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        first = self._ed25519.sign(text.encode())
        time = struct.pack(">Q", at_s)
        second = time + self._ml_dsa.sign(cosigned_message(self.origin, time, size, root))
        note = text + "\n"
        note += self._line(ED25519_TYPE, self._ed25519_public(), first)
        note += self._line(ML_DSA_44_TYPE, self._ml_dsa_public(), second)
        return Checkpoint(self.origin, size, root, note)

    def _line(self, kind: bytes, public: bytes, signature: bytes) -> str:
        raw = _key_id(self.origin, kind, public) + signature
        return f"\N{EM DASH} {self.origin} {base64.b64encode(raw).decode()}\n"

    def _ed25519_public(self) -> bytes:
        return self._ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def _ml_dsa_public(self) -> bytes:
        return self._ml_dsa.public_key().public_bytes_raw()


def change_digest(change: dict[str, object]) -> bytes:
    """What is signed of a change of keys: its canonical JSON without the notes."""
    canonical = json.dumps(change, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(_CHANGE_LABEL + canonical.encode()).digest()


def _decode(payload: bytes) -> tuple[int, bytes, bytes, tuple[KeyChange, ...]]:
    fields = msgspec.msgpack.decode(payload, type=list[msgspec.Raw])
    if len(fields) not in (3, 4):
        raise ValueError
    form, first, second = (msgspec.msgpack.decode(f) for f in fields[:3])
    if type(form) is not int or not isinstance(first, bytes) or not isinstance(second, bytes):
        raise ValueError
    changes = msgspec.msgpack.decode(fields[3], type=tuple[KeyChange, ...]) if len(fields) == 4 else ()
    return form, first, second, changes


def cosigned_message(origin: str, time: bytes, size: int, root: bytes) -> bytes:
    """What the cosignature signs: ``cosigned_message`` of tlog-cosignature, of the whole tree."""
    name = origin.encode()
    prefixed = bytes([len(name)]) + name
    return _LABEL + prefixed + time + prefixed + struct.pack(">QQ", 0, size) + root


def _key_id(name: str, kind: bytes, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def _vkey(name: str, kind: bytes, public: bytes) -> str:
    key_id = _key_id(name, kind, public).hex()
    return f"{name}+{key_id}+{base64.b64encode(kind + public).decode()}"
