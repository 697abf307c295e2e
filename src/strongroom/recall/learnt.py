"""How far searches have learnt to look: the part of an index that no row of the ledger says.

It is a few bytes, worth much (without it the next process looks too far, or not far enough), and good only
for the lists that it was learnt with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

from strongroom.recall._reach import Reach, Samples
from strongroom.recall.index import NamespaceIndex

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Learnt:
    """``lists``: BLAKE2b of the centroids, 32 bytes.

    For the best 10, 50, 200 and 800, ``curve``: how many to probe; ``coded``: how many when short codes are
    read, and ``again``: how many vectors are looked at then.
    """

    lists: bytes
    curve: tuple[int, ...]
    coded: tuple[int, ...]
    again: tuple[int, ...]


def learnt_of(index: NamespaceIndex, known: Learnt | None = None) -> Learnt | None:
    """What an index has learnt; None while its searches look at every vector.

    ``known``: what it had learnt with the same lists; saves the digest when nothing is new.
    """
    lane = index.vectors
    if lane is None or lane.is_exact:
        return None
    lists, reach = lane._lists, lane._reach
    numbers = (reach.curve, reach.coded, reach.again)
    if known is not None and (known.curve, known.coded, known.again) == numbers:
        return known
    return Learnt(blake2b(lists.centroids.tobytes(), digest_size=DIGEST_BYTES).digest(), *numbers)


def take_up(index: NamespaceIndex, learnt: Learnt) -> bool:
    """Search as far as was learnt; False when it was learnt with other lists, or cannot have been learnt."""
    lane, now = index.vectors, learnt_of(index)
    reach = Reach(learnt.curve, learnt.coded, learnt.again)
    if lane is None or now is None or now.lists != learnt.lists or not reach.fits(lane._lists.lists):
        return False
    lane._reach = replace(reach, recall=lane._reach.recall)
    lane._samples = Samples(lane._reach)  # to look at least so far, until it has learnt more
    return True
