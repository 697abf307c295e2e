"""The audit log as a transparency log: integration, checkpoints, proofs, heads kept outside.

The formats are in spec/audit-log.md.

A thread of its own takes committed entries into the Merkle tree. What is integrated is stated by one sealed
row of the system namespace (size and root), which counts in that namespace's own head; so a log that was cut
or changed does not fit its row, and a row that was put back does not fit the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from strongroom import audit
from strongroom.audit import Checkpoint, Frontier, HeadSink, HeadSinks, KeyChange, Signer
from strongroom.audit import verify as offline
from strongroom.engine._vault import SYSTEM_NS, SYSTEM_TENANT
from strongroom.errors import (
    ConflictError,
    DuplicateMemoryError,
    IntegrityError,
    KeyMovedError,
    StrongroomError,
    TamperedError,
    VersionConflictError,
    failure_of,
    require_thread,
)
from strongroom.ledger import AuditNode, Put, WriteBatch
from strongroom.model import Field, Finding, SealedRecord, Severity, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

T = TypeVar("T")

CHUNK: Final = 20_000  # entries that one transaction integrates
_PAGE: Final = 2000
_TRIES: Final = 8
_FORM: Final = 1
_HEAD_ID: Final = b"audit-head".ljust(16, b"\0")
_SIGNER_ID: Final = b"audit-signer".ljust(16, b"\0")
_LOST: Final = "entries of the audit log are gone"
_CHANGED: Final = "the audit log is not the one whose root was sealed"


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What is integrated: ``size`` entries with ``root``, as of ``at_us``. ``version`` is that of the row."""

    size: int
    root: bytes
    at_us: int
    version: int


NOTHING: Final = TreeHead(0, audit.EMPTY_ROOT, 0, 0)


class AuditLog:
    """The log of one store. Thread-safe; several processes may integrate, one of them wins each step."""

    def __init__(self, engine: Engine) -> None:
        """Raises: ConfigurationError: a place for heads is not of its form."""
        self._engine = engine
        config = engine.config.audit
        self._sinks = HeadSinks(
            Path(engine.directory),
            config.head_files,
            webhook=config.head_webhook,
            ca_file=config.head_ca_file,
            bucket=config.head_bucket,
            endpoint=config.head_endpoint,
            timeout_ms=config.head_timeout_ms,
        )
        self._lock = Lock()
        self._frontier: Frontier | None = None
        self._seen = NOTHING
        self._signer: tuple[int, Signer] | None = None  # the version of its row
        self._signer_seen = 0  # its newest version
        self._stop = Event()
        self._threads: list[Thread] = []
        self._trouble = ""
        self._kept: dict[HeadSink, int] = {}  # the size of the last head that a place took
        self._distrusted: set[HeadSink] = set()

    # -- in the background ----------------------------------------------------------------------------
    def start(self) -> None:
        """Raises: LimitExceededError: no thread can be started."""
        threads = [Thread(target=self._keep, name="strongroom-audit", daemon=True)]
        if self._sinks:
            threads.append(Thread(target=self._keep_heads, name="strongroom-heads", daemon=True))
        for thread in threads:
            require_thread(thread)
            self._threads.append(thread)

    def close(self) -> None:
        """Integrate what is there and leave its head in the files; no failure keeps the store open."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._tend()
        self._push_heads(self._sinks.files)

    def _keep(self) -> None:
        interval = max(0.02, self._engine.config.audit.integrate_ms / 1000)
        while not self._stop.wait(interval):
            self._tend()

    def _tend(self) -> None:
        trouble = failure_of(self.integrate)  # the next turn tries again
        if trouble and trouble != self._trouble:
            self._engine.log.error("audit_not_integrated", cause=trouble)
        self._trouble = trouble
        self._engine.metrics.audit_trouble.set(1 if trouble else 0)

    def _keep_heads(self) -> None:
        interval = max(1, self._engine.config.audit.head_interval_s)
        failure = failure_of(self._compare_heads)
        if failure:
            self._head_failed("compare", failure)
        while not self._stop.wait(interval):
            self._push_heads((*self._sinks.files, *self._sinks.remote))

    def _push_heads(self, sinks: Sequence[HeadSink]) -> None:
        """Leave the present head with each place that has not taken it, and again with those that failed."""
        failure = failure_of(partial(self._leave_head, sinks))  # the next turn tries again
        if failure:
            self._head_failed("sign", failure)

    def _leave_head(self, sinks: Sequence[HeadSink]) -> None:
        head = self.head() if sinks else NOTHING
        lacking = [s for s in sinks if s not in self._distrusted and self._kept.get(s, 0) != head.size]
        if not lacking:
            return
        checkpoint = self.sign(head)
        for sink in lacking:
            failure = failure_of(partial(sink.push, checkpoint))  # a foreign client of a webhook or bucket
            if failure:
                self._head_failed(sink.name, failure)
            else:
                self._kept[sink] = head.size
                self._engine.metrics.audit_heads.labels(sink.name, "ok").inc()

    def _head_failed(self, name: str, cause: str) -> None:
        self._engine.metrics.audit_heads.labels(name, "failed").inc()
        self._engine.log.error("audit_head_not_kept", place=name, cause=cause)

    def _compare_heads(self) -> None:
        for finding in self.compare_heads():
            self._engine.log.error("audit_rolled_back", finding=finding.code, where=finding.where)
            self._engine.metrics.audit_heads.labels("file", "differs").inc()

    def compare_heads(self) -> list[Finding]:
        """The last head in each file against the log; a file that does not fit is not written any more."""
        findings = []
        for number, sink in enumerate(self._sinks.files):
            where = f"audit.head_files, file {number + 1}"
            try:
                note = sink.latest()
                if note is None or self._is_beginning(note):
                    continue
            except IntegrityError:
                pass  # not a head of this log
            except StrongroomError as e:
                text = f"it could not be compared ({e.code})"
                findings.append(Finding(Severity.WARNING, "audit_head_unreadable", text, where))
                continue
            self._distrusted.add(sink)
            findings.append(
                Finding(
                    Severity.ERROR,
                    "audit_rolled_back",
                    "the audit log is not the one of which this file kept a head: "
                    "the store was put back to an older state, or its log was written anew",
                    where,
                    "keep the file as evidence; name another one once the store may be trusted again",
                )
            )
        return findings

    def _is_beginning(self, note: str) -> bool:
        signer = self.signer()
        former = [offline.parse_keys("\n".join(change.before)) for change in reversed(signer.changes)]
        kept = offline.open_kept(note, offline.parse_keys("\n".join(signer.public_keys())), former)
        head = self.head()
        return kept.size <= head.size and self.root(kept.size) == kept.root

    # -- integration --------------------------------------------------------------------------------------
    def integrate(self) -> TreeHead:
        """Take every entry that is committed by now into the tree; what is integrated afterwards.

        Those that come meanwhile are for the next time: beside writers that go on there is always one more.

        Raises:
            TamperedError: entries that were integrated are gone or are others now.
        """
        lost, wanted = 0, -1
        while True:
            with self._lock:  # for one step at a time: others want to know the head
                head = self._read_head()
                count = self._engine.ledger.audit_count()
                if count < head.size:
                    raise TamperedError(_LOST)
                if wanted < 0:
                    wanted = count
                if head.size >= wanted or lost == _TRIES:
                    self._engine.metrics.audit_size.set(head.size)
                    return head
                if self._grow(head) is None:
                    lost += 1  # another process was first

    def _grow(self, head: TreeHead) -> TreeHead | None:
        """One transaction's worth; None when another process has changed row or key meanwhile."""
        frontier = self._frontier_of(head).copy()
        entries = self._engine.ledger.audit_entries(head.size, CHUNK)
        if not entries or entries[-1][0] != head.size + len(entries):
            raise TamperedError(_LOST)
        nodes = frontier.extend([audit.leaf_hash(sealed) for _, sealed in entries])
        grown = TreeHead(frontier.size, frontier.root(), self._engine.now_us(), head.version + 1)
        raw = msgspec.msgpack.encode((_FORM, grown.size, grown.root, grown.at_us))
        put = self._put(_HEAD_ID, Field.AUDIT_HEAD, grown.version, raw)
        try:
            self._engine.ledger.commit(WriteBatch(puts=[put], audit_nodes=[AuditNode(*n) for n in nodes]))
        except (VersionConflictError, DuplicateMemoryError):
            self._frontier = None
            return None
        except KeyMovedError:
            self._engine.vault.keyring.refresh()
            return None
        self._frontier, self._seen = frontier, grown
        return grown

    def _frontier_of(self, head: TreeHead) -> Frontier:
        """The right edge of the tree.

        Raises:
            TamperedError: it does not fit the sealed root.
        """
        known = self._frontier
        if known is None or known.size != head.size:
            known = Frontier(head.size, self._hashes(audit.subtrees(0, head.size)))
        if known.root() != head.root:
            raise TamperedError(_CHANGED)
        return known

    def head(self) -> TreeHead:
        """What is integrated.

        Raises:
            TamperedError: the row is older than one that this process has seen.
        """
        with self._lock:
            return self._read_head()

    def _read_head(self) -> TreeHead:
        row = self._engine.ledger.get(SYSTEM_NS, _HEAD_ID, Field.AUDIT_HEAD)
        version = 0 if row is None else row.version
        if version < self._seen.version:
            raise TamperedError(_CHANGED)
        if row is None:
            return NOTHING
        if version > self._seen.version:
            form, size, root, at_us = _decode(self._open(row), tuple[int, int, bytes, int])
            if form != _FORM:
                raise IntegrityError("the head of the audit log is not of its form")
            self._seen = TreeHead(size, root, at_us, version)
        return self._seen

    def _put(self, memory_id: bytes, field: Field, version: int, raw: bytes) -> Put:
        key, sealed = self._engine.vault.seal_audit_row(SYSTEM_TENANT, memory_id, field, version, raw)
        return Put(
            ns=SYSTEM_NS,
            memory_id=memory_id,
            field=field,
            version=version,
            content_version=version,
            key_id=key,
            state=State.LIVE,
            model=0,
            sealed=sealed,
            expect=version - 1,
        )

    def _open(self, row: SealedRecord) -> bytes:
        return self._engine.vault.open(SYSTEM_TENANT, row)

    # -- checkpoints and proofs -----------------------------------------------------------------------------
    def signer(self) -> Signer:
        """The signing keys of now, made at the first use and kept sealed in the system namespace.

        Raises:
            TamperedError: they are gone, or older ones than this process has seen.
        """
        row = self._signer_row()
        if self._signer is None or self._signer[0] != row.version:
            origin = audit.origin_of(self._engine.ledger.store_id)
            self._signer = (row.version, Signer(origin, self._open(row)))
        return self._signer[1]

    def signer_as(self, origin: str) -> Signer:
        """The same keys under another name: what they sign can never pass for a checkpoint of the log."""
        return Signer(origin, self._open(self._signer_row()))

    def _signer_row(self) -> SealedRecord:
        ledger = self._engine.ledger
        row = ledger.get(SYSTEM_NS, _SIGNER_ID, Field.AUDIT_SIGNER)
        if row is None and not self._signer_seen:
            put = self._put(_SIGNER_ID, Field.AUDIT_SIGNER, 1, Signer.new_payload())
            with suppress(DuplicateMemoryError):  # another process was first: its keys count
                ledger.commit(WriteBatch(puts=[put]))
            row = ledger.get(SYSTEM_NS, _SIGNER_ID, Field.AUDIT_SIGNER)
        if row is None:
            raise TamperedError("the signing key of the audit log is gone")
        if row.version < self._signer_seen:
            raise TamperedError("signing keys of before were put in the place of those of the audit log")
        self._signer_seen = row.version
        return row

    def renew_signer(self, entry: Callable[[KeyChange], bytes], *, compromised: bool) -> KeyChange:
        """Sign with new keys from now on. ``entry``: the entry of the log that announces them.

        The keys before sign the change, as do the new ones; keys, change and entry are one transaction.

        Raises:
            TamperedError: as ``integrate``. ConflictError: other processes do the same all the time.
        """
        engine = self._engine
        for _ in range(_TRIES):
            row = self._signer_row()
            head = self.integrate()
            raw = Signer.next_payload(
                engine.ledger.store_id,
                self._open(row),
                size=head.size,
                root=head.root,
                at=engine.now(),
                compromised=compromised,
            )
            change = Signer(audit.origin_of(engine.ledger.store_id), raw).changes[-1]
            put = self._put(_SIGNER_ID, Field.AUDIT_SIGNER, row.version + 1, raw)
            try:
                engine.ledger.commit(WriteBatch(puts=[put], audit=[entry(change)]))
            except (VersionConflictError, KeyMovedError):
                engine.vault.keyring.refresh()
                continue
            return change
        raise ConflictError("the keys of the audit log change all the time")

    def sign(self, head: TreeHead) -> Checkpoint:
        """The signed checkpoint of what is integrated."""
        return self.signer().sign(head.size, head.root, head.at_us // 1_000_000)

    def root(self, size: int) -> bytes:
        """The root over the first ``size`` entries, which are integrated."""
        return audit.fold(self._hashes(audit.subtrees(0, size)))

    def prove(self, ranges: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
        """The hashes of the ranges of a proof.

        Raises:
            TamperedError: entries or hashes of the tree are gone.
        """
        nodes = audit.needed(ranges)
        return tuple(audit.hashes(ranges, dict(zip(nodes, self._hashes(nodes), strict=True))))

    def _hashes(self, nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        """The hash of each complete subtree: stored, or made from its entries when it is small."""
        ledger = self._engine.ledger
        stored = ledger.audit_nodes([n for n in nodes if n[0] >= audit.STORED_LEVEL_MIN])
        blocks: dict[int, list[bytes]] = {}
        out = []
        for level, position in nodes:
            found = stored.get((level, position))
            if level < audit.STORED_LEVEL_MIN:
                first, count = position << level, 1 << level
                block = first >> audit.STORED_LEVEL_MIN
                if block not in blocks:
                    blocks[block] = self._block(block)
                start = first - (block << audit.STORED_LEVEL_MIN)
                leaves = blocks[block][start : start + count]
                found = audit.subtree_hash(leaves) if len(leaves) == count else None
            if found is None:
                raise TamperedError(_LOST)
            out.append(found)
        return out

    def _block(self, block: int) -> list[bytes]:
        """Leaf hashes of the smallest stored subtree, as far as there are entries, up to the first gap."""
        first = block << audit.STORED_LEVEL_MIN
        entries = self._engine.ledger.audit_entries(first, 1 << audit.STORED_LEVEL_MIN)
        return [audit.leaf_hash(s) for n, (seq, s) in enumerate(entries, first + 1) if seq == n]

    def entries(self, after: int, until: int) -> Iterator[tuple[int, bytes]]:
        """``(seq, sealed)`` of the entries in ``(after, until]`` that are there."""
        while after < until:
            page = self._engine.ledger.audit_entries(after, min(_PAGE, until - after))
            for seq, sealed in page:
                if seq > until:
                    return
                yield seq, sealed
            if not page:
                return
            after = page[-1][0]

    def rebuild(self) -> int:
        """Store again each subtree that is missing or wrong; how many. 0 when the entries themselves are.

        Raises:
            TamperedError: what is integrated cannot be read.
        """
        with self._lock:
            head = self._read_head()
            tree, wrong = Frontier(0, ()), []
            page: list[bytes] = []
            for seq, sealed in self.entries(0, head.size):
                if seq != tree.size + len(page) + 1:
                    return 0
                page.append(audit.leaf_hash(sealed))
                if len(page) == _PAGE or seq == head.size:
                    nodes = tree.extend(page)
                    stored = self._engine.ledger.audit_nodes([(level, at) for level, at, _ in nodes])
                    wrong += [AuditNode(*n) for n in nodes if stored.get((n[0], n[1])) != n[2]]
                    page.clear()
            if tree.size != head.size or tree.root() != head.root:
                return 0
            for start in range(0, len(wrong), CHUNK):
                self._engine.ledger.commit(WriteBatch(audit_nodes=wrong[start : start + CHUNK]))
            return len(wrong)

    def stored_nodes(self, nodes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return self._engine.ledger.audit_nodes(list(nodes))


def _decode(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except msgspec.DecodeError:
        raise IntegrityError("the head of the audit log is not of its form") from None
