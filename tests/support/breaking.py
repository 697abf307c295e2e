"""A machine that breaks behind a chosen durable write: from then on nothing is read, written or unwrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import pytest

from strongroom.errors import KmsUnavailableError, StorageError
from strongroom.keyring._book import Book
from strongroom.kms import LocalKeystore
from strongroom.ledger import SqliteLedger

WRITES = (
    "commit", "requeue", "queue_mark", "reset_head", "rebase", "begin_wave", "change_wave", "begin_moving",
    "claim_part", "reseal", "settle_wave", "end_wave",
)  # fmt: skip
READS = (
    "get", "get_many", "get_parts", "head", "changes", "headers", "snapshot", "queue", "queue_stats",
    "counts", "namespaces", "audit_entries", "audit_count", "waves", "wave", "wave_parts", "rows_under",
    "keys_in_use",
)  # fmt: skip


class Breaking:
    """Counts what this thread writes durably to ledger and keyring, and breaks behind the ``after``-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._thread = monkeypatch, 0
        self.after = self.written = 0
        self.broken = False
        for name in WRITES:
            self._wrap(SqliteLedger, name, StorageError, writes=True)
        for name in READS:
            self._wrap(SqliteLedger, name, StorageError)
        for name in ("rows", "head", "compact", "truncate_log"):
            self._wrap(Book, name, StorageError)
        for name in ("wrap", "unwrap"):
            self._wrap(LocalKeystore, name, KmsUnavailableError)
        write = Book.write

        @contextmanager
        def watched(book: Book) -> Iterator[Any]:
            self._refuse(StorageError)
            with write(book) as change:
                yield change
            self._wrote()

        monkeypatch.setattr(Book, "write", watched)

    def _wrap(self, owner: Any, name: str, error: type[Exception], *, writes: bool = False) -> None:
        method = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self._refuse(error)
            answer = method(*arguments, **options)
            if writes:
                self._wrote()
            return answer

        self._patch.setattr(owner, name, watched)

    def _refuse(self, error: type[Exception]) -> None:
        if self.broken:
            raise error

    def _wrote(self) -> None:
        if self._thread == get_ident():
            self.written += 1
            self.broken = self.broken or self.written == self.after

    def behind(self, after: int, act: Callable[[], Any]) -> bool:
        """Carry out ``act`` with nothing that works behind its ``after``-th write; False: it wrote no more.

        Raises:
            What ``act`` raises; the machine works again then.
        """
        self.after, self.written, self._thread = after, 0, get_ident()
        try:
            act()
            return self.broken
        finally:
            self.broken, self._thread = False, 0
