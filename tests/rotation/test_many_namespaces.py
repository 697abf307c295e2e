"""What work on keys reads of the keyring grows with the namespaces, not with their square."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import strongroom
from strongroom.config import (
    Config,
    EmbeddingConfig,
    KeysConfig,
    RotationConfig,
    keys_directory,
    load_config,
    to_toml,
)
from strongroom.engine import Room, _rotation_policy
from strongroom.errors import KmsUnavailableError
from strongroom.keyring import Keyring, KeyState, _book
from strongroom.keyring import _namespace_rotation as steps
from strongroom.keyring._book import Book
from strongroom.keyring._change import Change
from strongroom.keyring._rows import NamespaceRow, WrapRow
from strongroom.kms import create_key_file
from strongroom.ledger._group import GroupCommit
from strongroom.model import ResponseReport

SPACES = 40
# Each namespace key is verified a handful of times by each; with the square it would be 40 times a handful.
PER_SPACE_MAX = 25

ACTS: dict[str, Callable[[Room], object]] = {
    "rotate namespace": lambda room: room.rotate_namespace(),
    "rotation policy": lambda room: _rotation_policy.apply(room.engine, room.engine.rotations.waves),
    "respond": lambda room: room.respond_key_compromise("namespace:team/39", dry_run=True),
    "kms status": lambda room: room.kms_status(),
}


@pytest.fixture
def wide(tmp_path: Path) -> Room:
    config = Config(
        embedding=EmbeddingConfig(provider="none", dimensions=8), rotation=RotationConfig(worker=False)
    )
    strongroom.init(tmp_path / "data", config=config)
    room = strongroom.open(tmp_path / "data", worker=False)
    for number in range(SPACES):
        room.create_namespace(f"team/{number}")
    return room


@pytest.mark.parametrize("name", list(ACTS))
def test_no_work_on_keys_reads_all_namespaces_for_each_of_them(
    wide: Room, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Rows of namespace keys and of wraps that are verified, counted: at most so many for each namespace."""
    verified = 0

    def counted(act: Callable[..., object]) -> Callable[..., object]:
        def verify(*arguments: object) -> object:
            nonlocal verified
            verified += 1
            return act(*arguments)

        return verify

    for kind in (NamespaceRow, WrapRow):
        monkeypatch.setattr(kind, "verified", counted(kind.verified))
    with wide:
        ACTS[name](wide)
    assert SPACES <= verified <= PER_SPACE_MAX * SPACES


def versions(room: Room) -> dict[int, list[str]]:
    """The states of the versions of each namespace key."""
    found: dict[int, list[str]] = {}
    for record in room.engine.vault.keyring.list_namespaces():
        found.setdefault(record.ns, []).append(record.state.name)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a keyring was written anew."""
    count = [0]
    real = Book.compact

    def compact(book: Book) -> None:
        count[0] += 1
        real(book)

    monkeypatch.setattr(Book, "compact", compact)
    monkeypatch.setattr(steps, "NAMESPACES_PER_STEP", 7)
    return count


def all_due(room: Room) -> None:
    late = room.engine.now().replace(year=room.engine.now().year + 2)
    room.engine.now = lambda: late  # type: ignore[method-assign]
    _rotation_policy.apply(room.engine, room.engine.rotations.waves)


@pytest.mark.parametrize("act", [Room.rotate_namespace, all_due])
def test_the_keyring_is_written_anew_once_for_all_namespaces(
    wide: Room, written: list[int], act: Callable[[Room], object]
) -> None:
    """However many are rotated, by hand or by age; and nothing of the keys before stays in its file."""
    file = wide.engine.vault.keyring._book.path
    with wide:
        before = [bytes(w) for (w,) in wide.engine.vault.keyring._book.rows("SELECT wrapped FROM wraps")]
        act(wide)
        assert written == [1]
        assert set(map(tuple, versions(wide).values())) == {("DESTROYED", "ACTIVE")}
        assert wide.check().ok
    raw = file.read_bytes()
    kept = sum(wrapped in raw for wrapped in before)
    assert kept == (1 if act is Room.rotate_namespace else 0)  # the integrity key is wrapped with the master


def test_one_namespace_that_fails_does_not_keep_the_others_from_their_rotation(
    wide: Room, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service of one tenant does not answer: it is told, the others are rotated, a repetition does it."""
    real = Keyring.renew_version

    def begin(keyring: Keyring, ns: int, *rest: Any, **how: Any) -> int:
        if ns == 20:
            raise KmsUnavailableError
        return real(keyring, ns, *rest, **how)

    with wide:
        with monkeypatch.context() as patch:
            patch.setattr(Keyring, "renew_version", begin)
            with pytest.raises(KmsUnavailableError, match="40 of 41 namespaces are done"):
                wide.rotate_namespace()
        found = versions(wide)
        assert found.pop(20) == ["ACTIVE"]
        assert set(map(tuple, found.values())) == {("DESTROYED", "ACTIVE")}
        wide.rotate_namespace(namespaces=["team/19"])
        assert versions(wide)[20] == ["DESTROYED", "ACTIVE"] and wide.check().ok
        assert written == [2]


@pytest.mark.parametrize("moment", ["before", "wraps gone", "anew"])
def test_a_kill_before_the_end_loses_nothing_and_the_next_rotation_ends_it(
    wide: Room, written: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    """Files as they lie when keys are wrapped anew, wraps removed, or the keyring written anew: all opens."""
    copies = tmp_path / "copies"
    real, keyring = (Keyring.end_versions, Keyring) if moment == "before" else (Book.compact, Book)

    def copied(self: Any, *rest: Any) -> Any:
        if moment == "anew":
            real(self)
        shutil.copytree(tmp_path, copies, ignore=shutil.ignore_patterns("copies"))
        return None if moment == "anew" else real(self, *rest)

    memory = wide.store("kept", namespace="team/7", subject="somebody")
    with wide, monkeypatch.context() as patch:
        patch.setattr(keyring, "end_versions" if moment == "before" else "compact", copied)
        wide.rotate_namespace()
    with strongroom.open(copies / "data", worker=False) as left:
        assert all(states[0] == KeyState.DECRYPT_ONLY.name for states in versions(left).values())
        assert left.get(memory.memory_id, namespace="team/7").content == "kept" and left.check().ok
        left.rotate_namespace()
        assert set(map(tuple, versions(left).values())) == {("DESTROYED", "ACTIVE")}
        assert left.get(memory.memory_id, namespace="team/7").content == "kept" and left.check().ok


@pytest.mark.parametrize(("many", "found_by"), [(10_000, "data_epoch"), (2, "PRIMARY KEY")])
def test_data_keys_of_a_small_namespace_are_found_without_reading_those_of_the_others(
    wide: Room, monkeypatch: pytest.MonkeyPatch, many: int, found_by: str
) -> None:
    """By the index of namespaces; one with very many is read by key id: it is not sorted at each step."""
    asked: list[str] = []
    real = Book.data_rows_where

    def spied(book: Book, where: str, values: Any) -> Any:
        if "namespace_version <" in where:
            sql = f"EXPLAIN QUERY PLAN SELECT * FROM data_keys WHERE {where}"
            asked.extend(str(row[3]) for row in book.db.execute(sql, values) if "SEARCH" in str(row[3]))
        return real(book, where, values)

    monkeypatch.setattr(Book, "data_rows_where", spied)
    monkeypatch.setattr(_book, "_MANY", many)
    with wide:
        wide.store("x", namespace="team/7", subject="somebody")
        assert wide.rotate_namespace(namespaces=["team/7"])[0].keys == 2
    assert asked and all(found_by in plan for plan in asked)


@pytest.fixture
def durable(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is written durably: changes of the keyring, works of the ledger, and logs that are cut."""
    count: Counter[str] = Counter()
    write, submit, cut = Book.write, GroupCommit.submit, Book.truncate_log

    @contextmanager
    def writing(book: Book) -> Iterator[Change]:
        with write(book) as change:
            yield change
            count["keyring"] += change._touched

    def submitting(group: GroupCommit[Any], work: Any) -> object:
        count["ledger"] += 1
        return submit(group, work)

    def cutting(book: Book) -> None:
        count["cut"] += 1
        cut(book)

    monkeypatch.setattr(Book, "write", writing)
    monkeypatch.setattr(GroupCommit, "submit", submitting)
    monkeypatch.setattr(Book, "truncate_log", cutting)
    return count


def respond(room: Room) -> ResponseReport:
    (exposed,) = [k.id for k in room.keyring_list() if k.kind == "master"]
    return room.respond_key_compromise(exposed, to=["fresh"])


@pytest.mark.parametrize(
    ("act", "keyring", "ledger"), [(respond, 9, 9), (Room.rotate_namespace, 1, 0)], ids=["respond", "rotate"]
)
def test_each_namespace_costs_few_durable_writes(
    wide: Room,
    durable: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Room], object],
    keyring: int,
    ledger: int,
) -> None:
    """With what goes together in one transaction, and the log of the keyring cut once for all of them."""
    for number in range(SPACES):
        wide.store("a memory", namespace=f"team/{number}", subject="user:1")
    wide.close()
    directory = wide.engine.directory
    config = load_config(directory)
    config = dataclasses.replace(
        config, key_providers={"fresh": KeysConfig(provider="local", key_file="fresh.key")}
    )
    (directory / "strongroom.toml").write_text(to_toml(config))
    with strongroom.open(directory, worker=False) as room:
        create_key_file(config, "fresh", keys_directory(directory, config), room.engine.ledger.store_id)
        durable.clear()
        act(room)
        assert durable["cut"] <= 3
        assert durable["keyring"] <= keyring * SPACES + SPACES // 2
        assert durable["ledger"] <= ledger * SPACES + SPACES
        monkeypatch.undo()
        assert room.check(read_data=True).ok
