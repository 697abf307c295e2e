"""Names that lead elsewhere: whoever can write the data directory cannot have other files written over."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom, save_snapshot
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, RecallConfig
from strongroom.errors import StorageCorruptError

NS = "company_a/support"
LINKS: list[Callable[[Path, Path], None]] = [os.symlink, os.link]
FOREIGN = struct.pack(">8s16sQQQ", b"SRSNAP\0\1", bytes(16), 5, 1, 1)  # made long ago, says its header


@pytest.mark.parametrize("link", LINKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seq", ["older", "same"])
def test_a_snapshot_that_is_a_link_never_has_the_keyring_overwritten(
    data: Path, open_room: OpenRoom, link: Callable[[Path, Path], None], seq: str
) -> None:
    """The header of an old snapshot is overwritten before it goes; what a link leads to must not be."""
    room = open_room()
    room.store("a text", namespace=NS)
    room.flush()
    entry = room.engine.registry.get(NS)
    assert entry is not None
    keyring = data.with_name("data.keys") / "keyring.db"
    before = keyring.read_bytes()
    (data / "snapshots").mkdir(mode=0o700)
    number = 1 if seq == "older" else room.engine.ledger.head(entry.ns)[0]
    link(keyring, data / "snapshots" / f"{entry.ns}-{number}.snap")
    path = save_snapshot(room, NS)
    assert keyring.read_bytes() == before
    assert not path.is_symlink() and path.stat().st_nlink == 1
    link(keyring, data / "snapshots" / f"{entry.ns}-0.snap")
    assert room.engine.indexes.discard_snapshots(entry.ns) == 2
    assert keyring.read_bytes() == before
    assert not list((data / "snapshots").glob("*.snap"))


def test_a_directory_of_snapshots_that_is_a_link_is_not_written_to(data: Path, open_room: OpenRoom) -> None:
    """Snapshots are not written, and drafts not taken away, where a link leads to."""
    elsewhere = data.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / ".x.draft").write_text("not ours")
    (data / "snapshots").symlink_to(elsewhere)
    room = open_room()
    room.store("a text", namespace=NS)
    with pytest.raises(AssertionError):
        save_snapshot(room, NS)
    assert [p.name for p in elsewhere.iterdir()] == [".x.draft"]


def test_a_pipe_among_the_snapshots_holds_nobody_up(data: Path, open_room: OpenRoom) -> None:
    """Opening a pipe waits for its other end, which is never there: it is no snapshot, and is passed over."""
    room = open_room()
    room.store("a text", namespace=NS)
    room.flush()
    entry = room.engine.registry.get(NS)
    assert entry is not None
    (data / "snapshots").mkdir(mode=0o700)
    os.mkfifo(data / "snapshots" / f"{entry.ns}-1.snap")
    assert len(room.search("text", namespaces=[NS])) == 1
    room.engine.indexes.tend()
    assert room.engine.indexes.discard_snapshots(entry.ns) == 1


def test_the_name_of_no_namespace_does_not_end_the_housekeeping(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """A file whose number no ledger can have is passed over, and the store closes as ever."""
    room = open_room()
    room.store("a text", namespace=NS)
    (data / "snapshots").mkdir(mode=0o700)
    for name in (f"{2**64 - 1}-1.snap", f"1-{2**64 - 1}.snap"):
        (data / "snapshots" / name).write_bytes(FOREIGN)
    room.engine.indexes._keeper._sweep_at_s = 0.0
    room.engine.indexes.tend()
    room.close()


@pytest.mark.parametrize("name", ["ledger.db-wal", "ledger.db-shm", "ledger.db-journal"])
@pytest.mark.parametrize("link", LINKS, ids=lambda f: f.__name__)
def test_a_log_that_is_a_link_is_refused(
    data: Path, open_room: OpenRoom, link: Callable[[Path, Path], None], name: str
) -> None:
    """SQLite writes its logs over whatever goes by their names; with a link that would be the key file."""
    open_room().close()
    key = data.with_name("data.keys") / "master.key"
    before = key.read_bytes()
    (data / name).unlink(missing_ok=True)
    link(key, data / name)
    with pytest.raises(StorageCorruptError) as e:
        open_room()
    assert "link" in e.value.message and e.value.hint
    assert key.read_bytes() == before
    (data / name).unlink()
    open_room().store("a text", namespace=NS)


def small(tmp_path: Path) -> Path:
    config = Config(
        embedding=EmbeddingConfig(dimensions=64),
        recall=RecallConfig(snapshot_rows_min=1, snapshot_stale_ms_max=1000, snapshot_interval_ms_min=0),
    )
    strongroom.init(tmp_path / "data", config=config)
    return tmp_path / "data"


def test_what_a_killed_writer_left_goes_although_nobody_writes_again(
    tmp_path: Path, model: WordModel
) -> None:
    """A draft holds texts that may be deleted meanwhile, and its key: it goes at the first look."""
    path = small(tmp_path)
    (path / "snapshots").mkdir(mode=0o700)
    draft = path / "snapshots" / ".7-7.snap.draft"
    draft.write_bytes(b"S" * 4096)
    with draft.open("rb") as held, strongroom.open(path, provider=model, worker=False) as room:
        room.engine.indexes.tend()
        assert not draft.exists()
        assert held.read(154) == bytes(154)


def test_a_clock_that_was_put_back_does_not_keep_a_snapshot(tmp_path: Path, model: WordModel) -> None:
    """A snapshot from the future would never be old enough to go, whatever was deleted since."""
    now = [time.time_ns() // 1000]
    path = small(tmp_path)
    with strongroom.open(path, provider=model, worker=False, clock_us=lambda: now[0]) as room:
        memory_id = room.store("a text", namespace=NS).memory_id
        file = save_snapshot(room, NS)
        now[0] -= 86_400_000_000
        room.delete(memory_id, namespace=NS)
        room.engine.indexes._keeper._sweep_at_s = 0.0
        room.engine.indexes.tend()
        assert not file.exists()
