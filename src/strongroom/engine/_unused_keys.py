"""Keys of namespaces that are not in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from strongroom.errors import UnwrapError
from strongroom.keyring import KeyState
from strongroom.model import Finding, Severity

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_BEING_MADE: Final = timedelta(minutes=1)  # younger ones may be those of a namespace that is being made


def unused_keys(engine: Engine) -> dict[int, bool]:
    """Namespaces that have keys and are not in the ledger: number -> whether for longer than a minute.

    One whose row was altered counts as young: it is the keyring's own check that tells of it.

    Raises:
        StorageError, ClosedError.
    """
    keyring, now = engine.vault.keyring, engine.now()
    known = keyring.namespaces_with_keys()
    there = set(engine.ledger.namespaces())
    found: dict[int, bool] = {}
    for ns in known:
        if ns in there:
            continue
        try:
            active = [r for r in keyring.list_namespaces(ns) if r.state == KeyState.ACTIVE]
        except UnwrapError:
            found[ns] = False
            continue
        if active:
            found[ns] = now - active[-1].created_at > _BEING_MADE
    return found


def unused_findings(engine: Engine) -> Sequence[Finding]:
    """What ``check`` tells of them; nothing is wrong with the store."""
    count = sum(unused_keys(engine).values())
    if not count:
        return ()
    text = f"keys of {count} namespaces that are not in the ledger"
    hint = "they open nothing here; were the data restored from a backup, a newer one may need them"
    return (Finding(Severity.INFO, "keys_unused", text, "keyring", hint),)
