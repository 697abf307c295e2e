"""An ``ssl.SSLContext`` that runs on the OpenSSL inside ``cryptography`` instead of the interpreter's.

Python's own ``ssl`` module is built against the system's OpenSSL, which often knows no post-quantum key
exchange; the one that ``cryptography`` brings does. asyncio, and so uvicorn, reach TLS through
``SSLContext.wrap_bio`` alone, and that is what ``OpenSslContext`` overrides: bytes move between the
caller's ``ssl.MemoryBIO`` pair and a pyOpenSSL connection over memory.

    socket <-> asyncio SSLProtocol <-> incoming/outgoing MemoryBIO <-> TlsObject <-> SSL.Connection

The object keeps the contract of ``ssl.SSLObject`` for a server: want-read, end of file, close_notify both
ways, and errors of the ``ssl`` module; errors of pyOpenSSL never come out. It is for one event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL._util import lib as _lib

__all__ = ["CLASSICAL", "HYBRID", "OpenSslContext", "TlsObject", "hybrid_known"]

T = TypeVar("T")
HYBRID: Final = "X25519MLKEM768"
CLASSICAL: Final = ("X25519", "P-256", "P-384")
_RECORD_BYTES: Final = 16_384  # RFC 8446, section 5.1: what one record carries at most
_DRAIN_BYTES: Final = 65_536

Refused = Callable[[str], None]


def _set_groups(context: SSL.Context, groups: Sequence[str]) -> bool:
    """Offer these groups alone, in this order; False when this OpenSSL does not know them all.

    pyOpenSSL has no method for it, so this reaches for the function below; without that function the
    defaults of OpenSSL stay.
    """
    set_list = getattr(_lib, "SSL_CTX_set1_curves_list", None)
    handle = getattr(context, "_context", None)
    if set_list is None or handle is None:
        return False
    done: bool = set_list(handle, ":".join(groups).encode("ascii")) == 1
    if not done:
        getattr(_lib, "ERR_clear_error", lambda: None)()
    return done


def hybrid_known() -> bool:
    """Whether this runtime can exchange keys by X25519MLKEM768 and tell that it did."""
    return hasattr(SSL.Connection, "get_group_name") and _set_groups(
        SSL.Context(SSL.TLS_SERVER_METHOD), (HYBRID,)
    )


class TlsObject:
    """The server side of one connection; what ``ssl.SSLObject`` is for the interpreter's own OpenSSL."""

    def __init__(self, context: OpenSslContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self.context = context
        self.server_side = True
        self.server_hostname: str | None = None
        self.session = None
        self.session_reused = False
        self._incoming = incoming
        self._outgoing = outgoing
        self._connection = SSL.Connection(context.openssl, None)
        self._connection.set_accept_state()
        self._ended = False

    # -- the contract of ssl.SSLObject --------------------------------------------------------------
    def do_handshake(self) -> None:
        """One step of the handshake.

        Raises:
            ssl.SSLWantReadError: the peer has to say more. ssl.SSLError: it failed; the alert is in
            ``outgoing``.
        """
        try:
            self._call(self._connection.do_handshake)
            if self.context.hybrid_required and self.group() != HYBRID:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the key exchange is not post-quantum")
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as e:
            self.context.refused(e)
            raise

    def read(self, n: int = 1024, buffer: Any = None) -> Any:
        """At most ``n`` plain bytes, or how many were put into ``buffer``; none: the peer has closed.

        Raises:
            ssl.SSLWantReadError: there are none yet. ssl.SSLError: broken.
        """
        limit = min(n, _RECORD_BYTES)
        try:
            if buffer is None:
                return self._call(lambda: self._connection.recv(limit))
            size = min(limit, len(buffer)) if n > 0 else min(_RECORD_BYTES, len(buffer))
            return self._call(lambda: self._connection.recv_into(buffer, size))
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: Any) -> int:
        """Take plain bytes, all of them: asyncio copies what is left each time, which for an answer of many
        records would be the answer as often as it has records. How many they were."""
        view = memoryview(data)
        for start in range(0, len(view), _RECORD_BYTES):
            self._call(partial(self._connection.send, bytes(view[start : start + _RECORD_BYTES])))
        return len(view)

    def unwrap(self) -> None:
        """Say close_notify and wait for the peer's.

        Raises:
            ssl.SSLWantReadError: the peer has not said it yet. ssl.SSLError: broken.
        """

        def close() -> None:
            if self._connection.shutdown():
                return
            self._drain()
            if not self._connection.shutdown():  # the second call looks for the answer
                raise SSL.WantReadError

        self._call(close)

    def pending(self) -> int:
        return self._connection.pending()

    def version(self) -> str | None:
        name = self._connection.get_protocol_version_name()
        return name if name.startswith("TLS") else None

    def cipher(self) -> tuple[str, str, int] | None:
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_cipher_version() or "", self._connection.get_cipher_bits() or 0

    def compression(self) -> None:
        """None: there is no compression."""

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode("ascii") or None

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The verified certificate of the peer: DER, or a dictionary with as much as asyncio keeps."""
        found = self._connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            return None
        if binary_form:
            return found.public_bytes(Encoding.DER)
        return {"serialNumber": f"{found.serial_number:X}"}

    # -- what the interpreter's has not -------------------------------------------------------------
    def group(self) -> str | None:
        """The group of the key exchange, for example ``X25519MLKEM768``."""
        name = self._connection.get_group_name()
        return None if name is None else _display(name)

    # -- bytes ----------------------------------------------------------------------------------------
    def _call(self, step: Callable[[], T]) -> T:
        try:
            while True:
                self._feed()
                try:
                    return step()
                except SSL.WantReadError:
                    if not self._incoming.pending and (self._ended or not self._incoming.eof):
                        raise
        except SSL.WantReadError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the peer has to say more") from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the peer has closed") from None
        except SSL.SysCallError:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer is gone without closing") from None
        except SSL.Error as e:
            raise _translated(e) from None
        finally:
            self._drain()

    def _feed(self) -> None:
        data = self._incoming.read()
        if data:
            self._connection.bio_write(data)
        elif self._incoming.eof and not self._ended:
            self._ended = True
            self._connection.bio_shutdown()

    def _drain(self) -> None:
        with suppress(SSL.Error):  # want-read: nothing is left
            size = _DRAIN_BYTES
            while size == _DRAIN_BYTES:  # less than was asked for: that was all
                size = self._outgoing.write(self._connection.bio_read(_DRAIN_BYTES))


def _display(name: str) -> str:
    """OpenSSL gives some groups in lower case."""
    return {"x25519": "X25519", "x25519mlkem768": HYBRID, "secp256r1": "P-256", "secp384r1": "P-384"}.get(
        name.lower(), name
    )


def _translated(error: SSL.Error) -> ssl.SSLError:
    """The same failure as an error of the ``ssl`` module, with its ``reason`` in capitals."""
    parts = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = str(parts[0][-1]) if parts and parts[0] else "TLS failed"
    cls = ssl.SSLCertVerificationError if "certificate verify failed" in text else ssl.SSLError
    out = cls(ssl.SSL_ERROR_SSL, text)
    out.reason = text.upper().replace(" ", "_")
    return out


class OpenSslContext(ssl.SSLContext):
    """A server's TLS 1.3 context over the OpenSSL of ``cryptography``. Only ``wrap_bio`` serves.

    ``client_ca``: authorities for certificates of clients; ``certificate_required``: without one the
    handshake fails. ``on_refused`` is called with a short reason when a handshake fails.

    Raises:
        ssl.SSLError, OSError: a file cannot be used.
    """

    def __new__(cls, *_: Any, **__: Any) -> OpenSslContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        *,
        alpn: Sequence[str],
        hybrid_required: bool = False,
        client_ca: Path | None = None,
        certificate_required: bool = False,
        on_refused: Refused | None = None,
    ) -> None:
        super().__init__()
        # The base is never used for a connection; it is kept true to what is spoken.
        self.minimum_version = self.maximum_version = ssl.TLSVersion.TLSv1_3
        self.num_tickets = 0
        self.hybrid_required = hybrid_required
        self._on_refused = on_refused
        self._alpn, self._client_ca, self._required = tuple(alpn), client_ca, certificate_required
        self.renew(certificate, private_key)

    def renew(self, certificate: Path, private_key: Path) -> None:
        """Let handshakes that begin from now on use what the files hold, those of the authorities too.

        Raises:
            ssl.SSLError, OSError: a file cannot be used; all is as it was.
        """
        self.openssl = self._made(certificate, private_key, self._alpn, self._client_ca, self._required)

    def _made(
        self, certificate: Path, private_key: Path, alpn: Sequence[str], ca: Path | None, required: bool
    ) -> SSL.Context:
        made = SSL.Context(SSL.TLS_SERVER_METHOD)
        made.set_min_proto_version(SSL.TLS1_3_VERSION)
        made.set_max_proto_version(SSL.TLS1_3_VERSION)
        made.set_options(
            SSL.OP_NO_TICKET
            | SSL.OP_NO_COMPRESSION
            | SSL.OP_CIPHER_SERVER_PREFERENCE
            | SSL.OP_NO_RENEGOTIATION
        )
        made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        made.set_session_id(b"strongroom")
        groups = (HYBRID,) if self.hybrid_required else (HYBRID, *CLASSICAL)
        if not _set_groups(made, groups):
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the groups of the key exchange cannot be set")
        wanted = [name.encode("ascii") for name in alpn]
        made.set_alpn_select_callback(
            lambda _, offered: next((w for w in wanted if w in offered), SSL.NO_OVERLAPPING_PROTOCOLS)
        )
        try:
            made.use_certificate_chain_file(str(certificate))
            made.use_privatekey_file(str(private_key))
            made.check_privatekey()
            if ca is not None:
                made.load_verify_locations(str(ca))
                made.load_client_ca(str(ca).encode())
                needed = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0
                made.set_verify(SSL.VERIFY_PEER | needed)
        except SSL.Error as e:
            raise _translated(e) from None
        return made

    def refused(self, error: ssl.SSLError) -> None:
        """Tell the listener why a handshake failed."""
        if self._on_refused is not None:
            self._on_refused(str(error.args[-1])[:100])

    def wrap_bio(  # type: ignore[override]  # asyncio needs no more of it than TlsObject has
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: Any = None,
    ) -> TlsObject:
        if not server_side:
            raise ValueError("this context is for servers")
        return TlsObject(self, incoming, outgoing)

    def wrap_socket(self, *_: Any, **__: Any) -> Any:
        """Refused: the base class would serve with its own settings, without ours."""
        raise ValueError("this context serves over memory alone")
