"""The lines of an export (spec/audit-log.md); ``strongroom.audit.verify`` reads them."""

from __future__ import annotations

import base64
import json
from typing import Final

from strongroom.model import Checkpoint

EXPORT_FORMAT: Final = "strongroom-audit-export/v1"


def export_header(origin: str, size: int) -> str:
    """The first line of an export."""
    return _dumps(format=EXPORT_FORMAT, origin=origin, size=size)


def export_leaf(seq: int, sealed: bytes, opened: str | None) -> str:
    """The line of an entry; ``opened`` is JSON of what it says."""
    line = f'{{"seq":{seq},"sealed":"{_text(sealed)}"'
    return line + (f',"entry":{opened}}}' if opened is not None else "}")


def export_end(checkpoint: Checkpoint) -> str:
    """The last line of an export; also the form of a line in a file of heads."""
    return _dumps(checkpoint=checkpoint.note)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _dumps(**values: str | int) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
