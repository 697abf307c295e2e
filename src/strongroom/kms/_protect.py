"""A master key as the body of a key file: bare, or encrypted under a passphrase (spec/keystore.md)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from strongroom.crypto import SecretKey, new_password_header, password_kdf, unwrap_key, wrap_key
from strongroom.crypto.danger import expose, overwrite
from strongroom.errors import InvalidInputError, UnwrapError
from strongroom.kms._keyfile import MAGIC, NO_PASSWORD, KeyFile

PASSPHRASE_CHARACTERS_MIN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PassphraseCost:
    """What one guess of the passphrase costs: Argon2id; the default is RFC 9106's second choice (section 4).

    The bounds are those of ``crypto.new_password_header``: 19 MiB to 2 GiB, 2 to 16 iterations, 1 to
    16 lanes; checked when written and again when read, before anything is allocated.
    """

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4


def protect(
    secret: SecretKey,
    *,
    store_id: bytes,
    key_id: bytes,
    passphrase: str | None,
    cost: PassphraseCost | None = None,
    magic: bytes = MAGIC,
) -> KeyFile:
    """A key file of ``secret``, encrypted when there is a passphrase.

    Raises:
        InvalidInputError: the passphrase is too short or too long, or its cost out of bounds.
    """
    if passphrase is None:
        return KeyFile(
            store_id=store_id,
            key_id=key_id,
            password_header=NO_PASSWORD,
            body=expose(secret),
            magic=magic,
        )
    if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise InvalidInputError(f"a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters")
    cost = cost or PassphraseCost()
    header = new_password_header(memory_kib=cost.memory_kib, iterations=cost.iterations, lanes=cost.lanes)
    file = KeyFile(store_id=store_id, key_id=key_id, password_header=header, body=b"", magic=magic)
    wrapped = wrap_key(password_kdf(passphrase, header), secret, file.header())
    return dataclasses.replace(file, body=wrapped)


def reveal(file: KeyFile, passphrase: str | None, hint: str) -> SecretKey:
    """The secret in a key file; ``hint``: how a passphrase is given.

    Raises:
        UnwrapError: the passphrase is wrong, missing, or not asked for.
    """
    if not file.protected:
        if passphrase is not None:
            raise UnwrapError(
                "the key file is not protected by a passphrase, but one was given",
                hint="give no passphrase, or restore the protected key file",
            )
        secret = SecretKey.from_bytes(file.body)
        overwrite(file.body)
        return secret
    if passphrase is None:
        raise UnwrapError("the key file is protected by a passphrase and none was given", hint=hint)
    try:
        return unwrap_key(password_kdf(passphrase, file.password_header), file.body, file.header())
    except (UnwrapError, InvalidInputError):
        raise UnwrapError("the passphrase is wrong") from None
