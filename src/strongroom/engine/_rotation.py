"""Rotation of keys as operations of the engine; the waves themselves are in ``lifecycle.rotation``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

from strongroom import access, audit, crypto
from strongroom.embedding import SweeperLock
from strongroom.engine._call import Call
from strongroom.engine._payload import PAYLOAD_SCHEMA, from_us
from strongroom.engine._vault import AUDIT_KEY_NAME, SYSTEM_NS
from strongroom.errors import (
    ConflictError,
    InvalidInputError,
    NamespaceNotFoundError,
    StorageError,
    StrongroomError,
    cause_of,
    thread_started,
)
from strongroom.keyring import KeyNote
from strongroom.ledger import Telling, WaveRow, WaveState, root_of_head
from strongroom.lifecycle.rotation import Pace, TrafficView, Waves, WaveSettings
from strongroom.model import (
    SYSTEM_NAME,
    Action,
    AuditEntry,
    NamespacePattern,
    Rotation,
    RotationKind,
    RotationState,
    State,
    check_namespace,
)

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_ALLOWANCE: Final = 0.1  # of the median duration of live traffic
_TEND_S: Final = 5.0
_PAGE: Final = 2000
_LOCK_NAME: Final = "rotation.lock"
_WORKER: Final = "rotation"


class RotationHost:
    """What a wave borrows from the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now_us(self) -> int:
        return self._engine.now_us()

    def tenant(self, ns: int) -> str:
        self._engine.registry.refresh()
        return self._engine.heads.tenant(ns)

    def keeps(self, ns: int) -> Iterable[int]:
        """The roots of purpose keys; of the system also the keys of audit entries, which never change."""
        keyring = self._engine.vault.keyring
        numbers = {keyring.root(ns), root_of_head(self._engine.ledger.head(ns)[1])}
        kept = [keyring.root_key_id(ns, number) for number in sorted(numbers)]
        return [*kept, *keyring.key_ids_of(SYSTEM_NS, AUDIT_KEY_NAME)] if ns == SYSTEM_NS else kept

    def opens(self, ns: int) -> int:
        engine, tenant, after, count = self._engine, self.tenant(ns), 0, 0
        while rows := engine.ledger.changes(ns, after, _PAGE):
            for row in rows:
                if row.state == State.LIVE:
                    engine.vault.open(tenant, row)
                    count += 1
            after = rows[-1].seq
        return count

    def telling(self, what: str, count: int | None = None) -> Telling[WaveRow]:
        engine = self._engine

        def entry(wave: WaveRow) -> bytes:
            return audit.encode(
                AuditEntry(
                    at_us=engine.now_us(),
                    request_id=f"rotation-{wave.id}",
                    principal=_WORKER,
                    surface="engine",
                    action="rotate",
                    namespaces=(name_of(engine, wave.ns),),
                    outcome="ok",
                    reason=f"rotation {wave.id} ({wave.kind}): {what}",
                    count=wave.moved if count is None else count,
                )
            )

        return Telling(entry)

    def moved(self, ns: int) -> None:
        if ns != SYSTEM_NS:
            with suppress(StorageError):  # what stays is verified when it is read, and refuted
                self._engine.indexes.discard_snapshots(ns)


class Rotations:
    """The rotations of an opened store: their waves, and the thread that works at them in the background."""

    def __init__(self, engine: Engine, *, worker: bool) -> None:
        self._engine = engine
        config = engine.config.rotation
        self.host = RotationHost(engine)
        self.waves = Waves(
            engine.ledger,
            engine.vault.keyring,
            self.host,
            PAYLOAD_SCHEMA,
            WaveSettings(
                batch_rows=config.batch_rows,
                batch_bytes_max=config.batch_bytes_max,
                lease_ms=config.lease_ms,
            ),
        )
        self._worker = worker and config.worker
        self._lock = SweeperLock(engine.directory / _LOCK_NAME)
        self._stop = Event()
        self._thread: Thread | None = None
        self._tend_at = 0.0
        self._policy_at = 0.0

    def pace(self, stop: Event, *, background: bool) -> Pace:
        """How fast this process may work: in the background it shares its interpreter with what it serves."""
        view = TrafficView(self._engine.directory, self._engine.traffic)
        return Pace(view.median_s, stop, allowance=_ALLOWANCE, rest_min=2.0 if background else 0.0)

    def tend(self) -> None:
        """Start the background worker when something is to do. Called by the housekeeping, and quick."""
        now = monotonic()
        if not self._worker or now < self._tend_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._tend_at = now + _TEND_S
        policy_is_due = now >= self._policy_at
        if not policy_is_due and not any(_needs_work(row) for row in self._engine.ledger.waves()):
            return
        if not self._lock():
            return  # another process of this store does it
        thread = Thread(target=self._work, args=(policy_is_due,), name="strongroom-rotation", daemon=True)
        if not thread_started(thread):
            return  # the next turn tries again
        self._thread = thread
        if policy_is_due:
            self._policy_at = now + self._engine.config.rotation.policy_interval_s

    def wake(self) -> None:
        """Something was begun: the worker of this process, when it has one, need not wait for its turn."""
        self._tend_at = 0.0
        with suppress(StrongroomError):  # the housekeeping comes by again
            self.tend()

    def _work(self, policy_is_due: bool) -> None:
        from strongroom.engine import _rotation_policy as policy

        engine = self._engine
        try:
            if policy_is_due:
                policy.apply(engine, self.waves)
            pace = self.pace(self._stop, background=True)
            for row in engine.ledger.waves():
                if _needs_work(row):
                    self.waves.work(row.id, policy.AUTOMATIC, rest=pace, stop=self._stop)
        except Exception as e:  # noqa: BLE001 - the wave stands in the ledger: the next turn goes on with it
            if not (self._stop.is_set() and isinstance(e, StrongroomError)):
                engine.log.warning("rotation_interrupted", code=cause_of(e))

    def close(self) -> None:
        """Let the worker end its batch."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._lock.release()


def _needs_work(row: WaveRow) -> bool:
    return not row.paused and row.state != WaveState.MOVED


def name_of(engine: Engine, ns: int) -> str:
    """The name of a namespace, ``@system`` for the store's own."""
    if ns == SYSTEM_NS:
        return SYSTEM_NAME
    try:
        return engine.registry.by_ns(ns).name
    except KeyError:
        return f"#{ns}"


# -- operations ---------------------------------------------------------------------------------------
def _note(call: Call, reason: str) -> KeyNote:
    return KeyNote(call.caller, reason or call.reason, call.request_id)


def _chosen(call: Call, patterns: Sequence[str]) -> list[int]:
    """The namespaces that names and patterns mean; each needs the admin scope.

    Raises:
        NamespaceNotFoundError: a name without a namespace. InvalidInputError: no name at all.
    """
    engine = call.engine
    if isinstance(patterns, str) or not patterns:
        raise InvalidInputError("name at least one namespace or pattern")
    engine.registry.refresh()
    found: dict[int, None] = {}
    for text in patterns:
        if text == SYSTEM_NAME:
            found[SYSTEM_NS] = None
            continue
        pattern = NamespacePattern.parse(text)
        if "*" not in text:
            entry = engine.registry.get(check_namespace(text))
            if entry is None:
                raise NamespaceNotFoundError
            found[entry.ns] = None
            continue
        found.update({e.ns: None for e in engine.registry.entries() if pattern.matches(e.name)})
        if text == "*":
            found[SYSTEM_NS] = None
    for ns in found:
        call.require(Action.ADMINISTER, None if ns == SYSTEM_NS else name_of(engine, ns))
    call.namespaces = tuple(name_of(engine, ns) for ns in found)
    return sorted(found)


def begin(
    call: Call,
    kind: RotationKind,
    patterns: Sequence[str],
    suite: str | None,
    key_id: int | None,
    reason: str,
) -> list[Rotation]:
    """Begin waves; nothing is moved yet.

    Raises:
        ConflictError: a namespace has a wave that is not ended. InvalidInputError, NamespaceNotFoundError.
    """
    engine = call.engine
    call.reason = f"rotate {kind}" + (f": {reason}" if reason else "")
    number = None
    if kind == RotationKind.SUITE:
        if suite is None:
            raise InvalidInputError("a change of suite names the suite")
        number = crypto.suite_by_name(suite).number
    elif suite is not None:
        raise InvalidInputError("only a change of suite names a suite")
    spaces = _chosen(call, patterns) if key_id is None else [_namespace_of_key(call, key_id)]
    busy = [name_of(engine, ns) for ns in spaces if engine.ledger.waves(ns)]
    if busy:
        raise ConflictError(
            f"a rotation of {busy[0]} is not ended yet",
            hint="strongroom rotate status; then finalise it or roll it back",
        )
    waves = engine.rotations.waves
    made: list[int] = []

    def tell_of_one(change: Callable[[Telling[WaveRow]], int]) -> int:
        return call.tell(change, lambda wave: call.entry_of_one(name_of(engine, wave.ns), 1))

    for ns in spaces:
        made.append(
            waves.begin(ns, kind.value, _note(call, reason), suite=number, key_id=key_id, tell=tell_of_one)
        )
        call.count = len(made)
        call.done = f"{_numbered(made)} begun, and servers work at it: strongroom rotate status"
    return [describe(engine, engine.ledger.wave(wave)) for wave in made]


def _numbered(made: Sequence[int]) -> str:
    if len(made) == 1:
        return f"rotation {made[0]} is"
    return f"{len(made)} rotations, {made[0]} to {made[-1]}, are"


def _namespace_of_key(call: Call, key_id: int) -> int:
    records = {k.key_id: k for k in call.engine.vault.keyring.list_keys()}
    if key_id not in records:
        raise InvalidInputError("there is no data key with that number", hint="strongroom keyring list")
    ns = records[key_id].ns
    call.require(Action.ADMINISTER, None if ns == SYSTEM_NS else name_of(call.engine, ns))
    call.namespaces = (name_of(call.engine, ns),)
    return ns


def work(call: Call, waves: Sequence[int], progress: Callable[[Rotation], None] | None) -> list[Rotation]:
    """Work at waves in this thread until they need no more; with none named at all that are open."""
    engine = call.engine
    call.reason = "work at rotations"
    rows = [_row(call, wave) for wave in waves] if waves else _visible(call, ended=False)
    stop = engine.rotations._stop
    pace = engine.rotations.pace(stop, background=False)
    told = 0.0
    for row in rows:
        call.refresh_principal()
        current = row

        def rest(worked_s: float, current: WaveRow = current) -> None:
            nonlocal told
            if progress is not None and monotonic() >= told:
                told = monotonic() + 0.5
                progress(describe(engine, engine.ledger.wave(current.id)))
            pace(worked_s)

        done = engine.rotations.waves.work(row.id, _note(call, f"rotation {row.id}"), rest=rest, stop=stop)
        if progress is not None:
            progress(describe(engine, done))
        call.count += done.moved
        call.done = f"{call.count} records have moved"
    return [describe(engine, engine.ledger.wave(row.id)) for row in rows]


def status(call: Call, ended: bool) -> list[Rotation]:
    """The waves that the caller may see."""
    call.reason = "rotation status"
    return [describe(call.engine, row) for row in _visible(call, ended=ended)]


def _visible(call: Call, *, ended: bool) -> list[WaveRow]:
    engine = call.engine
    engine.registry.refresh()
    rows = engine.ledger.waves(ended=ended)
    seen = [
        row
        for row in rows
        if access.decide(
            call.principal,
            Action.ADMINISTER,
            None if row.ns == SYSTEM_NS else name_of(engine, row.ns),
        ).allowed
    ]
    if not seen:
        call.require(Action.ADMINISTER, None if rows else _any_name(call))
    return seen


def _any_name(call: Call) -> str | None:
    """Somebody who may administer something may see that there is nothing."""
    grants = call.principal.grants
    return grants[0].text.replace("*", "x") if grants and not call.principal.is_owner else None


def _row(call: Call, wave: int) -> WaveRow:
    if not isinstance(wave, int) or isinstance(wave, bool) or not 0 < wave < 2**62:
        raise InvalidInputError("a rotation has a number")
    row = call.engine.ledger.wave(wave)
    name = name_of(call.engine, row.ns)
    call.require(Action.ADMINISTER, None if row.ns == SYSTEM_NS else name)
    call.namespaces = (name,)
    return row


def pause(call: Call, wave: int) -> Rotation:
    return _flag(call, wave, paused=True)


def resume(call: Call, wave: int) -> Rotation:
    return _flag(call, wave, paused=False)


def _flag(call: Call, wave: int, *, paused: bool) -> Rotation:
    engine = call.engine
    row = _row(call, wave)
    call.reason = f"{'pause' if paused else 'resume'} rotation {wave}"
    change = engine.rotations.waves.pause if paused else engine.rotations.waves.resume
    if not change(wave, call.tell):
        raise ConflictError(f"a rotation that is {WaveState(row.state).name.lower()} does not move")
    call.done = f"rotation {wave} is {'paused' if paused else 'going on'}"
    return describe(engine, engine.ledger.wave(wave))


def roll_back(call: Call, wave: int) -> Rotation:
    _row(call, wave)
    call.reason = f"roll back rotation {wave}"
    call.engine.rotations.waves.roll_back(wave, _note(call, call.reason), call.tell)
    call.done = f"rotation {wave} is being rolled back"
    return describe(call.engine, call.engine.ledger.wave(wave))


def finalise(call: Call, wave: int, verify: bool) -> Rotation:
    row = _row(call, wave)
    call.reason = f"finalise rotation {wave}"
    call.count = row.moved
    call.engine.rotations.waves.finalise(wave, verify=verify, tell=call.tell)
    call.done = f"rotation {wave} is finalised"
    return describe(call.engine, call.engine.ledger.wave(wave))


def describe(engine: Engine, row: WaveRow) -> Rotation:
    """A wave as callers see it."""
    state = WaveState(row.state)
    done = 1.0 if state in (WaveState.MOVED, WaveState.FINALISING) or state.ended else 0.0
    if state.moves and row.through_seq:
        parts = engine.ledger.wave_parts(row.id)
        left = sum(part.last_seq - part.cursor for part in parts)
        done = max(0.0, 1.0 - left / row.through_seq)
    return Rotation(
        id=row.id,
        namespace=name_of(engine, row.ns),
        kind=RotationKind(row.kind),
        state=RotationState(state.name.lower()),
        paused=bool(row.paused),
        moved=row.moved,
        done=round(done, 4),
        suite=crypto.suite_by_number(row.suite).name,
        created_at=from_us(row.created_us),
        updated_at=from_us(row.updated_us),
        error=row.error,
    )
