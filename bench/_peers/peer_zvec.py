"""zvec, HNSW with 8-bit codes."""

from importlib.metadata import version

import zvec

VERSION = version("zvec")
DURABLE = False  # flush, not fsync, after an insert
EFFORTS = tuple(
    (ef, refined) for ef in (30, 60, 120, 180, 250, 350, 500, 700, 1000) for refined in (False, True)
)


def build(path, vectors, texts, marked):
    schema = zvec.CollectionSchema(
        name="memories",
        fields=[
            zvec.FieldSchema("text", zvec.DataType.STRING),
            zvec.FieldSchema("marked", zvec.DataType.BOOL, index_param=zvec.InvertIndexParam()),
        ],
        vectors=zvec.VectorSchema(
            "vector",
            zvec.DataType.VECTOR_FP32,
            vectors.shape[1],
            zvec.HnswIndexParam(
                metric_type=zvec.MetricType.COSINE,
                m=16,
                ef_construction=200,
                quantize_type=zvec.QuantizeType.INT8,
            ),
        ),
    )
    made = zvec.create_and_open(path, schema)
    for start in range(0, len(vectors), 1000):
        made.insert(
            [
                _doc(i, vectors[i], texts[i], bool(marked[i]))
                for i in range(start, min(len(vectors), start + 1000))
            ]
        )
    made.optimize()
    made.flush()
    made.close()


def _doc(number, vector, text, marked):
    return zvec.Doc(
        id=str(number), vectors={"vector": vector.tolist()}, fields={"text": text, "marked": marked}
    )


def reopen(path):
    return zvec.open(path)


def search(handle, query, k, effort, marked_only):
    ef, refined = effort
    param = zvec.HnswQueryParam(ef=ef, is_using_refiner=refined)
    asked = zvec.Query("vector", vector=query.tolist(), param=param)
    filter_ = "marked = true" if marked_only else None
    return [int(d.id) for d in handle.query(asked, topk=k, filter=filter_, output_fields=["text"])]


def insert(handle, number, vector, text):
    handle.insert(_doc(number, vector, text, False))


def close(handle):
    handle.flush()
    handle.close()
