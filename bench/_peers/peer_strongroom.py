"""Strongroom, by the same rules: vectors given, one client in process. Sealed, durable and audited."""

from importlib.metadata import version

import strongroom
from strongroom.config import Config, EmbeddingConfig, LogConfig

VERSION = version("strongroom")
DURABLE = True
EFFORTS = ("learnt",)
_NS = "company_a/support"  # and tag and ticket as in the stores of ``bench.scale``, which can be taken too
_FIRST = 10_000  # the ticket of the first row
_CHUNK = 10_000


def build(path, vectors, texts, marked):
    # without a model: the others load none either
    config = Config(log=LogConfig(level="error"), embedding=EmbeddingConfig(provider="none"))
    strongroom.init(path, config=config)
    with strongroom.open(path) as room:
        for start in range(0, len(vectors), _CHUNK):
            room.store_many(
                {
                    "content": texts[i],
                    "namespace": _NS,
                    "embedding": vectors[i],
                    "tags": ["escalated"] if marked[i] else [],
                    "metadata": {"ticket": _FIRST + i},
                }
                for i in range(start, min(len(vectors), start + _CHUNK))
            )
        search(room, vectors[0], 1, "learnt", False)
        for _, index in room.engine.indexes.loaded_entries():  # the others make their index here as well
            while (lane := index.vectors) is not None and (lane.is_building or not index.wait_idle(1.0)):
                lane.wait_built(1.0)
        _snapshot(room)


def _snapshot(room):
    """What is due goes into a snapshot now, and not while something is timed."""
    keeper = room.engine.indexes._keeper
    keeper._hurry.set()
    keeper.tend()
    if keeper._writer is not None:
        keeper._writer.join()
    keeper._hurry.clear()


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
    _snapshot(handle)


def reopen(path):
    return strongroom.open(path)


def search(handle, query, k, effort, marked_only):
    tags = ["escalated"] if marked_only else []
    found = handle.search(embedding=query, namespaces=[_NS], k=k, mode="semantic", tags_all=tags)
    return [h.memory.metadata["ticket"] - _FIRST for h in found]


def insert(handle, number, vector, text):
    handle.store(text, namespace=_NS, embedding=vector, metadata={"ticket": _FIRST + number})


def close(handle):
    handle.close()
