"""The response to an exposed key: all below it is replaced, what depends on it revoked, a report signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from strongroom import audit
from strongroom.audit import KeyChange, Signer
from strongroom.engine import _key_tree, _new_roots, _respond_master, _rewrap
from strongroom.engine._audit import announcement
from strongroom.engine._rotation import _chosen, _note, name_of
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import ConflictError, InvalidInputError, StrongroomError
from strongroom.keyring import FORMER, KeyNote, KeyState, Noted
from strongroom.ledger import WaveState, WriteBatch
from strongroom.lifecycle import response
from strongroom.model import Action, AuditEntry, KeyKind, ResponseReport, ResponseStep

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._core import Engine

Progress = Callable[[str], None]
_FORM: Final = 1
_FEW: Final = 20  # of so many namespaces each step is told, of more one now and then
_TELL_EVERY_S: Final = 2.0


@dataclass(slots=True)
class _Work:
    """A response on its way."""

    call: Call
    key: str
    kind: KeyKind
    spaces: list[int]
    number: int | None
    to: tuple[str, ...]
    note: KeyNote
    progress: Progress
    standing: _respond_master.Standing = field(default_factory=_respond_master.Standing)
    place: int = 0  # of the namespace that is worked at
    tell_at: float = 0.0
    steps: list[ResponseStep] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    coverage: dict[str, int] = field(default_factory=dict)
    signer: Signer | None = None  # of the report; None: that of the audit log at the end

    def did(self, what: str, ns: int | None, count: int, started: float) -> None:
        name = "" if ns is None else name_of(self.call.engine, ns)
        step = ResponseStep(
            what=what, namespace=name, count=count, seconds=round(perf_counter() - started, 4)
        )
        self.steps.append(step)
        if len(self.spaces) <= _FEW or ns is None:
            self.progress(f"{what} {name}".rstrip() + f": {count}")
        elif (now := perf_counter()) >= self.tell_at:
            self.tell_at = now + _TELL_EVERY_S
            self.progress(f"namespace {self.place} of {len(self.spaces)}: {what} {name}: {count}")

    def add(self, what: str, count: int) -> None:
        self.coverage[what] = self.coverage.get(what, 0) + count


def key_compromise(
    call: Call,
    key: str,
    to: Sequence[str],
    reason: str,
    dry_run: bool,
    revoke_credentials: bool,
    drill: bool,
    progress: Progress | None,
) -> ResponseReport:
    """Respond to the exposure of one key.

    Raises:
        InvalidInputError: it names no key, or a master key cannot be replaced without ``to``.
        ConflictError: a rotation is in the way. KeyManagementError, StorageError: repeat it, it goes on.
    """
    engine = call.engine
    call.reason = f"respond to the compromise of {key}" + (f": {reason}" if reason else "")
    work = _planned(call, key, tuple(to), reason, progress)
    if drill:
        work.signer = _signer(engine)  # the copy's new keys would be known to nobody
    if dry_run:
        return _report(work, datetime.now(UTC), 0.0, "planned", drill, _plan(work, revoke_credentials))
    began, started = datetime.now(UTC), perf_counter()
    engine.ledger.commit(WriteBatch(audit=[_entry(call, "begins")]))  # before anything is changed
    _namespaces(work)
    if work.to:
        work.left.append(
            "new namespaces are wrapped by what the configuration names: name another master key than the "
            "exposed one in [keys]"
        )
    _signing_keys(work)
    _credentials(work, revoke_credentials)
    _prove(work)
    if work.kind == KeyKind.MASTER:
        work.left += _respond_master.left(engine, _uri(key))
    made = _report(work, began, perf_counter() - started, "done", drill, work.steps)
    call.count = work.coverage.get("records", 0)
    engine.ledger.commit(WriteBatch(audit=call.audit_ok()))  # also when it has revoked the caller's own key
    call.written = True
    if work.kind == KeyKind.MASTER:  # last: until then a repetition goes on, and makes the report
        _respond_master.ended(engine, _uri(key), work.spaces, work.note)
    return made


def _uri(key: str) -> str:
    return key.partition(":")[2]


def _planned(call: Call, key: str, to: tuple[str, ...], reason: str, progress: Progress | None) -> _Work:
    engine = call.engine
    kind, ns, number = _key_tree.parse_key(engine, key)
    standing = _respond_master.Standing()
    if kind == KeyKind.MASTER:
        standing = _respond_master.standing(engine, _uri(key))
        spaces = standing.spaces
        _respond_master.require_replaceable(engine, _uri(key), to)
    else:
        spaces = [] if ns is None else [ns]
        if to:
            raise InvalidInputError("other providers are named only when a master key was exposed")
    _chosen(call, [name_of(engine, n) for n in spaces])
    for n in spaces:
        for wave in engine.ledger.waves(n):
            if wave.kind != "compromise":
                raise ConflictError(
                    f"rotation {wave.id} of {name_of(engine, n)} is not ended",
                    hint=f"strongroom rotate work {wave.id}; rotate finalise {wave.id}; then again",
                )
    note = _note(call, f"compromise of {key}" + (f": {reason}" if reason else ""))
    return _Work(call, key, kind, spaces, number, to, note, progress or (lambda text: None), standing)


def _plan(work: _Work, revoke: bool) -> list[ResponseStep]:
    steps: list[ResponseStep] = []

    def step(what: str, ns: int | None, count: int) -> None:
        name = "" if ns is None else name_of(work.call.engine, ns)
        steps.append(ResponseStep(what=what, namespace=name, count=count, seconds=0.0))

    engine = work.call.engine
    for ns in work.spaces:
        if ns in work.standing.done:
            continue
        keys = [k for k in engine.vault.keyring.list_keys(ns) if k.state != KeyState.DESTROYED]
        if work.kind == KeyKind.MASTER:
            step("wrap by another master key", ns, 1)
        if work.kind != KeyKind.DATA:
            step("new namespace key, data keys wrapped anew", ns, len(keys))
        exposed = keys if work.kind != KeyKind.DATA else [k for k in keys if k.key_id == work.number]
        low, high = (min(k.key_id for k in exposed), max(k.key_id for k in exposed)) if exposed else (1, 0)
        if _root_exposed(work, ns):
            step("new purpose root, subjects blinded anew", ns, sum(1 for k in keys if k.subject))
        step("records sealed anew", ns, engine.ledger.rows_under(ns, low, high))
        step("exposed data keys destroyed", ns, len(exposed))
    if SYSTEM_NS in work.spaces:
        step("new keys sign the audit log", None, 2)
    if SYSTEM_NS in work.spaces or revoke:
        step("API keys revoked", None, len(_to_revoke(work, revoke)))
    return steps


def _namespaces(work: _Work) -> None:
    """First all keys, then all records: so the file of the keyring is written anew once for all namespaces,
    and its log cut once.

    Interrupted wherever it may be, a repetition goes on: with the open wave of a namespace, and in a response
    to a master key behind the namespaces that have their new key, or are done.
    """
    engine, standing, started = work.call.engine, work.standing, perf_counter()
    if work.kind == KeyKind.MASTER:
        fresh = [ns for ns in work.spaces if ns not in standing.begun]
        _respond_master.begun(engine, _uri(work.key), fresh, work.note)
    left = [ns for ns in work.spaces if ns not in standing.done]
    if standing.done:
        work.did("namespaces done before an interruption", None, len(standing.done), started)
        work.add("namespaces_done_before", len(standing.done))
    work.place = len(standing.done)
    with _rewrap.ending_versions(engine, work.note) as begun:
        for ns in left:
            _keys(work, ns, begun)
        if len(work.spaces) > _FEW:
            work.progress("the keyring is written anew")
    work.place = len(standing.done)
    noted = _respond_master.done(engine, _uri(work.key)) if work.kind == KeyKind.MASTER else None
    left.sort(key=lambda ns: (ns == SYSTEM_NS, ns))  # the system's last: with its root go all API keys
    try:
        for ns in left:
            _records(work, ns, noted)
    except StrongroomError:  # a repetition may end there too; the keys of those before it are destroyed
        with suppress(StrongroomError):
            engine.vault.keyring.cut()
        raise
    if len(work.spaces) > 1:  # also when all were done before an interruption
        engine.vault.keyring.cut()


def _keys(work: _Work, ns: int, begun: list[int]) -> None:
    """A new master key for a namespace, and a new namespace key."""
    engine = work.call.engine
    work.place += 1
    work.call.refresh_principal()
    _end_another(work, ns)
    if work.kind == KeyKind.DATA:
        return
    begun.append(ns)
    if ns in work.standing.renewed:
        started, keys = perf_counter(), 0
        while count := engine.vault.keyring.rewrap_data_keys(ns):
            keys += count
        work.did("data keys wrapped anew, the rest", ns, keys, started)
        return
    if work.kind == KeyKind.MASTER:
        started = perf_counter()
        done = _rewrap.rewrap_master(engine, ns, work.to, work.note)
        work.did("wrapped by another master key", ns, done.keys, started)
    if not engine.ledger.waves(ns):
        started = perf_counter()
        done = _rewrap.renew_namespace_key(engine, ns, work.note, compromised=True, anew=True)
        work.did("new namespace key, data keys wrapped anew", ns, done.keys, started)


def _records(work: _Work, ns: int, noted: Noted | None) -> None:
    """New keys for what a namespace holds, and its records sealed anew under them.

    ``noted``: once it is done. With many namespaces the log of the keyring, which still has the keys that
    were destroyed, is cut at the end, once for all.
    """
    call, engine, alone = work.call, work.call.engine, len(work.spaces) == 1
    keyring, waves = engine.vault.keyring, engine.rotations.waves
    work.place += 1
    call.refresh_principal()
    open_waves = engine.ledger.waves(ns)
    # before the wave, which destroys what nothing needs
    if not open_waves and (_new_roots.is_between(engine, ns) or _root_exposed(work, ns)):
        _root(work, ns)
    started = perf_counter()
    number = work.number if work.kind == KeyKind.DATA else None
    wave = open_waves[0].id if open_waves else waves.begin(ns, "compromise", work.note, key_id=number)
    row = engine.ledger.wave(wave)
    keyring.mark_compromised(ns, row.low, row.high, work.note)
    moved = waves.work(wave, work.note)
    if moved.state not in (WaveState.MOVED, WaveState.FINALISING, WaveState.FINALISED):
        raise ConflictError("the rotation was paused or stopped", hint="repeat the response: it goes on")
    work.did("records sealed anew", ns, moved.moved, started)
    work.add("records", moved.moved)
    started = perf_counter()
    before = _live_keys(engine, ns, row.low, row.high)
    if moved.state != WaveState.FINALISED:  # it was, when a response before came as far as destroying
        waves.finalise(wave, cut=alone)
    roots = _new_roots.end(engine, ns, work.note, cut=alone, noted=noted)
    after = _live_keys(engine, ns, row.low, row.high)
    work.did("exposed data keys destroyed", ns, before - after + roots, started)
    work.add("keys_destroyed", before - after + roots)
    work.add("keys_kept", after)
    work.add("namespaces", 1)
    if work.kind == KeyKind.DATA and _is_former(engine, ns, work.number):
        work.left.append(
            "the key blinds data subjects together with that of the present purpose root and stays: alone it "
            "confirms no guess. For another root as well respond to the namespace's key"
        )
    elif after and ns == SYSTEM_NS:
        work.left.append(
            "keys of audit entries stay: the hashes of the sealed entries are signed, so entries are never "
            "sealed anew. Whoever has such a key reads the entries of before in a copy of the log"
        )


def _end_another(work: _Work, ns: int) -> None:
    """A response to another key that was interrupted here: what it left undone is done, and nothing of it is
    taken for a part of this one, which may have to replace more."""
    engine = work.call.engine
    for wave in engine.ledger.waves(ns):
        begun = [e.event for e in engine.vault.keyring.history("data", ns) if e.event.change == "begun"]
        if begun and _respond_master.is_about(begun[-1].reason, work.key):
            return
        started = perf_counter()
        engine.vault.keyring.mark_compromised(ns, wave.low, wave.high, work.note)
        moved = engine.rotations.waves.work(wave.id, work.note)
        if moved.state != WaveState.FINALISED:
            engine.rotations.waves.finalise(wave.id)
        work.did("ended what a response to another key had begun", ns, moved.moved, started)


def _root_exposed(work: _Work, ns: int) -> bool:
    """Whether purpose keys derive from something below the exposed key."""
    keyring = work.call.engine.vault.keyring
    return work.kind != KeyKind.DATA or work.number == keyring.root_key_id(ns)


def _root(work: _Work, ns: int) -> None:
    started = perf_counter()
    done = _new_roots.renew(work.call.engine, ns, work.note)
    work.did("new purpose root, subjects blinded anew", ns, done.reblinded, started)
    work.add("purpose_roots_renewed", 1)
    work.add("subjects_blinded_anew", done.reblinded)
    work.add("rows_renamed", done.renamed)
    if done.drawn:
        work.left.append(
            f"{done.drawn} pseudonyms of data subjects did not open and were drawn anew: what the audit log "
            "has of these subjects from before is not found by them any more"
        )


def _is_former(engine: Engine, ns: int, number: int | None) -> bool:
    return number in engine.vault.keyring.key_ids_of(ns, FORMER)


def _live_keys(engine: Engine, ns: int, low: int, high: int) -> int:
    keys = engine.vault.keyring.list_keys(ns)
    return sum(1 for k in keys if low <= k.key_id <= high and k.state != KeyState.DESTROYED)


def _to_revoke(work: _Work, revoke: bool) -> list[Any]:
    """API keys that were hashed under a key below the exposed one; with ``revoke`` all that reach there."""
    engine = work.call.engine
    engine.registry.refresh()
    live = [c for c in engine.registry.credentials() if c.revoked_at_us is None]
    if SYSTEM_NS in work.spaces:
        return live
    if not revoke:
        return []
    names = [name_of(engine, ns) for ns in work.spaces]
    return [c for c in live if any(g.matches(n) for g in c.grants for n in names)]


def _credentials(work: _Work, revoke: bool) -> None:
    engine, started = work.call.engine, perf_counter()
    found = _to_revoke(work, revoke)
    for credential in found:
        ended = replace(credential, revoked_at_us=max(engine.now_us(), credential.created_at_us))
        engine.registry.write_credential(ended, [_entry(work.call, f"revokes key {credential.key_id}")])
    if found or SYSTEM_NS in work.spaces or revoke:
        work.did("API keys revoked", None, len(found), started)
    work.add("credentials_revoked", len(found))


def _signing_keys(work: _Work) -> None:
    """New keys for the audit log and for reports: the seeds of those before lie under the system's keys."""
    if SYSTEM_NS not in work.spaces:
        return
    call, started = work.call, perf_counter()

    def announce(change: KeyChange) -> bytes:
        return _entry(call, announcement(change))

    call.engine.audit_log.renew_signer(announce, compromised=True)
    work.did("new keys sign the audit log", None, 2, started)
    work.add("signing_keys_renewed", 2)
    work.left.append(
        "the keys that signed the audit log were sealed under the exposed key: trust only what they signed "
        "and was kept outside the store before; give out the new ones: strongroom audit key"
    )


def _prove(work: _Work) -> None:
    """Ask the rows themselves: none is under an exposed key, every one opens."""
    engine, opened, exposed = work.call.engine, 0, 0
    started = perf_counter()
    for ns in work.spaces:
        bad = {
            k.key_id
            for k in engine.vault.keyring.list_keys(ns)
            if k.state in (KeyState.COMPROMISED, KeyState.DESTROYED)
        }
        exposed += sum(engine.ledger.rows_under(ns, k, k) for k in set(engine.ledger.keys_in_use(ns)) & bad)
        opened += engine.rotations.host.opens(ns)
    work.did("records opened and counted", None, opened, started)
    work.coverage["records_opened"] = opened
    work.coverage["records_under_exposed_keys"] = exposed


def _report(
    work: _Work, began: datetime, seconds: float, outcome: str, drill: bool, steps: Sequence[ResponseStep]
) -> ResponseReport:
    engine = work.call.engine
    body: dict[str, Any] = {
        "form": _FORM,
        "store_id": str(engine.ledger.store_id),
        "key": work.key,
        "outcome": outcome,
        "drill": drill,
        "actor": work.call.caller,
        "reason": work.note.reason,
        "began_at": began.isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "steps": [
            {"what": s.what, "namespace": s.namespace, "count": s.count, "seconds": s.seconds} for s in steps
        ],
        "coverage": dict(sorted(work.coverage.items())),
        "left": list(dict.fromkeys(work.left)),
        "audit_entries": engine.ledger.audit_count(),
    }
    return ResponseReport(
        key=work.key,
        outcome=outcome,
        drill=drill,
        seconds=round(seconds, 3),
        steps=tuple(steps),
        coverage=body["coverage"],
        left=tuple(body["left"]),
        document=response.signed(body, work.signer or _signer(engine), engine.now_us() // 1_000_000),
    )


def _signer(engine: Engine) -> Signer:
    return engine.audit_log.signer_as(response.origin_of(engine.ledger.store_id))


def verifier_keys(call: Call) -> tuple[str, str]:
    """The public keys that reports of this store are verified with."""
    call.reason = "public keys of reports"
    call.require(Action.ADMINISTER, None)
    engine = call.engine
    return _signer(engine).public_keys()


def _entry(call: Call, what: str) -> bytes:
    return audit.encode(
        AuditEntry(
            at_us=call.engine.now_us(),
            request_id=call.request_id,
            principal=call.caller,
            surface=call.surface,
            action="respond",
            namespaces=tuple(call.namespaces),
            outcome="ok",
            reason=f"{call.reason} {what}",
        )
    )
