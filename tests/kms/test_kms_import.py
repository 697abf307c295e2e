"""A customer's own namespace key: wrapped elsewhere, checked here, used once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, keys_directory
from strongroom.crypto import SecretKey
from strongroom.engine import Room, _import_key
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StrongroomError,
    UnwrapError,
)
from strongroom.kms import ImportRequest, check_value, wrap_material

NAME = "acme/own"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.delenv("STRONGROOM_DATA", raising=False)
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data", worker=False) as found:
        yield found


def brought(room: Room, material: bytes, name: str = NAME) -> tuple[ImportRequest, str, str]:
    request = ImportRequest.parse(room.key_import_begin(name))
    return (request, *wrap_material(request, material))


def test_the_namespace_key_is_the_one_that_was_brought(room: Room) -> None:
    """The namespace lives under the customer's bytes, its check value is told, a second use is refused."""
    material = os.urandom(32)
    request, wrapped, check = brought(room, material)
    made = room.key_import_finish(request.import_id, wrapped, check_value=check.upper())
    assert (made.namespace.name, made.check_value) == (NAME, check)
    keyring = room.engine.vault.keyring
    (ns,) = [e.ns for e in room.engine.registry.entries()]
    held = keyring._cache.namespaces.key(ns, 1)
    assert check_value(held) == check_value(SecretKey.from_bytes(material)) == check
    room.store("hello", namespace=NAME)
    room.close()
    with strongroom.open(room.engine.directory, worker=False) as again:
        assert [m.content for m in again.list(namespaces=[NAME]).memories] == ["hello"]
        assert again.check(read_data=True).ok
        with pytest.raises(NotFoundError):
            again.key_import_finish(request.import_id, wrapped)
        entry = next(e for e in again.audit(limit=100) if e.reason == "import a key" and e.outcome == "ok")
        assert dict(entry.details)["check_value"] == check
    raw = b"".join(p.read_bytes() for p in room.engine.directory.parent.rglob("*") if p.is_file())
    assert material not in raw


def test_material_for_something_else_is_refused(room: Room) -> None:
    """Wrapped for another namespace or another request, or with any byte changed, it opens nothing."""
    one, wrapped, _ = brought(room, os.urandom(32))
    two, other, _ = brought(room, os.urandom(32), "acme/two")
    bad = wrapped[:900] + ("A" if wrapped[900] != "A" else "B") + wrapped[901:]
    for import_id, text in (
        (two.import_id, wrapped),
        (one.import_id, other),
        (one.import_id, bad),
        (one.import_id, "?"),
    ):
        with pytest.raises(UnwrapError):
            room.key_import_finish(import_id, text)
    assert [n.name for n in room.namespaces()] == []
    room.key_import_finish(one.import_id, wrapped)


@pytest.mark.parametrize(
    "material",
    [
        bytes(32),
        b"\1" * 32,
        bytes(range(32)),
        b"correct horse battery staple 123"[:32],
        b"ab" * 16,
        b"",
        os.urandom(31),
        os.urandom(33),
    ],
    ids=range(8),
)
def test_what_is_no_random_key_is_refused_on_both_sides(room: Room, material: bytes) -> None:
    """Zeros, counters, passwords and wrong lengths are refused by whoever wraps, and again by the store."""
    request = ImportRequest.parse(room.key_import_begin(NAME))
    with pytest.raises(InvalidInputError):
        wrap_material(request, material)
    if len(material) == 32:
        import base64

        from strongroom.kms import Recipient

        forced = Recipient.parse(request.wrapping_key).wrap(SecretKey.from_bytes(material), request.context())
        with pytest.raises(InvalidInputError, match="not random"):
            room.key_import_finish(request.import_id, base64.b64encode(forced).decode())
    assert room.namespaces() == []


def test_another_check_value_imports_nothing(room: Room) -> None:
    """Somebody who has the request and brings another key is found by the value that the customer told."""
    request, _, told = brought(room, os.urandom(32))
    forged, _ = wrap_material(request, os.urandom(32))
    with pytest.raises(ConflictError, match="check value"):
        room.key_import_finish(request.import_id, forged, check_value=told)
    assert room.namespaces() == []


def test_a_request_is_good_for_a_day(tmp_path: Path) -> None:
    """After it the wrapping key is gone, whatever was wrapped to it."""
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(tmp_path / "data", config=config)
    now = 1_700_000_000_000_000
    clock = [now]
    with strongroom.open(tmp_path / "data", worker=False, clock_us=lambda: clock[0]) as room:
        request, wrapped, _ = brought(room, os.urandom(32))
        clock[0] = now + 86_400 * 1_000_000
        with pytest.raises(InvalidInputError, match="older than a day"):
            room.key_import_finish(request.import_id, wrapped)
        with pytest.raises(NotFoundError):
            room.key_import_finish(request.import_id, wrapped)


def pending(room: Room) -> list[str]:
    return sorted(
        p.name for p in (keys_directory(room.engine.directory, room.engine.config) / "imports").iterdir()
    )


def test_a_request_that_nobody_came_back_for_is_forgotten(tmp_path: Path) -> None:
    """The wrapping keys of requests that are too old are gone with the next request; younger ones stay."""
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(tmp_path / "data", config=config)
    clock = [1_700_000_000_000_000]
    with strongroom.open(tmp_path / "data", worker=False, clock_us=lambda: clock[0]) as room:
        brought(room, os.urandom(32))
        clock[0] += 43_200 * 1_000_000
        younger, _, _ = brought(room, os.urandom(32), "acme/younger")
        (tmp_path / "data.keys" / "imports" / ("0" * 32)).write_bytes(b"no request")
        clock[0] += 43_200 * 1_000_000
        newest, _, _ = brought(room, os.urandom(32), "acme/newest")
        assert pending(room) == sorted(["0" * 32, younger.import_id, newest.import_id])


def test_an_import_that_was_killed_behind_its_namespace_leaves_no_wrapping_key(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repetition is told that the namespace exists, and what was wrapped opens nothing any more."""
    request, wrapped, _ = brought(room, os.urandom(32))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_import_key, "close_request", killed)
        with pytest.raises(KeyboardInterrupt):
            room.key_import_finish(request.import_id, wrapped)
    assert [n.name for n in room.namespaces()] == [NAME] and pending(room) == [request.import_id]
    with pytest.raises(ConflictError, match="exists"):
        room.key_import_finish(request.import_id, wrapped)
    assert pending(room) == []
    with pytest.raises(NotFoundError):
        room.key_import_finish(request.import_id, wrapped)


def test_two_that_use_one_request_at_once_make_one_namespace(room: Room) -> None:
    """One of them gets it, under the key that was brought; the others are refused."""
    request, wrapped, check = brought(room, os.urandom(32))

    def finish(_: int) -> str:
        try:
            return room.key_import_finish(request.import_id, wrapped).check_value
        except (ConflictError, NotFoundError) as e:
            return e.code

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(finish, range(4)))
    assert found.count(check) == 1 and set(found) <= {check, "conflict", "not_found"}
    (ns,) = [e.ns for e in room.engine.registry.entries()]
    assert check_value(room.engine.vault.keyring._cache.namespaces.key(ns, 1)) == check
    assert pending(room) == []


@pytest.mark.parametrize("left", [b"", bytes(400)])
def test_a_request_that_is_just_being_removed_was_used(room: Room, left: bytes) -> None:
    """Whoever comes between the overwriting of its file and its removal is told what the next one is told."""
    request, wrapped, _ = brought(room, os.urandom(32))
    (name,) = pending(room)
    (keys_directory(room.engine.directory, room.engine.config) / "imports" / name).write_bytes(left)
    with pytest.raises(NotFoundError):
        room.key_import_finish(request.import_id, wrapped)


def test_the_entry_of_an_import_keeps_what_is_known_of_the_caller(room: Room) -> None:
    """The check value stands beside the token that the import came with, not instead of it."""
    key = room.engine.authenticate(room.keys_create("k", "admin", ["acme/*"])[1])
    info, text = key.tokens_create()
    session = room.engine.authenticate(text)
    request = ImportRequest.parse(session.key_import_begin(NAME))
    wrapped, check = wrap_material(request, os.urandom(32))
    session.key_import_finish(request.import_id, wrapped)
    (last,) = room.audit(limit=1)
    assert dict(last.details) == {"check_value": check, "token": info.token_id}


def test_a_namespace_that_is_there_keeps_its_key(room: Room) -> None:
    """Neither a request nor an import touches an existing namespace, also one that was made in between."""
    request, wrapped, _ = brought(room, os.urandom(32))
    room.store("x", namespace=NAME)
    for work in (
        lambda: room.key_import_begin(NAME),
        lambda: room.key_import_finish(request.import_id, wrapped),
    ):
        with pytest.raises(ConflictError):
            work()
    room.store("y", namespace=NAME)


def test_only_who_administers_the_namespace_may_import(room: Room) -> None:
    """A tenant's administrator brings keys for the tenant's own namespaces and no others."""
    session = room.engine.authenticate(room.keys_create("k", "admin", ["acme/*"])[1])
    for name in ("other/x", "acme"):
        with pytest.raises(AccessDeniedError):
            session.key_import_begin(name)
    foreign, wrapped, _ = brought(room, os.urandom(32), "other/x")
    with pytest.raises(AccessDeniedError):
        session.key_import_finish(foreign.import_id, wrapped)
    request = ImportRequest.parse(session.key_import_begin(NAME))
    session.key_import_finish(request.import_id, wrap_material(request, os.urandom(32))[0])


@pytest.mark.parametrize("import_id", ["", "../../master.key", "x" * 32, "0" * 31, "0" * 33, "/etc/passwd"])
def test_an_id_leads_nowhere_else(room: Room, import_id: str) -> None:
    """What is no id of an import is refused before any file is looked at."""
    with pytest.raises(InvalidInputError):
        room.key_import_finish(import_id, "AAAA")
    with pytest.raises(NotFoundError):
        room.key_import_finish("0" * 32, "AAAA")


@pytest.mark.parametrize("text", ["", "{}", "[]", "x" * 20_000, '{"strongroom_import": 2}'])
def test_a_damaged_request_is_refused(room: Room, text: str) -> None:
    """Whatever is no request, and one with a changed part, is a typed error."""
    with pytest.raises(InvalidInputError):
        ImportRequest.parse(text)
    good = json.loads(room.key_import_begin(NAME))
    for name in good:
        with pytest.raises(StrongroomError):
            ImportRequest.parse(json.dumps(good | {name: "\x00"}))


def test_the_commands(room: Room, tmp_path: Path) -> None:
    """begin, wrap on another machine, finish: the same check value on both sides."""

    def run(*args: str) -> Any:
        result = CliRunner().invoke(cli, [*args])
        assert result.exit_code == 0, result.stdout + result.stderr
        return result.stdout

    data = str(room.engine.directory)
    (tmp_path / "request").write_text(run("--data", data, "import-key", "begin", NAME))
    (tmp_path / "material").write_bytes(os.urandom(32))
    made = json.loads(
        run(
            "--json",
            "import-key",
            "wrap",
            "--request",
            str(tmp_path / "request"),
            "--material",
            str(tmp_path / "material"),
        )
    )
    (tmp_path / "wrapped").write_text(made["wrapped"] + "\n")
    done = json.loads(
        run("--json", "--data", data, "import-key", "finish", "--request", str(tmp_path / "request"),
            "--wrapped", str(tmp_path / "wrapped"), "--check-value", made["check_value"])
    )  # fmt: skip
    assert done["check_value"] == made["check_value"]
