"""Every failure of SQLite becomes one error of ours."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from tests.keyring.keyring_tools import context, subject

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
from strongroom.keyring import Keyring
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


@pytest.mark.parametrize("shared", [False, True])
def test_a_keyring_that_was_opened_for_reading_alone_is_written_at_the_next_attempt(
    ring: Keyring, shared: bool
) -> None:
    """No descriptor left at the wrong moment: one key is refused, the next is made, and all open."""
    ns = ring.create_namespace("company_a")
    before = ring.data_key(ns, subject(1), create=True)
    sealed = before.seal(context(ns), b"text")
    book = ring._book
    assert book._db is not None
    keep = ctypes.c_int(1)  # the log and the shared memory, when the last connection ends
    book._db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
    book._db.close()
    uri, flags = f"file:{book.path}?readonly_shm={int(shared)}", apsw.SQLITE_OPEN_URI
    flags |= apsw.SQLITE_OPEN_READWRITE if shared else apsw.SQLITE_OPEN_READONLY
    book._db = apsw.Connection(uri, flags=flags)
    assert book.newest_key_id()  # reading goes
    with pytest.raises(StorageReadOnlyError):
        ring.data_key(ns, subject(2), create=True)
    after = ring.data_key(ns, subject(2), create=True)
    assert after.key_id > before.key_id
    assert ring.key(before.key_id).open(context(ns), sealed) == b"text"
    assert ring.check() == []
