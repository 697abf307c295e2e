"""What a check has found, in a form that a person and a program can both read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """``error``: data is damaged or lost. ``warning``: it can be made again. ``info``: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check. ``where`` names the place by numbers and ids, never by content."""

    severity: Severity
    code: str
    message: str
    where: str = ""
    hint: str | None = None
