"""SCRAM-SHA-256 for API keys: the verifier made with a key, and the check of a proof (RFC 5802, RFC 7677).

The password is the text of the key, the user name its id. A key holds 256 random bits, so the salt and
the iterations are there for the protocol alone: nobody tries them out. The stored key and the server
key never leave the engine: a server hands in what was said and gets back the answer to send.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from strongroom import access
from strongroom.access import ScramVerifier
from strongroom.engine._vault import SYSTEM_NS
from strongroom.model import Authentication, Principal

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

ITERATIONS: Final = 4096
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_LABEL: Final = "scram-nobody"


@dataclass(frozen=True, slots=True)
class ScramOffer:
    """What the server says first about a user: salt (16 bytes) and iterations."""

    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class ScramProof:
    """Whose key it is about, the proof to ask at every operation, and the server's signature (32 bytes)."""

    caller: str
    proof: Callable[[], Principal | str]
    server_signature: bytes = field(repr=False)


def make_verifier(key_text: str, random_bytes: Callable[[int], bytes] = os.urandom) -> ScramVerifier:
    """The verifier of a new key; its text is needed, so old keys cannot get one."""
    salt = random_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", key_text.encode("ascii"), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramVerifier(
        salt=salt,
        iterations=ITERATIONS,
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", "sha256"),
    )


def _nobody(engine: Engine, user: str) -> ScramVerifier:
    """A verifier that no proof fits, always the same for a name, as a real one would be."""
    key = engine.vault.purpose_key(SYSTEM_NS, _LABEL)
    name = user.encode("utf-8", "replace")
    return ScramVerifier(
        salt=key.mac(b"salt" + name)[:_SALT_BYTES],
        iterations=ITERATIONS,
        stored_key=key.mac(b"stored" + name),
        server_key=key.mac(b"server" + name),
    )


def offer(engine: Engine, user: str) -> ScramOffer:
    """Salt and iterations for a user name; for a name that is no key, made up and steady."""
    engine.ensure_open()
    engine.registry.refresh()
    nobody = _nobody(engine, user)
    credential = engine.registry.credential(user)
    verifier = credential.scram if credential is not None and credential.scram is not None else nobody
    return ScramOffer(verifier.salt, verifier.iterations)


def examine(engine: Engine, user: str, message: bytes, proof: bytes) -> ScramProof:
    """Compare a client's proof with the verifier of the key ``user``, in constant time.

    Args:
        message: the AuthMessage of RFC 5802, section 3.
        proof: the ClientProof, 32 bytes.
    """
    engine.registry.refresh()
    nobody = _nobody(engine, user)
    credential = engine.registry.credential(user)
    known = credential.scram if credential is not None else None
    verifier = known if known is not None else nobody
    signature = hmac.digest(verifier.stored_key, message, "sha256")
    given = proof if len(proof) == _HASH_BYTES else bytes(_HASH_BYTES)
    client_key = bytes(a ^ b for a, b in zip(given, signature, strict=True))
    same = hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)
    same = same and len(proof) == _HASH_BYTES and known is not None
    answer = hmac.digest(verifier.server_key, message, "sha256")

    def prove() -> Principal | str:
        now = engine.registry.credential(user)
        if now is None:
            return "no key has this id"
        if known is None:
            return "the key has no SCRAM verifier"
        if not same or now.scram != known:
            return "the proof does not fit this key"
        decision = access.assess_standing(now, engine.now_us())
        if not decision.allowed:
            return decision.reason
        return replace(access.principal_of(now), authentication=Authentication.SCRAM)

    return ScramProof("unknown" if credential is None else user, prove, answer)
