"""How a wave gives way: processes tell what live operations take, and workers rest when it grows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.rotation.rotated import NOTE, NS, assert_all_there, fill

from strongroom.engine import Room
from strongroom.lifecycle.rotation import Pace, TrafficMeter, TrafficView, _pace


class Time:
    """A clock that goes on only while somebody rests or works."""

    def __init__(self) -> None:
        self.now, self.rested = 100.0, 0.0

    def __call__(self) -> float:
        return self.now


class Stop(threading.Event):
    """Resting moves the clock."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time
        self.rested_at = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self._time.now += timeout or 0.0
        self._time.rested += timeout or 0.0
        self.rested_at = self._time.now
        return False


def work(pace: Pace, time: Time, batches: int, worked_s: float = 0.02) -> float:
    """Seconds of rest that so many batches were given."""
    before = time.rested
    for _ in range(batches):
        time.now += worked_s
        pace(worked_s)
    return time.rested - before


def test_alone_a_worker_never_rests() -> None:
    """Without traffic there is nobody to be considerate of."""
    time = Time()
    pace = Pace(lambda: None, Stop(time), allowance=0.1, clock=time)
    assert work(pace, time, 500) == 0.0 and pace.ratio == 0.0


def test_a_worker_rests_longer_while_it_slows_others_down_and_less_when_it_does_not() -> None:
    """By half beside its work: rests grow to their limit; as at rest: they shrink; nobody asks: none."""
    time = Time()
    stop = Stop(time)
    beside: list[float | None] = [0.004]

    def median_s() -> float | None:
        return 0.004 if beside[0] is not None and time.now == stop.rested_at else beside[0]

    pace = Pace(median_s, stop, allowance=0.1, rest_max=8.0, clock=time)
    work(pace, time, 1)  # learns what it is at rest
    quiet = pace.ratio
    beside[0] = 0.006
    ratios = []
    for _ in range(40):
        work(pace, time, 1, 0.31)
        ratios.append(pace.ratio)
    assert ratios == sorted(ratios) and ratios[-1] == 8.0 > quiet
    beside[0] = 0.004
    work(pace, time, 40, 0.31)
    assert pace.ratio < 1.0
    beside[0] = None
    work(pace, time, 40, 0.31)
    assert pace.ratio == 0.0


def test_what_is_slow_at_rest_too_is_not_the_waves_doing() -> None:
    """Operations that have become slower for another reason do not hold a wave up for ever."""
    time = Time()
    median = [0.004]
    pace = Pace(lambda: median[0], Stop(time), allowance=0.1, rest_max=8.0, clock=time)
    work(pace, time, 1)
    median[0] = 0.006
    work(pace, time, 3, 0.31)
    assert pace.ratio == 8.0
    work(pace, time, 25, 0.31)
    assert pace.ratio < 1.0


def test_at_its_limit_a_wave_still_gets_on() -> None:
    """A tenth of the time is its own whatever the traffic: so it ends."""
    time = Time()
    stop = Stop(time)
    pace = Pace(lambda: 0.004 if time.now == stop.rested_at else 1.0, stop, allowance=0.1, clock=time)
    work(pace, time, 20, 0.31)
    assert pace.ratio == 10.0
    before = time.now
    rested = work(pace, time, 20, 0.31)
    assert rested < 0.95 * (time.now - before)


def test_a_background_worker_always_rests_beside_traffic() -> None:
    """It shares its interpreter with what it serves, so it never goes without a rest while there is any."""
    time = Time()
    pace = Pace(lambda: 0.004, Stop(time), allowance=0.1, rest_min=2.0, clock=time)
    work(pace, time, 60, 0.31)
    assert pace.ratio == 2.0
    assert work(pace, time, 2, 0.1) >= 2 * 2.0 * 0.1


def test_the_median_of_all_processes_weighted_by_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process tells its own; what is old, damaged or this thread's own work is left out."""
    now = [1_000.0]
    monkeypatch.setattr(_pace, "_clock", lambda: now[0])
    busy, idle, mine = (TrafficMeter(tmp_path) for _ in range(3))
    view = TrafficView(tmp_path, mine)
    assert view.median_s() is None
    for _ in range(9):
        now[0] += 0.05
        busy.note(0.010)
        mine.note(5.0)  # by this very thread: the wave itself
    for _ in range(3):
        now[0] += 0.05
        idle.note(0.002)
    found = view.median_s()
    assert found is not None and 0.002 < found < 0.011
    (tmp_path / "live" / "nonsense").write_bytes(b"x" * 28)
    (tmp_path / "live" / "short").write_bytes(b"x")
    assert view.median_s() == found
    now[0] += 60
    assert view.median_s() is None
    for meter in (busy, idle, mine):
        meter.close()
    assert not list((tmp_path / "live").glob(f"{__import__('os').getpid()}-*"))


def test_a_wave_gives_way_after_each_batch(room: Room) -> None:
    """The pace is asked with the length of every batch; what it does not ask for goes on at once."""
    wanted = fill(room, 60)
    (rotation,) = room.rotate("data", namespaces=[NS], wait=False)
    rests: list[float] = []
    done = room.engine.rotations.waves.work(rotation.id, NOTE, rest=rests.append)
    assert len(rests) >= done.moved // 50 >= 2 and all(s > 0 for s in rests)
    assert_all_there(room, wanted)


def test_searches_are_told_to_workers_of_other_processes(room: Room, data: Path) -> None:
    """What a room has searched a moment ago is what a worker beside it sees."""
    fill(room, 4)
    view = TrafficView(data)
    room.engine.traffic._write_at = 0.0
    for _ in range(8):
        room.search("alpha", namespaces=[NS], mode="keyword")
    room.engine.traffic._write_at = 0.0
    room.search("alpha", namespaces=[NS], mode="keyword")
    found = view.median_s()
    assert found is not None and 0.0 < found < 60.0
