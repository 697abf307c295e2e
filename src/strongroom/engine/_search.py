"""search: embed the question, ask the lanes inside the allowed set, open the k rows that are returned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.engine._call import Call
from strongroom.engine._read import (
    ATTEMPTS,
    Wanted,
    chosen_namespaces,
    note_subjects,
    note_unreadable,
    open_answer,
)
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._sealed import refuse_filter
from strongroom.engine._validate import check_count, check_number, check_text
from strongroom.engine._vectors import check_vector
from strongroom.errors import (
    ClosedError,
    EmbeddingError,
    InvalidInputError,
    InvalidVectorError,
    StorageBusyError,
)
from strongroom.model import Action, Filter, Hit, Hits, Notice
from strongroom.model.memory import UnfrozenHit
from strongroom.model.rows import Reach
from strongroom.recall import Candidate, NamespaceIndex, RecallQuery
from strongroom.recall.sql.scoring import SCORE_DIGITS

_MODES = ("hybrid", "semantic", "keyword")


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The arguments of a search, unchecked."""

    query: str | None = field(repr=False)
    namespaces: Sequence[str]
    k: int
    mode: str
    embedding: Any = field(repr=False)
    min_similarity: float | None
    wanted: Filter
    explain: bool = False


def search(call: Call, request: SearchRequest) -> Hits:
    engine = call.engine
    limits = engine.config.limits
    check_count(request.k, "k", 1, limits.results_max)
    if not isinstance(request.mode, str) or request.mode not in _MODES:
        raise InvalidInputError("unknown search mode", hint="one of: " + ", ".join(_MODES))
    if request.query is None and request.embedding is None:
        raise InvalidInputError("a search needs a query text or an embedding")
    if request.query is not None:
        check_text(request.query, "query", limits.query_bytes_max)
    elif request.mode == "keyword":
        raise InvalidInputError("a keyword search needs a query text")
    if request.min_similarity is not None:
        check_number(request.min_similarity, "min_similarity", -1.0, 1.0)
    if not isinstance(request.explain, bool):
        raise InvalidInputError("explain is true or false")
    engine.indexes.check_where(request.wanted)
    entries = chosen_namespaces(call, Action.SEARCH, request.namespaces, limited=True)
    if not entries:
        return Hits()
    call.notices.clear()
    refuse_filter(engine.indexes, entries, request.wanted)
    _load_ahead(call, entries[0])
    groups = []
    for group in _by_model(call, entries):
        question = _Question(call, request, group[0])
        if not _can_wait(call, request, group[0]):
            question.embed()
        groups.append((group, question))
    hits = _answers(call, request, groups)
    _touch(call, entries, hits)
    call.memory_ids = tuple(h.memory.memory_id.bytes for h in hits)
    call.count = len(hits)
    note_subjects(call, entries, (h.memory for h in hits if not h.memory.redacted))
    return Hits((_coarse(h, request.mode) for h in hits) if call.reaches else hits, tuple(call.notices))


def _touch(call: Call, entries: Sequence[NamespaceEntry], hits: Sequence[Hit]) -> None:
    """Count that the memories of an answer were read."""
    touched: dict[str, list[bytes]] = {}
    for h in hits:
        if not h.memory.redacted:
            touched.setdefault(h.memory.namespace, []).append(h.memory.memory_id.bytes)
    for entry in entries:
        if entry.name in touched:
            call.engine.access_stats.touch(entry.ns, touched[entry.name])


def _load_ahead(call: Call, entry: NamespaceEntry) -> None:
    """In a new process the model has to be loaded as well: the one goes on beside the other."""
    engine = call.engine
    if not engine.indexes.is_loaded(entry.ns) and not engine.models.is_loaded(entry.model):
        engine.indexes.load_ahead(entry)


def _coarse(hit: Hit, mode: str) -> Hit:
    """A hit among rows of which some are held back.

    The score of a memory that may not be opened has one decimal (a fused one, which is a hundredth or two,
    has two): a place in the order, not a measure. The last digits of others depend on how many rows were
    multiplied at once.
    """
    if hit.memory.redacted:
        steps = 100 if mode == "hybrid" else 10
        return replace(hit, score=math.floor(hit.score * steps) / steps)
    similarity = None if hit.similarity is None else round(hit.similarity, SCORE_DIGITS)
    return replace(hit, similarity=similarity, score=round(hit.score, SCORE_DIGITS))


def _reaches(call: Call, request: SearchRequest) -> dict[int, Reach]:
    """How far the search goes into each namespace.

    A vector of the caller's own, or a threshold, asks for exact distances, from which a vector can be worked
    out again, and from that the text: such a search reaches only what may be opened.
    """
    if request.embedding is None and request.min_similarity is None:
        return call.reaches
    return {ns: Reach(r.opened, r.opened, r.policies) for ns, r in call.reaches.items()}


def _by_model(call: Call, entries: Sequence[NamespaceEntry]) -> list[list[NamespaceEntry]]:
    """Namespaces of one embedding model are ranked together."""
    groups: dict[int, list[NamespaceEntry]] = {}
    for entry in entries:
        current = call.engine.models.current(entry)
        groups.setdefault(current.model_no, []).append(current)
    return list(groups.values())


class _Question:
    """The vector of a question for namespaces of one model, embedded when it is first asked for."""

    def __init__(self, call: Call, request: SearchRequest, entry: NamespaceEntry) -> None:
        self._of = (call, request, entry)
        self.is_embedded = False
        self.vector: NDArray[np.float32] | None = None

    def embed(self) -> NDArray[np.float32] | None:
        if not self.is_embedded:
            self.vector = _query_vector(*self._of)
            self.is_embedded = True
        return self.vector


def _can_wait(call: Call, request: SearchRequest, entry: NamespaceEntry) -> bool:
    """Whether the question can be embedded while keywords are looked up: both are needed, and it is quick."""
    return (
        request.mode == "hybrid"
        and request.embedding is None
        and request.min_similarity is None
        and call.engine.models.is_at_hand(entry)
    )


def _query_vector(call: Call, request: SearchRequest, entry: NamespaceEntry) -> NDArray[np.float32] | None:
    engine = call.engine
    if request.embedding is not None:
        return check_vector(request.embedding, engine.models.dimensions(entry))
    if request.query is None or (request.mode == "keyword" and request.min_similarity is None):
        return None
    if not engine.models.embeds(entry):
        if request.mode == "semantic" or request.min_similarity is not None:
            raise InvalidVectorError(
                "this namespace has no embedding model", hint="give the embedding of the query"
            )
        return None
    started = perf_counter()
    try:
        vector = engine.models.embed_query(entry, request.query)
    except EmbeddingError as e:
        if request.mode == "semantic" or request.min_similarity is not None:
            raise
        # Hybrid goes on by keywords; the outage is in the log and the metrics, and goes with the answer.
        engine.metrics.embedding_failures.labels(e.code).inc()
        engine.log.warning("query_not_embedded", code=e.code, request_id=call.request_id)
        call.notices[
            Notice(
                code="query_not_embedded",
                message=f"the model did not answer ({e.code}): found by words alone",
                namespace=entry.name,
                hint="strongroom doctor; or ask again later",
            )
        ] = None
        return None
    engine.metrics.step("embed_query", perf_counter() - started)
    return vector


def _answers(
    call: Call, request: SearchRequest, groups: Sequence[tuple[list[NamespaceEntry], _Question]]
) -> list[Hit]:
    """The best of all groups together, and only these are opened."""
    engine = call.engine
    for _ in range(ATTEMPTS):
        of_index: dict[NamespaceIndex, NamespaceEntry] = {}
        try:
            found = [
                c for entries, question in groups for c in _ranked(call, request, entries, question, of_index)
            ]
        except ClosedError:
            engine.ensure_open()
            continue  # an index was dropped while it was asked: it is built again
        found.sort(key=lambda c: -c.score)
        del found[request.k :]
        started = perf_counter()
        memories = open_answer(
            call,
            [
                Wanted(
                    of_index[c.index],
                    c.index,
                    c.memory_id,
                    c.seq,
                    c.label,
                    c.created_us,
                    c.has_embedding,
                    c.access,
                )
                for c in found
            ],
        )
        if memories is None:
            continue
        hits = [
            Hit(memory=m, score=c.score)
            if m.redacted
            else UnfrozenHit(
                m, c.score, c.similarity, c.keyword_score, c.explanation if request.explain else None
            ).freeze()
            for c, m in zip(found, memories, strict=True)
        ]
        metrics = engine.metrics
        metrics.hits_by_meaning.inc(sum([c.vector_rank is not None for c in found]))
        metrics.hits_by_keyword.inc(sum([c.keyword_rank is not None for c in found]))
        metrics.step("open_hits", perf_counter() - started)
        note_unreadable(call, of_index)
        return hits
    raise StorageBusyError("the memories of the answer change all the time")


def _ranked(
    call: Call,
    request: SearchRequest,
    entries: Sequence[NamespaceEntry],
    question: _Question,
    of_index: dict[NamespaceIndex, NamespaceEntry],
) -> Sequence[Candidate]:
    """The ``k`` best of the namespaces of one model, unopened; which index is whose goes into ``of_index``.

    Raises:
        ClosedError: an index was dropped meanwhile.
    """
    engine = call.engine
    query = RecallQuery(
        text=request.query,
        vector=question.vector,
        embed=None if question.is_embedded else question.embed,
        k=request.k,
        mode=request.mode,  # type: ignore[arg-type]  # checked above
        filter=request.wanted,
        min_similarity=request.min_similarity,
        now_us=engine.now_us(),
    )
    mine = {engine.indexes.ready(e): e for e in entries}
    found = engine.recall.search(list(mine), query, _reaches(call, request))
    of_index.update(mine)
    engine.metrics.step("filter", found.filter_s)
    engine.metrics.step("vector_lane", found.vector_s)
    engine.metrics.step("keyword_lane", found.keyword_s)
    return found.candidates
