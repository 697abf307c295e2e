"""Which layer holds which attacks: each layer off alone, and each layer on alone.

``python -m tests.isolation.matrix`` measures all of it anew (some minutes) into ``held.json`` and the table
of docs/isolation.md; the tests look at samples of it, and at the table.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.isolation.corpus import Attack, corpus
from tests.isolation.layers import LAYERS, Layer
from tests.isolation.worlds import FOREIGN, SECRET, Outcome, World, make_world

from strongroom.errors import StrongroomError, UnauthenticatedError

HELD = Path(__file__).with_name("held.json")
PAGE = Path(__file__).parents[2] / "docs" / "isolation.md"
SAMPLES = 6  # attacks of a layer that the suite plays again
LIMITED = frozenset(f"nesting_and_size-{n}" for n in (9, 10, 16, 28, 37))  # harmless when no limit is there
STOPPED = frozenset({"limit_exceeded", "timeout"})


def same(one: Outcome, other: Outcome) -> bool:
    """Two ways to be stopped by a limit of resources count as one: which comes first is chance."""
    return one == other or {one.state, other.state} <= STOPPED


def got_through(attack: Attack, outcome: Outcome, twin: Callable[[], Outcome]) -> bool:
    """The attacker sees what is foreign, or gets an answer to what has to be refused.

    An internal error is a layer behind that shut the door.
    """
    if outcome.state == "internal":
        return False
    if SECRET in outcome.told or (outcome.answered and attack.expect != "rows"):
        return True
    return not same(outcome, twin())


# -- attacks that need more than one statement -----------------------------------------------------------
def _revoked(world: World) -> bool:
    """A statement that was prepared, and run, goes on after the key is revoked."""
    return _after(world, lambda key_id: world.room.keys_revoke(key_id))


def _expired(world: World) -> bool:
    """A statement goes on after the key has expired."""

    def later(_: str) -> object:
        world.clock[0] += int(timedelta(days=2).total_seconds() * 1e6)
        return None

    try:
        return _after(world, later)
    finally:
        world.clock[0] -= int(timedelta(days=2).total_seconds() * 1e6)


def _after(world: World, ends: Callable[[str], object]) -> bool:
    from datetime import UTC, datetime

    expires = datetime.fromtimestamp(world.clock[0] / 1e6, UTC) + timedelta(days=1)
    info, key = world.room.keys_create("passing", "read-only", ["aa/*"], expires)
    session = world.room.engine.authenticate(key)
    statement = "SELECT count(*) FROM memories WHERE kind = ?"
    session.sql(statement, ["x"])
    ends(info.key_id)
    for call in (
        lambda: session.sql(statement, ["x"]),
        lambda: session.sql_describe(statement),
        lambda: session.list(namespaces=["aa/*"]),
        lambda: session.search("common", namespaces=["aa/*"]),
    ):
        try:
            call()
        except UnauthenticatedError:
            continue
        except StrongroomError:
            return True
        return True
    return False


def _asked_by_name(world: World) -> bool:
    """A foreign namespace, asked for by name or pattern, tells whether it exists."""
    told = set()
    for pattern in (FOREIGN, "zz/never", "aab/next-CANARY", "AA/mine", "aa"):
        try:
            world.attacker.sql("SELECT count(*) FROM memories", namespaces=[pattern])
            return True
        except StrongroomError as e:
            told.add((e.code, e.message, e.hint))
    counts = [
        list(world.attacker.sql("SELECT count(*) FROM memories", namespaces=[p]).rows())
        for p in ("zz/*", "aab/*", "AA/*", "none/*")
    ]
    return len(told) != 1 or counts != [[(0,)]] * 4


SCENARIOS = {"revoked": _revoked, "expired": _expired, "asked by name": _asked_by_name}


# -- the matrix --------------------------------------------------------------------------------------------
@dataclass
class Stage:
    """Two pairs of stores: with the engine's lockdown, and without."""

    locked: tuple[World, World]
    open: tuple[World, World]

    def close(self) -> None:
        for world in (*self.locked, *self.open):
            world.close()


def make_stage(folder: Path) -> Stage:
    loot = folder / "loot"

    def pair(name: str, *, locked: bool) -> tuple[World, World]:
        made = [
            make_world(folder / f"{name}{planted}" / "data", planted=planted, locked=locked, folder=loot)
            for planted in (True, False)
        ]
        return made[0], made[1]

    for name in ("lockedTrue", "lockedFalse", "openTrue", "openFalse"):
        (folder / name).mkdir()
    return Stage(pair("locked", locked=True), pair("open", locked=False))


@contextmanager
def switched(stage: Stage, off: Iterable[Layer]) -> Iterator[tuple[World, World]]:
    """The two stores with some layers off, and nothing remembered from before."""
    off = list(off)
    worlds = stage.open if any(layer.off is None for layer in off) else stage.locked
    for world in worlds:
        world.forget()
    try:
        with ExitStack() as stack:
            for layer in off:
                for world in worlds if layer.off is not None else ():
                    assert layer.off is not None
                    stack.enter_context(layer.off(world))
            yield worlds
    finally:
        for world in worlds:
            world.forget()


def through(stage: Stage, off: Iterable[Layer], attacks: Iterable[Attack]) -> set[str]:
    """The attacks that get through with some layers off."""
    out = set()
    with switched(stage, off) as (planted, clean):
        for attack in attacks:
            statement, values = attack.statement(planted.names), attack.values(planted.names)
            outcome = planted.attack(statement, values)
            if got_through(attack, outcome, lambda s=statement, v=values: clean.attack(s, v)):  # type: ignore[misc]
                out.add(attack.id)
        for name, play in SCENARIOS.items():
            if [_plays(play, planted), _plays(play, clean)][0]:  # in both, so that their own logs stay equal
                out.add(f"scenario-{name}")
    return out


def _plays(play: Callable[[World], bool], world: World) -> bool:
    """Whether it got through; when another layer refuses everything, it did not."""
    try:
        return play(world)
    except StrongroomError:
        return False


def light() -> list[Attack]:
    """The attacks that no limit of time has to stop."""
    return [a for a in corpus() if not a.heavy]


# -- the whole of it -----------------------------------------------------------------------------------------
def others(layer: Layer) -> list[Layer]:
    """All layers but this one and what it builds on; the limits stay, for the machine's sake."""
    kept = {layer.name, *layer.needs, "limits"}
    return [one for one in LAYERS if one.name not in kept]


def measure(folder: Path) -> dict[str, dict[str, object]]:
    """For each layer how many attacks only it holds, and how many it stops by itself."""
    stage = make_stage(folder)
    held: dict[str, dict[str, object]] = {}
    try:
        everything = [layer for layer in LAYERS if layer.name != "limits"]
        bare = through(stage, everything, light())
        held["nothing"] = {"through": len(bare), "families": dict(Counter(i.rsplit("-", 1)[0] for i in bare))}
        for layer in LAYERS:
            limits = layer.name == "limits"
            played = [a for a in light() if a.id in LIMITED] if limits else light()
            alone_off = through(stage, [layer], played)
            left = set() if limits else through(stage, others(layer), [a for a in light() if a.id in bare])
            stops = alone_off if limits else bare - left
            held[layer.name] = {
                "only": len(alone_off),
                "stops": len(stops),
                "only_ids": spread(alone_off),
                "stops_ids": spread(stops),
            }
            print(layer.name, len(alone_off), len(stops), spread(alone_off), flush=True)
    finally:
        stage.close()
    return held


def spread(ids: Iterable[str]) -> list[str]:
    """A few of them, from as many families as there are."""
    by_family: dict[str, list[str]] = {}
    for one in sorted(ids, key=lambda i: (i.rsplit("-", 1)[0], i)):
        by_family.setdefault(one.rsplit("-", 1)[0], []).append(one)
    firsts = [ids[0] for ids in by_family.values()]
    step = max(1, len(firsts) // SAMPLES)
    chosen = firsts[::step][:SAMPLES]
    rest = [i for ids in by_family.values() for i in ids if i not in chosen]
    return sorted(chosen + rest[: SAMPLES - len(chosen)])


def table(held: dict[str, dict[str, object]]) -> str:
    """The table of docs/isolation.md."""
    lines = [
        "| layer | what it does | attacks that only it holds | attacks that it stops with all else off |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {layer.name} | {layer.what} | {held[layer.name]['only']} | {held[layer.name]['stops']} |"
        for layer in LAYERS
    ]
    return "\n".join(lines)


def families() -> str:
    """How many attacks a family has."""
    counts = Counter(a.family for a in corpus())
    lines = ["| family | attacks |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {count} |" for name, count in sorted(counts.items())]
    return "\n".join([*lines, f"| **all** | **{sum(counts.values())}** |"])


def page(text: str, held: dict[str, dict[str, object]]) -> str:
    """The page with its tables made anew."""
    for name, made in (("layers", table(held)), ("families", families())):
        begin, end = f"<!-- {name}: generated -->\n", "\n<!-- end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + made + end + after
    return text


def main(arguments: Sequence[str] = ()) -> None:
    if "--tables" not in arguments:
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            HELD.write_text(json.dumps(measure(Path(folder)), indent=1) + "\n")
    held = json.loads(HELD.read_text())
    PAGE.write_text(page(PAGE.read_text(), held))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
