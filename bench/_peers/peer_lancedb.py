"""LanceDB: a graph over 8-bit codes; of more vectors lists with product codes, which are built sooner."""

import os

os.environ.setdefault("LANCE_LOG", "error")  # it warns at each search
os.environ.setdefault("RUST_LOG", "error")

import lancedb
import pyarrow as pa
from lancedb.index import Bitmap, HnswSq, IvfPq

VERSION = lancedb.__version__
DURABLE = False  # it does not sync
EFFORTS = ((20, 1), (50, 2), (100, 5), (150, 5), (200, 5), (300, 5), (400, 5), (1000, 5))  # ef, refined
_LIST_EFFORTS = ((16, 10), (32, 20), (48, 20), (64, 30), (96, 30), (128, 50), (256, 50))  # lists, refined
_GRAPH_ROWS_MAX = 200_000


def _batch(numbers, vectors, texts, marked):
    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "vector": column,
            "text": list(texts),
            "marked": pa.array(marked, pa.bool_()),
        }
    )


def build(path, vectors, texts, marked):
    made = lancedb.connect(path).create_table(
        "memories", _batch(list(range(len(vectors))), vectors, texts, marked)
    )
    config = HnswSq(distance_type="cosine", num_partitions=1)
    if len(vectors) > _GRAPH_ROWS_MAX:
        lists = int(len(vectors) ** 0.5)
        config = IvfPq(distance_type="cosine", num_partitions=lists, num_sub_vectors=48)
    made.create_index("vector", config=config)
    made.create_index("marked", config=Bitmap())


class _Handle:
    def __init__(self, path):
        self.table = lancedb.connect(path).open_table("memories")
        self.is_graph = self.table.count_rows() < 2 * _GRAPH_ROWS_MAX


def reopen(path):
    return _Handle(path)


def efforts(handle):
    return EFFORTS if handle.is_graph else _LIST_EFFORTS


def search(handle, query, k, effort, marked_only):
    reach, refine = effort
    asked = handle.table.search(query).distance_type("cosine").limit(k)
    asked = asked.ef(reach).nprobes(1) if handle.is_graph else asked.nprobes(reach)
    if refine > 1:
        asked = asked.refine_factor(refine)
    if marked_only:
        asked = asked.where("marked", prefilter=True)
    found = asked.select(["number", "text", "_distance"]).to_arrow()
    found["text"].to_pylist()
    return found["number"].to_pylist()


def insert(handle, number, vector, text):
    handle.table.add(_batch([number], vector[None], [text], [False]))


def close(handle):
    pass
