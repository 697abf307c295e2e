"""What one connection holds between messages: prepared statements, portals, cursors, an answer on its way."""

from __future__ import annotations

from typing import Final

from strongroom.config import PgwireConfig
from strongroom.servers.pgwire._budget import Share
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._plan import Cursor, Portal, Prepared
from strongroom.servers.pgwire._rows import Source

__all__ = ["Holdings"]

_NAME_BYTES: Final = 1024  # of a statement or portal; PostgreSQL's own names have 63
_LOOSE_BYTES: Final = 64 * 1024  # of bytes that make no message yet, which are not worth counting


class Holdings:
    """Keeps count of them, and within their limits; ``room`` says so to all other connections' ``share``."""

    def __init__(self, config: PgwireConfig, share: Share) -> None:
        self._config = config
        self._share = share
        self.statements: dict[str, Prepared] = {}
        self.portals: dict[str, Portal] = {}
        self.cursors: dict[str, Cursor] = {}
        self.running: Portal | Source | None = None  # an answer on its way that is in no portal of theirs
        self._statement_bytes = 0
        self._loose = 0

    # -- how much ---------------------------------------------------------------------------------------
    def room(self, more: int = 0) -> None:
        """Count anew; ``more``: bytes that are to come.

        Raises:
            PgError: 53400: the connection holds too much; 53200: all together do.
        """
        running = self.running
        total = self._statement_bytes + more + (0 if running is None else running.size)
        total += sum([p.size for p in self.portals.values() if p is not running])
        total += sum([c.source.size for c in self.cursors.values()])
        if total > self._config.held_bytes_max:
            raise PgError(
                "53400",
                "the statements, portals and cursors of the connection hold too much",
                hint="close those that are not needed, or fetch to the end",
            )
        self._share.hold(total + self._loose)

    def run(self, answer: Portal | Source) -> None:
        """An answer is on its way; it is given up when there is no room for it.

        Raises:
            PgError: 53400, 53200.
        """
        self.running = answer
        try:
            self.room()
        except PgError:
            answer.close()
            raise

    def rest(self) -> None:
        """Nothing is on its way any more."""
        self.running = None
        self.room()

    def loose(self, count: int) -> None:
        """Bytes of the client that make no message yet.

        Raises:
            PgError: 53200, and the connection ends: what comes next could not be told from them.
        """
        if count <= _LOOSE_BYTES and not self._loose:
            return
        self._loose = count if count > _LOOSE_BYTES else 0
        try:
            self.room()
        except PgError as e:
            raise PgError(e.sqlstate, e.text, hint=e.hint, fatal=True) from None

    # -- statements -------------------------------------------------------------------------------------
    def add_statement(self, name: str, prepared: Prepared) -> None:
        """Keep a prepared statement; one without a name replaces the last one.

        Raises:
            PgError: 42P05, 42622, 53400, 53200.
        """
        if name and name in self.statements:
            raise PgError("42P05", "prepared statement already exists")
        if len(self.statements) >= self._config.statements_max:
            raise PgError("53400", "too many prepared statements")
        _check_name(name)
        self.room(prepared.size)
        self.drop_statement(name)
        self.statements[name] = prepared
        self._statement_bytes += prepared.size

    def statement(self, name: str) -> Prepared:
        """Raises: PgError: 26000."""
        try:
            return self.statements[name]
        except KeyError:
            raise PgError("26000", "prepared statement does not exist") from None

    def drop_statement(self, name: str) -> None:
        dropped = self.statements.pop(name, None)
        if dropped is not None:
            self._statement_bytes -= dropped.size

    def drop_statements(self) -> None:
        self.statements.clear()
        self._statement_bytes = 0

    # -- portals ----------------------------------------------------------------------------------------
    def check_portal(self, name: str) -> None:
        """Raises: PgError: 42P03, 42622, 53400: there can be no portal of this name."""
        if name and name in self.portals:
            raise PgError("42P03", "cursor already exists")
        if len(self.portals) >= self._config.portals_max:
            raise PgError("53400", "too many portals")
        _check_name(name)

    def portal(self, name: str) -> Portal:
        """Raises: PgError: 34000."""
        try:
            return self.portals[name]
        except KeyError:
            raise PgError("34000", "portal does not exist") from None

    def drop_portal(self, name: str) -> None:
        portal = self.portals.pop(name, None)
        if portal is not None:
            portal.close()

    # -- cursors ----------------------------------------------------------------------------------------
    def add_cursor(self, name: str, cursor: Cursor) -> None:
        """Raises: PgError: 53400, 53200."""
        self.room(cursor.source.size)
        self.cursors[name] = cursor

    def check_cursor(self, name: str) -> None:
        """Raises: PgError: 42P03, 53400: there can be no cursor of this name."""
        if name in self.cursors:
            raise PgError("42P03", "cursor already exists")
        if len(self.cursors) >= self._config.portals_max:
            raise PgError("53400", "too many cursors")

    def cursor(self, name: str) -> Cursor:
        """Raises: PgError: 34000."""
        try:
            return self.cursors[name]
        except KeyError:
            raise PgError("34000", "cursor does not exist") from None

    def drop_cursor(self, name: str) -> None:
        cursor = self.cursors.pop(name, None)
        if cursor is not None:
            cursor.source.close()

    def close_portals(self, *, keep: Portal | None = None, holding: bool = False) -> None:
        """At the end of a transaction: all portals, and the cursors without hold."""
        for name in [n for n, p in self.portals.items() if p is not keep]:
            self.drop_portal(name)
        for name in [n for n, c in self.cursors.items() if holding or not c.holds]:
            self.drop_cursor(name)


def _check_name(name: str) -> None:
    if len(name) > _NAME_BYTES:
        raise PgError("42622", "the name of a statement or portal is too long")
