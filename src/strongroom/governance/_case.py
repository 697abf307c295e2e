"""What an examination looks at: a directory, its configuration, and the machine it stands on."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from strongroom.config import Config
from strongroom.crypto import KeyMemory, SecretKey, key_memory
from strongroom.pages import ProcessMemory, process_memory

KEYRING_NAME: Final = "keyring.db"
WORKER_LOCK_NAME: Final = "worker.lock"


def _free_bytes(path: Path) -> tuple[int, int]:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _probed_key_memory() -> KeyMemory:
    SecretKey.generate()  # so that there is memory to look at
    return key_memory()


@dataclass(frozen=True, slots=True)
class System:
    """The machine, as far as the examination asks it; tests put another in its place."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    limit: Callable[[int], tuple[int, int]] = resource.getrlimit  # soft and hard limit, bytes
    free_bytes: Callable[[Path], tuple[int, int]] = _free_bytes  # free and total
    key_memory: Callable[[], KeyMemory] = _probed_key_memory
    process: Callable[[], ProcessMemory] = process_memory
    proc: Path = field(default_factory=lambda: Path("/proc"))
    sys: Path = field(default_factory=lambda: Path("/sys"))


@dataclass(frozen=True, slots=True)
class Case:
    """One store under examination. ``newest_audit``: opens the store, gives the time of its newest entry."""

    directory: Path
    config: Config
    keys: Path
    system: System
    newest_audit: Callable[[], datetime | None] | None = None

    @property
    def key_file(self) -> Path:
        return self.keys / self.config.keys.key_file

    @property
    def keyring(self) -> Path:
        return self.keys / KEYRING_NAME

    @property
    def certificate(self) -> Path:
        return self.keys / self.config.server.certificate

    @property
    def private_key(self) -> Path:
        return self.keys / self.config.server.private_key
