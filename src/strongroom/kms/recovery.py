"""The offline recovery key: HPKE with X25519 and ML-KEM-768 (RFC 9180, X-Wing), spec/recovery.md.

Its public half stands in the configuration and wraps every namespace key; its private half lies in a
safe and opens them again when every key management service is lost.

    public text      "srrec1" and base64url of: ML-KEM-768 key 1184 | X25519 key 32 | check 8
    key id           SHA-256("strongroom/recovery-key@v1\\0" | ML-KEM-768 key | X25519 key), first 16 bytes
    check            the first 8 bytes of SHA-256 of the 1216 bytes before it
    wrapped key      3 (1) | key id (16) | HPKE encapsulation (1120) | ciphertext and tag (48)
    HPKE             base mode, KEM MLKEM768-X25519, HKDF-SHA256, AES-256-GCM;
                     info = "strongroom/recovery-wrap@v1\\0" | bytes 0..16 | encoded context

The private half is 32 random bytes; SHAKE-256 expands them to the seeds of both keys, as X-Wing does.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose, overwrite
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    KeystoreFormatError,
    KeystoreMissingError,
    KmsDeniedError,
    UnwrapError,
)
from strongroom.kms._contract import KmsKeyInfo, encode_context
from strongroom.kms._directory import RECOVERY
from strongroom.kms._keyfile import KEY_FILE_BYTES_MAX, RECOVERY_MAGIC, parse
from strongroom.kms._protect import PassphraseCost, protect, reveal
from strongroom.kms.files import create_private_file, read_private_file

PUBLIC_BYTES: Final = 1216
WRAPPED_RECOVERY_BYTES: Final = 1185

_FORMAT: Final = b"\x03"
_HEADER_BYTES: Final = 17
_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 8
_MLKEM_BYTES: Final = 1184
_PREFIX: Final = "srrec1"
_ID_LABEL: Final = b"strongroom/recovery-key@v1\0"
_WRAP_LABEL: Final = b"strongroom/recovery-wrap@v1\0"
_BEGIN: Final = "-----BEGIN STRONGROOM RECOVERY KEY-----"
_END: Final = "-----END STRONGROOM RECOVERY KEY-----"
_NO_STORE: Final = bytes(16)
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HINT: Final = "give its passphrase: --recovery-passphrase-file FILE"


class Recipient:
    """The public half: wraps, and refuses to unwrap. A ``KmsProvider``."""

    def __init__(self, public: bytes) -> None:
        """``public``: 1216 bytes, the ML-KEM-768 key and the X25519 key.

        Raises:
            ValueError: they are no such keys.
        """
        self._public = public
        self._key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_BYTES]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_BYTES:]),
        )
        self.key_id = hashlib.sha256(_ID_LABEL + public).digest()[:_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read a public text; only what ``text`` writes is accepted.

        Raises:
            ConfigurationError: damaged, cut, or something else.
        """
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), altchars=b"-_", validate=True)
            public, check = raw[:PUBLIC_BYTES], raw[PUBLIC_BYTES:]
            if hashlib.sha256(public).digest()[:_CHECK_BYTES] == check:
                found = cls(public)
                if found.text == text:
                    return found
        except ValueError:
            pass
        raise ConfigurationError(
            "a recovery key in the configuration is damaged, or no public recovery key",
            hint="[keys] recovery_keys holds what strongroom escrow init has printed: srrec1...",
        )

    @property
    def text(self) -> str:
        """The public text, for the configuration."""
        check = hashlib.sha256(self._public).digest()[:_CHECK_BYTES]
        return _PREFIX + base64.urlsafe_b64encode(self._public + check).decode()

    def describe(self) -> KmsKeyInfo:
        """The recovery key; ``key_uri`` is ``recovery:`` and 32 hexadecimal digits."""
        return KmsKeyInfo(provider=RECOVERY, key_uri=f"{RECOVERY}:{self.key_id.hex()}", version=1)

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """Encrypt ``key`` to the recovery key, bound to ``context``: 1185 bytes.

        Raises:
            InvalidInputError: the context.
        """
        head = _FORMAT + self.key_id
        raw = expose(key)
        try:
            return head + _SUITE.encrypt(raw, self._key, _info(head, context))
        finally:
            overwrite(raw)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """Raises: KmsDeniedError: the private half is not here."""
        raise KmsDeniedError("the recovery key lies offline", hint="strongroom recover takes its file")

    def close(self) -> None:
        """Nothing is held."""


class RecoveryKey:
    """The private half, while somebody has it in hand. A ``KmsProvider``."""

    def __init__(self, seed: SecretKey) -> None:
        self._seed: SecretKey | None = seed
        mlkem, x25519 = _keys(seed)
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.recipient = Recipient(public)
        self._private: MLKEM768X25519PrivateKey | None = MLKEM768X25519PrivateKey(mlkem, x25519)

    @classmethod
    def generate(cls) -> RecoveryKey:
        """A new recovery key."""
        return cls(SecretKey.generate())

    @classmethod
    def load(cls, path: Path, *, passphrase: str | None = None) -> RecoveryKey:
        """Read the file of a recovery key.

        Raises:
            KeystoreMissingError: there is no such file. KeystorePermissionError: others can read it.
            KeystoreFormatError: it is damaged or something else. UnwrapError: the passphrase is wrong or
            missing, or not asked for.
        """
        try:
            data, _ = read_private_file(path, bytes_max=4 * KEY_FILE_BYTES_MAX)
        except KeystoreMissingError:
            raise KeystoreMissingError(
                "the file of the recovery key is not there", hint="bring it from where it is kept offline"
            ) from None
        file = parse(_unarmoured(data), RECOVERY_MAGIC)
        found = cls(reveal(file, passphrase, _HINT))
        if found.recipient.key_id != file.key_id:
            raise KeystoreFormatError(
                "the file of the recovery key was altered", hint="take another copy of it"
            )
        return found

    def save(self, path: Path, *, passphrase: str | None, cost: PassphraseCost | None = None) -> None:
        """Write the file of this key: a text that can be printed, mode 0600, never over another file.

        Raises:
            StoreExistsError, KeystorePermissionError, StorageError. InvalidInputError: the passphrase.
        """
        file = protect(
            self._held(),
            store_id=_NO_STORE,
            key_id=self.recipient.key_id,
            passphrase=passphrase,
            cost=cost,
            magic=RECOVERY_MAGIC,
        )
        data = file.encode()
        overwrite(file.body)
        lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
        overwrite(data)
        create_private_file(path, "\n".join((_BEGIN, *lines, _END, "")).encode())

    def describe(self) -> KmsKeyInfo:
        """As ``Recipient.describe``.

        Raises:
            ClosedError.
        """
        self._held()
        return self.recipient.describe()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """As ``Recipient.wrap``.

        Raises:
            InvalidInputError: the context. ClosedError.
        """
        self._held()
        return self.recipient.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """The key that ``wrap`` was given with the same context.

        Raises:
            UnwrapError: of another recovery key, another context, or any bit changed. InvalidInputError: the
            context. ClosedError.
        """
        self._held()
        head = _FORMAT + self.recipient.key_id
        info = _info(head, context)
        if (
            not isinstance(wrapped, bytes)
            or len(wrapped) != WRAPPED_RECOVERY_BYTES
            or wrapped[:_HEADER_BYTES] != head
            or self._private is None
        ):
            raise UnwrapError
        try:
            raw = _SUITE.decrypt(wrapped[_HEADER_BYTES:], self._private, info)
            secret = SecretKey.from_bytes(raw)
            overwrite(raw)
            return secret
        except (InvalidTag, ValueError):
            pass
        raise UnwrapError

    def close(self) -> None:
        """Forget the private half."""
        seed, self._seed, self._private = self._seed, None, None
        if seed is not None:
            seed.wipe()

    def __repr__(self) -> str:
        return f"<RecoveryKey {self.recipient.key_id.hex()}>"

    def _held(self) -> SecretKey:
        if self._seed is None:
            raise ClosedError("the recovery key was closed")
        return self._seed


def _keys(seed: SecretKey) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """X-Wing: 96 bytes of SHAKE-256 are the seeds d and z of ML-KEM-768, and the X25519 key."""
    raw = expose(seed)
    expanded = hashlib.shake_256(raw).digest(96)
    overwrite(raw)
    try:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(memoryview(expanded)[:64])
        return mlkem, X25519PrivateKey.from_private_bytes(memoryview(expanded)[64:])
    finally:
        overwrite(expanded)


def _info(head: bytes, context: Mapping[str, str]) -> bytes:
    return _WRAP_LABEL + head + encode_context(context)


def _unarmoured(data: bytes) -> bytes:
    try:
        lines = [line.strip() for line in data.decode("ascii").strip().splitlines()]
        if lines[0] == _BEGIN and lines[-1] == _END:
            return base64.b64decode("".join(lines[1:-1]), validate=True)
    except (ValueError, IndexError):
        pass
    raise KeystoreFormatError("this is no recovery key of Strongroom, or it is damaged")
