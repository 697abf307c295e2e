"""The real local model, and a small numpy BERT to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.embedding import LocalMiniLM


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def minilm(model_cache: Path) -> Iterator[LocalMiniLM]:
    model = LocalMiniLM(threads=2, cache=model_cache)
    yield model
    model.close()
