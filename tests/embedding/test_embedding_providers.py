"""The providers without a model of our own, and the registry that picks one."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strongroom.config import EmbeddingConfig
from strongroom.embedding import CallerVectors, LocalMiniLM, SentenceTransformersProvider, make_provider
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)


class FakeLibraryModel:
    """What sentence-transformers offers, as far as it is used."""

    def __init__(self, path: str, **options: Any) -> None:
        self.path, self.options = path, options
        self.error: Exception | None = None
        if (Path(path) / "broken").exists():
            raise OSError(f"cannot read {path}")

    def get_sentence_embedding_dimension(self) -> int:
        return 4

    def encode(self, texts: list[str], **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return np.array([[len(t), 1, 2, 3] for t in texts], np.float32)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeLibraryModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def config(directory: Path, **changes: Any) -> EmbeddingConfig:
    settings = {"provider": "sentence-transformers", "weights": str(directory), "dimensions": 4, "model": "m"}
    return EmbeddingConfig(**(settings | changes))


def test_without_the_library_the_error_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigurationError) as caught:
        make_provider(config(directory))
    assert "pip install" in (caught.value.hint or "")


@pytest.mark.usefixtures("library")
def test_a_local_model_is_loaded_without_network_or_foreign_code(directory: Path) -> None:
    provider = make_provider(config(directory))
    assert isinstance(provider, SentenceTransformersProvider)
    options = provider._model.options
    assert options["local_files_only"] is True
    assert options["trust_remote_code"] is False
    assert options["model_kwargs"] == {"use_safetensors": True}
    vectors = provider.embed(["a", "bb"])
    assert vectors.shape == (2, 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert provider.embed([]).shape == (0, 4)
    assert (provider.name, provider.dimensions) == ("m", 4)
    provider.close()
    with pytest.raises(ClosedError):
        provider.embed(["a"])


@pytest.mark.usefixtures("library")
def test_a_hub_name_a_missing_directory_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    for weights in ("", "sentence-transformers/all-mpnet-base-v2", str(tmp_path / "absent")):
        with pytest.raises(ModelFilesError):
            make_provider(config(tmp_path, weights=weights))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelFilesError, match="safetensors"):
        make_provider(config(tmp_path))


@pytest.mark.usefixtures("library")
def test_a_model_of_other_dimensions_or_a_broken_one_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigurationError):
        make_provider(config(directory, dimensions=5))
    (directory / "broken").touch()
    with pytest.raises(ModelFilesError) as caught:
        make_provider(config(directory))
    assert str(directory) not in caught.value.message


@pytest.mark.usefixtures("library")
def test_errors_of_the_library_become_ours_without_their_text(directory: Path) -> None:
    provider = SentenceTransformersProvider(config(directory))
    cases = ((RuntimeError, EmbeddingUnavailableError), (TypeError, EmbeddingRejectedError))
    for foreign, expected in cases:
        provider._model.error = foreign("canary-77")
        with pytest.raises(expected) as caught:
            provider.embed(["x"])
        assert "canary" not in str(caught.value.as_dict())


@pytest.mark.usefixtures("library")
def test_other_weights_have_another_fingerprint(directory: Path) -> None:
    first = SentenceTransformersProvider(config(directory)).fingerprint
    assert SentenceTransformersProvider(config(directory)).fingerprint == first
    (directory / "model.safetensors").write_bytes(b"weighty")
    assert SentenceTransformersProvider(config(directory)).fingerprint != first


def test_without_a_model_texts_are_refused_and_dimensions_are_known() -> None:
    provider = make_provider(EmbeddingConfig(provider="none", dimensions=12))
    assert isinstance(provider, CallerVectors)
    assert provider.embed([]).shape == (0, 12)
    assert provider.dimensions == 12
    with pytest.raises(EmbeddingRejectedError) as caught:
        provider.embed(["x"])
    assert caught.value.hint
    provider.close()


@pytest.mark.parametrize("change", [{"provider": "magic"}, {"provider": "none", "dimensions": 0}])
def test_settings_that_name_no_provider_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        make_provider(EmbeddingConfig(**change))


def test_the_default_is_the_local_model(model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_CACHE", str(model_cache))
    provider = make_provider(EmbeddingConfig())
    assert isinstance(provider, LocalMiniLM)
    provider.close()
