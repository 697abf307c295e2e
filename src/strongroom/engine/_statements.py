"""SQL statements that run under a name that the caller gave them, so that another call can stop them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from strongroom.errors import ConflictError
from strongroom.model import SqlCancel

__all__ = ["RunningStatements"]


class RunningStatements:
    """By caller and name; nobody can name a statement of somebody else. Of this process only."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, UUID], SqlCancel] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self, caller: str, statement_id: UUID | None, cancel: SqlCancel) -> Iterator[None]:
        """Let ``cancel`` be found while the ``with`` block lasts.

        Raises:
            ConflictError: a statement of the caller runs under this name.
        """
        if statement_id is None:
            yield
            return
        key = (caller, statement_id)
        with self._lock:
            if key in self._running:
                raise ConflictError("a statement of that id is running")
            self._running[key] = cancel
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]

    def cancel(self, caller: str, statement_id: UUID) -> bool:
        """Whether there was one to stop."""
        with self._lock:
            found = self._running.get((caller, statement_id))
        if found is not None:
            found.cancel()
        return found is not None
