"""Who a caller is, proved by other means than an API key: certificates of clients, tokens of a provider."""

from strongroom.identity._authority import (
    CLIENT_CA,
    CLIENT_HOURS_MAX,
    CertificateInfo,
    ClientAuthority,
    Issued,
    certificate_info,
    create_client_authority,
    create_local_ca,
    new_request,
    renew_server_certificate,
)
from strongroom.identity._crl import RevocationFile
from strongroom.identity._oidc import OidcVerifier, Person, looks_like_jwt
from strongroom.identity._peer import PeerCertificate, check_identity, check_tenant_rule, read_peer, tenant_by

__all__ = [
    "CLIENT_CA",
    "CLIENT_HOURS_MAX",
    "CertificateInfo",
    "ClientAuthority",
    "Issued",
    "OidcVerifier",
    "PeerCertificate",
    "Person",
    "RevocationFile",
    "certificate_info",
    "check_identity",
    "check_tenant_rule",
    "create_client_authority",
    "create_local_ca",
    "looks_like_jwt",
    "new_request",
    "read_peer",
    "renew_server_certificate",
    "tenant_by",
]
