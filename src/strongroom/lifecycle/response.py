"""Signed reports of responses to an incident: their form and verification (spec/response-report.md).

A report file is JSON: ``report`` (what was done), ``note`` (a C2SP signed note over its hash), ``keys``
(the verifier keys). The hash is SHA-256 over "strongroom/response@v1\\0" and the canonical JSON of
``report``: keys sorted, no spaces, UTF-8.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from strongroom.audit import Signer
from strongroom.audit.verify import open_checkpoint, parse_keys
from strongroom.errors import IntegrityError, InvalidInputError, TamperedError

REPORT_BYTES_MAX: Final = 16 * 1024 * 1024
_LABEL: Final = b"strongroom/response@v1\0"


def origin_of(store_id: UUID) -> str:
    """The name under which a store signs reports: another one than that of its audit log."""
    return f"strongroom/response/{store_id}"


def signed(report: dict[str, Any], signer: Signer, at_s: int) -> str:
    """The text of the report file."""
    note = signer.sign(1, _digest(report), at_s).note
    whole = {"report": report, "note": note, "keys": list(signer.public_keys())}
    return json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class VerifiedReport:
    """A report whose signatures hold. ``own_keys``: only the keys that it brings itself were asked."""

    report: dict[str, Any]
    own_keys: bool


def verify_report(text: str, keys: Sequence[str] | None = None) -> VerifiedReport:
    """Check both signatures of a report, with the verifier keys of the store or, without, those inside.

    Raises:
        IntegrityError: it is no report. TamperedError: it was changed, or another store has signed it.
    """
    if len(text.encode("utf-8", "surrogatepass")) > REPORT_BYTES_MAX:
        raise InvalidInputError("the report is too long")
    try:
        whole = json.loads(text)
        report, note, own = whole["report"], whole["note"], whole["keys"]
        if not (isinstance(report, dict) and isinstance(note, str) and all(isinstance(k, str) for k in own)):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError("this is no report of a response") from None
    if len(own) != 2:
        raise IntegrityError("this is no report of a response")
    head = open_checkpoint(note, parse_keys("\n".join(own if keys is None else keys)))
    if head.size != 1 or head.root != _digest(report) or head.origin != origin_of(_store(report)):
        raise TamperedError("the report is not what was signed")
    return VerifiedReport(report, keys is None)


def _store(report: dict[str, Any]) -> UUID:
    try:
        return UUID(report["store_id"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise IntegrityError("this is no report of a response") from None


def _digest(report: dict[str, Any]) -> bytes:
    canonical = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(_LABEL + canonical.encode("utf-8", "surrogatepass")).digest()
