"""Routes over who may come in: the caller itself, certificates of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_identity as mi
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.wire import granted_out, principal_out

if TYPE_CHECKING:
    from strongroom.engine import Session
    from strongroom.model import ClientIdentity

_parse_new = parser(mi.NewCertificate)
_parse_renewal = parser(mi.RenewalOrder)
_parse_revocation = parser(mi.CertificateRevocation)


def identity(caller: Caller) -> APIRouter:
    """The routes for the caller and for certificates."""
    router = APIRouter(dependencies=caller.checks())

    @router.get("/v1/whoami", **route(mi.PrincipalOut, "Who the caller is", tag="identity"))
    async def whoami(request: Request) -> Response:
        return await caller.call(request, lambda s: principal_out(s.whoami()))

    @router.get("/v1/certificates", **route(mi.CertificatesOut, "List identities", tag="identity"))
    async def certificates(request: Request) -> Response:
        return await caller.call(
            request, lambda s: {"certificates": [granted_out(c) for c in s.certificates_list()]}
        )

    @router.post(
        "/v1/certificates",
        **route(
            mi.CertificateOut,
            "Let an identity in, and sign its first certificate",
            mi.NewCertificate,
            status=201,
            tag="identity",
        ),
    )
    async def create(request: Request) -> Response:
        return await caller.call_with(request, _parse_new, _create, status=201)

    @router.post(
        "/v1/certificates:renew",
        **route(mi.CertificateOut, "Sign a new certificate", mi.RenewalOrder, tag="identity"),
    )
    async def renew(request: Request) -> Response:
        def work(s: Session, o: mi.RenewalOrder) -> object:
            return _out(*s.certificates_renew(o.request, identity=o.identity, hours=o.hours))

        return await caller.call_with(request, _parse_renewal, work)

    @router.post(
        "/v1/certificates:revoke",
        **route(
            mi.CertificateRevokedOut,
            "Revoke an identity or a certificate, at once",
            mi.CertificateRevocation,
            tag="identity",
        ),
    )
    async def revoke(request: Request) -> Response:
        def work(s: Session, o: mi.CertificateRevocation) -> object:
            found = s.certificates_revoke(o.identity, serial=o.serial)
            return {"identity": None if found is None else granted_out(found)}

        return await caller.call_with(request, _parse_revocation, work)

    return router


def _create(s: Session, o: mi.NewCertificate) -> object:
    if o.request is None:
        allowed = s.certificates_allow(
            o.identity,
            name=o.name,
            scope=o.scope,
            grants=o.grants,
            expires_at=o.expires_at,
            kind=o.kind,
            agent_id=o.agent_id,
            labels=o.labels,
            tenant=o.tenant,
        )
        return _out(allowed, None)
    return _out(
        *s.certificates_issue(
            o.request,
            identity=o.identity,
            name=o.name,
            scope=o.scope,
            grants=o.grants,
            hours=o.hours,
            expires_at=o.expires_at,
            kind=o.kind,
            agent_id=o.agent_id,
            labels=o.labels,
            tenant=o.tenant,
        )
    )


def _out(identity: ClientIdentity, pem: str | None) -> object:
    return {"identity": granted_out(identity), "certificate": pem}
