"""LanceDB, IVF_PQ with refinement."""

import lancedb
import pyarrow as pa

VERSION = lancedb.__version__
DURABLE = False  # it does not sync
EFFORTS = ((8, 5), (16, 10), (32, 20), (64, 30), (128, 50))


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
    lists = max(8, int(len(vectors) ** 0.5))
    made.create_index(metric="cosine", index_type="IVF_PQ", num_partitions=lists, num_sub_vectors=48)
    made.create_scalar_index("marked", index_type="BITMAP")


def reopen(path):
    return lancedb.connect(path).open_table("memories")


def search(handle, query, k, effort, marked_only):
    probes, refine = effort
    asked = handle.search(query).distance_type("cosine").nprobes(probes).refine_factor(refine).limit(k)
    if marked_only:
        asked = asked.where("marked", prefilter=True)
    return [row["number"] for row in asked.select(["number", "text"]).to_list()]


def insert(handle, number, vector, text):
    handle.add(_batch([number], vector.reshape(1, -1), [text], [False]))


def close(handle):
    pass
