"""Who gets in: TLS, versions, certificates, SCRAM, key-as-password, limits."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import ssl
import struct
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.pgwire.raw import GSS_REQUEST, SSL_REQUEST, Raw, kinds, message, sqlstate, startup, text, tls
from tests.pgwire.wired import Wired, wired

from strongroom.config import PgwireConfig
from strongroom.errors import ConfigurationError, UnauthenticatedError, all_errors
from strongroom.servers.pgwire import SQLSTATE, _server
from strongroom.servers.pgwire._server import _checked
from strongroom.servers.pgwire._tls import end_point_binding


def test_a_plaintext_start_up_is_refused_with_28000(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.send(startup(user="x"))
        kind, body = raw.one()
        assert (kind, sqlstate(body)) == (b"E", "28000")
        assert raw.read() == b""


def test_gss_encryption_is_declined_and_tls_may_follow(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.send(GSS_REQUEST)
        assert raw.socket.recv(1) == b"N"
        raw.start_tls(tls(wire.ca))
        assert kinds(raw.sign_in(wire.admin_key))[-1] == "Z"


def test_bytes_smuggled_in_before_the_handshake_end_the_connection(wire: Wired) -> None:
    """CVE-2021-23214: what comes with the TLS request must not be taken for what comes after it."""
    with Raw(wire.port) as raw:
        raw.send(SSL_REQUEST + startup(user="x"))
        kind, body = raw.one()
        assert (kind, sqlstate(body)) == (b"E", "08P01")


def test_tls_1_2_is_refused(wire: Wired) -> None:
    with Raw(wire.port) as raw, pytest.raises(ssl.SSLError, match=r"(?i)version"):
        raw.start_tls(tls(wire.ca, maximum=ssl.TLSVersion.TLSv1_2))


def test_tls_may_begin_at_once_when_the_protocol_is_negotiated(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.socket = tls(wire.ca).wrap_socket(raw.socket, server_hostname="localhost")
        assert raw.socket.version() == "TLSv1.3"
        assert raw.socket.selected_alpn_protocol() == "postgresql"
        assert kinds(raw.sign_in(wire.admin_key))[-1] == "Z"


def test_tls_at_once_without_the_protocol_is_refused(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.socket = tls(wire.ca, alpn=False).wrap_socket(raw.socket, server_hostname="localhost")
        assert sqlstate(raw.one()[1]) == "08P01"


def test_another_major_version_is_refused_and_a_newer_minor_one_is_negotiated(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.send(startup(2 << 16, user="x"))
        assert sqlstate(raw.one()[1]) == "0A000"
    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.send(startup(3 << 16 | 9, user="x", **{"_pq_.new": "1"}))
        kind, body = raw.one()
        assert kind == b"v"
        assert struct.unpack("!Ii", body[:8]) == (3 << 16 | 2, 1)
        assert raw.one()[0] == b"R"


def test_protocol_3_2_has_a_long_cancel_key(wire: Wired) -> None:
    for version, length in ((3 << 16, 8), (3 << 16 | 2, 36)):
        with Raw(wire.port) as raw:
            raw.start_tls(tls(wire.ca))
            raw.send(startup(version, user="x", database="strongroom"))
            raw.one()
            raw.send(message(b"p", text(wire.admin_key)))
            found = dict(raw.until(b"Z"))
            assert len(found[b"K"]) == length


@pytest.mark.parametrize("user", ["anybody", "0123456789ab", "KEY"])
def test_a_wrong_key_is_refused_with_28P01_whoever_asks(wire: Wired, user: str) -> None:
    """As password for a name, by SCRAM for a key id, known or not: the same words and code."""
    import psycopg

    name = wire.key_id(wire.admin_key) if user == "KEY" else user
    other = wire.key("read-only", "company_a/*")
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(wire.dsn(other[:-12] + "A" * 12, user=name))
    assert f'password authentication failed for user "{name}"' in str(refused.value)


def test_refusals_are_in_the_audit_log(wire: Wired) -> None:
    import psycopg

    before = wire.owner.audit(limit=1)[-1].seq
    for user in ("anybody", wire.key_id(wire.admin_key), "0123456789ab"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(wire.dsn("wrong", user=user))
    found = [e for e in wire.owner.audit(after=before) if e.action == "authenticate"]
    assert [e.outcome for e in found] == ["denied"] * 3
    assert {e.surface for e in found} == {"pgwire"}
    assert "the proof does not fit this key" in {e.reason for e in found}


@pytest.mark.parametrize("binding", ["require", "prefer", "disable"])
def test_scram_with_and_without_channel_binding_signs_in(wire: Wired, binding: str) -> None:
    import psycopg

    key = wire.key("read-only", "company_a/*")
    with psycopg.connect(wire.dsn(key, channel_binding=binding, require_auth="scram-sha-256")) as c:
        assert c.execute("SELECT count(*) FROM memories").fetchone() == (54,)
        assert c.execute("SELECT current_user").fetchone() == (wire.key_id(key),)


def scram(wire: Wired, raw: Raw, key: str, *, flag: str, binding: bytes, user: str = "") -> bytes:
    """An exchange by hand, up to the server's answer to the proof."""
    raw.start_tls(tls(wire.ca))
    raw.send(startup(user=user or wire.key_id(key), database="strongroom"))
    kind, body = raw.one()
    assert struct.unpack("!I", body[:4])[0] == 10
    header = f"{flag},,"
    first = header + "n=,r=abcdefghijklmnop"
    name = "SCRAM-SHA-256-PLUS" if flag.startswith("p") else "SCRAM-SHA-256"
    raw.send(message(b"p", text(name) + struct.pack("!I", len(first)) + first.encode()))
    kind, body = raw.one()
    if kind == b"E":
        return body
    server_first = body[4:].decode()
    fields = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", key.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    bound = base64.b64encode(header.encode() + binding).decode()
    final = f"c={bound},r={fields['r']}"
    auth = f"n=,r=abcdefghijklmnop,{server_first},{final}"
    signature = hmac.digest(hashlib.sha256(client_key).digest(), auth.encode(), "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    raw.send(message(b"p", f"{final},p={proof}".encode()))
    kind, body = raw.one()
    if kind == b"R":
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = base64.b64encode(hmac.digest(server_key, auth.encode(), "sha256"))
        assert body[4:] == b"v=" + expected
    return body if kind == b"E" else b""


def test_a_binding_to_another_channel_is_refused(wire: Wired) -> None:
    right = end_point_binding(wire.ca.with_name("server.pem"))
    flag = "p=tls-server-end-point"
    with Raw(wire.port) as raw:
        assert scram(wire, raw, wire.admin_key, flag=flag, binding=right) == b""
    with Raw(wire.port) as raw:
        assert sqlstate(scram(wire, raw, wire.admin_key, flag=flag, binding=bytes(32))) == "28000"


def test_a_client_that_was_told_there_is_no_binding_is_refused(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        assert sqlstate(scram(wire, raw, wire.admin_key, flag="y", binding=b"")) == "28000"


def test_an_unknown_key_is_offered_a_salt_that_stays_the_same(wire: Wired) -> None:
    """Otherwise a second try would tell that the key does not exist."""
    one, two = wire.engine.scram_offer("0123456789ab"), wire.engine.scram_offer("0123456789ab")
    other = wire.engine.scram_offer("0123456789ac")
    assert one == two
    assert one.salt != other.salt
    with pytest.raises(UnauthenticatedError):
        wire.engine.authenticate_scram("0123456789ab", b"message", bytes(32), surface="test")


def test_a_revoked_key_ends_its_session_at_the_next_statement(wire: Wired) -> None:
    import psycopg

    for more in ({}, {"user": "anybody"}):
        key = wire.key("read-only", "company_a/*")
        with psycopg.connect(wire.dsn(key, **more), autocommit=True) as c:
            c.execute("SELECT 1", prepare=True)
            wire.owner.keys_revoke(wire.key_id(key))
            with pytest.raises(psycopg.OperationalError):
                c.execute("SELECT 1", prepare=True)
            assert c.broken


def test_a_revoked_key_gets_nothing_more_out_of_an_open_cursor(wire: Wired) -> None:
    """What a statement has found before the revocation stays where it is; the refusal is audited."""
    import psycopg

    wire.owner.store_many([{"content": f"memory {i}", "namespace": "company_a/cursor"} for i in range(50)])
    key = wire.key("read-only", "company_a/*")
    with psycopg.connect(wire.dsn(key)) as c:
        c.execute("DECLARE held CURSOR FOR SELECT content FROM memories WHERE namespace = 'company_a/cursor'")
        assert len(c.execute("FETCH 10 FROM held").fetchall()) == 10
        assert len(c.execute("FETCH 10 FROM held").fetchall()) == 10
        wire.owner.keys_revoke(wire.key_id(key))
        with pytest.raises(psycopg.OperationalError):
            c.execute("FETCH 10 FROM held")
        assert c.broken
    last = list(wire.owner.audit(limit=5))[-1]
    assert (last.outcome, last.principal) == ("denied", wire.key_id(key)) and "revoked" in last.reason


def test_a_foreign_database_is_refused_with_3D000(wire: Wired) -> None:
    import psycopg

    with pytest.raises(psycopg.OperationalError, match="no such database"):
        psycopg.connect(wire.dsn(dbname="other"))


def test_cancel_keys_that_are_guessed_do_nothing(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.send(struct.pack("!IIII", 16, 80877102, 1, 2))
        assert raw.read() == b""


def client_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """(CA, certificate, key) of a client."""
    now = dt.datetime.now(dt.UTC)

    def make(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, ca: bool
    ):
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )

    directory.mkdir(exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    paths = (directory / "client_ca.pem", directory / "client.pem", directory / "client.key")
    paths[0].write_bytes(make("clients", "clients", ca_key, ca_key, True).public_bytes(Encoding.PEM))
    paths[1].write_bytes(make("agent seven", "clients", key, ca_key, False).public_bytes(Encoding.PEM))
    paths[2].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[2].chmod(0o600)
    return paths


def test_mutual_tls_takes_certificates_of_its_authority_alone(tmp_path: Path) -> None:
    import psycopg

    ca, certificate, key = client_certificate(tmp_path / "mine")
    _, foreign, foreign_key = client_certificate(tmp_path / "foreign")
    settings = {"client_certificate": "required", "client_ca": str(ca)}
    with wired(tmp_path / "data", **settings) as wire:
        with psycopg.connect(wire.dsn(sslcert=certificate, sslkey=key)) as c:
            assert c.execute("SELECT 1").fetchone() == (1,)
        assert any(line.get("certificate") == "CN=agent seven" for line in wire.log_lines())
        with pytest.raises(psycopg.OperationalError, match="requires a valid client certificate"):
            psycopg.connect(wire.dsn())
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(wire.dsn(sslcert=foreign, sslkey=foreign_key))


def test_the_start_up_time_and_the_number_of_connections_are_bounded(tmp_path: Path) -> None:
    import psycopg

    settings = {"startup_timeout_ms": 400, "connections_max": 2, "starting_max": 3, "idle_timeout_ms": 0}
    with wired(tmp_path / "data", **settings) as wire:
        with Raw(wire.port) as raw:
            assert raw.read() == b""  # says nothing, and is let go
        one, two = psycopg.connect(wire.dsn()), psycopg.connect(wire.dsn())
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(wire.dsn())
        one.close()
        deadline = time.monotonic() + 10
        while True:  # the seat is free again, soon
            try:
                psycopg.connect(wire.dsn()).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
        two.close()


def test_an_idle_session_is_ended_with_57P05(tmp_path: Path) -> None:
    with wired(tmp_path / "data", idle_timeout_ms=300) as wire, Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.sign_in(wire.admin_key)
        kind, body = raw.one()
        assert (kind, sqlstate(body)) == (b"E", "57P05")


def test_stopping_tells_idle_sessions_57P01(tmp_path: Path) -> None:
    with wired(tmp_path / "data") as wire, Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.sign_in(wire.admin_key)
        wire.wire.stop()
        kind, body = raw.one()
        assert (kind, sqlstate(body)) == (b"E", "57P01")


def test_scram_alone_and_binding_alone_can_be_demanded(tmp_path: Path) -> None:
    import psycopg

    settings = {"authentication": "scram", "channel_binding_required": True}
    with wired(tmp_path / "data", **settings) as wire:
        psycopg.connect(wire.dsn(channel_binding="require")).close()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(wire.dsn(channel_binding="disable"))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wire.dsn(user="anybody"))


@pytest.mark.parametrize(
    "settings",
    [
        {"authentication": "trust"},
        {"client_certificate": "maybe"},
        {"channel_binding_required": True},
        {"connections_max": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        _checked(PgwireConfig(**settings))  # type: ignore[arg-type]


def test_every_error_has_a_sqlstate() -> None:
    assert set(all_errors()) <= set(SQLSTATE)
    assert all(len(code) == 5 for code in SQLSTATE.values())


def test_no_key_and_no_statement_is_in_the_log(wire: Wired) -> None:
    import psycopg

    with psycopg.connect(wire.dsn()) as c:
        c.execute("SELECT 'a very private word'")
    assert wire.log.getvalue()
    for secret in (wire.admin_key[20:], "private word", "sr_live_"):
        assert secret not in wire.log.getvalue()


def test_strangers_who_say_nothing_keep_nobody_from_signing_in(tmp_path: Path) -> None:
    """More silent connections than may be starting at once: the one that has tried longest makes room."""
    import psycopg

    with wired(tmp_path / "data", starting_max=4) as wire:
        silent = [Raw(wire.port) for _ in range(12)]
        try:
            psycopg.connect(wire.dsn()).close()
            assert silent[0].read() == b""
            psycopg.connect(wire.dsn()).close()
        finally:
            for raw in silent:
                raw.socket.close()


@pytest.mark.parametrize("enough", [60.0, 0.0])
def test_who_is_signing_in_stays_while_others_say_nothing_unless_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: float
) -> None:
    """Silent newcomers push each other out, not the older one whose TLS is done; after its time, that too."""
    monkeypatch.setattr(_server, "_SIGN_IN_S", enough)
    with wired(tmp_path / "data", starting_max=4) as wire, Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        silent = [Raw(wire.port) for _ in range(12)]
        try:
            assert silent[0].read() == b""
            if enough:
                assert kinds(raw.sign_in(wire.admin_key))[-1] == "Z"
            else:
                assert raw.read() == b""
        finally:
            for other in silent:
                other.socket.close()
