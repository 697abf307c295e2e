"""The sealed-row store. It holds bytes and cannot open them: no import of keyring or crypto."""

from strongroom.ledger._read import Snapshot
from strongroom.ledger._rebase import RebaseRow, Renamed
from strongroom.ledger._sqlite import SqliteLedger
from strongroom.ledger._told import Telling
from strongroom.ledger._types import (
    ELEMENT_PREFIX_BYTES,
    EXPECT_ABSENT,
    EXPECT_ANY,
    SKIPPED,
    AuditNode,
    Filling,
    Ledger,
    LedgerHooks,
    LedgerReader,
    OutdatedError,
    Put,
    QueueItem,
    QueueRow,
    RowHeader,
    WriteBatch,
    element,
    element_of,
    element_of_header,
    root_of_head,
)
from strongroom.ledger._waves import PartRow, ResealBatch, Resealed, SealedRow, WaveRow, WaveState

__all__ = [
    "ELEMENT_PREFIX_BYTES",
    "EXPECT_ABSENT",
    "EXPECT_ANY",
    "SKIPPED",
    "AuditNode",
    "Filling",
    "Ledger",
    "LedgerHooks",
    "LedgerReader",
    "OutdatedError",
    "PartRow",
    "Put",
    "QueueItem",
    "QueueRow",
    "RebaseRow",
    "Renamed",
    "ResealBatch",
    "Resealed",
    "RowHeader",
    "SealedRow",
    "Snapshot",
    "SqliteLedger",
    "Telling",
    "WaveRow",
    "WaveState",
    "WriteBatch",
    "element",
    "element_of",
    "element_of_header",
    "root_of_head",
]
