"""Waves of re-encryption as the ledger keeps them: their state, their parts, and the writes of a batch.

A row that is sealed anew keeps its place: ``seq``, ``version`` and ``content_version`` stay, ``key_id`` and
``sealed`` change, and with them the row's element in the head (spec/rotation.md). So no projection has to
look at it again. The cursor of a part moves in the transaction of the rows it has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import apsw

from strongroom.errors import ConflictError, NamespaceNotFoundError, NotFoundError
from strongroom.ledger._types import ELEMENT_PREFIX_BYTES, element
from strongroom.model import State

PART_ROWS: Final = 20_000  # sequence numbers of one part, about
PARTS_MAX: Final = 4_096
LEASES_AHEAD_MAX: Final = 10

_LIVE: Final = int(State.LIVE)
_COLUMNS: Final = (
    "id, ns, state, paused, kind, low, high, barrier, suite, former_suite, through_seq, created_us,"
    " updated_us, moved, error, reason"
)
_ROWS: Final = (
    "SELECT id, memory_id, field, seq, version, key_id, sealed FROM record"
    " WHERE ns = ? AND seq > ? AND seq <= ? AND state = 1 ORDER BY seq"
)
_RESEAL: Final = (
    "UPDATE record SET key_id = ?, sealed = ? WHERE id = ? AND seq = ? AND key_id = ? RETURNING id"
)
_COUNT: Final = "SELECT count(*) FROM record WHERE ns = ? AND state = 1 AND key_id >= ? AND key_id <= ?"
_LAST_SEQ: Final = (
    "SELECT max(seq, ifnull((SELECT max(seq) FROM record WHERE ns = ?1), 0)) FROM namespace WHERE ns = ?1"
)
_NEWEST: Final = (
    "SELECT max(ifnull((SELECT max(last) FROM closed_key), 0), ifnull((SELECT max(max(high, barrier - 1))"
    " FROM wave), 0), ifnull((SELECT max((SELECT max(key_id) FROM (SELECT key_id FROM record"
    " WHERE ns = n.ns ORDER BY seq DESC LIMIT 20))) FROM namespace n), 0))"
)
_IN_USE: Final = "SELECT DISTINCT key_id FROM record WHERE ns = ? AND state = 1"


class WaveState(IntEnum):
    """Values are stored: never change one."""

    PREPARING = 1  # keys of the next epoch are being made
    MOVING = 2  # rows go to them
    MOVED = 3  # all have gone; may be rolled back or finalised
    TURNING = 4  # rolled back: the keys of the epoch before are being made active again
    RETURNING = 5  # rows go back to them
    RETURNED = 6  # end: as it was before
    FINALISING = 7  # the keys of the epoch before are being destroyed
    FINALISED = 8  # end: they are

    @property
    def ended(self) -> bool:
        return self in (WaveState.RETURNED, WaveState.FINALISED)

    @property
    def moves(self) -> bool:
        """Whether rows are being sealed anew."""
        return self in (WaveState.MOVING, WaveState.RETURNING)


class WaveRow(NamedTuple):
    """A wave as it is stored. Rows under the keys ``low`` to ``high`` go to the active key of their subject.

    ``kind``: ``data``, ``suite`` or ``compromise``. ``barrier``: the first key id of the new epoch.
    ``suite``: number of the suite that the new epoch seals with; ``former_suite``: what it was.
    """

    id: int
    ns: int
    state: int
    paused: int
    kind: str
    low: int
    high: int
    barrier: int
    suite: int
    former_suite: int
    through_seq: int
    created_us: int
    updated_us: int
    moved: int
    error: str
    reason: bytes


class PartRow(NamedTuple):
    """A range of sequence numbers, and how far it is done: ``cursor`` is the last one that was passed."""

    wave: int
    part: int
    last_seq: int
    cursor: int


class SealedRow(NamedTuple):
    """A live row to be sealed anew."""

    id: int
    memory_id: bytes
    field: int
    seq: int
    version: int
    key_id: int
    sealed: bytes


class Resealed(NamedTuple):
    """A row and what it is now sealed as."""

    row: SealedRow
    key_id: int
    sealed: bytes


@dataclass(slots=True)
class ResealBatch:
    """What one transaction of a wave writes. Refused when the part is not ``owner``'s any more."""

    wave: int
    part: int
    ns: int
    owner: bytes
    cursor: int
    lease_us: int
    now_us: int
    rows: list[Resealed]


def wave_schema(connection: apsw.Connection) -> None:
    """The tables of waves, and the keys that no new row may be sealed with."""
    connection.execute(_SCHEMA)


_SCHEMA: Final = """
CREATE TABLE wave (
  id INTEGER PRIMARY KEY,
  ns INTEGER NOT NULL,
  state INTEGER NOT NULL,
  paused INTEGER NOT NULL,
  kind TEXT NOT NULL,
  low INTEGER NOT NULL,
  high INTEGER NOT NULL,
  barrier INTEGER NOT NULL,
  suite INTEGER NOT NULL,
  former_suite INTEGER NOT NULL,
  through_seq INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  moved INTEGER NOT NULL,
  error TEXT NOT NULL,
  reason BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX wave_open ON wave (ns) WHERE state NOT IN (6, 8);
CREATE TABLE wave_part (
  wave INTEGER NOT NULL,
  part INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  cursor INTEGER NOT NULL,
  owner BLOB NOT NULL,
  lease_us INTEGER NOT NULL,
  PRIMARY KEY (wave, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE closed_key (
  ns INTEGER NOT NULL,
  wave INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (ns, wave)
) STRICT, WITHOUT ROWID;
"""

WaveJob = Callable[[apsw.Connection], int]


# -- reading -------------------------------------------------------------------------------------------
def read_waves(connection: apsw.Connection, ns: int | None, ended: bool) -> list[WaveRow]:
    where, values = "1" if ns is None else "ns = ?", () if ns is None else (ns,)
    if not ended:
        where += " AND state NOT IN (6, 8)"
    sql = f"SELECT {_COLUMNS} FROM wave WHERE {where} ORDER BY id"  # noqa: S608
    return [WaveRow(*row) for row in connection.execute(sql, values)]


def read_wave(connection: apsw.Connection, wave: int) -> WaveRow:
    row = connection.execute(f"SELECT {_COLUMNS} FROM wave WHERE id = ?", (wave,)).fetchone()  # noqa: S608
    if row is None:
        raise NotFoundError("there is no rotation with that number")
    return WaveRow(*row)


def read_parts(connection: apsw.Connection, wave: int) -> list[PartRow]:
    sql = "SELECT wave, part, last_seq, cursor FROM wave_part WHERE wave = ? ORDER BY part"
    return [PartRow(*row) for row in connection.execute(sql, (wave,))]


def read_rows(
    connection: apsw.Connection, ns: int, after: int, last: int, rows_max: int, bytes_max: int
) -> list[SealedRow]:
    """The live rows of a range, in order of seq: at most so many, and of about so many bytes."""
    found: list[SealedRow] = []
    size = 0
    for row in connection.execute(f"{_ROWS} LIMIT ?", (ns, after, last, rows_max)):
        found.append(SealedRow(*row))
        size += len(row[6])
        if size >= bytes_max:
            break
    return found


def count_under(connection: apsw.Connection, ns: int, low: int, high: int) -> int:
    return int(connection.execute(_COUNT, (ns, low, high)).get)


def read_keys_in_use(connection: apsw.Connection, ns: int) -> list[int]:
    return [key_id for (key_id,) in connection.execute(_IN_USE, (ns,))]


def read_newest_key(connection: apsw.Connection) -> int:
    """The highest key number that the newest rows of each namespace, waves and closed keys name."""
    return int(connection.execute(_NEWEST).get)


def is_closed(connection: apsw.Connection, ns: int, key_id: int) -> bool:
    """Whether no new row may be sealed with that key."""
    sql = "SELECT 1 FROM closed_key WHERE ns = ? AND first <= ? AND last >= ? LIMIT 1"
    return connection.execute(sql, (ns, key_id, key_id)).fetchone() is not None


# -- writing -------------------------------------------------------------------------------------------
def insert_wave(row: WaveRow) -> WaveJob:
    """A job that notes a new wave; its number. ConflictError: the namespace has one that is not ended."""

    def job(connection: apsw.Connection) -> int:
        if connection.execute("SELECT 1 FROM namespace WHERE ns = ?", (row.ns,)).fetchone() is None:
            raise NamespaceNotFoundError()
        if read_waves(connection, row.ns, ended=False):
            raise ConflictError(
                "a rotation of this namespace is not ended yet",
                hint="strongroom rotate status; then finalise it or roll it back",
            )
        number = int(connection.execute("SELECT ifnull(max(id), 0) + 1 FROM wave").get)
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO wave VALUES ({marks})", row._replace(id=number))  # noqa: S608
        return number

    return job


def change_wave(wave: int, wanted: Sequence[WaveState], now_us: int, **values: int | str) -> WaveJob:
    """A job that changes a wave, provided it is in one of the ``wanted`` states; 1 when it was."""

    def job(connection: apsw.Connection) -> int:
        row = read_wave(connection, wave)
        if WaveState(row.state) not in wanted:
            return 0
        sets = ", ".join(f"{name} = ?" for name in ("updated_us", *values))
        sql = f"UPDATE wave SET {sets} WHERE id = ?"  # noqa: S608
        connection.execute(sql, (now_us, *values.values(), wave))
        return 1

    return job


def begin_moving(wave: int, before: WaveState, after: WaveState, now_us: int) -> WaveJob:
    """A job that closes the keys to be left for new rows and cuts the namespace into parts; 1 when done."""

    def job(connection: apsw.Connection) -> int:
        row = read_wave(connection, wave)
        if row.state != before:
            return 0
        # What others have written in this transaction is there; the number of the namespace follows later.
        last = int(connection.execute(_LAST_SEQ, (row.ns,)).get)
        connection.execute("DELETE FROM wave_part WHERE wave = ?", (wave,))
        parts = max(1, min(PARTS_MAX, -(-last // PART_ROWS)))
        step = -(-last // parts) or 1
        cuts = [(wave, n, min(last, (n + 1) * step), n * step) for n in range(parts) if n * step <= last]
        connection.executemany("INSERT INTO wave_part VALUES (?, ?, ?, ?, x'', 0)", cuts)
        # Replaces the range of the way there when it goes back: those keys are open again.
        closed = (row.ns, wave, row.low, row.high)
        connection.execute("INSERT OR REPLACE INTO closed_key VALUES (?, ?, ?, ?)", closed)
        sql = "UPDATE wave SET state = ?, through_seq = ?, updated_us = ?, moved = 0 WHERE id = ?"
        connection.execute(sql, (after, last, now_us, wave))
        return 1

    return job


def claim_part(wave: int, owner: bytes, now_us: int, lease_us: int) -> Callable[[apsw.Connection], int]:
    """A job that takes the first part that nobody works on: its number, or -1 when there is none."""

    def job(connection: apsw.Connection) -> int:
        row = read_wave(connection, wave)
        if row.paused or not WaveState(row.state).moves:
            return -1
        sql = (
            "SELECT part FROM wave_part WHERE wave = ? AND cursor < last_seq"
            " AND (lease_us <= ? OR lease_us > ? OR owner = ?) ORDER BY part LIMIT 1"
        )
        far = (
            now_us + LEASES_AHEAD_MAX * lease_us
        )  # the clock was set back: nobody has promised to work so long
        found = connection.execute(sql, (wave, now_us, far, owner)).fetchone()
        if found is None:
            return -1
        sql = "UPDATE wave_part SET owner = ?, lease_us = ? WHERE wave = ? AND part = ?"
        connection.execute(sql, (owner, now_us + lease_us, wave, found[0]))
        return int(found[0])

    return job


def settle(wave: int, before: WaveState, after: WaveState, now_us: int) -> WaveJob:
    """A job that ends the moving when every part is done; 1 when it did."""

    def job(connection: apsw.Connection) -> int:
        row = read_wave(connection, wave)
        left = "SELECT 1 FROM wave_part WHERE wave = ? AND cursor < last_seq LIMIT 1"
        if row.state != before or connection.execute(left, (wave,)).fetchone() is not None:
            return 0
        sql = "UPDATE wave SET state = ?, updated_us = ? WHERE id = ?"
        connection.execute(sql, (after, now_us, wave))
        connection.execute("DELETE FROM wave_part WHERE wave = ?", (wave,))
        return 1

    return job


def end_wave(wave: int, before: WaveState, after: WaveState, now_us: int) -> WaveJob:
    """A job that ends a wave; narrower ranges of closed keys of earlier ones are forgotten."""

    def job(connection: apsw.Connection) -> int:
        row = read_wave(connection, wave)
        if row.state != before:
            return 0
        sql = "DELETE FROM closed_key WHERE ns = ? AND wave < ? AND first >= ? AND last <= ?"
        connection.execute(sql, (row.ns, wave, row.low, row.high))
        sql = "UPDATE wave SET state = ?, updated_us = ? WHERE id = ?"
        connection.execute(sql, (after, now_us, wave))
        return 1

    return job


def write_resealed(connection: apsw.Connection, batch: ResealBatch) -> tuple[int, list[bytes], list[bytes]]:
    """Write the rows that still stand as they were read, and move the cursor.

    Returns:
        How many, and the elements that leave and enter the head.

    Raises:
        ConflictError: the part has another owner, or the wave does not move now; nothing was written.
    """
    wave = read_wave(connection, batch.wave)
    sql = "SELECT owner, cursor FROM wave_part WHERE wave = ? AND part = ?"
    part = connection.execute(sql, (batch.wave, batch.part)).fetchone()
    if wave.paused or not WaveState(wave.state).moves or part is None or part[0] != batch.owner:
        raise ConflictError("this part of the rotation is not ours any more")
    changes = [(r.key_id, r.sealed, r.row.id, r.row.seq, r.row.key_id) for r in batch.rows]
    written = {row_id for (row_id,) in connection.executemany(_RESEAL, changes)}
    removed: list[bytes] = []
    added: list[bytes] = []
    for row, _, sealed in batch.rows:
        if row.id in written:
            head = (row.field, row.memory_id, row.seq, row.version, _LIVE)
            removed.append(element(*head, row.sealed[:ELEMENT_PREFIX_BYTES]))
            added.append(element(*head, sealed[:ELEMENT_PREFIX_BYTES]))
    sql = "UPDATE wave_part SET cursor = max(cursor, ?), lease_us = ? WHERE wave = ? AND part = ?"
    connection.execute(sql, (batch.cursor, batch.lease_us, batch.wave, batch.part))
    sql = "UPDATE wave SET moved = moved + ?, updated_us = ?, error = '' WHERE id = ?"
    connection.execute(sql, (len(written), batch.now_us, batch.wave))
    return len(written), removed, added
