"""The tree of encryption keys: what it shows, its history, states by hand, the drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from tests.rotation.rotated import NS, fill, keys_in_use

from strongroom.cli._key_graph import svg, tree_lines
from strongroom.engine import Room
from strongroom.errors import AccessDeniedError, InvalidInputError, KeyStateError
from strongroom.model import EncryptionKeyState, KeyKind


def test_the_tree_leads_from_master_to_data_keys(room: Room) -> None:
    """Every key has its parents in the tree; states, uses, suites and roles are there; no key bytes."""
    fill(room, 16)
    (rotation,) = room.rotate("data", namespaces=[NS])
    keys = room.keyring_list()
    known = {k.id for k in keys}
    assert all(set(k.parents) <= known for k in keys)
    assert {k.kind for k in keys} == set(KeyKind)
    mine = [k for k in keys if k.namespace == NS and k.kind == KeyKind.DATA]
    assert {k.state for k in mine} == {EncryptionKeyState.ACTIVE, EncryptionKeyState.DECRYPT_ONLY}
    assert [k.role for k in mine if k.role] == ["purpose root"]
    assert sum(k.uses or 0 for k in mine) > 32 and {k.suite for k in mine} == {"AES-256-GCM"}
    room.rotation_finalise(rotation.id)
    gone = [k for k in room.keyring_list([NS], destroyed=True) if k.state == EncryptionKeyState.DESTROYED]
    assert len(gone) == 7 and not {k.id for k in gone} & {k.id for k in room.keyring_list([NS])}


def test_the_history_of_one_key(room: Room) -> None:
    """A key's history names each change with actor and reason, and only its own."""
    fill(room, 16)
    victim = max(keys_in_use(room))
    (rotation,) = room.rotate("data", namespaces=[NS], reason="yearly")
    room.keyring_disable(f"data:{victim}", reason="looks odd")
    room.keyring_enable(f"data:{victim}")
    room.rotation_finalise(rotation.id)
    changes = room.keyring_history(f"data:{victim}")
    assert [c.change for c in changes] == ["rotated", "disabled", "enabled", "destroyed"]
    assert changes[1].reason == "looks odd" and changes[1].actor == "owner"
    other = min(keys_in_use(room))
    assert [c.change for c in room.keyring_history(f"data:{other}")] == ["rotated"]
    room.rotate_namespace(namespaces=[NS])
    assert [c.change for c in room.keyring_history(f"namespace:{NS}")] == ["rotated"]


def test_states_by_hand(room: Room) -> None:
    """Only a key that just opens can be suspended; the purpose root and an active key cannot."""
    fill(room, 8)
    active = max(keys_in_use(room))
    with pytest.raises(KeyStateError):
        room.keyring_disable(f"data:{active}")
    (rotation,) = room.rotate("data", namespaces=[NS])
    (root,) = [k for k in room.keyring_list([NS]) if k.role]
    with pytest.raises(KeyStateError):
        room.keyring_disable(root.id)
    for wrong in ("data:999999", "data:x", "namespace:no/such", "master:elsewhere", "", "data:-1"):
        with pytest.raises(InvalidInputError):
            room.keyring_disable(wrong)
    assert room.keyring_disable(f"data:{active}").state == EncryptionKeyState.DISABLED
    room.rotation_finalise(rotation.id)


def test_who_may_look(room: Room) -> None:
    """The keys of a namespace are shown to its administrators alone."""
    fill(room, 2)
    _, text = room.keys_create("a", "admin", [NS])
    _, other = room.keys_create("b", "admin", ["b/*"])
    assert room.engine.authenticate(text).keyring_list([NS])
    with pytest.raises(AccessDeniedError):
        room.engine.authenticate(other).keyring_list([NS])
    with pytest.raises(AccessDeniedError):
        room.engine.authenticate(text).keyring_history(namespaces=["*"])


def test_the_drawing(room: Room) -> None:
    """The terminal tree names every master and namespace key; the SVG is well-formed and escaped."""
    fill(room, 40)
    room.store("odd name", namespace="a/c")
    keys = room.keyring_list()
    lines = tree_lines(keys)
    assert lines[0].startswith("master:local:")
    assert any("namespace:1/1" in line and line.startswith("├── ") for line in lines)
    assert any("purpose root" in line for line in lines)
    drawn = ElementTree.fromstring(svg(keys))
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}g")) == len(lines)
