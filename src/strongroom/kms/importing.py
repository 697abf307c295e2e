"""Key material that a customer brings: wrapped to a key made for this one import, then checked.

request         JSON: "strongroom_import" 1, "import_id" (32 hexadecimal digits), "store_id", "namespace",
                "expires_us", "wrapping_key" (a public text as in spec/recovery.md)
wrapped         base64 of a wrapped key as in spec/recovery.md, to the wrapping key, under the context
                store_id, namespace (its name), import_id, expires_us, purpose "key-import"
check value     the first 6 bytes of HMAC-SHA256(key, "strongroom/key-check@v1"), in hexadecimal
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose, overwrite
from strongroom.errors import InvalidInputError, StrongroomError, UnwrapError
from strongroom.kms.recovery import Recipient, RecoveryKey
from strongroom.model import check_namespace

IMPORT_TTL_S: Final = 86_400  # as the token of an import at AWS KMS
REQUEST_BYTES_MAX: Final = 16_384
MATERIAL_BYTES: Final = 32
_DISTINCT_MIN: Final = 16  # of 32 random bytes; fewer once in 10^9 keys or more rarely
_CHECK_LABEL: Final = b"strongroom/key-check@v1"
_VERSION: Final = 1
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What a store gives to whoever brings a key: for which namespace, until when, and what to wrap it to."""

    import_id: str
    store_id: str
    namespace: str
    expires_us: int
    wrapping_key: str

    @classmethod
    def make(cls, store_id: UUID, namespace: str, now_us: int) -> tuple[ImportRequest, SecretKey]:
        """A new request, and the private half of its wrapping key."""
        seed = SecretKey.generate()
        public = RecoveryKey(seed).recipient.text
        request = cls(
            import_id=os.urandom(16).hex(),
            store_id=str(store_id),
            namespace=namespace,
            expires_us=now_us + IMPORT_TTL_S * 1_000_000,
            wrapping_key=public,
        )
        return request, seed

    @classmethod
    def parse(cls, text: str) -> ImportRequest:
        """Read a request.

        Raises:
            InvalidInputError: it is none, or damaged.
        """
        found: Any = None
        if len(text) <= REQUEST_BYTES_MAX:
            with contextlib.suppress(ValueError):
                found = json.loads(text)
        names = ("import_id", "store_id", "namespace", "expires_us", "wrapping_key")
        if (
            not isinstance(found, dict)
            or set(found) != {"strongroom_import", *names}
            or found["strongroom_import"] != _VERSION
            or type(found["expires_us"]) is not int
            or not all(isinstance(found[n], str) for n in names if n != "expires_us")
        ):
            raise InvalidInputError("this is no request for the import of a key, or it is damaged")
        request = cls(**{n: found[n] for n in names})
        try:
            check_namespace(request.namespace)
            Recipient.parse(request.wrapping_key)
            genuine = str(UUID(request.store_id)) == request.store_id and bool(
                _ID.fullmatch(request.import_id)
            )
        except (StrongroomError, ValueError):
            genuine = False
        if not genuine:
            raise InvalidInputError("the request for the import of a key is damaged")
        return request

    def text(self) -> str:
        """The request as JSON."""
        names = ("import_id", "store_id", "namespace", "expires_us", "wrapping_key")
        return (
            json.dumps({"strongroom_import": _VERSION} | {n: getattr(self, n) for n in names}, indent=1)
            + "\n"
        )

    def context(self) -> dict[str, str]:
        """What the wrapped material is bound to."""
        return {
            "store_id": self.store_id,
            "namespace": self.namespace,
            "import_id": self.import_id,
            "expires_us": str(self.expires_us),
            "purpose": "key-import",
        }


def wrap_material(request: ImportRequest, material: bytes) -> tuple[str, str]:
    """The customer's part: (wrapped material as text, check value).

    Raises:
        InvalidInputError: it is not 32 random bytes.
    """
    _require_random(material)
    secret = SecretKey.from_bytes(material)
    wrapped = Recipient.parse(request.wrapping_key).wrap(secret, request.context())
    return base64.b64encode(wrapped).decode(), check_value(secret)


def open_material(seed: SecretKey, request: ImportRequest, wrapped: str) -> SecretKey:
    """The store's part: the key, when it was wrapped for this very request and looks random.

    Raises:
        UnwrapError: for another request, store or namespace, or damaged. InvalidInputError: no random key.
    """
    try:
        raw = base64.b64decode(wrapped.strip(), validate=True)
    except ValueError:
        raise UnwrapError("the wrapped key material is damaged") from None
    key = RecoveryKey(seed)
    if key.recipient.text != request.wrapping_key:
        raise UnwrapError("the wrapped key material belongs to another request")
    try:
        secret = key.unwrap(raw, request.context())
    except UnwrapError:
        raise UnwrapError(
            "the key material was not wrapped for this request, or is damaged",
            hint="wrap it with the request of this very import: strongroom import-key wrap",
        ) from None
    material = expose(secret)
    try:
        _require_random(material)
    finally:
        overwrite(material)
    return secret


def check_value(secret: SecretKey) -> str:
    """Six bytes by which two parties see that they hold the same key; they tell nothing of it."""
    return secret.mac(_CHECK_LABEL)[:6].hex()


def _require_random(material: bytes) -> None:
    """A key from a random generator has many different bytes; a password, a counter or zeros have not."""
    if len(material) != MATERIAL_BYTES:
        raise InvalidInputError(f"a namespace key is {MATERIAL_BYTES} bytes")
    steps = {(b - a) % 256 for a, b in itertools.pairwise(material)}
    if len(set(material)) < _DISTINCT_MIN or len(steps) < _DISTINCT_MIN // 2 or material.isascii():
        raise InvalidInputError(
            "the key material is not random", hint="make it with a random generator: openssl rand 32"
        )
