"""The directory of attribute policies: its files, and whether they have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigurationError

__all__ = ["SUFFIX", "Stamp", "is_fresh", "policy_directory", "read_policies", "stamp_of"]

SUFFIX: Final = ".cedar"
FILES_MAX: Final = 256
FILE_BYTES_MAX: Final = 1024 * 1024
_FRESH_NS: Final = 2_000_000_000
Stamp = tuple[tuple[str, int, int, int, int], ...]


def policy_directory(data: Path, setting: str) -> Path:
    """Where the policies are; a relative path starts at the data directory."""
    return data / setting


def read_policies(directory: Path) -> dict[str, bytes]:
    """The policy files by name.

    Raises:
        ConfigurationError: the directory or a file of it cannot be read, or there are too many.
    """
    try:
        names = sorted(e.name for e in os.scandir(directory) if e.name.endswith(SUFFIX))
        if len(names) > FILES_MAX:
            raise ConfigurationError(f"more than {FILES_MAX} policy files")
        found: dict[str, bytes] = {}
        for name in names:
            with (directory / name).open("rb") as file:
                found[name] = file.read(FILE_BYTES_MAX + 1)
        return found
    except OSError as e:
        raise ConfigurationError(f"the policies cannot be read: {type(e).__name__}") from None


def stamp_of(directory: Path) -> Stamp | None:
    """What tells that a file has changed, or come or gone; None: it cannot be told."""
    try:
        own = directory.stat()
        found = [("", own.st_mtime_ns, own.st_ctime_ns, 0, own.st_ino)]
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    s = entry.stat()
                    found.append((entry.name, s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino))
        return tuple(sorted(found))
    except OSError:
        return None


def is_fresh(stamp: Stamp) -> bool:
    """Whether a file was changed so lately that somebody may be writing still."""
    return any(max(m, c) + _FRESH_NS > time.time_ns() for _, m, c, _, _ in stamp)
