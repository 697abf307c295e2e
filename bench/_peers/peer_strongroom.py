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
