"""Bearer tokens of an OpenID Connect provider: who gets in by which role, and every forgery that is known."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from joserfc import jwk, jwt
from tests.servers.mutual import denials
from tests.servers.served import Served, served

import strongroom
from strongroom.config import OidcConfig, RoleConfig
from strongroom.errors import AccessDeniedError, ConfigurationError, UnauthenticatedError
from strongroom.identity import OidcVerifier, create_local_ca
from strongroom.model import Scope

ISSUER = "https://login.example.org/realms/main"
AUDIENCE = "https://memory.example.org/mcp"
ROLES = {
    "admins": RoleConfig(values=("strongroom-admins",), scope="admin", grants=("*",)),
    "analysts": RoleConfig(values=("analysts", "bi"), scope="read-only", grants=("company_a/*",)),
    "guests": RoleConfig(values=("guests",), grants=("company_a/*",), tenant="company_a"),
}
KEYS = {
    "rsa": jwk.RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ec": jwk.ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256", "use": "sig"}),
    "ed": jwk.OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
STRANGER = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})


def key_set(*names: str) -> str:
    return json.dumps({"keys": [KEYS[n].as_dict(private=False) for n in names or KEYS]})


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    out = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u-4711", "name": "Ada", "groups": ["analysts"],
        "iat": now, "exp": now + 300, **changes,
    }  # fmt: skip
    return {k: v for k, v in out.items() if v is not None}


def sign(name: str = "rsa", alg: str = "RS256", key: Any = None, header: Any = None, **changes: Any) -> str:
    head = {"alg": alg, "kid": name, **(header or {})}
    return jwt.encode(head, claims(**changes), KEYS[name] if key is None else key, algorithms=[alg])


def signed_raw(header: dict[str, Any], body: dict[str, Any]) -> str:
    """A token whose signature is good, with whatever in its header."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}"
    private = serialization.load_pem_private_key(KEYS["rsa"].as_pem(private=True), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return f"{text}.{b64(private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw_token(header: dict[str, Any], body: dict[str, Any], signature: bytes) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}.{b64(signature)}"


def config(**changes: Any) -> OidcConfig:
    return OidcConfig(
        **{"issuer": ISSUER, "audience": (AUDIENCE,), "jwks_file": "jwks.json",
           "algorithms": ("RS256", "ES256", "EdDSA"), **changes}
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("oidc") / "data"
    keys = directory.with_name("data.keys")
    keys.mkdir(mode=0o700)
    (keys / "jwks.json").write_text(key_set())
    from strongroom.config import GuardConfig

    with served(
        directory,
        oidc=config(tenant_claim="org"),
        roles=ROLES,
        guard=GuardConfig(failures_of_credential=0, failures_of_source=0),
    ) as out:
        yield out


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864; providers still sign with it
@pytest.mark.parametrize(("name", "alg"), [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")])
def test_a_person_gets_in_by_the_role_that_the_claims_give(server: Served, name: str, alg: str) -> None:
    """With the scope and grants of the role, under a principal of their own in the audit log."""
    with strongroom.connect(server.url, api_key=sign(name, alg), ca=server.ca) as room:
        room.stats()
        with pytest.raises(AccessDeniedError):
            room.store("not for readers", namespace="company_a/x")
        with pytest.raises(AccessDeniedError):
            room.list(namespaces=["company_b/x"])
    entry = next(e for e in reversed(server.owner.audit(limit=20)) if e.action == "stats")
    assert entry.principal == "oidc:u-4711" and dict(entry.details)["role"] == "analysts"


def test_the_first_role_in_the_order_of_the_configuration_counts(server: Served) -> None:
    session = server.engine.authenticate(sign(groups=["bi", "strongroom-admins"]))
    who = session.whoami()
    assert who.scope is Scope.ADMIN and who.name == "Ada" and who.kind == "person"
    assert server.engine.authenticate(sign(groups="bi other")).whoami().scope is Scope.READ_ONLY
    assert session.keys_list() is not None
    with pytest.raises(AccessDeniedError):
        session.tokens_create()


def test_the_tenant_comes_from_the_role_or_else_from_the_claim(server: Served, tmp_path: Path) -> None:
    """As the provider has signed it; a claim that is not there makes none, nor one that nobody configured."""
    who = [
        server.engine.authenticate(sign(groups=[role], org=claim)).whoami().tenant
        for role, claim in (("bi", "company_b"), ("bi", None), ("guests", "company_b"), ("guests", None))
    ]
    assert who == ["company_b", "", "company_a", "company_a"]
    (tmp_path / "jwks.json").write_text(key_set())
    person = OidcVerifier(config(), ROLES, tmp_path).verify(sign(org="company_b"), time.time())
    assert not isinstance(person, str) and person.tenant == ""


def forgeries() -> dict[str, str]:
    """Name -> a token that must be refused."""
    pem = KEYS["rsa"].as_pem(private=False)
    body, now = claims(), int(time.time())
    confused_head = {"alg": "HS256", "kid": "rsa", "typ": "JWT"}
    signed = f"{b64(json.dumps(confused_head).encode())}.{b64(json.dumps(body).encode())}".encode()
    good = sign()
    head, payload, signature = good.split(".")
    wide = claims(groups=["strongroom-admins"])
    return {
        "alg none": raw_token({"alg": "none", "kid": "rsa"}, body, b"xx"),
        "alg None": raw_token({"alg": "None", "kid": "rsa"}, body, b"xx"),
        "key confusion": raw_token(confused_head, body, hmac.digest(pem, signed, "sha256")),
        "hs256 with the modulus": raw_token(
            confused_head, body, hmac.digest(hashlib.sha256(pem).digest(), signed, "sha256")
        ),
        "other key of the same id": sign(key=STRANGER),
        "changed payload": f"{head}.{b64(json.dumps(wide).encode())}.{signature}",
        "cut signature": good[:-8],
        "unknown key": raw_token({"alg": "RS256", "kid": "none"}, body, bytes(256)),
        "key of another kind": raw_token({"alg": "RS256", "kid": "ec"}, body, bytes(256)),
        "algorithm that is not allowed": sign(alg="PS256"),
        "its own key": sign(key=STRANGER, header={"jwk": STRANGER.as_dict(private=False)}),
        "key from an address": sign(key=STRANGER, header={"jku": "https://evil.example.org/jwks"}),
        "critical header": signed_raw({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": True}, body),
        "critical claim": signed_raw({"alg": "RS256", "kid": "rsa", "crit": ["exp"], "exp": 1}, body),
        "another kind of token": signed_raw({"alg": "RS256", "kid": "rsa", "typ": "logout+jwt"}, body),
        "claims that are no object": signed_raw({"alg": "RS256", "kid": "rsa"}, [1]),  # type: ignore[arg-type]
        "wrong audience": sign(aud="https://other.example.org"),
        "wrong audience in a list": sign(aud=["https://other.example.org", "x"]),
        "no audience": sign(aud=None),
        "wrong issuer": sign(iss="https://evil.example.org"),
        "issuer with a slash": sign(iss=ISSUER + "/"),
        "no issuer": sign(iss=None),
        "expired": sign(iat=now - 600, exp=now - 60),
        "no end": sign(exp=None),
        "not yet": sign(nbf=now + 120),
        "issued in the future": sign(iat=now + 120),
        "lives too long": sign(exp=now + 10 * 86_400),
        "no subject": sign(sub=None),
        "subject that is no text": sign(sub="a\nb"),
        "a tenant that is no text": sign(org=["company_a"]),
        "an empty tenant": sign(org=""),
        "a tenant of two lines": sign(org="a\nb"),
        "a tenant without end": sign(org="a" * 129),
        "no role": sign(groups=["strangers"]),
        "no claim of roles": sign(groups=None),
        "role in an object": sign(groups={"analysts": True}),
        "key id that is no text": raw_token({"alg": "RS256", "kid": 5}, body, bytes(256)),
        "no json": f"{b64(b'no json')}.{payload}.{signature}",
    }


@pytest.mark.parametrize("name", list(forgeries()))
def test_a_forged_or_foreign_token_is_refused_and_audited(server: Served, name: str) -> None:
    """On REST and MCP alike, with nothing in the answer that tells why, and the reason in the log."""
    before = len(denials(server.owner))
    forged = forgeries()[name]  # made now: later on every one of them has expired, whatever else is wrong
    with server.http(forged) as http:
        answer = http.get("/v1/stats")
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        mcp = http.post("/mcp", json=call, headers={"accept": "application/json, text/event-stream"})
    assert answer.status_code == mcp.status_code == 401
    assert (
        answer.json()["error"]["code"] == "unauthenticated"
        and "token" not in answer.json()["error"]["message"]
    )
    new = denials(server.owner)[before - 1000 if before > 1000 else before :]
    assert len([r for a, r in new if a == "authenticate" and r]) >= 2


def test_it_ends_in_the_middle_of_a_session_and_a_clock_may_be_a_little_off(
    server: Served, tmp_path: Path
) -> None:
    now = time.time()
    (tmp_path / "jwks.json").write_text(key_set())
    verifier = OidcVerifier(config(clock_skew_s=30), ROLES, tmp_path)
    token = sign(iat=int(now), exp=int(now) + 300, nbf=int(now) + 20)
    person = verifier.verify(token, now)
    assert not isinstance(person, str)
    assert verifier.holds(person, now + 329) is None and verifier.holds(person, now + 331) is not None
    assert isinstance(verifier.verify(token, now - 15), str)
    verifier = OidcVerifier(config(clock_skew_s=30), ROLES, tmp_path)
    assert verifier.holds(person, now + 1) is None
    (tmp_path / "jwks.json").write_text(key_set("ec"))
    assert verifier.holds(person, now + 5) == "the provider has withdrawn the key of the token"
    (tmp_path / "jwks.json").unlink()
    assert isinstance(verifier.verify(sign("ec", "ES256"), now + 10), str)


def test_a_key_that_says_what_it_is_for_is_used_for_nothing_else(tmp_path: Path) -> None:
    """An allowed algorithm with a key marked for another one is refused; unmarked keys serve both."""
    marked = {**KEYS["rsa"].as_dict(private=False), "alg": "RS256"}
    token = sign(alg="PS256")
    for keys, taken in (
        ([marked], False),
        ([{**marked, "use": "enc"}], False),
        ([KEYS["rsa"].as_dict(private=False)], True),
    ):
        (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
        if not taken and keys[0].get("use") == "enc":
            with pytest.raises(ConfigurationError):
                OidcVerifier(config(algorithms=("RS256", "PS256")), ROLES, tmp_path)
            continue
        verifier = OidcVerifier(config(algorithms=("RS256", "PS256")), ROLES, tmp_path)
        assert isinstance(verifier.verify(token, time.time()), str) is not taken
    assert not isinstance(
        verifier.verify(signed_raw({"alg": "RS256", "kid": "rsa"}, claims()), time.time()), str
    )


@pytest.mark.parametrize("changes", [
    {"algorithms": ("none",)}, {"algorithms": ("HS256",)}, {"algorithms": ()}, {"audience": ()},
    {"issuer": "http://login.example.org"}, {"jwks_url": "http://login.example.org/keys", "jwks_file": ""},
    {"jwks_file": ""}, {"jwks_url": "https://x/keys"}, {"jwks_file": "none.json"},
])  # fmt: skip
def test_settings_that_would_let_anybody_in_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "jwks.json").write_text(key_set())
    with pytest.raises(ConfigurationError):
        OidcVerifier(config(**changes), ROLES, tmp_path)
    with pytest.raises(ConfigurationError):
        OidcVerifier(config(), {}, tmp_path)


class Provider:
    """An HTTPS server with a key set; counts how often it is asked."""

    def __init__(self, tls: Path) -> None:
        provider = self
        self.body, self.status, self.asked = key_set("rsa").encode(), 200, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                self.send_response(provider.status)
                self.send_header("location", "https://localhost:1/elsewhere")
                self.send_header("content-length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    create_local_ca(tmp_path / "tls")
    out = Provider(tmp_path / "tls")
    yield out
    out.close()


def test_keys_from_an_address_are_kept_refreshed_and_never_asked_for_too_often(
    provider: Provider, tmp_path: Path
) -> None:
    """Made-up key ids cannot make us knock at the provider; a new key is found; an outage is bridged."""
    settings = config(
        jwks_file="", jwks_url=provider.url, ca_file=str(tmp_path / "tls" / "ca.pem"),
        refresh_s=3600, refresh_s_min=60, stale_s_max=7200, token_s_max=10**6,
    )  # fmt: skip
    verifier = OidcVerifier(settings, ROLES, tmp_path)
    now = time.time()
    token, other = sign(exp=int(now) + 100_000), sign("ec", "ES256", exp=int(now) + 100_000)
    assert not isinstance(verifier.verify(token, now), str) and provider.asked == 1
    for n in range(50):
        forged = raw_token({"alg": "RS256", "kid": f"made-up-{n}"}, claims(), bytes(256))
        assert isinstance(verifier.verify(forged, now + 1 + n), str)
    assert provider.asked == 1
    provider.body = key_set("rsa", "ec").encode()
    assert isinstance(verifier.verify(other, now + 59), str) and provider.asked == 1
    assert not isinstance(verifier.verify(other, now + 61), str) and provider.asked == 2
    provider.status = 500
    for status in (500, 302):
        provider.status = status
        assert not isinstance(verifier.verify(token, now + 4000), str)
    assert not isinstance(verifier.verify(token, now + 7200), str)
    assert verifier.verify(token, now + 7300) == "the keys of the provider are not known"
    provider.status, provider.body = 200, b"{" + b" " * 300_000
    assert isinstance(verifier.verify(token, now + 7400), str)
    provider.body = key_set("rsa").encode()
    assert not isinstance(verifier.verify(token, now + 7500), str)


def test_a_provider_that_is_not_who_it_says_is_not_believed(provider: Provider, tmp_path: Path) -> None:
    create_local_ca(tmp_path / "other")
    settings = config(jwks_file="", jwks_url=provider.url, ca_file=str(tmp_path / "other" / "ca.pem"))
    verifier = OidcVerifier(settings, ROLES, tmp_path)
    assert verifier.verify(sign(), time.time()) == "the keys of the provider are not known"


def test_a_token_is_the_password_on_the_postgres_wire(server: Served) -> None:
    """Held to the role, and refused when it is forged."""
    import psycopg
    from tests.pgwire.wired import Wired, WireThread

    from strongroom.servers.http import WorkerPool, make_log
    from strongroom.servers.pgwire import PgwireServer
    from strongroom.servers.serve import server_files

    server.owner.store("for analysts", namespace="company_a/wire")
    server.owner.store("for others", namespace="company_b/wire")
    files = dict(
        zip(("certificate", "private_key"), server_files(server.directory, server.config), strict=True)
    )
    workers = WorkerPool(2, "wire")
    log = make_log(server.config.log, server.log)
    wire = PgwireServer(server.engine, server.config, **files, workers=workers, log=log)
    with WireThread(wire) as thread:
        here = Wired(
            server.engine, server.config, server.directory, server.ca, thread.port, server.log, thread,
            server.model,
        )  # fmt: skip
        with psycopg.connect(here.dsn(sign(), user="ada")) as connection:
            found = connection.execute("SELECT DISTINCT namespace FROM memories").fetchall()
        assert ("company_a/wire",) in found and ("company_b/wire",) not in found
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(here.dsn(forgeries()["changed payload"], user="ada"))
    workers.close()


def test_mcp_clients_are_told_where_to_get_a_token(server: Served) -> None:
    """RFC 9728: the challenge names the metadata, which names the resource and the authorization server."""
    with server.http("") as http:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        challenge = http.post("/mcp", json=call).headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
        url = challenge.split('resource_metadata="')[1].split('"')[0]
        assert url == f"{server.url}/.well-known/oauth-protected-resource/mcp"
        found = http.get(url)
        assert found.status_code == 200 and found.json() == {
            "resource": f"{server.url}/mcp",
            "authorization_servers": [ISSUER],
            "bearer_methods_supported": ["header"],
            "resource_name": "Strongroom",
        }
        root = http.get("/v1/stats").headers["www-authenticate"]
        assert root.endswith('/.well-known/oauth-protected-resource"')
        assert http.get("/.well-known/oauth-protected-resource").json()["resource"] == server.url


def test_without_a_provider_there_is_no_metadata_and_no_jwt_gets_in(tmp_path: Path) -> None:
    with served(tmp_path / "data") as plain, plain.http(sign()) as http:
        answer = http.get("/v1/stats")
        assert answer.status_code == 401 and "resource_metadata" not in answer.headers["www-authenticate"]
        assert http.get("/.well-known/oauth-protected-resource/mcp").status_code == 404
        with pytest.raises(UnauthenticatedError):
            plain.engine.authenticate(sign())


def test_the_key_types_of_the_tests_are_what_they_say() -> None:
    kinds = [rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey]
    for key, kind in zip(KEYS.values(), kinds, strict=True):
        assert isinstance(serialization.load_pem_private_key(key.as_pem(private=True), None), kind)
