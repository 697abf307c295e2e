"""Certificates of the local authority and the TLS context."""

import datetime as dt
import http.client
import socket
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from strongroom.errors import ConfigurationError, StorageReadOnlyError
from strongroom.servers.tls import (
    certificate_info,
    create_local_ca,
    renew_server_certificate,
    server_context,
)

NOW = dt.datetime.now(dt.UTC)


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.fixture
def tls(tmp_path):
    create_local_ca(tmp_path / "tls", ["memory.example.org", "10.1.2.3"])
    return tmp_path / "tls"


def test_the_server_certificate_verifies_for_all_its_names_under_the_web_pki_rules(tls):
    """An independent verifier (RFC 5280 as CABF applies it) accepts chain, names, key usage and lifetime."""
    ca, leaf = load(tls / "ca.pem"), load(tls / "server.pem")
    names = [x509.DNSName("localhost"), x509.DNSName("memory.example.org")]
    addresses = [
        x509.IPAddress(__import__("ipaddress").ip_address(a)) for a in ("127.0.0.1", "::1", "10.1.2.3")
    ]
    for name in [*names, *addresses]:
        verifier = (
            PolicyBuilder().store(Store([ca])).time(dt.datetime.now(dt.UTC)).build_server_verifier(name)
        )
        assert len(verifier.verify(leaf, [])) == 2
    stranger = PolicyBuilder().store(Store([ca])).build_server_verifier(x509.DNSName("example.com"))
    with pytest.raises(x509.verification.VerificationError):
        stranger.verify(leaf, [])


def test_the_profile_of_both_certificates(tls):
    ca, leaf = load(tls / "ca.pem"), load(tls / "server.pem")
    for certificate in (ca, leaf):
        assert isinstance(certificate.public_key().curve, ec.SECP256R1)
        assert certificate.signature_hash_algorithm.name == "sha256"
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.SERVER_AUTH]
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == own.digest
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 397
    assert (ca.not_valid_after_utc - ca.not_valid_before_utc).days == 3652


def test_private_keys_are_for_their_owner_alone(tls):
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tls.iterdir()} == {
        "ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644,
    }  # fmt: skip
    assert stat.S_IMODE(tls.stat().st_mode) == 0o700


def test_an_authority_is_never_overwritten(tls):
    before = (tls / "ca.key").read_bytes()
    with pytest.raises(ConfigurationError):
        create_local_ca(tls)
    assert (tls / "ca.key").read_bytes() == before


def test_renewal_keeps_the_authority_and_changes_key_and_certificate(tls):
    ca, key, leaf = ((tls / n).read_bytes() for n in ("ca.pem", "server.key", "server.pem"))
    renew_server_certificate(tls, ["other.example.org"])
    assert (tls / "ca.pem").read_bytes() == ca
    assert (tls / "server.key").read_bytes() != key and (tls / "server.pem").read_bytes() != leaf
    assert "other.example.org" in certificate_info(tls / "server.pem").hosts
    server_context(tls / "server.pem", tls / "server.key")


def test_a_server_certificate_does_not_outlive_its_authority(tmp_path):
    create_local_ca(tmp_path, clock=lambda: NOW - dt.timedelta(days=3400))
    renew_server_certificate(tmp_path)
    assert load(tmp_path / "server.pem").not_valid_after_utc == load(tmp_path / "ca.pem").not_valid_after_utc


def test_renewal_under_an_expired_or_foreign_authority_is_refused(tmp_path, tls):
    create_local_ca(tmp_path / "old", clock=lambda: NOW - dt.timedelta(days=4000))
    with pytest.raises(ConfigurationError):
        renew_server_certificate(tmp_path / "old")
    (tls / "ca.pem").write_bytes((tmp_path / "old" / "ca.pem").read_bytes())
    with pytest.raises(ConfigurationError):
        renew_server_certificate(tls)
    (tls / "ca.key").write_text("no key")
    with pytest.raises(ConfigurationError):
        renew_server_certificate(tls)


@pytest.mark.parametrize(
    "host", ["", "a b", "-x", "a..b", "a/b", "x" * 64, "ü.example", "*", "a.*.b", "1.2.3.4/8"]
)
def test_malformed_hosts_are_refused_before_anything_is_written(tmp_path, host):
    with pytest.raises(ConfigurationError):
        create_local_ca(tmp_path / "tls", [host])
    assert not (tmp_path / "tls").exists()


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageReadOnlyError):
        create_local_ca(tmp_path / "file" / "tls")


def test_the_context_refuses_keys_that_others_can_read_missing_ones_and_mismatches(tls, tmp_path):
    (tls / "server.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="read by others"):
        server_context(tls / "server.pem", tls / "server.key")
    (tls / "server.key").chmod(0o600)
    with pytest.raises(ConfigurationError):
        server_context(tls / "server.pem", tmp_path / "none")
    with pytest.raises(ConfigurationError):
        server_context(tls / "server.pem", tls / "ca.key")
    with pytest.raises(ConfigurationError):
        server_context(tls / "none", tls / "server.key")
    with pytest.raises(ConfigurationError):
        certificate_info(tls / "server.key")


def test_the_context_speaks_tls_1_3_alone(tls):
    context = server_context(tls / "server.pem", tls / "server.key")
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0


def handshake(server, version=None, name="localhost", ca=True):
    context = ssl.create_default_context(cafile=str(server.ca) if ca else None)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        context.wrap_socket(raw, server_hostname=name) as s,
    ):
        return s.version(), s.cipher()[0]


def test_a_connection_is_tls_1_3_with_an_aead(server):
    version, cipher = handshake(server)
    assert version == "TLSv1.3" and cipher in (
        "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
    )  # fmt: skip


def test_tls_1_2_is_refused(server):
    with pytest.raises(ssl.SSLError):
        handshake(server, ssl.TLSVersion.TLSv1_2)


def test_a_client_that_does_not_know_the_authority_or_asks_for_another_name_refuses(server):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ca=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, name="example.com")


def test_plain_http_gets_no_answer(server):
    """A client that forgets TLS learns nothing, and nothing of its request is served."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/healthz")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()
