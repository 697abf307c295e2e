"""How far the namespaces are that are being read from their rows: in the log, as a figure, for a program.

A namespace is read so when it has no snapshot that can be believed; among millions that takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_Item = TypeVar("_Item")
_LINE_EVERY_S: Final = 5.0


class Reading:
    """``observe``, when a program sets it, is told the changes that were passed and how many there are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._shares: dict[int, float] = {}
        self.observe: Callable[[int, int], object] | None = None
        self._show()

    @contextmanager
    def of(self, ns: int, total: int) -> Iterator[Callable[[int], None]]:
        """While a namespace is read: what is to be told the number of the last change that was taken in."""
        next_line = monotonic() + _LINE_EVERY_S

        def passed(seq: int) -> None:
            nonlocal next_line
            self._set(ns, seq / max(1, total))
            if self.observe is not None:
                self.observe(seq, total)
            if monotonic() >= next_line:
                next_line = monotonic() + _LINE_EVERY_S
                self._engine.log.info("namespace_loading", ns=ns, changes=seq, of=total)

        self._set(ns, 0.0)
        try:
            yield passed
        finally:
            self._set(ns, None)

    def _set(self, ns: int, share: float | None) -> None:
        with self._lock:
            if share is None:
                self._shares.pop(ns, None)
            else:
                self._shares[ns] = share
            self._show()

    def _show(self) -> None:
        self._engine.metrics.loading.set(len(self._shares))
        self._engine.metrics.loading_share.set(min(self._shares.values(), default=1.0))


def pages(rows: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """The rows in lists of at most ``size``."""
    page: list[_Item] = []
    for row in rows:
        page.append(row)
        if len(page) >= size:
            yield page
            page = []
    if page:
        yield page
