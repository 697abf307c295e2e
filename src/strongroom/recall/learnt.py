"""How far searches have learnt to look: the part of an index that no row of the ledger says.

It is worth much (without it the next process looks too far, or not far enough), and good only for the lists
that it was learnt with. The questions that it was learnt from go along, as places of their neighbours: a
process that began with none would go by its first few for minutes, and those ask for up to five times as much
as many do, or for too little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from strongroom.recall._reach import DEPTHS, SAMPLES_MAX, Reach, Samples, places_fit
from strongroom.recall.index import NamespaceIndex

DIGEST_BYTES = 32
_QUESTION = (2, DEPTHS[-1])  # of two bytes, the lower first
QUESTION_BYTES = 2 * _QUESTION[0] * _QUESTION[1]
SEEN_BYTES_MAX = SAMPLES_MAX * QUESTION_BYTES


@dataclass(frozen=True, slots=True)
class Learnt:
    """``lists``: BLAKE2b of the centroids, 32 bytes.

    For the best 10, 50, 200 and 800, ``curve``: how many to probe; ``coded``: how many when short codes are
    read, and ``again``: how many vectors are looked at then. ``seen``: for each of the questions behind them,
    the oldest first, the ranks of the lists of its 800 nearest vectors, then their places by short codes.
    """

    lists: bytes
    curve: tuple[int, ...]
    coded: tuple[int, ...]
    again: tuple[int, ...]
    seen: bytes = b""


def learnt_of(index: NamespaceIndex, known: Learnt | None = None) -> Learnt | None:
    """What an index has learnt; None while its searches look at every vector.

    ``known``: what it had learnt with the same lists; saves the digest when nothing is new.
    """
    lane = index.vectors
    if lane is None or lane.is_exact:
        return None
    lists, reach = lane._lists, lane._reach
    numbers = (reach.curve, reach.coded, reach.again)
    same = known is not None and (known.curve, known.coded, known.again) == numbers
    if known is not None and same and len(known.seen) == lane._samples.real_count * QUESTION_BYTES:
        return known
    seen = lane._samples.real.astype("<u2").tobytes()
    return Learnt(blake2b(lists.centroids.tobytes(), digest_size=DIGEST_BYTES).digest(), *numbers, seen)


def take_up(index: NamespaceIndex, learnt: Learnt) -> bool:
    """Search as far as was learnt; False when it was learnt with other lists, or cannot have been learnt."""
    lane, now = index.vectors, learnt_of(index)
    reach = Reach(learnt.curve, learnt.coded, learnt.again)
    if lane is None or now is None or now.lists != learnt.lists or not reach.fits(lane._lists.lists):
        return False
    if len(learnt.seen) % QUESTION_BYTES:
        return False
    seen = np.frombuffer(learnt.seen, "<u2").reshape(-1, *_QUESTION)
    if not places_fit(seen, lane._lists.lists):
        return False
    lane._reach = replace(reach, recall=lane._reach.recall)
    lane._samples = Samples(lane._reach, seen)  # and to look at least so far as long as they are few
    return True
