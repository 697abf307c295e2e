"""What searches have learnt outlives the process that has learnt it, and closing begins nothing in vain."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.engine.conftest import snapshot_events
from tests.engine.test_snapshots import NS, store_with, tended, wait_verified
from tests.support.word_model import WordModel

import strongroom
from strongroom.engine import Room, _keeper, _learnt_file, _snapshot_file
from strongroom.errors import IntegrityError, StrongroomError
from strongroom.recall import NamespaceIndex, learnt_of, take_up
from strongroom.recall._reach import FAR, Places
from strongroom.recall.learnt import QUESTION_BYTES
from strongroom.recall.vectors import SAMPLE_QUESTIONS

ROWS = 400


@pytest.fixture
def store(tmp_path: Path, model: WordModel) -> Path:
    """A store whose vectors lie in lists, with a snapshot."""
    path = store_with(tmp_path, snapshot_rows_min=10, snapshot_interval_ms_min=0, exact_rows_max=100)
    with strongroom.open(path, provider=model, worker=False) as room:
        texts = [f"n {i} of {i % 7}" for i in range(ROWS)]
        room.store_many({"content": t, "namespace": NS, "embedding": model.vector(t)} for t in texts)
        settled(room)
        assert len(tended(room)) == 1
    return path


def settled(room: Room) -> NamespaceIndex:
    room.search("n 7", namespaces=[NS])
    ((_, index),) = room.engine.indexes.loaded_entries()
    assert index.wait_idle(30) and index.vectors is not None and not index.vectors.is_exact
    wait_verified(room)
    return index


def all_of(index: NamespaceIndex) -> tuple[int, ...]:
    assert index.vectors is not None
    reach = index.vectors._reach
    return *reach.curve, *reach.coded, *reach.again


def learn(index: NamespaceIndex, probes: int) -> tuple[int, ...]:
    """As if real questions had shown that so many lists suffice."""
    assert index.vectors is not None
    lane = index.vectors
    four = (probes,) * len(lane._reach.curve)
    lane._reach = replace(lane._reach, curve=four, coded=four, again=(100 + probes,) * len(four))
    return all_of(index)


def curve(path: Path, model: WordModel) -> tuple[int, ...]:
    with strongroom.open(path, provider=model, worker=False) as room:
        index = settled(room)
        assert snapshot_events(room) == {"loaded": 1}
        return all_of(index)


def files(path: Path, suffix: str) -> list[Path]:
    return list((path / "snapshots").glob(f"*{suffix}"))


def test_what_was_learnt_after_the_snapshot_is_known_to_the_next_process(
    store: Path, model: WordModel
) -> None:
    """Closing writes it beside the snapshot, sealed, and does not write the snapshot again for it."""
    (snapshot,) = files(store, ".snap")
    before, first = snapshot.stat().st_mtime_ns, curve(store, model)
    assert not files(store, ".learnt")  # nothing new, nothing written
    with strongroom.open(store, provider=model, worker=False) as room:
        wanted = learn(settled(room), 3)
        assert wanted != first
    (learnt,) = files(store, ".learnt")
    assert curve(store, model) == wanted
    assert snapshot.stat().st_mtime_ns == before and files(store, ".snap") == [snapshot]
    assert learnt.stat().st_mode & 0o777 == 0o600 and learnt.stem == snapshot.stem


def sampled(index: NamespaceIndex, model: WordModel, first: int, count: int) -> Places:
    """Ask so many questions, and have the lane look up what they should have found."""
    lane = index.vectors
    assert lane is not None
    for number in range(first, first + count):
        lane.search(model.vector(f"n {number} of {number % 7}"), 10)
        if number % SAMPLE_QUESTIONS == SAMPLE_QUESTIONS - 1:
            lane._sample_at_s = 0.0
            lane.tend()
            assert lane.wait_built(30)
    return lane._samples.real


def test_the_questions_it_was_learnt_from_go_along(
    store: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process adds its own to them, whether they lie beside the snapshot they were asked with or
    beside a newer one; so the first of its own do not decide alone."""
    with strongroom.open(store, provider=model, worker=False) as room:
        before = sampled(settled(room), model, 0, 64)
        assert len(before) == 64
    with strongroom.open(store, provider=model, worker=False) as room:
        index = settled(room)
        assert index.vectors is not None and index.vectors._samples.are_real
        np.testing.assert_array_equal(index.vectors._samples.real, before)
        more = sampled(index, model, 64, 8)
        assert len(more) == 72
        np.testing.assert_array_equal(more[:64], before)
        keeper = room.engine.indexes._keeper
        keeper._of(1).not_before_s = 0.0
        with monkeypatch.context() as patch:
            patch.setattr(keeper, "_has_grown", lambda *_: True)
            assert len(tended(room)) == 1 and not files(store, ".learnt")
    with strongroom.open(store, provider=model, worker=False) as room:
        index = settled(room)
        assert index.vectors is not None
        np.testing.assert_array_equal(index.vectors._samples.real, more)


def test_processes_that_ask_little_add_up_their_questions(store: Path, model: WordModel) -> None:
    """Too few to change how far searches look, each process leaves its own beside those it has found."""
    for process in range(3):
        with strongroom.open(store, provider=model, worker=False) as room:
            assert len(sampled(settled(room), model, 8 * process, 8)) == 8 * (process + 1)
            room.engine.indexes.tend()
            assert len(sampled(settled(room), model, 100 + 8 * process, 0)) == 8 * (process + 1)


def test_nothing_learnt_stays_of_snapshots_that_are_thrown_away_meanwhile(
    store: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the housekeeping was about to put there: an erasure leaves neither file nor key."""
    with strongroom.open(store, provider=model, worker=False) as room:
        learn(settled(room), 3)
        snapshots = room.engine.indexes.snapshots
        begun, go_on, write = threading.Event(), threading.Event(), _learnt_file.write

        def slowly(*given: object) -> None:
            begun.set()
            assert go_on.wait(30)
            write(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(_learnt_file, "write", slowly)
        room.engine.indexes._keeper._of(1).learnt_at_s = 0.0
        keeping = threading.Thread(target=room.engine.indexes.tend)
        keeping.start()
        assert begun.wait(30)
        throwing = threading.Thread(target=room.engine.indexes.discard_snapshots, args=(1,))
        throwing.start()
        while snapshots.files(1):
            throwing.join(0.01)
        go_on.set()
        keeping.join(30)
        throwing.join(30)
        assert not files(store, ".learnt") and not files(store, ".snap")


def test_questions_that_cannot_have_been_asked_are_not_believed(store: Path, model: WordModel) -> None:
    """Ranks beyond the last list, places beyond the last mark, half a question, too many of them: what was
    learnt is ignored as a whole."""
    with strongroom.open(store, provider=model, worker=False) as room:
        index = settled(room)
        assert index.vectors is not None
        seen = sampled(index, model, 0, 8)
        good = learnt_of(index)
        assert good is not None and len(good.seen) == 8 * QUESTION_BYTES and take_up(index, good)
        beyond, late = seen.copy(), seen.copy()
        beyond[3, 0, 700] = index.vectors._lists.lists
        late[3, 1, 700] = FAR + 1
        for bad in (beyond.tobytes(), late.tobytes(), good.seen[:-2], good.seen * 25):
            assert not take_up(index, replace(good, seen=bad))
        assert take_up(index, replace(good, seen=good.seen * 24)) and len(index.vectors._samples.real) == 192


def test_it_is_kept_while_the_process_goes_on(store: Path, model: WordModel) -> None:
    """The housekeeping writes it now and then: a process that is killed loses a minute of it."""
    with strongroom.open(store, provider=model, worker=False) as room:
        index = settled(room)
        learn(index, 2)
        room.engine.indexes.tend()
        room.engine.indexes._keeper._of(1).learnt_at_s = 0.0
        room.engine.indexes.tend()
        (learnt,) = files(store, ".learnt")
        made = learnt.stat().st_mtime_ns
        learn(index, 4)
        room.engine.indexes.tend()
        assert learnt.stat().st_mtime_ns == made  # not yet again


def test_what_is_damaged_or_belongs_to_another_snapshot_is_thrown_away(store: Path, model: WordModel) -> None:
    """Every flipped byte, a cut, and a file of an older snapshot of the same rows: all are ignored."""
    first = curve(store, model)
    with strongroom.open(store, provider=model, worker=False) as room:
        learn(settled(room), 3)
    (learnt,) = files(store, ".learnt")
    whole = learnt.read_bytes()
    with strongroom.open(store, provider=model, worker=False) as room:
        entry = room.engine.registry.get(NS)
        (file,) = room.engine.indexes.snapshots.files(1)
        header = room.engine.indexes.snapshots.header(file)
        assert entry is not None and header is not None
        kek = room.engine.vault.purpose_key(1, "snapshot")
        inside = _learnt_file.read(learnt, header, entry.tenant, kek)
        assert (inside.curve, inside.coded, inside.again) == ((3,) * 4, (3,) * 4, (103,) * 4)
        for at in range(len(whole)):
            learnt.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(StrongroomError):
                _learnt_file.read(learnt, header, entry.tenant, kek)
        learnt.write_bytes(whole)
        with pytest.raises(IntegrityError):
            _learnt_file.read(learnt, replace(header, made_us=header.made_us + 1), entry.tenant, kek)
    for bad in (whole[:-1], whole[: _snapshot_file.HEADER_BYTES], b"", whole[:60] + b"x" + whole[61:]):
        learnt.write_bytes(bad)
        assert curve(store, model) == first and not learnt.exists()


def test_a_new_snapshot_or_none_takes_it_along(
    store: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learnt is in the next snapshot; where snapshots are thrown away it goes too."""
    with strongroom.open(store, provider=model, worker=False) as room:
        index = settled(room)
        wanted = learn(index, 3)
        keeper = room.engine.indexes._keeper
        keeper._of(1).learnt_at_s = 0.0
        room.engine.indexes.tend()
        assert files(store, ".learnt")
        keeper._of(1).not_before_s = 0.0
        with monkeypatch.context() as patch:
            patch.setattr(keeper, "_has_grown", lambda *_: True)
            assert len(tended(room)) == 1 and not files(store, ".learnt")
    assert curve(store, model) == wanted
    with strongroom.open(store, provider=model, worker=False) as room:
        learn(settled(room), 4)
        room.engine.indexes._keeper._of(1).learnt_at_s = 0.0
        room.engine.indexes.tend()
        assert files(store, ".learnt")
        room.engine.indexes.discard_snapshots(1)
        assert not files(store, ".learnt") and not files(store, ".snap")
        (store / "snapshots" / "1-800.learnt").write_bytes(b"of a snapshot that somebody deleted")
        room.engine.indexes._keeper._sweep_at_s = 0.0
        room.engine.indexes.tend()
        assert not files(store, ".learnt")


@pytest.mark.parametrize("under_way", [False, True])
def test_closing_does_not_begin_what_it_cannot_end(
    store: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch, under_way: bool
) -> None:
    """A snapshot that would take longer than closing may is not begun, and one under way is given up at once;
    the old one stays, with what was learnt since."""
    (snapshot,) = files(store, ".snap")
    monkeypatch.setattr(_keeper, "_ROW_S", 1e3)
    room = strongroom.open(store, provider=model, worker=False)
    wanted = learn(settled(room), 3)
    keeper = room.engine.indexes._keeper
    monkeypatch.setattr(keeper, "_has_grown", lambda *_: True)
    if under_way:
        begun = threading.Event()
        monkeypatch.setattr(_snapshot_file, "_SYNC_BYTES", 1)
        monkeypatch.setattr(_keeper, "_RESTS", 1e6)
        monkeypatch.setattr(_keeper, "_REST_S_MAX", 0.05)
        write = keeper.snapshots.write

        def slowly(*given: object) -> object:
            begun.set()
            return write(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(keeper.snapshots, "write", slowly)
        keeper._of(1).not_before_s = 0.0
        room.engine.indexes.tend()
        assert begun.wait(20)
    room.close()
    assert files(store, ".snap") == [snapshot] and len(files(store, ".learnt")) == 1
    monkeypatch.undo()
    assert curve(store, model) == wanted
