"""Which keys are due by age or use, after ``[rotation]``; what is due is begun, never finalised."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from strongroom.engine import _rewrap
from strongroom.engine._unused_keys import unused_keys
from strongroom.errors import ConflictError, StrongroomError
from strongroom.keyring import ROOT, KeyNote, KeyState

if TYPE_CHECKING:
    from strongroom.engine._core import Engine
    from strongroom.lifecycle.rotation import Waves

AUTOMATIC: Final = KeyNote("rotation", "by policy")
_AGE_OF_NAMESPACE_KEY: Final = KeyNote("rotation", "by policy: age of the namespace key")


def apply(engine: Engine, waves: Waves) -> None:
    """Rotate what is due. One namespace that fails does not keep the others from theirs."""
    engine.registry.refresh()
    try:
        with _rewrap.ending_versions(engine, _AGE_OF_NAMESPACE_KEY) as begun:
            unused = set(unused_keys(engine))  # they are kept in step: no wrap stays under an old master key
            for ns in sorted({*engine.ledger.namespaces(), *unused}):
                _apply_to(engine, ns, None if ns in unused else waves, begun)
    except StrongroomError as e:  # its file could not be read, or written anew: the next turn goes on
        engine.log.warning("rotation_interrupted", code=e.code)


def _apply_to(engine: Engine, ns: int, waves: Waves | None, begun: list[int]) -> None:
    try:
        _master(engine, ns)
        _namespace(engine, ns, begun)
        if waves is not None:
            _data(engine, ns, waves)
    except ConflictError:
        return  # one is on its way
    except StrongroomError as e:
        engine.log.warning("rotation_not_begun", ns=ns, code=e.code)


def _is_due(engine: Engine, made: datetime, days: int) -> bool:
    return days > 0 and engine.now() - made >= timedelta(days=days)


def _master(engine: Engine, ns: int) -> None:
    keyring = engine.vault.keyring
    made = [wrap.created_at for wrap in keyring.wraps(ns)]
    if made and _is_due(engine, min(made), engine.config.rotation.master_days):
        _rewrap.rewrap_master(engine, ns, (), KeyNote("rotation", "by policy: age of the wraps"))


def _namespace(engine: Engine, ns: int, begun: list[int]) -> None:
    keyring = engine.vault.keyring
    active = [r for r in keyring.list_namespaces(ns) if r.state == KeyState.ACTIVE]
    due = any(_is_due(engine, r.created_at, engine.config.rotation.namespace_days) for r in active)
    if due or keyring.versions_left(ns):
        begun.append(ns)
        _rewrap.renew_namespace_key(engine, ns, _AGE_OF_NAMESPACE_KEY)


def _data(engine: Engine, ns: int, waves: Waves) -> None:
    config = engine.config.rotation
    if engine.ledger.waves(ns):
        return
    keys = engine.vault.keyring.list_keys(ns)
    active = [k for k in keys if k.state == KeyState.ACTIVE and k.subject != ROOT]  # a root seals nothing
    old = [k for k in active if _is_due(engine, k.created_at, config.data_days)]
    used = [k for k in active if config.data_uses_max and k.uses >= config.data_uses_max]
    if not (old or used):
        return
    why = f"age of {len(old)} data keys" if old else f"uses of data key {used[0].key_id}"
    note = KeyNote("rotation", f"by policy: {why}")
    told = engine.rotations.host.telling(f"begun by policy: {why}", 0)
    waves.begin(ns, "data", note, key_id=None if old else used[0].key_id, tell=lambda change: change(told))
