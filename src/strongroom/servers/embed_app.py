"""An embedding model as a service of its own, for several nodes: the embeddings call of the OpenAI API.

    POST /v1/embeddings   {"model": ..., "input": text or [text, ...], "encoding_format": "float" or "base64"}
    GET  /v1/models       the one model
    GET  /healthz         no key needed

Requests that arrive together are computed together. Neither texts nor vectors are logged or kept.
Errors have the form ``{"error": {"message", "type", "code"[, "hint"]}}``; ``usage`` counts the
tokens that the model has read, and says 0 for a model that cannot tell.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from strongroom.embedding import EmbeddingProvider, GpuMiniLM, LocalMiniLM, embed_checked
from strongroom.errors import (
    ClosedError,
    ContentTooLargeError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    StrongroomError,
    UnauthenticatedError,
    UnknownModelError,
    cause_of,
)

_log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]

_STATUS: tuple[tuple[type[StrongroomError], int], ...] = (
    (UnauthenticatedError, 401),
    (UnknownModelError, 404),
    (ContentTooLargeError, 413),
    (InvalidInputError, 400),
    (EmbeddingRejectedError, 422),
    (LimitExceededError, 429),
    (EmbeddingUnavailableError, 503),
    (ClosedError, 503),
)
_RETRY_AFTER_STATUS = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingAppLimits:
    """What one request may ask, and how much may wait."""

    request_bytes_max: int = 64 * 1024 * 1024
    texts_max: int = 2048
    text_bytes_max: int = 8 * 1024 * 1024
    waiting_texts_max: int = 8192
    batch_texts_max: int = 64

    @classmethod
    def of(cls, provider: EmbeddingProvider) -> EmbeddingAppLimits:
        """Those that suit a model: a GPU wants many texts at once, or it waits."""
        if isinstance(provider, GpuMiniLM):
            return cls(batch_texts_max=provider.BATCH_TEXTS, waiting_texts_max=32 * provider.BATCH_TEXTS)
        return cls()


@dataclass(slots=True, eq=False)
class _Job:
    texts: list[str]
    vectors: Vectors
    done: asyncio.Future[None]
    started: int = 0  # texts that were given to a batch
    tokens: int = 0

    @property
    def is_over(self) -> bool:
        return self.done.done()


@dataclass(frozen=True, slots=True)
class _Share:
    """The texts ``start`` to ``end`` of a job, in one batch."""

    job: _Job
    start: int
    end: int

    @property
    def texts(self) -> list[str]:
        return self.job.texts[self.start : self.end]


class _Counted:
    """A model for one batch, which remembers how many tokens each text had; 0 of a model that cannot tell."""

    def __init__(self, provider: EmbeddingProvider, count: int) -> None:
        self._provider = provider
        self.tokens = [0] * count
        self.name, self.dimensions, self.fingerprint = (
            provider.name,
            provider.dimensions,
            provider.fingerprint,
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not isinstance(self._provider, (LocalMiniLM, GpuMiniLM)):
            return self._provider.embed(texts)
        vectors, self.tokens = self._provider.embed_counted(texts)
        return vectors

    def close(self) -> None:
        """The model is another's to close."""


class MicroBatcher:
    """Computes the texts of concurrent callers together, one batch at a time, in turns.

    A batch is what waits when the last one ends, so a lone caller does not wait for others. A caller
    with many texts gets an equal share of every batch, so a short question passes a long import. When
    a batch of several callers is refused, each caller's share is computed alone.
    """

    def __init__(self, provider: EmbeddingProvider, limits: EmbeddingAppLimits) -> None:
        self._provider = provider
        self._limits = limits
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="strongroom-embed-serve")

    async def embed(self, texts: list[str]) -> tuple[Vectors, int]:
        """Float32 of shape (len(texts), dimensions), and how many tokens were read.

        Raises:
            LimitExceededError: too many texts wait already. ClosedError: the service stops.
            EmbeddingError: as the provider raises it, or the provider is broken (``embed_checked``).
        """
        if self._closed:
            raise ClosedError("the embedding service stops")
        if self._waiting + len(texts) > self._limits.waiting_texts_max:
            raise LimitExceededError("too many texts wait for their embedding")
        vectors = np.empty((len(texts), self._provider.dimensions), np.float32)
        job = _Job(texts, vectors, asyncio.get_running_loop().create_future())
        self._waiting += len(texts)
        self._jobs.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            await job.done
            return job.vectors, job.tokens
        finally:
            self._waiting -= len(texts)

    async def close(self) -> None:
        """Refuse new work and what waits; let the running batch end."""
        self._closed = True
        for job in self._jobs:
            if not job.is_over:
                job.done.set_exception(ClosedError("the embedding service stops"))
        if self._worker is not None:
            await asyncio.wait({self._worker})
        self._executor.shutdown(wait=False)

    def _next_batch(self) -> list[_Share]:
        self._jobs = deque(j for j in self._jobs if not j.is_over and j.started < len(j.texts))
        if not self._jobs:
            return []
        share_max = max(1, self._limits.batch_texts_max // len(self._jobs))
        batch: list[_Share] = []
        room = self._limits.batch_texts_max
        for job in list(self._jobs):
            if room <= 0:
                break
            end = min(len(job.texts), job.started + min(share_max, room))
            batch.append(_Share(job, job.started, end))
            room -= end - job.started
            job.started = end
        self._jobs.rotate(-len(batch))
        return batch

    async def _work(self) -> None:
        while batch := self._next_batch():
            await self._answer(batch)

    async def _answer(self, batch: Sequence[_Share]) -> None:
        """Compute a batch, or tell those who wait for it why not; one refused text stops no others."""
        try:
            await self._compute(batch)
        except EmbeddingRejectedError as refused:
            if len(batch) == 1:
                _give_up(batch, refused)
                return
            for share in batch:
                await self._answer([share])
        except StrongroomError as error:
            _give_up(batch, error)
        except Exception as error:  # noqa: BLE001 - callers wait for these answers: whatever it is, they get one
            _log.error("a batch of embeddings failed (%s)", cause_of(error))
            _give_up(batch, InternalError())

    async def _compute(self, batch: Sequence[_Share]) -> None:
        texts = [t for share in batch for t in share.texts]
        model = _Counted(self._provider, len(texts))
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._executor, embed_checked, model, texts)
        place = 0
        for share in batch:
            size = share.end - share.start
            share.job.vectors[share.start : share.end] = vectors[place : place + size]
            share.job.tokens += sum(model.tokens[place : place + size])
            place += size
            if share.end == len(share.job.texts) and not share.job.is_over:
                share.job.done.set_result(None)


def _give_up(batch: Sequence[_Share], error: StrongroomError) -> None:
    for share in batch:
        if not share.job.is_over:
            share.job.done.set_exception(error)


def create_embedding_app(
    provider: EmbeddingProvider,
    *,
    api_key_check: Callable[[str], bool],
    limits: EmbeddingAppLimits | None = None,
) -> FastAPI:
    """The ASGI application. The caller keeps the provider and closes it after the server has stopped.

    ``api_key_check`` gets the bearer key ("" when there is none) and tells whether it may embed; it
    should take the same time for every wrong key.
    """
    limits = limits or EmbeddingAppLimits.of(provider)
    batcher = MicroBatcher(provider, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await batcher.close()

    app = FastAPI(title="Strongroom embeddings", docs_url=None, redoc_url=None, lifespan=lifespan)

    def authorize(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if not api_key_check(key.strip() if scheme.lower() == "bearer" else ""):
            raise UnauthenticatedError

    @app.exception_handler(StrongroomError)
    async def on_error(_: Request, error: StrongroomError) -> JSONResponse:
        return error_response(error)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        authorize(request)
        model = {"id": provider.name, "object": "model", "created": 0, "owned_by": "strongroom"}
        model |= {"dimensions": provider.dimensions, "fingerprint": provider.fingerprint}
        return {"object": "list", "data": [model]}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        authorize(request)
        body = await _read_body(request, limits.request_bytes_max)
        texts, encoding = parse_request(body, provider, limits)
        vectors, tokens = await batcher.embed(texts)
        return Response(_answer(vectors, provider.name, encoding, tokens), media_type="application/json")

    return app


def error_response(error: StrongroomError) -> JSONResponse:
    """An error in the form of the OpenAI API."""
    status = next((s for cls, s in _STATUS if isinstance(error, cls)), 500)
    kind = "invalid_request_error" if status < 500 else "server_error"
    shown = error if status < 500 else type(error)()  # a fault's own words may name files of this host
    headers = {"retry-after": "1"} if status in _RETRY_AFTER_STATUS else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": {**shown.as_dict(), "type": kind}}, status, headers)


async def _read_body(request: Request, bytes_max: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > bytes_max:
        raise ContentTooLargeError("the request is too large")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise ContentTooLargeError("the request is too large")
    return bytes(body)


def parse_request(
    body: bytes, provider: EmbeddingProvider, limits: EmbeddingAppLimits
) -> tuple[list[str], str]:
    """Texts and encoding of a request.

    Raises:
        InvalidInputError, ContentTooLargeError, UnknownModelError: what is wrong with it.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInputError("the request is not JSON") from None
    if not isinstance(data, dict):
        raise InvalidInputError("the request is not a JSON object")
    if data.get("model") != provider.name:
        raise UnknownModelError("this service does not have that model", hint=f"it has {provider.name}")
    if data.get("dimensions") not in (None, provider.dimensions):
        raise InvalidInputError("dimensions cannot be chosen", hint=f"the model has {provider.dimensions}")
    encoding = data.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidInputError("encoding_format must be float or base64")
    given = data.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise InvalidInputError("input must be a text or a list of texts")
    if len(texts) > limits.texts_max:
        raise ContentTooLargeError(f"more than {limits.texts_max} texts in one request")
    for text in texts:
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise InvalidInputError("a text cannot be encoded as UTF-8") from None
        if size > limits.text_bytes_max:
            raise ContentTooLargeError(f"a text has more than {limits.text_bytes_max} bytes")
    return texts, encoding


def _answer(vectors: Vectors, model: str, encoding: str, tokens: int) -> bytes:
    rows: list[Any]
    if encoding == "base64":
        rows = [v.tobytes() for v in vectors.astype("<f4", copy=False)]  # bytes become base64
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})
