"""What all connections together may hold: statements, portals, answers that nobody takes, parts of messages.

Each connection has its own limits (``[pgwire] held_bytes_max``, ``message_bytes_max``); a hundred of them
would still fill the memory. Little is free, so that nobody is kept from small questions.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from strongroom.servers.pgwire._errors import PgError

__all__ = ["FREE_BYTES", "Budget", "Share"]

FREE_BYTES: Final = 256 * 1024  # of each connection, that are not counted
_ENDED: Final = "terminating connection: others needed the memory that it held while its client did not fetch"
_PATIENCE_S: Final = 5.0  # with clients of the caller that asks


class Share:
    """The part of one connection. ``hold`` belongs to its thread.

    ``waiting_since``: when its thread began to wait for the client; None: it works.
    """

    def __init__(self, budget: Budget, caller: str, end: Callable[[], object]) -> None:
        """``end``: close the connection, because others need what it holds; from any thread."""
        self.caller = caller
        self.end = end
        self.bytes = 0
        self.ended = False
        self.waiting_since: float | None = None
        self._budget = budget

    def hold(self, count: int) -> None:
        """What the connection holds from now on.

        Raises:
            PgError: 53200: there is no room for more; then it holds what it held.
        """
        self.check()
        counted = max(0, count - FREE_BYTES)
        if counted != self.bytes:
            self._budget.change(self, counted)

    def check(self) -> None:
        """Raises: PgError: 53200, fatal: the connection has been ended."""
        if self.ended:
            raise PgError("53200", _ENDED, fatal=True)

    def wait(self) -> None:
        """The thread waits for its client from now on."""
        self.waiting_since = time.monotonic()

    def work(self) -> None:
        """The client has come."""
        self.waiting_since = None


class Budget:
    """Counts what all hold. Where there is no room for more, the caller gives way that holds most: of its
    connections those go whose clients have been waited for longest. When it is the one that asks, these are
    only such as have been waited for some time; else the request is refused."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._shares: dict[Share, None] = {}
        self._lock = threading.Lock()

    def change(self, share: Share, count: int) -> None:
        """See ``Share.hold``."""
        with self._lock:
            over = self.bytes + count - share.bytes - self.bytes_max
            ended = self._victims(share, count, over) if over > 0 and count > share.bytes else []
            for each in ended:
                self._set(each, 0)
                each.ended = True
            self._set(share, count)
        for each in ended:
            each.end()

    def leave(self, share: Share) -> None:
        """Its connection is closed."""
        with self._lock:
            self._set(share, 0)

    def _set(self, share: Share, count: int) -> None:
        self.bytes += count - share.bytes
        share.bytes = count
        if count:
            self._shares[share] = None
        else:
            self._shares.pop(share, None)

    def _victims(self, share: Share, count: int, over: int) -> list[Share]:
        """Connections that must go, so that ``over`` bytes are free."""
        now = time.monotonic()
        held: Counter[str] = Counter()
        waiting: dict[str, list[tuple[float, Share]]] = {}
        for each in self._shares:
            held[each.caller] += each.bytes
            since = each.waiting_since
            if since is None or each is share or (each.caller == share.caller and now - since < _PATIENCE_S):
                continue
            waiting.setdefault(each.caller, []).append((since, each))
        held[share.caller] += count - share.bytes
        for queue in waiting.values():
            queue.sort(key=lambda entry: entry[0], reverse=True)
        ended: list[Share] = []
        while over > 0:
            caller = max(held, key=held.__getitem__)
            if not waiting.get(caller):
                raise PgError(
                    "53200",
                    "all connections together hold too much: statements, portals and answers not fetched",
                    hint="close what is not needed, fetch to the end, or ask for less at a time",
                )
            _, longest = waiting[caller].pop()
            held[caller] -= longest.bytes
            over -= longest.bytes
            ended.append(longest)
        return ended
