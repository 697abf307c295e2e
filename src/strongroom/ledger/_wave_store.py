"""The part of the ledger that deals with waves of re-encryption (spec/rotation.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import apsw

from strongroom.ledger import _waves as w
from strongroom.ledger._told import Telling, Told

if TYPE_CHECKING:
    from strongroom.ledger._group import GroupCommit
    from strongroom.ledger._read import ReadPool
    from strongroom.ledger._sqlite import Work


class Waves:
    """Waves, their parts and their batches. ``now_us``: the caller's clock, microseconds since the epoch."""

    _group: GroupCommit[Work]
    _pool: ReadPool

    # -- looking --------------------------------------------------------------------------------------
    def waves(self, ns: int | None = None, *, ended: bool = False) -> list[w.WaveRow]:
        """The waves (of one namespace), oldest first; with ``ended`` also those that are over."""
        return self._pool.run(w.read_waves, ns, ended)

    def wave(self, wave: int) -> w.WaveRow:
        """One wave. NotFoundError."""
        return self._pool.run(w.read_wave, wave)

    def wave_parts(self, wave: int) -> list[w.PartRow]:
        """The parts of a wave; none unless it moves."""
        return self._pool.run(w.read_parts, wave)

    def wave_rows(
        self, ns: int, after: int, last: int, *, rows_max: int, bytes_max: int
    ) -> list[w.SealedRow]:
        """Live rows with a seq above ``after`` up to ``last``: at most so many, and about so many bytes."""
        return self._pool.run(w.read_rows, ns, after, last, rows_max, bytes_max)

    def rows_under(self, ns: int, low: int, high: int) -> int:
        """How many live rows are sealed with the keys ``low`` to ``high``. Reads every row."""
        return self._pool.run(w.count_under, ns, low, high)

    def keys_in_use(self, ns: int) -> list[int]:
        """The keys that live rows of a namespace are sealed with. Reads every row of the namespace."""
        return self._pool.run(w.read_keys_in_use, ns)

    def newest_key(self) -> int:
        """The highest number of a data key that the newest rows and the rotations name; 0 when there is none.

        A hint, in time that grows with the number of namespaces alone: an older row may name a higher one.
        """
        return self._pool.run(w.read_newest_key)

    # -- writing --------------------------------------------------------------------------------------
    def begin_wave(self, row: w.WaveRow, telling: Telling[w.WaveRow] | None = None) -> int:
        """Note a new wave; its number.

        ``telling``, here and below: the audit entry of the step, which is in its transaction.

        Raises:
            ConflictError: the namespace has one that is not ended. NamespaceNotFoundError, StorageError.
            OutdatedError: what the entry relies on has changed; so below.
        """
        job = w.insert_wave(row)
        if telling is None:
            return self._job(job)
        return self._job(
            Told(job, lambda c, number: telling.entry(w.read_wave(c, number)), telling.relies_on)
        )

    def change_wave(
        self,
        wave: int,
        wanted: tuple[w.WaveState, ...],
        now_us: int,
        telling: Telling[w.WaveRow] | None = None,
        **values: int | str,
    ) -> bool:
        """Change columns of a wave that is in one of the ``wanted`` states; False when it is in another."""
        return self._told(wave, w.change_wave(wave, wanted, now_us, **values), telling)

    def begin_moving(
        self,
        wave: int,
        before: w.WaveState,
        after: w.WaveState,
        now_us: int,
        telling: Telling[w.WaveRow] | None = None,
    ) -> bool:
        """Close the keys to be left for new rows, and cut the namespace into parts; False: another state."""
        return self._told(wave, w.begin_moving(wave, before, after, now_us), telling)

    def claim_part(self, wave: int, owner: bytes, now_us: int, lease_us: int) -> int | None:
        """A part that nobody works on, for ``lease_us`` microseconds; None: there is none now."""
        part = self._job(w.claim_part(wave, owner, now_us, lease_us))
        return None if part < 0 else part

    def reseal(self, batch: w.ResealBatch) -> int:
        """Write rows that were sealed anew, and the cursor, durable on return; how many it were.

        A row that has changed or was deleted since it was read is left as it is.

        Raises:
            ConflictError: the part is not the owner's any more, or the wave does not move now.
            StorageError. Nothing was written.
        """
        return cast(int, self._group.submit(batch))

    def settle_wave(
        self,
        wave: int,
        before: w.WaveState,
        after: w.WaveState,
        now_us: int,
        telling: Telling[w.WaveRow] | None = None,
    ) -> bool:
        """End the moving once every part is done; False when some is not, or in another state."""
        return self._told(wave, w.settle(wave, before, after, now_us), telling)

    def end_wave(
        self,
        wave: int,
        before: w.WaveState,
        after: w.WaveState,
        now_us: int,
        telling: Telling[w.WaveRow] | None = None,
    ) -> bool:
        """End a wave for good; False when it is in another state."""
        return self._told(wave, w.end_wave(wave, before, after, now_us), telling)

    def _told(self, wave: int, job: w.WaveJob, telling: Telling[w.WaveRow] | None) -> bool:
        if telling is None:
            return bool(self._job(job))

        def entry(connection: apsw.Connection, done: int) -> bytes | None:
            return telling.entry(w.read_wave(connection, wave)) if done else None

        return bool(self._job(Told(job, entry, telling.relies_on)))

    def _job(self, job: w.WaveJob | Told) -> int:
        return cast(int, self._group.submit(job))
