"""Full disks, locked files, forks and interrupts: typed errors, and nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import apsw
import pytest
from tests.engine.conftest import OpenRoom
from tests.support.faults import no_space_at_fsync
from tests.support.listed import memories_of
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, LedgerConfig
from strongroom.engine import Room
from strongroom.errors import (
    ClosedError,
    ConflictError,
    DecryptionError,
    StorageBusyError,
    StorageFullError,
    StrongroomError,
)

NS = "company_a/support"
CONFIG = Config(
    embedding=EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50),
    ledger=LedgerConfig(busy_timeout_ms=200),
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4096k,nr_inodes=400", "none", str(mount)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def resize(mount: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(mount)], check=True)


def fill_up(mount: Path) -> Path:
    path = mount / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
    return path


def test_a_full_disk_loses_nothing_and_everything_goes_on_when_there_is_room(small_disk: Path) -> None:
    strongroom.init(small_disk / "d", config=CONFIG)
    kept: dict[UUID, str] = {}
    refused = 0
    with strongroom.open(small_disk / "d", provider=WordModel()) as room:
        for i in range(2000):
            try:
                m = room.store(f"memory {i} " + "x" * 5000, namespace=NS, subject=f"user:{i}")
                kept[m.memory_id] = m.content
            except StorageFullError as e:
                assert e.hint
                refused += 1
                if refused == 20:
                    break
        with pytest.raises(StorageFullError):
            room.store_many(
                [{"content": "y" * 9000, "namespace": NS, "subject": f"s{i}"} for i in range(300)]
            )
        filler = fill_up(small_disk)
        before = room.engine.ledger.audit_count()
        answers = 0
        for _ in range(300):  # the audit entries take the last free bytes, then answers are withheld
            try:
                room.search("memory", namespaces=[NS])
                answers += 1
            except StorageFullError:
                break
        else:
            pytest.fail("a search was answered without its audit entry")
        assert room.engine.ledger.audit_count() - before >= answers
        for refuse in (
            lambda: room.store_many([{"content": "z" * 60_000, "namespace": NS}]),
            lambda: room.store("new keys are needed", namespace="other/space"),
        ):
            with pytest.raises(StorageFullError):
                refuse()
        filler.unlink()
        resize(small_disk, 30_000)
        room.store("there is room again", namespace=NS)
        room.store("new keys can be made", namespace="other/space")
        room.flush()
        assert room.check(read_data=True).ok
    with strongroom.open(small_disk / "d", provider=WordModel()) as room:
        assert {i: room.get(i, namespace=NS).content for i in kept} == kept
        assert room.stats().embedded == len(kept) + 2
        assert room.check(read_data=True).ok


def test_a_disk_without_room_for_one_more_file_is_full(small_disk: Path) -> None:
    """The logs of the databases cannot be made: a full disk, not a lack of rights, for ledger and keyring."""
    strongroom.init(small_disk / "d", config=CONFIG)
    for spare in range(3):
        filler = small_disk / "filler"
        filler.mkdir()
        with contextlib.suppress(OSError):
            for number in range(100_000):
                (filler / str(number)).touch()
        for number in range(spare):
            (filler / str(number)).unlink()
        with pytest.raises(StorageFullError), strongroom.open(small_disk / "d", provider=WordModel()) as room:
            room.store("no room", namespace=NS)
        subprocess.run(["rm", "-r", str(filler)], check=True)
    with strongroom.open(small_disk / "d", provider=WordModel()) as room:
        room.store("works", namespace=NS)
        assert room.check(read_data=True).ok


def test_a_load_by_workers_that_fills_the_disk_is_told_so_and_the_rest_is_loaded_later(
    small_disk: Path,
) -> None:
    """Whichever worker meets it: a typed error, no worker that waits, a beginning of the items is stored."""
    config = dataclasses.replace(CONFIG, embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(small_disk / "d", config=config)
    items = [
        {"content": f"item {n} " + "x" * 500, "namespace": NS, "subject": f"user:{n % 700}"}
        for n in range(12_000)
    ]
    with strongroom.open(small_disk / "d", worker=False) as room:
        told: list[int] = []
        with pytest.raises(StorageFullError) as caught:
            room.load(items, workers=2, progress=told.append)
        assert caught.value.hint
        resize(small_disk, 60_000)
        kept = [int(m.content.split()[1]) for m in memories_of(room, NS)]
        assert sorted(kept) == list(range(len(kept))) and max(told, default=0) <= len(kept) < len(items)
        assert room.load(items[len(kept) :], workers=2) == len(items) - len(kept)
        assert sorted(m.content for m in memories_of(room, NS)) == sorted(str(i["content"]) for i in items)
        assert room.check(read_data=True).findings == ()


@pytest.mark.parametrize("kib", [8, 40, 90, 150, 200])
def test_an_init_that_ran_out_of_space_can_be_repeated(small_disk: Path, kib: int) -> None:
    resize(small_disk, kib)
    with pytest.raises(StorageFullError):
        strongroom.init(small_disk / "d", config=CONFIG)
    resize(small_disk, 4096)
    strongroom.init(small_disk / "d", config=CONFIG)
    with strongroom.open(small_disk / "d", provider=WordModel()) as room:
        room.store("works", namespace=NS)
        assert room.check(read_data=True).ok


def test_an_init_that_cannot_make_its_last_step_durable_can_be_repeated(tmp_path: Path) -> None:
    """Whichever fsync of ours finds no space, the last one included: nothing is left that is in the way."""
    for at in range(100):
        try:
            with no_space_at_fsync(at):
                strongroom.init(tmp_path / "d", config=CONFIG)
            break
        except StorageFullError:
            assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []
    assert at > 5
    with strongroom.open(tmp_path / "d", provider=WordModel()) as room:
        room.store("works", namespace=NS)


def test_a_failed_init_never_takes_away_what_was_there(tmp_path: Path) -> None:
    strongroom.init(tmp_path / "d", config=CONFIG)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".db-shm"}
    for missing in ("strongroom.toml", "ledger.db"):
        (tmp_path / "d" / missing).unlink()
        with pytest.raises(ConflictError):
            strongroom.init(tmp_path / "d", config=CONFIG)
    (tmp_path / "d.keys" / "master.key").unlink()
    with pytest.raises(ConflictError):
        strongroom.init(tmp_path / "d", config=CONFIG)
    assert (tmp_path / "d.keys" / "keyring.db").read_bytes() == files[tmp_path / "d.keys" / "keyring.db"]


def test_files_locked_by_another_process_are_a_typed_error_and_then_go_on(tmp_path: Path) -> None:
    strongroom.init(tmp_path / "d", config=CONFIG)
    with strongroom.open(tmp_path / "d", provider=WordModel(), worker=False) as room:
        m = room.store("pricing", namespace=NS)
        other = apsw.Connection(str(tmp_path / "d" / "ledger.db"))
        other.execute("BEGIN IMMEDIATE")
        for blocked in (
            lambda: room.store("x", namespace=NS),
            lambda: room.search("pricing", namespaces=[NS]),  # its audit entry cannot be written
            lambda: room.delete(m.memory_id, namespace=NS),
        ):
            with pytest.raises(StorageBusyError):
                blocked()
        other.execute("ROLLBACK")
        other.close()
        assert [h.memory.content for h in room.search("pricing", namespaces=[NS])] == ["pricing"]
        assert room.check(read_data=True).ok


def test_a_head_changed_while_the_store_is_open_is_noticed_by_the_next_write(room: Room, data: Path) -> None:
    """The sum of a head that was opened once is not believed for another sequence number."""
    for i in range(3):
        room.store(f"m {i}", namespace=NS)
    heads, ledger = room.engine.heads, room.engine.ledger
    seq, head = ledger.head(1)
    heads.open_head(1, head, seq)
    with pytest.raises(DecryptionError):
        heads.open_head(1, head, seq - 1)


FORK = """
import os, sys, strongroom
from strongroom.errors import ClosedError, ConflictError
from tests.support.word_model import WordModel
room = strongroom.open(sys.argv[1], provider=WordModel())
room.store("parent", namespace="company_a/support")
pid = os.fork()
if pid == 0:
    code = 1
    try:
        for use in (
            lambda: room.search("parent", namespaces=["*"]),
            lambda: room.store("child", namespace="company_a/support"),
            lambda: room.engine.authenticate("sr_live_x"),
        ):
            try:
                use()
            except ClosedError:
                continue
            raise SystemExit("a forked process used its parent's store")
        room.close()
        try:
            strongroom.open(sys.argv[1], provider=WordModel())
        except ConflictError:
            code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
room.store("parent again", namespace="company_a/support")
room.flush()
assert room.check(read_data=True).ok and room.stats().memories == 2
room.close()
"""


def test_a_forked_process_is_told_to_open_the_store_itself(data: Path) -> None:
    run_python(FORK, data)


INTERRUPTS = """
import _thread, sys, threading, time, strongroom
from strongroom.errors import StrongroomError
from tests.support.word_model import WordModel
room = strongroom.open(sys.argv[1], provider=WordModel())
acknowledged, stop = [], threading.Event()
def others():
    while not stop.is_set():
        try:
            acknowledged.append(room.store("background", namespace="company_a/support").memory_id)
        except StrongroomError:
            pass
def interrupt():
    for _ in range(60):
        time.sleep(0.03)
        _thread.interrupt_main()
    stop.set()
threads = [threading.Thread(target=f, daemon=True) for f in (others, interrupt)]
for t in threads:
    t.start()
while not stop.is_set():
    try:
        acknowledged.append(room.store("foreground words", namespace="company_a/support").memory_id)
        room.search("words", namespaces=["company_a/support"], k=3)
    except (KeyboardInterrupt, StrongroomError):
        pass
time.sleep(0.2)
for t in threads:
    t.join(20)
room.flush(60)
report = room.check(read_data=True)
assert report.ok, report.findings
for memory_id in acknowledged:
    room.get(memory_id, namespace="company_a/support")
stats = room.stats()
assert stats.embedded == stats.memories >= len(acknowledged) > 20, stats
room.close()
"""


def test_interrupted_calls_leave_no_old_state_behind_and_lose_no_vector(data: Path) -> None:
    """A read that Ctrl-C stopped once lent its old snapshot to later reads: queued memories looked gone."""
    run_python(INTERRUPTS, data)


def run_python(code: str, data: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(data)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_after_close_every_operation_says_so(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    m = room.store("x", namespace=NS)
    room.close()
    room.close()
    for use in (
        lambda: room.store("y", namespace=NS),
        lambda: room.store_many([]),
        lambda: room.search("x", namespaces=[NS]),
        lambda: room.get(m.memory_id, namespace=NS),
        lambda: room.list(namespaces=["*"]),
        lambda: room.update(m.memory_id, namespace=NS),
        lambda: room.delete(m.memory_id, namespace=NS),
        room.flush, room.stats, room.namespaces, room.keys_list, room.queue, room.requeue, room.audit,
        room.check, room.repair,
        lambda: room.engine.authenticate("sr_live_x"),
    ):  # fmt: skip
        with pytest.raises(ClosedError):
            use()


def test_two_configurations_of_one_model_do_not_fight_over_a_namespace(open_room: OpenRoom) -> None:
    """A process that still has the old model leaves vectors of the new one alone, and says what it is."""
    old, new = WordModel(), WordModel(dimensions=32, name="other")
    first = open_room(provider=old)
    first.store_many([{"content": f"words {i}", "namespace": NS} for i in range(20)])
    first.flush()
    first.search("words", namespaces=[NS])
    second = open_room(provider=new)
    second.search("words", namespaces=[NS])
    second.flush(timeout_s=30)
    model_no = second.engine.registry.get(NS).model_no  # type: ignore[union-attr]
    for _ in range(3):
        assert len(first.search("words", namespaces=[NS], k=50)) == 20  # by keyword
        with pytest.raises(StrongroomError) as caught:
            first.search("words", namespaces=[NS], mode="semantic")
        assert caught.value.code == "embedding_unavailable" and caught.value.hint
        assert len(first.list(namespaces=[NS]).memories) == 20
    first.store("words from the old process", namespace=NS)
    second.flush(timeout_s=30)
    assert len(second.search("words", namespaces=[NS], k=50, mode="semantic")) == 21
    assert second.engine.registry.get(NS).model_no == model_no  # type: ignore[union-attr]
    assert second.check(read_data=True).ok


def test_operators_see_any_number_of_namespaces(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on namespaces is one of queries: it once made flush and stats fail for ever."""
    room = open_room()
    limits = room.engine.config.limits
    object.__setattr__(limits, "namespaces_per_query_max", 3)
    for i in range(5):
        room.store("x", namespace=f"tenant{i}/a")
    room.flush()
    assert room.stats().namespaces == 5 and len(room.namespaces()) == 5 and room.queue() == []
    assert room.requeue() == 0
    with pytest.raises(StrongroomError) as caught:
        room.search("x", namespaces=["*"])
    assert caught.value.code == "limit_exceeded"


def test_what_duckdb_makes_of_ctrl_c_is_ctrl_c_again(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB sees the signal first and raises an error of its own; it once came out as an internal error."""
    room = open_room(debug=False)
    room.store("words", namespace=NS)

    def interrupted(*arguments: object) -> None:
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(room.engine.recall, "search", interrupted)
    with pytest.raises(KeyboardInterrupt):
        room.search("words", namespaces=[NS])
    monkeypatch.undo()
    assert len(room.search("words", namespaces=[NS])) == 1
