"""The model on a GPU: its graph on the CPU, and every way in which a GPU can be missing, told by name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.embedding.numpy_bert import NumpyBert
from tests.embedding.test_embedding_local import sentences
from tokenizers import Tokenizer

from strongroom.config import EmbeddingConfig
from strongroom.data import sample_rows
from strongroom.embedding import GpuMiniLM, LocalMiniLM, make_provider
from strongroom.embedding import _cuda as cuda
from strongroom.embedding import _gpu as gpu
from strongroom.embedding._bert_graph import build_graph, parse_weights
from strongroom.embedding._local import encode, encode_many, runtime_errors
from strongroom.embedding._weights import find_model_files
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def float16() -> Iterator[GpuMiniLM]:
    model = GpuMiniLM(providers=CPU)
    yield model
    model.close()


def test_the_float16_graph_is_the_model_to_four_digits(float16: GpuMiniLM) -> None:
    """Against an independent float64 BERT, texts of other scripts and of 256 tokens among them."""
    texts = sentences()[::5] + sentences()[-6:]
    directory = find_model_files().directory
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    bert = NumpyBert(directory)
    reference = np.array([bert.embed(tokenizer.encode(t).ids) for t in texts])
    assert (float16.embed(texts) * reference).sum(axis=1).min() > 0.9999


def test_texts_keep_their_order_and_hardly_feel_their_neighbours(
    float16: GpuMiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a few texts and one run of all give the same rows, shape (texts, 384), norm 1."""
    texts = sentences()[:40:4] + sentences()[-4:]
    whole = float16.embed(texts)
    monkeypatch.setattr(gpu, "_RUN_TEXTS_MAX", 3)
    np.testing.assert_allclose(float16.embed(texts[::-1])[::-1], whole, atol=2e-3)
    assert whole.dtype == np.float32
    assert whole.shape == (len(texts), 384)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert float16.embed([]).shape == (0, 384)


def test_a_store_may_hold_vectors_of_both(float16: GpuMiniLM, minilm: LocalMiniLM) -> None:
    """Against the answers of float vectors alone, no mixture finds less than int8 with int8 does."""
    memories = [row["content"] for row in sample_rows()][:200]
    questions = [" ".join(text.split(" ")[2:9]) for text in memories[::2]]
    (m8, q8), (mf, qf) = ((m.embed(memories), m.embed(questions)) for m in (minilm, float16))
    assert float16.fingerprint == minilm.fingerprint
    assert (m8 * mf).sum(axis=1).mean() > 0.99
    mixed = np.where(np.arange(len(m8))[:, None] % 2 == 0, mf, m8)

    def found(q: np.ndarray, m: np.ndarray) -> float:
        best, truth = np.argsort(-(q @ m.T))[:, :10], np.argsort(-(qf @ mf.T))[:, :10]
        return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(best, truth, strict=True)]))

    alone = found(q8, m8)
    assert alone > 0.85
    for q, m in ((q8, mf), (q8, mixed), (qf, m8), (qf, mixed)):
        assert found(q, m) > alone - 0.01


def test_many_texts_have_the_tokens_of_each(minilm: LocalMiniLM) -> None:
    texts = [*sentences()[-14:], "", "word " * 4000, "x" * 20_000, "a b" + "\u200b" * 9000 + " end"]
    tokenizer = minilm._tokenizer
    assert encode_many(tokenizer, texts) == [encode(tokenizer, t) for t in texts]
    with pytest.raises(EmbeddingRejectedError):
        encode_many(tokenizer, ["ok", "\ud800"])


def test_inputs_are_padded_to_a_multiple_of_eight_and_masked() -> None:
    inputs = gpu.padded([[101, 7, 102], [101, 8, 9, 10, 11, 12, 13, 14, 102]])
    assert inputs["ids"].shape == inputs["mask"].shape == (2, 16)
    assert inputs["ids"][0].tolist() == [101, 7, 102] + [0] * 13
    assert inputs["mask"].sum(axis=1).tolist() == [3, 9]
    assert (inputs["ids"].dtype, inputs["mask"].dtype) == (np.int64, np.int32)


def test_a_failing_device_is_an_outage_and_a_closed_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    model = GpuMiniLM(providers=CPU)
    real = model._session

    def failing(*_: object) -> Any:
        raise native.Fail("canary out of memory")

    model._session = SimpleNamespace(run=failing)
    with pytest.raises(EmbeddingUnavailableError, match="Fail") as caught:
        model.embed(["text"])
    assert "canary" not in str(caught.value)
    model._session = SimpleNamespace(run=lambda *_: [np.full((1, 384), np.nan, np.float32)])
    with pytest.raises(EmbeddingRejectedError):
        model.embed(["text"])
    model._session = real
    model.close()
    model.close()
    with pytest.raises(ClosedError):
        model.embed(["text"])


def test_a_device_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "known_distance", lambda _: 0.06)
    with pytest.raises(ModelFilesError, match="GPU") as caught:
        GpuMiniLM(providers=CPU)
    assert caught.value.hint


# -- what can be missing ----------------------------------------------------------------------------
def test_a_gpu_with_the_runtime_that_is_installed_here_is_refused_with_what_to_install() -> None:
    """The real ONNX Runtime, built without CUDA: never the CPU in its place."""
    with pytest.raises(ConfigurationError, match="built without CUDA") as caught:
        make_provider(EmbeddingConfig(device="cuda"))
    version = metadata.version("onnxruntime")
    assert f"onnxruntime-gpu[cuda,cudnn]=={version}" in (caught.value.hint or "")


def test_both_runtimes_installed_are_told_apart_from_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(ConfigurationError) as caught:
        make_provider(EmbeddingConfig(device="cuda:1"))
    assert "uninstall both" in (caught.value.hint or "")


def test_a_session_that_would_compute_elsewhere_is_refused() -> None:
    """ONNX Runtime takes the CPU when a provider is not there; the session is asked and not kept."""
    graph = build_graph(parse_weights(find_model_files().weights()), "fp16")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ConfigurationError, match="cannot use the GPU") as caught,
    ):
        cuda.make_session(graph, ["CUDAExecutionProvider", *CPU], runtime_errors())
    assert caught.value.hint


class Driver:
    """libcuda as far as it is asked."""

    def __init__(self, devices: int, status: int = 0) -> None:
        self.devices, self.status = devices, status

    def cuInit(self, _: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self.devices
        return 0


Loader = Callable[[str], Any]


def loader(driver: Driver | None, *there: str) -> Loader:
    """Opens the driver, and the libraries of these names or paths."""

    def load(name: str) -> Any:
        if name == "libcuda.so.1" and driver is not None:
            return driver
        if name not in there:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    return load


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    needed = ["libcublasLt.so.13", "libcublas.so.13", "libcuda.so.1", "libc.so.6"]
    monkeypatch.setattr(cuda, "needed_libraries", lambda _: needed)
    (tmp_path / "onnxruntime").mkdir()
    return SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", *CPU],
        __version__="1.31.1",
        __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
    )


@pytest.mark.parametrize(
    ("driver", "device", "libraries", "told"),
    [
        (None, 0, (), "no NVIDIA driver"),
        (Driver(0), 0, (), "the driver finds none"),
        (Driver(0, status=100), 0, (), "CUDA error 100"),
        (Driver(2), 2, (), "this machine has 2"),
        (Driver(1), 0, (), r"libcublasLt\.so\.13"),
        (Driver(1), 0, ("libcublasLt.so.13",), r"libcublas\.so\.13"),
    ],
)
def test_what_is_missing_is_named(
    driver: Driver | None, device: int, libraries: Sequence[str], told: str, runtime: Any
) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        cuda.require_cuda(device, runtime, loader(driver, *libraries))
    assert caught.value.hint


def test_libraries_are_taken_from_the_system_or_from_nvidias_packages(runtime: Any, tmp_path: Path) -> None:
    there = tmp_path / "nvidia" / "cu13" / "lib" / "libcublas.so.13"
    there.parent.mkdir(parents=True)
    there.touch()
    opened: list[str] = []
    load = loader(Driver(1), "libcublasLt.so.13", str(there))

    def noted(name: str) -> Any:
        found = load(name)
        opened.append(name)
        return found

    cuda.require_cuda(0, runtime, noted)
    assert opened == ["libcuda.so.1", "libcublasLt.so.13", str(there)]


def test_needed_libraries_are_read_from_a_real_file_and_damage_reads_as_none(tmp_path: Path) -> None:
    import onnxruntime

    place = Path(str(onnxruntime.__file__)).parent / "capi" / "libonnxruntime_providers_shared.so"
    assert "libc.so.6" in cuda.needed_libraries(place)
    whole = place.read_bytes()
    damaged = tmp_path / "damaged.so"
    for size in range(0, len(whole), 97):
        damaged.write_bytes(whole[:size])
        assert cuda.needed_libraries(damaged) == []
    for at in range(64):  # the header
        damaged.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        assert isinstance(cuda.needed_libraries(damaged), list)
    assert cuda.needed_libraries(tmp_path / "absent") == []


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "CUDA", "cuda:0 ", "cuda:9999"])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ConfigurationError, match=r"embedding\.device"):
        make_provider(EmbeddingConfig(device=device))
    assert [cuda.parse_device(d) for d in ("cpu", "cuda", "cuda:3")] == [None, 0, 3]


@pytest.mark.parametrize("provider", ["openai", "sentence-transformers", "none"])
def test_a_device_for_a_provider_that_has_none_is_refused(provider: str) -> None:
    with pytest.raises(ConfigurationError, match="local provider"):
        make_provider(EmbeddingConfig(provider=provider, device="cuda"))
