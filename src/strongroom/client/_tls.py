"""The TLS context of a client: 1.3 or nothing, the certificate and its name checked."""

from __future__ import annotations

import ssl
from pathlib import Path

from strongroom.errors import ConfigurationError


def client_context(ca: str | Path | None) -> ssl.SSLContext:
    """``ca``: a PEM file of authorities to trust instead of the system's.

    Raises:
        ConfigurationError: the file is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            "the file of certificate authorities cannot be read",
            hint="it is tls/ca.pem in the keys directory",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
