"""Namespaces, data keys, handles, and the errors of a keyring that is missing, foreign or locked away."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from tests.keyring.keyring_tools import STORE, Keys, context, random_subjects, subject

from strongroom.crypto import CHACHA20_POLY1305, sealed_header
from strongroom.crypto.danger import expose
from strongroom.errors import (
    ClosedError,
    DecryptionError,
    InvalidInputError,
    KeyringMismatchError,
    KeyringMissingError,
    KeyStateError,
    KeystoreMissingError,
    KeystorePermissionError,
    LimitExceededError,
    NotFoundError,
    SchemaVersionError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
    StoreExistsError,
    UnwrapError,
)
from strongroom.keyring import DataKey, Keyring, KeyState
from strongroom.keyring._handles import secret_of
from strongroom.kms import LocalKeystore


def test_round_trip_over_a_restart(keys: Keys) -> None:
    """What was sealed under a subject's key opens after the keyring was closed and opened again."""
    ring = keys.create()
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, subject(1), create=True)
    sealed = key.seal(context(ns), b"a memory")
    assert sealed_header(sealed)[1] == key.key_id
    ring.close()
    again = keys.open().key(key.key_id)
    assert (again.key_id, again.ns, again.epoch) == (key.key_id, ns, 1)
    assert again.open(context(ns), sealed) == b"a memory"


def test_namespaces_are_numbered(keys: Keys) -> None:
    """The system is 0, the others count from 1, and each remembers its tenant over a restart."""
    ring = keys.create()
    assert [ring.create_namespace(t) for t in ("a", "b", "a")] == [1, 2, 3]
    assert [ring.tenant(n) for n in range(4)] == ["", "a", "b", "a"]
    ring.close()
    again = keys.open()
    assert [(r.ns, r.tenant, r.state) for r in again.list_namespaces()] == [
        (n, t, KeyState.ACTIVE) for n, t in enumerate(("", "a", "b", "a"))
    ]


def test_keys_differ(keys: Keys) -> None:
    """Each namespace, each subject and each namespace's own key are different random keys."""
    ring = keys.create()
    a, b = ring.create_namespace("a"), ring.create_namespace("b")
    found = [ring.data_key(n, s, create=True) for n in (0, a, b) for s in (None, subject(1), subject(2))]
    assert len({k.key_id for k in found}) == 9
    assert len({expose(secret_of(k)) for k in found}) == 9
    assert ring.data_key(a, subject(1), create=False) is found[4]


def test_kms_is_asked_once_per_namespace(keys: Keys) -> None:
    """Opening asks once, each namespace once on first need with its whole context, records never."""
    ring = keys.create()
    ns, other = ring.create_namespace("company_a"), ring.create_namespace("company_b")
    sealed = {n: ring.data_key(n, subject(1), create=True).seal(context(n), b"x") for n in (ns, other)}
    ring.close()
    keys.kms.unwraps.clear()
    ring = keys.open()
    assert [c["purpose"] for c in keys.kms.unwraps] == ["keyring-integrity"]
    for _ in range(3):
        for s in random_subjects(5):
            ring.data_key(ns, s, create=True).seal(context(ns), b"x")
        ring.key(sealed_header(sealed[ns])[1]).open(context(ns), sealed[ns])
        ring.purpose_key(ns, "head")
    assert keys.kms.unwraps[1:] == [
        {
            "store_id": str(STORE),
            "tenant": "company_a",
            "namespace": str(ns),
            "key_version": "1",
            "purpose": "namespace-key",
        }
    ]
    ring.data_key(other, None, create=False)
    assert len(keys.kms.unwraps) == 3


def test_purpose_keys(keys: Keys) -> None:
    """A purpose key is the same over restarts and rotation, and differs by namespace and label."""
    ring = keys.create()
    a, b = ring.create_namespace("a"), ring.create_namespace("b")
    one = ring.purpose_key(a, "head").mac(b"")
    assert len({one, ring.purpose_key(a, "subject").mac(b""), ring.purpose_key(b, "head").mac(b"")}) == 3
    ring.rotate_data_key(a, None)
    assert ring.purpose_key(a, "head").mac(b"") == one
    ring.close()
    assert keys.open().purpose_key(a, "head").mac(b"") == one


def test_data_keys_makes_and_finds_many(keys: Keys) -> None:
    """Many subjects at once: known ones keep their keys, repeated ones count once, new ones last."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    old = ring.data_key(ns, subject(7), create=True)
    many = random_subjects(500)
    found = ring.data_keys(ns, [*many, subject(7), many[0]])
    assert len(found) == 501
    assert found[subject(7)] is old
    ring.close()
    again = keys.open().data_keys(ns, many)
    assert {s: k.key_id for s, k in again.items()} == {s: found[s].key_id for s in many}


def test_data_keys_is_one_transaction(keys: Keys) -> None:
    """When the disk fills up in the middle of many keys, none of them exists afterwards."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    db = ring._book.db
    pages = db.execute("PRAGMA page_count").get
    db.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StorageFullError) as info:
        ring.data_keys(ns, random_subjects(2000))
    assert info.value.hint
    assert len(ring.list_keys(ns)) == 1
    db.execute("PRAGMA max_page_count = 1000000")
    assert len(ring.data_keys(ns, random_subjects(2000))) == 2000
    assert ring.check() == []


def test_bad_input(keys: Keys) -> None:
    """Subjects that are not 32 bytes, unknown namespaces and keys, empty tenants: each has its error."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    for bad in (b"", b"x" * 31, b"x" * 33, "x" * 32):
        with pytest.raises(InvalidInputError):
            ring.data_key(ns, bad, create=True)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            ring.data_keys(ns, [bad])  # type: ignore[list-item]
    for unknown in (99, -1, 2**63):
        with pytest.raises(KeyStateError):
            ring.data_key(unknown, None, create=True)
        with pytest.raises(KeyStateError):
            ring.purpose_key(unknown, "head")
    for key_id in (0, -1, 999, 2**32, 2**70):
        with pytest.raises(KeyStateError):
            ring.key(key_id)
        with pytest.raises(KeyStateError):
            ring.destroy_data_key(key_id)
    for tenant in ("", "x" * 1025):
        with pytest.raises(InvalidInputError):
            ring.create_namespace(tenant)
    with pytest.raises(NotFoundError):
        ring.data_key(ns, subject(1), create=False)
    with pytest.raises(LimitExceededError):
        ring.data_keys(ns, [b""] * 100_001)
    with pytest.raises(InvalidInputError):
        ring.count_uses(1, 0)
    for key_id in (0, 999, 2**70):
        with pytest.raises(KeyStateError):
            ring.count_uses(key_id)
    assert ring.list_keys(2**70) == []


def test_context_of_another_namespace(keys: Keys) -> None:
    """A handle seals only for its own namespace, and a record of another one does not open."""
    ring = keys.create()
    a, b = ring.create_namespace("a"), ring.create_namespace("b")
    key = ring.data_key(a, None, create=False)
    with pytest.raises(InvalidInputError):
        key.seal(context(b), b"x")
    sealed = key.seal(context(a), b"x")
    with pytest.raises(DecryptionError):
        key.open(context(b), sealed)
    with pytest.raises(DecryptionError):
        ring.data_key(b, None, create=False).open(context(b), sealed)


def test_suite_of_new_records(keys: Keys) -> None:
    """The suite that a keyring is opened with stands in what it seals; an unknown one is refused."""
    keys.create().close()
    ring = keys.open(suite=CHACHA20_POLY1305)
    sealed = ring.data_key(0, None, create=False).seal(context(0), b"x")
    assert sealed_header(sealed)[0] == CHACHA20_POLY1305
    with pytest.raises(InvalidInputError):
        keys.open(suite=99)


def test_handles_show_nothing(keys: Keys) -> None:
    """A handle cannot be made, pickled or copied, and neither its repr nor a record's shows key bytes."""
    ring = keys.create()
    key = ring.data_key(0, None, create=False)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)
    with pytest.raises(TypeError):
        DataKey()
    raw = expose(secret_of(key))
    shown = repr(key) + str(key) + repr(ring) + repr(ring.list_keys()) + repr(ring.list_namespaces())
    assert raw.hex() not in shown
    assert repr(raw)[2:-1] not in shown
    assert repr(key) == "<DataKey 1 of namespace 0, active>"


def test_no_key_bytes_in_any_file(keys: Keys) -> None:
    """No file of the keys directory but the key file holds the bytes of a key, or the name of a tenant."""
    ring = keys.create()
    ns = ring.create_namespace("company_zebra")
    handles = list(ring.data_keys(ns, random_subjects(300)).values())
    handles += [ring.data_key(n, None, create=False) for n in (0, ns)]
    secrets = [expose(secret_of(h)) for h in handles]
    secrets += [expose(k) for k in ring._cache.namespaces._keys.values()]
    secrets += [expose(k) for k in (ring._book.row_key, ring._book.head_key, ring._book.element_key)]
    for content in (keys.raw(), (ring.close(), keys.raw())[1]):
        assert len(content) > 100_000
        assert not [s for s in secrets if s in content]
        assert b"company_zebra" not in content


def test_files_are_private(keys: Keys) -> None:
    """keyring.db and its log are 0600, the directory 0700, under a careless umask too."""
    old = os.umask(0)
    try:
        ring = keys.create()
        ring.create_namespace("a")
        names = {p.name: stat.S_IMODE(p.stat().st_mode) for p in keys.path.parent.iterdir()}
    finally:
        os.umask(old)
    assert names.pop("keyring.db-wal", 0o600) == names.pop("keyring.db-shm", 0o600) == 0o600
    assert names == {"keyring.db": 0o600, "master.key": 0o600}
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700


def test_loose_modes_are_refused(keys: Keys) -> None:
    """A keyring that others can read, or a symbolic link to one, is refused with what to do."""
    keys.create().close()
    keys.path.chmod(0o640)
    with pytest.raises(KeystorePermissionError) as info:
        keys.open()
    assert info.value.hint == "chmod 600 keyring.db"
    keys.path.chmod(0o600)
    keys.path.rename(keys.path.with_name("real.db"))
    keys.path.symlink_to(keys.path.with_name("real.db"))
    with pytest.raises(KeystorePermissionError):
        keys.open()


def test_missing(keys: Keys) -> None:
    """No keyring is keyring_missing with a hint, and opening never makes one."""
    with pytest.raises(KeyringMissingError) as info:
        keys.open()
    assert info.value.hint
    assert not keys.path.exists()


def test_creation_never_overwrites(keys: Keys) -> None:
    """A second creation is refused, and so is one beside a log that SQLite would replay into the new file."""
    keys.create().close()
    before = keys.raw()
    with pytest.raises(StoreExistsError):
        keys.create()
    assert keys.raw() == before
    keys.path.unlink()
    keys.path.with_name("keyring.db-wal").write_bytes(b"left behind")
    with pytest.raises(StoreExistsError):
        keys.create()


def test_failed_creation_leaves_nothing(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the KMS fails half way, no file of the keyring is left."""
    keys.key_file.rename(keys.key_file.with_name("away"))
    with pytest.raises(KeystoreMissingError):
        keys.create()
    assert [p.name for p in keys.path.parent.iterdir()] == ["away"]


@pytest.mark.parametrize(("number", "expected"), [(30, StorageReadOnlyError), (28, StorageFullError)])
def test_creation_where_nothing_can_be_written(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StorageError]
) -> None:
    """On a read-only or a full file system creation says storage_read_only or storage_full."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, "refused")

    with monkeypatch.context() as patch, pytest.raises(expected):
        patch.setattr(os, "open", refuse)
        keys.create()
    assert [p.name for p in keys.path.parent.iterdir()] == ["master.key"]


def test_another_store(keys: Keys, tmp_path: Path) -> None:
    """The keyring of another store is refused, whatever master key is at hand."""
    keys.create().close()
    with pytest.raises(KeyringMismatchError):
        Keyring.open(keys.path, uuid4(), keys.kms)


def test_another_master_key(keys: Keys, tmp_path: Path) -> None:
    """The right keyring with another key file of the same store is unwrap_failed."""
    keys.create().close()
    other = LocalKeystore.create(tmp_path / "other" / "master.key", store_id=STORE)
    with pytest.raises(UnwrapError) as info:
        Keyring.open(keys.path, STORE, other)
    assert info.value.hint


def test_damaged_file(keys: Keys) -> None:
    """A file that is empty, text, cut or zero is storage_corrupt; a newer one is schema_version."""
    keys.create().close()
    good = keys.path.read_bytes()
    for bad in (b"", b"not a database" * 1000, good[:4096], good[:100], b"\0" * len(good)):
        keys.path.write_bytes(bad)
        with pytest.raises(StorageCorruptError):
            keys.open()
    keys.path.write_bytes(good)
    keys.sql("PRAGMA user_version = 99")
    with pytest.raises(SchemaVersionError):
        keys.open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(keys: Keys) -> None:
    """In a directory that cannot be written the keyring says storage_read_only."""
    keys.create().close()
    keys.path.parent.chmod(0o500)
    try:
        with pytest.raises(StorageReadOnlyError):
            keys.open().create_namespace("a")
    finally:
        keys.path.parent.chmod(0o700)


def test_read_only_file(keys: Keys) -> None:
    """A keyring that turns read-only says storage_read_only and goes on opening what is sealed."""
    ring = keys.create()
    key = ring.data_key(0, None, create=False)
    sealed = key.seal(context(0), b"x")
    ring._book.db.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageReadOnlyError):
        ring.create_namespace("a")
    assert key.open(context(0), sealed) == b"x"
    ring._book.db.execute("PRAGMA query_only = OFF")


def test_removed_or_replaced_while_open(keys: Keys) -> None:
    """No key is written into a file that has lost its name: such a key would be gone with the process."""
    ring = keys.create(recheck_ms=3_600_000)
    ns = ring.create_namespace("a")
    away = keys.path.with_name("away.db")
    keys.path.rename(away)
    with pytest.raises(KeyringMissingError):
        ring.data_key(ns, subject(1), create=True)
    keys.path.write_bytes(away.read_bytes())
    with pytest.raises(KeyringMismatchError):
        ring.create_namespace("b")
    keys.path.unlink()
    away.rename(keys.path)
    ring.data_key(ns, subject(1), create=True)


def test_key_file_deleted_while_running(keys: Keys) -> None:
    """Without the key file new namespaces, and those not yet used, fail by name; used ones go on working."""
    first = keys.create()
    used, unused = first.create_namespace("a"), first.create_namespace("b")
    first.close()
    ring = keys.open()
    sealed = ring.data_key(used, subject(1), create=True).seal(context(used), b"x")
    away = keys.key_file.with_name("away")
    keys.key_file.rename(away)
    for call in (
        lambda: ring.create_namespace("c"),
        lambda: ring.data_key(unused, None, create=False),
        lambda: ring.purpose_key(unused, "head"),
    ):
        with pytest.raises(KeystoreMissingError):
            call()
    assert ring.data_key(used, subject(1), create=False).open(context(used), sealed) == b"x"
    assert ring.data_key(used, subject(2), create=True).seal(context(used), b"y")
    with pytest.raises(KeystoreMissingError):
        keys.open()
    away.rename(keys.key_file)
    assert ring.create_namespace("c") == 3
    assert ring.check() == []


def test_closed(keys: Keys) -> None:
    """After close every method and every handle raises ClosedError, and the handles' bytes are gone."""
    ring = keys.create()
    key = ring.data_key(0, None, create=False)
    sealed = key.seal(context(0), b"x")
    ring.close()
    ring.close()
    for call in (
        lambda: key.seal(context(0), b"x"),
        lambda: key.open(context(0), sealed),
        lambda: ring.data_key(0, None, create=False),
        lambda: ring.key(1),
        lambda: ring.purpose_key(0, "head"),
        lambda: ring.create_namespace("a"),
        lambda: ring.list_keys(),
        lambda: ring.check(),
        lambda: ring.flush(),
        lambda: ring.count_uses(1),
    ):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(KeyStateError):
        expose(secret_of(key))


def test_threads_share_one_key(keys: Keys) -> None:
    """Eight threads that ask for the same new subjects get the same handles."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    barrier = threading.Barrier(8)
    found: list[list[DataKey]] = []

    def work() -> None:
        barrier.wait()
        found.append([ring.data_key(ns, subject(n), create=True) for n in range(50)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8
    assert len({tuple(id(k) for k in row) for row in found}) == 1
    assert ring.check() == []


def test_migration_from_an_older_version(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keyring of an older schema is brought up once, stays authentic, and keeps its keys."""
    from strongroom.keyring import _schema

    ring = keys.create()
    sealed = ring.data_key(0, None, create=False).seal(context(0), b"x")
    ring.close()
    now = _schema.schema_version()
    more = {**_schema.MIGRATIONS, now + 1: ("CREATE TABLE extra (id INTEGER PRIMARY KEY) STRICT",)}
    monkeypatch.setattr(_schema, "MIGRATIONS", more)
    for _ in range(2):
        ring = keys.open()
        assert ring.data_key(0, None, create=False).open(context(0), sealed) == b"x"
        assert ring.check() == []
        ring.close()
    assert [v for v, _ in keys.sql("SELECT * FROM migrations")] == [*range(1, now + 2)]
    monkeypatch.undo()
    with pytest.raises(SchemaVersionError):
        keys.open()
