"""Which files are a ledger, of which version, and how an older one becomes a newer one."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, assert_whole, memory

from strongroom.errors import (
    SchemaVersionError,
    StorageCorruptError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
    StrongroomError,
)
from strongroom.ledger import SqliteLedger, WriteBatch, _schema

ID = b"i" * 16


def make(directory: Path) -> Path:
    with SqliteLedger.create(directory, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1], puts=[memory(1, ID)]))
    return directory / "ledger.db"


def edit(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def version_of(path: Path) -> object:
    connection = apsw.Connection(str(path))
    value = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").get
    connection.close()
    return value


def test_create_refuses_an_existing_ledger_and_open_a_missing_one(tmp_path: Path) -> None:
    """Neither overwrites nor invents; a missing directory is an error of the tree."""
    with pytest.raises(StoreNotFoundError):
        SqliteLedger.open(tmp_path, SumHooks())
    make(tmp_path)
    with pytest.raises(StoreExistsError):
        SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks())
    with pytest.raises(StrongroomError):
        SqliteLedger.create(tmp_path / "nowhere", uuid.uuid4(), SumHooks())
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.db"]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hard links are refused the draft is renamed; other refusals stay errors and leave nothing."""

    def refuse(number: int) -> None:
        def link(*_: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(os, "link", link)

    refuse(errno.EIO)
    with pytest.raises(StorageError):
        SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks())
    assert list(tmp_path.iterdir()) == []
    refuse(errno.EPERM)
    make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.db"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    """application_id, WAL, and the first schema version; every index and key leads with the namespace."""
    path = make(tmp_path)
    connection = apsw.Connection(str(path))
    assert connection.pragma("application_id") == _schema.APPLICATION_ID
    assert connection.pragma("journal_mode") == "wal"
    leads = {
        connection.execute(f"SELECT name FROM pragma_index_info('{name}') WHERE seqno = 0").get
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")
        if not name.startswith("sqlite_")
    }
    assert leads == {"ns"}
    connection.close()
    assert version_of(path) == len(_schema.MIGRATIONS)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE meta",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE key = 'schema_version'",
        "UPDATE meta SET value = 'x' WHERE key = 'store_id'",
        "PRAGMA application_id = 1",
    ],
)
def test_a_foreign_database_is_refused(tmp_path: Path, sql: str) -> None:
    """A database that is no ledger is corrupt to us, whatever else it may be."""
    path = make(tmp_path)
    edit(path, sql)
    with pytest.raises(StorageCorruptError):
        SqliteLedger.open(tmp_path, SumHooks())


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"hello" * 1000, bytes(8192)])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, cut off, text, or zeros."""
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(StorageCorruptError):
        SqliteLedger.open(tmp_path, SumHooks())


def test_a_newer_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A ledger of a later version is not touched by this program."""
    path = make(tmp_path)
    edit(path, "UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    with pytest.raises(SchemaVersionError, match="99"):
        SqliteLedger.open(tmp_path, SumHooks())
    assert version_of(path) == 99


def _add_column(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE namespace ADD COLUMN added INTEGER NOT NULL DEFAULT 5")


def _fail_halfway(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE half (x)")
    raise StorageCorruptError


def test_an_older_ledger_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two synthetic versions on top of a ledger with rows: both steps run once, the rows are there."""
    path = make(tmp_path)
    steps: list[int] = []

    def third(connection: apsw.Connection) -> None:
        steps.append(3)
        connection.execute("CREATE TABLE extra (x INTEGER) STRICT")

    later = (*_schema.MIGRATIONS, _add_column, third)
    monkeypatch.setattr(_schema.verify_file, "__defaults__", (later,))
    monkeypatch.setattr(_schema.migrate, "__defaults__", (later,))
    for _ in range(2):
        with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
            assert ledger.get(1, ID) is not None
            assert_whole(ledger)
    assert steps == [3]
    assert version_of(path) == len(_schema.MIGRATIONS) + 2
    (tmp_path / "new").mkdir()
    assert version_of(make(tmp_path / "new")) == len(_schema.MIGRATIONS) + 2


def test_a_failing_migration_leaves_the_older_version(tmp_path: Path) -> None:
    """A step that fails halfway is undone as a whole; the steps before it stand."""
    path = make(tmp_path)
    connection = apsw.Connection(str(path))
    with pytest.raises(StorageCorruptError):
        _schema.migrate(connection, (*_schema.MIGRATIONS, _add_column, _fail_halfway))
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").get == 0
    assert connection.execute("SELECT added FROM namespace").get == 5
    connection.close()
    assert version_of(path) == len(_schema.MIGRATIONS) + 1


def test_every_damaged_page_is_an_error_of_the_tree_or_a_finding(tmp_path: Path) -> None:
    """Pages overwritten one at a time: all calls raise only our errors, and the check sees it."""
    path = make(tmp_path)
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        puts = [memory(1, os.urandom(16), sealed=os.urandom(1000)) for _ in range(60)]
        ledger.commit(WriteBatch(puts=puts, audit=[b"x"]))
    whole = path.read_bytes()
    for start in range(0, len(whole), 8192):
        path.write_bytes(whole[:start] + os.urandom(8192) + whole[start + 8192 :])
        found = 0
        try:
            with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
                found = len(ledger.check())
                list(ledger.iter_changes(1))
                ledger.commit(WriteBatch(puts=[puts[0]._replace(version=2)]))
        except StorageCorruptError:
            found += 1
        assert found, f"page {start // 8192 + 1} may be anything"
