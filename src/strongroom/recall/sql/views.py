"""The views of a cursor: for each namespace the rows that the caller may see, and of those what it may open.

A row that is seen and not opened has NULL in every column but those of ``OUTSIDE``. The condition on rows
stands behind a barrier, so that the engine looks at nothing of a statement for a row that is not seen: an
error that a hidden value would raise could otherwise tell of it. ``check_barriers`` sees to it that the
engine's plan has kept it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from strongroom.errors import InternalError
from strongroom.recall._filter_sql import OUTSIDE
from strongroom.recall._rows_sql import behind_barrier, rows_sql
from strongroom.recall.functions import COLUMNS
from strongroom.recall.sql.plan import KEYS, Names
from strongroom.recall.sql.request import Member

__all__ = ["check_barriers", "view_statements"]

_THROUGH: Final = frozenset({"PROJECTION", "FILTER"})
_LIMITS: Final = frozenset({"STREAMING_LIMIT", "LIMIT"})


def view_statements(names: Names, members: Sequence[Member]) -> list[str]:
    """What makes the two views of a cursor: with the columns of callers, and with the hidden ones too."""
    # Names of ours, numbers, and constants of policies enter these texts; nothing of a statement does.
    public, everything = [], []
    for number, member in enumerate(members):
        source, shown = _source(names, member)
        keys = [f'{shown(key)} AS "{names.key(column)}"' for column, key in KEYS.items()]
        columns = [f'{shown(c)} AS "{c}"' for c in COLUMNS if c != "namespace"]
        columns.append(f'{_quoted(member.table.namespace)} AS "namespace"')
        hidden = [
            *keys,
            f'expires_at AS "{names.expires}"',
            f'rid AS "{names.rid}"',
            f'{number} AS "{names.place}"',
        ]
        public.append(f"SELECT {', '.join(columns)} FROM {source}")  # noqa: S608
        everything.append(f"SELECT {', '.join([*columns, *hidden])} FROM {source}")  # noqa: S608
    order = ", ".join(f'"{c}"' for c in COLUMNS)
    made = []
    for name, parts, wanted in ((names.everything, everything, "*"), (names.memories, public, order)):
        union = " UNION ALL ".join(parts or [_empty(names)])
        text = f"SELECT {wanted} FROM ({union})" if len(parts) != 1 or wanted != "*" else union  # noqa: S608
        made.append(f'CREATE TEMP VIEW "{name}" AS {text}')
    return made


def _source(names: Names, member: Member) -> tuple[str, Any]:
    """Where the rows come from, and how a column is written."""
    reach, table = member.reach, member.table.qualified
    if reach.is_whole:
        return table, lambda column: f'"{column}"'
    if reach.opened == reach.seen:
        return behind_barrier(table, reach.seen), lambda column: f'"{column}"'
    source = behind_barrier(table, reach.seen, f'{rows_sql(reach.opened)} AS "{names.opened}"')

    def shown(column: str) -> str:
        if column in OUTSIDE:
            return f'"{column}"'
        return f'CASE WHEN "{names.opened}" THEN "{column}" END'

    return source, shown


def _empty(names: Names) -> str:
    """No namespace: the right columns and no row."""
    columns = [f'CAST(NULL AS {type_}) AS "{c}"' for c, type_ in COLUMNS.items()]
    columns += [f'CAST(NULL AS BIGINT) AS "{names.key(c)}"' for c in KEYS]
    columns += [f'CAST(NULL AS TIMESTAMPTZ) AS "{names.expires}"']
    columns += [f'CAST(NULL AS BIGINT) AS "{names.rid}"', f'CAST(NULL AS INTEGER) AS "{names.place}"']
    return f"SELECT {', '.join(columns)} WHERE false"


def check_barriers(nodes: Any, restricted: frozenset[str], *, guarded: bool = False) -> None:
    """Between a scan of a restricted table and the rest of the engine's plan stands the barrier.

    Raises:
        InternalError: it does not: a condition of the statement could meet rows that are not the caller's.
    """
    for node in nodes if isinstance(nodes, list) else [nodes]:
        name = str(node.get("name")).strip().upper()
        if node.get("extra_info", {}).get("Table") in restricted and not guarded:
            raise InternalError("a statement would have met rows before the policies' condition")
        below = name in _LIMITS or (guarded and name in _THROUGH)
        check_barriers(node.get("children", []), restricted, guarded=below)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
