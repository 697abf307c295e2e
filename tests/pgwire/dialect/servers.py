"""A PostgreSQL of a test's own, on a Unix socket, and the suite in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

HERE = Path(__file__).parent
PASSING = HERE / "passes_on_postgresql.txt"
DIFFERENCES = HERE / "differences.txt"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_QUICK = (
    "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c lock_timeout=5s -c listen_addresses="
)


@contextmanager
def postgres() -> Iterator[str]:
    """Start one in a folder of its own; the beginning of its connection strings."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short path: the name of a socket has 107 bytes
    place = folder / "run"
    place.mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
        folder.chmod(0o711)
        user = ["runuser", "-u", "postgres", "--"]
    make = [str(PROGRAMS / "initdb"), "-D", str(place / "db"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    _quietly([*user, *make, "--no-sync", "--locale=C.UTF-8"])
    control = [*user, str(PROGRAMS / "pg_ctl"), "-D", str(place / "db"), "-w", "-t", "180"]
    try:
        _quietly([*control, "-l", str(place / "log"), "-o", f"-k {place} {_QUICK}", "start"])
        yield f"host={place} user=postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


def _quietly(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


def with_databases(server: str) -> tuple[str, str]:
    """Two databases: one for the tables of the suite, and one that stays empty."""
    with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
        for name in ("tables", "nothing"):
            connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(f"{server} dbname=tables", autocommit=True) as connection:
        connection.execute("CREATE SCHEMA test_schema")
        connection.execute("CREATE EXTENSION IF NOT EXISTS citext")
    return f"{server} dbname=tables", f"{server} dbname=nothing"


@dataclass(frozen=True)
class Result:
    """``questions``: how many statements the server that was looked at had to answer."""

    passed: bool
    questions: int
    error: str


def run_suite(folder: Path, asked: str, real: str, only: Sequence[str] = ()) -> dict[str, Result]:
    """What became of each test that ran; skipped ones are not there."""
    results = folder / "results.tsv"
    results.unlink(missing_ok=True)
    results.touch()
    environment = {**os.environ, "SUITE_ASKED": asked, "SUITE_REAL": real, "SUITE_RESULTS": str(results)}
    environment["SUITE_ONLY"] = ""
    if only:
        chosen = folder / "only.txt"
        chosen.write_text("\n".join(only), "utf-8")
        environment["SUITE_ONLY"] = str(chosen)
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=no", "-c", str(HERE / "suite.ini"),
        "--rootdir", str(HERE), "-p", "tests.pgwire.dialect.plugin", "-p", "no:xdist", "-W", "ignore",
        "--dburi", "postgresql+psycopg://suite@localhost/suite", str(HERE / "suite.py"),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env=environment,
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    found = {}
    for line in results.read_text("utf-8").splitlines():
        name, outcome, questions, error = line.split("\t")
        if outcome != "skipped":
            found[name] = Result(outcome == "passed", int(questions), error)
    if not found:
        raise AssertionError(f"the suite did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def read_differences(file: Path) -> dict[str, str]:
    """Names of tests that do not pass on the wire, each with the reason: the line with # above it."""
    out, reason = {}, ""
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            out[line] = reason
    return out
