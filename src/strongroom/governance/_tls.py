"""The certificate of the server: there, in time, for its names, with its key."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongroom.governance._case import Case
from strongroom.model import Finding, Severity

_SOON: Final = timedelta(days=30)
_RENEW: Final = "strongroom --data DIR tls renew"
_WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104  # compared with, never bound to


def check_tls(case: Case) -> Iterator[Finding]:
    """Certificate, private key and local authority."""
    if not case.certificate.exists() and not case.private_key.exists():
        yield Finding(Severity.WARNING, "tls_missing", "there is no certificate to serve with", "tls", _RENEW)
        return
    try:
        certificate = x509.load_pem_x509_certificate(case.certificate.read_bytes())
        key = load_pem_private_key(case.private_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        yield Finding(
            Severity.ERROR,
            "tls_unreadable",
            "certificate or private key is missing or cannot be read",
            "tls",
            _RENEW,
        )
        return
    if key.public_key() != certificate.public_key():
        yield Finding(
            Severity.ERROR,
            "tls_key_mismatch",
            "the private key is not that of the certificate",
            case.private_key.name,
            _RENEW,
        )
    yield from _times(case, certificate, case.certificate.name)
    yield from _names(case, certificate)
    yield from _authority(case, certificate)


def _times(case: Case, certificate: x509.Certificate, name: str) -> Iterator[Finding]:
    now = case.system.now()
    end = certificate.not_valid_after_utc
    if end <= now:
        yield Finding(Severity.ERROR, "tls_expired", f"it ended on {end:%Y-%m-%d}", name, _RENEW)
    elif end <= now + _SOON:
        yield Finding(Severity.WARNING, "tls_expiring", f"it ends on {end:%Y-%m-%d}", name, _RENEW)
    if certificate.not_valid_before_utc > now:
        begin = certificate.not_valid_before_utc
        yield Finding(
            Severity.ERROR,
            "tls_not_yet",
            f"it begins on {begin:%Y-%m-%d}",
            name,
            "set the clock, or renew it",
        )


def _names(case: Case, certificate: x509.Certificate) -> Iterator[Finding]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        given = {str(n.value).lower() for n in san if isinstance(n, x509.DNSName | x509.IPAddress)}
    except x509.ExtensionNotFound:
        given = set()
    server = case.config.server
    wanted = [h.strip("[]").lower() for h in server.allowed_hosts]
    if server.host not in _WILDCARDS:
        wanted.append(server.host.lower())
    missing = [h for h in dict.fromkeys(wanted) if not _covered(h, given)]
    if missing:
        yield Finding(
            Severity.WARNING,
            "tls_names",
            "the certificate does not name: " + ", ".join(missing),
            case.certificate.name,
            "strongroom --data DIR tls renew --host NAME",
        )


def _covered(host: str, given: set[str]) -> bool:
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        _, dot, rest = host.partition(".")
        return host in given or (bool(dot) and f"*.{rest}" in given)
    return host in given


def _authority(case: Case, certificate: x509.Certificate) -> Iterator[Finding]:
    path: Path = case.certificate.with_name("ca.pem")
    if not path.exists():
        return
    try:
        authority = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        yield Finding(
            Severity.WARNING, "tls_unreadable", "the authority's certificate cannot be read", path.name
        )
        return
    yield from _times(case, authority, path.name)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        yield Finding(
            Severity.WARNING,
            "tls_foreign",
            "the certificate was not issued by the authority beside it",
            case.certificate.name,
            "give clients the authority that did issue it",
        )
