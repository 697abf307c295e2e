"""A copy of a store to practise on: its own directory, the same keys, nobody told outside."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from strongroom.config import CONFIG_NAME, AuditConfig, keys_directory, load_config, to_toml
from strongroom.errors import StorageError
from strongroom.kms.files import storage_error


@contextmanager
def drill_copy(directory: Path, place: Path | None = None) -> Iterator[Path]:
    """The data directory of a copy, taken while the store is in use and removed at the end, keys included.

    ``place``: where it is made, the temporary directory without one.

    Raises:
        StorageError: it cannot be copied.
    """
    config = load_config(directory)
    keys = keys_directory(directory, config)
    try:
        root = Path(tempfile.mkdtemp(prefix="strongroom-drill-", dir=place))
    except OSError as e:
        raise storage_error(e, "the place of the drill") from None
    try:
        target = root / "data"
        for source, copy in ((keys, root / "data.keys"), (directory, target)):  # keys first: they only grow
            copy.mkdir(mode=0o700)
            _copy(source, copy)
        quiet = dataclasses.replace(
            config, keys=dataclasses.replace(config.keys, directory=""), audit=AuditConfig()
        )
        (target / CONFIG_NAME).write_text(to_toml(quiet), "utf-8")
        yield target
    except OSError as e:
        raise storage_error(e, "the copy for the drill") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_symlink() or not file.is_file() or file.name.endswith(("-wal", "-shm")):
            continue
        if file.suffix == ".db":
            _back_up(file, target / file.name)
        elif file.name != CONFIG_NAME:
            shutil.copyfile(file, target / file.name)
        if (target / file.name).exists():
            (target / file.name).chmod(0o600)


def _back_up(source: Path, target: Path) -> None:
    """A consistent copy of a database that others write to."""
    try:
        target.touch(mode=0o600)
        there = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
        here = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with here.backup("main", there, "main") as copy:
                while not copy.done:
                    copy.step(10_000)
        finally:
            here.close(True)
            there.close(True)
    except apsw.Error as e:
        raise StorageError(f"{source.name} cannot be copied ({type(e).__name__})") from None
