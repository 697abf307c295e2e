"""All memories of namespaces, page by page."""

from __future__ import annotations

from typing import Any

from strongroom.model import Memory


def memories_of(room: Any, namespace: str = "*") -> list[Memory]:
    """What ``list`` tells from its first page to its last; ``namespace``: a name or a pattern."""
    found: list[Memory] = []
    cursor = None
    while True:
        page = room.list(namespaces=[namespace], limit=500, cursor=cursor)
        found += page.memories
        cursor = page.next_cursor
        if cursor is None:
            return found
