"""Rotations of keys as callers see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

SYSTEM_NAME: Final = "@system"
"""Stands for the store's own namespace (names, API keys, models) where rotations name namespaces."""


class RotationKind(StrEnum):
    """What is rotated."""

    MASTER = "master"  # namespace keys are wrapped anew by the key management service
    NAMESPACE = "namespace"  # a new namespace key wraps the data keys
    DATA = "data"  # new data keys; records are sealed anew
    SUITE = "suite"  # new data keys of another cipher suite
    COMPROMISE = "compromise"  # as data, after a key was exposed: there is no way back


class RotationState(StrEnum):
    """How far a wave of re-encryption is."""

    PREPARING = "preparing"  # keys of the next epoch are being made
    MOVING = "moving"  # records go to them
    MOVED = "moved"  # all have gone; to be finalised, or rolled back
    TURNING = "turning"  # the keys of the epoch before become active again
    RETURNING = "returning"  # records go back to them
    RETURNED = "returned"  # ended: rolled back
    FINALISING = "finalising"  # the keys of the epoch before are being destroyed
    FINALISED = "finalised"  # ended: they are destroyed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One wave of re-encryption over a namespace.

    ``moved``: records sealed anew so far, in the present direction; ``done``: the share of the namespace
    that is through, 0 to 1. ``suite``: that of the new keys. ``error``: code of what stopped a worker last.
    """

    id: int
    namespace: str
    kind: RotationKind
    state: RotationState
    paused: bool
    moved: int
    done: float
    suite: str
    created_at: datetime
    updated_at: datetime
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.state in (RotationState.RETURNED, RotationState.FINALISED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What a rotation of a master or namespace key has done to one namespace.

    ``keys``: wrapped keys that were renewed; ``version``: of the namespace key afterwards.
    """

    namespace: str
    kind: RotationKind
    keys: int
    version: int
