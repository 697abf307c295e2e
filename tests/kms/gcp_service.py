"""A small Google Cloud KMS: the real protocol (gRPC and its messages), with states of key versions.

Errors are worded as the service words them; a ciphertext is ``version (2) | nonce (12) | AES-GCM``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1
from tests.kms.faults import Faults

from strongroom.config import KeysConfig

LOCATION = "europe-west3"
RING = f"projects/memories/locations/{LOCATION}/keyRings/strongroom/cryptoKeys"


@dataclass
class _Key:
    versions: list[bytes] = field(default_factory=lambda: [os.urandom(32)])
    state: str = "ENABLED"


def crc(data: bytes) -> int:
    return int.from_bytes(google_crc32c.Checksum(data).digest(), "big")


class _Status(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class GcpService:
    """A gRPC server on a free port."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.keys: dict[str, _Key] = {}
        self.damage = (
            ""  # which answer carries damaged bytes: "ciphertext", "plaintext", "unverified", "name"
        )
        self._server = grpc.server(ThreadPoolExecutor(16))
        handlers = {
            "Encrypt": self._handler(self._encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
            "Decrypt": self._handler(self._decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
        }
        name = "google.cloud.kms.v1.KeyManagementService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _handler(self, method: Any, request: Any, response: Any) -> Any:
        def answer(given: Any, context: Any) -> Any:
            match self.faults.next():
                case "throttle":
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded for quota metric")
                case "deny":
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "Permission denied on resource")
                case "break":
                    context.abort(grpc.StatusCode.INTERNAL, "Internal error encountered.")
            try:
                return method(given)
            except _Status as e:
                context.abort(e.code, e.text)

        return grpc.unary_unary_rpc_method_handler(answer, request.deserialize, response.serialize)

    def _usable(self, name: str) -> _Key:
        key = self.keys.get(name)
        if key is None or key.state == "GONE":
            raise _Status(grpc.StatusCode.NOT_FOUND, f"CryptoKey {name} not found.")
        if key.state != "ENABLED":
            text = f"{name}/cryptoKeyVersions/1 is not enabled, current state is: {key.state}."
            raise _Status(grpc.StatusCode.FAILED_PRECONDITION, text)
        return key

    def _encrypt(self, given: Any) -> Any:
        key = self._usable(given.name)
        for value, checksum in (
            (given.plaintext, given.plaintext_crc32c),
            (given.additional_authenticated_data, given.additional_authenticated_data_crc32c),
        ):
            if crc(value) != checksum:
                raise _Status(grpc.StatusCode.INVALID_ARGUMENT, "The checksum did not match.")
        version, nonce = len(key.versions), os.urandom(12)
        sealed = AESGCM(key.versions[-1]).encrypt(nonce, given.plaintext, given.additional_authenticated_data)
        ciphertext = version.to_bytes(2, "big") + nonce + sealed
        checksum = crc(ciphertext)
        if self.damage == "ciphertext":
            ciphertext = ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,))
        name = "projects/other" if self.damage == "name" else given.name
        return kms_v1.EncryptResponse(
            name=f"{name}/cryptoKeyVersions/{version}",
            ciphertext=ciphertext,
            ciphertext_crc32c=checksum,
            verified_plaintext_crc32c=self.damage != "unverified",
            verified_additional_authenticated_data_crc32c=True,
        )

    def _decrypt(self, given: Any) -> Any:
        key = self._usable(given.name)
        if crc(given.ciphertext) != given.ciphertext_crc32c:
            raise _Status(grpc.StatusCode.INVALID_ARGUMENT, "The checksum did not match.")
        version = int.from_bytes(given.ciphertext[:2], "big")
        try:
            secret = key.versions[version - 1]
            plaintext = AESGCM(secret).decrypt(
                given.ciphertext[2:14], given.ciphertext[14:], given.additional_authenticated_data
            )
        except (IndexError, InvalidTag, ValueError):
            text = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            raise _Status(grpc.StatusCode.INVALID_ARGUMENT, text) from None
        checksum = crc(plaintext)
        if self.damage == "plaintext":
            plaintext = bytes((plaintext[0] ^ 1,)) + plaintext[1:]
        return kms_v1.DecryptResponse(plaintext=plaintext, plaintext_crc32c=checksum, used_primary=True)

    def config(self, key: str) -> KeysConfig:
        return KeysConfig(provider="gcp", key=key, endpoint=self.endpoint, timeout_ms=5_000, attempts_max=2)

    def new_key(self) -> str:
        name = f"{RING}/k{len(self.keys)}"
        self.keys[name] = _Key()
        return name

    def disable(self, key: str) -> None:
        self.keys[key].state = "DISABLED"

    def enable(self, key: str) -> None:
        self.keys[key].state = "ENABLED"

    def schedule_deletion(self, key: str) -> None:
        self.keys[key].state = "DESTROY_SCHEDULED"

    def cancel_deletion(self, key: str) -> None:
        self.enable(key)

    def delete(self, key: str) -> None:
        self.keys[key].state = "DESTROYED"

    def rotate(self, key: str) -> None:
        self.keys[key].versions.append(os.urandom(32))

    def replace(self, key: str) -> None:
        self.keys[key] = _Key()

    def stop(self) -> None:
        self._server.stop(None).wait(5)
