"""Every failure of SQLite becomes one error of ours."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from strongroom.errors import (
    ConflictError,
    InternalError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
    StrongroomError,
)
from strongroom.keyring._sqlite import translated

EXPECTED = {
    apsw.FullError: StorageFullError,
    apsw.ReadOnlyError: StorageReadOnlyError,
    apsw.CantOpenError: StorageReadOnlyError,
    apsw.PermissionsError: StorageReadOnlyError,
    apsw.BusyError: StorageBusyError,
    apsw.LockedError: StorageBusyError,
    apsw.CorruptError: StorageCorruptError,
    apsw.NotADBError: StorageCorruptError,
    apsw.ConstraintError: ConflictError,
    apsw.SQLError: InternalError,
    apsw.ThreadingViolationError: InternalError,
    apsw.IOError: StorageError,
    apsw.NoMemError: StorageError,
}


@pytest.mark.parametrize("foreign", list(EXPECTED), ids=lambda c: c.__name__)
def test_translation(tmp_path: Path, foreign: type[apsw.Error]) -> None:
    """Each class of apsw becomes its class of ours, without a chained cause and without its text."""
    with pytest.raises(EXPECTED[foreign]) as info, translated(tmp_path / "keyring.db"):
        raise foreign("a text with secrets")
    assert type(info.value) is EXPECTED[foreign]
    assert info.value.__cause__ is None
    assert "secrets" not in str(info.value)


def test_every_error_of_apsw_is_translated(tmp_path: Path) -> None:
    """No class of apsw crosses the door."""
    found = [c for c in vars(apsw).values() if isinstance(c, type) and issubclass(c, apsw.Error)]
    assert len(found) > 20
    for foreign in found:
        with pytest.raises(StrongroomError), translated(tmp_path / "keyring.db"):
            raise foreign


def test_io_error_on_a_full_disk_is_storage_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's I/O error on a disk without a free block is storage_full."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_favail=9, f_files=9))
    with pytest.raises(StorageFullError), translated(tmp_path / "keyring.db"):
        raise apsw.IOError
