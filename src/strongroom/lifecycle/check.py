"""The check of a store: structure, every sealed byte, vectors, queue. It changes nothing.

Three depths. Structure alone compares rows with heads and queues (headers are read, nothing is opened);
``read_data`` opens every sealed row; a ``subset`` n/t opens those rows whose id falls into part n of t,
so that t runs cover all. Findings name places by numbers and ids, never by content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from strongroom.errors import KeyManagementError, StrongroomError
from strongroom.ledger import LedgerReader, element_of
from strongroom.model import Field, Finding, SealedRecord, Severity, State

Progress = Callable[[int], None]  # rows of this namespace that were read


@dataclass(frozen=True, slots=True)
class NamespaceUnderCheck:
    """A namespace to check: its number, and whether its memories are to have vectors of which model."""

    ns: int
    model_no: int
    embeds: bool


class Summed(Protocol):
    """A multiset hash that is being added up."""

    def add(self, element: bytes) -> None: ...

    def matches(self, total: int) -> bool: ...


class CheckAccess(Protocol):
    """What the check borrows from the engine, which alone can open."""

    def open(self, row: SealedRecord) -> bytes: ...

    def open_head(self, ns: int, head: bytes, seq: int) -> int: ...

    def summer(self, ns: int, head: bytes) -> Summed: ...

    def queued(self, ns: int) -> dict[bytes, int]: ...

    def destroyed(self, ns: int) -> set[int]:
        """The numbers of the data keys that were destroyed: what they sealed is meant to be gone."""

    def changed(self, ns: int, memory_ids: Sequence[bytes], seq: int) -> set[bytes]:
        """Those whose memory or vector was written after ``seq``."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is opened. ``subset`` = (part, parts), part from 1."""

    read_data: bool = False
    subset: tuple[int, int] | None = None

    def opens(self, memory_id: bytes) -> bool:
        if self.subset is None:
            return self.read_data
        part, parts = self.subset
        return int.from_bytes(memory_id[-4:]) % parts == part - 1


@dataclass(slots=True)
class CheckCounts:
    """What a check has looked at."""

    rows: int = 0
    opened: int = 0
    memories: int = 0
    vectors: int = 0


def _head_sum(borrowed: CheckAccess, ns: int, head: bytes, seq: int) -> tuple[int | None, Finding | None]:
    """The sum in the head of a namespace, or why it cannot be had."""
    where = f"namespace {ns}"
    try:
        return borrowed.open_head(ns, head, seq), None
    except KeyManagementError as e:
        what = f"its keys cannot be had ({e.code}): {e.message}"
        return None, Finding(Severity.ERROR, _NO_KEYS, what, where, e.hint)
    except StrongroomError as e:
        what = f"the head does not open ({e.code})"
        return None, Finding(Severity.ERROR, "head_unreadable", what, where, _REPAIR)


def check_namespace_rows(
    reader: LedgerReader,
    target: NamespaceUnderCheck,
    borrowed: CheckAccess,
    depth: Depth,
    counts: CheckCounts,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Check one namespace against its head, inside one snapshot of the ledger."""
    ns = target.ns
    seq, head = reader.head(ns)
    total, trouble = _head_sum(borrowed, ns, head, seq)
    if trouble is not None:
        yield trouble
    if trouble is None or trouble.code != _NO_KEYS:  # else the others are looked at
        yield from _check_rows(reader, target, borrowed, depth, counts, progress, total)


def _check_rows(
    reader: LedgerReader,
    target: NamespaceUnderCheck,
    borrowed: CheckAccess,
    depth: Depth,
    counts: CheckCounts,
    progress: Progress | None,
    total: int | None,
) -> Iterator[Finding]:
    ns = target.ns
    seq, head = reader.head(ns)
    summed = borrowed.summer(ns, head)
    contents: dict[bytes, int] = {}
    vectors: dict[bytes, tuple[int, int]] = {}
    destroyed = borrowed.destroyed(ns)
    shredded, before = 0, counts.rows
    for row in reader.iter_changes(ns):
        counts.rows += 1
        summed.add(element_of(row))
        if row.key_id in destroyed and row.state == State.LIVE:
            shredded += row.field == Field.MEMORY
            continue
        if row.field == Field.MEMORY and row.state == State.LIVE:
            contents[row.memory_id] = row.content_version
            counts.memories += 1
        if row.state == State.LIVE and depth.opens(row.memory_id):
            finding = _open_finding(row, borrowed)
            counts.opened += finding is None
            if finding is not None:
                yield finding
                if row.field == Field.VECTOR:
                    continue
        if row.field == Field.VECTOR and row.state == State.LIVE:
            vectors[row.memory_id] = (row.content_version, row.model)
            counts.vectors += 1
        if progress is not None and (counts.rows - before) % 1000 == 0:
            progress(counts.rows - before)
    if total is not None and not summed.matches(total):
        yield Finding(
            Severity.ERROR,
            "rows_do_not_match_head",
            "rows were removed, added or put back from outside",
            f"namespace {ns}",
            _REPAIR,
        )
    if shredded:
        yield Finding(
            Severity.INFO,
            "memories_shredded",
            f"{shredded} memories cannot be read any more: their keys were destroyed",
            f"namespace {ns}",
        )
    if target.embeds:
        yield from _vector_findings(target, contents, vectors, borrowed, seq)


_NO_KEYS = "namespace_keys_unavailable"
_REPAIR = "restore a backup; or accept what is there with: strongroom repair --accept-loss"


def _open_finding(row: SealedRecord, borrowed: CheckAccess) -> Finding | None:
    try:
        borrowed.open(row)
    except StrongroomError as e:
        field = Field(row.field).name.lower() if row.field in set(Field) else str(row.field)
        where = f"namespace {row.ns}, {field} {UUID(bytes=row.memory_id)}"
        if row.field in (Field.VECTOR, Field.ACCESS):
            hint = "strongroom repair queues it for embedding again" if row.field == Field.VECTOR else None
            return Finding(Severity.WARNING, "row_unreadable", f"it does not open ({e.code})", where, hint)
        return Finding(
            Severity.ERROR,
            "row_unreadable",
            f"it does not open ({e.code})",
            where,
            "restore it from a backup",
        )
    return None


def _vector_findings(
    target: NamespaceUnderCheck,
    contents: dict[bytes, int],
    vectors: dict[bytes, tuple[int, int]],
    borrowed: CheckAccess,
    seq: int,
) -> Iterator[Finding]:
    queued = borrowed.queued(target.ns)
    missing = [
        memory_id
        for memory_id, version in contents.items()
        if vectors.get(memory_id) != (version, target.model_no) and queued.get(memory_id) != version
    ]
    # The queue is read after the rows: what was embedded or changed in between is not lost.
    lost = len(missing) - len(borrowed.changed(target.ns, missing, seq)) if missing else 0
    if lost:
        yield Finding(
            Severity.WARNING,
            "vectors_missing",
            f"{lost} memories have no valid vector and are not queued",
            f"namespace {target.ns}",
            "strongroom repair queues them; so does the next search there",
        )
    stray = sum(1 for memory_id in vectors if memory_id not in contents)
    if stray:
        yield Finding(
            Severity.WARNING, "vectors_stray", f"{stray} vectors have no memory", f"namespace {target.ns}"
        )


def compare_counts(ns: int, ledger: tuple[int, int], projection: tuple[int, int]) -> Sequence[Finding]:
    """(memories, embedded) of ledger and projection must agree."""
    if ledger == projection:
        return ()
    return (
        Finding(
            Severity.ERROR,
            "projection_differs",
            f"the ledger holds {ledger[0]} memories with {ledger[1]} vectors, "
            f"the projection {projection[0]} with {projection[1]}",
            f"namespace {ns}",
            "close and open the store: the projection is rebuilt from the ledger",
        ),
    )
