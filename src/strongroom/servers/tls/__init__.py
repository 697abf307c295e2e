"""TLS of the listeners: TLS 1.3 alone, certificates of clients, post-quantum key exchange."""

from strongroom.identity import certificate_info, create_local_ca, renew_server_certificate
from strongroom.servers.tls._context import (
    CERTIFICATE_MODES,
    POST_QUANTUM_MODES,
    negotiated_group,
    renew_certificate,
    server_context,
)
from strongroom.servers.tls._openssl import HYBRID, hybrid_known

__all__ = [
    "CERTIFICATE_MODES",
    "HYBRID",
    "POST_QUANTUM_MODES",
    "certificate_info",
    "create_local_ca",
    "hybrid_known",
    "negotiated_group",
    "renew_certificate",
    "renew_server_certificate",
    "server_context",
]
