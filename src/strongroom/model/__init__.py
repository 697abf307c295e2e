"""The nouns: frozen values that every room shares. No I/O, no keys, no clock."""

from strongroom.model.filters import Filter
from strongroom.model.finding import Finding, Severity
from strongroom.model.memory import (
    Hit,
    JsonValue,
    ListPage,
    Memory,
    MemoryDraft,
    MemoryPatch,
    QueueEntry,
    QueueStats,
    SearchMode,
    StoreStats,
)
from strongroom.model.namespace import NamespaceInfo, NamespacePattern, check_namespace, tenant_of
from strongroom.model.principal import Action, ApiKeyInfo, Decision, Principal, Scope
from strongroom.model.record import AuditEntry, Field, SealedRecord, State
from strongroom.model.sql import SqlCancel, SqlColumn, SqlDescription, SqlResult

__all__ = [
    "Action",
    "ApiKeyInfo",
    "AuditEntry",
    "Decision",
    "Field",
    "Filter",
    "Finding",
    "Hit",
    "JsonValue",
    "ListPage",
    "Memory",
    "MemoryDraft",
    "MemoryPatch",
    "NamespaceInfo",
    "NamespacePattern",
    "Principal",
    "QueueEntry",
    "QueueStats",
    "Scope",
    "SealedRecord",
    "SearchMode",
    "Severity",
    "SqlCancel",
    "SqlColumn",
    "SqlDescription",
    "SqlResult",
    "State",
    "StoreStats",
    "check_namespace",
    "tenant_of",
]
