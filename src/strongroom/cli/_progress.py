"""Progress of long work, on stderr: a bar on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
from threading import RLock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from strongroom.errors import OperationTimeoutError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from strongroom.cli._app import AnySession

_LINE_EVERY_S: Final = 5.0
_FIRST_LOOK_S: Final = 2.0  # each look is an operation of its own, with an audit entry
_LOOK_EVERY_S: Final = 5.0


class Progress:
    """``update(done, total)`` as often as one likes; ``quiet`` leaves the plain lines out."""

    def __init__(self, title: str, unit: str, *, quiet: bool = False) -> None:
        self._title = title
        self._unit = unit
        self._quiet = quiet
        self._bar: Bar | None = None
        self._task: Any = None
        self._next_line = monotonic() + _LINE_EVERY_S

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TaskProgressColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            from strongroom.cli._output import console

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(show_speed=True),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeRemainingColumn(),
                console=console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._title, total=None, unit=self._unit)
            self._bar.start()
        return self

    def update(self, done: int, total: int, title: str | None = None, unit: str | None = None) -> None:
        """Tell how far it is; ``title`` and ``unit``: of this part of the work."""
        title, unit = title or self._title, unit or self._unit
        if self._bar is not None:
            self._bar.update(self._task, description=title, completed=done, total=max(done, total), unit=unit)
            return
        now = monotonic()
        if not self._quiet and now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            sys.stderr.write(f"{title}: {done} of {max(done, total)} {unit}\n")
            sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class Loading:
    """Shows how far a namespace is that is read from its rows, once that takes more than a moment."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown: Progress | None = None
        self._since: float | None = None
        self._lock = RLock()  # several namespaces may be read at once

    def __call__(self, done: int, total: int) -> None:
        with self._lock:
            now = monotonic()
            self._since = now if self._since is None else self._since
            if self._shown is None and now - self._since >= _FIRST_LOOK_S:
                self._shown = Progress("reading the rows", "changes", quiet=self._quiet).__enter__()
            if self._shown is not None:
                self._shown.update(done, total)
            if done >= total:
                self.close()

    def close(self) -> None:
        with self._lock:
            shown, self._shown, self._since = self._shown, None, None
            if shown is not None:
                shown.__exit__(None, None, None)


def wait_embedded(session: AnySession, timeout_s: float, *, quiet: bool) -> None:
    """``flush`` with a progress bar, once it takes more than a moment.

    Raises:
        OperationTimeoutError: it took longer than ``timeout_s`` seconds.
    """
    deadline = monotonic() + timeout_s
    step = _FIRST_LOOK_S
    with Progress("embedding", "memories", quiet=quiet) as progress:
        while True:
            left = deadline - monotonic()
            try:
                session.flush(max(0.0, min(step, left)))
                return
            except OperationTimeoutError:
                if left <= step:
                    raise
            found = session.stats()
            progress.update(found.embedded, found.embedded + found.pending)
            step = _LOOK_EVERY_S
