"""What a response to an incident has done, as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStep:
    """One thing that was done (or is planned), for how many, and how long it took in seconds."""

    what: str
    namespace: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseReport:
    """A response: ``outcome`` is ``planned`` or ``done``; ``document`` the signed report as text.

    ``coverage``: counts, ``records_under_exposed_keys`` among them; ``left``: what the response cannot undo.
    """

    key: str
    outcome: str
    drill: bool
    seconds: float
    steps: tuple[ResponseStep, ...]
    coverage: Mapping[str, int]
    left: tuple[str, ...]
    document: str = field(repr=False)
