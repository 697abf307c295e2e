"""Rotation of master and namespace keys: no record is touched, only what wraps the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from strongroom.engine._rotation import _chosen, _note, name_of
from strongroom.engine._unused_keys import unused_keys
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import ConfigurationError, InvalidInputError, KeyManagementError, StrongroomError
from strongroom.model import Action, Rewrapped, RotationKind

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._core import Engine
    from strongroom.keyring import KeyNote


def rotate_master(call: Call, patterns: Sequence[str], to: Sequence[str], reason: str) -> list[Rewrapped]:
    """Have the master key's present version (or the providers ``to``) wrap namespace keys anew.

    Namespaces are done one after the other, those after one that fails as well. With the system namespace
    goes the integrity key of the keyring, so that nothing is left under the former master key.

    Raises:
        KeyManagementError: a key management service refuses or does not answer. InvalidInputError: no such
        provider.
    """
    if isinstance(to, str):
        raise InvalidInputError("providers are named in a list")
    call.reason = "rotate master" + (f": {reason}" if reason else "")
    spaces = _wrapped(call, patterns)
    if to:
        call.require(Action.ADMINISTER, None)  # whose keys are where is not for one tenant to say

    def rewrap(ns: int) -> Rewrapped:
        try:
            return rewrap_master(call.engine, ns, tuple(to), _note(call, reason))
        except ConfigurationError as e:
            if not to:
                raise
            raise InvalidInputError(e.message, hint=e.hint) from None

    return _each(call, spaces, rewrap)


def _wrapped(call: Call, patterns: Sequence[str]) -> list[int]:
    """As ``_chosen``; with all namespaces also those of which there are keys alone, so that no wrap is left
    behind under a master key that is about to go."""
    spaces = _chosen(call, patterns)
    return sorted({*spaces, *unused_keys(call.engine)}) if "*" in patterns else spaces


def _each(call: Call, spaces: Sequence[int], act: Callable[[int], Rewrapped]) -> list[Rewrapped]:
    """One namespace after the other. Where the service of one tenant fails the others are done all the same.

    Raises:
        KeyManagementError, ConfigurationError: the first of those that failed, when the last was tried.
    """
    out: list[Rewrapped] = []
    failed: list[KeyManagementError | ConfigurationError] = []
    for ns in spaces:
        call.refresh_principal()
        try:
            out.append(act(ns))
        except (KeyManagementError, ConfigurationError) as e:
            failed.append(e)
        except StrongroomError:
            call.done = f"{len(out)} of {len(spaces)} namespaces are done, one more perhaps; repeat it"
            raise
        call.count = len(out)
        call.done = f"{len(out)} of {len(spaces)} namespaces are done" if out else ""
    if failed:
        raise failed[0]
    return out


def rewrap_master(engine: Engine, ns: int, to: tuple[str, ...], note: KeyNote) -> Rewrapped:
    """One namespace."""
    keyring = engine.vault.keyring
    if ns == SYSTEM_NS:
        keyring.rewrap_integrity(names=to or None)
    keys = keyring.rewrap_namespace(ns, names=to or None, note=note) + (ns == SYSTEM_NS)
    return _told(engine, ns, RotationKind.MASTER, keys)


def rotate_namespace(call: Call, patterns: Sequence[str], reason: str) -> list[Rewrapped]:
    """A new version of each namespace key; the data keys are wrapped anew, the version before is destroyed.

    Raises:
        KeyManagementError: a key management service refuses or does not answer.
    """
    call.reason = "rotate namespace" + (f": {reason}" if reason else "")
    spaces, note = _wrapped(call, patterns), _note(call, reason)
    with ending_versions(call.engine, note) as begun:

        def renew(ns: int) -> Rewrapped:
            begun.append(ns)
            return renew_namespace_key(call.engine, ns, note)

        out = _each(call, spaces, renew)
    call.count = sum(done.keys for done in out)
    return out


@contextmanager
def ending_versions(engine: Engine, note: KeyNote) -> Iterator[list[int]]:
    """Collect namespaces whose keys are renewed, and destroy what their keys were before at the end.

    That writes the file of the keyring anew, so once for all, also when one of them fails. Killed before,
    both versions stay, the older one opens nothing that is needed, and the next rotation ends it.
    """
    begun: list[int] = []
    try:
        yield begun
    except BaseException:
        with suppress(StrongroomError):  # what went wrong is told; what is left here, the next rotation ends
            engine.vault.keyring.end_versions(begun, note)
        raise
    engine.vault.keyring.end_versions(begun, note)


def renew_namespace_key(
    engine: Engine, ns: int, note: KeyNote, *, compromised: bool = False, anew: bool = False
) -> Rewrapped:
    """One namespace, inside ``ending_versions``; goes on with a rotation that was interrupted, when there is
    one and not ``anew``."""
    keyring, keys = engine.vault.keyring, 0
    if anew or not keyring.versions_left(ns):
        keys = keyring.renew_version(ns, note, compromised=compromised)
    while count := keyring.rewrap_data_keys(ns):
        keys += count
    return _told(engine, ns, RotationKind.NAMESPACE, keys)


def _told(engine: Engine, ns: int, kind: RotationKind, keys: int) -> Rewrapped:
    version = max(r.version for r in engine.vault.keyring.list_namespaces(ns))
    return Rewrapped(namespace=name_of(engine, ns), kind=kind, keys=keys, version=version)
