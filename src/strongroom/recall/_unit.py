"""Vectors as the lane takes them: float32 of norm 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strongroom.errors import InvalidVectorError

NORM_TOLERANCE = 1e-3
NORM_EXACT = 1e-5  # a vector with a norm this close to 1 is taken as it is


def check_vector(vector: ArrayLike, dimensions: int | None = None) -> NDArray[np.float32]:
    """``vector`` as float32 of norm 1, shape (dimensions,).

    Raises:
        InvalidVectorError: not one-dimensional, another length, not finite, or all zero.
    """
    if (
        isinstance(vector, np.ndarray)
        and vector.dtype == np.float32
        and vector.shape == (len(vector) if dimensions is None and vector.ndim else dimensions,)
    ):
        norm = float(vector @ vector)
        if abs(norm - 1.0) < NORM_EXACT:  # false for NaN as well
            return np.ascontiguousarray(vector)
    try:
        wide = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidVectorError("a vector is a sequence of numbers") from None
    if wide.ndim != 1 or not wide.size:
        raise InvalidVectorError("a vector has one dimension and at least one component")
    if dimensions is not None and wide.size != dimensions:
        raise InvalidVectorError(f"the vector has {wide.size} components, expected {dimensions}")
    largest = float(np.max(np.abs(wide)))
    if not math.isfinite(largest):
        raise InvalidVectorError("the vector holds NaN or infinity")
    if largest == 0.0:
        raise InvalidVectorError("the vector is all zero")
    wide = wide / largest  # so that the squares neither overflow nor vanish
    return np.ascontiguousarray(wide / np.sqrt(wide @ wide), dtype=np.float32)
