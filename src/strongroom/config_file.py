"""``strongroom.toml`` as a file: read whole, and only if the environment does not name others.

Whoever can write the data directory must not be able to choose where texts are sent to be embedded or whose
tokens are taken; the environment of the process is not theirs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigurationError, StoreNotFoundError

CONFIG_NAME: Final = "strongroom.toml"
BYTES_MAX: Final = 1 << 20
DIGESTS_VARIABLE: Final = "STRONGROOM_CONFIG_SHA256"  # hexadecimal, separated by spaces or commas


def read_config_file(directory: Path) -> str:
    """The text of the configuration of a data directory.

    Raises:
        StoreNotFoundError: there is none. ConfigurationError: it cannot be read, or is none of those that
        ``STRONGROOM_CONFIG_SHA256`` names.
    """
    try:
        raw = _read(directory / CONFIG_NAME)
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise StoreNotFoundError(f"there is no store in {directory}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{CONFIG_NAME} cannot be read: {type(e).__name__}") from None
    named = os.environ.get(DIGESTS_VARIABLE)
    if named is not None and not _is_one_of(raw, named.replace(",", " ").lower().split()):
        raise ConfigurationError(
            f"{CONFIG_NAME} is not one of those that {DIGESTS_VARIABLE} names",
            hint=f"look at what was changed; sha256sum {CONFIG_NAME} gives the digest of one that you trust",
        )
    return text


def _read(path: Path) -> bytes:
    """The bytes of a file. Not of what would keep the reader waiting, or never end.

    Raises:
        OSError. ConfigurationError: it is no file, or a huge one.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"{CONFIG_NAME} is not a file")
        raw = file.read(BYTES_MAX + 1)
    if len(raw) > BYTES_MAX:
        raise ConfigurationError(f"{CONFIG_NAME} is too large", hint=f"at most {BYTES_MAX} bytes")
    return raw


def _is_one_of(raw: bytes, digests: list[str]) -> bool:
    digest = hashlib.sha256(raw).hexdigest().encode()
    return any(hmac.compare_digest(digest, os.fsencode(known)) for known in digests)


def usable(directory: Path) -> Path:
    """The directory with its whole name.

    Raises:
        ConfigurationError: it is the root, or its name is too long, not UTF-8 or holds a zero: SQLite opens
        none of these.
    """
    try:
        whole = directory.resolve()
        whole.with_name(f"{whole.name}.keys").as_posix().encode()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # whoever opens it says so
            whole.with_name(f"{whole.name}.keys").lstat()
    except (ValueError, OSError):
        raise ConfigurationError(
            "a directory of the store has a name that cannot be used",
            hint="give it one in UTF-8, of at most 250 bytes, and not that of the root",
        ) from None
    return whole
