"""Strongroom, by the same rules: vectors given, one client in process. Sealed, durable and audited."""

from importlib.metadata import version

import strongroom

VERSION = version("strongroom")
DURABLE = True
EFFORTS = ("default",)
_NS = "peers/one"


def build(path, vectors, texts, marked):
    strongroom.init(path)
    with strongroom.open(path) as room:
        for start in range(0, len(vectors), 10_000):
            end = min(len(vectors), start + 10_000)
            room.store_many(
                {
                    "content": texts[i],
                    "namespace": _NS,
                    "embedding": vectors[i],
                    "tags": ["marked"] if marked[i] else [],
                    "metadata": {"number": i},
                }
                for i in range(start, end)
            )
        room.search(embedding=vectors[0], namespaces=[_NS], mode="semantic")
        _settle(room)  # the others make their index in ``build`` as well


def _settle(room):
    for _, index in room.engine.indexes.loaded_entries():
        while index.vectors.is_building or not index.wait_idle(1.0):
            index.vectors.wait_built(1.0)


def warm(handle, queries):
    """Wait until the rows were verified, and until it has learnt from these questions how far to look.

    That takes some minutes of use by itself; the others are told their effort, by the same questions.
    """
    handle.engine.indexes.wait_verified(300)
    ((_, index),) = handle.engine.indexes.loaded_entries()
    for start in range(0, len(queries), 8):
        for query in queries[start : start + 8]:
            index.vectors.search(query, 10)
        index.vectors._sample_at_s = 0.0
        index.vectors.tend()
        index.wait_idle()
    handle.engine.indexes.tend()  # what was learnt goes into a snapshot, now and not while it is timed
    writer = handle.engine.indexes._keeper._writer
    if writer is not None:
        writer.join()


def reopen(path):
    return strongroom.open(path)


def search(handle, query, k, effort, marked_only):
    tags = ["marked"] if marked_only else []
    found = handle.search(embedding=query, namespaces=[_NS], k=k, mode="semantic", tags_all=tags)
    return [h.memory.metadata["number"] for h in found]


def insert(handle, number, vector, text):
    handle.store(text, namespace=_NS, embedding=vector, metadata={"number": number})


def close(handle):
    handle.close()
