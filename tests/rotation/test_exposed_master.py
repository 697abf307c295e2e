"""A key file was exposed: everything goes to another provider, and the file is needed no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.rotation.rotated import NS, assert_all_there, fill, states

import strongroom
from strongroom.cli._main import cli
from strongroom.config import (
    CONFIG_NAME,
    Config,
    EmbeddingConfig,
    KeysConfig,
    RotationConfig,
    load_config,
    to_toml,
)
from strongroom.engine import Room
from strongroom.errors import InvalidInputError, UnauthenticatedError
from strongroom.keyring import KeyState
from strongroom.lifecycle.response import verify_report

OTHER = "b/other"
SECOND = KeysConfig(key_file="second.key")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store with a key file of its own and a second one beside it."""
    config = Config(
        embedding=EmbeddingConfig(provider="none", dimensions=4),
        rotation=RotationConfig(worker=False, lease_ms=300, batch_rows=50),
        key_providers={"second": SECOND},
    )
    strongroom.init(tmp_path / "data", config=config)
    made = CliRunner().invoke(cli, ["--data", str(tmp_path / "data"), "kms", "create", "second"])
    assert made.exit_code == 0, made.output
    return tmp_path / "data"


@pytest.fixture
def room(place: Path) -> Iterator[Room]:
    with strongroom.open(place, worker=False, debug=True) as found:
        yield found


def test_everything_goes_to_another_provider(room: Room, place: Path) -> None:
    """No wrap, key or record is under the exposed master key; the store opens without its file."""
    wanted = fill(room, 24)
    others = fill(room, 8, OTHER)
    _, text = room.keys_create("agent", "read-only", [NS])
    keyring = room.engine.vault.keyring
    before = {k for k, state in states(room).items() if state != KeyState.DESTROYED}
    (master,) = [k.id for k in room.keyring_list() if k.kind == "master"]
    uri = master.partition(":")[2]
    assert {w.key_uri for w in keyring.wraps()} == {uri}
    report = room.respond_key_compromise(master, to=["second"], reason="the disk was stolen")
    assert report.coverage["namespaces"] == 3 and report.coverage["purpose_roots_renewed"] == 3
    assert report.coverage["records_under_exposed_keys"] == 0
    assert report.coverage["records_opened"] >= report.coverage["records"] > 32
    verify_report(report.document, room.respond_keys())
    assert any("new namespaces" in text for text in report.left)
    assert uri not in {w.key_uri for w in keyring.wraps()}  # the integrity key's among them
    alive = {k for k in before if states(room)[k] != KeyState.DESTROYED}
    audit = {int(k.id[5:]) for k in room.keyring_list(["@system"]) if k.role == "audit log"}
    assert alive <= audit
    with pytest.raises(UnauthenticatedError):
        room.engine.authenticate(text)
    assert_all_there(room, wanted)
    room.close()
    (place.with_name("data.keys") / "master.key").rename(place.with_name("taken away"))
    config = replace(load_config(place), keys=SECOND, key_providers={})  # as the report says
    (place / CONFIG_NAME).write_text(to_toml(config))
    with strongroom.open(place, worker=False, debug=True) as again:
        assert_all_there(again, wanted)
        assert_all_there(again, others, OTHER)


def test_a_provider_that_is_not_configured_is_refused_before_anything_changes(room: Room) -> None:
    """Nothing was revoked, wrapped or begun."""
    wanted = fill(room, 8)
    (master,) = [k.id for k in room.keyring_list() if k.kind == "master"]
    before = states(room)
    with pytest.raises(InvalidInputError):
        room.respond_key_compromise(master, to=["nowhere"])
    assert states(room) == before and room.rotation_status() == []
    assert_all_there(room, wanted)
