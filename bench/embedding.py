"""The built-in model on the CPU in int8 and on a GPU in float16: speed, memory, and what a mixed store loses.

Where no GPU can be used, the float16 graph runs on the CPU: that shows what its vectors are worth, and no
speed that anybody would want. Every text of a measurement is another one. The service runs in a process
of its own, on plain HTTP on a loopback address, and so does each client.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._child import Child, State
from bench._harness import Options, Row, Spread, note, resident_mib
from bench.data import _question, _spliced, _varied

_LENGTHS = (16, 64, 256)
_BATCHES = (1, 32, 256, 1024)
_REPEAT_S = 0.4
_KEY = "bench-embedding-key"
_CLIENT_TEXTS = 256  # in one request


def _gpu() -> str:
    """Name of the GPU, empty when there is none that can be used."""
    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import make_provider
    from strongroom.errors import ConfigurationError

    try:
        make_provider(EmbeddingConfig(device="cuda")).close()
    except ConfigurationError as e:
        note(f"no GPU: {e.message}")
        return ""
    return _nvidia("name") + ", driver " + _nvidia("driver_version")


def _nvidia(field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("\n")[0]


def _model(kind: str) -> Any:
    """``int8`` on the CPU, ``gpu``, or ``float``: the graph of the GPU on the CPU."""
    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import GpuMiniLM, make_provider

    if kind == "float":
        return GpuMiniLM(providers=["CPUExecutionProvider"])
    return make_provider(EmbeddingConfig(device="cuda" if kind == "gpu" else "cpu"))


def _load(state: State, kind: str) -> tuple[float, float, float]:
    """Load a model in this process: (seconds, MiB of the process more, MiB of the GPU more)."""
    from strongroom.embedding._runtime import onnx_runtime

    onnx_runtime()  # the library is not the model

    resident, device = resident_mib(), _device_mib(kind)
    started = perf_counter()
    state["model"] = _model(kind)
    return perf_counter() - started, resident_mib() - resident, _device_mib(kind) - device


def _device_mib(kind: str) -> float:
    return float(_nvidia("memory.used")) if kind == "gpu" else 0.0


def _speed(state: State, texts: list[str], batch: int, repeats: int, kind: str) -> tuple[list[float], float]:
    """Texts a second in each repeat, and the MiB of the GPU that are in use afterwards."""
    model, place, found = state["model"], 0, []
    for repeat in range(repeats + 1):
        done, started = 0, perf_counter()
        while not done or perf_counter() - started < _REPEAT_S:
            if place + batch > len(texts):
                place = 0
            model.embed(texts[place : place + batch])
            place += batch
            done += batch
        if repeat:  # the first warms up
            found.append(done / (perf_counter() - started))
    return found, _device_mib(kind)


def _embed(state: State, texts: list[str]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = state["model"].embed(texts)
    return found


def _serve(state: State) -> int:
    """Serve the model of this process; the port."""
    import uvicorn

    from strongroom.servers.embed_app import create_embedding_app

    app = create_embedding_app(state["model"], api_key_check=lambda key: key == _KEY)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, http="h11"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        sleep(0.01)
    return int(server.servers[0].sockets[0].getsockname()[1])


def _connect(state: State, port: int) -> None:
    import os

    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import make_provider

    os.environ["BENCH_EMBEDDING_KEY"] = _KEY
    config = EmbeddingConfig(
        provider="openai",
        url=f"http://127.0.0.1:{port}/v1",
        api_key="env:BENCH_EMBEDDING_KEY",
        batch_size_max=_CLIENT_TEXTS,
    )
    state["model"] = make_provider(config)


def _ask(state: State, texts: list[str], seconds: float) -> int:
    """Embed over the network for so long; how many texts came back."""
    model, done, place, end = state["model"], 0, 0, perf_counter() + seconds
    while perf_counter() < end:
        if place + _CLIENT_TEXTS > len(texts):
            place = 0
        done += len(model.embed(texts[place : place + _CLIENT_TEXTS]))
        place += _CLIENT_TEXTS
    return done


def _sample(count: int, seed: int) -> list[str]:
    """Different texts in the manner of the corpus of ``bench.data``."""
    from strongroom.data import sample_rows

    rng = np.random.default_rng(seed)
    base = [row["content"].replace("\n", " ") for row in sample_rows()]
    found: dict[str, None] = {}
    while len(found) < count:
        a, b = (base[int(i)] for i in rng.integers(len(base), size=2))
        found[_varied(_spliced(a, b, rng), rng)] = None
    return list(found)


def _of_length(tokens: int, count: int, seed: int) -> list[str]:
    """Texts of ``tokens`` tokens, one or two fewer at times; with [CLS] and [SEP]."""
    from tokenizers import Tokenizer

    from strongroom.embedding import find_model_files

    tokenizer = Tokenizer.from_buffer(find_model_files().tokenizer())
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    words = " ".join(_sample(3000, seed)).split(" ")
    starts = np.random.default_rng(seed).integers(len(words) - tokens, size=count)
    found = []
    for i in starts.tolist():
        text = " ".join(words[i : i + tokens])
        offsets = tokenizer.encode(text).offsets
        found.append(text[: offsets[-2][1]])
    return found


def run(options: Options) -> list[Row]:
    gpu = _gpu()
    kinds = ("int8", "gpu") if gpu else ("int8", "float")
    names = {"int8": "int8, CPU", "gpu": f"float16, {gpu}", "float": "float16 graph on the CPU"}
    batches = _BATCHES if gpu else _BATCHES[:2]
    lengths = _LENGTHS if gpu or not options.quick else _LENGTHS[:2]
    rows: list[Row] = []
    children = {kind: Child() for kind in kinds}
    try:
        for kind, child in children.items():
            seconds, resident, device = child.call(_load, kind)
            used = f", {device:,.0f} MiB of the GPU" if gpu and kind == "gpu" else ""
            rows.append(
                Row(f"load: {names[kind]}", f"{seconds:.2f} s, {resident:,.0f} MiB of the process{used}")
            )
        for tokens in lengths:
            texts = _of_length(tokens, 4096 if gpu else 256, options.seed + tokens)
            for batch in batches:
                rows += _compared(children, names, texts, tokens, batch, options.repeats)
        rows += _agreement(children, options, 5000 if gpu else 400)
        served = kinds[1] if gpu else "int8"
        for other in set(kinds) - {served}:
            children.pop(other).close()
        rows += _service(children[served], names[served], options, (1, 4, 8) if gpu else (1,))
    finally:
        for child in children.values():
            child.close()
    return rows


def _compared(
    children: dict[str, Child], names: dict[str, str], texts: list[str], tokens: int, batch: int, repeats: int
) -> list[Row]:
    """Both models in turns on the same texts."""
    found: dict[str, tuple[list[float], float]] = {}
    for kind, child in children.items():
        found[kind] = child.call(_speed, texts, batch, repeats, kind)
    base = Spread.of(found["int8"][0])
    note(f"{tokens} tokens, {batch} at once")
    rows = []
    for kind, (speeds, device) in found.items():
        spread = Spread.of(speeds)
        used = f"; {device:,.0f} MiB of the GPU in use" if device else ""
        rows.append(
            Row(
                f"embed(), {tokens} tokens, {batch} texts at once: {names[kind]}",
                f"{spread.show(1, 0)} texts/s{used}",
                against="" if kind == "int8" else f"{spread.median / base.median:.1f} times int8",
                data={"tokens": tokens, "batch": batch, "kind": kind, "texts_s": speeds},
            )
        )
    return rows


def _agreement(children: dict[str, Child], options: Options, count: int) -> list[Row]:
    """How far the vectors lie apart, and recall@10 against float questions on float memories."""
    rng = np.random.default_rng(options.seed)
    memories = _sample(count, options.seed)
    questions = [_question(memories[int(i)], rng) for i in rng.integers(count, size=min(1000, count // 2))]
    vectors = {
        kind: (child.call(_embed, memories), child.call(_embed, questions))
        for kind, child in children.items()
    }
    (m8, q8), (mf, qf) = vectors.values()
    truth = _top(qf, mf)
    half = np.where(rng.random(count)[:, None] < 0.5, mf, m8)
    cosines = np.concatenate([(m8 * mf).sum(axis=1), (q8 * qf).sum(axis=1)])
    rows = [
        Row(
            "cosine of float16 to int8",
            f"mean {cosines.mean():.4f}, least {cosines.min():.4f} of {len(cosines):,} texts",
        )
    ]
    cases = (
        ("int8", q8, "int8", m8),
        ("int8", q8, "half float16, half int8", half),
        ("int8", q8, "float16", mf),
        ("float16", qf, "int8", m8),
        ("float16", qf, "half float16, half int8", half),
    )
    for asked, q, stored, m in cases:
        share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(_top(q, m), truth, strict=True)])
        rows.append(
            Row(
                f"recall@10 of float16: questions {asked}, memories {stored}",
                f"{share:.4f} ({len(q):,} questions, {count:,} memories)",
                data={"recall": float(share)},
            )
        )
    return rows


def _top(questions: NDArray[np.float32], memories: NDArray[np.float32]) -> list[list[int]]:
    found: list[list[int]] = np.argsort(-(questions @ memories.T), axis=1)[:, :10].tolist()
    return found


def _service(server: Child, name: str, options: Options, clients: tuple[int, ...]) -> list[Row]:
    """``embed-serve`` asked by several processes at once."""
    texts = _sample(20 * _CLIENT_TEXTS, options.seed + 1)
    port = server.call(_serve)
    rows = []
    for count in clients:
        callers = [Child() for _ in range(count)]
        try:
            for caller in callers:
                caller.call(_connect, port)
                caller.call(_ask, texts, 0.1)
            speeds = [_at_once(callers, texts, 1.0) for _ in range(options.repeats)]
        finally:
            for caller in callers:
                caller.close()
        spread = Spread.of(speeds)
        rows.append(
            Row(
                f"embed-serve, loopback, {count} clients of {_CLIENT_TEXTS} texts a request: {name}",
                f"{spread.show(1, 0)} texts/s",
                data={"clients": count, "texts_s": speeds},
            )
        )
    return rows


def _at_once(callers: list[Child], texts: list[str], seconds: float) -> float:
    """Texts a second that all callers got together."""
    started, counts = perf_counter(), []
    work: Callable[[Child], None] = lambda c: counts.append(c.call(_ask, texts, seconds))  # noqa: E731
    threads = [threading.Thread(target=work, args=(c,)) for c in callers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(counts) / (perf_counter() - started)
