"""How far a namespace is that is read from its rows: told while it is, and no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.engine.test_tamper import drop_row

from strongroom.cli import _progress
from strongroom.engine import Room, _indexes, _reading
from strongroom.errors import TamperedError

NS = "company_a/support"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages, and a line in the log for each."""
    monkeypatch.setattr(_indexes, "_APPLY_ROWS", 10)
    monkeypatch.setattr(_reading, "_LINE_EVERY_S", 0.0)


class Recorded:
    """A log that keeps what it is told."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def stored(open_room: OpenRoom) -> bytes:
    """Some rows; the id of one of them."""
    room = open_room(worker=False)
    made = room.store_many([{"content": f"note {i}", "namespace": NS} for i in range(95)])
    room.close()
    return made[40].memory_id.bytes


def figures(room: Room) -> tuple[float, float]:
    metrics = room.engine.metrics
    return tuple(m.collect()[0].samples[0].value for m in (metrics.loading, metrics.loading_share))  # type: ignore[return-value]


def test_progress_is_told_in_the_log_as_a_figure_and_to_a_program(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page of rows moves it on; at the end nothing is being read; the log has no name of a namespace."""
    stored(open_room)
    room = open_room(worker=False)
    told: list[tuple[int, int]] = []
    seen: list[tuple[float, float]] = []

    def observe(done: int, total: int) -> None:
        told.append((done, total))
        seen.append(figures(room))

    room.engine.indexes.reading.observe = observe
    log = Recorded(room.engine.log)
    monkeypatch.setattr(room.engine, "log", log)
    assert figures(room) == (0.0, 1.0)
    assert room.search("note", namespaces=[NS], mode="keyword", k=5)
    assert [done for done, _ in told] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]
    assert {total for _, total in told} == {95}
    assert seen == [(1.0, pytest.approx(done / 95)) for done, _ in told]
    assert figures(room) == (0.0, 1.0)
    loading = [line for line in log.lines if line["event"] == "namespace_loading"]
    assert [line["changes"] for line in loading] == [done for done, _ in told]
    assert NS not in str(loading)


def test_a_reading_that_fails_is_over(data: Path, open_room: OpenRoom) -> None:
    """What cannot be read to its end is not told to be under way for ever."""
    drop_row(data, [stored(open_room)])
    room = open_room(worker=False)
    with pytest.raises(TamperedError):
        room.search("note", namespaces=[NS], mode="keyword")
    assert figures(room) == (0.0, 1.0)


def test_commands_show_it_once_it_takes_more_than_a_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing for a quick one; lines on stderr for a slow one; none where the output is for a program."""
    clock = [100.0]
    monkeypatch.setattr(_progress, "monotonic", lambda: clock[0])
    for quiet in (False, True):
        loading = _progress.Loading(quiet=quiet)
        for done in range(0, 1000, 100):
            loading(done, 1000)
            clock[0] += 0.01
        loading(1000, 1000)
        assert capsys.readouterr().err == ""
        for done in range(0, 1000, 100):
            loading(done, 1000)
            clock[0] += 3.0
        loading.close()
        assert ("reading the rows: 900 of 1000 changes" in capsys.readouterr().err) is not quiet
