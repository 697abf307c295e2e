"""Operations on who may come in: certificates of clients, short-lived tokens, elevations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from strongroom.engine import _certificates, _elevations, _tokens
from strongroom.engine._certificates import NewIdentity
from strongroom.engine._session_base import Operations
from strongroom.model import ClientIdentity, ElevationInfo, Principal, PrincipalKind, Scope, TokenInfo


class IdentityOperations(Operations):
    """Who may come in, besides the holders of API keys."""

    def whoami(self) -> Principal:
        """Who the caller is, if the credential is still good: its scope, its grants, what was lent to it."""
        return self._run("whoami", lambda call: call.principal)

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
        tenant: str | None = None,
    ) -> tuple[ClientIdentity, str]:
        """Let an identity in and sign its first certificate; with it comes the certificate in PEM.

        Args:
            request: a PKCS #10 request in PEM; only its key counts. The private key stays with the caller.
            identity: ``spiffe://trust.domain/path`` or ``dns:host.example.org``.
            hours: how long the certificate is valid, one minute to 30 days.
            expires_at: when the identity itself stops being taken.
            tenant: for policies; None: as ``[access] certificate_tenant`` reads it from the identity.

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
            tenant=tenant,
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
        tenant: str | None = None,
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
            tenant=tenant,
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

    # -- short-lived tokens -----------------------------------------------------------------------
    def tokens_create(
        self,
        *,
        scope: Scope | str | None = None,
        grants: Sequence[str] | None = None,
        minutes: float = 15.0,
    ) -> tuple[TokenInfo, str]:
        """Mint a token of the caller's API key; its text is in the answer and nowhere else.

        Args:
            scope, grants: what it carries, within those of the key; None: all of them.
            minutes: how long it lives, at most ``[access] token_minutes_max``.

        Raises:
            AccessDeniedError: the caller has not come in with an API key, or the token would reach further.
            InvalidInputError: a value is not of its form.
        """
        return self._run("mint_token", lambda call: _tokens.create(call, scope, grants, minutes))

    # -- elevations -----------------------------------------------------------------------------------
    def elevations_request(
        self, scope: Scope | str, grants: Sequence[str], reason: str, *, minutes: int = 60
    ) -> ElevationInfo:
        """Ask for a further right for a while; somebody else has to approve it within the hour.

        Raises:
            InvalidInputError: a value is not of its form. LimitExceededError: too many are waiting.
            AccessDeniedError: the caller is the owner, or has come in with a token.
        """
        return self._run("elevate", lambda call: _elevations.request(call, scope, grants, reason, minutes))

    def elevations_approve(self, elevation_id: str) -> ElevationInfo:
        """Grant what was asked for, from now on for its minutes. Never one's own request.

        Raises:
            AccessDeniedError: the caller does not administer all that is asked for, or has asked itself.
            CredentialNotFoundError: there is no such elevation. ConflictError: it was decided already.
        """
        return self._run("elevate", lambda call: _elevations.approve(call, elevation_id))

    def elevations_deny(self, elevation_id: str) -> ElevationInfo:
        """Refuse what was asked for.

        Raises:
            As ``elevations_approve``.
        """
        return self._run("elevate", lambda call: _elevations.deny(call, elevation_id))

    def elevations_revoke(self, elevation_id: str) -> ElevationInfo:
        """End an elevation before its time, or withdraw a request; at once.

        Raises:
            CredentialNotFoundError: there is no such elevation. ConflictError: it is over.
        """
        return self._run("elevate", lambda call: _elevations.revoke(call, elevation_id))

    def elevations_list(self, *, all_states: bool = False) -> Sequence[ElevationInfo]:
        """Elevations that the caller has asked for or may decide: those that are open, or all."""
        return self._run("elevate", lambda call: _elevations.listed(call, all_states))
