"""Statements of the session itself: transactions, settings, and what clients send out of habit.

``run`` answers them without the engine. Transactions are those of a read-only session: nothing is held,
every statement reads the newest committed state, but the states, tags and errors are PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._rows import Column
from strongroom.servers.pgwire._scan import Statement, Token, name_of, string_value
from strongroom.servers.pgwire._settings import ISOLATION_WARNING, Settings

__all__ = ["COMMANDS", "Answer", "Transaction", "run_command", "show_columns"]

_TEXT: Final = 25
_SAVEPOINTS_MAX: Final = 256


@dataclass(slots=True)
class Answer:
    """``tag`` of CommandComplete, and the rows of SHOW."""

    tag: str
    columns: tuple[Column, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    close_portals: str | None = None  # "": all; otherwise this one
    deallocate: str | None = None  # "": all
    discard: bool = False


@dataclass(slots=True)
class Transaction:
    """``status``: I outside a block, T inside, E inside a failed one."""

    settings: Settings
    status: bytes = b"I"
    savepoints: list[str] = field(default_factory=list)
    _before: dict[str, str] = field(default_factory=dict)
    _local: dict[str, str] = field(default_factory=dict)

    def fail(self) -> None:
        if self.status == b"T":
            self.status = b"E"

    def begin(self) -> None:
        if self.status == b"T":
            self.settings.warnings.append(("25001", "there is already a transaction in progress"))
            return
        self.status = b"T"
        self.savepoints.clear()
        self._before = self.settings.snapshot()
        self._local = {}

    def end(self, commit: bool) -> str:
        """The tag."""
        failed = self.status == b"E"
        if self.status == b"I":
            self.settings.warnings.append(("25P01", "there is no transaction in progress"))
        else:
            if failed or not commit:
                self.settings.restore(self._before)
            elif self._local:
                self.settings.restore({**self.settings.snapshot(), **self._local})
            self.status = b"I"
        self.savepoints.clear()
        self._local = {}
        return "COMMIT" if commit and not failed else "ROLLBACK"

    def set_local(self, name: str, apply: Callable[[], object]) -> None:
        if self.status == b"I":
            self.settings.warnings.append(("25P01", "SET LOCAL can only be used in transaction blocks"))
            return
        before = self.settings.snapshot()
        apply()
        after = self.settings.snapshot()
        for key in before:
            if before[key] != after.get(key):
                self._local.setdefault(key, before[key])

    def set_config(self, name: str, value: str, local: bool) -> None:
        """The function of that name; what is local outside of a transaction is over with its statement."""
        if not local:
            self.settings.set(name, value)
        elif self.status != b"I":
            self.set_local(name, lambda: self.settings.set(name, value))

    def savepoint(self, name: str) -> None:
        self._inside("SAVEPOINT")
        if len(self.savepoints) >= _SAVEPOINTS_MAX:
            raise PgError("54000", "too many savepoints")
        self.savepoints.append(name)

    def release(self, name: str) -> None:
        self._inside("RELEASE SAVEPOINT")
        del self.savepoints[self._find(name) :]

    def rollback_to(self, name: str) -> None:
        self._inside("ROLLBACK TO SAVEPOINT")
        del self.savepoints[self._find(name) + 1 :]
        self.status = b"T"

    def _inside(self, what: str) -> None:
        if self.status == b"I":
            raise PgError("25P01", f"{what} can only be used in transaction blocks")

    def _find(self, name: str) -> int:
        for index in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[index] == name:
                return index
        raise PgError("3B001", "savepoint does not exist")


def _syntax(statement: Statement, index: int) -> PgError:
    at = statement.tokens[index].start + 1 if index < len(statement.tokens) else None
    return PgError("42601", "syntax error", position=at)


def _modes(transaction: Transaction, statement: Statement, index: int) -> None:
    """ISOLATION LEVEL ..., READ ONLY | READ WRITE, [NOT] DEFERRABLE."""
    words = [t.upper for t in statement.tokens[index:] if t.text != ","]
    at = 0
    while at < len(words):
        rest = words[at:]
        if rest[:2] == ["ISOLATION", "LEVEL"]:
            long = rest[2:4] in (["READ", "COMMITTED"], ["READ", "UNCOMMITTED"], ["REPEATABLE", "READ"])
            if not long and rest[2:3] != ["SERIALIZABLE"]:
                raise _syntax(statement, index + at)
            if rest[2] in ("REPEATABLE", "SERIALIZABLE"):
                transaction.settings.warnings.append(ISOLATION_WARNING)
            at += 4 if long else 3
        elif rest[:2] == ["READ", "ONLY"]:
            at += 2
        elif rest[:2] == ["READ", "WRITE"]:
            raise PgError("25006", "cannot set transaction read-write mode: this surface is read-only")
        elif rest[:1] == ["DEFERRABLE"] or rest[:2] == ["NOT", "DEFERRABLE"]:
            at += 1 if rest[0] == "DEFERRABLE" else 2
        else:
            raise _syntax(statement, index + at)


def _begin(t: Transaction, s: Statement) -> Answer:
    start = s.word(0) == "START"
    if start and s.word(1) != "TRANSACTION":
        raise _syntax(s, 1)
    _modes(t, s, 2 if start or s.word(1) in ("WORK", "TRANSACTION") else 1)
    t.begin()
    return Answer("START TRANSACTION" if start else "BEGIN")


def _end(t: Transaction, s: Statement) -> Answer:
    index = 2 if s.word(1) in ("WORK", "TRANSACTION") else 1
    commit = s.word(0) in ("COMMIT", "END")
    if s.word(0) == "ROLLBACK" and s.word(index) == "TO":
        index += 2 if s.word(index + 1) == "SAVEPOINT" else 1
        t.rollback_to(_name(s, index))
        return Answer("ROLLBACK")
    if s.word(index) == "PREPARED" or s.word(1) == "PREPARED":
        raise PgError("0A000", "prepared transactions are not supported")
    if s.word(index) == "AND":
        if s.word(index + 1) == "NO":
            index += 3
        else:
            raise PgError("0A000", "AND CHAIN is not supported")
    if index < len(s.tokens):
        raise _syntax(s, index)
    return Answer(t.end(commit), close_portals="")


def _name(s: Statement, index: int) -> str:
    name = name_of(s.tokens[index]) if index < len(s.tokens) else None
    if name is None or index + 1 < len(s.tokens):
        raise _syntax(s, index)
    return name


def _savepoint(t: Transaction, s: Statement) -> Answer:
    t.savepoint(_name(s, 1))
    return Answer("SAVEPOINT")


def _release(t: Transaction, s: Statement) -> Answer:
    t.release(_name(s, 2 if s.word(1) == "SAVEPOINT" and len(s.tokens) > 2 else 1))
    return Answer("RELEASE")


def _value_text(token: Token) -> str:
    value = string_value(token)
    if value is not None:
        return value
    return name_of(token) if token.kind == "quoted" else token.text  # type: ignore[return-value]


def _set(t: Transaction, s: Statement) -> Answer:
    index, local = 1, False
    if s.word(1) in ("SESSION", "LOCAL") and s.word(2) != "":
        local, index = s.word(1) == "LOCAL", 2
    if s.word(index) == "CHARACTERISTICS":  # SET SESSION CHARACTERISTICS AS TRANSACTION ...
        _modes(t, s, index + 3)
        return Answer("SET")
    if s.word(index) == "TRANSACTION":
        _modes(t, s, index + 1)
        return Answer("SET")
    if s.word(index) in ("ROLE", "AUTHORIZATION"):
        if s.word(index + 1) in ("NONE", "DEFAULT"):
            return Answer("SET")
        raise PgError("42501", "permission denied to change the role")
    name, at = _setting_name(s, index)
    values = [x for x in s.tokens[at:] if x.text != ","]
    if not values:
        raise _syntax(s, at)
    default = len(values) == 1 and values[0].upper == "DEFAULT"
    text = _joined(name, values)

    def apply() -> None:
        t.settings.reset(name) if default else t.settings.set(name, text)

    if local:
        t.set_local(name, apply)
    else:
        apply()
    return Answer("SET")


def _joined(name: str, values: Sequence[Token]) -> str:
    if name == "search_path" and len(values) > 1:
        return ", ".join(v.text for v in values)
    sign = "-" if values[0].text == "-" else ""
    words = [_value_text(v) for v in (values[1:] if sign else values)]
    return sign + ", ".join(words)


def _setting_name(s: Statement, index: int) -> tuple[str, int]:
    """The name at ``index`` and where its value begins."""
    if s.word(index) == "TIME" and s.word(index + 1) == "ZONE":
        return "timezone", index + 2
    if s.word(index) == "NAMES":
        return "client_encoding", index + 1
    if s.word(index) == "SCHEMA":
        return "search_path", index + 1
    name = name_of(s.tokens[index]) if index < len(s.tokens) else None
    if name is None:
        raise _syntax(s, index)
    index += 1
    while index + 1 < len(s.tokens) and s.tokens[index].text == ".":
        name += "." + (name_of(s.tokens[index + 1]) or "")
        index += 2
    if s.word(index) != "TO" and not (index < len(s.tokens) and s.tokens[index].text == "="):
        raise _syntax(s, index)
    return name, index + 1


def _shown(s: Statement) -> str:
    words = [t.upper for t in s.tokens[1:]]
    if words == ["TIME", "ZONE"]:
        return "TimeZone"
    if words == ["TRANSACTION", "ISOLATION", "LEVEL"]:
        return "transaction_isolation"
    if words == ["SESSION", "AUTHORIZATION"]:
        return "session_authorization"
    names = [t.text if t.text == "." else name_of(t) for t in s.tokens[1:]]
    if not names or any(n is None for n in names):
        raise _syntax(s, 1)
    return "".join(n for n in names if n)


def show_columns(statement: Statement) -> tuple[Column, ...]:
    """The columns that SHOW gives."""
    name = _shown(statement)
    if name == "all":
        return tuple(Column(n, _TEXT) for n in ("name", "setting", "description"))
    return (Column(name, _TEXT),)


def _show(t: Transaction, s: Statement) -> Answer:
    name = _shown(s)
    if name == "all":
        return Answer("SHOW", show_columns(s), [(n, v, "") for n, v in t.settings.all()])
    return Answer("SHOW", show_columns(s), [(t.settings.get(name),)])


def _reset(t: Transaction, s: Statement) -> Answer:
    if s.word(1) in ("ROLE",) or (s.word(1) == "SESSION" and s.word(2) == "AUTHORIZATION"):
        return Answer("RESET")
    name = "timezone" if s.word(1) == "TIME" else _shown(s)
    t.settings.reset(None if name == "all" else name)
    return Answer("RESET")


def _discard(t: Transaction, s: Statement) -> Answer:
    what = s.word(1)
    if what not in ("ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"):
        raise _syntax(s, 1)
    if what == "ALL":
        if t.status != b"I":
            raise PgError("25001", "DISCARD ALL cannot run inside a transaction block")
        t.settings.reset(None)
        return Answer("DISCARD ALL", close_portals="", deallocate="", discard=True)
    return Answer("DISCARD " + ("TEMP" if what == "TEMPORARY" else what))


def _deallocate(t: Transaction, s: Statement) -> Answer:
    index = 2 if s.word(1) == "PREPARE" and len(s.tokens) > 2 else 1
    if s.word(index) == "ALL" and len(s.tokens) == index + 1:
        return Answer("DEALLOCATE ALL", deallocate="")
    return Answer("DEALLOCATE", deallocate=_name(s, index))


def _close(t: Transaction, s: Statement) -> Answer:
    if s.word(1) == "ALL":
        return Answer("CLOSE CURSOR ALL", close_portals="")
    return Answer("CLOSE CURSOR", close_portals=_name(s, 1))


def _unlisten(t: Transaction, s: Statement) -> Answer:
    return Answer("UNLISTEN")


COMMANDS: Final[dict[str, Callable[[Transaction, Statement], Answer]]] = {
    "BEGIN": _begin,
    "START": _begin,
    "COMMIT": _end,
    "END": _end,
    "ROLLBACK": _end,
    "ABORT": _end,
    "SAVEPOINT": _savepoint,
    "RELEASE": _release,
    "SET": _set,
    "SHOW": _show,
    "RESET": _reset,
    "DISCARD": _discard,
    "DEALLOCATE": _deallocate,
    "CLOSE": _close,
    "UNLISTEN": _unlisten,
}
_IN_FAILED: Final = frozenset({"COMMIT", "END", "ROLLBACK", "ABORT"})


def check_allowed(transaction: Transaction, statement: Statement) -> None:
    """In a failed transaction only its end is taken.

    Raises:
        PgError: 25P02.
    """
    if transaction.status == b"E" and statement.word(0) not in _IN_FAILED:
        raise PgError(
            "25P02", "current transaction is aborted, commands ignored until end of transaction block"
        )


def run_command(transaction: Transaction, statement: Statement) -> Answer:
    """Answer a statement whose first word is in ``COMMANDS``.

    Raises:
        PgError: it is malformed or cannot be.
    """
    return COMMANDS[statement.word(0)](transaction, statement)
