"""TLS over bytes in memory: what came from the socket goes in, plain bytes come out, and the reverse.

PostgreSQL clients ask for TLS in plain bytes and then begin the handshake (SSLRequest), or begin it at
once (direct TLS, ALPN ``postgresql``). Working on memory lets both begin from one byte stream, and
shows whether anything was smuggled in before the handshake.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import ConfigurationError
from strongroom.servers.tls import negotiated_group, server_context

ALPN = "postgresql"
_READ_BYTES = 65_536


class TlsPipe:
    """One server side of TLS. ``outgoing()`` after every call holds what must go to the peer."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side=True)

    def feed(self, data: bytes) -> None:
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def handshake(self) -> bool:
        """One more step; True when it is done.

        Raises:
            ssl.SSLError: it failed; ``outgoing()`` may hold the alert for the peer.
        """
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes:
        """The plain bytes that are there; empty: none yet.

        Raises:
            ssl.SSLZeroReturnError: the peer closed. ssl.SSLError: broken.
        """
        parts: list[bytes] = []
        while True:
            try:
                part = self._ssl.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                if parts:
                    break
                raise
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._ssl.write(view) :]

    def close(self) -> None:
        """Say goodbye, as far as that is possible."""
        try:
            self._ssl.unwrap()
        except (ssl.SSLError, OSError):
            return

    def outgoing(self) -> bytes:
        return self._out.read()

    def selected_alpn(self) -> str | None:
        return self._ssl.selected_alpn_protocol()

    def version(self) -> str | None:
        return self._ssl.version()

    def group(self) -> str:
        """The group of the key exchange; empty when the runtime cannot tell."""
        return negotiated_group(self._ssl) or ""

    def peer_certificate(self) -> bytes | None:
        """The client's certificate in DER, when it showed one; the handshake has verified it."""
        return self._ssl.getpeercert(binary_form=True)


def make_context(
    certificate: Path,
    private_key: Path,
    client_ca: Path | None,
    *,
    post_quantum: str,
    on_refused: Callable[[str], None] | None = None,
) -> ssl.SSLContext:
    """A TLS 1.3 context for this surface; with ``client_ca`` it asks for a certificate of the client.

    Whether one is required is decided after the handshake, where the refusal can carry a SQLSTATE.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    return server_context(
        certificate,
        private_key,
        alpn=(ALPN,),
        post_quantum=post_quantum,
        client_ca=client_ca,
        on_refused=on_refused,
    )


def end_point_binding(certificate: Path) -> bytes:
    """The ``tls-server-end-point`` data of a server certificate (RFC 5929, section 4.1).

    Raises:
        ConfigurationError: the certificate cannot be read.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        raise ConfigurationError("the server certificate cannot be read") from None
    used = parsed.signature_hash_algorithm
    name = used.name if used is not None else "sha256"
    if name in ("md5", "sha1"):
        name = "sha256"
    return hashlib.new(name, parsed.public_bytes(Encoding.DER)).digest()


def certificate_name(der: bytes) -> str:
    """The subject of a client's certificate, for the log."""
    try:
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()[:256]
    except ValueError:
        return ""
