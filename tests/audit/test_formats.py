"""Opened entries for other tools: JSON, CSV, OCSF."""

from __future__ import annotations

import csv
import io
import json
from uuid import UUID

import pytest

from strongroom import audit
from strongroom.model import AuditEntry

MEMORY = UUID("00000000-0000-4000-8000-00000000000a")


def entry(**changes: object) -> AuditEntry:
    values: dict[str, object] = {
        "at_us": 1_700_000_000_123_456, "request_id": "r1", "principal": "sr_key", "surface": "rest",
        "action": "search", "namespaces": ("a/b", "c"), "outcome": "ok", "memory_ids": (MEMORY.bytes,),
        "count": 1, "seq": 7, **changes,
    }  # fmt: skip
    return AuditEntry(**values)  # type: ignore[arg-type]


def test_json_holds_every_field_of_an_entry() -> None:
    """Times are RFC 3339, ids UUIDs."""
    found = json.loads(audit.as_json(entry(reason="ü")))
    assert found == {
        "seq": 7, "at": "2023-11-14T22:13:20.123456Z", "request_id": "r1", "principal": "sr_key",
        "surface": "rest", "action": "search", "namespaces": ["a/b", "c"], "outcome": "ok", "reason": "ü",
        "memory_ids": [str(MEMORY)], "count": 1, "details": {}, "subjects": [],
    }  # fmt: skip


def test_csv_comes_back_as_it_was_and_holds_no_formula() -> None:
    """Commas, quotes and line ends survive; a request id from outside cannot become a formula."""
    text = audit.csv_header() + "\r\n" + audit.as_csv(entry(request_id='=cmd|"x"!A1,\n', reason='a "b", c'))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["request_id"] == '\'=cmd|"x"!A1,\n' and row["reason"] == 'a "b", c'
    assert row["namespaces"] == "a/b c" and row["memory_ids"] == str(MEMORY)
    for start in "=+-@\t\r":
        assert audit.as_csv(entry(request_id=f"{start}1")).split(",")[2].lstrip('"').startswith("'")


@pytest.mark.parametrize(
    ("action", "activity"),
    [("store", 1), ("search", 2), ("sql", 2), ("update", 3), ("delete", 4), ("administer", 99)],
)
def test_operations_are_api_activity_in_ocsf(action: str, activity: int) -> None:
    """Class 6003 with the attributes that it requires, and a type that follows from class and activity."""
    event = json.loads(audit.as_ocsf(entry(action=action)))
    assert (event["class_uid"], event["category_uid"], event["activity_id"]) == (6003, 6, activity)
    assert event["type_uid"] == 600300 + activity
    assert event["time"] == 1_700_000_000_123
    assert (event["status_id"], event["severity_id"]) == (1, 1)
    required = {"actor", "api", "src_endpoint", "metadata", "severity_id", "time"}
    assert required <= set(event)
    assert event["metadata"]["product"]["vendor_name"] and event["metadata"]["version"]
    assert event["api"]["operation"] == action and event["actor"]["user"]["uid"] == "sr_key"
    assert {"type": "memory", "uid": str(MEMORY)} in event["resources"]


def test_refused_credentials_are_authentication_in_ocsf() -> None:
    """Class 3002, logon, failure; a denied operation stays an API activity that failed."""
    refused = json.loads(
        audit.as_ocsf(
            entry(action="authenticate", outcome="denied", reason="expired", namespaces=(), count=0)
        )
    )
    assert (refused["class_uid"], refused["type_uid"], refused["category_uid"]) == (3002, 300201, 3)
    assert (refused["status_id"], refused["status_detail"]) == (2, "expired")
    assert refused["user"]["uid"] == "sr_key" and refused["service"]["name"]
    denied = json.loads(audit.as_ocsf(entry(outcome="denied")))
    assert (denied["class_uid"], denied["status"], denied["severity_id"]) == (6003, "Failure", 3)
