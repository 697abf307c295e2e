"""A configuration file that somebody else wrote is not used, where the environment says which may be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom

from strongroom.cli._main import cli
from strongroom.config import CONFIG_NAME, load_config
from strongroom.errors import ConfigurationError

VARIABLE = "STRONGROOM_CONFIG_SHA256"


def digest(data: Path) -> str:
    return hashlib.sha256((data / CONFIG_NAME).read_bytes()).hexdigest()


def test_only_a_named_configuration_opens_the_store(
    data: Path, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed file is refused before a key is asked for, and used once its digest is named too."""
    first = digest(data)
    monkeypatch.setenv(VARIABLE, first.upper())
    open_room().close()
    path = data / CONFIG_NAME
    path.write_text(path.read_text() + "\n# elsewhere\n")
    (data.with_name(data.name + ".keys") / "master.key").rename(data.parent / "aside")
    with pytest.raises(ConfigurationError, match=VARIABLE) as caught:
        open_room()
    assert "sha256sum" in (caught.value.hint or "")
    (data.parent / "aside").rename(data.with_name(data.name + ".keys") / "master.key")
    monkeypatch.setenv(VARIABLE, f"{first}, {digest(data)}")
    open_room().close()


@pytest.mark.parametrize("named", ["", " ", "abc", "é", "\udcff", "0" * 64])
def test_a_variable_that_names_nothing_allows_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """An empty value is a mistake of whoever set it, and no permission."""
    monkeypatch.setenv(VARIABLE, named)
    with pytest.raises(ConfigurationError):
        load_config(data)


@pytest.mark.parametrize("kind", ["directory", "pipe", "endless", "huge", "nested", "number", "no text"])
def test_a_configuration_that_is_no_such_file_is_refused(data: Path, kind: str) -> None:
    """Whoever can write the directory can neither keep a process waiting nor fill its memory."""
    path = data / CONFIG_NAME
    text = path.read_bytes()
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        more = {
            "huge": b"#" * (1 << 20),
            "nested": b"\n[store]\na = " + b"[" * 100_000,
            "number": b"\n[store]\na = " + b"9" * 5_000,
            "no text": b"\xff",
        }
        path.write_bytes(text + more[kind])
    with pytest.raises(ConfigurationError):
        load_config(data)


def test_a_configuration_that_is_a_link_to_a_file_is_read(data: Path) -> None:
    """As containers mount it."""
    path = data / CONFIG_NAME
    path.rename(data / "elsewhere.toml")
    path.symlink_to("elsewhere.toml")
    load_config(data)


def test_commands_are_held_to_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """doctor names what is wrong, and others stop with the same error."""
    from click.testing import CliRunner

    monkeypatch.setenv(VARIABLE, "0" * 64)
    for command in (["check"], ["keys", "list"], ["doctor"]):
        answer = CliRunner().invoke(cli, ["--data", str(data), *command])
        assert answer.exit_code != 0 and VARIABLE in answer.output + answer.stderr, command
