"""The local certificate authorities: one for the server, one for clients.

``strongroom init`` makes an authority of its own (ECDSA P-256, ten years, path length 0) and a server
certificate (397 days) in ``DIR.keys/tls``; whoever brings certificates points the configuration at them.
Certificates of clients (hours) come from a second authority, whose key the running server needs: what it
signs says clientAuth alone, and nobody who trusts the server's authority trusts this one.
Profile: RFC 5280, RFC 9525, SPIFFE X.509-SVID; private keys are PKCS #8 in PEM with mode 0600.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.errors import ConfigurationError, InvalidInputError, StorageReadOnlyError

__all__ = [
    "CLIENT_CA",
    "CLIENT_HOURS_MAX",
    "CertificateInfo",
    "ClientAuthority",
    "certificate_info",
    "create_client_authority",
    "create_local_ca",
    "new_request",
    "renew_server_certificate",
]

CA_DAYS = 3652
SERVER_DAYS = 397
CLIENT_CA = "client-ca.pem"
CLIENT_CA_KEY = "client-ca.key"
CLIENT_HOURS_MAX = 24 * 30
_REQUEST_BYTES_MAX = 16 * 1024
_RSA_BITS_MIN = 2048
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_BACKDATE = dt.timedelta(minutes=5)  # clocks of clients that run slow
_DNS_NAME = re.compile(
    r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII | re.IGNORECASE,
)

Clock = Callable[[], dt.datetime]


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What ``doctor`` tells of a server certificate. Times are UTC."""

    subject: str
    hosts: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime


def create_local_ca(directory: Path, hosts: Sequence[str] = (), *, clock: Clock | None = None) -> None:
    """Make ``ca.pem``, ``ca.key``, ``server.pem`` and ``server.key`` in a directory (mode 0700).

    The server certificate names localhost, 127.0.0.1, ::1 and ``hosts`` (names or addresses).

    Raises:
        ConfigurationError: a host is neither a DNS name nor an address, or an authority is there already.
        StorageReadOnlyError: the directory cannot be written.
    """
    now = _now(clock)
    names = _subject_alternative_names(hosts)
    if (directory / "ca.key").exists():
        raise ConfigurationError(
            "there is a local certificate authority already", hint="renew the server certificate instead"
        )
    key, certificate = _make_authority(directory, "ca", "Strongroom local CA", now)
    _issue(directory, key, certificate, names, now)


def create_client_authority(directory: Path, *, clock: Clock | None = None) -> None:
    """Make ``client-ca.pem`` and ``client-ca.key`` in a directory.

    Raises:
        ConfigurationError: they are there already. StorageReadOnlyError: the directory cannot be written.
    """
    if (directory / CLIENT_CA_KEY).exists() or (directory / CLIENT_CA).exists():
        raise ConfigurationError("there is an authority for clients already")
    _make_authority(directory, "client-ca", "Strongroom client CA", _now(clock))


def renew_server_certificate(
    directory: Path, hosts: Sequence[str] = (), *, clock: Clock | None = None
) -> None:
    """Make a new server key and certificate under the authority that is there.

    Raises:
        ConfigurationError: a host is malformed, or the authority is missing, damaged or expired.
        StorageReadOnlyError: the directory cannot be written.
    """
    now = _now(clock)
    names = _subject_alternative_names(hosts)
    key, certificate = _load_authority(directory, "ca")
    if certificate.not_valid_after_utc <= now + dt.timedelta(days=1):
        raise ConfigurationError("the local certificate authority has expired", hint="make a new one")
    _issue(directory, key, certificate, names, now)


def certificate_info(path: Path) -> CertificateInfo:
    """Read the leaf certificate of a PEM file.

    Raises:
        ConfigurationError: it is missing or no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigurationError("the server certificate cannot be read") from None
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(n.value) for n in san)
    except x509.ExtensionNotFound:
        hosts = ()
    return CertificateInfo(
        certificate.subject.rfc4514_string(),
        hosts,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just made: PEM, and what the store keeps of it. Times are UTC."""

    pem: str
    serial: int
    not_before: dt.datetime
    not_after: dt.datetime


class ClientAuthority:
    """Signs certificates of clients. The key is read for each signature and not kept.

    Raises:
        ConfigurationError: the authority is missing, damaged or expired.
    """

    def __init__(self, directory: Path, *, clock: Clock | None = None) -> None:
        self._directory = directory
        self._clock = clock
        _load_authority(directory, "client-ca")

    def sign(self, request_pem: str, identity: str, hours: float) -> Issued:
        """A certificate for ``identity`` (``spiffe://...`` or ``dns:...``) and the key of a PKCS #10 request.

        Names in the request count for nothing; its signature proves possession of the key.

        Raises:
            InvalidInputError: the request is malformed, its signature wrong, its key too weak.
        """
        public_key = _requested_key(request_pem)
        now = _now(self._clock)
        key, authority = _load_authority(self._directory, "client-ca")
        end = min(now + dt.timedelta(hours=hours), authority.not_valid_after_utc)
        if end <= now:
            raise ConfigurationError("the authority for clients has expired", hint="make a new one")
        ski = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Strongroom client")]))
            .issuer_name(authority.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(identity)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
        return Issued(
            pem, certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc
        )


def new_request() -> tuple[str, str]:
    """A new P-256 key and a PKCS #10 request for it, both PEM; the key is PKCS #8, not encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _pem(key).decode("ascii"), request.public_bytes(Encoding.PEM).decode("ascii")


def _requested_key(pem: str) -> Any:
    if not isinstance(pem, str) or len(pem) > _REQUEST_BYTES_MAX:
        raise InvalidInputError("the certificate request is no text, or too long")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii", "replace"))
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInputError("not a certificate request", hint="a PKCS #10 request in PEM") from None
    if not valid:
        raise InvalidInputError("the certificate request was not signed by the key that it names")
    strong = (
        (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1))
        or isinstance(key, ed25519.Ed25519PublicKey)
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS_MIN)
    )
    if not strong:
        raise InvalidInputError(
            "the key of the certificate request is not of a kind that is taken",
            hint=f"ECDSA P-256 or P-384, Ed25519, or RSA of at least {_RSA_BITS_MIN} bits",
        )
    return key


def _general_name(identity: str) -> x509.GeneralName:
    if identity.startswith("dns:"):
        return x509.DNSName(identity[4:])
    return x509.UniformResourceIdentifier(identity)


def _make_authority(
    directory: Path, stem: str, name: str, now: dt.datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {os.urandom(4).hex()}")])
    certificate = (
        _builder(subject, subject, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(directory / f"{stem}.key", _pem(key))
        _write(directory / f"{stem}.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    except OSError:
        raise StorageReadOnlyError("the directory of the certificates cannot be written") from None
    return key, certificate


def _load_authority(directory: Path, stem: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = load_pem_private_key((directory / f"{stem}.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((directory / f"{stem}.pem").read_bytes())
    except (OSError, ValueError, TypeError):
        raise ConfigurationError(
            "the local certificate authority cannot be read",
            hint="strongroom certificates authority makes one for clients" if stem != "ca" else None,
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError("key and certificate of the local authority do not belong together")
    return key, certificate


def _issue(
    directory: Path,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    names: list[x509.GeneralName],
    now: dt.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Strongroom server")])
    ca_ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(subject, ca.subject, key.public_key(), now, SERVER_DAYS, latest=ca.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_ski), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM)
    try:
        _write_private(directory / "server.key", _pem(key))
        _write(directory / "server.pem", chain, 0o644)
    except OSError:
        raise StorageReadOnlyError("the directory of the certificates cannot be written") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
    *,
    latest: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    end = now - _BACKDATE + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end if latest is None else min(end, latest))
    )


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys([*LOCAL_HOSTS, *(h.strip("[]") for h in hosts)]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass
        if len(host) > 253 or not _DNS_NAME.fullmatch(host):
            raise ConfigurationError(f"{host[:64]!r} is neither a DNS name nor an address")
        names.append(x509.DNSName(host.lower()))
    return names


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, data: bytes) -> None:
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file as a whole; it is never there with a wider mode or half its bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)


def _now(clock: Clock | None) -> dt.datetime:
    return clock() if clock is not None else dt.datetime.now(dt.UTC)
