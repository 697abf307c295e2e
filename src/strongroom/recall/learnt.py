"""How far searches have learnt to look: the part of an index that no row of the ledger says.

It is a few bytes, worth much (without it the next process looks too far, or not far enough), and good only
for the lists that it was learnt with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

from strongroom.recall._reach import DEPTHS, Samples
from strongroom.recall.index import NamespaceIndex

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Learnt:
    """``lists``: BLAKE2b of the centroids, 32 bytes. ``curve``: how many to probe for the best 10, 50 ...."""

    lists: bytes
    curve: tuple[int, ...]


def learnt_of(index: NamespaceIndex, known: Learnt | None = None) -> Learnt | None:
    """What an index has learnt; None while its searches look at every vector.

    ``known``: what it had learnt with the same lists; saves the digest when the curve is the same.
    """
    lane = index.vectors
    if lane is None or lane.is_exact:
        return None
    lists, curve = lane._lists, lane._reach.curve
    if known is not None and known.curve == curve:
        return known
    return Learnt(blake2b(lists.centroids.tobytes(), digest_size=DIGEST_BYTES).digest(), curve)


def take_up(index: NamespaceIndex, learnt: Learnt) -> bool:
    """Search as far as was learnt; False when it was learnt with other lists, or is no such curve."""
    lane, curve = index.vectors, learnt.curve
    now = learnt_of(index)
    if lane is None or now is None or now.lists != learnt.lists or len(curve) != len(DEPTHS):
        return False
    if not (curve[0] > 0 and curve[-1] <= lane._lists.lists and list(curve) == sorted(curve)):
        return False
    lane._reach = replace(lane._reach, curve=curve)
    lane._samples = Samples(lane._reach)  # to look at least so far, until it has learnt more
    return True
