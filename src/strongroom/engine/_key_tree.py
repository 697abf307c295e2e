"""The tree of encryption keys for operators: what there is, in which state, how old and how used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from strongroom import crypto
from strongroom.engine._rotation import _chosen, _note, name_of
from strongroom.engine._vault import AUDIT_KEY_NAME, SYSTEM_NS
from strongroom.errors import InvalidInputError, KeyStateError
from strongroom.keyring import FORMER, ROOT, KeyRecord, KeyState, NamespaceKeyRecord, WrapRecord
from strongroom.model import EncryptionKey, EncryptionKeyState, KeyChange, KeyKind

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._core import Engine

STATES: Final = {
    KeyState.ACTIVE: EncryptionKeyState.ACTIVE,
    KeyState.DECRYPT_ONLY: EncryptionKeyState.DECRYPT_ONLY,
    KeyState.DISABLED: EncryptionKeyState.DISABLED,
    KeyState.COMPROMISED: EncryptionKeyState.COMPROMISED,
    KeyState.DESTROYED: EncryptionKeyState.DESTROYED,
}
_MASTER = "master:"


def keys_of(engine: Engine, spaces: Sequence[int], *, destroyed: bool) -> list[EncryptionKey]:
    """Masters first, then namespace by namespace its keys and data keys, oldest first."""
    keyring = engine.vault.keyring
    wanted = set(spaces)
    wraps: dict[tuple[int, int], list[WrapRecord]] = defaultdict(list)
    for wrap in keyring.wraps():
        if wrap.ns in wanted:
            wraps[wrap.ns, wrap.version].append(wrap)
    out = _masters([wrap for of_version in wraps.values() for wrap in of_version])
    versions: dict[int, list[NamespaceKeyRecord]] = defaultdict(list)
    for version in keyring.list_namespaces():
        versions[version.ns].append(version)
    for ns in sorted(wanted):
        of_ns = versions[ns]
        if not of_ns:
            continue  # the keyring is older than the namespace
        out += [_namespace_key(engine, r, wraps[r.ns, r.version]) for r in of_ns]
        newest = max((r.version for r in of_ns), default=1)
        wrapped_by = keyring.wrapping_versions(ns)
        root = keyring.root_key_id(ns)
        audit = set(keyring.key_ids_of(SYSTEM_NS, AUDIT_KEY_NAME)) if ns == SYSTEM_NS else set()
        for record in keyring.list_keys(ns):
            role = _role(record, root, audit)
            out.append(_data_key(engine, record, wrapped_by.get(record.key_id, newest), role))
    return [k for k in out if destroyed or k.state != EncryptionKeyState.DESTROYED]


def _role(record: KeyRecord, root: int, audit: set[int]) -> str:
    if record.key_id == root:
        return "purpose root"
    if record.subject in (ROOT, FORMER):
        return "former purpose root" if record.subject == ROOT else "former blinding"
    return "audit log" if record.key_id in audit else ""


def _masters(wraps: Sequence[WrapRecord]) -> list[EncryptionKey]:
    first: dict[tuple[str, str], datetime] = {}
    for w in wraps:
        known = first.get((w.provider, w.key_uri))
        first[w.provider, w.key_uri] = w.created_at if known is None else min(known, w.created_at)
    return [
        EncryptionKey(
            id=f"{_MASTER}{uri}",
            kind=KeyKind.MASTER,
            state=EncryptionKeyState.ACTIVE,
            namespace="",
            parents=(),
            created_at=at,
            provider=provider,
        )
        for (provider, uri), at in sorted(first.items())
    ]


def _namespace_key(engine: Engine, r: NamespaceKeyRecord, wraps: Sequence[WrapRecord]) -> EncryptionKey:
    mine = sorted(wraps, key=lambda w: w.place)
    return EncryptionKey(
        id=f"namespace:{r.ns}/{r.version}",
        kind=KeyKind.NAMESPACE,
        state=STATES[r.state],
        namespace=name_of(engine, r.ns),
        parents=tuple(f"{_MASTER}{w.key_uri}" for w in mine),
        created_at=r.created_at,
        epoch=r.version,
        overdue=r.state == KeyState.ACTIVE
        and _past(engine, r.created_at, engine.config.rotation.namespace_days),
    )


def _data_key(engine: Engine, r: KeyRecord, version: int, role: str) -> EncryptionKey:
    config = engine.config.rotation
    suite = crypto.suite_by_number(engine.vault.keyring.suite_of_key(r.ns, r.key_id))
    used_up = bool(config.data_uses_max) and r.uses >= config.data_uses_max
    return EncryptionKey(
        id=f"data:{r.key_id}",
        kind=KeyKind.DATA,
        state=STATES[r.state],
        namespace=name_of(engine, r.ns),
        parents=(f"namespace:{r.ns}/{version}",),
        created_at=r.created_at,
        suite=suite.name,
        epoch=r.epoch,
        uses=r.uses,
        limit=suite.max_uses,
        role=role,
        subject=r.subject is not None and not role,
        overdue=r.state == KeyState.ACTIVE
        and r.subject != ROOT
        and (used_up or _past(engine, r.created_at, config.data_days)),
    )


def _past(engine: Engine, made: datetime, days: int) -> bool:
    return days > 0 and engine.now() - made >= timedelta(days=days)


# -- operations ---------------------------------------------------------------------------------------
def keyring_list(call: Call, patterns: Sequence[str], destroyed: bool) -> list[EncryptionKey]:
    call.reason = "list encryption keys"
    found = keys_of(call.engine, _chosen(call, patterns), destroyed=destroyed)
    call.count = len(found)
    return found


def keyring_history(call: Call, key: str | None, patterns: Sequence[str]) -> list[KeyChange]:
    """What happened to keys; with ``key`` to that one.

    Raises:
        InvalidInputError: it does not name a key.
    """
    call.reason = "history of encryption keys"
    engine = call.engine
    spaces = set(_chosen(call, patterns))
    kind, ns, number = (None, None, None) if key is None else parse_key(engine, key)
    if ns is not None and ns not in spaces:
        _chosen(call, [name_of(engine, ns)])
        spaces.add(ns)
    entries = engine.vault.keyring.history(None if kind is None else kind.value, ns, number)
    out = [
        KeyChange(
            at=e.at,
            kind=KeyKind(e.event.kind),
            change=e.event.change,
            namespace=name_of(engine, e.event.ns),
            keys=" ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in e.event.keys),
            actor=e.event.actor,
            reason=e.event.reason,
            request_id=e.event.request_id,
        )
        for e in entries
        if e.event.ns in spaces
    ]
    call.count = len(out)
    return out


def parse_key(engine: Engine, key: str) -> tuple[KeyKind, int | None, int | None]:
    """``master:URI``, ``namespace:NAME``, ``namespace:NS/VERSION``, ``data:N``: kind, namespace, number.

    Raises:
        InvalidInputError: it does not name a key of this store.
    """
    kind, _, rest = key.partition(":") if isinstance(key, str) else ("", "", "")
    keyring = engine.vault.keyring
    if kind == "data" and rest.isascii() and rest.isdecimal() and len(rest) < 11:
        for record in keyring.list_keys():
            if record.key_id == int(rest):
                return KeyKind.DATA, record.ns, record.key_id
    elif kind == "namespace" and rest:
        left, _, version = rest.partition("/")
        known = keyring.list_namespaces()
        if rest in {f"{r.ns}/{r.version}" for r in known}:
            return KeyKind.NAMESPACE, int(left), int(version)
        engine.registry.refresh()
        versions = [(r.ns, r.version) for r in known if name_of(engine, r.ns) == rest]
        if versions:
            return KeyKind.NAMESPACE, *max(versions)
    elif kind == "master" and keyring.master_numbers(rest):
        return KeyKind.MASTER, None, None
    raise InvalidInputError(
        "this names no key of the store",
        hint="master:URI, namespace:NAME or data:N; see: strongroom keyring list",
    )


def keyring_set(call: Call, key: str, enabled: bool, reason: str) -> EncryptionKey:
    """Disable a data key that only opens, or enable it again.

    Raises:
        InvalidInputError: it is no data key. KeyStateError: not from its present state.
    """
    engine = call.engine
    kind, ns, number = parse_key(engine, key)
    if kind != KeyKind.DATA or ns is None or number is None:
        raise InvalidInputError(
            "only data keys are disabled here", hint="disable a master key at its service"
        )
    _chosen(call, [name_of(engine, ns)])
    call.reason = f"{'enable' if enabled else 'disable'} {key}" + (f": {reason}" if reason else "")
    if not enabled and number == engine.vault.keyring.root_key_id(ns):
        raise KeyStateError(
            "the purpose root is needed to write anything to the namespace",
            hint="after a compromise: strongroom respond key-compromise",
        )
    if not enabled and number in engine.vault.keyring.key_ids_of(ns, FORMER):
        raise KeyStateError(
            "the key is needed to find every data subject of the namespace",
            hint="alone it confirms no guess of a subject: it may stay",
        )
    state = KeyState.DECRYPT_ONLY if enabled else KeyState.DISABLED
    engine.vault.keyring.set_state(number, state, _note(call, reason))
    call.done = f"the key is {'enabled' if enabled else 'disabled'}"
    return next(k for k in keys_of(engine, [ns], destroyed=True) if k.id == f"data:{number}")
