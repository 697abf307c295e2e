"""The nouns: frozen values that every room shares. No I/O, no keys, no clock."""

from strongroom.model.audit import (
    EVERYTHING,
    AuditFilter,
    Checkpoint,
    ConsistencyProof,
    InclusionProof,
)
from strongroom.model.credentials import ClientIdentity, ElevationInfo, ElevationState, TokenInfo
from strongroom.model.filters import Filter
from strongroom.model.finding import Finding, Severity
from strongroom.model.keys import EncryptionKey, EncryptionKeyState, KeyChange, KeyKind
from strongroom.model.memory import (
    Hit,
    HitExplanation,
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
from strongroom.model.namespace import (
    NamespaceInfo,
    NamespaceKms,
    NamespacePattern,
    check_namespace,
    tenant_of,
)
from strongroom.model.principal import (
    IN_PROCESS,
    Action,
    ApiKeyInfo,
    Authentication,
    Decision,
    Elevated,
    Principal,
    PrincipalKind,
    RequestContext,
    Scope,
)
from strongroom.model.record import AuditEntry, Field, SealedRecord, State
from strongroom.model.response import ResponseReport, ResponseStep
from strongroom.model.rotation import SYSTEM_NAME, Rewrapped, Rotation, RotationKind, RotationState
from strongroom.model.sql import SqlCancel, SqlColumn, SqlDescription, SqlResult

__all__ = [
    "EVERYTHING",
    "IN_PROCESS",
    "SYSTEM_NAME",
    "Action",
    "ApiKeyInfo",
    "AuditEntry",
    "AuditFilter",
    "Authentication",
    "Checkpoint",
    "ClientIdentity",
    "ConsistencyProof",
    "Decision",
    "Elevated",
    "ElevationInfo",
    "ElevationState",
    "EncryptionKey",
    "EncryptionKeyState",
    "Field",
    "Filter",
    "Finding",
    "Hit",
    "HitExplanation",
    "InclusionProof",
    "JsonValue",
    "KeyChange",
    "KeyKind",
    "ListPage",
    "Memory",
    "MemoryDraft",
    "MemoryPatch",
    "NamespaceInfo",
    "NamespaceKms",
    "NamespacePattern",
    "Principal",
    "PrincipalKind",
    "QueueEntry",
    "QueueStats",
    "RequestContext",
    "ResponseReport",
    "ResponseStep",
    "Rewrapped",
    "Rotation",
    "RotationKind",
    "RotationState",
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
    "TokenInfo",
    "check_namespace",
    "tenant_of",
]
