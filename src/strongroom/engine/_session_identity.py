"""Operations on who may come in: certificates of clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from strongroom.engine import _certificates
from strongroom.engine._certificates import NewIdentity
from strongroom.engine._session_base import Operations
from strongroom.model import ClientIdentity, PrincipalKind, Scope


class IdentityOperations(Operations):
    """Who may come in, besides the holders of API keys."""

    def certificates_issue(
        self,
        request: str,
        *,
        identity: str,
        name: str,
        scope: Scope | str,
        grants: Sequence[str],
        hours: float = 24.0,
        expires_at: datetime | None = None,
        kind: PrincipalKind | str = PrincipalKind.AGENT,
        agent_id: str = "",
        labels: Sequence[str] = (),
    ) -> tuple[ClientIdentity, str]:
        """Let an identity in and sign its first certificate; with it comes the certificate in PEM.

        Args:
            request: a PKCS #10 request in PEM; only its key counts. The private key stays with the caller.
            identity: ``spiffe://trust.domain/path`` or ``dns:host.example.org``.
            hours: how long the certificate is valid, one minute to 30 days.
            expires_at: when the identity itself stops being taken.

        Raises:
            InvalidInputError: a value is not of its form. ConflictError: the identity is known already.
            ConfigurationError: there is no authority for clients.
        """
        wanted = NewIdentity(
            identity=identity,
            name=name,
            scope=scope,
            grants=grants,
            expires_at=expires_at,
            kind=kind,
            agent_id=agent_id,
            labels=labels,
        )
        return self._run("administer", lambda call: _certificates.issue(call, wanted, request, hours))

    def certificates_allow(
        self,
        identity: str,
        *,
        name: str,
        scope: Scope | str,
        grants: Sequence[str],
        expires_at: datetime | None = None,
        kind: PrincipalKind | str = PrincipalKind.AGENT,
        agent_id: str = "",
        labels: Sequence[str] = (),
    ) -> ClientIdentity:
        """Let an identity in whose certificates another authority signs (one of ``[server] client_ca``).

        Raises:
            As ``certificates_issue``.
        """
        wanted = NewIdentity(
            identity=identity,
            name=name,
            scope=scope,
            grants=grants,
            expires_at=expires_at,
            kind=kind,
            agent_id=agent_id,
            labels=labels,
        )
        return self._run("administer", lambda call: _certificates.allow(call, wanted))

    def certificates_renew(
        self, request: str, *, identity: str | None = None, hours: float = 24.0
    ) -> tuple[ClientIdentity, str]:
        """A new certificate for a known identity: the caller's own, or for an admin a named one.

        Raises:
            CredentialNotFoundError: there is none that the caller may manage. ConflictError: it was revoked
            or has expired. InvalidInputError: the request is malformed.
        """
        return self._run(
            "renew_certificate", lambda call: _certificates.renew(call, request, identity, hours)
        )

    def certificates_list(self) -> Sequence[ClientIdentity]:
        """The identities that the caller may manage, with their newest certificate."""
        return self._run("administer", _certificates.listed)

    def certificates_revoke(
        self, identity: str | None = None, *, serial: str | None = None
    ) -> ClientIdentity | None:
        """Revoke an identity (by id or name) with all its certificates, or one certificate by its serial.

        At once and for good, on open connections too. A serial that is not the newest of an identity
        takes the right over the whole store.

        Raises:
            CredentialNotFoundError: there is no such identity that the caller may manage.
        """
        return self._run("administer", lambda call: _certificates.revoke(call, identity, serial))
