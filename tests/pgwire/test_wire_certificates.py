"""Certificates of clients and the post-quantum key exchange on the Postgres wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from OpenSSL import SSL
from tests.pgwire.wired import Wired, wired
from tests.servers.mutual import Holder, denials, forge, issue

from strongroom.identity import create_client_authority
from strongroom.servers.tls import HYBRID


def keys(wire: Wired) -> Path:
    return wire.directory.with_name(wire.directory.name + ".keys") / "tls"


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    directory = tmp_path_factory.mktemp("certified") / "data"
    tls = directory.with_name("data.keys") / "tls"
    tls.parent.mkdir(mode=0o700)
    create_client_authority(tls)
    with wired(directory, client_certificate="required") as out:
        yield out


def dsn(wire: Wired, holder: Holder, user: str = "agent", **more: object) -> str:
    return (
        f"host=localhost hostaddr=127.0.0.1 port={wire.port} user={user} dbname=strongroom"
        f" sslmode=verify-full sslrootcert={wire.ca}"
        f" sslcert={holder.certificate} sslkey={holder.private_key} "
        + " ".join(f"{k}={v}" for k, v in more.items())
    )


def test_a_certificate_signs_in_without_a_password_and_sees_what_its_identity_may(
    wire: Wired, tmp_path: Path
) -> None:
    holder = issue(wire.owner, tmp_path, "spiffe://example.org/bi", "read-only", "company_a/*")
    with psycopg.connect(dsn(wire, holder)) as c:
        tenants = {n.split("/")[0] for (n,) in c.execute("SELECT DISTINCT namespace FROM memories")}
    assert tenants == {"company_a"}


def test_with_the_name_of_a_key_the_key_has_to_be_proved(wire: Wired, tmp_path: Path) -> None:
    """A certificate does not stand in for somebody else's key."""
    holder = issue(wire.owner, tmp_path, "spiffe://example.org/other", "read-only", "company_a/*")
    key = wire.key("read-only", "company_b/*")
    with psycopg.connect(dsn(wire, holder, wire.key_id(key), password=key)) as c:
        (name,) = c.execute("SELECT DISTINCT split_part(namespace, '/', 1) FROM memories").fetchone()
    assert name == "company_b"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(dsn(wire, holder, wire.key_id(key), password=wire.admin_key))


def test_revocation_reaches_an_open_connection(wire: Wired, tmp_path: Path) -> None:
    """At its next statement, whether the certificate signed in or stood beside a key."""
    holder = issue(wire.owner, tmp_path, "spiffe://example.org/revoked", "read-only", "company_a/*")
    by_key = dsn(wire, holder, wire.key_id(wire.admin_key), password=wire.admin_key)
    with psycopg.connect(dsn(wire, holder)) as one, psycopg.connect(by_key) as two:
        assert one.execute("SELECT 1").fetchone() == two.execute("SELECT 1").fetchone() == (1,)
        wire.owner.certificates_revoke(serial=holder.serial)
        for connection in (one, two):
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT count(*) FROM memories")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn(wire, holder))
    assert ("authenticate", "the certificate was revoked") in denials(wire.owner)


def test_none_a_foreign_and_an_unknown_certificate_do_not_get_in(wire: Wired, tmp_path: Path) -> None:
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        psycopg.connect(wire.dsn())
    issue(wire.owner, tmp_path, "spiffe://example.org/known", "read-only", "company_a/*")
    foreign = forge(tmp_path / "foreign", "spiffe://example.org/known")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn(wire, foreign))
    stranger = forge(keys(wire), "spiffe://example.org/stranger")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(dsn(wire, stranger, password="none"))
    wire.engine.doors.watch.flush()
    assert any(a == "handshake" for a, _ in denials(wire.owner))


@contextmanager
def secured(wire: Wired, holder: Holder, *, direct: bytes | None) -> Iterator[SSL.Connection]:
    """A client that has the hybrid group; ``direct``: TLS at once, for this protocol (ALPN; b"" for none)."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(wire.ca))
    context.use_certificate_chain_file(holder.files[0])
    context.use_privatekey_file(holder.files[1])
    if direct:
        context.set_alpn_protos([direct])
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as raw:
        if direct is None:
            raw.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
            assert raw.recv(1) == b"S"
        connection = SSL.Connection(context, raw)
        connection.setblocking(True)
        connection.set_connect_state()
        connection.do_handshake()
        yield connection


def sign_in(connection: SSL.Connection) -> bytes:
    parameters = b"\x00\x03\x00\x00user\x00agent\x00\x00"
    connection.sendall((len(parameters) + 4).to_bytes(4, "big") + parameters)
    return connection.recv(9)


@pytest.mark.parametrize("direct", [None, b"postgresql"], ids=["after an SSLRequest", "directly"])
def test_the_key_exchange_is_post_quantum_and_the_audit_log_says_so(
    wire: Wired, tmp_path: Path, direct: bytes | None
) -> None:
    """A client that knows X25519MLKEM768 gets it, whichever way its TLS begins."""
    identity = f"spiffe://example.org/pq/{'direct' if direct else 'asked'}"
    holder = issue(wire.owner, tmp_path, identity, "read-only", "company_a/*")
    with secured(wire, holder, direct=direct) as connection:
        assert connection.get_group_name() == HYBRID
        assert sign_in(connection) == b"R\x00\x00\x00\x08\x00\x00\x00\x00"
    who = next(c.id for c in wire.owner.certificates_list() if c.identity == identity)
    entries = [e for e in wire.owner.audit(limit=50) if e.principal == who]
    assert entries and all(dict(e.details).get("tls_group") == HYBRID for e in entries)
    assert 'group="X25519MLKEM768",surface="pgwire"' in wire.engine.metrics.text().decode()


@pytest.mark.parametrize("protocol", [b"", b"h2"])
def test_direct_tls_without_the_protocol_of_postgres_is_refused(
    wire: Wired, tmp_path: Path, protocol: bytes
) -> None:
    """So that nobody can lead a browser's request, or another protocol's, into a session (ALPACA)."""
    identity = f"spiffe://example.org/alpn/{protocol.decode() or 'none'}"
    holder = issue(wire.owner, tmp_path, identity, "read-only", "company_a/*")
    try:
        with secured(wire, holder, direct=protocol) as connection:
            answer = sign_in(connection)
    except SSL.Error:  # refused in the handshake, or closed before the error could be read
        answer = b"E"
    assert answer[:1] == b"E"
