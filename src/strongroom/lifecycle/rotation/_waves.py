"""Waves of re-encryption: a state machine over ledger and keyring (spec/rotation.md).

Each step is durable before the next one and may be taken again after a crash. At every moment each record
is sealed under exactly one key, which is not destroyed: keys are made before rows go to them, and destroyed
after the last row has left them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Event
from time import perf_counter
from typing import Final, Protocol

from strongroom.errors import ConflictError, KeyMovedError, StrongroomError, UnauthenticatedError
from strongroom.keyring import KeyNote, Keyring, KeyState
from strongroom.ledger import (
    OutdatedError,
    PartRow,
    ResealBatch,
    Resealed,
    SqliteLedger,
    Telling,
    WaveRow,
    WaveState,
)

OWNER_BYTES: Final = 8

_WAIT_S: Final = 0.05
# What says that a step was not made: another process was first, or who was to make it may not any more.
_NOT_DONE: Final = (ConflictError, OutdatedError, UnauthenticatedError)


class Tell(Protocol):
    """Has a step done together with what the audit log says of it (``Call.tell`` of the engine)."""

    def __call__(self, change: Callable[[Telling[WaveRow]], int]) -> int: ...


class Host(Protocol):
    """What a wave borrows from the engine."""

    def now_us(self) -> int: ...
    def tenant(self, ns: int) -> str: ...
    def keeps(self, ns: int) -> Iterable[int]:
        """Keys that no rotation destroys: something else than records still needs them."""

    def opens(self, ns: int) -> int:
        """Open every live row of a namespace from what the ledger holds now; how many it were.

        Raises: IntegrityError, KeyStateError: one does not open."""

    def telling(self, what: str, count: int | None = None) -> Telling[WaveRow]:
        """What the audit log says of a step of a wave; ``count``: the rows that have moved, without one."""

    def moved(self, ns: int) -> None:
        """Every record of the namespace has moved. Does not fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSettings:
    """``batch_bytes_max``: sealed bytes of one transaction. ``lease_ms``: after that a part of a worker that
    was killed goes to another one."""

    batch_rows: int = 500
    batch_bytes_max: int = 4 * 1024 * 1024
    lease_ms: int = 10_000


class Waves:
    """Begins, works at, turns and ends waves. Any number of threads and processes may work at one."""

    def __init__(
        self, ledger: SqliteLedger, keyring: Keyring, host: Host, schema: int, settings: WaveSettings
    ) -> None:
        self._ledger = ledger
        self._keyring = keyring
        self._host = host
        self._schema = schema
        self._settings = settings

    # -- orders -------------------------------------------------------------------------------------------
    def begin(
        self,
        ns: int,
        kind: str,
        note: KeyNote,
        *,
        suite: int | None = None,
        key_id: int | None = None,
        tell: Tell | None = None,
    ) -> int:
        """Begin a wave over a namespace, or over what one data key has sealed; its number.

        ``tell``, here and below: whoever has it done, and has an entry of the audit log for it.

        Raises:
            ConflictError: the namespace has one that is not ended. NotFoundError: there is no such key.
        """
        if self._ledger.waves(ns):
            raise ConflictError(
                "a rotation of this namespace is not ended yet",
                hint="strongroom rotate status; then finalise it or roll it back",
            )
        barrier = self._keyring.begin_epoch(ns, suite, note)
        former = self._keyring.suite_of_key(ns, barrier - 1)  # not that of an epoch that was begun in vain
        now_us = self._host.now_us()
        low, high = (1, barrier - 1) if key_id is None else (key_id, key_id)
        row = WaveRow(
            id=0, ns=ns, state=WaveState.PREPARING, paused=0, kind=kind, low=low, high=high, barrier=barrier,
            suite=self._keyring.suite(ns), former_suite=former, through_seq=0, created_us=now_us,
            updated_us=now_us, moved=0, error="", reason=b"",
        )  # fmt: skip
        try:
            return (
                self._ledger.begin_wave(row) if tell is None else tell(partial(self._ledger.begin_wave, row))
            )
        except _NOT_DONE:
            if suite is not None:  # new keys are not to be of a suite that no wave is about
                self._keyring.begin_epoch(ns, former, note)
            raise

    def pause(self, wave: int, tell: Tell | None = None) -> bool:
        """Let workers stop after the batch they are at; False: it is not moving."""
        return self._flag(wave, 1, tell)

    def resume(self, wave: int, tell: Tell | None = None) -> bool:
        """Let workers go on; False: it is not paused or cannot be."""
        return self._flag(wave, 0, tell)

    def _flag(self, wave: int, paused: int, tell: Tell | None) -> bool:
        states = (WaveState.PREPARING, WaveState.MOVING, WaveState.TURNING, WaveState.RETURNING)
        return self._change(wave, states, tell, paused=paused)

    def _change(self, wave: int, wanted: tuple[WaveState, ...], tell: Tell | None, **values: int) -> bool:
        """Change columns of a wave in one of the ``wanted`` states, with its entry; False: in another."""
        now_us = self._host.now_us()

        def change(telling: Telling[WaveRow] | None = None) -> bool:
            return self._ledger.change_wave(wave, wanted, now_us, telling, error="", **values)

        return bool(change() if tell is None else tell(change))

    def roll_back(self, wave: int, note: KeyNote, tell: Tell | None = None) -> None:
        """Turn: the keys of the epoch before become active again, and rows go back to them.

        Raises:
            ConflictError: it was finalised, is turning already, or a key was compromised.
        """
        row = self._ledger.wave(wave)
        if row.kind == "compromise":
            raise ConflictError("after a compromise there is no way back to the keys before")
        before = (WaveState.PREPARING, WaveState.MOVING, WaveState.MOVED)
        if WaveState(row.state) not in before:
            raise ConflictError(
                f"a rotation that is {WaveState(row.state).name.lower()} cannot be rolled back"
            )
        barrier = self._keyring.begin_epoch(row.ns, row.former_suite, note)
        columns = {"state": int(WaveState.TURNING), "paused": 0, "low": row.barrier, "high": barrier - 1}
        try:
            if self._change(wave, before, tell, **columns):
                return
        except _NOT_DONE:
            state = WaveState(self._ledger.wave(wave).state)
            if row.suite != row.former_suite and state in before:  # nobody else has turned it
                self._keyring.begin_epoch(row.ns, row.suite, note)
            raise
        raise ConflictError("the rotation has changed its state meanwhile")

    def finalise(
        self,
        wave: int,
        *,
        verify: bool = True,
        cut: bool = True,
        tell: Tell | None = None,
    ) -> None:
        """Destroy the keys that were left. With ``verify`` every record is opened once more before.

        Without ``cut`` they are in the log of the keyring until ``Keyring.cut``, for many waves at once.

        Raises:
            ConflictError: it has not come so far, or records are still under keys that were to be left.
            IntegrityError, KeyStateError: a record does not open; nothing was destroyed.
        """
        row = self._ledger.wave(wave)
        if row.state not in (WaveState.MOVED, WaveState.FINALISING):
            raise ConflictError(
                f"a rotation that is {WaveState(row.state).name.lower()} cannot be finalised",
                hint="wait until it is moved: strongroom rotate status",
            )
        left = self._left(row)
        if left:
            raise ConflictError(
                f"records are still sealed with {len(left)} of the keys that were to be left",
                hint="strongroom check --read-data names those that do not open: enable their keys, or "
                "delete them",
            )
        if verify and row.state == WaveState.MOVED:
            self._host.opens(row.ns)
        if row.state == WaveState.MOVED:
            told = self._host.telling("finalise: keys are being destroyed")
            tell = tell or (lambda change: change(told))
            self._change(wave, (WaveState.MOVED,), tell, state=int(WaveState.FINALISING))
        row = self._ledger.wave(wave)
        if row.state not in (WaveState.FINALISING, WaveState.FINALISED):  # its range may be another by now
            raise ConflictError("the rotation was rolled back meanwhile; nothing was destroyed")
        self._finish(row, cut=cut)

    def _left(self, row: WaveRow) -> list[int]:
        """Keys in the wave's range that live rows are still sealed with and that are not destroyed."""
        states = {k.key_id: k.state for k in self._keyring.list_keys(row.ns)}
        used = self._ledger.keys_in_use(row.ns)
        return [
            k
            for k in used
            if row.low <= k <= row.high and states.get(k, KeyState.DESTROYED) != KeyState.DESTROYED
        ]

    # -- work ---------------------------------------------------------------------------------------------
    def work(
        self,
        wave: int,
        note: KeyNote,
        *,
        rest: Callable[[float], None] = lambda worked_s: None,
        stop: Event | None = None,
        owner: bytes | None = None,
        once: bool = False,
    ) -> WaveRow:
        """Work at a wave until it needs no more work, is paused, or ``stop`` is set; as it is then.

        ``rest`` is called after each batch with the seconds that it took. ``once``: one step or batch.

        Raises:
            StrongroomError: what stopped it; noted in the wave. It goes on where it was.
        """
        owner = os.urandom(OWNER_BYTES) if owner is None else owner
        stop = stop or Event()
        try:
            while not stop.is_set():
                row = self._ledger.wave(wave)
                if row.paused or WaveState(row.state).ended or row.state == WaveState.MOVED:
                    break
                self._step(row, note, rest, stop, owner, once)
                if once:
                    break
        except StrongroomError as e:
            self._note_error(wave, e)
            raise
        return self._ledger.wave(wave)

    def _note_error(self, wave: int, error: StrongroomError) -> None:
        states = tuple(s for s in WaveState if not s.ended)
        try:
            self._ledger.change_wave(wave, states, self._host.now_us(), error=error.code)
        except StrongroomError:
            return  # the one that is on its way says more

    def _step(
        self,
        row: WaveRow,
        note: KeyNote,
        rest: Callable[[float], None],
        stop: Event,
        owner: bytes,
        once: bool,
    ) -> None:
        match WaveState(row.state):
            case WaveState.PREPARING:
                self._prepare(row, note, stop)
            case WaveState.TURNING:
                self._turn(row, note, stop)
            case WaveState.MOVING | WaveState.RETURNING:
                self._move(row, rest, stop, owner, once)
            case WaveState.FINALISING:
                self._finish(row)

    def _prepare(self, row: WaveRow, note: KeyNote, stop: Event) -> None:
        old = KeyState.COMPROMISED if row.kind == "compromise" else KeyState.DECRYPT_ONLY
        while self._keyring.rotate_keys(row.ns, row.low, row.high, note, old_state=old):
            if stop.is_set():
                return
        told = self._host.telling("keys of the next epoch are made", 0)
        self._ledger.begin_moving(row.id, WaveState.PREPARING, WaveState.MOVING, self._host.now_us(), told)

    def _turn(self, row: WaveRow, note: KeyNote, stop: Event) -> None:
        while self._keyring.return_keys(row.ns, row.low, row.high, note):
            if stop.is_set():
                return
        told = self._host.telling("keys of the epoch before are active again", 0)
        self._ledger.begin_moving(row.id, WaveState.TURNING, WaveState.RETURNING, self._host.now_us(), told)

    def _move(
        self, row: WaveRow, rest: Callable[[float], None], stop: Event, owner: bytes, once: bool
    ) -> None:
        lease_us = self._settings.lease_ms * 1000
        number = self._ledger.claim_part(row.id, owner, self._host.now_us(), lease_us)
        if number is None:
            if not self._settle(row):
                stop.wait(_WAIT_S)  # others are at the last parts
            return
        part = next(p for p in self._ledger.wave_parts(row.id) if p.part == number)
        self._keyring.refresh()
        while part.cursor < part.last_seq and not stop.is_set():
            started = perf_counter()
            try:
                part = self._batch(row, part, owner)
            except ConflictError:
                return  # paused, turned, or taken over by another worker
            except KeyMovedError:
                self._keyring.refresh()
            if once:
                return
            rest(perf_counter() - started)

    def _batch(self, row: WaveRow, part: PartRow, owner: bytes) -> PartRow:
        s = self._settings
        rows = self._ledger.wave_rows(
            row.ns, part.cursor, part.last_seq, rows_max=s.batch_rows, bytes_max=s.batch_bytes_max
        )
        cut = len(rows) >= s.batch_rows or sum(len(r.sealed) for r in rows) >= s.batch_bytes_max
        result = self._keyring.reseal(
            row.ns, self._host.tenant(row.ns), self._schema, rows, row.low, row.high
        )
        now_us = self._host.now_us()
        batch = ResealBatch(
            wave=row.id,
            part=part.part,
            ns=row.ns,
            owner=owner,
            cursor=rows[-1].seq if cut else part.last_seq,
            lease_us=now_us + s.lease_ms * 1000,
            now_us=now_us,
            rows=[Resealed(rows[place], key_id, sealed) for place, key_id, sealed in result.made],
        )
        self._ledger.reseal(batch)
        return part._replace(cursor=batch.cursor)

    def _settle(self, row: WaveRow) -> bool:
        if any(part.cursor < part.last_seq for part in self._ledger.wave_parts(row.id)):
            return False
        if row.state == WaveState.RETURNING:
            self._destroy(row, "rolled back")
            after = WaveState.RETURNED
        else:
            after = WaveState.MOVED
        told = self._host.telling(f"records are {after.name.lower()}")
        done = self._ledger.settle_wave(row.id, WaveState(row.state), after, self._host.now_us(), told)
        if done:
            self._host.moved(row.ns)
        return done

    def _finish(self, row: WaveRow, *, cut: bool = True) -> None:
        destroyed = self._destroy(row, "every record has left it", cut=cut)
        told = self._host.telling("finalised: the keys before are destroyed", destroyed)
        self._ledger.end_wave(row.id, WaveState.FINALISING, WaveState.FINALISED, self._host.now_us(), told)

    def _destroy(self, row: WaveRow, why: str, *, cut: bool = True) -> int:
        """Destroy the keys of the wave's range that nothing needs any more."""
        note = KeyNote("rotation", f"rotation {row.id}: {why}")
        keep = {*self._host.keeps(row.ns), *self._ledger.keys_in_use(row.ns)}
        total = 0
        while count := self._keyring.destroy_keys(row.ns, row.low, row.high, keep, note):
            total += count
        if cut:
            self._keyring.cut()  # also when an attempt before has destroyed them and came no further
        return total
