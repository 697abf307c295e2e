"""The embedding service: the same vectors as in process, batched, fair, and only for those with a key."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from tests.embedding.fakes import FakeModel, vector_of

from strongroom.embedding import EmbeddingProvider, GpuMiniLM, LocalMiniLM
from strongroom.errors import EmbeddingRejectedError, StrongroomError, all_errors
from strongroom.servers.embed_app import (
    EmbeddingAppLimits,
    MicroBatcher,
    create_embedding_app,
    error_response,
)

KEY = "sr_test_key"


@asynccontextmanager
async def serve(
    provider: EmbeddingProvider, limits: EmbeddingAppLimits | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_embedding_app(provider, api_key_check=lambda key: key == KEY, limits=limits)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://x", headers={"authorization": f"Bearer {KEY}"}
        ) as client,
    ):
        yield client


def with_client(
    provider: EmbeddingProvider,
    work: Callable[[httpx.AsyncClient], Awaitable[Any]],
    limits: EmbeddingAppLimits | None = None,
) -> Any:
    async def main() -> Any:
        async with serve(provider, limits) as client:
            return await work(client)

    return asyncio.run(main())


def post(provider: EmbeddingProvider, body: object, limits: EmbeddingAppLimits | None = None) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return with_client(provider, lambda c: c.post("/v1/embeddings", content=content), limits)


def ask(client: httpx.AsyncClient, texts: str | list[str]) -> asyncio.Task[httpx.Response]:
    """One request, begun and not waited for."""
    return asyncio.create_task(client.post("/v1/embeddings", json={"model": "fake", "input": texts}))


def test_the_service_gives_the_vectors_of_the_local_model_in_both_encodings(minilm: LocalMiniLM) -> None:
    texts = ["pricing concern", "the server is down"]
    expected = minilm.embed(texts)
    body: dict[str, Any] = {"model": minilm.name, "input": texts}
    plain = post(minilm, body).json()
    found = np.array([d["embedding"] for d in plain["data"]], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [d["index"] for d in plain["data"]] == [0, 1]
    packed = post(minilm, body | {"encoding_format": "base64"}).json()
    rows = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in packed["data"]]
    np.testing.assert_allclose(np.array(rows), expected, atol=1e-6)
    single = post(minilm, {"model": minilm.name, "input": texts[0]}).json()
    np.testing.assert_allclose(single["data"][0]["embedding"], expected[0], atol=1e-6)


BAD: dict[str, tuple[object, int]] = {
    "not JSON": (b"{", 400),
    "bad bytes": (b"\xff", 400),
    "deep": (b"[" * 100_000, 400),
    "a list": ([], 400),
    "no input": ({"model": "fake"}, 400),
    "no texts": ({"model": "fake", "input": []}, 400),
    "tokens": ({"model": "fake", "input": [1, 2]}, 400),
    "token lists": ({"model": "fake", "input": [[1, 2]]}, 400),
    "a number": ({"model": "fake", "input": 5}, 400),
    "a lone surrogate": (b'{"model": "fake", "input": "\\ud800"}', 400),
    "another model": ({"model": "gpt", "input": "x"}, 404),
    "other dimensions": ({"model": "fake", "input": "x", "dimensions": 3}, 400),
    "another encoding": ({"model": "fake", "input": "x", "encoding_format": "int8"}, 400),
    "encoding is a list": ({"model": "fake", "input": "x", "encoding_format": []}, 400),
    "too many texts": ({"model": "fake", "input": ["x"] * 11}, 413),
    "a text too long": ({"model": "fake", "input": "x" * 101}, 413),
    "request too large": (b" " * 5000, 413),
}


def test_a_gpu_gets_a_thousand_texts_at_once() -> None:
    """Batches of 64 would leave it idle most of the time."""

    class Gpu(GpuMiniLM):
        def __init__(self) -> None:
            self.batches: list[int] = []

        def embed_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
            self.batches.append(len(texts))
            return np.eye(1, 384, dtype=np.float32).repeat(len(texts), axis=0), [2] * len(texts)

    model = Gpu()
    answer = post(model, {"model": model.name, "input": ["x"] * 2000}).json()
    assert model.batches == [1024, 976]
    assert answer["usage"]["total_tokens"] == 4000


def test_usage_counts_the_tokens_that_the_model_reads(minilm: LocalMiniLM) -> None:
    """Start, words and end of each text; a text that is cut counts no more than the model takes."""
    for texts, tokens in ((["hello"], 3), (["hello", "hello world"], 7), (["word " * 2000], 256)):
        answer = post(minilm, {"model": minilm.name, "input": texts}).json()
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert post(FakeModel(), {"model": FakeModel().name, "input": ["x"]}).json()["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_gets_one_typed_error(body: object, status: int) -> None:
    limits = EmbeddingAppLimits(
        request_bytes_max=4096 if status == 413 else 2**20, texts_max=10, text_bytes_max=100
    )
    response = post(FakeModel(), body, limits)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] in all_errors()
    assert error["type"] == "invalid_request_error"


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 100

    limits = EmbeddingAppLimits(request_bytes_max=1000)
    response = with_client(FakeModel(), lambda c: c.post("/v1/embeddings", content=chunks()), limits)
    assert response.status_code == 413


def test_without_the_right_key_only_the_health_check_answers() -> None:
    model = FakeModel()

    async def work(client: httpx.AsyncClient) -> list[int]:
        out = []
        for header in ("", "Bearer wrong", f"Basic {KEY}", KEY):
            for method, path in (("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", "/healthz")):
                answer = await client.request(method, path, headers={"authorization": header}, content=b"{}")
                out.append(answer.status_code)
        return out

    assert with_client(model, work) == [401, 401, 200] * 4
    assert not model.batches


def test_the_model_is_listed() -> None:
    listed = with_client(FakeModel(), lambda c: c.get("/v1/models")).json()["data"]
    assert [(m["id"], m["dimensions"], m["fingerprint"]) for m in listed] == [("fake", 8, "fake-1")]


def test_requests_that_come_together_are_computed_together_and_get_their_own_vectors() -> None:
    model, gate = FakeModel(), threading.Event()
    model.before = lambda texts: gate.wait(30)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [ask(client, [f"t{n}", f"u{n}"]) for n in range(20)]
        await asyncio.sleep(0.3)
        gate.set()
        return await asyncio.gather(*tasks)

    for n, response in enumerate(with_client(model, work)):
        rows = np.array([d["embedding"] for d in response.json()["data"]], np.float32)
        np.testing.assert_allclose(rows, [vector_of(f"t{n}"), vector_of(f"u{n}")], atol=1e-6)
    assert len(model.batches) <= 3


def test_a_refused_text_fails_its_own_request_only() -> None:
    model, gate = FakeModel(), threading.Event()
    model.poison = "poison"
    model.before = lambda texts: gate.wait(30)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [ask(client, t) for t in ("first", "a", "poison", "b")]
        await asyncio.sleep(0.2)
        gate.set()
        return await asyncio.gather(*tasks)

    assert [r.status_code for r in with_client(model, work)] == [200, 200, 422, 200]


def test_a_short_question_passes_a_long_import() -> None:
    model, gate = FakeModel(), threading.Event()
    model.before = lambda texts: gate.wait(30)
    limits = EmbeddingAppLimits(batch_texts_max=8)

    async def work(client: httpx.AsyncClient) -> None:
        many = [f"import {n}" for n in range(200)]
        long = ask(client, many)
        await asyncio.sleep(0.1)
        short = ask(client, "question")
        await asyncio.sleep(0.1)
        gate.set()
        answers = await asyncio.gather(long, short)
        rows = np.array([d["embedding"] for d in answers[0].json()["data"]], np.float32)
        np.testing.assert_allclose(rows, [vector_of(t) for t in many], atol=1e-6)

    with_client(model, work, limits)
    assert next(i for i, b in enumerate(model.batches) if "question" in b) == 1
    assert all(len(b) <= 8 for b in model.batches)


def test_a_short_question_passes_even_when_long_imports_fill_every_batch() -> None:
    model = FakeModel()
    limits = EmbeddingAppLimits(batch_texts_max=2)

    async def main() -> None:
        batcher = MicroBatcher(model, limits)
        imports = [asyncio.create_task(batcher.embed([f"import {n}"] * 50)) for n in range(4)]
        question = asyncio.create_task(batcher.embed(["question"]))
        await asyncio.gather(question, *imports)
        await batcher.close()

    asyncio.run(main())
    assert next(i for i, b in enumerate(model.batches) if "question" in b) <= 3


def test_when_too_much_waits_the_answer_is_to_come_back_later() -> None:
    response = post(
        FakeModel(), {"model": "fake", "input": ["x"] * 20}, EmbeddingAppLimits(waiting_texts_max=10)
    )
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"


def test_a_model_that_is_down_is_503_and_works_again_afterwards() -> None:
    model = FakeModel()
    model.down = True

    async def work(client: httpx.AsyncClient) -> list[int]:
        body = {"model": "fake", "input": "x"}
        first = await client.post("/v1/embeddings", json=body)
        model.down = False
        second = await client.post("/v1/embeddings", json=body)
        return [first.status_code, second.status_code]

    assert with_client(model, work) == [503, 200]


def test_a_broken_model_is_500_without_its_words_and_does_not_stop_the_service() -> None:
    model = FakeModel()

    def bug(texts: Sequence[str]) -> None:
        if "bug" in texts:
            raise ZeroDivisionError("canary-31 in the message")

    model.before = bug

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        bodies = [{"model": "fake", "input": t} for t in ("bug", "fine")]
        return [await client.post("/v1/embeddings", json=b) for b in bodies]

    broken, fine = with_client(model, work)
    assert (broken.status_code, fine.status_code) == (500, 200)
    assert "canary" not in broken.text


def test_a_model_that_breaks_its_contract_is_500_and_its_numbers_go_to_nobody() -> None:
    """A row too few, another type, a vector of nothing: none is handed on as an embedding."""
    for answer in (np.zeros((0, 8), np.float32), np.ones((1, 8), np.float64)):
        model = FakeModel()
        model.embed = lambda texts, answer=answer: answer  # type: ignore[method-assign]
        assert post(model, {"model": "fake", "input": "x"}).status_code == 500


def test_a_fault_of_the_service_itself_is_answered_and_logged_by_type(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails between the queue and the model, who waits gets an answer."""

    async def fault(self: MicroBatcher, batch: object) -> None:
        raise ZeroDivisionError("canary-52")

    monkeypatch.setattr(MicroBatcher, "_compute", fault)
    response = post(FakeModel(), {"model": "fake", "input": "x"})
    assert response.status_code == 500 and response.json()["error"]["code"] == "internal"
    assert "ZeroDivisionError" in caplog.text and "canary" not in caplog.text + response.text


def test_a_caller_that_went_away_costs_the_others_nothing() -> None:
    model, gate = FakeModel(), threading.Event()
    model.before = lambda texts: gate.wait(30)

    async def main() -> None:
        batcher = MicroBatcher(model, EmbeddingAppLimits(waiting_texts_max=4))
        first = asyncio.create_task(batcher.embed(["a"]))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.embed(["b", "c"]))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        last = asyncio.create_task(batcher.embed(["d"]))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(first, last)
        await batcher.embed(["e"] * 4)  # what the cancelled one had reserved is free again
        await batcher.close()

    asyncio.run(main())
    assert not any("b" in batch for batch in model.batches)


def test_when_the_service_stops_those_who_wait_are_told() -> None:
    model, gate = FakeModel(), threading.Event()
    model.before = lambda texts: gate.wait(30)

    async def main() -> list[Any]:
        batcher = MicroBatcher(model, EmbeddingAppLimits(batch_texts_max=1))
        tasks = [asyncio.create_task(batcher.embed([t])) for t in "ab"]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        gate.set()
        await closing
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(main())
    assert [getattr(a, "code", "") for a in answers] == ["closed", "closed"]


@pytest.mark.parametrize("cls", all_errors().values(), ids=all_errors().keys())
def test_every_error_has_a_status_and_a_server_fault_keeps_its_words(cls: type[StrongroomError]) -> None:
    response = error_response(cls("canary-44"))
    assert 400 <= response.status_code < 600
    assert (b"canary-44" in bytes(response.body)) == (response.status_code < 500)


def test_refused_is_told_apart_from_unavailable_by_our_own_client() -> None:
    """422 is the text's fault, 404 (another model) is not: the client must not kill texts for it."""
    assert error_response(EmbeddingRejectedError()).status_code == 422
