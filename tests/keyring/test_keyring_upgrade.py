"""A keyring of an older version is brought up: by several processes, killed at any write, on a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.keyring.keyring_tools import STORE, context, subject
from tests.rotation.disk import Disk, faulty_disk

from strongroom.errors import StorageFullError
from strongroom.keyring import Keyring, _book, _meta, _schema
from strongroom.kms import LocalKeystore


@pytest.fixture
def disk() -> Iterator[Disk]:
    with faulty_disk() as disk:
        yield disk


def old_keyring(there: Path) -> Path:
    """The keys directory that a program of version 1 has left."""
    shutil.copytree(Path(__file__).parent / "version_1", there)
    return private(there)


def private(there: Path) -> Path:
    there.chmod(0o700)
    for file in there.iterdir():
        file.chmod(0o600)
    return there


def assert_whole(there: Path) -> None:
    """It opens in the newest version, holds every key of before, and a check finds nothing."""
    kms = LocalKeystore.open(there / "master.key", store_id=STORE)
    sealed = [bytes.fromhex(line) for line in (there / "sealed.txt").read_text().split()]
    with Keyring.open(there / "keyring.db", STORE, kms) as ring:
        assert ring._book.require_genuine().schema == _schema.schema_version()
        assert [r.ns for r in ring.list_namespaces()] == [0, 1, 2]
        assert [(w.ns, w.place) for w in ring.wraps()] == [(-1, 1), (0, 1), (1, 1), (2, 1)]
        for ns, tenant in enumerate(("company_a", "company_b"), 1):
            key = ring.key(next(k.key_id for k in ring.list_keys(ns) if k.subject == subject(1)))
            assert key.open(context(ns, tenant=tenant), sealed[ns - 1]) == f"content of {tenant}".encode()
        assert ring.check() == []
    kms.close()


def once(there: Path, act: Callable[..., Any]) -> Callable[..., Any]:
    """``act``; the first time another process has brought the keyring up just before."""
    left = [1]

    def acted(*arguments: Any) -> Any:
        if left and left.pop():
            assert_whole(there)
        return act(*arguments)

    return acted


@pytest.mark.parametrize(
    ("module", "name"), [(_book, "immediate"), (_meta, "version_of")], ids=["the lock", "the reading"]
)
def test_a_process_that_comes_second_finds_the_keyring_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Another process does the whole migration just before this one has the lock, or while it reads."""
    there = old_keyring(tmp_path / "old.keys")
    monkeypatch.setattr(module, name, once(there, getattr(module, name)))
    assert_whole(there)
    assert_whole(there)


def test_a_master_key_that_is_registered_while_the_description_is_read_is_no_tampering(
    tmp_path: Path,
) -> None:
    """Description and master keys are read in one state: between two reads others may write."""
    kms = LocalKeystore.create(tmp_path / "keys" / "master.key", store_id=STORE)
    path = tmp_path / "keys" / "keyring.db"
    with Keyring.create(path, STORE, kms) as ring, Keyring.open(path, STORE, kms) as other:
        left = [1]

        def between(_: object, statement: str, values: object) -> bool:
            if "master_keys" in statement and left and left.pop():
                with other._book.write():
                    other._book.register(replace(kms.describe(), key_uri="local:another"), 1)
            return True

        ring._book.db.exec_trace = between
        assert len(ring._book.masters()) == 1
        assert not left
        assert len(ring._book.masters()) == 2
    kms.close()


def test_a_kill_at_any_write_of_the_migration_leaves_the_old_or_the_new_keyring(
    tmp_path: Path, disk: Disk
) -> None:
    """The files as they are before every write, sync and truncation: each opens with every key of before."""
    there = old_keyring(tmp_path / "old.keys")
    images: list[Path] = []

    def copy(step: int) -> None:
        image = tmp_path / f"image{step}"
        shutil.copytree(there, image, ignore=shutil.ignore_patterns("*-shm"))
        images.append(image)

    disk.arm(before=copy)
    assert_whole(there)
    disk.heal()
    assert len(images) > 8
    for image in images:
        assert_whole(private(image))


def test_a_disk_that_is_full_at_any_write_of_the_migration_leaves_a_keyring_that_goes_on(
    tmp_path: Path, disk: Disk
) -> None:
    """A typed error each time until it fits; with room again the keyring opens, with every key of before."""
    refused = 0
    for step in range(1, 100):
        there = old_keyring(tmp_path / f"{step}.keys")
        disk.arm(fail_at=step)
        try:
            assert_whole(there)
            is_over = True
        except StorageFullError as e:
            assert e.hint
            refused += 1
            is_over = False
        disk.heal()
        assert_whole(there)
        if is_over and disk.count == 0:
            break
        shutil.rmtree(there)
    assert refused > 4
