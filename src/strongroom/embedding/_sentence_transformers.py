"""Any model of the library sentence-transformers, from a local directory only."""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strongroom.config import EmbeddingConfig
from strongroom.embedding._caller import check_dimensions
from strongroom.embedding._provider import FloatMatrix, unit_rows
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    ModelFilesError,
)

_HASHED_SUFFIXES = (".safetensors", ".json", ".txt")


class SentenceTransformersProvider:
    """``[embedding] weights`` is the model's directory; nothing is ever fetched, no remote code runs.

    Only safetensors weights are taken: pickled ones run code when they are loaded.

    Raises:
        ConfigurationError: the library is not installed, or the dimensions are not the model's.
        ModelFilesError: the directory is missing or holds no safetensors weights.
    """

    def __init__(self, config: EmbeddingConfig) -> None:
        directory = Path(config.weights).expanduser()
        if not config.weights or not directory.is_dir():
            raise ModelFilesError(
                "the directory of [embedding] weights does not exist",
                hint="this provider takes local directories only",
            )
        if not any(directory.glob("*.safetensors")):
            raise ModelFilesError("the model directory holds no safetensors weights", hint="")
        try:
            library: Any = importlib.import_module("sentence_transformers")
        except ImportError:
            raise ConfigurationError(
                "sentence-transformers is not installed",
                hint="pip install 'strongroom[sentence-transformers]'",
            ) from None
        self._name = config.model
        self._dimensions = check_dimensions(config.dimensions)
        self._batch_size = max(1, config.batch_size_max)
        self._fingerprint = f"sentence-transformers-{_digest(directory)}"
        try:
            self._model: Any = library.SentenceTransformer(
                str(directory),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, RuntimeError, KeyError) as e:
            raise ModelFilesError(f"the model cannot be loaded: {type(e).__name__}", hint="") from None
        self._lock = threading.Lock()
        if self._model.get_sentence_embedding_dimension() != self._dimensions:
            raise ConfigurationError("embedding.dimensions is not that of the model")

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Vectors of ``texts``: float32, shape (len(texts), dimensions), rows of norm 1.

        Raises:
            EmbeddingRejectedError: a text or its vector is not usable.
            EmbeddingUnavailableError: the library failed.
            ClosedError: the provider was closed.
        """
        if not texts:
            return np.empty((0, self._dimensions), np.float32)
        with self._lock:
            if self._model is None:
                raise ClosedError("the embedding model was closed")
            try:
                raw = self._model.encode(list(texts), batch_size=self._batch_size, show_progress_bar=False)
            except (TypeError, UnicodeError):
                raise EmbeddingRejectedError from None
            except RuntimeError:
                raise EmbeddingUnavailableError("the local embedding model failed") from None
        vectors = np.asarray(raw, np.float32)
        if vectors.shape != (len(texts), self._dimensions):
            raise EmbeddingUnavailableError("the model gave vectors of another shape")
        return unit_rows(vectors)

    def close(self) -> None:
        """Free the model. May be called twice."""
        with self._lock:
            self._model = None


def _digest(directory: Path) -> str:
    """Of all weights and settings, by name, so that another model has another fingerprint."""
    total = hashlib.sha256()
    try:
        for path in sorted(p for p in directory.rglob("*") if p.suffix in _HASHED_SUFFIXES and p.is_file()):
            with path.open("rb") as f:
                one = hashlib.file_digest(f, "sha256").hexdigest()
            total.update(f"{path.relative_to(directory).as_posix()}\0{one}\n".encode())
    except OSError as e:
        raise ModelFilesError(f"the model directory cannot be read: {type(e).__name__}", hint="") from None
    return total.hexdigest()[:32]
