"""Keys of namespaces that never came to be, and how far a check says that it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import strongroom
from strongroom.config import Config, EmbeddingConfig, KeysConfig, RotationConfig, load_config, to_toml
from strongroom.engine import Room, _rotation_policy
from strongroom.errors import StorageFullError
from strongroom.governance import store_id_of
from strongroom.kms import create_key_file

CONFIG = Config(
    embedding=EmbeddingConfig(provider="none", dimensions=4), rotation=RotationConfig(worker=False)
)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A store where two namespaces were given keys and could not be committed: the disk was full."""
    strongroom.init(tmp_path / "data", config=CONFIG)
    with strongroom.open(tmp_path / "data", worker=False) as found:
        found.store("x", namespace="company_a/one")

        def full(*_: Any) -> None:
            raise StorageFullError

        with monkeypatch.context() as patch:
            patch.setattr(found.engine.registry, "_commit_named", full)
            for name in ("company_b/one", "company_b/two"):
                with pytest.raises(StorageFullError):
                    found.create_namespace(name)
        yield found


def in_two_minutes(room: Room) -> None:
    later = room.engine.now() + timedelta(minutes=2)
    room.engine.now = lambda: later  # type: ignore[method-assign]


def test_check_tells_of_keys_without_a_namespace_and_calls_nothing_wrong(room: Room) -> None:
    """As information; not in the first minute, in which another process may be making the namespace."""
    assert room.check().findings == ()
    in_two_minutes(room)
    report = room.check()
    (finding,) = report.findings
    assert (finding.code, finding.severity.value, report.ok) == ("keys_unused", "info", True)
    assert finding.message.startswith("keys of 2 namespaces")
    room.store("x", namespace="company_b/one")  # makes keys anew: the ones before stay unused
    assert room.check().findings == (finding,)


def altered(room: Room, path: Path, *, used: bool) -> int:
    """The row of a namespace key, changed behind the keyring's back; the namespace's number."""
    there = set(room.engine.ledger.namespaces())
    ns = max(n for n in room.engine.vault.keyring.namespaces_with_keys() if (n in there) is used)
    with closing(sqlite3.connect(path / "data.keys" / "keyring.db")) as thief, thief:
        thief.execute("UPDATE namespace_keys SET created_us = created_us + 1 WHERE ns = ?", (ns,))
    return ns


@pytest.mark.parametrize("used", [True, False])
def test_check_reports_an_altered_key_row_instead_of_failing_over_it(
    room: Room, tmp_path: Path, used: bool
) -> None:
    """Of a namespace that is there, or of keys that nothing uses: everything else is checked as well."""
    ns = altered(room, tmp_path, used=used)
    in_two_minutes(room)
    found = {(f.code, f.where) for f in room.check().findings}
    assert ("unwrap_failed", f"key of namespace {ns}, version 1") in found
    assert ("keys_unused", "keyring") in found


def test_an_altered_row_of_unused_keys_keeps_no_namespace_from_its_rotation(
    room: Room, tmp_path: Path
) -> None:
    """By age: the namespace that is there gets a new key all the same."""
    ns = altered(room, tmp_path, used=False)
    engine = room.engine
    late = engine.now() + timedelta(days=2000)
    engine.now = lambda: late  # type: ignore[method-assign]
    _rotation_policy.apply(engine, engine.rotations.waves)
    (there,) = {n.ns for n in engine.registry.entries()} - {ns}
    assert max(r.version for r in engine.vault.keyring.list_namespaces(there)) == 2


def test_no_wrap_stays_under_a_master_key_that_everything_was_moved_from(room: Room, tmp_path: Path) -> None:
    """Keys without a namespace go along, else the check would ask a master key that is gone for them."""
    path, keys = tmp_path / "data", tmp_path / "data.keys"
    room.close()
    config, new = load_config(path), KeysConfig(provider="local", key_file="new.key")
    config = replace(config, key_providers={"new": new})
    (path / "strongroom.toml").write_text(to_toml(config))
    create_key_file(config, "new", keys, store_id_of(path, config))
    with strongroom.open(path, worker=False) as again:
        assert len(again.rotate_master(to=["new"])) == 4
        assert [n.providers for n in again.kms_status()] == [("new",)]
    (path / "strongroom.toml").write_text(to_toml(replace(config, keys=new, key_providers={})))
    (keys / "master.key").unlink()
    with strongroom.open(path, worker=False) as moved:
        assert moved.check(read_data=True).ok


def test_progress_of_a_check_goes_from_nothing_to_all(tmp_path: Path) -> None:
    """Over all namespaces, rows and indexes, and never backwards; the sum of what is to do stays the same."""
    strongroom.init(tmp_path / "data", config=CONFIG)
    with strongroom.open(tmp_path / "data", worker=False) as room:
        for name, count in (("a", 1500), ("b", 3), ("c", 1200)):
            room.store_many(
                [{"content": "x", "namespace": name, "embedding": [1.0, 0, 0, 0]} for _ in range(count)]
            )
        for number in range(20):
            room.create_namespace(f"empty/{number}")
        told: list[tuple[int, int]] = []
        assert room.check(progress=lambda done, total: told.append((done, total))).ok
    done = [d for d, _ in told]
    assert {total for _, total in told} == {done[-1]} and done == sorted(done)
    assert done[-1] >= 4 * (1500 + 3 + 1200)  # a memory and a vector each, read twice
    assert len(set(done)) >= 2 * 23 + 2 + 2  # each namespace twice, empty ones too, and every thousand rows
