"""Certificates of clients on REST and MCP: who gets in, who is refused, and what the audit log says of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.servers.mutual import AGENT, client, denials, forge, issue
from tests.servers.served import Served, served

import strongroom
from strongroom.config import AccessConfig, Config, ServerConfig
from strongroom.engine import Engine
from strongroom.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    CredentialNotFoundError,
    InvalidInputError,
    TransportError,
    UnauthenticatedError,
)
from strongroom.identity import create_client_authority, new_request
from strongroom.servers.serve import ServerThread, server_files

MEMORY = {"content": "prefers annual billing", "namespace": "company_a/support"}


def authority(directory: Path) -> Path:
    return directory.with_name(directory.name + ".keys") / "tls"


def make_authority(directory: Path) -> Path:
    tls = authority(directory)
    tls.parent.mkdir(mode=0o700)
    create_client_authority(tls)
    return tls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that takes certificates and keys."""
    directory = tmp_path_factory.mktemp("mutual") / "data"
    make_authority(directory)
    access = AccessConfig(certificate_tenant="path:1")
    with served(directory, server=ServerConfig(client_certificate="optional"), access=access) as out:
        yield out


@pytest.fixture
def files(server: Served, tmp_path: Path) -> Path:
    return tmp_path


def test_a_certificate_stands_for_the_scope_and_grants_of_its_identity(server: Served, files: Path) -> None:
    """Without any key the identity may do what it was let in for, there and nowhere else."""
    holder = issue(server.owner, files, AGENT, "read-write", "company_a/*")
    with client(server, holder) as http:
        assert http.post("/v1/memories", json=MEMORY).status_code == 201
        foreign = http.post("/v1/memories", json={**MEMORY, "namespace": "company_b/support"})
        assert foreign.status_code == 403
        assert http.get("/v1/audit").status_code == 403
    entry = next(e for e in server.owner.audit(limit=50) if e.action == "store" and e.outcome == "ok")
    assert entry.principal == next(c.id for c in server.owner.certificates_list() if c.identity == AGENT)
    assert dict(entry.details)["source"] == "127.0.0.1"


def test_mcp_takes_the_certificate_of_the_connection(server: Served, files: Path) -> None:
    holder = issue(server.owner, files, "spiffe://example.org/agents/mcp", "read-only", "company_a/*")
    headers = {"accept": "application/json, text/event-stream"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    with client(server, holder) as http:
        answer = http.post("/mcp", json=call, headers=headers)
        assert answer.status_code == 200 and "tools" in answer.json()["result"]
    with client(server) as http:
        assert http.post("/mcp", json=call, headers=headers).status_code == 401


def test_a_key_beside_a_certificate_decides_and_a_malformed_one_is_never_ignored(
    server: Served, files: Path
) -> None:
    """A bearer that is wrong must not fall back to the certificate of the connection."""
    holder = issue(server.owner, files, "dns:worker.example.org", "admin", "*")
    with client(server, holder, server.key("read-only", "company_a/*")) as http:
        assert http.post("/v1/memories", json=MEMORY).status_code == 403
    other_end = "0" if server.admin_key[-1] != "0" else "1"
    for wrong in ("nonsense", server.admin_key[:-1] + other_end, "x"):
        with client(server, holder, wrong) as http:
            assert http.get("/v1/stats").status_code == 401, wrong
    for other in ("Basic YWRtaW46YWRtaW4=", "Bearer", "bearerx y"):
        with client(server, holder) as http:
            answer = http.get("/v1/stats", headers={"authorization": other})
        assert answer.status_code == 401, "another scheme is not passed over in favour of the certificate"


def test_an_authority_that_is_not_ours_gets_nowhere_and_the_audit_log_tells(
    server: Served, tmp_path: Path
) -> None:
    """A certificate for a known identity, signed by a foreign authority, fails in the handshake."""
    issue(server.owner, tmp_path, "spiffe://example.org/agents/known")
    forged = forge(tmp_path / "foreign", "spiffe://example.org/agents/known")
    with client(server, forged) as http, pytest.raises(httpx.HTTPError):
        http.get("/v1/stats")
    server.engine.doors.watch.flush()
    assert any(a == "handshake" and "certificate" in r for a, r in denials(server.owner))


def test_a_good_certificate_that_names_nobody_is_refused_and_audited(server: Served) -> None:
    """Signed by the right authority is not enough: the identity has to be let in."""
    stranger = forge(authority(server.directory), "spiffe://example.org/agents/stranger")
    with client(server, stranger) as http:
        assert http.get("/v1/stats").status_code == 401
    assert ("authenticate", "no credential names an identity of the certificate") in denials(server.owner)


def test_an_expired_and_a_server_certificate_fail_in_the_handshake(server: Served, tmp_path: Path) -> None:
    """Past its time, or made for a server (serverAuth), a certificate of the right authority is useless."""
    issue(server.owner, tmp_path, "spiffe://example.org/agents/late")
    long_ago = lambda: dt.datetime.now(dt.UTC) - dt.timedelta(days=2)  # noqa: E731
    expired = forge(authority(server.directory), "spiffe://example.org/agents/late", clock=long_ago)
    with client(server, expired) as http, pytest.raises(httpx.HTTPError):
        http.get("/v1/stats")
    tls = authority(server.directory)
    with (
        httpx.Client(
            verify=strongroom.client._tls.client_context(server.ca, tls / "server.pem", tls / "server.key"),
            trust_env=False,
        ) as http,
        pytest.raises(httpx.HTTPError),
    ):
        http.get(server.url + "/v1/stats")


def test_revoking_an_identity_stops_an_open_connection_at_its_next_request(
    server: Served, files: Path
) -> None:
    """The connection stays up, and what comes over it is refused from that moment on."""
    holder = issue(server.owner, files, "spiffe://example.org/agents/revoked", "read-write", "company_a/*")
    with client(server, holder) as http, client(server, holder, server.admin_key) as with_key:
        assert http.get("/v1/stats").status_code == 200 and with_key.get("/v1/stats").status_code == 200
        server.owner.certificates_revoke(holder.identity)
        assert http.get("/v1/stats").status_code == 401
        assert with_key.get("/v1/stats").status_code == 401, "a good key does not save a revoked certificate"
    assert ("authenticate", "the identity of the certificate was revoked") in denials(server.owner)
    _, request = new_request()
    with pytest.raises(ConflictError):
        server.owner.certificates_renew(request, identity=holder.identity)
    with pytest.raises(ConflictError):  # and it is not let in a second time
        issue(server.owner, files, "spiffe://example.org/agents/revoked")


def test_revoking_one_certificate_leaves_the_next_one_of_the_identity(server: Served, files: Path) -> None:
    holder = issue(server.owner, files, "spiffe://example.org/agents/rotating", "read-only", "company_a/*")
    room = strongroom.connect(
        server.url, ca=server.ca, certificate=holder.certificate, private_key=holder.private_key
    )
    with room:
        key, request = new_request()
        info, pem = room.certificates_renew(request)  # its own, with its certificate alone
        server.owner.certificates_revoke(serial=holder.serial)
        with pytest.raises(UnauthenticatedError):
            room.stats()
    (files / "new.pem").write_text(pem)
    (files / "new.key").write_text(key)
    assert info.serial != holder.serial
    with strongroom.connect(
        server.url, ca=server.ca, certificate=files / "new.pem", private_key=files / "new.key"
    ) as room:
        assert room.stats().namespaces >= 0
        with pytest.raises((CredentialNotFoundError, AccessDeniedError)):
            room.certificates_renew(request, identity="dns:worker.example.org")


def test_an_admin_manages_only_what_its_grants_cover(server: Served, files: Path) -> None:
    """No certificate can be made that reaches further than its maker, nor another's be seen or revoked."""
    wide = issue(server.owner, files, "dns:wide.example.org", "admin", "*")
    _, request = new_request()
    with strongroom.connect(server.url, ca=server.ca, api_key=server.key("admin", "company_a/*")) as room:
        assert all(g.text.startswith("company_a/") for c in room.certificates_list() for g in c.grants)
        for scope, grants in (("admin", ["*"]), ("read-only", ["company_b/x"])):
            with pytest.raises(AccessDeniedError):
                room.certificates_issue(
                    request, identity="dns:x.example.org", name="x", scope=scope, grants=grants
                )
        with pytest.raises(CredentialNotFoundError):
            room.certificates_revoke(wide.identity)
        with pytest.raises(AccessDeniedError):
            room.certificates_revoke(serial=wide.serial)
        for theirs in ("dns:ours.example.org", "spiffe://example.org/company_b/x", "spiffe://example.org"):
            with pytest.raises(AccessDeniedError):  # a name that could be somebody else's
                room.certificates_allow(theirs, name="ours", scope="read-only", grants=["company_a/x"])
        made = room.certificates_allow(
            "spiffe://example.org/company_a/x", name="ours", scope="read-only", grants=["company_a/x"]
        )
        assert made.serial == "" and made.not_after is None
        assert room.certificates_revoke(made.id).revoked_at is not None
    writer = strongroom.connect(server.url, ca=server.ca, api_key=server.key("read-write", "*"))
    with writer, pytest.raises(AccessDeniedError):
        writer.certificates_list()


@pytest.mark.parametrize(
    "identity",
    ["", "agent", "spiffe://", "spiffe://UPPER/x", "spiffe://a/../b", "spiffe://a/b?x=1", "spiffe://a:1/x",
     "spiffe://a//b", "dns:", "dns:*.example.org", "dns:Upper.example.org", "https://a/b", "spiffe://ä/x"],
)  # fmt: skip
def test_malformed_identities_are_refused(server: Served, identity: str) -> None:
    _, request = new_request()
    with pytest.raises(InvalidInputError):
        server.owner.certificates_issue(request, identity=identity, name="x", scope="read-only", grants=["*"])


def test_requests_that_prove_no_possession_or_bring_a_weak_key_are_refused(server: Served) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    small = builder.sign(weak, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    _, good = new_request()
    raw = bytearray(x509.load_pem_x509_csr(good.encode()).public_bytes(Encoding.DER))
    raw[-1] ^= 1
    changed = "-----BEGIN CERTIFICATE REQUEST-----\n" + __import__("base64").b64encode(raw).decode()
    changed += "\n-----END CERTIFICATE REQUEST-----\n"
    for request in (small, changed, "", "nonsense", good.replace("M", "N", 3)):
        with pytest.raises(InvalidInputError):
            server.owner.certificates_issue(
                request, identity="dns:weak.example.org", name="x", scope="read-only", grants=["*"]
            )


def crl(tls: Path, serial: int | None, *, ends: dt.timedelta = dt.timedelta(days=1), ca: str = "client-ca"):
    key = load_pem_private_key((tls / f"{ca}.key").read_bytes(), None)
    issuer = x509.load_pem_x509_certificate((tls / f"{ca}.pem").read_bytes()).subject
    now = dt.datetime.now(dt.UTC)
    out = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(now - dt.timedelta(days=3))
    out = out.next_update(now + ends)
    if serial is not None:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        out = out.add_revoked_certificate(entry)
    return out.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_with_required_certificates_and_a_revocation_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No certificate, no connection; who is on the list is out, and so is everybody when it has ended."""
    monkeypatch.setattr("strongroom.identity._crl._LOOK_S", 0.0)
    directory = tmp_path / "data"
    tls = make_authority(directory)
    (tls / "list.pem").write_bytes(crl(tls, None))
    settings = ServerConfig(client_certificate="required", client_crl="tls/list.pem")
    with served(directory, server=settings) as server:
        holder = issue(server.owner, tmp_path)
        with client(server, None, server.admin_key) as http, pytest.raises(httpx.HTTPError):
            http.get("/v1/stats")
        with client(server, holder) as http:
            assert http.get("/v1/stats").status_code == 200
            (tls / "list.pem").write_bytes(crl(tls, int(holder.serial, 16)))
            assert http.get("/v1/stats").status_code == 401
            (tls / "list.pem").write_bytes(crl(tls, None, ends=-dt.timedelta(days=1)))
            assert http.get("/v1/stats").status_code == 401
            (tls / "list.pem").write_bytes(crl(tls, None))
            assert http.get("/v1/stats").status_code == 200
            (tls / "list.pem").write_bytes(crl(tls, None, ca="ca"))
            assert http.get("/v1/stats").status_code == 401, "a list that another authority has signed"
            (tls / "list.pem").unlink()
            assert http.get("/v1/stats").status_code == 401
        reasons = {r for _, r in denials(server.owner)}
        assert "the certificate is on the revocation list" in reasons
        assert "the revocation list is past its end" in reasons


@pytest.mark.parametrize("settings", [
    {"client_certificate": "maybe"},
    {"client_certificate": "optional"},  # there is no authority
    {"post_quantum": "always"},
    {"client_crl": "tls/none.pem"},
])  # fmt: skip
def test_a_server_does_not_start_with_settings_that_cannot_be_kept(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    from tests.servers.served import make_store

    config = make_store(tmp_path / "data", server=ServerConfig(**settings))
    engine = Engine.open(tmp_path / "data", worker=False)
    files = dict(zip(("certificate", "private_key"), server_files(tmp_path / "data", config), strict=True))
    try:
        with pytest.raises(ConfigurationError):
            ServerThread(engine, config, **files)
    finally:
        engine.close()


def test_a_client_says_what_is_wrong_with_its_own_files(server: Served, files: Path) -> None:
    holder = issue(server.owner, files, "dns:files.example.org")
    with pytest.raises(UnauthenticatedError):
        strongroom.connect(server.url, ca=server.ca)
    for pair in ((files / "none.pem", holder.private_key), (holder.certificate, server.ca)):
        with pytest.raises(ConfigurationError):
            strongroom.connect(server.url, ca=server.ca, certificate=pair[0], private_key=pair[1])
    with pytest.raises(ConfigurationError):
        strongroom.connect(server.url, ca=server.ca, private_key=holder.private_key)
    foreign = forge(files / "foreign", holder.identity)
    with (
        strongroom.connect(
            server.url, ca=server.ca, certificate=foreign.certificate, private_key=foreign.private_key
        ) as room,
        pytest.raises(TransportError),
    ):
        room.stats()


def test_the_default_takes_no_certificates() -> None:
    assert Config().server.client_certificate == Config().pgwire.client_certificate == "off"
