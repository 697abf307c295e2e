"""From store() to being found by meaning, at low load, in a large namespace."""

from __future__ import annotations

import time
from time import perf_counter

import strongroom
from bench import _stores as stores
from bench import data
from bench._harness import Options, Row, Timed, note
from strongroom.config import EmbeddingConfig
from strongroom.embedding import make_provider

_PAUSE_S = 0.03
_POLL_S = 0.001
_GIVE_UP_S = 30.0


def run(options: Options) -> list[Row]:
    directory = stores.large(options)
    count = 40 if options.quick else 100
    extra = data.make(max(10_000, options.rows // 10), options.seed + 1)
    texts = [f"{t} [{i}]" for i, t in enumerate(extra.texts[-(options.repeats * count + 10) :])]
    provider = make_provider(EmbeddingConfig())
    vectors = [provider.embed([t])[0] for t in texts]
    provider.close()
    whole, stored = Timed(), Timed()
    note("storing and asking until found")
    with strongroom.open(directory) as room:
        room.search("a first question", namespaces=[stores.NAMESPACE])
        room.engine.indexes.wait_verified(stores.VERIFY_S)

        def once(i: int) -> tuple[float, float]:
            started = perf_counter()
            memory = room.store(texts[i], namespace=stores.NAMESPACE)
            durable = perf_counter()
            while True:
                hits = room.search(embedding=vectors[i], namespaces=[stores.NAMESPACE], k=10, mode="semantic")
                now = perf_counter()
                if any(h.memory.memory_id == memory.memory_id for h in hits):
                    return now - started, durable - started
                if now - started > _GIVE_UP_S:
                    raise RuntimeError("never found")
                time.sleep(_POLL_S)

        for i in range(10):
            once(i)
        at = 10
        for _ in range(options.repeats):
            found = []
            for i in range(at, at + count):
                found.append(once(i))
                time.sleep(_PAUSE_S)
            at += count
            whole.repeats.append([a for a, _ in found])
            stored.repeats.append([b for _, b in found])
    return [
        Row(
            f"store() to found by meaning, low load, {options.rows:,} memories",
            whole.show(1),
            "p99 < 100 ms",
            whole.quantile(0.99).median < 0.100,
            f"of which store(): {stored.show(2)}",
            {"found": whole.data(), "store": stored.data()},
        )
    ]
