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
from strongroom.model import Field


class Identities:
    """Kept in step with the ledger by the registry, under the registry's lock."""

    def __init__(self) -> None:
        self._certificates: dict[str, tuple[CertificateCredential, int]] = {}  # by identity
        self._revoked: dict[str, Revocation] = {}  # by serial
        self._elevations: dict[str, tuple[ElevationRecord, int]] = {}
        self._requested: dict[str, set[str]] = {}  # by requester

    def apply(self, field: int, version: int, raw: bytes) -> None:
        """Take in one row of the system namespace; others are none of this one's business."""
        if field == Field.CERTIFICATE:
            credential = decode_certificate(raw)
            self._certificates[credential.identity] = (credential, version)
        elif field == Field.REVOCATION:
            revocation = decode_revocation(raw)
            self._revoked[revocation.serial] = revocation
        elif field == Field.ELEVATION:
            elevation = decode_elevation(raw)
            self._elevations[elevation.id] = (elevation, version)
            mine = self._requested.setdefault(elevation.requester, set())
            if elevation.decided_at_us is None or (elevation.granted and elevation.ended_at_us is None):
                mine.add(elevation.id)
            else:  # denied or revoked: each call of the requester looks at what may still be lent
                mine.discard(elevation.id)

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
        """Those that nobody has denied or revoked."""
        ids = self._requested.get(requester)
        return [self._elevations[i][0] for i in sorted(ids)] if ids else []
