"""Certificates of a local authority, and the TLS 1.3 context of a server.

``strongroom init`` makes an authority of its own (ECDSA P-256, ten years, path length 0) and a server
certificate (397 days) in ``DIR.keys/tls``; whoever brings certificates points the configuration at them.
Profile: RFC 5280 and RFC 9525; private keys are PKCS #8 in PEM with mode 0600.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.errors import ConfigurationError, StorageReadOnlyError

__all__ = [
    "CertificateInfo",
    "certificate_info",
    "create_local_ca",
    "renew_server_certificate",
    "server_context",
]

CA_DAYS = 3652
SERVER_DAYS = 397
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
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Strongroom local CA {os.urandom(4).hex()}")])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(directory / "ca.key", _pem(key))
        _write(directory / "ca.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    except OSError:
        raise StorageReadOnlyError("the directory of the certificates cannot be written") from None
    _issue(directory, key, certificate, names, now)


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
    try:
        key = load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    except (OSError, ValueError, TypeError):
        raise ConfigurationError("the local certificate authority cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError("key and certificate of the local authority do not belong together")
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


def server_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 and nothing else.

    Early data is off and no session tickets are given, so that every connection has a key exchange of
    its own. Where the runtime can choose groups they are X25519, P-256 and P-384, led by
    X25519MLKEM768 when it knows it; elsewhere those of OpenSSL stay, all of which are sound.

    Raises:
        ConfigurationError: a file is missing, unreadable, mismatched, or the key is open to others.
    """
    try:
        mode = private_key.stat().st_mode
    except OSError:
        raise ConfigurationError(
            "the private key of the server is missing", hint="strongroom --data DIR init makes one"
        ) from None
    if mode & 0o077:
        raise ConfigurationError("the private key of the server can be read by others", hint="chmod 600 it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _choose_groups(context)
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError):
        raise ConfigurationError("certificate and private key of the server cannot be loaded") from None
    return context


def _choose_groups(context: ssl.SSLContext) -> None:
    set_groups = getattr(context, "set_groups", None)  # Python 3.15
    if set_groups is None:
        return
    for groups in ("X25519MLKEM768:X25519:P-256:P-384", "X25519:P-256:P-384"):
        try:
            set_groups(groups)
        except (ssl.SSLError, ValueError):
            continue
        return


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
