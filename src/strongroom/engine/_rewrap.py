"""Rotation of master and namespace keys: no record is touched, only what wraps the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from strongroom.engine._rotation import _chosen, _note, name_of
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import ConfigurationError, InvalidInputError
from strongroom.model import Action, Rewrapped, RotationKind

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._core import Engine
    from strongroom.keyring import KeyNote


def rotate_master(call: Call, patterns: Sequence[str], to: Sequence[str], reason: str) -> list[Rewrapped]:
    """Have the master key's present version (or the providers ``to``) wrap namespace keys anew.

    Namespaces are done one after the other; what was done stays done when one fails. With the system
    namespace goes the integrity key of the keyring, so that nothing is left under the former master key.

    Raises:
        KeyManagementError: a key management service refuses or does not answer. InvalidInputError: no such
        provider.
    """
    if isinstance(to, str):
        raise InvalidInputError("providers are named in a list")
    call.reason = "rotate master" + (f": {reason}" if reason else "")
    spaces = _chosen(call, patterns)
    if to:
        call.require(Action.ADMINISTER, None)  # whose keys are where is not for one tenant to say
    out: list[Rewrapped] = []
    for ns in spaces:
        call.refresh_principal()
        try:
            out.append(rewrap_master(call.engine, ns, tuple(to), _note(call, reason)))
        except ConfigurationError as e:
            if not to:
                raise
            raise InvalidInputError(e.message, hint=e.hint) from None
        call.count = len(out)
    return out


def rewrap_master(engine: Engine, ns: int, to: tuple[str, ...], note: KeyNote) -> Rewrapped:
    """One namespace."""
    keyring = engine.vault.keyring
    keys = keyring.rewrap_namespace(ns, names=to or None)
    if ns == SYSTEM_NS:
        keyring.rewrap_integrity(names=to or None)
        keys += 1
    keyring.note("master", "rewrapped", ns, (), note)
    return _told(engine, ns, RotationKind.MASTER, keys)


def rotate_namespace(call: Call, patterns: Sequence[str], reason: str) -> list[Rewrapped]:
    """A new version of each namespace key; the data keys are wrapped anew, the version before is destroyed.

    Raises:
        KeyManagementError: a key management service refuses or does not answer.
    """
    call.reason = "rotate namespace" + (f": {reason}" if reason else "")
    spaces = _chosen(call, patterns)
    out: list[Rewrapped] = []
    for ns in spaces:
        call.refresh_principal()
        out.append(renew_namespace_key(call.engine, ns, _note(call, reason)))
        call.count += out[-1].keys
    return out


def renew_namespace_key(
    engine: Engine, ns: int, note: KeyNote, *, compromised: bool = False, anew: bool = False
) -> Rewrapped:
    """One namespace; goes on with a rotation that was interrupted, when there is one and not ``anew``."""
    keyring = engine.vault.keyring
    if anew or not keyring.versions_left(ns):
        keyring.begin_version(ns, note, compromised=compromised)
    keys = 0
    while count := keyring.rewrap_data_keys(ns):
        keys += count
    keyring.end_versions(ns, note)
    return _told(engine, ns, RotationKind.NAMESPACE, keys)


def _told(engine: Engine, ns: int, kind: RotationKind, keys: int) -> Rewrapped:
    version = max(r.version for r in engine.vault.keyring.list_namespaces(ns))
    return Rewrapped(namespace=name_of(engine, ns), kind=kind, keys=keys, version=version)
