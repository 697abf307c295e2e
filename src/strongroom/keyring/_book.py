"""The file of a keyring: its connection, its authentication and its transactions."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import apsw

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.crypto.danger import expose
from strongroom.errors import (
    ClosedError,
    KeyringMismatchError,
    KeyringMissingError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    UnwrapError,
)
from strongroom.keyring import _schema
from strongroom.keyring._change import Change
from strongroom.keyring._epochs import HistoryRow, SuiteRow
from strongroom.keyring._masters import unwrap_first, wrap_all
from strongroom.keyring._meta import (
    RESTORE,
    WRAP_COLUMNS,
    Meta,
    integrity_context,
    integrity_wraps,
    read_meta,
    version_of,
)
from strongroom.keyring._rows import (
    INTEGRITY_NS,
    OWN,
    ROOT,
    DataRow,
    MasterRow,
    NamespaceRow,
    WrapRow,
    altered,
    head_context,
    meta_message,
)
from strongroom.keyring._sqlite import connect, immediate, one_state, translated
from strongroom.kms import DEFAULT, KmsDirectory, KmsKeyInfo
from strongroom.kms.files import require_private_file

_SUM_MODULUS: Final = 1 << 256
_MANY: Final = 10_000
_DATA_COLUMNS: Final = "key_id, ns, subject, epoch, state, namespace_version, created_us, wrapped, mac"
_NAMESPACE_COLUMNS: Final = "ns, version, state, master_version, created_us, tenant, wrapped, mac"


class Book:
    """One open ``keyring.db``. Every method takes ``lock`` itself; only ``open`` calls the KMS."""

    def __init__(self, path: Path, store_id: UUID, db: apsw.Connection, integrity: SecretKey) -> None:
        """For ``open``."""
        self.path = path
        self.store_id = store_id
        self.lock = threading.RLock()
        self.row_key = integrity.derive("keyring-row")
        self.element_key = integrity.derive("keyring-element")
        self.head_key = integrity.derive("keyring-head")
        self.tenant_key = integrity.derive("keyring-tenant")
        self.history_key = integrity.derive("keyring-history")
        self._meta_key = integrity.derive("keyring-meta")
        self._db: apsw.Connection | None = db
        self._is_given_up = False  # after an error: the next use opens the file anew
        self._pid = os.getpid()
        found = path.stat()
        self._file = (found.st_dev, found.st_ino)

    @classmethod
    def initialise(
        cls, path: Path, store_id: UUID, kms: KmsDirectory, now_us: int, names: Sequence[str] = (DEFAULT,)
    ) -> None:
        """Fill the empty file ``path`` with the tables, the meta row and an empty head."""
        integrity = SecretKey.generate()
        context = integrity_context(store_id)
        made = wrap_all(kms, names, integrity, context, registered=None)
        schema = _schema.schema_version()
        mac = integrity.derive("keyring-meta").mac(meta_message(schema, store_id.bytes, now_us, b"", []))
        total = wrap_key(integrity.derive("keyring-head"), bytes(32), head_context(store_id, 0, 0))
        db = connect(path)
        try:
            with translated(path):
                db.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
                db.execute("PRAGMA auto_vacuum = NONE")
                db.execute("PRAGMA journal_mode = WAL")
            with immediate(db, path):
                for version, statements in _schema.MIGRATIONS.items():
                    for statement in statements:
                        db.execute(statement)
                    db.execute("INSERT INTO migrations VALUES (?, ?)", (version, now_us))
                db.execute(f"PRAGMA user_version = {schema}")
                db.execute("INSERT INTO meta VALUES (1, ?, ?, ?, ?)", (store_id.bytes, now_us, b"", mac))
                db.execute("INSERT INTO head VALUES (1, 0, 0, ?)", (total,))
                db.execute("INSERT INTO sessions VALUES (1, 0)")
            book = cls(path, store_id, db, integrity)
            with book.write() as change:
                change.put_wraps(INTEGRITY_NS, 1, made, now_us)
        finally:
            db.close()

    @classmethod
    def open(cls, path: Path, store_id: UUID, kms: KmsDirectory) -> Book:
        """Open and authenticate ``path``, and bring its tables to this program's version.

        Raises:
            KeyringMissingError, KeystorePermissionError, KeyringMismatchError, UnwrapError,
            SchemaVersionError, StorageError, and what the KMS raises.
        """
        require_private_file(path, KeyringMissingError)
        db = connect(path)
        try:
            with one_state(db, path):
                meta = read_meta(db, path)
                if meta.store_id != store_id.bytes:
                    raise KeyringMismatchError
                wraps = integrity_wraps(db, path, meta)
            masters = {m.version: m for m in meta.masters}
            integrity = unwrap_first(kms, wraps, masters, integrity_context(store_id))
            book = cls(path, store_id, db, integrity)
            integrity.wipe()
            book.require_genuine()
            book._migrate(meta.schema)
            book._require_schema()
            book.wraps(INTEGRITY_NS, 1)
        except BaseException:
            db.close()
            raise
        return book

    @property
    def db(self) -> apsw.Connection:
        """The connection; hold ``lock`` and use ``translated`` around it.

        Raises:
            ClosedError: it was closed, or belongs to the process that forked this one. StorageError: it is
            to be opened anew and cannot be.
        """
        if self._is_given_up and os.getpid() == self._pid:
            self.require_same_file()
            self._db, self._is_given_up = connect(self.path), False
        if self._db is None or os.getpid() != self._pid:
            raise ClosedError("the keyring was closed, or opened by another process")
        return self._db

    def close(self) -> None:
        """Close the file; the last connection folds the write-ahead log into it."""
        with self.lock:
            db, self._db, self._is_given_up = self._db, None, False
            if db is not None and os.getpid() == self._pid:
                with translated(self.path):
                    db.close()
            for key in self._own_keys():
                key.wipe()

    def _own_keys(self) -> tuple[SecretKey, ...]:
        return (
            self.row_key, self.element_key, self.head_key, self.tenant_key, self.history_key, self._meta_key
        )  # fmt: skip

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """Hold the lock. After an error of the device the file is opened anew: one that was opened at a bad
        moment (no more descriptors, a file system that was read-only) is open for reading alone for ever."""
        with self.lock:
            try:
                yield
            except StorageError as e:
                db = self._db
                keeps = isinstance(e, StorageBusyError | StorageFullError)  # nothing is wrong with the file
                if db is not None and not keeps and not db.in_transaction:
                    self._db, self._is_given_up = None, True
                    with contextlib.suppress(apsw.Error):
                        db.close()
                raise

    # -- reading ------------------------------------------------------------------------------------
    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._used(), translated(self.path):
            return list(self.db.execute(sql, values))

    def data_row(self, where: str, values: Sequence[Any]) -> DataRow | None:
        """The first data key that a fixed condition selects, verified.

        Raises:
            UnwrapError: the row was altered.
        """
        found = self.rows(f"SELECT {_DATA_COLUMNS} FROM data_keys WHERE {where} LIMIT 1", values)  # noqa: S608
        return DataRow(*found[0]).verified(self.row_key) if found else None

    def latest(self, ns: int, subjects: Sequence[bytes]) -> dict[bytes, DataRow]:
        """The active row of each subject, or that of its highest epoch when none is active; verified.

        Raises:
            UnwrapError: a row was altered.
        """
        if not subjects:
            return {}
        sql = (
            f"SELECT {_DATA_COLUMNS} FROM carray(?2) AS wanted CROSS JOIN data_keys "  # noqa: S608
            "WHERE ns = ?1 AND subject = wanted.value ORDER BY state = 2, epoch"
        )
        newest = {row[2]: row for row in self.rows(sql, (ns, apsw.carray(tuple(subjects))))}
        return {subject: DataRow(*row).verified(self.row_key) for subject, row in newest.items()}

    def data_rows(self, ns: int | None) -> list[DataRow]:
        """Every data key by number, or those of one namespace; verified.

        Raises:
            UnwrapError: a row was altered.
        """
        where = "" if ns is None else "WHERE ns = ?1 "
        sql = f"SELECT {_DATA_COLUMNS} FROM data_keys {where}ORDER BY key_id"  # noqa: S608
        found = self.rows(sql, () if ns is None else (ns,))
        return [DataRow(*row).verified(self.row_key) for row in found]

    def data_rows_where(self, where: str, values: Sequence[Any]) -> list[DataRow]:
        """The data keys that a fixed condition selects, verified.

        Raises:
            UnwrapError: a row was altered.
        """
        found = self.rows(f"SELECT {_DATA_COLUMNS} FROM data_keys WHERE {where}", values)  # noqa: S608
        return [DataRow(*row).verified(self.row_key) for row in found]

    def suites(self, ns: int) -> list[SuiteRow]:
        """With which suite the keys of a namespace seal, by the first key id; verified.

        Raises:
            UnwrapError: a row was altered.
        """
        sql = "SELECT ns, since, suite, created_us, mac FROM suites WHERE ns = ?1 ORDER BY since"
        return [SuiteRow(*row).verified(self.row_key) for row in self.rows(sql, (ns,))]

    def history(self, row: tuple[Any, ...]) -> HistoryRow:
        """A row of the history, verified.

        Raises:
            UnwrapError: it was altered.
        """
        return HistoryRow(*row).verified(self.row_key)

    def newest_key_id(self) -> int:
        """The highest number of a data key, destroyed ones included; 0 when there is none."""
        return int(self.rows("SELECT ifnull(max(key_id), 0) FROM data_keys")[0][0])

    def newest_root(self, ns: int) -> int:
        """The number of the present purpose root of a namespace (spec/keyring.md)."""
        found = self.rows(
            "SELECT key_id FROM data_keys WHERE ns = ?1 AND subject = ?2 ORDER BY epoch DESC LIMIT 1",
            (ns, ROOT),
        )
        return int(found[0][0]) if found else 0

    def newest_version(self, ns: int) -> int:
        """The newest version of a namespace key; 0 when there is none."""
        return int(self.rows("SELECT ifnull(max(version), 0) FROM namespace_keys WHERE ns = ?1", (ns,))[0][0])

    def versions_in_use(self, ns: int) -> set[int]:
        """The versions of a namespace key that wrap data keys."""
        sql = "SELECT DISTINCT namespace_version FROM data_keys WHERE ns = ?1 AND state <> 5"
        return {version for (version,) in self.rows(sql, (ns,))}

    def has_many(self, ns: int) -> bool:
        """Whether a namespace has more data keys than one would like to sort again and again."""
        sql = "SELECT count(*) FROM (SELECT 1 FROM data_keys WHERE ns = ?1 LIMIT ?2)"
        return int(self.rows(sql, (ns, _MANY))[0][0]) == _MANY

    def namespace_row(self, ns: int, version: int | None) -> NamespaceRow | None:
        """One version of a namespace key, or its newest; verified.

        Raises:
            UnwrapError: the row was altered.
        """
        sql = f"SELECT {_NAMESPACE_COLUMNS} FROM namespace_keys WHERE ns = ?1 "  # noqa: S608
        sql += "ORDER BY version DESC LIMIT 1" if version is None else "AND version = ?2"
        found = self.rows(sql, (ns,) if version is None else (ns, version))
        return NamespaceRow(*found[0]).verified(self.row_key) if found else None

    def namespace_rows(self, ns: int | None) -> list[NamespaceRow]:
        """Every version of every namespace key, or of that of one namespace; verified.

        Raises:
            UnwrapError: a row was altered.
        """
        where = "" if ns is None else "WHERE ns = ?1 "
        sql = f"SELECT {_NAMESPACE_COLUMNS} FROM namespace_keys {where}ORDER BY ns, version"  # noqa: S608
        found = self.rows(sql, () if ns is None else (ns,))
        return [NamespaceRow(*row).verified(self.row_key) for row in found]

    def wraps(self, ns: int, version: int) -> list[WrapRow]:
        """The wraps of one version of a namespace key (ns -1: of the integrity key), in order; verified.

        Raises:
            UnwrapError: a row was altered.
        """
        sql = f"SELECT {WRAP_COLUMNS} FROM wraps WHERE ns = ?1 AND version = ?2 ORDER BY place"  # noqa: S608
        return [WrapRow(*row).verified(self.row_key) for row in self.rows(sql, (ns, version))]

    def masters(self) -> dict[int, MasterRow]:
        """The master keys that have ever wrapped something, by their number here; authenticated.

        Raises:
            KeyringMismatchError: they were altered.
        """
        return {m.version: m for m in self.require_genuine().masters}

    def stream(self) -> Iterator[DataRow | NamespaceRow | WrapRow | SuiteRow | HistoryRow]:
        """Every row that counts in the head, unverified; wraps first. Hold ``lock`` and a transaction."""
        for row in self.db.execute(f"SELECT {WRAP_COLUMNS} FROM wraps ORDER BY ns, version, place"):  # noqa: S608
            yield WrapRow(*row)
        for row in self.db.execute("SELECT ns, since, suite, created_us, mac FROM suites"):
            yield SuiteRow(*row)
        for row in self.db.execute("SELECT id, at_us, sealed, mac FROM key_history"):
            yield HistoryRow(*row)
        for row in self.db.execute(f"SELECT {_NAMESPACE_COLUMNS} FROM namespace_keys"):  # noqa: S608
            yield NamespaceRow(*row)
        for row in self.db.execute(f"SELECT {_DATA_COLUMNS} FROM data_keys"):  # noqa: S608
            yield DataRow(*row)

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def head(self) -> tuple[int, int, int]:
        """(rows, generation, sum) as the last change left them, authenticated.

        Raises:
            UnwrapError: the head was altered.
        """
        with self.lock:
            found = self.rows("SELECT rows, generation, sum FROM head")
            try:
                rows, generation, wrapped = found[0]
                total = unwrap_key(self.head_key, wrapped, head_context(self.store_id, rows, generation))
            except (UnwrapError, IndexError, ValueError, TypeError, struct.error):
                raise altered("the head of the keyring was altered") from None
            return rows, generation, int.from_bytes(expose(total), "big")

    def element(self, mac: bytes) -> int:
        """The number that a row with this MAC adds to the sum (MSet-Add-Hash, Clarke et al. 2003)."""
        return int.from_bytes(self.element_key.mac(mac), "big")

    def require_genuine(self) -> Meta:
        """Authenticate the description of the keyring: store, schema version, master keys.

        Raises:
            KeyringMismatchError: it was altered.
        """
        with self.lock:
            meta = read_meta(self.db, self.path)
        try:
            genuine = compare_digest(self._meta_key.mac(meta.message()), meta.mac)
        except (OverflowError, ValueError, TypeError, struct.error):  # a range that was never written
            genuine = False
        if not genuine or meta.store_id != self.store_id.bytes:
            raise KeyringMismatchError("the description of the keyring was altered", hint=RESTORE)
        return meta

    def require_same_file(self) -> None:
        """Raise unless the name still leads to the file that is open: what is written elsewhere is lost.

        Raises:
            KeyringMissingError: it was removed. KeyringMismatchError: it was replaced.
        """
        try:
            found = self.path.lstat()
        except OSError:
            raise KeyringMissingError from None
        if (found.st_dev, found.st_ino) != self._file:
            raise KeyringMismatchError(
                "the keyring was replaced while it was open", hint="close the store and open it again"
            )

    # -- writing ------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def write(self) -> Iterator[Change]:
        """One transaction over key rows; the head follows them. All or nothing, durable on return.

        Raises:
            StorageError: nothing was written. UnwrapError: the head was altered; nothing was written.
        """
        with self._used():
            self.require_same_file()
            with immediate(self.db, self.path):
                change = Change(self)
                yield change
                change.finish()

    @contextlib.contextmanager
    def count(self) -> Iterator[apsw.Connection]:
        """One transaction over use counters, which the head does not cover."""
        with self._used():
            self.require_same_file()
            with immediate(self.db, self.path):
                yield self.db

    def truncate_log(self) -> None:
        """Write everything into the main file and cut the write-ahead log to nothing.

        Raises:
            StorageBusyError: a reader kept it from happening.
        """
        with self.lock, translated(self.path):
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def compact(self) -> None:
        """Write the file anew: nothing stays of what its pages held before. Nobody writes meanwhile.

        Raises:
            StorageBusyError: another process held it for too long. StorageError: it is as it was.
        """
        with self.lock, translated(self.path):
            self.db.execute("VACUUM")
        self.truncate_log()

    def _migrate(self, version: int) -> None:
        target = _schema.schema_version()
        if version == target:
            return
        with immediate(self.db, self.path):
            version = version_of(self.db, self.path)  # another process may have been first
            if version >= target:
                return
            now_us = time.time_ns() // 1000
            for step in range(version + 1, target + 1):
                for statement in _schema.MIGRATIONS[step]:
                    self.db.execute(statement)
                self.db.execute("INSERT INTO migrations VALUES (?, ?)", (step, now_us))
            if version < _schema.WRAPS_VERSION:
                self._move_wraps()
            self.db.execute(f"PRAGMA user_version = {target}")
            self._seal_meta()

    def _move_wraps(self) -> None:
        """What version 1 of the file had in ``meta`` and ``namespace_keys`` becomes rows of ``wraps``."""
        meta, change = read_meta(self.db, self.path), Change(self)
        change.insert_wraps([WrapRow(INTEGRITY_NS, 1, 1, 1, meta.created_us, meta.integrity_key)])
        self.db.execute("UPDATE meta SET integrity_key = x''")
        for found in self.rows(f"SELECT {_NAMESPACE_COLUMNS} FROM namespace_keys"):  # noqa: S608
            old = NamespaceRow(*found).verified(self.row_key)
            change.insert_wraps([WrapRow(old.ns, old.version, 1, 1, old.created_us, old.wrapped)])
            change.replace_namespace(old, old._replace(master_version=0, wrapped=b""))
        change.finish()

    def _seal_meta(self) -> None:
        """Authenticate the description anew; hold a write transaction."""
        mac = self._meta_key.mac(read_meta(self.db, self.path).message())
        self.db.execute("UPDATE meta SET mac = ?", (mac,))

    def register(self, master: KmsKeyInfo, now_us: int) -> int:
        """The number of a master key in this keyring; a new one when it is not known. Hold a transaction.

        Raises:
            KeyringMismatchError: those that are known were altered; nothing is authenticated anew.
        """
        known = self.require_genuine().masters
        for row in known:
            if (row.provider, row.key_uri) == (master.provider, master.key_uri):
                return row.version
        number = max((m.version for m in known), default=0) + 1
        row = MasterRow(number, master.provider, master.key_uri, master.version, now_us)
        self.db.execute("INSERT INTO master_keys VALUES (?, ?, ?, ?, ?)", row)
        self._seal_meta()
        return number

    def _require_schema(self) -> None:
        """Foreign tables, indexes, views or triggers are refused: a trigger could drop what is written."""
        wanted = {s for statements in _schema.MIGRATIONS.values() for s in statements}
        found = {row[0] for row in self.rows("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if found != {s for s in wanted if s.startswith("CREATE ")}:
            raise StorageCorruptError(
                "the tables of the keyring are not those that this program made", hint=RESTORE
            )


def own_or(subject: bytes | None) -> bytes:
    """The stored form of a subject; None is the namespace itself."""
    return OWN if subject is None else subject
