"""A small Vault: the transit engine, tokens, AppRole and Kubernetes logins, over its real HTTP interface.

Keys are ``derived``: each context has a key of its own. https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.kms.faults import Faults

from strongroom.config import KeysConfig


@dataclass
class _Key:
    versions: list[bytes] = field(default_factory=lambda: [os.urandom(32)])
    least: int = 1
    soft_deleted: bool = False


class _Refused(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(*errors)
        self.status, self.errors = status, list(errors)


class VaultService:
    """A server on a free port. Keys are names of the engine mounted at ``transit``."""

    def __init__(self, namespace: str = "") -> None:
        self.faults = Faults()
        self.stopped = False
        self.namespace = namespace
        self.keys: dict[str, _Key] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, int] = {"root-token": 0}  # token -> lease in seconds, 0: for ever
        self.role, self.secret_id, self.jwt = "role-1", "secret-id-value", "pod.jwt.value"
        self.lease_s = 3600
        self.renewals = self.logins = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                service.answer(self)

            def do_GET(self) -> None:
                service.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers.get("content-length") or 0)) or b"{}")
        if self.stopped:
            request.close_connection = True
            return
        try:
            status, found = 200, self._routed(request, request.path.removeprefix("/v1/"), body)
        except _Refused as e:
            status, found = e.status, {"errors": e.errors}
        data = json.dumps(found).encode()
        try:
            request.send_response(status)
            request.send_header("content-length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)
        except OSError:
            request.close_connection = True

    def _routed(self, request: BaseHTTPRequestHandler, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if request.headers.get("x-vault-namespace", "") != self.namespace:
            raise _Refused(404, "no handler for route")
        if path.startswith("auth/") and path.endswith("/login"):
            return self._log_in(path.split("/")[1], body)
        token = request.headers.get("x-vault-token", "")
        if token not in self.tokens:
            raise _Refused(403, "permission denied", "invalid token")
        if path == "auth/token/renew-self":
            if not self.tokens[token]:
                raise _Refused(400, "lease is not renewable")
            self.renewals += 1
            return self._lease(token)
        match self.faults.next():
            case "throttle":
                raise _Refused(429, "request path: rate limit quota exceeded")
            case "deny":
                raise _Refused(403, "1 error occurred:\n\t* permission denied\n\n")
            case "break":
                raise _Refused(503, "Vault is sealed")
        if request.command == "GET":  # the key-value store, version 2: what tests have put into ``secrets``
            if path not in self.secrets:
                raise _Refused(404)
            return {"data": {"data": self.secrets[path], "metadata": {"version": 1}}}
        found = re.fullmatch(r"transit/(encrypt|decrypt)/([\w-]+)", path)
        if not found:
            raise _Refused(404, "no handler for route")
        return {"data": self._transit(found[1], found[2], body)}

    def _log_in(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        good = {
            "approle": {"role_id": self.role, "secret_id": self.secret_id},
            "kubernetes": {"role": self.role, "jwt": self.jwt},
        }
        if body != good.get(kind):
            raise _Refused(400, "invalid role or secret ID")
        self.logins += 1
        token = secrets.token_urlsafe(16)
        self.tokens[token] = self.lease_s
        return self._lease(token)

    def _lease(self, token: str) -> dict[str, Any]:
        return {"auth": {"client_token": token, "lease_duration": self.tokens[token], "renewable": True}}

    def _transit(self, operation: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        key = self.keys.get(name)
        if key is None:
            raise _Refused(400, "encryption key not found")
        if key.soft_deleted:
            raise _Refused(400, "key is soft deleted")
        context = base64.b64decode(body["context"], validate=True)
        extra = base64.b64decode(body["associated_data"], validate=True)
        if operation == "encrypt":
            version = len(key.versions)
            self._admit(key, version)
            nonce = os.urandom(12)
            plaintext = base64.b64decode(body["plaintext"], validate=True)
            sealed = nonce + AESGCM(_derived(key, version, context)).encrypt(nonce, plaintext, extra)
            return {
                "ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}",
                "key_version": version,
            }
        _, number, text = body["ciphertext"].split(":")
        version = int(number[1:])
        if version > len(key.versions):
            raise _Refused(400, "invalid ciphertext: version is too new")
        self._admit(key, version)
        try:
            sealed = base64.b64decode(text, validate=True)
            plaintext = AESGCM(_derived(key, version, context)).decrypt(sealed[:12], sealed[12:], extra)
        except (InvalidTag, ValueError):
            raise _Refused(400, "invalid ciphertext: unable to decrypt") from None
        return {"plaintext": base64.b64encode(plaintext).decode()}

    def _admit(self, key: _Key, version: int) -> None:
        if version < key.least:
            raise _Refused(400, "ciphertext or signature version is disallowed by policy (too old)")

    # -- for the tests ----------------------------------------------------------------------------------
    def config(self, key: str) -> KeysConfig:
        return KeysConfig(
            provider="vault",
            key=key,
            endpoint=self.endpoint,
            namespace=self.namespace,
            credentials="env:TEST_VAULT_TOKEN",
            timeout_ms=5_000,
            attempts_max=2,
        )

    def new_key(self) -> str:
        name = f"k{len(self.keys)}"
        self.keys[name] = _Key()
        return name

    def disable(self, key: str) -> None:
        self.keys[key].least = 1_000

    def enable(self, key: str) -> None:
        self.keys[key].least = 1

    def schedule_deletion(self, key: str) -> None:
        self.keys[key].soft_deleted = True

    def cancel_deletion(self, key: str) -> None:
        self.keys[key].soft_deleted = False

    def delete(self, key: str) -> None:
        del self.keys[key]

    def rotate(self, key: str) -> None:
        self.keys[key].versions.append(os.urandom(32))

    def replace(self, key: str) -> None:
        self.keys[key] = _Key()

    def stop(self) -> None:
        self.stopped = True  # connections that are open are closed by their next request
        self._server.shutdown()
        self._server.server_close()


def _derived(key: _Key, version: int, context: bytes) -> bytes:
    return hmac.digest(key.versions[version - 1], context, "sha256")
