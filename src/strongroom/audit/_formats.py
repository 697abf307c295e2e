"""Opened entries for other tools: filters, JSON, CSV, OCSF. What is written here is no proof of anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from strongroom.model import AuditEntry

COLUMNS: Final = (
    "seq", "at", "request_id", "principal", "surface", "action", "namespaces", "outcome", "reason",
    "memory_ids", "count", "details", "subjects",
)  # fmt: skip
OCSF_VERSION: Final = "1.3.0"
AUTHENTICATE: Final = "authenticate"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# activity_id of class 6003: 1 create, 2 read, 3 update, 4 delete, 99 other
_ACTIVITIES: Final = {
    "store": 1, "create_namespace": 1, "search": 2, "read": 2, "list": 2, "sql": 2, "stats": 2, "whoami": 2,
    "reveal": 2, "export": 2, "check": 2, "sql_describe": 2, "update": 3, "repair": 3,
    "delete": 4, "erase": 4,
}  # fmt: skip
_ACTIVITY_NAMES: Final = {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: "Other"}


def at(entry: AuditEntry) -> datetime:
    """The time of an entry, UTC."""
    return _EPOCH + timedelta(microseconds=entry.at_us)


def as_json(entry: AuditEntry) -> str:
    """One JSON object, without its line end."""
    return _dumps(
        {
            "seq": entry.seq,
            "at": at(entry).isoformat().replace("+00:00", "Z"),
            "request_id": entry.request_id,
            "principal": entry.principal,
            "surface": entry.surface,
            "action": entry.action,
            "namespaces": list(entry.namespaces),
            "outcome": entry.outcome,
            "reason": entry.reason,
            "memory_ids": [str(UUID(bytes=i)) for i in entry.memory_ids],
            "count": entry.count,
            "details": dict(entry.details),
            "subjects": [s.hex() for s in entry.subjects],
        }
    )


def csv_header() -> str:
    return _csv_line(COLUMNS)


def as_csv(entry: AuditEntry) -> str:
    """One line of CSV (RFC 4180, without its line end).

    Lists are joined by a blank; a text that a spreadsheet would take for a formula gets an apostrophe.
    """
    return _csv_line(
        (
            str(entry.seq),
            at(entry).isoformat().replace("+00:00", "Z"),
            _plain(entry.request_id),
            _plain(entry.principal),
            _plain(entry.surface),
            _plain(entry.action),
            _plain(" ".join(entry.namespaces)),
            _plain(entry.outcome),
            _plain(entry.reason),
            " ".join(str(UUID(bytes=i)) for i in entry.memory_ids),
            str(entry.count),
            _plain(" ".join(f"{name}={text}" for name, text in entry.details)),
            " ".join(s.hex() for s in entry.subjects),
        )
    )


def as_ocsf(entry: AuditEntry) -> str:
    """One OCSF event: API Activity (6003) for operations, Authentication (3002) for refused credentials."""
    if entry.action == AUTHENTICATE:
        return _dumps(_authentication(entry))
    activity = _ACTIVITIES.get(entry.action, 99)
    event = _event(entry, 6, 6003, activity, _ACTIVITY_NAMES[activity])
    event["actor"] = {"user": {"uid": entry.principal}}
    event["api"] = {
        "operation": entry.action,
        "request": {"uid": entry.request_id},
        "service": {"name": "strongroom"},
    }
    event["src_endpoint"] = {"svc_name": entry.surface}
    event["resources"] = [{"type": "namespace", "name": n} for n in entry.namespaces] + [
        {"type": "memory", "uid": str(UUID(bytes=i))} for i in entry.memory_ids
    ]
    event["resources"] += [{"type": "data subject", "uid": s.hex()} for s in entry.subjects]
    event["unmapped"] = {"count": entry.count, **dict(entry.details)}
    return _dumps(event)


def _authentication(entry: AuditEntry) -> dict[str, Any]:
    event = _event(entry, 3, 3002, 1, "Logon")
    event["user"] = {"uid": entry.principal}
    event["service"] = {"name": f"strongroom {entry.surface}"}
    event["metadata"]["correlation_uid"] = entry.request_id
    if entry.details:
        event["unmapped"] = dict(entry.details)
    return event


def _event(entry: AuditEntry, category: int, kind: int, activity: int, name: str) -> dict[str, Any]:
    good = entry.outcome == "ok"
    event: dict[str, Any] = {
        "category_uid": category,
        "class_uid": kind,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": kind * 100 + activity,
        "time": entry.at_us // 1000,
        "severity_id": 1 if good else 3 if entry.outcome == "denied" else 2,
        "status_id": 1 if good else 2,
        "status": "Success" if good else "Failure",
        "status_code": entry.outcome,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "Strongroom", "vendor_name": "Strongroom"},
            "sequence": entry.seq,
        },
    }
    if entry.reason:
        event["status_detail"] = entry.reason
    return event


FORMATS: Final[dict[str, Callable[[AuditEntry], str]]] = {"json": as_json, "csv": as_csv, "ocsf": as_ocsf}


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv_line(cells: Collection[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
