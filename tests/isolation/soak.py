"""``script/soak``: mixed load with kills, races, the fuzzer, all attacks everywhere. Status 1: a hole."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from tests.isolation.corpus import corpus
from tests.isolation.grammar import Grammar
from tests.isolation.matrix import same
from tests.isolation.surfaces import surfaces
from tests.isolation.worlds import SECRET, Outcome, World, make_world

OF_THE_SERVER = ("pg_backend_pid", "postmaster_start", "inet_server", "pg_stat_activity", "conf_load_time")
Twins = tuple[World, World]


def hole(where: str, statement: str, one: Outcome, two: Outcome) -> bool:
    """Whether the twins differ or a canary is there; says so."""
    if SECRET not in one.told and same(one, two) and one.state != "internal":
        return False
    print(f"HOLE {where}: {statement!r}\n  {one}\n  {two}", flush=True)
    return True


def fuzz(twins: Twins, minutes: float, seed: int) -> int:
    """Statements of the grammar, embedded."""
    planted, clean = twins
    grammar = Grammar(seed, planted.names)
    states: Counter[str] = Counter()
    holes = 0
    end = monotonic() + 60 * minutes
    while monotonic() < end:
        statement = grammar.statement()
        one, two = planted.fuzzed(statement), clean.fuzzed(statement)
        if "timeout" in (one.state, two.state):  # the machine may have stood still: once more
            one, two = planted.fuzzed(statement), clean.fuzzed(statement)
        holes += hole("fuzz", statement, one, two)
        states[one.state] += 1
    print(f"isolation-fuzz: seed {seed}, {sum(states.values())} statements, {holes} holes; {dict(states)}")
    return holes


def attack(twins: Twins, minutes: float, seed: int) -> int:
    """The corpus at every surface, as far as the time reaches."""
    end = monotonic() + 60 * minutes
    holes = played = 0
    with ExitStack() as stack:
        doors = [stack.enter_context(surfaces(world)) for world in twins]
        for name in doors[0]:
            for one in corpus():
                statement, values = one.statement(twins[0].names), one.values(twins[0].names)
                if one.heavy or any(word in statement for word in OF_THE_SERVER):
                    continue
                if monotonic() > end:
                    break
                holes += hole(name, statement, *(door[name](statement, values) for door in doors))
                played += 1
    print(f"isolation-surfaces: {played} of {len(corpus()) * len(doors[0])} plays, {holes} holes")
    return holes


def wire(twins: Twins, minutes: float, seed: int) -> int:
    """The parser of the wire protocol: mutated conversations, then what atheris finds by coverage."""
    failed = 0
    for module in ("bench.soak.pgwire_fuzz", "bench.soak.pgwire_atheris"):
        command = [sys.executable, "-m", module, str(max(1, int(60 * minutes))), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        lines = (done.stdout + done.stderr).strip().splitlines()
        shown = [x for x in lines if x.startswith(("Done", "stat::")) or "conversations" in x]
        print(f"wire-fuzz: {module}: " + "; ".join(shown if done.returncode == 0 else lines[-20:]))
    return failed


def mixed(rows: int, minutes: float, seed: int) -> int:
    """Several processes search and write in one store while they are killed; its own report, its status."""
    command = [sys.executable, "-m", "bench.soak.mixed", "--minutes", str(minutes), "--rows", str(rows)]
    return subprocess.run([*command, "--seed", str(seed)], check=False).returncode


def same_things(minutes: float, seed: int) -> int:
    """Processes that make the same things at the same time; its own report, its status."""
    command = [sys.executable, "-m", "bench.soak.same", "--minutes", str(minutes), "--seed", str(seed)]
    return subprocess.run(command, check=False).returncode


def floods(minutes: float) -> int:
    """Floods of the Postgres wire, driven to their end; its own report, its status."""
    seconds = str(max(4.0, 60 * minutes / 8))
    return subprocess.run(
        [sys.executable, "-m", "bench.soak.pgwire_flood", "--seconds", seconds], check=False
    ).returncode


MIXED = "mixed-load"
SAME = "same-things"
FLOODS = "wire-floods"
ALONE = (MIXED, SAME, FLOODS)
SOAKS = {"isolation-fuzz": fuzz, "isolation-surfaces": attack, "wire-fuzz": wire}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*SOAKS, *ALONE)))
    parser.add_argument("--minutes", type=float, default=1.0, help="for each (default 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20_000, help=f"memories of {MIXED} (default 20000)")
    parser.add_argument("--list", action="store_true", help="show what there is")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join((*SOAKS, *ALONE)))
        return 0
    if unknown := set(given.names) - {*SOAKS, *ALONE}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    holes = 0
    wanted = given.names or [*SOAKS, *ALONE]
    if MIXED in wanted:
        holes += mixed(given.rows, given.minutes, given.seed) != 0
    if SAME in wanted:
        holes += same_things(given.minutes, given.seed) != 0
    if FLOODS in wanted:
        holes += floods(given.minutes) != 0
    given.names = [name for name in wanted if name not in ALONE]
    return 1 if holes + _on_twins(given) else 0


def _on_twins(given: argparse.Namespace) -> int:
    """The soaks that compare two stores: holes."""
    holes = 0
    if not given.names:
        return holes
    with tempfile.TemporaryDirectory() as folder:
        for name in ("planted", "clean"):
            (Path(folder) / name).mkdir()
        made = [
            make_world(Path(folder) / n / "data", planted=n == "planted", folder=Path(folder) / "loot")
            for n in ("planted", "clean")
        ]
        try:
            for name in given.names:
                holes += SOAKS[name]((made[0], made[1]), given.minutes, given.seed)
        finally:
            for world in made:
                world.close()
    return holes


if __name__ == "__main__":
    sys.exit(main())
