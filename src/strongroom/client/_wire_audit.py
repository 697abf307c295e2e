"""Answers about the audit log, without I/O. Nothing is verified here; ``strongroom.audit.verify`` does."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from strongroom.client import _wire
from strongroom.errors import TransportError
from strongroom.model import AuditFilter, Checkpoint, ConsistencyProof, InclusionProof

NOT_KNOWN = "the answer is not of the form that this client knows"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AuditKeys(msgspec.Struct):
    keys: tuple[str, str]


class AuditRotation(msgspec.Struct):
    change: str


class AuditKeyChanges(msgspec.Struct):
    changes: tuple[str, ...]


class _Checkpoint(msgspec.Struct):
    origin: str
    size: int
    root: str
    checkpoint: str


class _Proof(msgspec.Struct):
    hashes: list[str]
    checkpoint: str
    seq: int = 0
    sealed: str = ""
    old_size: int = 0
    old_root: str = ""


def checkpoint(raw: bytes) -> Checkpoint:
    """What the server has signed; nothing is verified here."""
    found = _wire.decode(_Checkpoint, raw)
    try:
        root = bytes.fromhex(found.root)
    except ValueError:
        raise TransportError(NOT_KNOWN) from None
    return Checkpoint(found.origin, found.size, root, found.checkpoint)


def inclusion(raw: bytes) -> InclusionProof:
    found = _wire.decode(_Proof, raw)
    hashes = tuple(_bytes(h) for h in found.hashes)
    return InclusionProof(found.seq, _bytes(found.sealed), hashes, _of_note(found.checkpoint))


def consistency(raw: bytes) -> ConsistencyProof:
    found = _wire.decode(_Proof, raw)
    hashes = tuple(_bytes(h) for h in found.hashes)
    return ConsistencyProof(found.old_size, _bytes(found.old_root), hashes, _of_note(found.checkpoint))


def _of_note(note: str) -> Checkpoint:
    try:
        origin, size, root, _ = note.split("\n", 3)
        return Checkpoint(origin, int(size), _bytes(root), note)
    except ValueError:
        raise TransportError(NOT_KNOWN) from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise TransportError(NOT_KNOWN) from None


def _time(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def filter_fields(wanted: AuditFilter) -> dict[str, Any]:
    """A filter as the fields of a request."""
    fields = {
        "since": _time(wanted.since_us),
        "until": _time(wanted.until_us),
        "principals": list(wanted.principals) or None,
        "actions": list(wanted.actions) or None,
        "outcomes": list(wanted.outcomes) or None,
        "namespaces": [n.text for n in wanted.namespaces] or None,
        "subjects": list(wanted.subjects) or None,
    }
    return _wire.present(fields)


class LineCounter:
    """Hands an export on to ``write`` and counts its entries as they pass."""

    def __init__(self, format: str, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines = 0
        self._quoted = False  # a line end inside a quoted cell of CSV ends no entry
        self._csv = format == "csv"
        self._other_lines = {"jsonl": 2, "csv": 1}.get(format, 0)

    def add(self, text: str) -> None:
        self._write(text)
        if not self._csv:
            self._lines += text.count("\n")
            return
        for number, part in enumerate(text.split('"')):
            self._quoted ^= number > 0
            if not self._quoted:
                self._lines += part.count("\n")

    @property
    def entries(self) -> int:
        return max(0, self._lines - self._other_lines)
