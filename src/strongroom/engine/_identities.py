"""What namespace 0 holds of callers that are no API keys: certificate credentials, revocations,
elevations.

A part of the registry's projection; ``Registry`` feeds it and writes for it.
"""

from __future__ import annotations

from strongroom.access import (
    CertificateCredential,
    ElevationRecord,
    Revocation,
    decode_certificate,
    decode_elevation,
    decode_revocation,
)
from strongroom.model import Field, SealedRecord


class Identities:
    """Kept in step with the ledger by the registry, under the registry's lock."""

    def __init__(self) -> None:
        self._certificates: dict[str, tuple[CertificateCredential, int]] = {}  # by identity
        self._revoked: dict[str, Revocation] = {}  # by serial
        self._elevations: dict[str, tuple[ElevationRecord, int]] = {}
        self._requested: dict[str, set[str]] = {}  # by requester

    def apply(self, row: SealedRecord, raw: bytes) -> None:
        """Take in one row of the system namespace; others are none of this one's business."""
        if row.field == Field.CERTIFICATE:
            credential = decode_certificate(raw)
            self._certificates[credential.identity] = (credential, row.version)
        elif row.field == Field.REVOCATION:
            revocation = decode_revocation(raw)
            self._revoked[revocation.serial] = revocation
        elif row.field == Field.ELEVATION:
            elevation = decode_elevation(raw)
            self._elevations[elevation.id] = (elevation, row.version)
            self._requested.setdefault(elevation.requester, set()).add(elevation.id)

    # -- certificates -------------------------------------------------------------------------------
    def certificate(self, identity: str) -> CertificateCredential | None:
        found = self._certificates.get(identity)
        return found[0] if found else None

    def certificate_version(self, identity: str) -> int:
        """0: there is none yet."""
        found = self._certificates.get(identity)
        return found[1] if found else 0

    def certificates(self) -> list[CertificateCredential]:
        return [c for c, _ in list(self._certificates.values())]

    def revoked(self, serial: str) -> Revocation | None:
        return self._revoked.get(serial)

    # -- elevations ---------------------------------------------------------------------------------
    def elevation(self, elevation_id: str) -> tuple[ElevationRecord, int] | None:
        """The record and the version of its row."""
        return self._elevations.get(elevation_id)

    def elevations(self) -> list[ElevationRecord]:
        return [e for e, _ in list(self._elevations.values())]

    def elevations_of(self, requester: str) -> list[ElevationRecord]:
        ids = self._requested.get(requester)
        return [self._elevations[i][0] for i in sorted(ids)] if ids else []
