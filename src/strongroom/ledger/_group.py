"""Group commit without a thread of its own: whoever comes first leads, the others are woken.

A caller puts its ticket into the line. If nobody leads, it leads: it takes what stands in line, has
it written in one transaction, and wakes the callers of those tickets with their results. A single
writer never changes threads.

The callers of a group are woken as a chain: the leader wakes the first, each wakes the next. Only one
thread runs Python at a time, and all at once would wait for it together. The last one hands the lead to
the first who stands in line by then: whoever has come back for more meanwhile is in the next group too,
and its leader does not wait for Python among those who are just being woken (docs/adr/0024-one-group.md).
Where that takes long, on a busy machine or in a long chain, who comes meanwhile does not wait for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Generic, TypeVar, cast

from strongroom.errors import ClosedError, InternalError

W = TypeVar("W")

_CARRIED_S = 0.002  # how long the lead may be on its way down a chain while somebody waits for it


class Ticket(Generic[W]):
    """One caller's work, its result or its error, and the gate at which the caller waits.

    ``action``: something to do between the groups, on the caller's own thread, instead of work.
    """

    __slots__ = ("action", "error", "gate", "is_gone", "leads", "next", "result", "settled", "taken", "work")

    gate: threading.Lock | None  # made when the caller has to wait
    next: Ticket[W] | None  # who is to be woken after this one

    def __init__(self, work: W, action: Callable[[], None] | None = None) -> None:
        self.work = work
        self.action = action
        self.result: object = None
        self.error: BaseException | None = None
        self.settled = False
        self.leads = False
        self.is_gone = False  # the caller was interrupted: nobody waits at the gate any more
        self.taken: list[Ticket[W]] = []  # by this one while it led
        self.gate = None
        self.next = None

    def settle(self, result: object) -> None:
        self.result = result
        self.settled = True

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.settled = True


Take = Callable[[int], list[Ticket[W]]]


class GroupCommit(Generic[W]):
    """Lines up callers and lets one of them run ``write`` for many.

    ``write(take)`` calls ``take(n)`` for up to ``n`` more tickets, as often as it likes, and settles
    or fails every ticket that it took before it returns.
    """

    def __init__(self, write: Callable[[Take[W]], None]) -> None:
        self._write = write
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._line: deque[Ticket[W]] = deque()
        self._led = False
        self._closed = False
        self._carrier: Ticket[W] | None = None  # has the lead as the last of a chain, and sleeps perhaps
        self._is_watched = False  # somebody looks after that

    def submit(self, work: W) -> object:
        """Have ``work`` written, by this thread or another; returns its result or raises its error."""
        return self._stand_in_line(Ticket(work))

    def alone(self, action: Callable[[], None]) -> None:
        """Run ``action`` on this thread at a moment when no group is being written."""
        self._stand_in_line(Ticket(cast(W, None), action))

    def try_alone(self, action: Callable[[], None]) -> bool:
        """Run ``action`` as ``alone`` does, when nobody writes or waits to: False: it was not run."""
        ticket = Ticket(cast(W, None), action)
        try:
            with self._mutex:
                if self._closed or self._led or self._line:
                    return False
                self._led = ticket.leads = True
            action()
        finally:
            self._pass_on(ticket)  # nothing happens unless it leads
        return True

    def _stand_in_line(self, ticket: Ticket[W]) -> object:
        try:
            with self._mutex:
                if self._closed:
                    raise ClosedError()
                gate, watches = None, False
                if self._led:
                    gate = ticket.gate = threading.Lock()
                    gate.acquire()
                    if self._carrier is not None and not self._is_watched:
                        self._is_watched = watches = True
                self._line.append(ticket)
                if gate is None:
                    self._led = ticket.leads = True
            if gate is not None:
                if not watches:
                    gate.acquire()
                elif not gate.acquire(timeout=_CARRIED_S):
                    carrier = self._carrier
                    if carrier is not None:
                        self._pass_on(carrier)
                    gate.acquire()
                _wake_next(ticket)
            if not ticket.settled:
                self._lead(ticket)
            elif ticket.leads:  # as the last of its group
                self._pass_on(ticket)
        except BaseException:  # an interrupted caller must neither stay in line nor keep the lead
            self._abandon(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _lead(self, leader: Ticket[W]) -> None:
        if leader.action is not None:
            with self._mutex:
                self._line.remove(leader)
            try:
                leader.action()
            finally:
                self._pass_on(leader)
            return
        taken = leader.taken

        def take(count: int) -> list[Ticket[W]]:
            before = len(taken)
            with self._mutex:
                line = self._line
                while line and len(taken) - before < count and line[0].action is None:
                    taken.append(line[0])  # an interrupt in between leaves it in both, never in none
                    line.popleft()
            return taken[before:]

        try:
            self._write(take)
        finally:
            self._release(leader)
            self._pass_on(leader)  # unless somebody was woken, and will

    def _release(self, leader: Ticket[W]) -> None:
        """Wake those whose tickets were taken; the last of them has the lead. May be repeated, after an
        interrupt."""
        taken = leader.taken
        if leader.settled and len(taken) == 1 and taken[0] is leader:
            taken.clear()  # nobody waits for it
            return
        with self._mutex:
            if self._line and taken and taken[-1] is self._line[0]:
                taken.pop()  # an interrupt came while it was being taken: it stays in line
            for ticket in taken:
                if not ticket.settled and ticket.error is None:
                    ticket.fail(InternalError("the write was interrupted; its outcome is unknown"))
            waiting = [t for t in taken if t is not leader and t.gate is not None and not t.is_gone]
            for ticket, following in pairwise((leader, *waiting)):
                ticket.next = following
            taken.clear()  # it holds the leader itself
            if waiting and leader.leads:
                waiting[-1].leads, leader.leads = True, False
                self._carrier, self._is_watched = waiting[-1], False
        _wake_next(leader)

    def _pass_on(self, leader: Ticket[W]) -> None:
        with self._mutex:
            if not leader.leads:
                return
            line = self._line
            if line and line[0] is leader:
                line.popleft()
            self._carrier = None
            leader.leads = False
            if line:
                line[0].leads = True
                if line[0].gate is not None:
                    line[0].gate.release()
            else:
                self._led = False
                if self._closed:  # else nobody waits for it
                    self._idle.notify_all()

    def _abandon(self, ticket: Ticket[W]) -> None:
        with self._mutex:
            ticket.is_gone = True
            if ticket in self._line:
                self._line.remove(ticket)
        self._release(ticket)  # those it has taken, and who comes after it in a chain
        self._pass_on(ticket)

    def close(self) -> None:
        """Refuse what comes from now on, and wait until the callers in line are served."""
        with self._mutex:
            self._closed = True
            while self._led:
                self._idle.wait()


def _wake_next(ticket: Ticket[W]) -> None:
    """May be repeated: an interrupt in between must not leave the next one asleep."""
    following = ticket.next
    if following is not None and following.gate is not None:
        with suppress(RuntimeError):  # it is open already
            following.gate.release()
        ticket.next = None
