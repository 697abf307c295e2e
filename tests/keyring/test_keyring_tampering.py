"""A writer of the disk against the keyring: what is detected when, by use and by check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from tests.keyring.keyring_tools import Keys, context, flipped, subject

from strongroom.errors import (
    IntegrityError,
    KeyManagementError,
    KeyringMismatchError,
    KeyStateError,
    StorageCorruptError,
    StorageError,
    UnwrapError,
)
from strongroom.keyring import KeyNote, Keyring, KeyState
from strongroom.keyring._rows import DataRow
from strongroom.model.finding import Severity


@pytest.fixture
def made(keys: Keys) -> Keys:
    """Namespaces 1 and 2, each with subjects 1 and 2; data keys 3, 4 and 5, 6 (1, 2 and 5 are own keys)."""
    ring = keys.create()
    for tenant in ("company_a", "company_b"):
        ns = ring.create_namespace(tenant)
        for n in (1, 2):
            ring.data_key(ns, subject(n), create=True)
    ring.close()
    return keys


def ids(keys: Keys) -> dict[tuple[int, bytes], int]:
    return {(ns, s): k for k, ns, s in keys.sql("SELECT key_id, ns, subject FROM data_keys")}


def assert_told(ring: Keyring, code: str, where: str | None = None) -> None:
    """The check tells of the damage at its place."""
    found = ring.check()
    assert [
        f for f in found if f.severity is Severity.ERROR and f.code == code and where in (None, f.where)
    ], found


@pytest.mark.parametrize("column", ["wrapped", "mac", "subject"])
def test_every_flipped_byte_of_a_data_row(made: Keys, column: str) -> None:
    """Every flipped byte of a wrapped data key, its MAC or its subject is refused and told."""
    key_id = ids(made)[1, subject(1)]
    (good,) = made.sql(f"SELECT {column} FROM data_keys WHERE key_id = ?", (key_id,))[0]
    ring = made.open()
    for at in range(len(good)):
        made.sql(f"UPDATE data_keys SET {column} = ? WHERE key_id = ?", (flipped(good, at), key_id))
        with pytest.raises(UnwrapError) as info:
            ring.key(key_id)
        assert info.value.hint
        if at % 16 == 0:
            assert_told(ring, "unwrap_failed", f"data key {key_id}")
    made.sql(f"UPDATE data_keys SET {column} = ? WHERE key_id = ?", (good, key_id))
    ring.key(key_id)
    assert ring.check() == []


@pytest.mark.parametrize("column", ["mac", "tenant"])
def test_every_flipped_byte_of_a_namespace_row(made: Keys, column: str) -> None:
    """Every flipped byte of a wrapped namespace key, its MAC or its sealed tenant is refused."""
    (good,) = made.sql(f"SELECT {column} FROM namespace_keys WHERE ns = 1")[0]
    ring = made.open()
    for at in range(len(good)):
        made.sql(f"UPDATE namespace_keys SET {column} = ? WHERE ns = 1", (flipped(good, at),))
        with pytest.raises(UnwrapError):
            ring.data_key(1, None, create=False)
    assert_told(ring, "unwrap_failed", "key of namespace 1, version 1")
    made.sql(f"UPDATE namespace_keys SET {column} = ? WHERE ns = 1", (good,))
    ring.data_key(1, None, create=False)


@pytest.mark.parametrize("column", ["wrapped", "mac"])
@pytest.mark.parametrize("ns", [1, -1])
def test_every_flipped_byte_of_a_wrap(made: Keys, column: str, ns: int) -> None:
    """Every flipped byte of a wrapped namespace key, of the integrity key, or of their MACs is refused."""
    (good,) = made.sql(f"SELECT {column} FROM wraps WHERE ns = ?", (ns,))[0]
    ring = made.open()
    for at in range(len(good)):
        made.sql(f"UPDATE wraps SET {column} = ? WHERE ns = ?", (flipped(good, at), ns))
        with pytest.raises(UnwrapError):
            ring.data_key(1, None, create=False) if ns == 1 else made.open()
    assert_told(ring, "unwrap_failed")
    made.sql(f"UPDATE wraps SET {column} = ? WHERE ns = ?", (good, ns))
    made.open().data_key(1, None, create=False)


NUMBERS = (
    [
        ("data_keys", column, value)
        for column in ("ns", "epoch", "state", "namespace_version", "created_us")
        for value in (0, 3, 5, 7, -1, 2**62)
    ]
    + [
        ("namespace_keys", column, value)
        for column in ("state", "master_version", "created_us")
        for value in (1, 3, 7, -1, 2**62)
    ]
    + [
        ("wraps", column, value)
        for column in ("version", "place", "master_version", "created_us")
        for value in (0, 7, -1, 2**62)
    ]
)


@pytest.mark.parametrize(("table", "column", "value"), NUMBERS)
def test_every_edited_number_of_a_row(made: Keys, table: str, column: str, value: int) -> None:
    """Namespace, epoch, state, version and time of a row are bound: an edited one is refused."""
    key_id = ids(made)[1, subject(1)]
    where = f"key_id = {key_id}" if table == "data_keys" else "ns = 1"
    made.sql(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))
    ring = made.open()
    with pytest.raises(UnwrapError):
        ring.key(key_id)
    assert [f for f in ring.check() if f.code == "unwrap_failed"]


def swap(keys: Keys, a: int, b: int, columns: str) -> None:
    rows = {k: keys.sql(f"SELECT {columns} FROM data_keys WHERE key_id = ?", (k,))[0] for k in (a, b)}
    sets = ", ".join(f"{c.strip()} = ?" for c in columns.split(","))
    for k, other in ((a, b), (b, a)):
        keys.sql(f"UPDATE data_keys SET {sets} WHERE key_id = ?", (*rows[other], k))


@pytest.mark.parametrize("columns", ["wrapped", "wrapped, mac", "wrapped, mac, created_us"])
@pytest.mark.parametrize("other", [(1, subject(2)), (2, subject(1)), (1, b"")])
def test_swapped_wrapped_keys(made: Keys, columns: str, other: tuple[int, bytes]) -> None:
    """Wrapped keys that changed places between subjects or namespaces are refused on both sides."""
    a, b = ids(made)[1, subject(1)], ids(made)[other]
    swap(made, a, b, columns)
    ring = made.open()
    for key_id in (a, b):
        with pytest.raises(UnwrapError):
            ring.key(key_id)
        assert_told(ring, "unwrap_failed", f"data key {key_id}")


def test_swapped_rows(made: Keys) -> None:
    """Two subjects whose rows changed numbers are refused: a key's number is bound too."""
    a, b = ids(made)[1, subject(1)], ids(made)[1, subject(2)]
    for old, new in ((a, 1000), (b, a), (1000, b)):
        made.sql("UPDATE data_keys SET key_id = ? WHERE key_id = ?", (new, old))
    ring = made.open()
    with pytest.raises(UnwrapError):
        ring.key(a)
    with pytest.raises(UnwrapError):
        ring.data_key(1, subject(1), create=True)


def test_forged_mac_alone_does_not_help(made: Keys) -> None:
    """Swapped wrapped keys with genuine MACs made for them still do not unwrap: the wrap binds its row."""
    a, b = ids(made)[1, subject(1)], ids(made)[1, subject(2)]
    swap(made, a, b, "wrapped")
    ring = made.open()
    for key_id in (a, b):
        row = ring._book.rows(
            "SELECT key_id, ns, subject, epoch, state, namespace_version, created_us, wrapped "
            "FROM data_keys WHERE key_id = ?",
            (key_id,),
        )[0]
        forged = DataRow(*row).authenticated(ring._book.row_key)
        made.sql("UPDATE data_keys SET mac = ? WHERE key_id = ?", (forged.mac, key_id))
        with pytest.raises(UnwrapError):
            ring.key(key_id)


def test_swapped_namespace_keys(made: Keys) -> None:
    """Two namespace keys that changed places are refused, also when tenant or MAC move along."""
    for table, columns in (
        ("wraps", "wrapped"),
        ("wraps", "wrapped, mac"),
        ("namespace_keys", "tenant"),
        ("namespace_keys", "tenant, mac"),
    ):
        rows = dict(enumerate(made.sql(f"SELECT {columns} FROM {table} WHERE ns IN (1, 2) ORDER BY ns"), 1))
        sets = ", ".join(f"{c.strip()} = ?" for c in columns.split(","))
        for ns in (1, 2):
            made.sql(f"UPDATE {table} SET {sets} WHERE ns = {ns}", rows[3 - ns])
        ring = made.open()
        for ns in (1, 2):
            with pytest.raises(UnwrapError):
                ring.data_key(ns, None, create=False)
        for ns in (1, 2):
            made.sql(f"UPDATE {table} SET {sets} WHERE ns = {ns}", rows[ns])
    assert made.open().check() == []


def test_destroyed_cannot_be_edited_back(made: Keys) -> None:
    """A state edited from destroyed to active brings nothing back and is refused."""
    ring = made.open()
    key_id = ids(made)[1, subject(1)]
    ring.destroy_data_key(key_id)
    made.sql("UPDATE data_keys SET state = 2 WHERE key_id = ?", (key_id,))
    with pytest.raises(UnwrapError):
        made.open().key(key_id)


def whole_row(keys: Keys, key_id: int) -> tuple[Any, ...]:
    return keys.sql("SELECT * FROM data_keys WHERE key_id = ?", (key_id,))[0]


def put_back(keys: Keys, row: tuple[Any, ...]) -> None:
    keys.sql(f"INSERT OR REPLACE INTO data_keys VALUES ({', '.join('?' * 9)})", row)


def disable(ring: Keyring, key_id: int) -> None:
    ring.rotate_data_key(1, subject(1))
    ring.disable_data_key(key_id)


@pytest.mark.parametrize("act", [disable, Keyring.destroy_data_key])
def test_an_old_row_put_back_is_told_by_check(made: Keys, act: Callable[[Keyring, int], None]) -> None:
    """The genuine old row of a key that was disabled or destroyed since is told by check as tampered."""
    key_id = ids(made)[1, subject(1)]
    old = whole_row(made, key_id)
    ring = made.open()
    act(ring, key_id)
    assert ring.check() == []
    made.sql("DROP INDEX data_active")
    put_back(made, old)
    assert_told(ring, "tampered")


def test_removed_and_added_rows_are_told_by_check(made: Keys) -> None:
    """A removed row, and a genuine row of an earlier time added again, are told by check as tampered."""
    key_id = ids(made)[2, subject(2)]
    old = whole_row(made, key_id)
    ring = made.open()
    made.sql("DELETE FROM data_keys WHERE key_id = ?", (key_id,))
    assert_told(ring, "tampered")
    with pytest.raises(KeyStateError):
        ring.key(key_id)
    put_back(made, old)
    assert ring.check() == []
    made.sql("DELETE FROM namespace_keys WHERE ns = 2")
    assert_told(ring, "tampered")


@pytest.mark.parametrize(
    ("column", "value"), [("rows", 1), ("generation", 99), ("rows", -1), ("sum", b"\0" * 106)]
)
def test_altered_head_stops_writing(made: Keys, column: str, value: object) -> None:
    """With an altered head no key is made or changed, and check tells."""
    ring = made.open(recheck_ms=3_600_000)
    ring.data_key(1, None, create=False)
    made.sql(f"UPDATE head SET {column} = ?", (value,))
    with pytest.raises(UnwrapError):
        ring.data_key(1, subject(50), create=True)
    assert (1, subject(50)) not in ids(made)
    assert_told(ring, "unwrap_failed")
    with pytest.raises(UnwrapError):
        made.open()


META = ["created_us = created_us + 1", "mac = zeroblob(32)", "mac = x''"]
MASTER = ["key_uri = 'local:00'", "provider = 'aws'", "kms_version = 2", "version = 5", "kms_version = -1"]


@pytest.mark.parametrize(
    "statement",
    [f"UPDATE meta SET {s}" for s in META]
    + [f"UPDATE master_keys SET {s}" for s in MASTER]
    + ["DELETE FROM master_keys", "INSERT INTO master_keys VALUES (2, 'local', 'x', 1, 1)"],
)
def test_altered_meta_is_keyring_mismatch(made: Keys, statement: str) -> None:
    """Every edit of the keyring's description is refused at open as keyring_mismatch."""
    made.sql(statement)
    with pytest.raises(KeyringMismatchError):
        made.open()


def test_meta_of_another_store(made: Keys, tmp_path: Any) -> None:
    """Meta rows copied from another store's keyring are refused, with the store's id rewritten too."""
    other = Keys(tmp_path / "other.keys", store_id=uuid4())
    other.create().close()
    (row,) = other.sql("SELECT store_id, created_us, integrity_key, mac FROM meta")
    made.sql("UPDATE meta SET store_id = ?, created_us = ?, integrity_key = ?, mac = ?", row)
    with pytest.raises(KeyringMismatchError):
        made.open()
    made.sql("UPDATE meta SET store_id = ?", (made.store_id.bytes,))
    with pytest.raises(KeyManagementError):
        made.open()
    other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER UPDATE ON data_keys BEGIN DELETE FROM data_keys; END",
        "CREATE VIEW v AS SELECT * FROM data_keys",
        "CREATE TABLE more (x)",
        "DROP INDEX data_active",
    ],
)
def test_foreign_tables_are_refused(made: Keys, statement: str) -> None:
    """A trigger, view or table from outside, or a missing index, is refused at open."""
    made.sql(statement)
    with pytest.raises(StorageCorruptError):
        made.open()


def test_errors_hold_no_key_bytes(made: Keys) -> None:
    """The error of an altered row names neither bytes nor subject, and chains no cause."""
    key_id = ids(made)[1, subject(1)]
    made.sql("UPDATE data_keys SET wrapped = zeroblob(106) WHERE key_id = ?", (key_id,))
    with pytest.raises(UnwrapError) as info:
        made.open().key(key_id)
    assert info.value.__cause__ is None
    assert not isinstance(info.value, IntegrityError)
    assert subject(1).hex() not in str(info.value)


def test_damaged_pages(made: Keys) -> None:
    """A flipped byte at any of 400 places of the file gives a typed error or a finding, or is idle."""
    good = made.path.read_bytes()
    reference = {k: r for k, *r in made.sql("SELECT * FROM data_keys")}
    for n in range(400):
        at = n * (len(good) // 400)
        made.path.write_bytes(flipped(good, at))
        for suffix in ("-wal", "-shm"):
            made.path.with_name(made.path.name + suffix).unlink(missing_ok=True)
        try:
            ring = made.open()
        except (KeyManagementError, StorageError):
            continue
        try:
            if not ring.check():
                assert {k: r for k, *r in ring._book.rows("SELECT * FROM data_keys")} == reference
        finally:
            ring.close()
    made.path.write_bytes(good)


def test_a_sound_keyring_has_no_findings(made: Keys) -> None:
    """The check of an untouched keyring with keys in every state finds nothing."""
    ring = made.open()
    ring.rotate_data_key(1, subject(1))
    ring.rotate_data_key(1, subject(1))
    ring.disable_data_key(ring.list_keys(1)[1].key_id)
    ring.destroy_data_key(ids(made)[2, subject(2)])
    ring.rotate_data_key(2, None)
    ring.set_state(ring.key_ids_of(2, b"")[0], KeyState.COMPROMISED, KeyNote("test", "exposed"))
    assert {k.state for k in ring.list_keys()} == set(KeyState)
    assert ring.check() == []
    ring.data_key(1, None, create=False).seal(context(1), b"x")
    assert ring.check() == []
