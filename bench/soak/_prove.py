"""Before the soak and after it, in a process of its own: what is there, and whether it is found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from bench import _stores as stores
from bench._child import State
from bench._harness import Options
from bench.soak._book import GONE, OWN, TICKET, Book, Pool, has_vector, id_of
from strongroom.errors import MemoryNotFoundError

_POOL = 4000  # the first rows of a corpus are real texts and their embeddings
_QUESTIONS = 200
_UNTOUCHED = 2000
_K = 10
_BLOCK_ROWS = 100_000  # compared with all questions at once
_SETTLE_S = 1_800.0


def begin(state: State, directory: Path, work: Path, options: Options) -> dict[str, Any]:
    """Write the pool and the ids of the corpus's rows; the recall before.

    The store is left as one that is in use, with a snapshot that has lists. Otherwise every process of the
    soak would make them again, each time that it comes back, and half the time would be about that.
    """
    corpus = stores.corpus(options)
    pool = Pool(corpus.texts[:_POOL], corpus.vectors[:_POOL], corpus.queries)
    pool.save(work / "pool.npz")
    found = stores.open_store(state, directory)
    np.save(work / "ids.npy", _ids(state, options.rows))
    started = time.monotonic()
    while not stores.is_settled(state["room"]):
        if time.monotonic() - started > _SETTLE_S:
            raise RuntimeError("the store has not come to rest")
        time.sleep(0.5)
    return {**found, "recall": _recall(state, [], pool, options), "count": _count(state)}


def _ids(state: State, rows: int) -> NDArray[np.uint8]:
    room, engine = state["room"], state["room"].engine
    room.sql("SELECT max(length(content)) FROM memories", namespaces=[stores.NAMESPACE])  # columns come late
    index = engine.indexes.ready(engine.registry.get(stores.NAMESPACE))
    ticket = "CAST(json_extract_string(metadata, '$.ticket') AS BIGINT)"
    out = np.zeros((rows, 16), np.uint8)
    with engine.indexes._columnar.cursor() as cursor:
        asked = f"SELECT CAST(memory_id AS VARCHAR), {ticket} FROM {index.table.qualified}"
        for name, number in cursor.execute(asked).fetchall():
            out[number - TICKET] = np.frombuffer(UUID(name).bytes, np.uint8)
    if not out.any(axis=1).all():
        raise RuntimeError("the store does not hold every row of the corpus")
    return out


def _count(state: State) -> int:
    found = state["room"].sql("SELECT count(*) FROM memories", namespaces=[stores.NAMESPACE])
    return int(next(iter(found.rows()))[0])


def finish(
    state: State, directory: Path, work: Path, books: list[Path], options: Options, read_data: bool
) -> dict[str, Any]:
    """Open the store that was killed, look at everything that was touched, and measure the recall."""
    opened = stores.open_store(state, directory)
    pool = Pool.load(work / "pool.npz")
    ids = np.load(work / "ids.npy")
    read = [Book.read(path) for path in books]
    lost: list[str] = []
    for book in read:
        for ticket in {*book.state, *([book.open[0]] if book.open else [])}:
            version, complaint = _look(state, book, ticket, pool, ids)
            book.state[ticket] = version
            if complaint:
                lost.append(complaint)
    touched = {t: v for book in read for t, v in book.state.items()}
    lost += _untouched(state, touched, ids, options)
    gone = sum(v == GONE for t, v in touched.items() if t < OWN)
    own = sum(v != GONE for t, v in touched.items() if t >= OWN)
    wanted, counted = options.rows - gone + own, _count(state)
    if counted != wanted:
        lost.append(f"{counted} memories are counted, {wanted} have to be there")
    state["room"].flush(600.0)  # memories that the model has yet to embed
    _settled(state)
    recall = _recall(state, read, pool, options)
    started = time.monotonic()
    report = state["room"].check(read_data=read_data)
    return {
        **opened,
        "lost": lost,
        "touched": len(touched),
        "count": counted,
        "recall": recall,
        "check_s": time.monotonic() - started,
        "check_rows": report.rows,
        "check_opened": report.opened,
        "findings": [f"{f.severity} {f.code}" for f in report.findings],
        "check_ok": report.ok,
    }


def _settled(state: State) -> None:
    engine = state["room"].engine
    index = engine.indexes.ready(engine.registry.get(stores.NAMESPACE))
    index.wait_idle(60.0)


def _look(
    state: State, book: Book, ticket: int, pool: Pool, ids: NDArray[np.uint8]
) -> tuple[int, str | None]:
    """The version that is there, and what is wrong with it."""
    place = id_of(ticket) if ticket >= OWN else UUID(bytes=ids[ticket].tobytes())
    may_be = book.may_be(ticket)
    try:
        memory = state["room"].get(place, namespace=stores.NAMESPACE)
    except MemoryNotFoundError:
        return GONE, None if GONE in may_be else f"memory {ticket} is lost, may be {may_be}"
    if memory.version not in may_be:
        return memory.version, f"memory {ticket} has version {memory.version}, may be {may_be}"
    if (ticket >= OWN or memory.version > 1) and memory.content != pool.content(ticket, memory.version):
        return memory.version, f"memory {ticket} has another content"
    return memory.version, None


def _untouched(state: State, touched: dict[int, int], ids: NDArray[np.uint8], options: Options) -> list[str]:
    """A sample of what nobody changed is as the corpus has it."""
    corpus = stores.corpus(options)
    out = []
    for ticket in np.random.default_rng(options.seed).integers(options.rows, size=_UNTOUCHED).tolist():
        if ticket in touched:
            continue
        try:
            memory = state["room"].get(UUID(bytes=ids[ticket].tobytes()), namespace=stores.NAMESPACE)
        except MemoryNotFoundError:
            out.append(f"memory {ticket}, which nobody touched, is lost")
            continue
        if memory.content != corpus.texts[ticket] or memory.version != 1:
            out.append(f"memory {ticket}, which nobody touched, is another")
    return out


def _recall(state: State, books: list[Book], pool: Pool, options: Options) -> dict[str, float]:
    """Recall@10 of semantic searches against exact cosines of what is there now, by filter."""
    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import make_provider

    corpus = stores.corpus(options)
    vectors, alive = corpus.vectors, np.ones(options.rows, np.bool_)
    kinds = np.array([kind == "observation" for kind in corpus.kinds])
    touched = [(t, v) for book in books for t, v in book.state.items()]
    for ticket, version in touched:
        if ticket < OWN:
            alive[ticket] = version != GONE
            if version > 1:
                vectors[ticket] = pool.vector(ticket, version)
    own = [(t, v) for t, v in touched if t >= OWN and v != GONE]
    names = np.concatenate([np.arange(options.rows)[alive], np.array([t for t, _ in own], np.int64)])
    more = np.zeros((len(own), vectors.shape[1]), np.float32)
    provider = make_provider(EmbeddingConfig())
    for number, (ticket, version) in enumerate(own):
        given = has_vector(ticket) or version > 1  # an update always brings one
        text = pool.content(ticket, version)
        more[number] = pool.vector(ticket, version) if given else provider.embed([text])[0]
    provider.close()
    observed = np.concatenate([kinds[alive], np.ones(len(own), np.bool_)])
    engine = state["room"].engine
    entry = engine.registry.get(stores.NAMESPACE)
    asked = np.stack([engine.models.embed_query(entry, q) for q in corpus.queries[:_QUESTIONS]])
    rows = np.concatenate([vectors[alive], more])
    out = {}
    for name, mask, given_filter in (
        ("all", np.ones(len(rows), np.bool_), {}),
        ("inside 50 %", observed, {"kinds": ["observation"]}),
    ):
        truth = names[_nearest(rows, asked, mask)]
        shares = []
        for question, nearest in zip(asked, truth, strict=True):
            hits = state["room"].search(
                embedding=question, mode="semantic", namespaces=[stores.NAMESPACE], k=_K, **given_filter
            )
            found = {_ticket(hit.memory.metadata["ticket"]) for hit in hits}
            shares.append(len(found & set(nearest.tolist())) / _K)
        out[name] = float(np.mean(shares))
    return out


def _ticket(number: Any) -> int:
    return int(number) if int(number) >= OWN else int(number) - TICKET


def _nearest(
    rows: NDArray[np.float32], asked: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    from bench.scale import nearest

    blocks = ((at, rows[at : at + _BLOCK_ROWS]) for at in range(0, len(rows), _BLOCK_ROWS))
    return nearest(asked, blocks, {"": mask})[""]


def texts_and_vectors(
    work: Path, books: list[Path], rows: int
) -> tuple[list[str], list[NDArray[np.float32]]]:
    """Contents and vectors that the soak has written, or deleted again, to be looked for on disk."""
    pool = Pool.load(work / "pool.npz")
    states = [item for path in books for item in Book.read(path).state.items()]
    touched = [(t, max(v, 1)) for t, v in states if t >= OWN or v > 1]  # written, some deleted since
    chosen = touched[:: max(1, len(touched) // 100)][:100]
    texts = [*(pool.content(t, v) for t, v in chosen), *pool.texts[: min(200, rows)]]
    vectors = [*(pool.vector(t, v) for t, v in chosen), *pool.vectors[: min(100, rows)]]
    return [t for t in texts if len(t) >= 24], vectors
