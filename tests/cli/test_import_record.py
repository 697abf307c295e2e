"""The record of an import: damaged it is refused, and never makes an import store something twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.errors import ConfigurationError
from strongroom.lifecycle import importer
from strongroom.lifecycle._import_state import ImportState
from strongroom.lifecycle.importer import Importer
from strongroom.model import Memory

NS = "company_a/support"


class Cut(BaseException):
    """Ends an import like a kill would."""


class Cutting:
    """A store that is cut off when its second batch is durable and not yet recorded."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._left = 1
        self.get = room.get

    def store_many(self, items: Any) -> list[Memory]:
        stored = self._room.store_many(items)
        if not self._left:
            raise Cut
        self._left -= 1
        return stored


@pytest.fixture
def room(tmp_path: Path) -> Any:
    directory = tmp_path / "room"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=4)))
    with strongroom.open(directory, worker=False) as opened:
        yield opened


def contents(room: Room) -> list[str]:
    return sorted(m.content for m in room.list(namespaces=["*"], limit=100).memories)


def source_of(tmp_path: Path, count: int, **more: Any) -> Path:
    source = tmp_path / "source.jsonl"
    rows = [{"content": f"{n:02}", "namespace": NS, **more} for n in range(count)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return source


def test_a_record_with_any_byte_changed_is_refused_or_says_the_same(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of lines, or another id, would make other ids: what is stored would be stored again."""
    monkeypatch.setattr(importer, "BATCH_ITEMS", 10)
    source = source_of(tmp_path, 30)
    with pytest.raises(Cut):
        Importer(Cutting(room), tmp_path / "state").run(source)  # type: ignore[arg-type]
    (record,) = (tmp_path / "state").glob("*.json")
    whole = record.read_bytes()
    seed = random.randrange(2**32)
    chosen = random.Random(seed)
    for _ in range(400):
        place = chosen.randrange(len(whole))
        other = bytes([chosen.choice([b for b in range(256) if b != whole[place]])])
        damaged = whole[:place] + other + whole[place + 1 :]
        try:
            found = ImportState.decode(damaged)
        except ConfigurationError as e:
            assert e.hint and "--restart" in e.hint
        else:
            assert found == ImportState.decode(whole), f"seed {seed}: {damaged!r}"
    record.write_bytes(whole.replace(b'"lines_done": 10', b'"lines_done": 11'))
    with pytest.raises(ConfigurationError, match="record of this import is damaged"):
        Importer(room, tmp_path / "state").run(source)
    record.write_bytes(whole)
    assert Importer(room, tmp_path / "state").run(source).duplicates == 10
    assert contents(room) == [f"{n:02}" for n in range(30)]


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"7", b'"text"', b"[]", b"[" * 16_000, b"\xff\xfe", b"{}", b'{"format": 1}'],
    ids=["nothing", "null", "number", "text", "list", "deep", "bytes", "empty", "too little"],
)
def test_what_is_no_record_is_a_typed_error(room: Room, tmp_path: Path, raw: bytes) -> None:
    """Whatever lies in its place: one error with a hint, and nothing is stored; --restart begins anew."""
    source = source_of(tmp_path, 3)
    Importer(room, tmp_path / "state").run(source)
    (record,) = (tmp_path / "state").glob("*.json")
    record.write_bytes(raw)
    with pytest.raises(ConfigurationError, match="record of this import is damaged") as caught:
        Importer(room, tmp_path / "state").run(source)
    assert caught.value.hint and len(contents(room)) == 3
    assert Importer(room, tmp_path / "state", restart=True).run(source).stored == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("import_id", 5),
        ("import_id", "x"),
        ("started_at", "2026-01-01T00:00:00"),
        ("started_at", 7),
        ("lines_done", True),
        ("lines_done", -1),
        ("bytes_done", 1.0),
        ("sha256", 7),
        ("last", "x"),
        ("finished", 1),
        ("ids", 3),
        ("unknown", 1),
    ],
)
def test_a_record_of_before_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    """A record without the digest of its fields is still held to the form of each."""
    fields = json.loads(ImportState.new().encode())
    del fields["check"]
    ImportState.decode(json.dumps(fields).encode())
    with pytest.raises(ConfigurationError):
        ImportState.decode(json.dumps({**fields, field: value}).encode())


def test_an_import_whose_last_memories_expire_goes_on_and_can_be_repeated(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That an expired memory is gone says nothing about the store: one that stays is looked for instead."""
    monkeypatch.setattr(importer, "BATCH_ITEMS", 2)
    old = {"namespace": NS, "created_at": "2025-12-01T00:00:00Z"}
    rows = [{"content": f"{n:02}", **old} for n in range(8)]
    for row in rows[1::2]:
        row["expires_at"] = "2026-01-01T00:00:00Z"  # the last line of each batch
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(Cut):
        Importer(Cutting(room), tmp_path / "state").run(source)  # type: ignore[arg-type]
    done = Importer(room, tmp_path / "state").run(source)
    assert (done.before, done.duplicates, done.stored) == (2, 2, 4)
    assert Importer(room, tmp_path / "state").run(source).before == 8
    assert contents(room) == [f"{n:02}" for n in range(0, 8, 2)]
