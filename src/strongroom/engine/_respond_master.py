"""An exposed master key: whom it concerns, also after an interruption, and what may take its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from strongroom.errors import InvalidInputError, StrongroomError
from strongroom.keyring import Noted
from strongroom.kms import LOCAL

if TYPE_CHECKING:
    from strongroom.engine._core import Engine
    from strongroom.keyring import KeyNote

_KIND: Final = "master"
_BEGUN: Final = "compromised"
_DONE: Final = "namespace done"
_ENDED: Final = "replaced"
_GOES_ON: Final = timedelta(hours=24)


@dataclass(slots=True)
class Standing:
    """How far a response to a master key is, by namespaces.

    ``spaces``: whom it concerns; ``begun``: of these, for whom it is on its way since less than a day;
    ``renewed``: of these, those that have their new namespace key; ``done``: of these, those in which
    nothing is left to do.
    """

    spaces: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)
    renewed: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)


def is_about(reason: str, key: str) -> bool:
    """Whether a reason in the history of keys is that of a response to this key."""
    mine = f"compromise of {key}"
    return reason == mine or reason.startswith(f"{mine}: ")


def standing(engine: Engine, uri: str) -> Standing:
    """The namespaces that a master key wraps, and those of a response to it that has not come to its end.

    Once a namespace is under another master key nothing in its wraps tells of the exposed one, while its
    data keys may still be those of before: so the history of keys remembers for whom a response was begun,
    and how far it has come. What was begun more than a day ago is done from the beginning: the key may have
    been exposed once more since.

    Raises:
        InvalidInputError: it wraps nothing, and no response to it is on its way.
    """
    keyring = engine.vault.keyring
    wrapped = {w.ns for w in keyring.wraps() if w.key_uri == uri and w.ns >= 0}
    numbers, now = keyring.master_numbers(uri), datetime.now(UTC)
    found, pending = Standing(), set[int]()
    for entry in keyring.history() if numbers else ():
        event, ns = entry.event, entry.event.ns
        if event.kind == "namespace":
            if event.change == "rotated" and ns in found.begun and is_about(event.reason, f"master:{uri}"):
                found.renewed.add(ns)
        elif any(entry.concerns(_KIND, None, number) for number in numbers):
            if event.change in (_BEGUN, _ENDED):
                for states in (pending, found.begun, found.renewed, found.done):
                    states.discard(ns)
            if event.change == _BEGUN:
                pending.add(ns)
                if timedelta(0) <= now - entry.at <= _GOES_ON:
                    found.begun.add(ns)
            elif event.change == _DONE and ns in found.begun:
                found.done.add(ns)
    spaces = (wrapped | pending) & (set(engine.ledger.namespaces()) | {0})
    if not spaces:
        raise InvalidInputError(
            "this master key wraps nothing any more",
            hint="older copies of the keyring hold what it wrapped: respond for each namespace in them, "
            "--key namespace:NAME",
        )
    for states in (found.begun, found.renewed, found.done):
        states.intersection_update(spaces)
    found.spaces = sorted(spaces)
    return found


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


def done(engine: Engine, uri: str) -> Noted:
    """... that nothing is left to do in a namespace, which goes with the last step there ..."""
    return Noted(_KIND, _DONE, engine.vault.keyring.master_numbers(uri))


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
    keyring.note_each(_KIND, change, spaces, keyring.master_numbers(uri), note)
