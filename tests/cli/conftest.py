from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.word_model import WordModel

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Engine


@dataclass
class Answer:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Answer]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("STRONGROOM_") and n != "STRONGROOM_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A command that runs in this process leaves its handlers behind; processes that are started later would
    inherit what it ignores."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def command() -> Run:
    """Runs the command in this process, without any option of its own."""

    def run(*args: str, input: str | bytes | None = None, status: int | None = 0) -> Answer:
        result = CliRunner().invoke(cli, list(args), input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.stderr
        if status is not None:
            assert result.exit_code == status, result.stdout + result.stderr
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store whose default model is the test's, see ``model``."""
    directory = tmp_path / "data"
    embedding = EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=20, attempts_max=2)
    strongroom.init(directory, config=Config(embedding=embedding))
    return directory


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> WordModel:
    """The model of every store that is opened in this process."""
    words = WordModel()
    original = Engine.open.__func__  # type: ignore[attr-defined]

    def opened(cls: type[Engine], directory: Path, **options: Any) -> Engine:
        return original(cls, directory, **{**options, "provider": words})  # type: ignore[no-any-return]

    monkeypatch.setattr(Engine, "open", classmethod(opened))
    return words


@pytest.fixture
def run(command: Run, data: Path, model: WordModel) -> Run:
    """Runs a command on the store, with the test's model."""
    return lambda *args, **options: command("--data", str(data), *args, **options)


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """Runs the command as a process of its own, without a model."""

    def start(*args: str, input: str | None = None, status: int | None = 0, **env: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "strongroom.cli", *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
            check=False,
        )
        assert "Traceback" not in done.stderr
        if status is not None:
            assert done.returncode == status, done.stdout + done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    return start
