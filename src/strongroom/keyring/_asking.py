"""What the KMS says to every wrap of a keyring, for its check: several questions at a time, told as they go.

The first question is asked alone. When its answer comes over a network, others are asked meanwhile, at most
``AT_ONCE_MAX``; a key file needs no threads. What was answered does not depend on the order.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from strongroom.crypto import SecretKey
from strongroom.errors import KmsUnavailableError, StrongroomError, failure_of, thread_started
from strongroom.keyring._book import Book
from strongroom.keyring._namespaces import unwrap_namespace
from strongroom.keyring._rows import MasterRow, NamespaceRow, WrapRow
from strongroom.kms import RECOVERY, KmsDirectory

AT_ONCE_MAX: Final = 6
NETWORK_S: Final = 0.002  # an answer that takes longer has not come from a key file
PATIENCE_S: Final = 60.0  # for a service that has answered and falls silent: all waits of a check together
_PAUSES_S: Final = (1.0, 3.0, 6.0)  # a circuit breaker is open for 5
_LOOK_S: Final = 0.2

Answers: TypeAlias = dict[WrapRow, SecretKey | StrongroomError]
Told: TypeAlias = Callable[[int, int], None]


def answer(book: Book, kms: KmsDirectory, row: NamespaceRow, wrap: WrapRow) -> SecretKey | StrongroomError:
    """What the KMS says to one wrap."""
    try:
        return unwrap_namespace(book, kms, row, [wrap])
    except StrongroomError as e:
        return e


def is_for_recovery(masters: dict[int, MasterRow], wrap: WrapRow) -> bool:
    """Whether the wrap can be tried with a key alone that lies offline."""
    master = masters.get(wrap.master_version)
    return master is not None and master.provider == RECOVERY


def ask_all(book: Book, kms: KmsDirectory, told: Told | None) -> Answers:
    """The answer to every wrap but those for recovery keys; rows that were altered are left out.

    ``told`` is called by this thread with (answers so far, questions).
    """
    questions: deque[tuple[NamespaceRow, WrapRow]] = deque()
    with contextlib.suppress(StrongroomError):
        masters = book.masters()
        for ns, version in book.rows("SELECT ns, version FROM namespace_keys ORDER BY ns, version"):
            with contextlib.suppress(StrongroomError):
                row = book.namespace_row(ns, version)
                for wrap in book.wraps(ns, version):
                    if row is not None and not is_for_recovery(masters, wrap):
                        questions.append((row, wrap))
    return _Asking(book, kms, questions).run(told)


class _Asking:
    def __init__(self, book: Book, kms: KmsDirectory, questions: deque[tuple[NamespaceRow, WrapRow]]) -> None:
        self._book = book
        self._kms = kms
        self._questions = questions
        self._total = len(questions)
        self._answers: Answers = {}
        self._stop = threading.Event()
        self._has_answered = False
        self._patience_s = PATIENCE_S

    def run(self, told: Told | None) -> Answers:
        helpers: list[threading.Thread] = []
        try:
            while True:
                began = time.monotonic()
                if not self._one():
                    break
                if not helpers and time.monotonic() - began > NETWORK_S:
                    helpers = self._helped()
                if told is not None:
                    told(len(self._answers), self._total)
            for helper in helpers:
                while helper.is_alive():
                    helper.join(_LOOK_S)
                    if told is not None:
                        told(len(self._answers), self._total)
            if told is not None:
                told(self._total, self._total)
        finally:
            self._stop.set()  # an interrupt: whoever helps asks nothing more
        return self._answers

    def _helped(self) -> list[threading.Thread]:
        wanted = min(AT_ONCE_MAX - 1, len(self._questions))
        made = [
            threading.Thread(target=failure_of, args=(self._help,), name="strongroom-asking", daemon=True)
            for _ in range(wanted)
        ]
        return [thread for thread in made if thread_started(thread)]

    def _help(self) -> None:
        """What is raised here is no answer: the check itself asks again, and is told."""
        while not self._stop.is_set() and self._one():
            pass

    def _one(self) -> bool:
        """Ask the next question; False when there is none."""
        try:
            row, wrap = self._questions.popleft()
        except IndexError:
            return False
        found = answer(self._book, self._kms, row, wrap)
        for pause_s in _PAUSES_S:
            if not (self._has_answered and isinstance(found, KmsUnavailableError) and self._waited(pause_s)):
                break
            found = answer(self._book, self._kms, row, wrap)
        self._has_answered |= isinstance(found, SecretKey)
        self._answers[wrap] = found
        return True

    def _waited(self, pause_s: float) -> bool:
        """Wait, while there is patience left; a service that never came back is not waited for again."""
        self._patience_s -= pause_s
        return self._patience_s >= 0 and not self._stop.wait(pause_s)
