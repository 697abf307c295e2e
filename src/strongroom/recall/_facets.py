"""The everyday filters of a namespace as arrays by row id, exact, beside its columnar table.

A comparison of one small array is a tenth of what the columnar engine takes to plan a statement. Held:
``created_at``, ``expires_at``, ``importance``, and a 16-bit code for each of the texts in ``CODED`` (0: no
text; codes stand for whole texts, so that equal codes mean equal texts). A column with more than 65,535
distinct texts is given up. About 36 bytes a row.

Not thread-safe: whoever writes the table writes these, and readers hold the index's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._columns import TABLE_COLUMNS, Row
from strongroom.recall._ids import ROWS_MIN

__all__ = ["CODED", "Compare", "Condition", "Facets", "Group", "KeptMask", "OneOf"]

CODED: Final = ("kind", "sensitivity", "agent_id", "subject", "session_id")
BLOCK_ROWS: Final = 65_536
NEVER_US: Final = np.iinfo(np.int64).max
_CODES_MAX: Final = 65_535
GROUPS_MAX: Final = 1024  # that could be: more make more objects here than the columnar engine takes time
_PLACES: Final = {
    name: TABLE_COLUMNS.index(name) for name in (*CODED, "rid", "created_at", "expires_at", "importance")
}

Mask = NDArray[np.bool_]
Operator = Literal["=", "<", "<=", ">", ">="]
_OPERATORS: Final[dict[str, Callable[..., Mask]]] = {
    "=": np.equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True, slots=True)
class OneOf:
    """The text of ``column`` (one of ``CODED``) is one of ``values``; a row without a text does not match."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """``importance`` with a float, or ``created_at`` with microseconds since the epoch."""

    column: Literal["importance", "created_at"]
    operator: Operator
    value: float | int


Condition = OneOf | Compare


@dataclass(frozen=True, slots=True, eq=False)
class KeptMask:
    """``passing``: by rid, the rows that fulfil ``conditions``, were there and had not expired at ``now_us``;
    not to be changed. ``removals``: how often rows had been taken away by then."""

    era: object
    conditions: tuple[Condition, ...]
    passing: Mask
    removals: int
    now_us: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rows with the same ``texts``, one for each column asked about: how many, and their importance added up
    (0.0 where it was not asked for)."""

    texts: tuple[str | None, ...]
    rows: int
    importance: float


class Facets:
    """Arrays by row id of one table."""

    def __init__(self) -> None:
        self._held: Mask = np.zeros(0, dtype=np.bool_)
        self._created = np.zeros(0, dtype=np.int64)
        self._expires = np.zeros(0, dtype=np.int64)
        self._importance = np.zeros(0, dtype=np.float64)
        self._codes: dict[str, NDArray[np.uint16]] = {c: np.zeros(0, dtype=np.uint16) for c in CODED}
        self._known: dict[str, dict[str | None, int]] = {c: {None: 0} for c in CODED}
        self._newest = np.zeros(0, dtype=np.int64)  # of each block, never too early
        self._expires_first: int = NEVER_US
        self._end = 0
        self._era = object()  # another one when rows come before rows that are there
        self._removals = 0

    # -- changes ------------------------------------------------------------------------------------
    def append(self, rows: Sequence[Row]) -> None:
        """Rows as ``_columns.to_row`` makes them, with growing rids."""
        if not rows:
            return
        rids = np.array([row[_PLACES["rid"]] for row in rows], dtype=np.int64)
        ends = [row[_PLACES["expires_at"]] for row in rows]
        self._put(
            rids,
            np.array([row[_PLACES["created_at"]] for row in rows], dtype=np.int64),
            np.array([NEVER_US if e is None else e for e in ends], dtype=np.int64),
            np.array([row[_PLACES["importance"]] for row in rows], dtype=np.float64),
        )
        for column in list(self._codes):
            place = _PLACES[column]
            self._code(column, rids, [row[place] for row in rows])

    def importance(self, rids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The importance of rows that are there, shape (len(rids),)."""
        return self._importance[rids]

    def append_arrow(self, rows: Any) -> None:
        """Rows of an Arrow table with the table's columns."""
        if not rows.num_rows:
            return
        rids = rows.column("rid").to_numpy()
        ends = rows.column("expires_at").cast("int64").fill_null(NEVER_US)
        created = rows.column("created_at").cast("int64").to_numpy()
        self._put(rids, created, ends.to_numpy(), rows.column("importance").to_numpy())
        for column in list(self._codes):
            texts = rows.column(column).combine_chunks().dictionary_encode()
            codes = self._codes_of(column, texts.dictionary.to_pylist())
            if codes is not None:
                places = texts.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
                self._codes[column][rids] = np.append(codes, np.uint16(0))[places]

    def _put(
        self,
        rids: NDArray[np.int64],
        created: NDArray[np.int64],
        expires: NDArray[np.int64],
        importance: NDArray[np.float64],
    ) -> None:
        if int(rids[0]) < self._end:
            self._era = object()
        self._reserve(int(rids[-1]) + 1)
        self._held[rids] = True
        self._created[rids] = created
        self._expires[rids] = expires
        self._importance[rids] = importance
        self._expires_first = min(self._expires_first, int(expires.min()))
        np.maximum.at(self._newest, rids // BLOCK_ROWS, created)

    def _code(self, column: str, rids: NDArray[np.int64], texts: Sequence[str | None]) -> None:
        codes = self._codes_of(column, texts)
        if codes is not None:
            self._codes[column][rids] = codes

    def _codes_of(self, column: str, texts: Iterable[str | None]) -> NDArray[np.uint16] | None:
        """The code of each text, new ones included; None: there are too many, the column is given up."""
        known = self._known[column]
        codes = [known.setdefault(text, len(known)) for text in texts]
        if len(known) > _CODES_MAX + 1:
            del self._codes[column], self._known[column]
            return None
        return np.array(codes, dtype=np.uint16)

    def _reserve(self, end: int) -> None:
        self._end = max(self._end, end)
        have = len(self._held)
        if end <= have:
            return
        size = max(end, have + have // 2, ROWS_MIN)

        def grown(old: NDArray[Any]) -> NDArray[Any]:
            new = np.zeros(size, dtype=old.dtype)
            new[:have] = old
            return new

        self._held, self._created = grown(self._held), grown(self._created)
        self._expires, self._importance = grown(self._expires), grown(self._importance)
        self._codes = {column: grown(codes) for column, codes in self._codes.items()}
        blocks = -(-size // BLOCK_ROWS)
        newest = np.full(blocks, np.iinfo(np.int64).min, dtype=np.int64)
        newest[: len(self._newest)] = self._newest
        self._newest = newest

    def remove(self, rids: Sequence[int]) -> None:
        """Rows that are gone; a rid that is not there is no error."""
        index = np.asarray(rids, dtype=np.int64)
        self._held[index[(index >= 0) & (index < self._end)]] = False
        self._removals += 1

    # -- questions ----------------------------------------------------------------------------------
    def covers(self, conditions: Sequence[Condition]) -> bool:
        """Whether these can be answered here."""
        return all(isinstance(c, Compare) or c.column in self._codes for c in conditions)

    def count(self, conditions: Sequence[Condition], now_us: int) -> int:
        """How many rows fulfil all of them and have not expired."""
        tests = self._tests(conditions, now_us)
        if tests is None:
            return 0
        return sum(int(np.count_nonzero(self._mask(tests, block))) for block in self._blocks())

    def mask(self, conditions: Sequence[Condition], now_us: int, kept: KeptMask | None = None) -> KeptMask:
        """Which rows fulfil all of them and have not expired; to be kept for the next time. Of rows that
        ``kept`` knows only those are looked at again that may be gone or have expired since, and where there
        are none of those, nor new ones, it is the answer."""
        known, is_same = 0, False
        if kept is not None and kept.era is self._era and kept.conditions == tuple(conditions):
            if kept.now_us <= now_us or kept.now_us < self._expires_first:  # else rows may live again
                known = min(len(kept.passing), self._end)
            is_same = known == self._end and kept.removals == self._removals
        if kept is not None and is_same and now_us < self._expires_first:
            return kept
        passing = np.zeros(self._end, dtype=np.bool_)
        if kept is not None and known:
            passing[:known] = kept.passing[:known]
        tests = self._tests(conditions, None)
        if tests is not None:
            for start in range(known, self._end, BLOCK_ROWS):
                block = slice(start, min(start + BLOCK_ROWS, self._end))
                passing[block] = self._mask(tests, block)
        if not is_same:
            passing &= self._held[: self._end]
        if now_us >= self._expires_first:
            passing &= self._expires[: self._end] > now_us
        passing.flags.writeable = False
        return KeptMask(self._era, tuple(conditions), passing, self._removals, now_us)

    def groups(
        self, columns: Sequence[str], conditions: Sequence[Condition], now_us: int, *, adding: bool
    ) -> list[Group] | None:
        """The rows that fulfil all of them and have not expired, by their texts in ``columns`` of ``CODED``,
        in no order; ``adding``: their importance, block by block. None: there could be too many groups."""
        if not all(column in self._codes for column in columns):
            return None
        texts = [list(self._known[column]) for column in columns]
        size = prod(map(len, texts))
        if size > GROUPS_MAX:
            return None
        rows, importance = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.float64)
        tests = self._tests(conditions, now_us)
        for block in self._blocks() if tests is not None else ():
            mask = self._mask(tests or (), block)
            chosen = slice(None) if mask.all() else mask
            numbers = self._numbers(columns, block)[chosen]
            rows += np.bincount(numbers, minlength=size)
            if adding:
                importance += np.bincount(numbers, self._importance[block][chosen], minlength=size)
        there = np.flatnonzero(rows)
        rest, named = there, list[list[str | None]]()
        for names in reversed(texts):
            rest, places = np.divmod(rest, len(names))
            named.insert(0, [names[place] for place in places.tolist()])
        keys = zip(*named, strict=True) if named else [()] * len(there)
        return list(map(Group, keys, rows[there].tolist(), importance[there].tolist()))

    def _numbers(self, columns: Sequence[str], block: slice) -> NDArray[np.intp]:
        """The number of the group of each row of a block: its codes as the digits of one number."""
        if not columns:
            return np.zeros(len(self._held[block]), dtype=np.intp)
        numbers = self._codes[columns[0]][block].astype(np.intp)
        for column in columns[1:]:
            numbers *= len(self._known[column])
            numbers += self._codes[column][block]
        return numbers

    def newest(
        self, conditions: Sequence[Condition], count: int, now_us: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Up to ``count`` of those rows, newest first: (rids, created in microseconds), int64, shape (n,)."""
        rids = created = np.empty(0, dtype=np.int64)
        tests = self._tests(conditions, now_us)
        if tests is None or count <= 0:
            return rids, created
        blocks = list(self._blocks())
        for number in np.argsort(self._newest[: len(blocks)])[::-1].tolist():
            if len(rids) >= count and created[-1] >= self._newest[number]:
                break
            block = blocks[number]
            found = np.flatnonzero(self._mask(tests, block)) + block.start
            rids = np.concatenate([rids, found])
            created = np.concatenate([created, self._created[found]])
            if len(rids) > count:
                keep = np.argpartition(created, len(created) - count)[len(created) - count :]
                rids, created = rids[keep], created[keep]
            order = np.argsort(-created, kind="stable")
            rids, created = rids[order], created[order]
        return rids, created

    def holds(self, rid: int, conditions: Sequence[Condition], now_us: int) -> bool:
        """Whether this row is there, fulfils all of them and has not expired."""
        tests = self._tests(conditions, now_us) if 0 <= rid < self._end else None
        return tests is not None and bool(self._mask(tests, slice(rid, rid + 1))[0])

    # -- inside -------------------------------------------------------------------------------------
    def _blocks(self) -> Iterable[slice]:
        for start in range(0, self._end, BLOCK_ROWS):
            yield slice(start, min(start + BLOCK_ROWS, self._end))

    def _tests(
        self, conditions: Sequence[Condition], now_us: int | None
    ) -> list[Callable[[slice], Mask]] | None:
        """A test of a block for each condition, and whether it has expired; None: no row can pass."""
        tests: list[Callable[[slice], Mask]] = []
        for condition in conditions:
            if isinstance(condition, Compare):
                array: NDArray[Any] = self._importance if condition.column == "importance" else self._created
                tests.append(_test(array, _OPERATORS[condition.operator], condition.value))
                continue
            known = self._known[condition.column]
            codes = sorted({known[value] for value in condition.values if value in known})
            if not codes:
                return None
            column = self._codes[condition.column]
            if len(codes) == 1:
                tests.append(_test(column, np.equal, np.uint16(codes[0])))
            else:
                tests.append(_one_of(column, np.array(codes, dtype=np.uint16)))
        if now_us is not None and now_us >= self._expires_first:
            tests.append(_test(self._expires, np.greater, now_us))
        return tests

    def _mask(self, tests: Sequence[Callable[[slice], Mask]], block: slice) -> Mask:
        mask = self._held[block]
        for test in tests:
            mask = mask & test(block)
        return mask

    def memory_bytes(self) -> int:
        """Bytes of the arrays, and a close estimate of the texts."""
        arrays = (self._held, self._created, self._expires, self._importance, *self._codes.values())
        return sum(a.nbytes for a in arrays) + 120 * sum(len(known) for known in self._known.values())


def _test(array: NDArray[Any], operator: Callable[..., Mask], value: Any) -> Callable[[slice], Mask]:
    return lambda block: operator(array[block], value)


def _one_of(array: NDArray[np.uint16], values: NDArray[np.uint16]) -> Callable[[slice], Mask]:
    return lambda block: np.isin(array[block], values)
