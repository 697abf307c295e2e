"""What goes in and out of the audit log over REST."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from strongroom.model import AuditFilter, NamespacePattern
from strongroom.servers.rest._models import AuditEntryOut, Input, Output, Pattern, Text, Time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class _Wanted(Input):
    since: Time | None = None
    until: Time | None = None
    principals: list[Text] = []
    actions: list[Text] = []
    outcomes: list[Text] = []
    namespaces: list[Pattern] = []
    subjects: list[Text] = []

    def filter(self) -> AuditFilter:
        return AuditFilter(
            since_us=_us(self.since),
            until_us=_us(self.until),
            principals=tuple(self.principals),
            actions=tuple(self.actions),
            outcomes=tuple(self.outcomes),
            namespaces=tuple(NamespacePattern.parse(n) for n in self.namespaces),
            subjects=tuple(self.subjects),
        )


class AuditQuestion(_Wanted):
    """Which entries: of a time (``since`` included, ``until`` not), and whose principal, action, outcome,
    namespace and data subject are among those named; nothing named: any."""

    limit: Annotated[int, Field(ge=1)] = 1000
    after: Annotated[int, Field(ge=0)] = 0


class AuditExportOrder(_Wanted):
    """What to export: ``jsonl`` is whole, sealed and can be verified; the others say what entries say."""

    format: Literal["jsonl", "json", "csv", "ocsf"] = "jsonl"
    opened: bool = False


class AuditKeysOut(Output):
    """The public keys of the audit log as C2SP verifier keys: Ed25519, ML-DSA-44."""

    keys: list[str]


class AuditKeyChangesOut(Output):
    """Changes of the audit log's keys, each a signed JSON document, oldest first."""

    changes: list[str]


class CheckpointOut(Output):
    """What is in the log, and the signed note (C2SP tlog-checkpoint). ``root`` is hexadecimal."""

    origin: str
    size: int
    root: str
    checkpoint: str


class InclusionOut(Output):
    """A document for ``strongroom audit verify``: that an entry is in the log of a checkpoint."""

    format: Literal["strongroom-audit-proof/v1"]
    seq: int
    sealed: Base64
    hashes: list[Base64]
    checkpoint: str


class ConsistencyOut(Output):
    """A document for ``strongroom audit verify``: that an older log is the beginning of a checkpoint's."""

    format: Literal["strongroom-audit-consistency/v1"]
    old_size: int
    old_root: Base64
    hashes: list[Base64]
    checkpoint: str


class AuditFoundOut(Output):
    """The entries that were asked for, in order."""

    entries: list[AuditEntryOut]


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
