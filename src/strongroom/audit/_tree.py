"""The Merkle tree over the audit log (RFC 9162, section 2.1), without I/O.

A tree of ``size`` leaves is named by its complete subtrees: ``Node (level, position)`` covers the leaves
``[position << level, (position + 1) << level)``. Proofs are planned as lists of leaf ranges; each range is
taken apart into complete subtrees, the caller looks their hashes up, and ``fold`` puts them together. So a
proof over ten million leaves needs some fifty hashes.

    leaf    SHA-256(0x00 | sealed entry)
    inner   SHA-256(0x01 | left | right)
    empty   SHA-256("")

All hashes are 32 bytes. Leaves count from 0: entry ``seq`` of the ledger is leaf ``seq - 1``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

Node = tuple[int, int]  # level, position
Range = tuple[int, int]  # leaves [start, end)

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
STORED_LEVEL_MIN: Final = 4  # subtrees below are made from the entries when they are needed
_sha256 = hashlib.sha256


def inner_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


def fold(parts: Sequence[bytes]) -> bytes:
    """The hash over complete subtrees that stand side by side, the largest first."""
    if not parts:
        return EMPTY_ROOT
    result = parts[-1]
    for part in reversed(parts[:-1]):
        result = inner_hash(part, result)
    return result


def subtrees(start: int, end: int) -> list[Node]:
    """The complete subtrees that cover ``[start, end)``, left to right; ``start`` begins a subtree."""
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges whose hashes prove that leaf ``index`` is in the tree of ``size`` leaves (2.1.3.1).

    Ordered from the leaf up, as a proof is. ``0 <= index < size``.
    """
    start, end = 0, size
    ranges: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    ranges.reverse()
    return ranges


def consistency_ranges(old: int, size: int) -> list[Range]:
    """The ranges whose hashes prove that the tree of ``old`` leaves is the beginning of that of ``size``.

    RFC 9162, section 2.1.4.1. ``0 < old <= size``; none for equal sizes.
    """
    start, end = 0, size
    ranges: list[Range] = []
    whole = True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    if not whole:
        ranges.append((start, end))
    ranges.reverse()
    return ranges


def needed(ranges: Iterable[Range]) -> list[Node]:
    """All complete subtrees that the hashes of these ranges are made of."""
    return [node for start, end in ranges for node in subtrees(start, end)]


def hashes(ranges: Iterable[Range], known: Mapping[Node, bytes]) -> list[bytes]:
    """The hash of each range, from the hashes of its complete subtrees.

    Raises:
        KeyError: one of ``needed(ranges)`` is not known.
    """
    return [fold([known[node] for node in subtrees(start, end)]) for start, end in ranges]


def subtree_hash(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    tree = Frontier(0, ())
    tree.extend(leaves)
    return tree.root()


class Frontier:
    """The right edge of a growing tree: one hash for each binary digit of its size."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int, peaks: Iterable[bytes]) -> None:
        """``peaks``: the hashes of ``subtrees(0, size)``."""
        self.size = size
        self._peaks = list(peaks)

    def root(self) -> bytes:
        return fold(self._peaks)

    def extend(self, leaves: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
        """Append leaf hashes; the subtrees ``(level, position, hash)`` to be stored that became complete."""
        peaks = self._peaks
        done: list[tuple[int, int, bytes]] = []
        for leaf in leaves:
            position, level, value = self.size, 0, leaf
            while position & 1:
                value = _sha256(b"\x01" + peaks.pop() + value).digest()
                position >>= 1
                level += 1
                if level >= STORED_LEVEL_MIN:
                    done.append((level, position, value))
            peaks.append(value)
            self.size += 1
        return done

    def copy(self) -> Frontier:
        return Frontier(self.size, self._peaks)


def _split(size: int) -> int:
    """The largest power of two below ``size`` (which is at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)
