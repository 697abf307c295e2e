"""Clients with certificates, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.servers.served import Served

from strongroom.client._tls import client_context
from strongroom.identity import ClientAuthority, create_client_authority, new_request

AGENT = "spiffe://example.org/agents/support"


@dataclass(frozen=True)
class Holder:
    """A client with its files; ``serial`` in hexadecimal."""

    identity: str
    certificate: Path
    private_key: Path
    serial: str = ""

    @property
    def files(self) -> tuple[str, str]:
        return str(self.certificate), str(self.private_key)


def keep(directory: Path, name: str, key: str, pem: str, identity: str, serial: str = "") -> Holder:
    holder = Holder(identity, directory / f"{name}.pem", directory / f"{name}.key", serial)
    holder.certificate.write_text(pem)
    holder.private_key.write_text(key)
    holder.private_key.chmod(0o600)
    return holder


def issue(
    owner: Any, directory: Path, identity: str = AGENT, scope: str = "read-write", *grants: str, **more: Any
) -> Holder:
    """A certificate of the embedded authority for an identity that is let in by it."""
    key, request = new_request()
    info, pem = owner.certificates_issue(
        request, identity=identity, name="of a test", scope=scope, grants=list(grants or ("*",)), **more
    )
    name = identity.replace("/", "_").replace(":", "_")
    return keep(directory, name, key, pem, identity, info.serial)


def forge(directory: Path, identity: str, *, clock: Any = None, hours: float = 1) -> Holder:
    """A certificate of an authority that nobody trusts; with ``directory`` that of the store, a good one."""
    if not (directory / "client-ca.key").exists():
        create_client_authority(directory)
    key, request = new_request()
    signed = ClientAuthority(directory, clock=clock).sign(request, identity, hours)
    return keep(directory, f"forged{signed.serial:x}", key, signed.pem, identity, f"{signed.serial:x}")


def client(server: Served, holder: Holder | None = None, key: str | None = None) -> httpx.Client:
    """An HTTP client that shows a certificate, an API key, both or nothing."""
    files = () if holder is None else holder.files
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(
        base_url=server.url,
        verify=client_context(server.ca, *files),
        headers=headers,
        trust_env=False,
        timeout=30,
    )


def denials(owner: Any) -> list[tuple[str, str]]:
    """(action, reason) of the refusals in the audit log."""
    return [(e.action, e.reason) for e in owner.audit(limit=1000) if e.outcome == "denied"]
