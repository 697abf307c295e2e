"""A small Azure: token endpoint and Key Vault over TLS, with challenges, versions and soft deletion.

https://learn.microsoft.com/rest/api/keyvault: get key, wrapkey, unwrapkey, with RSA keys and with
``oct-HSM`` keys (AES key wrap, as a Managed HSM).
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.kms.faults import Faults

from strongroom.config import KeysConfig
from strongroom.servers.tls import create_local_ca

TENANT = "11111111-2222-3333-4444-555555555555"
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_rsa_lock = threading.Lock()
_rsa_keys: list[rsa.RSAPrivateKey] = []


def rsa_key(n: int) -> rsa.RSAPrivateKey:
    """The n-th RSA key of this process: making one takes long."""
    with _rsa_lock:
        while len(_rsa_keys) <= n:
            _rsa_keys.append(rsa.generate_private_key(65537, 2048))
        return _rsa_keys[n]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class _Key:
    kind: str
    versions: dict[str, Any] = field(default_factory=dict)
    enabled: bool = True
    deleted: bool = False


class _Refused(Exception):
    def __init__(self, status: int, code: str, inner: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.inner = status, code, inner


class AzureService:
    """A TLS server on a free port. Keys are addresses without a version."""

    secret: ClassVar[str] = "client-secret-value"

    def __init__(self, directory: Path) -> None:
        self.faults = Faults()
        self.stopped = False
        self.keys: dict[str, _Key] = {}
        self.requests: list[str] = []
        self.token = secrets.token_urlsafe(32)
        self._made = 0
        create_local_ca(directory)
        self.ca_file = str(directory / "ca.pem")
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.answer(self)

            def do_POST(self) -> None:
                service.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    # -- HTTP ---------------------------------------------------------------------------------------
    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if self.stopped:
            request.close_connection = True
            return
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        headers: dict[str, str] = {}
        try:
            status, found = self._routed(request, path, body, headers)
        except _Refused as e:
            status = e.status
            error: dict[str, Any] = {"code": e.code, "message": "no"}
            if e.inner:
                error["innererror"] = {"code": e.inner}
            found = {"error": error}
        data = json.dumps(found).encode()
        try:
            request.send_response(status)
            for name, value in {
                **headers,
                "content-type": "application/json",
                "content-length": str(len(data)),
            }.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(data)
        except OSError:
            request.close_connection = True

    def _routed(
        self, request: BaseHTTPRequestHandler, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, Any]:
        if path.startswith(f"/{TENANT}/"):
            return self._log_in(path, body)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            headers["www-authenticate"] = (
                f'Bearer authorization="{self.address}/{TENANT}", resource="https://vault.azure.net"'
            )
            return 401, {"error": {"code": "Unauthorized", "message": "AKV10000: no token"}}
        match self.faults.next():
            case "throttle":
                raise _Refused(429, "Throttled")
            case "deny":
                raise _Refused(403, "Forbidden", "ForbiddenByRbac")
            case "break":
                raise _Refused(500, "InternalServerError")
        return self._key_operation(path, body)

    def _log_in(self, path: str, body: bytes) -> tuple[int, Any]:
        if path.endswith("openid-configuration"):
            base = f"{self.address}/{TENANT}"
            return 200, {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        if self.secret.encode() not in body:
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: no"}
        return 200, {"token_type": "Bearer", "expires_in": 3600, "access_token": self.token}

    # -- keys -----------------------------------------------------------------------------------------
    def _key_operation(self, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")  # keys NAME [VERSION] [OPERATION]
        key = self.keys.get(parts[1])
        if key is None:
            raise _Refused(404, "KeyNotFound")
        if key.deleted:
            raise _Refused(409, "Conflict", "ObjectIsDeletedButRecoverable")
        version = parts[2] if len(parts) > 2 and parts[2] else list(key.versions)[-1]
        if version not in key.versions:
            raise _Refused(404, "KeyNotFound")
        if len(parts) < 4:
            return 200, self._shown(parts[1], key, version)
        if not key.enabled:
            raise _Refused(403, "Forbidden", "KeyDisabled")
        given = json.loads(body)
        kid = f"{self.address}/keys/{parts[1]}/{version}"
        return 200, {
            "kid": kid,
            "value": b64(_work(key, version, parts[3], given["alg"], unb64(given["value"]))),
        }

    def _shown(self, name: str, key: _Key, version: str) -> dict[str, Any]:
        shown: dict[str, Any] = {"kid": f"{self.address}/keys/{name}/{version}", "kty": key.kind}
        shown["key_ops"] = ["wrapKey", "unwrapKey"]
        if key.kind == "RSA":
            numbers = key.versions[version].public_key().public_numbers()
            shown |= {"n": b64(numbers.n.to_bytes(256, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
        return {"key": shown, "attributes": {"enabled": key.enabled, "created": 1, "updated": 1}}

    # -- for the tests ----------------------------------------------------------------------------------
    def config(self, key: str) -> KeysConfig:
        return KeysConfig(
            provider="azure",
            key=key,
            ca_file=self.ca_file,
            credentials="env:TEST_AZURE_CREDENTIALS",
            algorithm="A256KW" if self._of(key).kind == "oct-HSM" else "",
            timeout_ms=5_000,
            attempts_max=2,
        )

    def credentials(self) -> str:
        return json.dumps(
            {"tenant_id": TENANT, "client_id": "c", "client_secret": self.secret, "authority": self.address}
        )

    def new_key(self, kind: str = "RSA") -> str:
        name = f"k{len(self.keys)}"
        self.keys[name] = _Key(kind)
        address = f"{self.address}/keys/{name}"
        self.rotate(address)
        return address

    def _of(self, key: str) -> _Key:
        return self.keys[key.rpartition("/")[2]]

    def rotate(self, key: str) -> None:
        found = self._of(key)
        made = rsa_key(self._made) if found.kind == "RSA" else secrets.token_bytes(32)
        self._made += 1
        found.versions[secrets.token_hex(16)] = made

    def disable(self, key: str) -> None:
        self._of(key).enabled = False

    def enable(self, key: str) -> None:
        self._of(key).enabled = True

    def schedule_deletion(self, key: str) -> None:
        self._of(key).deleted = True

    def cancel_deletion(self, key: str) -> None:
        self._of(key).deleted = False

    def delete(self, key: str) -> None:
        del self.keys[key.rpartition("/")[2]]

    def replace(self, key: str) -> None:
        self._of(key).versions.clear()
        self.rotate(key)

    def stop(self) -> None:
        self.stopped = True  # connections that are open are closed by their next request
        self._server.shutdown()
        self._server.server_close()


def _work(key: _Key, version: str, operation: str, algorithm: str, value: bytes) -> bytes:
    secret = key.versions[version]
    try:
        if algorithm == "RSA-OAEP-256" and key.kind == "RSA":
            if operation == "wrapkey":
                return bytes(secret.public_key().encrypt(value, _OAEP))
            return bytes(secret.decrypt(value, _OAEP))
        if algorithm == "A256KW" and key.kind == "oct-HSM":
            work = keywrap.aes_key_wrap if operation == "wrapkey" else keywrap.aes_key_unwrap
            return bytes(work(secret, value))
    except (ValueError, keywrap.InvalidUnwrap):
        pass
    raise _Refused(400, "BadParameter")
