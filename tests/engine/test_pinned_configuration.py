"""A configuration file that somebody else wrote is not used, where the environment says which may be."""

from __future__ import annotations

import hashlib
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


@pytest.mark.parametrize("named", ["", " ", "abc", "é", "0" * 64])
def test_a_variable_that_names_nothing_allows_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """An empty value is a mistake of whoever set it, and no permission."""
    monkeypatch.setenv(VARIABLE, named)
    with pytest.raises(ConfigurationError):
        load_config(data)


def test_commands_are_held_to_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """doctor names what is wrong, and others stop with the same error."""
    from click.testing import CliRunner

    monkeypatch.setenv(VARIABLE, "0" * 64)
    for command in (["check"], ["keys", "list"], ["doctor"]):
        answer = CliRunner().invoke(cli, ["--data", str(data), *command])
        assert answer.exit_code != 0 and VARIABLE in answer.output + answer.stderr, command
