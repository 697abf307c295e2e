"""The TLS context of a client: 1.3 or nothing, the certificate and its name checked."""

from __future__ import annotations

import ssl
from pathlib import Path

from strongroom.errors import ConfigurationError


def client_context(
    ca: str | Path | None, certificate: str | Path | None = None, private_key: str | Path | None = None
) -> ssl.SSLContext:
    """``ca``: a PEM file of authorities to trust instead of the system's; the others: what to show.

    Raises:
        ConfigurationError: a file is missing or holds no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            "the file of certificate authorities cannot be read",
            hint="it is tls/ca.pem in the keys directory",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, private_key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError):
            raise ConfigurationError("certificate and private key of the client cannot be loaded") from None
    elif private_key is not None:
        raise ConfigurationError("a private key comes with its certificate")
    return context


def _no_password() -> str:
    """Refuses instead of asking on the terminal."""
    raise ValueError("the private key is encrypted")
