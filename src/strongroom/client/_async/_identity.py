"""The methods on who may come in: certificates of clients, tokens, elevations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from strongroom.client import _wire, _wire_identity
from strongroom.client._async._calls import AsyncCalls
from strongroom.model import ClientIdentity, ElevationInfo, Principal, PrincipalKind, Scope, TokenInfo


class AsyncIdentityCalls(AsyncCalls):
    """Who may come in, besides the holders of API keys."""

    async def whoami(self) -> Principal:
        """Who the caller is, if the credential is still good: its scope, its grants, what was lent to it."""
        return _wire_identity.principal(await self._send("GET", "/v1/whoami", repeatable=True))

    async def certificates_issue(
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

        ``request`` is a PKCS #10 request in PEM; the private key stays here.

        Raises:
            InvalidInputError: a value is not of its form. ConflictError: the identity is known already.
        """
        body = {
            "identity": identity,
            "name": name,
            "scope": scope,
            "grants": grants,
            "request": request,
            "hours": hours,
            "expires_at": expires_at,
            "kind": kind,
            "agent_id": agent_id,
            "labels": labels,
            "tenant": tenant,
        }
        raw = await self._send("POST", "/v1/certificates", _wire.encode(_wire.present(body)))
        return _wire_identity.certificate(raw)

    async def certificates_allow(
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
        """Let an identity in whose certificates another authority signs.

        Raises:
            As ``certificates_issue``.
        """
        body = {
            "identity": identity,
            "name": name,
            "scope": scope,
            "grants": grants,
            "expires_at": expires_at,
            "kind": kind,
            "agent_id": agent_id,
            "labels": labels,
            "tenant": tenant,
        }
        raw = await self._send("POST", "/v1/certificates", _wire.encode(_wire.present(body)))
        return _wire_identity.certificate(raw)[0]

    async def certificates_renew(
        self, request: str, *, identity: str | None = None, hours: float = 24.0
    ) -> tuple[ClientIdentity, str]:
        """A new certificate for a known identity: the caller's own, or for an admin a named one.

        Raises:
            CredentialNotFoundError: there is none that the caller may manage. ConflictError: it was revoked
            or has expired. InvalidInputError: the request is malformed.
        """
        body = _wire.present({"request": request, "identity": identity, "hours": hours})
        raw = await self._send("POST", "/v1/certificates:renew", _wire.encode(body))
        return _wire_identity.certificate(raw)

    async def certificates_list(self) -> Sequence[ClientIdentity]:
        """The identities that the caller may manage, with their newest certificate."""
        return _wire_identity.certificates(await self._send("GET", "/v1/certificates", repeatable=True))

    async def certificates_revoke(
        self, identity: str | None = None, *, serial: str | None = None
    ) -> ClientIdentity | None:
        """Revoke an identity (by id or name) with all its certificates, or one certificate by its serial.

        Raises:
            CredentialNotFoundError: there is no such identity that the caller may manage.
        """
        body = _wire.encode(_wire.present({"identity": identity, "serial": serial}))
        return _wire_identity.revoked(
            await self._send("POST", "/v1/certificates:revoke", body, repeatable=True)
        )

    # -- short-lived tokens -----------------------------------------------------------------------
    async def tokens_create(
        self,
        *,
        scope: Scope | str | None = None,
        grants: Sequence[str] | None = None,
        minutes: float = 15.0,
    ) -> tuple[TokenInfo, str]:
        """Mint a token of the caller's API key; its text is in the answer and nowhere else.

        Raises:
            AccessDeniedError: the caller has not come in with an API key, or the token would reach further.
            InvalidInputError: a value is not of its form.
        """
        body = _wire.encode(_wire.present({"scope": scope, "grants": grants, "minutes": minutes}))
        return _wire_identity.token(await self._send("POST", "/v1/tokens", body))

    # -- elevations -----------------------------------------------------------------------------------
    async def elevations_request(
        self, scope: Scope | str, grants: Sequence[str], reason: str, *, minutes: int = 60
    ) -> ElevationInfo:
        """Ask for a further right for a while; somebody else has to approve it within the hour.

        Raises:
            InvalidInputError: a value is not of its form. LimitExceededError: too many are waiting.
            AccessDeniedError: the caller has come in with a token.
        """
        body = _wire.encode({"scope": scope, "grants": grants, "reason": reason, "minutes": minutes})
        return _wire_identity.elevation(await self._send("POST", "/v1/elevations", body))

    async def elevations_approve(self, elevation_id: str) -> ElevationInfo:
        """Grant what was asked for, from now on for its minutes. Never one's own request.

        Raises:
            AccessDeniedError: the caller does not administer all that is asked for, or has asked itself.
            CredentialNotFoundError: there is no such elevation. ConflictError: it was decided already.
        """
        return await self._step("approve", elevation_id)

    async def elevations_deny(self, elevation_id: str) -> ElevationInfo:
        """Refuse what was asked for.

        Raises:
            As ``elevations_approve``.
        """
        return await self._step("deny", elevation_id)

    async def elevations_revoke(self, elevation_id: str) -> ElevationInfo:
        """End an elevation before its time, or withdraw a request; at once.

        Raises:
            CredentialNotFoundError: there is no such elevation. ConflictError: it is over.
        """
        return await self._step("revoke", elevation_id)

    async def elevations_list(self, *, all_states: bool = False) -> Sequence[ElevationInfo]:
        """Elevations that the caller has asked for or may decide: those that are open, or all."""
        params = {"all_states": "true" if all_states else "false"}
        return _wire_identity.elevations(
            await self._send("GET", "/v1/elevations", params=params, repeatable=True)
        )

    async def _step(self, name: str, elevation_id: str) -> ElevationInfo:
        body = _wire.encode({"id": elevation_id})
        return _wire_identity.elevation(await self._send("POST", f"/v1/elevations:{name}", body))
