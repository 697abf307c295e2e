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
import os
import struct
from collections.abc import Callable
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
_FORM: Final = 1


def origin_of(store_id: UUID) -> str:
    """The name of a store's audit log."""
    return f"strongroom/audit/{store_id}"


class Signer:
    """The two private keys of an audit log. They have no repr and leave the process only as sealed seeds."""

    __slots__ = ("_ed25519", "_ml_dsa", "origin")

    def __init__(self, origin: str, payload: bytes) -> None:
        """``payload``: what ``new_payload`` made.

        Raises:
            IntegrityError: it is something else. ConfigurationError: this OpenSSL has no ML-DSA.
        """
        self.origin = origin
        try:
            form, ed25519, ml_dsa = msgspec.msgpack.decode(payload, type=tuple[int, bytes, bytes])
            if form != _FORM or len(ed25519) != _SEED_BYTES or len(ml_dsa) != _SEED_BYTES:
                raise ValueError
            self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519)
            self._ml_dsa = MLDSA44PrivateKey.from_seed_bytes(ml_dsa)
        except (msgspec.DecodeError, ValueError):
            raise IntegrityError("the signing key of the audit log is not of its form") from None
        except UnsupportedAlgorithm:
            raise ConfigurationError("the installed cryptography cannot sign with ML-DSA-44") from None

    @staticmethod
    def new_payload(random: Callable[[int], bytes] = os.urandom) -> bytes:
        """Two random seeds, to be sealed."""
        return msgspec.msgpack.encode((_FORM, random(_SEED_BYTES), random(_SEED_BYTES)))

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
