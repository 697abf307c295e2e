"""A PostgreSQL of a test's own, on a Unix socket, and the suite in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

HERE = Path(__file__).parent
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_QUICK = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c lock_timeout=5s -c listen_addresses="


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Start one; the beginning of its connection strings."""
    place = folder / "postgres"
    place.mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
        for parent in folder.parents:
            if parent != Path("/") and parent.stat().st_uid == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
        folder.chmod(folder.stat().st_mode | 0o011)
        user = ["runuser", "-u", "postgres", "--"]
    make = [str(PROGRAMS / "initdb"), "-D", str(place / "db"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*user, *make, "--no-sync", "--locale=C.UTF-8"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    control = [*user, str(PROGRAMS / "pg_ctl"), "-D", str(place / "db"), "-w", "-l", str(place / "log")]
    subprocess.run(
        [*control, "-o", f"-k {place} {_QUICK}", "start"], check=True, stdout=subprocess.DEVNULL, cwd="/"
    )
    try:
        yield f"host={place} user=postgres"
    finally:
        subprocess.run(
            [*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd="/"
        )


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
        sys.executable, "-m", "pytest", "-q", "--tb=no", "-c", str(HERE / "suite.ini"), "--rootdir", str(HERE),
        "-p", "tests.pgwire.dialect.plugin", "-p", "no:randomly", "-p", "no:xdist", "-W", "ignore",
        "--dburi", "postgresql+psycopg://suite@localhost/suite", str(HERE / "suite.py"),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[2], capture_output=True, text=True, check=False, timeout=600
    )
    found = {}
    for line in results.read_text("utf-8").splitlines():
        name, outcome, questions, error = line.split("\t")
        if outcome != "skipped":
            found[name] = Result(outcome == "passed", int(questions), error)
    if not found:
        raise AssertionError(f"the suite did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found
