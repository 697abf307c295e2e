"""What a client's certificate says of its holder.

Identities are text: ``spiffe://trust.domain/path`` (SPIFFE ID, from the URI name of the certificate) or
``dns:host.example.org``. A certificate with a SPIFFE ID has exactly one, and its DNS names then say
nothing about who it is (X.509-SVID, section 2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from strongroom.errors import ConfigurationError, InvalidInputError

__all__ = ["PeerCertificate", "check_identity", "check_tenant_rule", "read_peer", "tenant_by"]

IDENTITY_BYTES_MAX = 2048  # SPIFFE ID, section 2.3
_DNS_CHARACTERS_MAX = 253
_TENANT_RULE = re.compile(r"|trust-domain|path:[1-9][0-9]?", re.ASCII)
_NAMES_MAX = 32
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*", re.ASCII)
_DNS = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A certificate that a handshake has verified. Times are microseconds since the epoch, UTC.

    ``identities``: one SPIFFE ID, or the DNS names; empty: it names nobody. ``serial`` is hexadecimal,
    ``issuer`` the distinguished name, ``fingerprint`` the SHA-256 of the certificate in hexadecimal.
    """

    serial: str
    issuer: str
    fingerprint: str
    identities: tuple[str, ...]
    not_before_us: int
    not_after_us: int


def check_identity(text: object) -> str:
    """``text`` when it is an identity in its one form.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(text, str) and text.isascii() and len(text) <= IDENTITY_BYTES_MAX:
        if _is_spiffe(text):
            return text
        if text.startswith("dns:") and _is_dns(text[4:]):
            return text
    raise InvalidInputError(
        "not an identity",
        hint="spiffe://trust.domain/path or dns:host.example.org, the host in lower case",
    )


def check_tenant_rule(rule: str) -> str:
    """``rule`` when it is one that ``tenant_by`` knows.

    Raises:
        ConfigurationError: it is not.
    """
    if _TENANT_RULE.fullmatch(rule) is None:
        raise ConfigurationError(
            "[access] certificate_tenant is not known", hint='"trust-domain", "path:1" to "path:99", or ""'
        )
    return rule


def tenant_by(rule: str, identity: str) -> str:
    """The tenant that a SPIFFE ID names: its trust domain, or the n-th segment of its path. "" for none.

    Raises:
        ConfigurationError: the rule is not known.
    """
    if not check_tenant_rule(rule) or not identity.startswith("spiffe://"):
        return ""
    domain, *path = identity.removeprefix("spiffe://").split("/")
    if rule == "trust-domain":
        return domain
    place = int(rule.removeprefix("path:"))
    return path[place - 1] if place <= len(path) else ""


def read_peer(der: bytes) -> PeerCertificate:
    """Read a verified certificate.

    Raises:
        InvalidInputError: it cannot be read, or names its holder in a way that is not taken.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = _alternative_names(certificate)
        issuer = certificate.issuer.rfc4514_string()[:256]
    except ValueError:
        raise InvalidInputError("the client's certificate cannot be read") from None
    return PeerCertificate(
        serial=f"{certificate.serial_number:x}",
        issuer=issuer,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        identities=_identities(names),
        not_before_us=int(certificate.not_valid_before_utc.timestamp()) * 1_000_000,
        not_after_us=int(certificate.not_valid_after_utc.timestamp()) * 1_000_000,
    )


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _identities(names: x509.SubjectAlternativeName | None) -> tuple[str, ...]:
    if names is None:
        return ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if any(u.lower().startswith("spiffe:") for u in uris):
        if len(uris) != 1 or not _is_spiffe(uris[0]):
            raise InvalidInputError("the client's certificate has no proper SPIFFE ID")
        return (uris[0],)
    hosts = [h.lower() for h in names.get_values_for_type(x509.DNSName)]
    return tuple(dict.fromkeys(f"dns:{h}" for h in hosts if _is_dns(h)))[:_NAMES_MAX]


def _is_spiffe(text: str) -> bool:
    if _SPIFFE.fullmatch(text) is None or len(text) > IDENTITY_BYTES_MAX:
        return False
    return not any(part in (".", "..") for part in text.split("/")[3:])


def _is_dns(text: str) -> bool:
    return len(text) <= _DNS_CHARACTERS_MAX and _DNS.fullmatch(text) is not None
