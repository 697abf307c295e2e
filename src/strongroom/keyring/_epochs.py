"""Rows that say what happened to keys, and which suite the keys of an epoch seal with. Pure: no I/O.

    suite row     "strongroom/keyring-suite@v1\\0" | ns 8 | since 8 | suite 1 | created_us 8
    history row   "strongroom/keyring-history@v1\\0" | id 8 | at_us 8 | length of sealed 4 | sealed

``sealed`` is a sealed record under key ``history``, key id 0, with tenant "", ns 0, memory_id of 16 zero
bytes, field 1, version = id, schema 1; inside stands the MessagePack array of ``KeyEvent``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Final, NamedTuple

import msgspec

from strongroom.crypto import SealContext, SecretKey, open_sealed, seal
from strongroom.errors import DecryptionError
from strongroom.keyring._rows import altered, time_of

_SUITE: Final = struct.Struct(">QQBQ")
_HISTORY: Final = struct.Struct(">QQI")
_SUITE_LABEL: Final = b"strongroom/keyring-suite@v1\0"
_HISTORY_LABEL: Final = b"strongroom/keyring-history@v1\0"
_NO_ID: Final = bytes(16)
_FIELD: Final = 1


@dataclass(frozen=True, slots=True)
class KeyNote:
    """Who changes keys, and why; goes into their history."""

    actor: str
    reason: str
    request_id: str = ""


class Noted(NamedTuple):
    """Something for the history that goes with a change of keys: as ``KeyEvent`` has it."""

    kind: str
    change: str
    keys: Sequence[int]


class KeyEvent(msgspec.Struct, array_like=True, frozen=True):
    """What happened to keys, as it stands in the history.

    ``kind``: ``master``, ``namespace`` or ``data``. ``change``: ``begun``, ``rotated``, ``rewrapped``,
    ``returned``, ``disabled``, ``enabled``, ``compromised``, ``replaced``, ``destroyed``, ``suite``,
    ``root``, ``head moved`` (the ledger has followed to that purpose root), ``namespace done`` (a response to
    that master key has come to its end in this namespace).
    ``keys``: for data keys ranges of key ids, both ends included; for namespace keys versions; for master
    keys their numbers in the keyring, or empty.
    """

    kind: str
    change: str
    ns: int
    keys: tuple[tuple[int, int], ...]
    actor: str
    reason: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class KeyHistoryEntry:
    """One line of the history, with its number and time."""

    id: int
    at: datetime
    event: KeyEvent

    def concerns(self, kind: str, ns: int | None, key: int | None) -> bool:
        """Whether it tells of that key; None: of any."""
        event = self.event
        if event.kind != kind or ns not in (None, event.ns):
            return False
        return key is None or any(first <= key <= last for first, last in event.keys)


class SuiteRow(NamedTuple):
    """A row of ``suites``, in the order of its columns."""

    ns: int
    since: int
    suite: int
    created_us: int
    mac: bytes = b""

    def message(self) -> bytes:
        """The bytes under the row's MAC."""
        return _SUITE_LABEL + _SUITE.pack(*self[:4])

    def authenticated(self, row_key: SecretKey) -> SuiteRow:
        """This row with its MAC made anew."""
        return self._replace(mac=row_key.mac(self.message()))

    def verified(self, row_key: SecretKey) -> SuiteRow:
        """This row, when its MAC holds.

        Raises:
            UnwrapError: the row was altered.
        """
        _require(row_key, self)
        return self


class HistoryRow(NamedTuple):
    """A row of ``key_history``, in the order of its columns."""

    id: int
    at_us: int
    sealed: bytes
    mac: bytes = b""

    def message(self) -> bytes:
        """The bytes under the row's MAC."""
        return _HISTORY_LABEL + _HISTORY.pack(self.id, self.at_us, len(self.sealed)) + self.sealed

    def authenticated(self, row_key: SecretKey) -> HistoryRow:
        """This row with its MAC made anew."""
        return self._replace(mac=row_key.mac(self.message()))

    def verified(self, row_key: SecretKey) -> HistoryRow:
        """This row, when its MAC holds.

        Raises:
            UnwrapError: the row was altered.
        """
        _require(row_key, self)
        return self

    def opened(self, history_key: SecretKey) -> KeyHistoryEntry:
        """The event inside.

        Raises:
            UnwrapError: the row was altered.
        """
        try:
            raw = open_sealed(history_key, _context(self.id), self.sealed)
            return KeyHistoryEntry(self.id, time_of(self.at_us), msgspec.msgpack.decode(raw, type=KeyEvent))
        except (DecryptionError, msgspec.MsgspecError):
            raise altered("the history of keys was altered") from None


def history_row(number: int, at_us: int, event: KeyEvent, history_key: SecretKey) -> HistoryRow:
    """A row, not yet authenticated."""
    return HistoryRow(number, at_us, seal(history_key, 0, _context(number), msgspec.msgpack.encode(event)))


def ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as ranges with both ends included: 1 2 3 7 -> (1, 3), (7, 7)."""
    out: list[tuple[int, int]] = []
    for n in sorted(set(numbers)):
        if out and out[-1][1] == n - 1:
            out[-1] = (out[-1][0], n)
        else:
            out.append((n, n))
    return tuple(out)


def _context(number: int) -> SealContext:
    return SealContext(tenant="", ns=0, memory_id=_NO_ID, field=_FIELD, version=number, schema=1)


def _require(row_key: SecretKey, row: SuiteRow | HistoryRow) -> None:
    try:
        good = compare_digest(row_key.mac(row.message()), row.mac)
    except (struct.error, TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise altered("a row of the keyring was altered, or belongs elsewhere")
