"""Keys of namespaces that are not in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from strongroom.keyring import KeyState
from strongroom.model import Finding, Severity

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_BEING_MADE: Final = timedelta(minutes=1)  # younger ones may be those of a namespace that is being made


def unused_keys(engine: Engine) -> dict[int, bool]:
    """Namespaces that have keys and are not in the ledger: number -> whether for longer than a minute.

    Raises:
        UnwrapError, StorageError, ClosedError.
    """
    records = [r for r in engine.vault.keyring.list_namespaces() if r.state == KeyState.ACTIVE]
    there, now = set(engine.ledger.namespaces()), engine.now()
    return {r.ns: now - r.created_at > _BEING_MADE for r in records if r.ns not in there}


def unused_findings(engine: Engine) -> Sequence[Finding]:
    """What ``check`` tells of them; nothing is wrong with the store."""
    count = sum(unused_keys(engine).values())
    if not count:
        return ()
    text = f"keys of {count} namespaces that are not in the ledger"
    hint = "they open nothing here; were the data restored from a backup, a newer one may need them"
    return (Finding(Severity.INFO, "keys_unused", text, "keyring", hint),)
