"""What BM25 has to know of a collection that lies in several indexes."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.model.rows import ALL, Reach
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.keywords import TermStatistics


def shared_statistics(
    indexes: Sequence[NamespaceIndex], terms: Sequence[Sequence[int]], reach: Sequence[Reach]
) -> list[TermStatistics | None]:
    """For each index the statistics to score with; None: its own.

    Several indexes of one language count as one collection. Memories whose content may not be opened are
    not counted: the score of another one would tell which words they hold.
    """
    joined = len(indexes) > 1 and len({index.settings.language for index in indexes}) == 1
    if not joined and all(r.opened == ALL for r in reach):
        return [None] * len(indexes)
    parts = [
        index.keywords.statistics(t, None if r.opened == ALL else index.mask(r.opened))
        for index, t, r in zip(indexes, terms, reach, strict=True)
    ]
    if not joined:
        return list(parts)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return [whole] * len(indexes)
