"""A disk under both files of a store that fails at its n-th write, or is copied as it is then."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw


class Disk:
    """Counts writes, syncs and truncations; ``fail_at``: from that one on all fail until ``heal``."""

    def __init__(self) -> None:
        self.count = 0
        self.fail_at: int | None = None
        self.before: Callable[[int], None] = lambda n: None

    def arm(self, fail_at: int | None = None, before: Callable[[int], None] = lambda n: None) -> None:
        self.count, self.fail_at, self.before = 0, fail_at, before

    def heal(self) -> None:
        self.arm()

    def step(self) -> None:
        self.count += 1
        self.before(self.count)
        if self.fail_at is not None and self.count >= self.fail_at:
            raise apsw.FullError("no space") from OSError(errno.ENOSPC, "no space")


class _File(apsw.VFSFile):
    def __init__(self, name: object, flags: list[int], disk: Disk) -> None:
        super().__init__("unix", name, flags)  # type: ignore[arg-type]
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.step()
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._disk.step()
        super().xTruncate(size)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, base="unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # type: ignore[override]
        return _File(name, flags, self._disk)


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    """Every file that SQLite opens meanwhile is on this disk."""
    disk = Disk()
    vfs = _Vfs(f"rotation-{uuid.uuid4().hex}", disk)
    try:
        yield disk
    finally:
        vfs.unregister()


def copy_store(data: Path, target: Path) -> Path:
    """The files as a process that is killed now leaves them; shared memory dies with it."""
    for source, name in ((data, "data"), (data.with_name(data.name + ".keys"), "data.keys")):
        place = target / name
        place.mkdir(parents=True, mode=0o700)
        for file in source.iterdir():
            if file.is_file() and not file.name.endswith("-shm"):
                shutil.copy2(file, place / file.name)
    return target / "data"
