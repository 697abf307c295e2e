"""all-MiniLM-L6-v2 on ONNX Runtime: 384 dimensions, int8, no network, no PyTorch.

Texts are cut to 256 tokens, as the model card says: what stands after them does not take part in
the vector. Lower and upper case are the same to this model, and it was trained on English.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.embedding._bert_graph import HIDDEN, TOKENS_MAX, build_graph, parse_weights
from strongroom.embedding._graph_cache import CachedGraph, GraphCache, cache_base
from strongroom.embedding._known_vectors import KNOWN_DISTANCE_MAX, KNOWN_TEXTS, known_distance
from strongroom.embedding._mini_lm import FINGERPRINT, MiniLM
from strongroom.embedding._provider import FloatMatrix, squared
from strongroom.embedding._runtime import onnx_runtime
from strongroom.embedding._weights import ModelFiles, find_model_files
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)

_log = logging.getLogger("strongroom.embedding")

_GRAPH_LAYOUT = 2  # raised with every change of _bert_graph: another entry of the cache
CACHE_ENTRY = f"{FINGERPRINT}.{_GRAPH_LAYOUT}"
_NOT_FUSED = ["SkipLayerNormFusion"]  # would bring back the slow operator that the graph does without

_RUN_TEXTS_MAX = 32
_RUN_TOKENS_MAX = 1024  # padded tokens in one run of the graph: stays in the cache of a core
_SHARE_TOKENS_MIN = 64  # a run of less is not worth a thread
_CLIP_CHARACTERS = 8192
_CLIP_TOKENS_MIN = TOKENS_MAX + 128  # a word has at most 100 tokens, so the cut cannot reach the first 256
_SEP_ID = 102
_THREADS_MAX = 64


class LocalMiniLM(MiniLM):
    """The built-in model on the CPU. One instance serves any number of threads.

    The vector of a text does not depend on the texts beside it.

    ``threads``: how many cores a batch may use; 0 means all. One short text always runs on the
    caller's own thread. Loading checks the weights, builds the graph when it is not in the cache,
    and compares a few embeddings with known ones before the first text is taken.

    Raises:
        ModelFilesError: the weights are missing, are not the pinned ones, or do not compute here
            what they should.
    """

    def __init__(self, weights: str = "", *, threads: int = 0, cache: Path | None = None) -> None:
        if not 0 <= threads <= _THREADS_MAX:
            raise ConfigurationError(f"embedding.threads must be 0 to {_THREADS_MAX}")
        self._threads = threads or len(os.sched_getaffinity(0))
        files = find_model_files(weights)
        self._tokenizer = make_tokenizer(files.tokenizer())
        base = cache if cache is not None else cache_base()
        self._session: Any = _open_session(files, self._tokenizer, base)
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def embed_counted(self, texts: Sequence[str]) -> tuple[FloatMatrix, list[int]]:
        session = self._session
        if self._closed or session is None:
            raise ClosedError("the embedding model was closed")
        encoded = [encode(self._tokenizer, t) for t in texts]
        counts = [len(ids) for ids in encoded]
        if len(texts) == 1:
            return _run(session, encoded), counts
        out = np.empty((len(encoded), HIDDEN), np.float32)
        groups = group_for_threads(counts, self._threads)

        def work(group: list[int]) -> None:
            out[group] = _run(session, [encoded[i] for i in group])

        if len(groups) <= 1 or self._threads == 1:
            for group in groups:
                work(group)
        else:
            for _ in self._executor().map(work, groups):
                pass
        return out, counts

    def close(self) -> None:
        """Free the model. May be called twice."""
        with self._pool_lock:
            self._closed = True
            pool, self._pool = self._pool, None
            self._session = None
        if pool is not None:
            pool.shutdown(wait=True)

    def _executor(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._closed:
                raise ClosedError("the embedding model was closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="strongroom-model")
            return self._pool


def group_by_length(
    lengths: Sequence[int], texts_max: int = _RUN_TEXTS_MAX, tokens_max: int = _RUN_TOKENS_MAX
) -> list[list[int]]:
    """Positions in groups of similar length, so that little is padded; longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    longest = 0
    for i in order:
        full = not groups or len(groups[-1]) >= texts_max
        if full or (len(groups[-1]) + 1) * longest > tokens_max:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def group_for_threads(lengths: Sequence[int], threads: int) -> list[list[int]]:
    """``group_by_length``, in smaller groups when there would be fewer than threads: one for each."""
    share = max(_SHARE_TOKENS_MIN, -(-sum(lengths) // threads)) if threads > 1 else _RUN_TOKENS_MAX
    while share < _RUN_TOKENS_MAX:
        groups = group_by_length(lengths, tokens_max=share)
        if len(groups) <= threads:
            return groups
        share += share // 16  # what is padded has no place in an exact share
    return group_by_length(lengths)


def make_tokenizer(raw: bytes) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(raw)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text with [CLS] and [SEP], at most 256.

    A long text is tokenised only as far as it counts, so that megabytes cost no seconds.

    Raises:
        EmbeddingRejectedError: the text holds lone surrogates.
    """
    try:
        ids: list[int] = tokenizer.encode(text[:_CLIP_CHARACTERS]).ids
        if len(text) > _CLIP_CHARACTERS and len(ids) < _CLIP_TOKENS_MIN:
            ids = tokenizer.encode(text).ids
    except (TypeError, UnicodeEncodeError):
        raise EmbeddingRejectedError("a text cannot be encoded as UTF-8") from None
    return _cut(ids)


def encode_many(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """``encode`` of many texts, on all cores.

    Raises:
        EmbeddingRejectedError: a text holds lone surrogates.
    """
    try:
        found = [e.ids for e in tokenizer.encode_batch_fast([t[:_CLIP_CHARACTERS] for t in texts])]
    except (TypeError, UnicodeEncodeError):
        raise EmbeddingRejectedError("a text cannot be encoded as UTF-8") from None
    for i, text in enumerate(texts):
        if len(text) > _CLIP_CHARACTERS and len(found[i]) < _CLIP_TOKENS_MIN:
            found[i] = encode(tokenizer, text)
    return [_cut(ids) for ids in found]


def _cut(ids: list[int]) -> list[int]:
    return ids if len(ids) <= TOKENS_MAX else [*ids[: TOKENS_MAX - 1], _SEP_ID]


def _run(session: Any, encoded: Sequence[Sequence[int]]) -> FloatMatrix:
    longest = max(len(ids) for ids in encoded)
    ids = np.zeros((len(encoded), longest), np.int64)
    mask = np.zeros((len(encoded), longest), np.int32)
    for row, one in enumerate(encoded):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    try:
        vectors: NDArray[np.float32] = session.run(None, {"ids": ids, "mask": mask})[0]
    except runtime_errors() as e:
        raise EmbeddingUnavailableError(f"the local embedding model failed ({type(e).__name__})") from None
    if not isfinite(squared(vectors)):  # rows of norm 1: their squares do not overflow
        raise EmbeddingRejectedError("the model gave a vector that is not finite")
    return vectors


def _open_session(files: ModelFiles, tokenizer: Any, base: Path | None) -> Any:
    cache = GraphCache(base, CACHE_ENTRY) if base is not None else None
    if cache is not None and (session := _from_cache(cache.load(), files, tokenizer)) is not None:
        return session
    if cache is None:
        return _build(files, tokenizer, None)
    with cache.building():
        session = _from_cache(cache.load(), files, tokenizer)
        return session if session is not None else _build(files, tokenizer, cache)


def _from_cache(cached: CachedGraph | None, files: ModelFiles, tokenizer: Any) -> Any:
    """A session on the cached graph; None when it is damaged or does not compute what it should."""
    if cached is None:
        return None
    if files.weights_stamp() != cached.stamp:
        files.weights()  # other files than the graph was made from: they must be the pinned ones too
    try:
        session = _make_session(cached.graph)
    except ModelFilesError:
        _log.warning("embedding_cache_unusable")
        return None
    if _distance(session, tokenizer) > KNOWN_DISTANCE_MAX:
        _log.warning("embedding_cache_wrong_vectors")
        return None
    return session


def _build(files: ModelFiles, tokenizer: Any, cache: GraphCache | None) -> Any:
    stamp = files.weights_stamp()
    graph = build_graph(parse_weights(files.weights()))
    session = _make_session(graph)
    if _distance(session, tokenizer) > KNOWN_DISTANCE_MAX:
        raise ModelFilesError(
            "the local model does not compute the known vectors on this machine",
            hint="report this with the processor's name; use another provider meanwhile",
        )
    if cache is not None and not cache.save(graph, stamp):
        _log.warning("embedding_cache_not_written")
    return session


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own errors, which share no base class, and those of C++ that pybind11
    translates. Anything else is a mistake of ours and no failure of the model."""
    native = onnx_runtime().capi.onnxruntime_pybind11_state
    own = (
        found for found in vars(native).values() if isinstance(found, type) and issubclass(found, Exception)
    )
    return (*own, RuntimeError, MemoryError)


def _make_session(graph: bytes) -> Any:
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # texts run in parallel, operators do not: no spinning threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = True
    try:
        return onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_NOT_FUSED
        )
    except runtime_errors() as e:
        raise ModelFilesError(
            f"the installed ONNX Runtime cannot run the local model ({type(e).__name__})",
            hint="pip install 'onnxruntime>=1.22'",
        ) from None


def _distance(session: Any, tokenizer: Any) -> float:
    """How far the session is from the known vectors; infinite when it computes none."""
    try:
        return known_distance(_run(session, [encode(tokenizer, t) for t in KNOWN_TEXTS]))
    except (EmbeddingUnavailableError, EmbeddingRejectedError):
        return float("inf")
