"""Namespaces, API keys, the queue, statistics, the audit log: what operators ask for."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING
from uuid import UUID

from strongroom import access, audit
from strongroom.access import Credential
from strongroom.crypto import SecretKey
from strongroom.engine._call import Call
from strongroom.engine._counts import Counts, counts, queue_pages
from strongroom.engine._decide import decide_by_policy, refused_below
from strongroom.engine._payload import from_us
from strongroom.engine._read import chosen_namespaces
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._scram import make_verifier
from strongroom.engine._validate import check_count, check_number, check_text, check_time
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    CredentialNotFoundError,
    InvalidInputError,
    KeyManagementError,
    NamespaceNotFoundError,
    OperationTimeoutError,
    StrongroomError,
)
from strongroom.kms import DEFAULT, names_for
from strongroom.model import (
    Action,
    ApiKeyInfo,
    AuditEntry,
    Authentication,
    Decision,
    KeyAttributes,
    NamespaceInfo,
    NamespaceKms,
    NamespacePattern,
    PrincipalKind,
    QueueEntry,
    Scope,
    StoreOverview,
    StoreStats,
    check_namespace,
)
from strongroom.policy import ROOT

if TYPE_CHECKING:
    from strongroom.engine._core import Engine
    from strongroom.ledger import QueueItem

_FLUSH_POLL_S = 0.02
_FLUSH_LOOK_S = 0.5
_QUEUE_PAGE = 5000


def flush(call: Call, timeout_s: float) -> None:
    """Wait for what is queued now; what others store meanwhile does not hold the caller up."""
    engine = call.engine
    limit = check_number(timeout_s, "timeout_s", 0.0, 86_400.0)
    entries = chosen_namespaces(call, Action.STATS, ("*",))
    deadline = time.monotonic() + limit
    # A model that the configuration has changed takes its namespaces over first: they are queued by that.
    entries = [engine.models.current(e) for e in entries if engine.models.embeds(e)]
    engine.models.wake()
    engine.indexes.wait_verified(limit)  # it finds memories whose vector was lost
    wanted = _pending(engine, entries)
    look_again = time.monotonic() + _FLUSH_LOOK_S
    while wanted:
        left = deadline - time.monotonic()
        engine.models.wait_idle(max(0.0, min(left, _FLUSH_LOOK_S)))
        if not any(engine.ledger.queue_stats(e.ns).pending for e in entries):
            return
        if time.monotonic() >= look_again:
            wanted &= _pending(engine, entries)
            look_again = time.monotonic() + _FLUSH_LOOK_S
        elif left <= 0:
            raise OperationTimeoutError(
                f"memories still wait for their embedding after {limit:g} s",
                hint="look at: strongroom queue; they stay queued and will be embedded",
            )
        time.sleep(_FLUSH_POLL_S)


def _pending(engine: Engine, entries: Sequence[NamespaceEntry]) -> set[QueueItem]:
    """What waits for an embedding in these namespaces."""
    found: set[QueueItem] = set()
    for entry in entries:
        after = 0
        while page := engine.ledger.queue(ns=entry.ns, dead=False, after=after, limit=_QUEUE_PAGE):
            found.update(row.item for row in page)
            after = page[-1].id
    return found


def stats(call: Call, patterns: Sequence[str]) -> StoreStats:
    return _summed([_counted(call, e) for e in chosen_namespaces(call, Action.STATS, patterns)])


def overview(call: Call, patterns: Sequence[str]) -> StoreOverview:
    """Caller, sums and namespaces from one count."""
    entries = sorted(chosen_namespaces(call, Action.STATS, patterns), key=lambda e: e.name)
    counted = [_counted(call, entry) for entry in entries]
    infos = [_noun(entry, *found) for entry, found in zip(entries, counted, strict=True)]
    return StoreOverview(caller=call.principal, stats=_summed(counted), namespaces=tuple(infos))


def _summed(counted: Sequence[tuple[Counts, str | None]]) -> StoreStats:
    memories = embedded = pending = dead = unavailable = 0
    for known, reason in counted:
        unavailable += reason is not None
        memories += known.memories
        embedded += known.embedded
        pending += known.pending
        dead += known.dead
    return StoreStats(
        memories=memories,
        embedded=embedded,
        pending=pending,
        dead=dead,
        namespaces=len(counted),
        unavailable=unavailable,
    )


def _counted(call: Call, entry: NamespaceEntry) -> tuple[Counts, str | None]:
    """What is within reach, and the code of the reason when the namespace's keys cannot be had."""
    try:
        return counts(call, entry), None
    except KeyManagementError as e:
        if entry.ns in call.reaches:
            return Counts(0, 0, 0, 0), e.code
        queue = call.engine.ledger.queue_stats(entry.ns)
        return Counts(0, 0, queue.pending, queue.dead), e.code


def _info(call: Call, entry: NamespaceEntry, *, lenient: bool = False) -> NamespaceInfo:
    """What a namespace is; ``lenient``: also when its keys cannot be had, with the code of the reason."""
    return _noun(entry, *(_counted(call, entry) if lenient else (counts(call, entry), None)))


def _noun(entry: NamespaceEntry, known: Counts, unavailable: str | None) -> NamespaceInfo:
    return NamespaceInfo(
        name=entry.name,
        created_at=from_us(entry.created_us),
        memories=known.memories,
        embedded=known.embedded,
        pending=known.pending,
        model=entry.model,
        language=entry.language,
        sealed_in_memory=entry.sealed,
        unavailable=unavailable,
    )


def namespaces(call: Call) -> Sequence[NamespaceInfo]:
    return [_info(call, entry, lenient=True) for entry in chosen_namespaces(call, Action.STATS, ("*",))]


def kms_status(call: Call) -> Sequence[NamespaceKms]:
    """Who holds the keys of each namespace that the caller administers, and how that is going."""
    engine = call.engine
    keyring = engine.vault.keyring
    health = {h.ns: h for h in keyring.health()}
    out: list[NamespaceKms] = []
    for entry in chosen_namespaces(call, Action.ADMINISTER, ("*",)):
        found = health.get(entry.ns)
        try:
            providers = keyring.wrapped_by(entry.ns)
        except KeyManagementError:
            providers = ()
        wraps = keyring.wraps(entry.ns)
        newest = max((w.version for w in wraps), default=0)
        out.append(
            NamespaceKms(
                namespace=entry.name,
                pseudonym=engine.key_health.pseudonym(entry.tenant),
                providers=providers,
                master_keys=tuple(w.key_uri for w in wraps if w.version == newest),
                state="unused" if found is None else found.state.value,
                age_s=None if found is None else found.age_s,
                error=None if found is None else found.error,
            )
        )
    call.count = len(out)
    return out


def create_namespace(
    call: Call,
    name: str,
    model: str | None,
    language: str | None,
    kms: str | None,
    sealed: bool | None,
) -> NamespaceInfo:
    engine = call.engine
    name, kms = _administered(call, name, kms, sealed)
    call.reason = "create namespace"
    engine.registry.refresh()
    if engine.registry.get(name) is not None:
        raise ConflictError("the namespace exists")
    make = partial(engine.create_namespace, call, name, alone=True)
    return _made(call, make(model=model, language=language, kms=kms, sealed=sealed))


def make_namespace(call: Call, name: str, kms: str | None, secret: SecretKey) -> NamespaceInfo:
    """A namespace under a key that was brought; who may do so has been checked."""
    entry = call.engine.create_namespace(call, name, kms=_checked_kms(call, kms), secret=secret, alone=True)
    return _made(call, entry)


def _made(call: Call, entry: NamespaceEntry) -> NamespaceInfo:
    """What a new namespace is: nothing is asked for behind its commit. Another one's is counted."""
    return _noun(entry, Counts(0, 0, 0, 0), None) if call.written else _info(call, entry)


def _administered(call: Call, name: object, kms: object, sealed: object) -> tuple[str, str | None]:
    """Name and service of a namespace that is to be made or changed, by whoever may.

    Raises:
        InvalidInputError, AccessDeniedError.
    """
    if sealed is not None and type(sealed) is not bool:
        raise InvalidInputError("sealed_in_memory is true or false")
    checked = check_namespace(name)
    call.require(Action.ADMINISTER, checked)
    call.namespaces = (checked,)
    return checked, _checked_kms(call, kms)


def _checked_kms(call: Call, kms: object) -> str | None:
    """The name of a service that the caller has chosen: for whoever may administer the whole store.

    Raises:
        AccessDeniedError. InvalidInputError: there is none of that name.
    """
    if kms is None:
        return None
    name = check_text(kms, "kms", 64)
    call.require(Action.ADMINISTER, None)
    if name not in (DEFAULT, *call.engine.config.key_providers):
        raise InvalidInputError(
            "no key management service of that name is configured",
            hint="default, or the name of a [keys.providers.NAME]",
        )
    return name


def update_namespace(
    call: Call,
    name: str,
    model: str | None,
    language: str | None,
    kms: str | None,
    sealed: bool | None,
) -> NamespaceInfo:
    engine = call.engine
    name, kms = _administered(call, name, kms, sealed)
    call.reason = "update namespace"
    engine.registry.refresh()
    entry = engine.registry.get(name)
    if entry is None:
        raise NamespaceNotFoundError
    if model is not None:
        check_text(model, "model", 128)
    wanted = entry.language if language is None else engine.check_language(language)
    known = _counted(call, entry)
    if kms is not None:
        call.reason = "update namespace: move it to another key management service"
        engine.vault.keyring.rewrap_namespace(entry.ns, names=names_for(engine.config, name, kms))
        call.done = f"its key is wrapped by {kms} now"
        if model is None and language is None and sealed is None:
            return _noun(entry, *known)
    if sealed is not None:
        entry = replace(entry, sealed=sealed)
    moved = call.audit_ok()
    entry = engine.models.move(entry, model or entry.model, wanted, moved, call.commit)
    engine.models.wake()
    with suppress(StrongroomError):  # behind the commit: what there was before is true enough
        known = _counted(call, entry)
    return _noun(entry, *known)


# -- API keys -----------------------------------------------------------------------------------------
def _key_info(c: Credential) -> ApiKeyInfo:
    return ApiKeyInfo(
        key_id=c.key_id,
        name=c.name,
        scope=c.scope,
        grants=c.grants,
        created_at=from_us(c.created_at_us),
        expires_at=None if c.expires_at_us is None else from_us(c.expires_at_us),
        revoked_at=None if c.revoked_at_us is None else from_us(c.revoked_at_us),
        kind=c.attributes.kind,
        agent_id=c.attributes.agent_id,
        tenant=c.attributes.tenant,
        labels=c.attributes.labels,
    )


def keys_create(
    call: Call,
    name: str,
    scope: Scope | str,
    grants: Sequence[str],
    expires_at: datetime | None,
    attributes: KeyAttributes,
) -> tuple[ApiKeyInfo, str]:
    engine = call.engine
    try:
        wanted_scope = Scope(scope)
    except ValueError:
        raise InvalidInputError(
            "unknown scope", hint="one of: " + ", ".join(s.value for s in Scope)
        ) from None
    patterns = access.check_grants(grants)
    decision = may_manage(call, patterns, wanted_scope)
    call.reason = decision.reason
    if not decision.allowed:
        raise AccessDeniedError
    require_giving(call, attributes, patterns)
    now_us = engine.now_us()
    expires_us = end_of_new(call, expires_at)
    new = access.generate_key(os.urandom)
    credential = Credential(
        key_id=new.key_id,
        name=access.check_key_name(name),
        scope=wanted_scope,
        grants=patterns,
        created_at_us=now_us,
        expires_at_us=expires_us,
        revoked_at_us=None,
        secret_hash=engine.registry.secret_hash(new.secret),
        scram=make_verifier(new.text),
        attributes=attributes,
    )
    call.reason = f"create key {new.key_id}"
    engine.registry.write_credential(credential, call.audit_ok(), call.commit)
    return _key_info(credential), new.text


def _manageable(call: Call) -> list[Credential]:
    if call.principal.scope != Scope.ADMIN and not call.principal.is_owner:
        call.reason = "key management needs the admin scope"
        raise AccessDeniedError
    call.engine.registry.refresh()
    return [c for c in call.engine.registry.credentials() if may_manage(call, c.grants).allowed]


def may_manage(call: Call, grants: Sequence[NamespacePattern], scope: Scope | None = None) -> Decision:
    """Whether the caller may manage a key with these grants; policies are asked about each of them.

    ``scope``: of a credential that is to be made.
    """
    if scope is not None and call.principal.authentication is Authentication.TOKEN:
        return Decision(False, "a token makes nothing that outlives it")
    decision = access.decide_key_management(call.principal, grants, scope)
    for grant in grants:
        if decision.allowed:
            place = grant.plain.text.removesuffix("*").rstrip("/") or ROOT
            decision = decide_by_policy(call, decision, Action.ADMINISTER, place).decision
            if scope is not None and not grant.is_exact:
                decision = refused_below(call, decision, place, call.engine.registry.names())
    return decision


def require_giving(call: Call, wanted: KeyAttributes, grants: Sequence[NamespacePattern]) -> None:
    """Whether the caller may give a new credential these attributes, beside these grants.

    Policies of the whole store trust them. So whoever may administer the whole store (policies are asked)
    gives any; everybody else only those that it carries itself, and the tenant in which all grants lie.

    Raises:
        AccessDeniedError: the reason goes into the audit entry.
    """
    own = call.principal
    tenants = {g.plain.text.partition("/")[0] for g in grants}
    if (
        wanted.kind in (PrincipalKind.AGENT, own.kind)
        and wanted.agent_id in ("", own.agent_id)
        and (wanted.tenant in ("", own.tenant) or tenants == {wanted.tenant})
        and set(wanted.labels) <= set(own.labels)
    ):
        return
    require_whole_store(call, "attributes beyond those of the caller")


def require_whole_store(call: Call, what: str) -> None:
    """Whether the caller may administer the whole store, by itself; policies are asked.

    Raises:
        AccessDeniedError: the reason, with ``what`` takes the right, goes into the audit entry.
    """
    if not may_manage(call, (NamespacePattern.parse(ROOT),)).allowed:
        call.reason = f"{what} take the right to administer the whole store"
        raise AccessDeniedError


def end_of_new(call: Call, expires_at: datetime | None) -> int | None:
    """When a new credential ends: never after the one that makes it. None: never.

    Raises:
        InvalidInputError: it would have ended already, or would outlive the one that makes it.
    """
    wanted = None if expires_at is None else check_time(expires_at, "expires_at")
    if wanted is not None and wanted <= call.engine.now_us():
        raise InvalidInputError("expires_at is in the past")
    own = _own_end(call)
    if own is None or wanted is None:
        return own if wanted is None else wanted
    if wanted > own:
        raise InvalidInputError(
            "the new credential would outlive the one that makes it",
            hint=f"an expires_at until {from_us(own).isoformat()}, or none",
        )
    return wanted


def _own_end(call: Call) -> int | None:
    registry, who = call.engine.registry, call.principal
    if who.authentication is Authentication.CERTIFICATE:
        own = next((c for c in registry.identities.certificates() if c.id == who.id), None)
        return None if own is None else own.expires_at_us
    credential = registry.credential(who.id)
    return None if credential is None else credential.expires_at_us


def keys_list(call: Call) -> Sequence[ApiKeyInfo]:
    call.reason = "list keys"
    return sorted((_key_info(c) for c in _manageable(call)), key=lambda i: i.created_at)


def keys_revoke(call: Call, key_id: str) -> ApiKeyInfo:
    key_id = check_text(key_id, "key_id", 64)
    call.reason = f"revoke key {key_id}"
    found = next((c for c in _manageable(call) if c.key_id == key_id), None)
    if found is None:
        raise CredentialNotFoundError
    if found.revoked_at_us is None:
        found = replace(found, revoked_at_us=max(call.engine.now_us(), found.created_at_us))
        call.engine.registry.write_credential(found, call.audit_ok(), call.commit)
    return _key_info(found)


# -- the queue ------------------------------------------------------------------------------------------
def queue(call: Call, patterns: Sequence[str], dead: bool | None, limit: int) -> Sequence[QueueEntry]:
    engine = call.engine
    check_count(limit, "limit", 1, engine.config.limits.results_max)
    if dead is not None and not isinstance(dead, bool):
        raise InvalidInputError("dead must be true, false or nothing")
    entries: list[QueueEntry] = []
    for entry in chosen_namespaces(call, Action.STATS, patterns):
        found = chain.from_iterable(queue_pages(call, entry, dead))
        for row in islice(found, limit - len(entries)):
            entries.append(
                QueueEntry(
                    memory_id=UUID(bytes=row.memory_id),
                    namespace=entry.name,
                    dead=row.dead,
                    attempts=row.attempts,
                    error=row.error_code,
                )
            )
        if len(entries) >= limit:
            break
    call.count = len(entries)
    return entries


def requeue(call: Call, patterns: Sequence[str]) -> int:
    engine = call.engine
    spaces = [e.ns for e in chosen_namespaces(call, Action.UPDATE, patterns, whole=True)]
    change = partial(engine.ledger.requeue, spaces)
    done = call.tell(change, lambda count: replace(call, count=count).entry("ok"))
    engine.models.wake()
    return done


# -- the audit log ----------------------------------------------------------------------------------------
def audit_entries(call: Call, limit: int, after: int) -> Sequence[AuditEntry]:
    engine = call.engine
    call.reason = "read the audit log"
    call.require(Action.ADMINISTER, None)
    check_count(limit, "limit", 1, engine.config.limits.results_max)
    check_count(after, "after", 0, 2**62)
    start = after if after else max(0, engine.ledger.audit_count() - limit)
    return [
        audit.decode(engine.vault.open_audit(seq, sealed), seq)
        for seq, sealed in engine.ledger.audit_entries(start, limit)
    ]
