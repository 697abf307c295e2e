"""What goes in and out on certificates of clients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from strongroom.model import Authentication, Scope
from strongroom.servers.rest import _models as m

Hours = Annotated[float, Field(gt=0, description="How long the certificate is valid, at most 720.")]
Request = Annotated[str, Field(max_length=16_384, description="A PKCS #10 request in PEM.")]
Kind = Literal["agent", "person", "service"]


class NewCertificate(m.Input):
    """An identity to let in; with ``request`` its first certificate is signed."""

    identity: Annotated[str, Field(examples=["spiffe://example.org/agents/support"], max_length=2048)]
    name: str
    scope: Annotated[Scope, Field(strict=False)]
    grants: list[m.Pattern]
    request: Request | None = None
    hours: Hours = 24.0
    expires_at: m.Time | None = None
    kind: Kind = "agent"
    agent_id: str = ""
    labels: list[str] = []
    tenant: str | None = None


class RenewalOrder(m.Input):
    """A new certificate; without ``identity`` the caller's own."""

    request: Request
    identity: str | None = None
    hours: Hours = 24.0


class CertificateRevocation(m.Input):
    """An identity by its id or text, or one certificate by its serial number: one of the two."""

    identity: str | None = None
    serial: Annotated[str, Field(max_length=128)] | None = None


class IdentityOut(m.Output):
    """An identity that certificates may carry, with its newest certificate."""

    id: str
    name: str
    identity: str
    scope: Scope
    grants: list[str]
    kind: Kind
    agent_id: str
    labels: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    serial: str
    not_after: AwareDatetime | None
    tenant: str


class CertificateOut(m.Output):
    """``certificate`` is PEM, and null when only the identity was let in."""

    identity: IdentityOut
    certificate: str | None


class CertificatesOut(m.Output):
    """The identities that the caller may manage."""

    certificates: list[IdentityOut]


class CertificateRevokedOut(m.Output):
    """``identity`` is null for a certificate whose identity is not known here."""

    identity: IdentityOut | None


class NewToken(m.Input):
    """A token of the caller's key; what is left out is as wide as the key."""

    scope: Annotated[Scope, Field(strict=False)] | None = None
    grants: list[m.Pattern] | None = None
    minutes: Annotated[float, Field(gt=0)] = 15.0


class TokenOut(m.Output):
    """A token without its text."""

    token_id: str
    key_id: str
    scope: Scope
    grants: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime


class NewTokenOut(m.Output):
    """``access_token`` is shown this once."""

    token: TokenOut
    access_token: str


class ElevationRequest(m.Input):
    """A further right for a while, and why."""

    scope: Annotated[Scope, Field(strict=False)]
    grants: list[m.Pattern]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    minutes: Annotated[int, Field(ge=1)] = 60


class ElevationChoice(m.Input):
    """Which elevation."""

    id: Annotated[str, Field(min_length=1, max_length=64)]


class ElevationOut(m.Output):
    """A time-boxed further right with its reason; the names are principals."""

    id: str
    state: Literal["pending", "lapsed", "denied", "active", "expired", "revoked"]
    requester: str
    scope: Scope
    grants: list[str]
    reason: str
    minutes: int
    requested_at: AwareDatetime
    decided_at: AwareDatetime | None
    decided_by: str
    expires_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    ended_by: str


class ElevationsOut(m.Output):
    """Elevations that the caller has asked for or may decide."""

    elevations: list[ElevationOut]


class LentOut(m.Output):
    """What an elevation lends for a while."""

    id: str
    scope: Scope
    grants: list[str]


class PrincipalOut(m.Output):
    """The caller: what its credential allows, and the attributes that policies see."""

    id: str
    name: str
    scope: Scope
    grants: list[str]
    is_owner: bool
    kind: Kind
    tenant: str
    agent_id: str
    labels: list[str]
    authentication: Authentication
    elevations: list[LentOut]
