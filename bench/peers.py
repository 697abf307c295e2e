"""Side by side with what a user would pick instead, in plaintext, each in an environment of its own.

``python -m bench peers [--rows N] [--repeats R]``, on request only: it installs other packages from the
registry, into ``bench/results/peers`` (or ``STRONGROOM_BENCH_PEERS``). Every store gets the same vectors and
is set to the fastest search that still has recall@10 >= 0.98 against exact search, on 200 questions; it
answers 200 others. All of them are open at the same time, in processes of their own, and asked by turns,
twenty questions at a time, so that they meet the same minutes of the machine. A round is all the questions.

On a machine that is shared the parts are run one by one, over the same directory:
``python -m bench.peers DIR ROWS PART [NAME...]`` with PART one of ``prepare build reopen open tune search
filtered insert close scan report``; what was found so far is in DIR/NAME.json. ``report`` prints the table
and writes JSON and plot.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import data
from bench._harness import RESULTS, Options, Row, Spread, load_average, machine, note, table
from bench.plot import bars
from bench.reopen import _compiled, _forget

_HERE: Final = Path(__file__).parent / "_peers"
_SECONDS_MAX: Final = 3000
_QUESTIONS: Final = 200
_BLOCK: Final = 20
_BLOCK_S: Final = 1.5  # a slow store answers as many of a block as fit
_INSERTS: Final = 100
_INSERT_BLOCK: Final = 10
_SEED: Final = 7
_FEWER: Final = {"mem0": 10_000}  # it compares every vector, and says that it is not made for more
_CANARIES: Final = 100

Found = dict[str, Any]


def run(options: Options) -> list[Row]:
    bench = Peers(options.work, options.rows)
    bench.prepare()
    names = bench.names()
    bench.build(names)
    for _ in range(options.repeats):
        bench.reopen(names)
    bench.open(names)
    try:
        bench.tune(names)
        for kind in ("search", "filtered", "insert"):
            for _ in range(options.repeats):
                bench.round(kind, names)
    finally:
        bench.close(names)
    bench.scan(names)
    return bench.report()


class Peers:
    """The stores below a directory, and what was found about each of them."""

    def __init__(self, work: Path, rows: int) -> None:
        self.work, self.rows = work, rows
        self.found: dict[str, Found] = {
            name: json.loads(self._file(name).read_text("utf-8"))
            for name in ("strongroom", *_packages())
            if self._file(name).exists()
        }
        self._compiled: dict[str, str] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def names(self) -> list[str]:
        return [n for n in ("strongroom", *_packages()) if _environment(n) is not None]

    def _file(self, name: str) -> Path:
        return self.work / f"{name}.json"

    def _save(self, name: str, **more: Any) -> None:
        self.found.setdefault(name, {}).update(more)
        self._file(name).write_text(json.dumps(self.found[name], indent=1), "utf-8")

    def _append(self, name: str, what: str, value: Any) -> None:
        self._save(name, **{what: [*self.found.get(name, {}).get(what, []), value]})

    # preparation

    def _asked(self, name: str) -> Path:
        return self.work / f"asked-{min(self.rows, _FEWER.get(name, self.rows))}.npz"

    def prepare(self) -> None:
        """The questions with their exact answers, among all rows and among the marked ones."""
        corpus = data.make(self.rows, _SEED)
        marked = np.array(["escalated" in tags for tags in corpus.tags])
        questions = _embedded(data.more_questions(corpus, 2 * _QUESTIONS, _SEED + 2))
        rng = np.random.default_rng(_SEED + 3)
        for rows in {self.rows, *(min(self.rows, n) for n in _FEWER.values())}:
            vectors, chosen = corpus.vectors[:rows], marked[:rows]
            fresh = vectors[rng.integers(0, rows, 2000)] + rng.normal(0, 0.01, (2000, vectors.shape[1]))
            given: dict[str, Any] = {
                "marked": chosen,
                "fresh": (fresh / np.linalg.norm(fresh, axis=1, keepdims=True)).astype(np.float32),
            }
            for which, asked in (("tune", questions[:_QUESTIONS]), ("ask", questions[_QUESTIONS:])):
                given[which] = asked
                given[f"{which}_search"] = _exact(vectors, asked, np.arange(rows))
                given[f"{which}_filtered"] = _exact(vectors, asked, np.flatnonzero(chosen))
            np.savez(self.work / f"asked-{rows}.npz", **given)

    def build(self, names: Sequence[str]) -> None:
        for name in names:
            note(f"{name}: building")
            before = load_average()
            path = self.work / name
            for place in (path, path.with_name(f"{name}.keys")):
                shutil.rmtree(place, ignore_errors=True)
            done = self._drive("build", name, data.place_of(self.rows, _SEED))
            if done is not None:
                done.pop("started")
                self._save(name, **done, build_load=[before, load_average()])

    def _drive(self, work: str, name: str, *more: object) -> Found | None:
        python = _environment(name)
        assert python is not None
        command = [python, _HERE / "drive.py", work, name, self.work / name, self._asked(name), *more]
        environment, started = self._environ(name), time.monotonic()
        try:
            done = subprocess.run(
                list(map(str, command)),
                check=True,
                timeout=_SECONDS_MAX,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        except subprocess.SubprocessError as e:
            note(f"{name}: failed ({type(e).__name__})")
            return None
        told: Found = json.loads(done.stdout.splitlines()[-1])
        return {**told, "started": started}

    def _environ(self, name: str) -> dict[str, str] | None:
        if name != "strongroom":
            return None
        if self._compiled is None:
            self._compiled = _compiled()
        return self._compiled

    # measuring

    def reopen(self, names: Sequence[str]) -> None:
        """One round: each store by a new process, its files in the page cache; then with them dropped."""
        for cold in (False, True):
            for name in names:
                forgotten = _forget(self.work / name) if cold else True
                if not forgotten:
                    continue
                told = self._drive("reopen", name)
                if told is None or told["found"] != 10:
                    raise RuntimeError(f"{name}: the first answer is not whole")
                self._append(
                    name,
                    "reopen_cold" if cold else "reopen_warm",
                    {
                        "whole_s": told["answered"] - told["started"],
                        "open_s": told["answered"] - told["begun"],
                    },
                )

    def open(self, names: Sequence[str]) -> None:
        """Start the processes, which stay until ``close``."""
        for name in names:
            python = _environment(name)
            place = self.work / f"{name}.sock"
            place.unlink(missing_ok=True)
            command = [python, _HERE / "drive.py", "serve", name, self.work / name, self._asked(name), place]
            with (self.work / f"{name}.log").open("w") as log:
                self._running[name] = subprocess.Popen(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=self._environ(name),
                )
            self.ask(name, "warm", kind="search")
            for kind in ("search", "filtered"):
                if setting := self.found.get(name, {}).get(f"{kind}_setting"):
                    self.ask(name, "settle", kind=kind, effort=setting["effort"])

    def ask(self, name: str, do: str, **more: Any) -> Found:
        """Have the process of a store do something."""
        place, until = self.work / f"{name}.sock", time.monotonic() + 300
        with socket.socket(socket.AF_UNIX) as caller:
            while True:
                try:
                    caller.connect(str(place))
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            with caller.makefile("rw", encoding="utf-8") as lines:
                lines.write(json.dumps({"do": do, **more}) + "\n")
                lines.flush()
                answer = lines.readline()
        if not answer and do != "close":
            raise RuntimeError(f"{name}: its process has ended; see {place.with_suffix('.log')}")
        told: Found = json.loads(answer) if answer else {}
        return told

    def tune(self, names: Sequence[str]) -> None:
        for kind in ("search", "filtered"):
            for name in names:
                note(f"{name}: {kind}: looking for the fastest setting")
                self._save(name, **{f"{kind}_setting": self.ask(name, "tune", kind=kind)})

    def round(self, kind: str, names: Sequence[str]) -> None:
        """All questions (or inserts) once, in blocks by turns; the order turns as well."""
        before = load_average()
        told: dict[str, list[Found]] = {name: [] for name in names}
        block, count = (_INSERT_BLOCK, _INSERTS) if kind == "insert" else (_BLOCK, _QUESTIONS)
        for number, start in enumerate(range(0, count, block)):
            turned = [*names[number % len(names) :], *names[: number % len(names)]]
            for name in turned:
                if kind == "insert":
                    first = start + _INSERTS * len(self.found[name].get("insert", []))
                    told[name].append(self.ask(name, "insert", start=first, count=block))
                else:
                    told[name].append(
                        self.ask(name, "ask", kind=kind, start=start, count=block, seconds_max=_BLOCK_S)
                    )
        for name in names:
            seconds = [s for part in told[name] for s in part["seconds"]]
            result: Found = {
                "p50_ms": float(np.median(seconds)) * 1e3,
                "p99_ms": float(np.quantile(seconds, 0.99)) * 1e3,
                "count": len(seconds),
                "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
                "load": [before, load_average()],
            }
            if kind != "insert":
                if {part["effort"] for part in told[name]} != {self.found[name][f"{kind}_setting"]["effort"]}:
                    raise RuntimeError(f"{name}: asked with another setting than the one that was found")
                result["recall"] = float(np.mean([s for part in told[name] for s in part["recall"]]))
                self._save(name, memory_mib=self.ask(name, "memory")["mib"])
            self._append(name, kind, result)

    def close(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self.ask(name, "close")
            except OSError:
                note(f"{name}: its process was not there any more")
            if name in self._running:
                self._running.pop(name).wait(60)

    def scan(self, names: Sequence[str]) -> None:
        """Bytes on disk, and how many of 100 texts and 100 vectors can be read in them."""
        from strongroom.lifecycle.noise_scan import scan_directory

        corpus = data.make(self.rows, _SEED)
        known = [
            i for i in range(0, min(self.rows, *_FEWER.values()), 7) if len(corpus.texts[i].encode()) >= 24
        ][:_CANARIES]
        for name in names:
            places = [p for p in (self.work / name, self.work / f"{name}.keys") if p.exists()]
            reports = [
                scan_directory(p, [corpus.texts[i] for i in known], [corpus.vectors[i][:8] for i in known])
                for p in places
            ]
            seen = {(f.form.startswith("float"), f.index) for r in reports for f in r.findings}
            self._save(
                name,
                mib_on_disk=sum(r.bytes_total for r in reports) / 2**20,
                readable_texts=sum(1 for vector, _ in seen if not vector),
                readable_vectors=sum(1 for vector, _ in seen if vector),
            )

    # what came

    def report(self) -> list[Row]:
        order = [n for n in ("strongroom", *_packages()) if "search" in self.found.get(n, {})]
        return [_row(name, self.found[name]) for name in order]

    def panels(self) -> list[tuple[str, str, list[tuple[str, Spread, str]]]]:
        """What the plot shows: (title, unit, [(store, spread, what is said beside it)])."""
        out: list[tuple[str, str, list[tuple[str, Spread, str]]]] = []
        for title, kind in (
            ("search, p50", "search"),
            ("inside 5 %, p50", "filtered"),
            ("one insert, p50", "insert"),
        ):
            lines = []
            for name, found in self.found.items():
                if kind in found:
                    beside = f"recall {_over(found[kind], 'recall').median:.3f}" if kind != "insert" else ""
                    beside = beside or ("" if found["durable"] else "not durable")
                    lines.append((_label(name, found), _over(found[kind], "p50_ms"), beside))
            out.append((f"{title}, {self.rows:,} memories", "ms", lines))
        for title, kind in (("page cache warm", "reopen_warm"), ("cold", "reopen_cold")):
            lines = [
                (_label(name, found), _over(found[kind], "whole_s"), "")
                for name, found in self.found.items()
                if kind in found
            ]
            out.append((f"new process to first answer, {title}, {self.rows:,} memories", "s", lines))
        return [panel for panel in out if panel[2]]


def _label(name: str, found: Found) -> str:
    fewer = f" ({found['rows']:,})" if name in _FEWER else ""
    return {"strongroom": "Strongroom, sealed"}.get(name, name) + fewer


def _over(rounds: Sequence[Found], what: str) -> Spread:
    return Spread.of([r[what] for r in rounds])


def _row(name: str, found: Found) -> Row:
    search, filtered, insert = found["search"], found["filtered"], found.get("insert", [])
    told = [
        f"search ({found['search_setting']['effort']}) p50 {_over(search, 'p50_ms').show()}, "
        f"p99 {_over(search, 'p99_ms').show()} ms at recall {_over(search, 'recall').median:.4f}",
        f"inside 5 % ({found['filtered_setting']['effort']}) p50 {_over(filtered, 'p50_ms').show()}, "
        f"p99 {_over(filtered, 'p99_ms').show()} ms at {_over(filtered, 'recall').median:.4f}",
    ]
    if insert:
        durable = "durable" if found["durable"] else "not durable"
        told.append(
            f"one insert, {durable}, p50 {_over(insert, 'p50_ms').show()}, "
            f"p99 {_over(insert, 'p99_ms').show()} ms"
        )
    for words, kind in (("warm", "reopen_warm"), ("cold", "reopen_cold")):
        if kind in found:
            told.append(
                f"reopened, page cache {words}, {_over(found[kind], 'whole_s').show()} s, "
                f"{_over(found[kind], 'open_s').median:.2f} without the interpreter's start"
            )
    against = [f"{found['memory_mib']:,.0f} MiB of memory"]
    if "mib_on_disk" in found:
        against.append(
            f"{found['mib_on_disk']:,.0f} MiB on disk, readable in them {found['readable_texts']} of "
            f"{_CANARIES} texts, {found['readable_vectors']} of {_CANARIES} vectors"
        )
    against.append(f"built in {found['build_s']:,.0f} s at load {found['build_load']}")
    counts = {kind: [r["count"] for r in found.get(kind, [])] for kind in ("search", "filtered", "insert")}
    return Row(
        f"{name} {found['version']}, {found['rows']:,} memories",
        "; ".join(told),
        against="; ".join(against),
        data={**found, "counts": counts},
    )


def _exact(
    vectors: NDArray[np.float32], asked: NDArray[np.float32], among: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The true ten by cosine among some rows, most similar first, shape (questions, 10)."""
    best = np.full((len(asked), 10), -np.inf, np.float32)
    at = np.zeros((len(asked), 10), np.int64)
    for start in range(0, len(among), 50_000):
        part = among[start : start + 50_000]
        scores = np.concatenate([best, asked @ vectors[part].T], axis=1)
        numbers = np.concatenate([at, np.broadcast_to(part, (len(asked), len(part)))], axis=1)
        top = np.argpartition(-scores, 10, axis=1)[:, :10]
        best, at = np.take_along_axis(scores, top, 1), np.take_along_axis(numbers, top, 1)
    return np.take_along_axis(at, np.argsort(-best, axis=1, kind="stable"), 1)


def _embedded(queries: list[str]) -> NDArray[np.float32]:
    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import make_provider

    provider = make_provider(EmbeddingConfig())
    try:
        parts = [provider.embed(queries[i : i + 32]) for i in range(0, len(queries), 32)]
        return np.concatenate(parts).astype(np.float32)
    finally:
        provider.close()


def _packages() -> dict[str, list[str]]:
    lines = (_HERE / "requirements.txt").read_text("utf-8").splitlines()
    return {
        name: words.split()
        for name, _, words in (line.partition(": ") for line in lines if not line.startswith("#"))
    }


def _environment(name: str) -> Path | None:
    """The interpreter of a peer's own environment, made at the first use; None where that fails."""
    if name == "strongroom":
        return Path(sys.executable)
    place = Path(os.environ.get("STRONGROOM_BENCH_PEERS") or RESULTS / "peers") / name
    python = place / "bin" / "python"
    if (place / ".done").exists():
        return python
    note(f"{name}: installing")
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq"]
    if subprocess.run([*pip, *_packages()[name]], check=False).returncode:
        note(f"{name}: its packages could not be installed; left out")
        return None
    (place / ".done").touch()
    return python


def main() -> int:
    """One part, on a machine that is shared."""
    if len(sys.argv) < 4:
        print(f"error: too few arguments\nhint: {__doc__}", file=sys.stderr)
        return 2
    work, rows, part, *given = sys.argv[1:]
    Path(work).mkdir(parents=True, exist_ok=True)
    bench = Peers(Path(work).resolve(), int(rows))
    names = given or bench.names()
    parts: dict[str, Callable[[], object]] = {
        "prepare": bench.prepare,
        "build": lambda: bench.build(names),
        "reopen": lambda: bench.reopen(names),
        "open": lambda: bench.open(names),
        "tune": lambda: bench.tune(names),
        "close": lambda: bench.close(names),
        "scan": lambda: bench.scan(names),
        "report": lambda: _report(bench),
    }
    if part in ("search", "filtered", "insert"):
        bench.round(part, names)
    else:
        parts[part]()
    return 0


def _report(bench: Peers) -> None:
    rows = bench.report()
    about = machine(bench.work)
    result = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "rows": bench.rows,
        "machine": about,
        "found": bench.found,
    }
    (bench.work / "peers.json").write_text(json.dumps(result, indent=1), "utf-8")
    (bench.work / "peers.svg").write_text(bars(bench.panels()), "utf-8")
    print(table(rows))
    print(f"\n{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}")


if __name__ == "__main__":
    sys.exit(main())
