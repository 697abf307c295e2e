"""The server side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as messages (RFC 5802, RFC 7677, RFC 5929).

The comparison of proofs is the engine's; here messages are taken apart and made.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field

from strongroom.servers.pgwire._errors import PgError

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
_BINDING_TYPE = "tls-server-end-point"
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{8,256}")
_MESSAGE_BYTES_MAX = 4_096


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """``header`` is the gs2-header as it was sent; ``bare`` the rest."""

    header: bytes
    bare: str
    nonce: str
    binds: bool


def _violation(text: str = "malformed SCRAM message") -> PgError:
    return PgError("08P01", text, fatal=True)


def read_client_first(mechanism: str, raw: bytes) -> ClientFirst:
    """Raises: PgError: 08P01 malformed; 28000 channel binding was stripped on the way, or is unknown."""
    text = _decoded(raw)
    parts = text.split(",", 2)
    if len(parts) != 3 or parts[1] != "":
        raise _violation()
    flag, bare = parts[0], parts[2]
    binds = flag.startswith("p=")
    if binds and flag != f"p={_BINDING_TYPE}":
        raise PgError("28000", "unsupported SCRAM channel-binding type", fatal=True)
    if flag == "y":
        raise PgError(
            "28000",
            "SCRAM channel binding negotiation error: the client thinks that the server has none",
            fatal=True,
        )
    if binds != (mechanism == PLUS) or (not binds and flag != "n"):
        raise _violation()
    fields = bare.split(",")
    if len(fields) < 2 or not fields[0].startswith("n=") or not fields[1].startswith("r="):
        raise _violation()
    nonce = fields[1][2:]
    if _NONCE.fullmatch(nonce) is None:
        raise _violation()
    return ClientFirst(f"{flag},,".encode(), bare, nonce, binds)


@dataclass(slots=True)
class Exchange:
    """One exchange after the client's first message."""

    first: ClientFirst
    salt: bytes
    iterations: int
    binding: bytes = field(repr=False)
    server_nonce: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    _server_first: str = ""

    def server_first(self) -> bytes:
        salt = base64.b64encode(self.salt).decode()
        self._server_first = f"r={self.first.nonce}{self.server_nonce},s={salt},i={self.iterations}"
        return self._server_first.encode()

    def read_client_final(self, raw: bytes) -> tuple[bytes, bytes]:
        """(AuthMessage, ClientProof).

        Raises:
            PgError: 08P01 malformed; 28000 the binding is that of another channel.
        """
        text = _decoded(raw)
        without_proof, mark, proof_text = text.rpartition(",p=")
        fields = without_proof.split(",")
        if not mark or len(fields) < 2 or not fields[0].startswith("c=") or not fields[1].startswith("r="):
            raise _violation()
        expected = self.first.header + (self.binding if self.first.binds else b"")
        if not hmac.compare_digest(_base64(fields[0][2:]), expected):
            raise PgError("28000", "SCRAM channel binding check failed", fatal=True)
        if not hmac.compare_digest(fields[1][2:], self.first.nonce + self.server_nonce):
            raise _violation()
        message = f"{self.first.bare},{self._server_first},{without_proof}"
        return message.encode(), _base64(proof_text)


def server_final(signature: bytes) -> bytes:
    return b"v=" + base64.b64encode(signature)


def _decoded(raw: bytes) -> str:
    if len(raw) > _MESSAGE_BYTES_MAX:
        raise _violation()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _violation() from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _violation() from None
