"""Chroma, persistent client, HNSW with cosine."""

import chromadb

VERSION = chromadb.__version__
DURABLE = True
EFFORTS = (50, 100, 200, 400, 800, 1600)


def build(path, vectors, texts, marked):
    client = chromadb.PersistentClient(path)
    made = client.create_collection(
        "memories",
        embedding_function=None,
        configuration={"hnsw": {"space": "cosine", "ef_construction": 128, "max_neighbors": 24}},
    )
    for start in range(0, len(vectors), 5000):
        end = min(len(vectors), start + 5000)
        made.add(
            ids=[str(i) for i in range(start, end)],
            embeddings=vectors[start:end],
            documents=texts[start:end],
            metadatas=[{"marked": bool(m)} for m in marked[start:end]],
        )


class _Handle:
    def __init__(self, path):
        self.path, self.effort = path, None
        self.load()

    def load(self):
        self.client = chromadb.PersistentClient(self.path)
        self.collection = self.client.get_collection("memories", embedding_function=None)


def reopen(path):
    return _Handle(path)


def search(handle, query, k, effort, marked_only):
    if handle.effort != effort:  # the index takes it when it is loaded, and not before
        handle.collection.modify(configuration={"hnsw": {"ef_search": effort}})
        handle.client.clear_system_cache()
        handle.load()
        handle.effort = effort
    where = {"marked": True} if marked_only else None
    found = handle.collection.query(
        query_embeddings=[query], n_results=k, where=where, include=["documents", "distances"]
    )
    return [int(i) for i in found["ids"][0]]


def insert(handle, number, vector, text):
    handle.collection.add(
        ids=[str(number)], embeddings=[vector], documents=[text], metadatas=[{"marked": False}]
    )


def close(handle):
    handle.client.clear_system_cache()
