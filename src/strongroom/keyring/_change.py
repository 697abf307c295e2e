"""What one write transaction does to the rows of a keyring and, with them, to its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from strongroom.crypto import wrap_key
from strongroom.errors import InvalidInputError
from strongroom.keyring._epochs import HistoryRow, SuiteRow
from strongroom.keyring._masters import Wrap
from strongroom.keyring._rows import DataRow, NamespaceRow, WrapRow, head_context

if TYPE_CHECKING:
    from strongroom.keyring._book import Book

_SUM_MODULUS: Final = 1 << 256


class Change:
    """What one write transaction does to key rows and, with them, to the head."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._rows, self.generation, self._sum = book.head()
        self._touched = False

    def next_key_id(self, floor: int) -> int:
        """The lowest number above every key, destroyed ones included, and above ``floor``."""
        return max(self._book.newest_key_id(), floor) + 1

    def insert_data(self, rows: Sequence[DataRow]) -> None:
        """Add data keys."""
        marks = ", ".join("?" * 9)
        self._book.db.executemany(f"INSERT INTO data_keys VALUES ({marks})", rows)  # noqa: S608
        self._sum += sum(self._book.element(row.mac) for row in rows)
        self._rows += len(rows)
        self._touched = True

    def insert_namespace(self, row: NamespaceRow) -> None:
        """Add a namespace key."""
        marks = ", ".join("?" * 8)
        self._book.db.execute(f"INSERT INTO namespace_keys VALUES ({marks})", row)  # noqa: S608
        self._sum += self._book.element(row.mac)
        self._rows += 1
        self._touched = True

    def replace_namespace(self, old: NamespaceRow, new: NamespaceRow) -> None:
        """Change what stands in the row of a namespace key, but not which one it is."""
        new = new.authenticated(self._book.row_key)
        self._book.db.execute(
            "UPDATE namespace_keys SET state = ?, master_version = ?, wrapped = ?, mac = ? "
            "WHERE ns = ? AND version = ?",
            (new.state, new.master_version, new.wrapped, new.mac, new.ns, new.version),
        )
        self._sum += self._book.element(new.mac) - self._book.element(old.mac)
        self.generation += 1
        self._touched = True

    def insert_wraps(self, rows: Sequence[WrapRow]) -> None:
        """Add wraps, with their MACs made here."""
        marks = ", ".join("?" * 7)
        for row in rows:
            made = row.authenticated(self._book.row_key)
            self._book.db.execute(f"INSERT INTO wraps VALUES ({marks})", made)  # noqa: S608
            self._sum += self._book.element(made.mac)
        self._rows += len(rows)
        self._touched = True

    def put_wraps(self, ns: int, version: int, made: Sequence[Wrap], now_us: int) -> None:
        """Make these the wraps of one version of a namespace key, instead of those that it had."""
        self.remove_wraps(ns, version)
        masters = [self._book.register(wrap.master, now_us) for wrap in made]
        if len(set(masters)) != len(masters):
            raise InvalidInputError("two of the providers hold the same master key")
        self.insert_wraps(
            [
                WrapRow(ns, version, place, master, now_us, wrap.wrapped)
                for place, (master, wrap) in enumerate(zip(masters, made, strict=True), 1)
            ]
        )

    def remove_wraps(self, ns: int, version: int) -> None:
        """Take away the wraps of one version of a namespace key: to destroy it, or to put others there."""
        old = self._book.wraps(ns, version)
        self._book.db.execute("DELETE FROM wraps WHERE ns = ? AND version = ?", (ns, version))
        self._sum -= sum(self._book.element(row.mac) for row in old)
        self._rows -= len(old)
        self._touched = True

    def replace_data(self, old: DataRow, new: DataRow) -> None:
        """Change state (and wrapped bytes) of a data key; other processes notice by the generation."""
        self._book.db.execute(
            "UPDATE data_keys SET state = ?, namespace_version = ?, wrapped = ?, mac = ? WHERE key_id = ?",
            (new.state, new.namespace_version, new.wrapped, new.mac, new.key_id),
        )
        self._sum += self._book.element(new.mac) - self._book.element(old.mac)
        self.generation += 1
        self._touched = True

    def reblind(self, pairs: Sequence[tuple[DataRow, DataRow]]) -> None:
        """Give data keys another (blinded) subject, and so another wrapped form: (old, new)."""
        self._book.db.executemany(
            "UPDATE data_keys SET subject = ?, namespace_version = ?, wrapped = ?, mac = ? WHERE key_id = ?",
            [(n.subject, n.namespace_version, n.wrapped, n.mac, n.key_id) for _, n in pairs],
        )
        element = self._book.element
        self._sum += sum(element(new.mac) - element(old.mac) for old, new in pairs)
        self.generation += 1
        self._touched = True

    def replace_many(self, pairs: Sequence[tuple[DataRow, DataRow]]) -> None:
        """``replace_data`` for many rows: (old, new)."""
        values = [(n.state, n.namespace_version, n.wrapped, n.mac, n.key_id) for _, n in pairs]
        self._book.db.executemany(
            "UPDATE data_keys SET state = ?, namespace_version = ?, wrapped = ?, mac = ? WHERE key_id = ?",
            values,
        )
        element = self._book.element
        self._sum += sum(element(new.mac) - element(old.mac) for old, new in pairs)
        self.generation += 1
        self._touched = True

    def insert_suite(self, row: SuiteRow) -> None:
        """Note with which suite the keys of a namespace seal from a key id on."""
        self._book.db.execute("INSERT INTO suites VALUES (?, ?, ?, ?, ?)", row)
        self._sum += self._book.element(row.mac)
        self._rows += 1
        self.generation += 1
        self._touched = True

    def remove_suite(self, ns: int, since: int) -> None:
        """Take back what ``insert_suite`` has noted."""
        (old,) = [row for row in self._book.suites(ns) if row.since == since]
        self._book.db.execute("DELETE FROM suites WHERE ns = ? AND since = ?", (ns, since))
        self._sum -= self._book.element(old.mac)
        self._rows -= 1

    def insert_history(self, row: HistoryRow) -> None:
        """Note what happened to keys."""
        self._book.db.execute("INSERT INTO key_history VALUES (?, ?, ?, ?)", row)
        self._sum += self._book.element(row.mac)
        self._rows += 1
        self._touched = True

    def finish(self) -> None:
        """Seal and write the head."""
        if not self._touched:
            return
        book = self._book
        total = (self._sum % _SUM_MODULUS).to_bytes(32, "big")
        wrapped = wrap_key(book.head_key, total, head_context(book.store_id, self._rows, self.generation))
        book.db.execute(
            "UPDATE head SET rows = ?, generation = ?, sum = ?", (self._rows, self.generation, wrapped)
        )
