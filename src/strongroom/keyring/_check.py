"""The check of a keyring: structure, every MAC, every wrapped key, the sum over all rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import apsw

from strongroom.crypto import SecretKey, unwrap_key
from strongroom.errors import KeystorePermissionError, StrongroomError, UnwrapError
from strongroom.keyring._asking import Answers, Told, answer, ask_all, is_for_recovery
from strongroom.keyring._book import Book
from strongroom.keyring._epochs import HistoryRow, SuiteRow
from strongroom.keyring._masters import same_key
from strongroom.keyring._rows import ERASED, INTEGRITY_NS, DataRow, KeyState, NamespaceRow, WrapRow
from strongroom.keyring._sqlite import translated
from strongroom.keyring._uses import USES_BUFFERED_MAX, USES_MAX
from strongroom.kms import KmsDirectory
from strongroom.kms.files import require_private_file
from strongroom.model.finding import Finding, Severity

FINDINGS_MAX: Final = 1000

_RESTORE: Final = "restore the keyring from the key backup"


def check_book(book: Book, kms: KmsDirectory, told: Told | None = None) -> list[Finding]:
    """Everything that is wrong with a keyring, at most 1000 findings, in the order of its rows.

    ``told`` is called with (keys that the KMS was asked for, keys to ask for).
    """
    out: list[Finding] = []
    asked = ask_all(book, kms, told)  # before anything is locked: a service may be slow
    with book.lock:
        try:
            for finding in _findings(book, kms, asked):
                out.append(finding)
                if len(out) >= FINDINGS_MAX:
                    break
        except StrongroomError as e:
            out.append(Finding(Severity.ERROR, e.code, e.message, "keyring", e.hint))
    return out


def _findings(book: Book, kms: KmsDirectory, asked: Answers) -> Iterator[Finding]:
    yield from _file(book)
    with translated(book.path):
        book.db.execute("BEGIN")
        try:
            yield from _structure(book)
            yield from _rows(book, kms, asked)
            yield from _uses(book)
        finally:
            with contextlib.suppress(apsw.Error):
                book.db.execute("ROLLBACK")


def _file(book: Book) -> Iterator[Finding]:
    try:
        require_private_file(book.path)
    except KeystorePermissionError as e:
        yield Finding(Severity.ERROR, e.code, e.message, book.path.name, e.hint)


def _structure(book: Book) -> Iterator[Finding]:
    for (text,) in book.db.execute("PRAGMA integrity_check(20)"):
        if text != "ok":
            yield Finding(
                Severity.ERROR, "storage_corrupt", "the keyring file is damaged", "keyring", _RESTORE
            )
    try:
        book.require_genuine()
    except StrongroomError as e:
        yield Finding(Severity.ERROR, e.code, e.message, "keyring", e.hint or _RESTORE)


def _rows(book: Book, kms: KmsDirectory, asked: Answers) -> Iterator[Finding]:
    keks: dict[tuple[int, int], SecretKey | None] = {}
    wraps: dict[tuple[int, int], list[WrapRow]] = {}
    gone: set[tuple[int, int]] = set()
    masters = book.masters()
    count = total = 0
    for row in book.stream():
        count += 1
        where = _place(row)
        try:
            row.verified(book.row_key)
        except UnwrapError as e:
            yield Finding(Severity.ERROR, e.code, e.message, where, e.hint)
            continue
        total += book.element(row.mac)
        if isinstance(row, WrapRow):
            wraps.setdefault((row.ns, row.version), []).append(row)
        elif isinstance(row, NamespaceRow):
            keks[row.ns, row.version] = None
            for wrap in wraps.get((row.ns, row.version), []):
                if not is_for_recovery(masters, wrap):
                    found = asked.get(wrap) or answer(book, kms, row, wrap)  # it was replaced a moment ago
                    yield from _wrap(found, wrap, keks)
            if not wraps.get((row.ns, row.version)):
                gone.add((row.ns, row.version))  # destroyed, or about to be
        elif isinstance(row, DataRow):
            yield from _data_key(book, keks, gone, row, where)
        elif isinstance(row, HistoryRow):
            try:
                row.opened(book.history_key)
            except UnwrapError as e:
                yield Finding(Severity.ERROR, e.code, e.message, where, e.hint)
    rows, _, expected = book.head()
    if rows != count or total % (1 << 256) != expected:
        yield Finding(
            Severity.ERROR,
            "tampered",
            "rows of the keyring were removed, put back, swapped or added from outside",
            "keyring",
            _RESTORE,
        )


def _wrap(
    found: SecretKey | StrongroomError, wrap: WrapRow, keks: dict[tuple[int, int], SecretKey | None]
) -> Iterator[Finding]:
    """Every wrap unwraps, and to the same key; those for a recovery key cannot be tried without it."""
    where = _place(wrap)
    if isinstance(found, StrongroomError):
        yield Finding(Severity.ERROR, found.code, found.message, where, found.hint)
        return
    first = keks[wrap.ns, wrap.version]
    if first is None:
        keks[wrap.ns, wrap.version] = found
    elif not same_key(first, found):
        text = "two master keys have wrapped different keys for the same place"
        yield Finding(Severity.ERROR, UnwrapError.code, text, where, _RESTORE)


def _data_key(
    book: Book,
    keks: dict[tuple[int, int], SecretKey | None],
    gone: set[tuple[int, int]],
    row: DataRow,
    where: str,
) -> Iterator[Finding]:
    if row.state == KeyState.DESTROYED:
        if row.wrapped != ERASED:
            yield Finding(Severity.ERROR, "key_state", "a destroyed key still has its bytes", where, _RESTORE)
        return
    if (row.ns, row.namespace_version) in gone:
        text = "a data key is wrapped by a namespace key that has no wrap itself"
        yield Finding(Severity.ERROR, UnwrapError.code, text, where, _RESTORE)
        return
    kek = keks.get((row.ns, row.namespace_version), book.row_key)
    if kek is None:
        return  # told already, at the namespace
    try:
        unwrap_key(kek, row.wrapped, row.context(book.store_id)).wipe()
    except UnwrapError as e:
        yield Finding(Severity.ERROR, e.code, "a wrapped data key does not open", where, e.hint)


def _uses(book: Book) -> Iterator[Finding]:
    sessions = int(book.db.execute("SELECT unflushed FROM sessions").get)
    margin = sessions * USES_BUFFERED_MAX
    for key_id, uses in book.db.execute("SELECT key_id, uses FROM key_uses"):
        if uses + margin > USES_MAX // 2:
            yield Finding(
                Severity.WARNING,
                "key_exhausted",
                "a key has spent more than half of its uses",
                f"data key {key_id}",
                "rotate the key",
            )


def _place(row: DataRow | NamespaceRow | WrapRow | SuiteRow | HistoryRow) -> str:
    if isinstance(row, WrapRow):
        what = "the integrity key" if row.ns == INTEGRITY_NS else f"key of namespace {row.ns}"
        return f"{what}, version {row.version}, wrap {row.place}"
    if isinstance(row, HistoryRow):
        return f"history of keys, entry {row.id}"
    if isinstance(row, SuiteRow):
        return f"suite of namespace {row.ns}"
    if isinstance(row, NamespaceRow):
        return f"key of namespace {row.ns}, version {row.version}"
    return f"data key {row.key_id}"
