"""An exposed master key: whom it concerns, also after an interruption, and what may take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from strongroom.errors import InvalidInputError, StrongroomError
from strongroom.kms import LOCAL

if TYPE_CHECKING:
    from strongroom.engine._core import Engine
    from strongroom.keyring import KeyNote

_KIND: Final = "master"
_BEGUN: Final = "compromised"
_ENDED: Final = "replaced"


def concerned(engine: Engine, uri: str) -> list[int]:
    """The namespaces that a master key wraps, and those of a response to it that has not come to its end.

    Once a namespace is under another master key nothing in its wraps tells of the exposed one, while its
    data keys may still be those of before: so the history of keys remembers for whom a response was begun.

    Raises:
        InvalidInputError: it wraps nothing, and no response to it is on its way.
    """
    keyring = engine.vault.keyring
    found = {w.ns for w in keyring.wraps() if w.key_uri == uri and w.ns >= 0}
    for number in keyring.master_numbers(uri):
        state: dict[int, str] = {}
        for entry in keyring.history(_KIND, None, number):
            if entry.event.change in (_BEGUN, _ENDED):
                state[entry.event.ns] = entry.event.change
        found |= {ns for ns, change in state.items() if change == _BEGUN}
    found &= set(engine.ledger.namespaces()) | {0}
    if not found:
        raise InvalidInputError(
            "this master key wraps nothing any more",
            hint="older copies of the keyring hold what it wrapped: respond for each namespace in them, "
            "--key namespace:NAME",
        )
    return sorted(found)


def require_replaceable(engine: Engine, uri: str, to: Sequence[str]) -> None:
    """Refuse a response after which new keys would be under the exposed master key again.

    Raises:
        InvalidInputError: ``to`` has to name another provider, or the configuration has to be changed first.
    """
    directory = engine.kms_directory
    for name in to:
        if name not in directory.names:
            raise InvalidInputError(f"no provider has the name {name}", hint="[keys.providers.NAME]")
    if any(recipient.describe().key_uri == uri for recipient in directory.recipients):
        raise InvalidInputError(
            "the configuration has every new key wrapped to this recovery key",
            hint="take it out of [keys] recovery_keys, restart the servers, then again; make another one "
            "afterwards: strongroom escrow init",
        )
    if not uri.startswith(f"{LOCAL}:"):
        return  # a service has a next version of the same key
    if not to:
        raise InvalidInputError(
            "a key file holds one key and has no next version",
            hint="name the provider that shall take its place: --to NAME ([keys.providers.NAME])",
        )
    for name in to:
        if directory.provider(name).describe().key_uri == uri:
            raise InvalidInputError(f"the provider {name} holds the exposed key itself")


def begun(engine: Engine, uri: str, spaces: Sequence[int], note: KeyNote) -> None:
    """Remember for which namespaces a response was begun; before anything else is changed."""
    _note(engine, uri, spaces, _BEGUN, note)


def ended(engine: Engine, uri: str, spaces: Sequence[int], note: KeyNote) -> None:
    """... and that it has come to its end."""
    _note(engine, uri, spaces, _ENDED, note)


def left(engine: Engine, uri: str) -> list[str]:
    """What is left to do, or cannot be undone, after a master key was replaced."""
    found = [
        "the integrity key of the keyring was wrapped by the exposed key: with write access to the keyring's "
        "file rows can be forged with it, not opened"
    ]
    for name in engine.kms_directory.names:
        try:
            info = engine.kms_directory.provider(name).describe()
        except StrongroomError:
            continue  # it wraps nothing now either
        if info.key_uri == uri and uri.startswith(f"{LOCAL}:"):
            found.append(
                f"the configuration still names the exposed key (provider {name}): new namespaces come under "
                "it until it names another one"
            )
    return found


def _note(engine: Engine, uri: str, spaces: Sequence[int], change: str, note: KeyNote) -> None:
    keyring = engine.vault.keyring
    for ns in spaces:
        keyring.note(_KIND, change, ns, keyring.master_numbers(uri), note)
