"""The root of the error tree."""

from __future__ import annotations

import copy
from typing import ClassVar, Self


class StrongroomError(Exception):
    """Anything that Strongroom refuses or fails to do."""

    code: ClassVar[str] = "error"
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        text = message if message is not None else (type(self).__doc__ or self.code).strip()
        super().__init__(text)
        self.message: str = text
        self.hint: str | None = None
        self.advise(hint if hint is not None else self.default_hint)

    def advise(self, hint: str | None) -> None:
        """Take another hint; a traceback shows it below the message."""
        self.hint = hint
        self.__notes__ = [f"hint: {hint}"] if hint else []

    def beside(self, done: str) -> Self:
        """The same error, told with what is done and stays. A copy: some are kept, and raised again."""
        made = copy.copy(self)
        made.message = f"{self.message.rstrip('.')} ({done})"
        made.args = (made.message,)
        return made

    @property
    def has_own_hint(self) -> bool:
        """Whether the hint is about this very case, and not the one that its class always gives."""
        return self.hint is not None and self.hint != self.default_hint

    def __str__(self) -> str:
        return self.message

    def as_dict(self) -> dict[str, str]:
        """``{"code", "message"[, "hint"]}``: the form in which every surface shows an error."""
        out = {"code": self.code, "message": self.message}
        if self.hint:
            out["hint"] = self.hint
        return out
