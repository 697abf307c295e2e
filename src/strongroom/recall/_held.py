"""Indexes that are held for reading, up to date with everything that was applied before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from strongroom.recall.index import NamespaceIndex


@contextmanager
def reading(indexes: Sequence[NamespaceIndex]) -> Iterator[list[NamespaceIndex]]:
    """Bring indexes up to date and keep them as they are; always locked in the same order.

    Raises:
        InternalError: one is damaged and has to be built anew. ClosedError: its columns were dropped.
    """
    if len(indexes) == 1:
        (index,) = indexes
        with index.lock.read:
            if not index.is_behind():  # nobody is at it either: whoever takes something over is alone
                index.check_usable()
                yield [index]
                return
    opened = sorted(dict.fromkeys(indexes), key=lambda index: index.serial)
    for index in opened:
        index.prepare()
    with ExitStack() as stack:
        for index in opened:
            stack.enter_context(index.lock.read)
            index.check_usable()
        yield opened
