"""Namespaces whose content and metadata stay sealed in memory (ADR 11, docs/memory.md).

Their index holds blinded terms, vectors and the other columns. Content and metadata are opened for rows
that are returned, and for a moment when a row is taken into the index; what this room opens or encodes on
the way it overwrites.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from strongroom.errors import InvalidFilterError, SqlForbiddenError
from strongroom.model import Filter, Memory

if TYPE_CHECKING:
    from strongroom.engine._indexes import Indexes
    from strongroom.engine._registry import NamespaceEntry
    from strongroom.recall.sql import Plan

SEALED_COLUMNS: Final = frozenset({"content", "metadata"})
_MESSAGE: Final = "content and metadata are sealed in memory in a namespace that this reaches"


def hollow(memory: Memory) -> Memory:
    """The memory without what stays sealed."""
    return replace(memory, content="", metadata={})


def refuse_filter(indexes: Indexes, entries: Iterable[NamespaceEntry], wanted: Filter) -> None:
    """Raises: InvalidFilterError: the filter looks at what is sealed in one of the namespaces."""
    if any(entry.sealed for entry in entries) and (
        wanted.metadata or SEALED_COLUMNS & indexes.where_columns(wanted)
    ):
        raise InvalidFilterError(
            _MESSAGE, hint="filter by other columns, by meaning or by keywords, or leave that namespace out"
        )


def refuse_statement(entries: Iterable[NamespaceEntry], plan: Plan) -> None:
    """Raises: SqlForbiddenError: the statement reads what is sealed in one of the namespaces."""
    if plan.walk.reads_content and any(entry.sealed for entry in entries):
        raise SqlForbiddenError(
            _MESSAGE,
            hint="leave these columns (and *) out and get the memories by memory_id, or name the namespaces",
        )
