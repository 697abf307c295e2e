"""The TLS 1.3 context of a listener: its certificate, its key exchange, certificates of clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from strongroom.errors import ConfigurationError
from strongroom.servers.tls._openssl import CLASSICAL, HYBRID, OpenSslContext, hybrid_known

__all__ = [
    "CERTIFICATE_MODES",
    "POST_QUANTUM_MODES",
    "negotiated_group",
    "renew_certificate",
    "server_context",
]

POST_QUANTUM_MODES: Final = ("off", "prefer", "require")
CERTIFICATE_MODES: Final = ("off", "optional", "required")

Refused = Callable[[str], None]


class _WatchedObject(ssl.SSLObject):
    """Tells the context of a handshake that failed."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as e:
            told = getattr(self.context, "on_refused", None)
            if told is not None:
                told((e.reason or "TLS failed").replace("_", " ").lower()[:100])
            raise


class _InterpreterContext(ssl.SSLContext):
    """The interpreter's own TLS, for ``post_quantum = "off"`` and where nothing better is there."""

    sslobject_class = _WatchedObject
    on_refused: Refused | None = None


def server_context(
    certificate: Path,
    private_key: Path,
    *,
    alpn: Sequence[str] = ("http/1.1",),
    post_quantum: str = "off",
    client_ca: Path | None = None,
    certificate_required: bool = False,
    on_refused: Refused | None = None,
) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 and nothing else.

    Early data is off and no session tickets are given, so that every connection has a key exchange of
    its own: X25519MLKEM768 where ``post_quantum`` is not ``off``, X25519, P-256 or P-384 unless it is
    ``require``. With ``client_ca`` clients are asked for a certificate of these authorities.

    Raises:
        ConfigurationError: a file is missing, unreadable, mismatched, or the key is open to others; or
            ``require`` on a runtime that knows no post-quantum exchange.
    """
    if post_quantum not in POST_QUANTUM_MODES:
        raise ConfigurationError("unknown post_quantum", hint="one of: " + ", ".join(POST_QUANTUM_MODES))
    _check_private_key(private_key)
    known = post_quantum != "off" and hybrid_known()
    if post_quantum == "require" and not known:
        raise ConfigurationError(
            f"this runtime cannot exchange keys by {HYBRID}",
            hint="install pyopenssl and a newer cryptography",
        )
    try:
        if known:
            return OpenSslContext(
                certificate,
                private_key,
                alpn=alpn,
                hybrid_required=post_quantum == "require",
                client_ca=_checked_ca(client_ca),
                certificate_required=certificate_required,
                on_refused=on_refused,
            )
        context = _InterpreterContext(ssl.PROTOCOL_TLS_SERVER)
        context.on_refused = on_refused
        _restrict(context, alpn)
        context.load_cert_chain(certificate, private_key)
        if _checked_ca(client_ca) is not None:
            context.verify_mode = ssl.CERT_REQUIRED if certificate_required else ssl.CERT_OPTIONAL
            context.load_verify_locations(client_ca)
    except (OSError, ssl.SSLError):
        raise ConfigurationError("certificate and private key of the server cannot be loaded") from None
    return context


def renew_certificate(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    """Serve whoever connects from now on with what the files hold now; connections that stand go on.

    Raises:
        ConfigurationError: a file is missing, unreadable, mismatched, or the key is open to others. The
            certificate of before is served on.
    """
    _check_private_key(private_key)
    try:
        if isinstance(context, OpenSslContext):
            context.renew(certificate, private_key)
        else:  # tried elsewhere first: a pair that does not fit would stay in one that is in use
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
            context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError):
        raise ConfigurationError("certificate and private key of the server cannot be loaded") from None


def negotiated_group(tls: Any) -> str | None:
    """The group of a connection's key exchange; None when the runtime cannot tell."""
    group = getattr(tls, "group", None)
    found = group() if callable(group) else None
    return found if isinstance(found, str) else None


def _restrict(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(list(alpn))
    set_groups = getattr(context, "set_groups", None)  # Python 3.15
    if set_groups is not None:
        set_groups(":".join(CLASSICAL))


def _check_private_key(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        raise ConfigurationError(
            "the private key of the server is missing", hint="strongroom --data DIR tls renew makes one"
        ) from None
    if mode & 0o077:
        raise ConfigurationError("the private key of the server can be read by others", hint="chmod 600 it")


def _checked_ca(path: Path | None) -> Path | None:
    """Raises: ConfigurationError: no authority stands in the file; everybody would be refused."""
    if path is None:
        return None
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        probe.load_verify_locations(path)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            "the authorities for client certificates (client_ca) cannot be loaded",
            hint="strongroom certificates authority makes one",
        ) from None
    if not probe.get_ca_certs():
        raise ConfigurationError("client_ca holds no certificate of an authority")
    return path
