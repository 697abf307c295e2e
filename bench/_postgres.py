"""A real PostgreSQL of the run's own, to compare with, and pgbench."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg

POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
_PGBENCH_STATEMENTS: Final = 50


@contextmanager
def running(work: Path, files: tuple[Path, Path], ids: Sequence[UUID], rows: int) -> Iterator[str]:
    """A PostgreSQL with ``rows`` rows under a primary key, those of ``ids`` among them; its conninfo.

    ``files``: certificate and private key, for its TLS.
    """
    data = work / "postgres"
    data.mkdir()
    for name, file in zip(("certificate", "private_key"), files, strict=True):
        shutil.copy(file, data / name)
    user = ["runuser", "-u", "postgres", "--"] if _is_root() else []
    if user:
        subprocess.run(["chown", "-R", "postgres", str(data)], check=True)
        for parent in (work, *work.parents):
            if parent != Path("/") and parent.stat().st_uid == 0 and parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    (data / "certificate").chmod(0o600)
    (data / "private_key").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = [
        *user,
        str(POSTGRES / "initdb"),
        "-D",
        str(data / "db"),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*base, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    settings = [
        f"-p {port} -k {data} -h 127.0.0.1 -c ssl=on -c ssl_cert_file={data / 'certificate'}"
        f" -c ssl_key_file={data / 'private_key'} -c ssl_min_protocol_version=TLSv1.3 -c shared_buffers=1GB"
    ]
    control = [*user, str(POSTGRES / "pg_ctl"), "-D", str(data / "db"), "-w", "-l", str(data / "log")]
    subprocess.run([*control, "-o", settings[0], "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        info = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=require"
        with psycopg.connect(info, autocommit=True) as connection:
            connection.execute("CREATE TABLE memories (memory_id uuid PRIMARY KEY, content text NOT NULL)")
            connection.execute(
                "INSERT INTO memories SELECT gen_random_uuid(), repeat(md5(g::text), 5)"
                f" FROM generate_series(1, {rows - len(ids)}) AS g"
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO memories VALUES (%s, %s)",
                    [(i, "a row of the sample " * 8) for i in ids],
                )
            connection.execute("VACUUM ANALYZE memories")
        yield info
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd="/")


def _is_root() -> bool:
    return os.geteuid() == 0


def pgbench(info: str, script: Path, ids: Sequence[UUID], transactions: int) -> float:
    """Seconds a statement, by pgbench, one connection, prepared."""
    names = [f"id{i}" for i in range(_PGBENCH_STATEMENTS)]
    script.write_text("".join(f"SELECT content FROM memories WHERE memory_id = :{n};\n" for n in names))
    given = [x for n, i in zip(names, ids, strict=False) for x in ("-D", f"{n}={i}")]
    done = subprocess.run(
        [str(POSTGRES / "pgbench"), "-n", "-c", "1", "-M", "prepared", "-t", str(transactions),
         "-f", str(script), *given, info],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = next((x for x in done.stdout.splitlines() if x.startswith("latency average")), None)
    if done.returncode or line is None or "number of failed transactions: 0" not in done.stdout:
        raise RuntimeError(f"pgbench: {done.stdout}\n{done.stderr}")
    return float(line.split("=")[1].split()[0]) / 1e3 / _PGBENCH_STATEMENTS
