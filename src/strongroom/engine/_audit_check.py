"""The check of the audit log's tree: the stored hashes and the sealed head against the entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from strongroom import audit
from strongroom.audit import Frontier
from strongroom.engine._audit_log import NOTHING
from strongroom.errors import StrongroomError
from strongroom.model import Finding, Severity

if TYPE_CHECKING:
    from strongroom.engine._audit_log import AuditLog

_PAGE: Final = 2000


class TreeCheck:
    """The stored tree and the sealed head against the entries."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._tree = Frontier(0, ())
        self._pending: list[tuple[int, int, bytes]] = []
        self._wrong = 0
        self._findings: list[Finding] = []
        self._head = NOTHING
        try:
            self._head = log.head()
        except StrongroomError as e:
            self._add("audit_head_unreadable", f"what is integrated cannot be read ({e.code})")

    def add(self, sealed: bytes) -> None:
        """The next entry, in order of number."""
        if self._tree.size >= self._head.size:
            return
        self._pending += self._tree.extend([audit.leaf_hash(sealed)])
        if self._tree.size == self._head.size and self._tree.root() != self._head.root:
            self._add("audit_tree_differs", "the entries are not those of the sealed root")
        if len(self._pending) >= _PAGE:
            self._compare()

    def findings(self) -> list[Finding]:
        """All that is wrong, after the last entry."""
        self._compare()
        if self._tree.size < self._head.size:
            self._add("audit_entries_missing", f"{self._head.size - self._tree.size} entries are missing")
        if self._wrong:
            self._add(
                "audit_tree_damaged",
                f"{self._wrong} hashes of the stored tree are wrong or missing",
                "if nothing else is wrong with the log: strongroom repair makes the tree anew",
            )
        return self._findings + self._log.compare_heads()

    def _compare(self) -> None:
        stored = self._log.stored_nodes((level, position) for level, position, _ in self._pending)
        self._wrong += sum(stored.get((lv, pos)) != value for lv, pos, value in self._pending)
        self._pending.clear()

    def _add(
        self, code: str, message: str, hint: str = "keep the store as evidence, and restore a backup"
    ) -> None:
        self._findings.append(Finding(Severity.ERROR, code, message, "audit log", hint))
