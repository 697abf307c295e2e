"""The engine's nouns as JSON, the same on every surface.

Times are RFC 3339 in UTC, grants are their text, ids are UUIDs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from strongroom.model import (
    ApiKeyInfo,
    AuditEntry,
    ClientIdentity,
    ElevationInfo,
    Hits,
    NamespacePattern,
    Principal,
    TokenInfo,
)

__all__ = ["audit_out", "granted_out", "hits_out", "principal_out", "to_json", "to_plain"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _hook(value: object) -> Any:
    if isinstance(value, Mapping):  # read-only views of metadata
        return dict(value)
    if isinstance(value, NamespacePattern):
        return value.text
    raise TypeError(type(value).__name__)


_ENCODER = msgspec.json.Encoder(enc_hook=_hook)


def to_json(value: object) -> bytes:
    """JSON of nouns, and of dicts and lists of them."""
    return _ENCODER.encode(value)


def to_plain(value: object) -> Any:
    """What ``to_json`` would write, as dicts, lists and plain values."""
    return msgspec.to_builtins(value, enc_hook=_hook)


def hits_out(found: Hits) -> dict[str, Any]:
    """The answers of a search, and what is missing from them."""
    return {"hits": list(found), "notices": found.notices}


def granted_out(noun: ApiKeyInfo | ClientIdentity | TokenInfo | ElevationInfo) -> dict[str, Any]:
    """A noun with its grants as text."""
    fields = {f.name: getattr(noun, f.name) for f in dataclasses.fields(noun)}
    return {**fields, "grants": _texts(noun.grants)}


def principal_out(who: Principal) -> dict[str, Any]:
    """A caller with its grants, and what is lent to it, as text."""
    fields = {f.name: getattr(who, f.name) for f in dataclasses.fields(who)}
    lent = [{"id": e.id, "scope": e.scope, "grants": _texts(e.grants)} for e in who.elevations]
    return {**fields, "grants": _texts(who.grants), "elevations": lent}


def _texts(grants: Sequence[NamespacePattern]) -> list[str]:
    return [g.text for g in grants]


def audit_out(entry: AuditEntry) -> dict[str, Any]:
    """An audit entry with a time and with UUIDs."""
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry)}
    del fields["at_us"]
    fields["at"] = _EPOCH + timedelta(microseconds=entry.at_us)
    fields["memory_ids"] = [UUID(bytes=i) for i in entry.memory_ids]
    fields["details"] = dict(entry.details)
    fields["subjects"] = [s.hex() for s in entry.subjects]
    return fields
