"""A few texts whose vectors are known, to see that a graph computes what the model should.

Shipped are not the vectors but 24 random projections of each (signs from SHAKE-128), so that every
dimension takes part. The squared distance of two vectors is the mean of the squared differences of
their projections, up to chance (Johnson, Lindenstrauss 1984).
"""

from __future__ import annotations

import hashlib

import numpy as np

from strongroom.embedding._provider import FloatMatrix

KNOWN_TEXTS = (
    "The customer is worried about the price of the enterprise plan.",
    "Photosynthesis turns light into chemical energy.",
    "SELECT count(*) FROM tickets WHERE status = 'open';",
)
KNOWN_DISTANCE_MAX = 0.2  # a cosine of 0.98; int8 measured 0.08, unrelated texts 1.4
PROJECTIONS = 24
# fmt: off
_EXPECTED = (
    (
        2.0049, 2.2647, -0.0147, -2.1810, 0.8480, 0.3645, 1.3972, 0.2695,
        -0.5941, -0.8023, 0.4665, -1.3528, 0.4713, 0.2505, -0.3459, -1.4897,
        0.0880, -1.5634, -0.3158, 0.5572, -0.6091, -1.9591, 0.7653, -0.4210,
    ),
    (
        0.6793, -0.1830, 0.6885, -0.4287, -1.7738, -0.3082, -1.1775, -0.4436,
        1.7561, -0.6871, 0.9944, -0.5067, -0.6633, 0.0297, 0.1254, 0.6442,
        0.0703, 1.7076, 0.7811, -0.5078, 1.1763, 0.9506, 1.0982, 0.7845,
    ),
    (
        0.4513, -0.3245, 0.2297, 0.0364, 0.3681, -0.0981, -1.6004, 0.4482,
        -0.9143, -0.4020, 0.4517, -0.5958, 0.8152, -0.1029, -0.4932, -1.3397,
        0.3160, -1.2128, 0.8098, -0.1122, -0.5966, 2.2698, -0.7289, -1.0908,
    ),
)
# fmt: on


def project(vectors: FloatMatrix) -> FloatMatrix:
    """Projections of vectors of 384 dimensions: float32, shape (rows, 24)."""
    raw = hashlib.shake_128(b"strongroom known vectors").digest(384 * PROJECTIONS // 8)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(384, PROJECTIONS)
    return np.asarray(vectors @ (bits.astype(np.float32) * 2 - 1), dtype=np.float32)


def known_distance(vectors: FloatMatrix) -> float:
    """The largest distance of ``vectors`` (those of KNOWN_TEXTS, in order) from the known ones."""
    expected = np.array(_EXPECTED, np.float32)
    if vectors.shape != (len(KNOWN_TEXTS), 384):
        return float("inf")
    squares = np.mean((project(vectors) - expected) ** 2, axis=1)
    distance = float(np.sqrt(squares.max()))
    return distance if np.isfinite(distance) else float("inf")
