"""A certificate revocation list in a file (RFC 5280, section 5), read again when the file changes.

It counts only when an authority that clients are checked against has signed it, and only until its
``nextUpdate``: after that nobody with a certificate is let in, because who was revoked is not known.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final

from cryptography import x509

from strongroom.errors import ConfigurationError

__all__ = ["RevocationFile"]

_LOOK_S: Final = 1.0
_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _List:
    issuer: str
    serials: frozenset[int]
    until_us: int


class RevocationFile:
    """The lists of one file, PEM (several may follow each other) or DER.

    Raises:
        ConfigurationError: the file is missing, damaged, or no authority of ``authorities`` has signed it.
    """

    def __init__(self, path: Path, authorities: Path) -> None:
        self._path = path
        self._authorities = authorities
        self._lock = Lock()
        self._looked = 0.0
        self._stamp = (0, 0)
        self._lists: tuple[_List, ...] = ()
        self._trouble: str | None = None
        self._read()

    def problem(self, issuer: str, serial: str, now_us: int) -> str | None:
        """Why a certificate is not taken; None when the list has nothing against it.

        A file that has become unreadable, and a list past its end, speak against every certificate.
        """
        self._look()
        if self._trouble is not None:
            return self._trouble
        for found in self._lists:
            if found.issuer != issuer:
                continue
            if now_us >= found.until_us:
                return "the revocation list is past its end"
            if int(serial, 16) in found.serials:
                return "the certificate is on the revocation list"
        return None

    def _look(self) -> None:
        if monotonic() - self._looked < _LOOK_S:
            return
        with self._lock:
            try:
                self._read()
                self._trouble = None
            except ConfigurationError as e:
                self._trouble = e.message

    def _read(self) -> None:
        self._looked = monotonic()
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp and self._trouble is None:
                return
            if stat.st_size > _BYTES_MAX:
                raise ConfigurationError("the revocation list is too large")
            raw = self._path.read_bytes()
            authorities = x509.load_pem_x509_certificates(self._authorities.read_bytes())
            self._lists = tuple(_checked(crl, authorities) for crl in _split(raw))
        except (OSError, ValueError):
            raise ConfigurationError("the revocation list cannot be read") from None
        self._stamp = stamp


def _split(raw: bytes) -> list[x509.CertificateRevocationList]:
    mark = b"-----BEGIN X509 CRL-----"
    if mark not in raw:
        return [x509.load_der_x509_crl(raw)]
    return [x509.load_pem_x509_crl(mark + part) for part in raw.split(mark)[1:]]


def _checked(crl: x509.CertificateRevocationList, authorities: list[x509.Certificate]) -> _List:
    signers = [a for a in authorities if a.subject == crl.issuer]
    if not any(crl.is_signature_valid(a.public_key()) for a in signers):  # type: ignore[arg-type]
        raise ConfigurationError("the revocation list was not signed by an authority for clients")
    end = crl.next_update_utc
    if end is None:
        raise ConfigurationError("the revocation list has no end (nextUpdate)")
    for entry in crl.extensions:
        if entry.critical:
            raise ConfigurationError("the revocation list is of a kind that is not known (delta, partial)")
    return _List(
        issuer=crl.issuer.rfc4514_string()[:256],
        serials=frozenset(entry.serial_number for entry in crl),
        until_us=int(end.astimezone(dt.UTC).timestamp()) * 1_000_000,
    )
