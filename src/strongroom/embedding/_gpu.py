"""all-MiniLM-L6-v2 on an NVIDIA GPU: weights and tokens of ``_local``, in float16, without rounding to int8.

The vectors are those of the published model to four digits, so they lie as near to the vectors of
the int8 graph as any can; a store may hold both (docs/adr/0014-the-model-on-a-gpu.md), and the
fingerprint is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from strongroom.embedding._bert_graph import HIDDEN, Precision, build_graph, parse_weights
from strongroom.embedding._cuda import CUDA_PROVIDER, make_session, require_cuda
from strongroom.embedding._known_vectors import KNOWN_TEXTS, known_distance
from strongroom.embedding._local import (
    encode_many,
    group_by_length,
    make_tokenizer,
    runtime_errors,
)
from strongroom.embedding._mini_lm import MiniLM
from strongroom.embedding._provider import FloatMatrix
from strongroom.embedding._runtime import onnx_runtime
from strongroom.embedding._weights import find_model_files
from strongroom.errors import (
    ClosedError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)

_RUN_TEXTS_MAX = 1024
_RUN_TOKENS_MAX = 16_384  # padded tokens in one run: more gained nothing on an H200 and take memory
_RUNS_AT_ONCE = 2  # one computes while the next is put together; bounds the memory on the device
_ALIGNED_TOKENS = 8  # lengths are padded to it: what the matrix units of GPUs want
_KNOWN_DISTANCE_MAX = 0.05  # float16 measured below 0.005


class GpuMiniLM(MiniLM):
    """The built-in model on GPU ``device``. One instance serves any number of threads.

    Tokens are made on all cores of the CPU. ``providers`` and ``precision`` are for tests and
    measurements: where else the same graph runs.

    Raises:
        ConfigurationError: there is no such GPU, or driver, CUDA or runtime cannot use it.
        ModelFilesError: the weights are missing, are not the pinned ones, or do not compute here
            what they should.
    """

    BATCH_TEXTS: ClassVar[int] = _RUN_TEXTS_MAX  # so many at once keep it busy

    def __init__(
        self,
        weights: str = "",
        *,
        device: int = 0,
        providers: Sequence[Any] | None = None,
        precision: Precision = "fp16",
    ) -> None:
        if providers is None:
            require_cuda(device, onnx_runtime())
            providers = [
                (CUDA_PROVIDER, {"device_id": str(device), "arena_extend_strategy": "kSameAsRequested"})
            ]
        files = find_model_files(weights)
        self._tokenizer = make_tokenizer(files.tokenizer())
        graph = build_graph(parse_weights(files.weights()), precision)
        self._session: Any = make_session(graph, providers, runtime_errors())
        self._closed = False
        self._pool = ThreadPoolExecutor(_RUNS_AT_ONCE, thread_name_prefix="strongroom-gpu")
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def embed_counted(self, texts: Sequence[str]) -> tuple[FloatMatrix, list[int]]:
        if self._closed:
            raise ClosedError("the embedding model was closed")
        encoded = encode_many(self._tokenizer, texts)
        counts = list(map(len, encoded))
        out = np.empty((len(encoded), HIDDEN), np.float32)
        groups = group_by_length(counts, _RUN_TEXTS_MAX, _RUN_TOKENS_MAX)

        def work(group: list[int]) -> None:
            out[group] = self._run([encoded[i] for i in group])

        try:
            running = [self._pool.submit(work, group) for group in groups]
        except RuntimeError:
            if self._closed:  # by another thread
                raise ClosedError("the embedding model was closed") from None
            raise EmbeddingUnavailableError("the system starts no more threads for the GPU") from None
        for one in running:
            one.result()
        return out, counts

    def close(self) -> None:
        """Let the running computations end and free the device. May be called twice."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=False)
        self._session = None

    def _run(self, encoded: Sequence[Sequence[int]]) -> FloatMatrix:
        session = self._session
        if session is None:
            raise ClosedError("the embedding model was closed")
        inputs = padded(encoded)
        try:
            vectors: FloatMatrix = session.run(None, inputs)[0]
        except runtime_errors() as e:
            raise EmbeddingUnavailableError(
                f"the embedding model on the GPU failed ({type(e).__name__})"
            ) from None
        if not np.isfinite(vectors).all():
            raise EmbeddingRejectedError("the model gave a vector that is not finite")
        return vectors

    def _check(self) -> None:
        try:
            distance = known_distance(self.embed(KNOWN_TEXTS))
        except (EmbeddingUnavailableError, EmbeddingRejectedError):
            distance = float("inf")
        if distance > _KNOWN_DISTANCE_MAX:
            raise ModelFilesError(
                "the local model does not compute the known vectors on this GPU",
                hint="report this with the names of GPU and driver; use device cpu meanwhile",
            )


def padded(encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Inputs of the graph: ``ids`` int64 and ``mask`` int32, (texts, tokens), tokens a multiple of 8."""
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    longest = -(-int(lengths.max()) // _ALIGNED_TOKENS) * _ALIGNED_TOKENS
    taken = np.arange(longest) < lengths[:, None]
    ids = np.zeros(taken.shape, np.int64)
    ids[taken] = np.fromiter(chain.from_iterable(encoded), np.int64, int(lengths.sum()))
    return {"ids": ids, "mask": taken.astype(np.int32)}
