"""check and repair as operations of the engine; the work is in ``lifecycle.check``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from strongroom.engine._audit_check import TreeCheck
from strongroom.engine._call import Call
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._rotation import name_of
from strongroom.engine._unused_keys import unused_findings
from strongroom.engine._vault import SYSTEM_NS, HeadSum
from strongroom.errors import InvalidInputError, StrongroomError, UnwrapError
from strongroom.keyring import KeyState
from strongroom.ledger import QueueItem, WriteBatch
from strongroom.lifecycle.check import (
    CheckCounts,
    Depth,
    NamespaceUnderCheck,
    check_namespace_rows,
    compare_counts,
)
from strongroom.model import Action, Field, Finding, SealedRecord, Severity, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_AUDIT_PAGE = 2000
_QUEUE_PAGE = 5000


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and what was found. ``ok`` when no finding is an error or a warning."""

    findings: tuple[Finding, ...]
    rows: int
    opened: int
    memories: int
    vectors: int
    audit_entries: int

    @property
    def ok(self) -> bool:
        return all(f.severity == Severity.INFO for f in self.findings)


class _Borrowed:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, row: SealedRecord) -> bytes:
        return self._engine.vault.open(self._engine.heads.tenant(row.ns), row)

    def open_head(self, ns: int, head: bytes, seq: int) -> int:
        return self._engine.heads.open_head(ns, head, seq)

    def summer(self, ns: int, head: bytes) -> HeadSum:
        return self._engine.heads.summer(ns, head)

    def queued(self, ns: int) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        after = 0
        while page := self._engine.ledger.queue(ns=ns, after=after, limit=_QUEUE_PAGE):
            found.update((row.memory_id, row.content_version) for row in page)
            after = page[-1].id
        return found

    def destroyed(self, ns: int) -> set[int]:
        return _destroyed(self._engine, ns)

    def changed(self, ns: int, memory_ids: Sequence[bytes], seq: int) -> set[bytes]:
        return {
            row.memory_id
            for field in (Field.MEMORY, Field.VECTOR)
            for row in self._engine.ledger.get_many(ns, memory_ids, field)
            if row.seq > seq
        }


class _Told:
    """How far a check is, in rows: those of each namespace count once for the rows and once for the index.

    The namespace itself counts as a row, so that it goes on where there are many and little in them.
    """

    def __init__(
        self, engine: Engine, spaces: Sequence[int], tell: Callable[[int, int], None] | None
    ) -> None:
        self._rows = {ns: engine.ledger.head(ns)[0] + 1 for ns in spaces}  # about: numbers of changes
        self._total = sum(2 * rows for ns, rows in self._rows.items() if ns != SYSTEM_NS)
        self._total += self._rows.get(SYSTEM_NS, 0)
        self._before = 0
        self._tell = tell

    def rows(self, done: int) -> None:
        """So many rows of the namespace that is being read."""
        if self._tell is not None:
            self._tell(min(self._before + done, self._total), self._total)

    def done(self, ns: int) -> None:
        """A namespace was read, or compared with its index."""
        self._before += self._rows.get(ns, 0)
        self.rows(0)


def check(
    call: Call,
    read_data: bool,
    subset: tuple[int, int] | None,
    progress: Callable[[int, int], None] | None,
    keys_progress: Callable[[int, int], None] | None,
) -> CheckReport:
    engine = call.engine
    call.reason = "check"
    call.require(Action.ADMINISTER, None)
    subset = _checked_subset(subset)
    for name, given in (("progress", progress), ("keys_progress", keys_progress)):
        if given is not None and not callable(given):
            raise InvalidInputError(
                f"{name} is not a function", hint="one that takes (done, total), or nothing"
            )
    depth = Depth(read_data, subset)
    counts = CheckCounts()
    findings = [*engine.ledger.check(), *engine.vault.keyring.check(keys_progress)]
    engine.registry.refresh()
    borrowed = _Borrowed(engine)
    targets = [NamespaceUnderCheck(SYSTEM_NS, 0, False)]
    targets += [
        NamespaceUnderCheck(e.ns, e.model_no, engine.models.embeds(e)) for e in engine.registry.entries()
    ]
    findings += unused_findings(engine)
    told = _Told(engine, [target.ns for target in targets], progress)
    for target in targets:
        with engine.ledger.snapshot() as reader:
            findings += check_namespace_rows(reader, target, borrowed, depth, counts, told.rows)
        told.done(target.ns)
    audited = _check_audit(engine, depth, findings)
    for entry in engine.registry.entries():
        findings += _compare(engine, entry)
        told.done(entry.ns)
    findings += engine.indexes.snapshots.check(read_data)
    call.count = counts.rows
    return CheckReport(
        findings=tuple(findings),
        rows=counts.rows,
        opened=counts.opened,
        memories=counts.memories,
        vectors=counts.vectors,
        audit_entries=audited,
    )


def _checked_subset(subset: object) -> tuple[int, int] | None:
    match subset:
        case None:
            return None
        case (int(part), int(parts)) if 1 <= part <= parts <= 10_000:
            return part, parts
    raise InvalidInputError("a subset is n/t with 1 <= n <= t <= 10000")


def _check_audit(engine: Engine, depth: Depth, findings: list[Finding]) -> int:
    after = seen = 0
    tree = TreeCheck(engine.audit_log)
    while page := engine.ledger.audit_entries(after, _AUDIT_PAGE):
        for seq, sealed in page:
            seen += 1
            tree.add(sealed)
            if not (depth.read_data or depth.subset):
                continue
            try:
                engine.vault.open_audit(seq, sealed)
            except StrongroomError as e:
                findings.append(
                    Finding(
                        Severity.ERROR,
                        "audit_unreadable",
                        f"it does not open ({e.code})",
                        f"audit entry {seq}",
                    )
                )
        after = page[-1][0]
    findings += tree.findings()
    return seen


def _destroyed(engine: Engine, ns: int) -> set[int]:
    try:
        keys = engine.vault.keyring.list_keys(ns)
    except UnwrapError:
        return set()  # a row of the keyring was altered: its own check says so
    return {k.key_id for k in keys if k.state == KeyState.DESTROYED}


def _compare(engine: Engine, entry: NamespaceEntry) -> Sequence[Finding]:
    """The projection against the ledger, when it stood still for that long; it is kept if it was there."""
    was_loaded = engine.indexes.is_loaded(entry.ns)
    try:
        return _compared(engine, entry)
    finally:
        index = engine.indexes.loaded_index(entry.ns)
        if index is not None and not was_loaded:
            engine.indexes.residency.release(entry.ns, index)


def _compared(engine: Engine, entry: NamespaceEntry) -> Sequence[Finding]:
    try:
        index = engine.indexes.ready(entry)
    except StrongroomError:
        return ()  # the rows do not match the head: reported already
    destroyed = _destroyed(engine, entry.ns)
    is_rebuilt = False
    for _ in range(5):
        with engine.ledger.snapshot() as reader:
            seq, _ = reader.head(entry.ns)
            contents: dict[bytes, int] = {}
            vectors: dict[bytes, int] = {}
            for row in reader.iter_changes(entry.ns):
                if row.state != State.LIVE or row.key_id in destroyed:
                    continue
                if row.field == Field.MEMORY:
                    contents[row.memory_id] = row.content_version
                elif row.field == Field.VECTOR and row.model == entry.model_no:
                    vectors[row.memory_id] = row.content_version
        try:
            index = engine.indexes.ready(entry)
        except StrongroomError:
            return ()  # found meanwhile, in the background
        projected = index.memories, index.embedded
        if index.watermark == seq:
            embedded = sum(1 for m, v in vectors.items() if contents.get(m) == v)
            findings = compare_counts(entry.ns, (len(contents), embedded), projected)
            if not findings or not destroyed or is_rebuilt:
                return findings
            engine.indexes.drop(entry.ns)  # it may have been built before a key was destroyed
            is_rebuilt = True
    return ()


def repair(call: Call, accept_loss: bool) -> Sequence[Finding]:
    """Mend what can be mended without loss; with ``accept_loss`` also take the rows as they are.

    Vectors that are missing or do not open are queued for embedding. With ``accept_loss`` the heads are made
    anew from the rows that are there, which gives up the evidence that some are missing.
    """
    engine = call.engine
    call.reason = "repair, accepting loss" if accept_loss else "repair"
    call.require(Action.ADMINISTER, None)
    done: list[Finding] = []
    if accept_loss:
        done += _accept_rows(call)
    for entry in engine.registry.entries():
        done += _queue_missing(engine, entry)
        engine.indexes.drop(entry.ns)
    engine.models.wake()
    if rebuilt := engine.audit_log.rebuild():
        text = f"{rebuilt} hashes of the audit log's tree were made anew from its entries"
        done.append(Finding(Severity.INFO, "audit_tree_made_anew", text, "audit log"))
    call.count = len(done)
    return done


def _queue_missing(engine: Engine, entry: NamespaceEntry) -> Sequence[Finding]:
    if not engine.models.embeds(entry):
        return ()
    tenant = entry.tenant
    waiting: dict[bytes, int] = {}
    good: dict[bytes, int] = {}
    for row in engine.ledger.iter_changes(entry.ns):
        if row.state != State.LIVE:
            continue
        if row.field == Field.MEMORY:
            waiting[row.memory_id] = row.content_version
        elif row.field == Field.VECTOR and row.model == entry.model_no:
            try:
                engine.vault.open(tenant, row)
            except StrongroomError:
                continue
            good[row.memory_id] = row.content_version
    queued = _Borrowed(engine).queued(entry.ns)
    items = [QueueItem(entry.ns, m, v) for m, v in waiting.items() if good.get(m) != v and queued.get(m) != v]
    for start in range(0, len(items), 1000):
        engine.ledger.commit(WriteBatch(enqueue=items[start : start + 1000]))
    if not items:
        return ()
    where = f"namespace {entry.ns}"
    return (Finding(Severity.INFO, "vectors_queued", f"{len(items)} memories queued for embedding", where),)


def _accept(call: Call, ns: int) -> None:
    """Make the head of a namespace anew; that the evidence was given up stands in the same transaction."""
    name = name_of(call.engine, ns)
    call.tell(partial(call.engine.ledger.reset_head, ns), lambda count: call.entry_of_one(name, count))
    call.written = False  # the repair goes on, and has an entry of its own


def _accept_rows(call: Call) -> Sequence[Finding]:
    """Make anew each head that does not match its rows."""
    engine, done = call.engine, list[Finding]()
    for ns in engine.ledger.namespaces():
        with engine.ledger.snapshot() as reader:
            finding = next(
                (
                    f
                    for f in check_namespace_rows(
                        reader, NamespaceUnderCheck(ns, 0, False), _Borrowed(engine), Depth(), CheckCounts()
                    )
                    if f.code in ("rows_do_not_match_head", "head_unreadable")
                ),
                None,
            )
        if finding is not None:
            _accept(call, ns)
            where = f"namespace {ns}"
            done.append(Finding(Severity.INFO, "head_made_anew", "the rows were accepted as they are", where))
            call.done = f"the rows of {len(done)} namespaces were accepted as they are"
    return done
