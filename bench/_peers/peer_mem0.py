"""mem0 with its embedded Qdrant and the vectors given: what mem0 keeps, without a language model."""

import os
from importlib.metadata import version

os.environ["MEM0_TELEMETRY"] = "False"

from mem0.vector_stores.qdrant import Qdrant

VERSION = version("mem0ai")
DURABLE = True
EFFORTS = ("exact",)


def _store(path):
    return Qdrant(collection_name="memories", embedding_model_dims=384, path=path, on_disk=True)


def build(path, vectors, texts, marked):
    store = _store(path)
    for start in range(0, len(vectors), 1000):
        end = min(len(vectors), start + 1000)
        store.insert(
            vectors=[v.tolist() for v in vectors[start:end]],
            payloads=[{"data": texts[i], "marked": str(bool(marked[i]))} for i in range(start, end)],
            ids=list(range(start, end)),
        )
    store.client.close()


def reopen(path):
    return _store(path)


def search(handle, query, k, effort, marked_only):
    filters = {"marked": "True"} if marked_only else None
    found = handle.search(query="", vectors=query.tolist(), top_k=k, filters=filters)
    return [int(p.id) for p in found]


def insert(handle, number, vector, text):
    handle.insert(vectors=[vector.tolist()], payloads=[{"data": text, "marked": "False"}], ids=[number])


def close(handle):
    handle.client.close()
