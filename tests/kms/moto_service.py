"""AWS KMS as moto plays it, with what moto leaves out: states of keys, and the errors of the real service.

moto decrypts with disabled keys and with keys that wait for deletion, and calls a ciphertext of another key
"access denied": here both are as https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html says.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from typing import Any
from uuid import uuid4

import moto.kms.models
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from tests.kms.faults import Faults
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from strongroom.config import KeysConfig

REGION = "eu-central-1"
ACCOUNT = "123456789012"


class MotoService:
    """A server on a free port. Keys are ARNs."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.grants: dict[str, dict[str, str]] = {}  # key -> what the encryption context has to hold
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, environ: dict[str, Any], start: Any) -> Any:
        match self.faults.next():
            case "throttle":
                return _error(400, "ThrottlingException")(environ, start)
            case "deny":
                return _error(400, "AccessDeniedException")(environ, start)
            case "break":
                return _error(500, "KMSInternalException")(environ, start)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if target in ("Encrypt", "Decrypt"):
            refused = self._refused(environ, target, json.loads(body))
            if refused is not None:
                return refused(environ, start)
        environ["wsgi.input"] = io.BytesIO(body)
        return self._app(environ, start)

    def _refused(self, environ: dict[str, Any], target: str, body: dict[str, Any]) -> Response | None:
        """What the real service says and moto does not."""
        region = environ["HTTP_AUTHORIZATION"].split("/")[2]
        backend = backend_of(region)
        wanted = body["KeyId"]
        if wanted.startswith("arn:") and wanted.split(":")[3] != region:
            return _error(400, "NotFoundException", f"Invalid arn {wanted.split(':')[3]}")
        try:
            key_id = backend.any_id_to_key_id(wanted)
            key = backend.keys[key_id]
        except (KeyError, AttributeError):
            return _error(400, "NotFoundException", f"Key '{wanted}' does not exist")
        if key.key_state == "PendingDeletion":
            return _error(400, "KMSInvalidStateException", f"{key.arn} is pending deletion.")
        if not key.enabled:
            return _error(400, "DisabledException", f"{key.arn} is disabled.")
        wanted_context = self.grants.get(key.arn)
        if wanted_context is not None and not wanted_context.items() <= body["EncryptionContext"].items():
            return _error(400, "AccessDeniedException")
        if target == "Decrypt":
            used = base64.b64decode(body["CiphertextBlob"])[:36].decode("latin-1").rstrip()
            if used not in backend.keys:
                return _error(400, "InvalidCiphertextException")
            if used != key_id:
                return _error(400, "IncorrectKeyException")
        return None

    def config(self, key: str) -> KeysConfig:
        return KeysConfig(
            provider="aws",
            key=key,
            region=key.split(":")[3] if key.startswith("arn:") else REGION,
            endpoint=self.endpoint,
            credentials="env:TEST_AWS_CREDENTIALS",
            timeout_ms=5_000,
            attempts_max=2,
        )

    def new_key(self, *, multi_region: bool = False) -> str:
        key = backend_of(REGION).create_key(
            policy=None,
            key_usage="ENCRYPT_DECRYPT",
            key_spec="SYMMETRIC_DEFAULT",
            description="",
            tags=None,
            multi_region=multi_region,
        )
        if multi_region:  # the real ids have 36 characters, as moto's ciphertexts expect; moto's own have 40
            old, key.id = key.id, "mrk-" + uuid4().hex
            key.arn = key.arn.replace(old, key.id)
            backend_of(REGION).keys[key.id] = backend_of(REGION).keys.pop(old)
        return str(key.arn)

    def disable(self, key: str) -> None:
        backend_of(REGION).disable_key(_id(key))

    def enable(self, key: str) -> None:
        backend_of(REGION).enable_key(_id(key))

    def schedule_deletion(self, key: str) -> None:
        backend_of(REGION).schedule_key_deletion(_id(key), 7)

    def cancel_deletion(self, key: str) -> None:
        backend_of(REGION).cancel_key_deletion(_id(key))
        self.enable(key)

    def delete(self, key: str) -> None:
        backend_of(REGION).delete_key(_id(key))

    def rotate(self, key: str) -> None:
        backend_of(REGION).rotate_key_on_demand(_id(key))

    def grant(self, key: str, subset: dict[str, str]) -> None:
        """The caller has the key by a grant with EncryptionContextSubset alone; moto asks no grant."""
        backend_of(REGION).create_grant(
            key_id=_id(key), grantee_principal="arn:aws:iam::123456789012:role/strongroom",
            operations=["Encrypt", "Decrypt"], name="tenant", constraints={"EncryptionContextSubset": subset},
            retiring_principal="",
        )  # fmt: skip
        self.grants[key] = subset

    def alias(self, name: str, key: str) -> None:
        backend_of(REGION).delete_alias(f"alias/{name}")
        backend_of(REGION).create_alias(_id(key), f"alias/{name}")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def backend_of(region: str) -> Any:
    return moto.kms.models.kms_backends[ACCOUNT][region]


def _id(key: str) -> str:
    return key.rpartition("/")[2]


def _error(status: int, code: str, message: str = "") -> Response:
    body = json.dumps({"__type": code, "message": message})
    return Response(body, status=status, content_type="application/x-amz-json-1.1")


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as the reference of the tests gives them, and none beside it."""
    given = {"access_key_id": "testing", "secret_access_key": "testing-secret-value"}
    monkeypatch.setenv("TEST_AWS_CREDENTIALS", json.dumps(given))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
