"""Vectors of any norm, checked and made unit vectors: one, or those of a chunk by the block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import InvalidVectorError

if TYPE_CHECKING:
    from strongroom.engine._write import Prepared


def check_vector(value: object, dimensions: int | None) -> NDArray[np.float32]:
    """A unit vector, float32, shape (dimensions,), made from any sequence of numbers.

    Raises:
        InvalidVectorError: wrong length, NaN, infinity, zero norm, or no numbers at all.
    """
    try:
        given = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidVectorError("the embedding is not a sequence of numbers") from None
    if given.ndim != 1 or given.shape[0] == 0:
        raise InvalidVectorError("the embedding must have one dimension")
    if given.dtype.kind not in "fiu":
        raise InvalidVectorError("the embedding is not a sequence of numbers")
    if dimensions is not None and given.shape[0] != dimensions:
        raise InvalidVectorError(
            f"the embedding has {given.shape[0]} numbers", hint=f"this namespace takes {dimensions}"
        )
    if given.dtype == _FLOAT32:
        wide = given.astype(np.float64)  # in which no square of a float32 overflows
        square = float(wide.dot(wide))
        if _UNIT_MIN < square < _UNIT_MAX:
            single: NDArray[np.float32] = given
            return single / np.float32(math.sqrt(square))
    return _unit_by_scale(given)


def needs_only_its_norm(value: object, dimensions: int) -> bool:
    """Whether a vector is of the form that ``unit_vectors`` takes; others go to ``check_vector``."""
    return type(value) is np.ndarray and value.dtype == _FLOAT32 and value.shape == (dimensions,)


def unit_vectors(given: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32] | InvalidVectorError]:
    """``check_vector`` for vectors of one length that ``needs_only_its_norm``, bit for bit; an error in the
    place of one that is refused.

    By the block, since it is the calls that take time and not the numbers.
    """
    out: list[NDArray[np.float32] | InvalidVectorError] = []
    for start in range(0, len(given), _BLOCK_VECTORS):
        single = np.stack(given[start : start + _BLOCK_VECTORS])
        wide = single.astype(np.float64)
        squares = np.vecdot(wide, wide)
        usual = (squares > _UNIT_MIN) & (squares < _UNIT_MAX)
        if usual.all():
            single /= np.sqrt(squares).astype(np.float32)[:, None]
            out += list(single)
            continue
        for vector in single:
            try:
                out.append(check_vector(vector, None))
            except InvalidVectorError as e:
                out.append(e)
    return out


_BLOCK_VECTORS = 64  # of 384 numbers fill 300 KiB, twice over: what a core has at hand
_FLOAT32 = np.dtype(np.float32)
_UNIT_MIN, _UNIT_MAX = 1e-12, 1e12  # squares in between neither vanish nor overflow in float32


def _unit_by_scale(given: NDArray[Any]) -> NDArray[np.float32]:
    """The unit vector of any numbers; scaled first, so that no square overflows or vanishes."""
    wide = given.astype(np.float64)
    largest = float(np.max(np.abs(wide)))
    if not math.isfinite(largest):
        raise InvalidVectorError("the embedding holds NaN or infinity")
    if largest == 0.0:
        raise InvalidVectorError("the embedding is zero")
    wide /= largest
    return (wide / math.sqrt(float(wide @ wide))).astype(np.float32)


class UnitVectors:
    """The vectors of a chunk on their way to unit length, by the block."""

    def __init__(self, prepared: list[Prepared]) -> None:
        self._prepared = prepared
        self._waiting: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}  # by dimensions; their places
        self._refused: tuple[int, InvalidVectorError] | None = None

    def take(self, value: object, dimensions: int) -> NDArray[np.float32]:
        """The unit vector; or the vector as it was given, for the next memory, until ``refused`` is asked.

        Raises:
            InvalidVectorError: as ``check_vector``.
        """
        if not needs_only_its_norm(value, dimensions):
            return check_vector(value, dimensions)
        vector = cast("NDArray[np.float32]", value)
        self._waiting.setdefault(dimensions, []).append((len(self._prepared), vector))
        return vector

    def refused(self) -> tuple[int, InvalidVectorError] | None:
        """The place of the first one that is no vector at all; all others of now are unit vectors."""
        waiting, self._waiting = self._waiting, {}
        for given in waiting.values():
            for (place, _), made in zip(given, unit_vectors([v for _, v in given]), strict=True):
                if not isinstance(made, InvalidVectorError):
                    self._prepared[place].vector = made
                elif self._refused is None or place < self._refused[0]:
                    self._refused = place, made
        return self._refused
