"""Published vectors of signatures and of the recovery key, through the audit log and recovery.

``cryptography_vectors`` (of the authors of ``cryptography``) has those of ML-DSA and of HPKE with X-Wing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from tests.crypto.wycheproof import cases

from strongroom.audit import verify
from strongroom.audit._note import _FORM, Signer
from strongroom.crypto import SecretKey
from strongroom.errors import TamperedError
from strongroom.kms.recovery import RecoveryKey

PUBLISHED = Path(cryptography_vectors.__file__).parent
X_WING = 0x647A
HEAD = verify.Head("log.example", 1, bytes(32))


def known_answers(path: Path) -> Iterator[dict[str, str]]:
    """The blocks of a file of known answers, name -> value."""
    for block in path.read_text("utf-8").split("count = ")[1:]:
        yield dict(line.split(" = ", 1) for line in block.splitlines()[1:] if " = " in line)


def test_ed25519() -> None:
    """The verifier of checkpoints takes every valid signature of Wycheproof and no other one."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in cases("ed25519_test.json"):
        key = verify.VerifierKey("", b"\x01", b"", bytes.fromhex(group["publicKey"]["pk"]))
        message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
        if case["result"] == "valid":
            verify._verify(key, HEAD, message, signature)
        else:
            with pytest.raises(TamperedError):
                verify._verify(key, HEAD, message, signature)
        seen[case["result"]] += 1
    assert seen["valid"] > 50 and seen["invalid"] > 50


def test_ml_dsa_44() -> None:
    """From a published seed the signer of checkpoints has the published key; the verifier's key takes the
    published signature, and no other message with it."""
    count = 0
    for answer in known_answers(PUBLISHED / "asymmetric/MLDSA/kat_MLDSA_44_det_pure.rsp"):
        payload = msgspec.msgpack.encode((_FORM, bytes(32), bytes.fromhex(answer["xi"]), ()))
        public = bytes.fromhex(answer["pk"])
        text = Signer("log.example", payload).public_keys()[1]
        assert verify.parse_keys(text)[0].public == public
        key = verify._load(verify.parse_keys(text)[0].kind, public)
        message, context = bytes.fromhex(answer["msg"]), bytes.fromhex(answer["ctx"])
        signature = bytes.fromhex(answer["sm"])[: -len(message)]
        key.verify(signature, message, context)  # type: ignore[call-arg]
        with pytest.raises(InvalidSignature):
            key.verify(signature, message + b"!", context)  # type: ignore[call-arg]
        count += 1
    assert count >= 10


def test_the_recovery_key_is_x_wing() -> None:
    """From each published seed it has the published public key."""
    count = 0
    for vector in json.loads((PUBLISHED / "HPKE/hpke-pq-test-vectors.json").read_text("utf-8")):
        if vector["kem_id"] != X_WING:
            continue
        key = RecoveryKey(SecretKey.from_bytes(bytes.fromhex(vector["skRm"])))
        assert key.recipient._public == bytes.fromhex(vector["pkRm"])
        count += 1
    assert count == 2
