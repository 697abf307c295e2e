"""Truths that may depend on the memory, joined by Cedar's rules; and conditions on one column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from strongroom.model.rows import (
    ALL,
    DAY_US,
    HOUR_US,
    NONE,
    Below,
    OneOf,
    Present,
    Rows,
    every,
    negate,
    some,
)
from strongroom.policy import _values as v
from strongroom.policy._asker import Asker
from strongroom.policy._values import LONG_MAX, LONG_MIN, Entity, Failed


class Refused(Exception):
    """A form that cannot become a condition on columns; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Env:
    """What is known when rows are asked for."""

    asker: Asker
    action: str
    namespace: str
    above: tuple[str, ...] = ()  # the lineage of the namespace


@dataclass(frozen=True, slots=True)
class Open:
    """A truth that depends on the row: true for ``holds``, an error for ``fails``, else false."""

    holds: Rows
    fails: Rows = NONE


Truth = bool | Open
Run = Callable[[Env], Any]
CONST, CONDITION, RESOURCE, TAGS, COLUMN = "value", "condition", "resource", "tags", "column"


@dataclass(frozen=True, slots=True)
class Node:
    """A compiled expression: ``shape`` says what ``run`` gives. COLUMN: ``column`` names it."""

    shape: str
    run: Run
    column: str = ""


TEXTS: Final = frozenset({"kind", "sensitivity", "subject", "agent_id", "session_id", "source"})
OPTIONAL: Final = frozenset({"subject", "agent_id", "session_id", "source"})
NUMBERS: Final = frozenset({"importance", "age_hours", "age_days"})
_UNITS: Final = {"age_hours": HOUR_US, "age_days": DAY_US}


# -- truths -------------------------------------------------------------------------------------------
def parts(value: Truth) -> tuple[Rows, Rows]:
    """(rows for which it holds, rows for which it fails)"""
    if isinstance(value, Open):
        return value.holds, value.fails
    return (ALL if value else NONE), NONE


def closed(holds: Rows, fails: Rows = NONE) -> Truth:
    """A constant again where nothing depends on the row."""
    if fails == ALL:
        raise Failed
    if fails == NONE and holds in (ALL, NONE):
        return holds == ALL
    return Open(holds, fails)


def truth_of(node: Node, env: Env) -> Truth:
    value = node.run(env)
    return value if isinstance(value, Open) else v.truth(value)


def later(node: Node, env: Env) -> tuple[Rows, Rows]:
    """``parts`` of what is only looked at for some rows: an error is one of those rows, not of all."""
    try:
        return parts(truth_of(node, env))
    except Failed:
        return NONE, ALL


def both(left: Node, right: Node) -> Run:
    def run(env: Env) -> Truth:
        first = truth_of(left, env)
        if isinstance(first, bool):
            return truth_of(right, env) if first else False
        holds, fails = later(right, env)
        return closed(every((first.holds, holds)), some((first.fails, every((first.holds, fails)))))

    return run


def either(left: Node, right: Node) -> Run:
    def run(env: Env) -> Truth:
        first = truth_of(left, env)
        if isinstance(first, bool):
            return True if first else truth_of(right, env)
        goes_on = every((negate(first.holds), negate(first.fails)))
        holds, fails = later(right, env)
        return closed(
            some((first.holds, every((goes_on, holds)))), some((first.fails, every((goes_on, fails))))
        )

    return run


def opposite(part: Node) -> Run:
    def run(env: Env) -> Truth:
        value = truth_of(part, env)
        if isinstance(value, bool):
            return not value
        return closed(every((negate(value.holds), negate(value.fails))), value.fails)

    return run


def choice(test: Node, then: Node, otherwise: Node) -> Run:
    def run(env: Env) -> Any:
        value = truth_of(test, env)
        if isinstance(value, bool):
            return (then if value else otherwise).run(env)
        yes, yes_fails = later(then, env)
        no, no_fails = later(otherwise, env)
        rest = every((negate(value.holds), negate(value.fails)))
        return closed(
            some((every((value.holds, yes)), every((rest, no)))),
            some((value.fails, every((value.holds, yes_fails)), every((rest, no_fails)))),
        )

    return run


# -- conditions on one column ---------------------------------------------------------------------------
def on(column: str, holds: Rows) -> Truth:
    """``holds``, where reading a column that holds nothing is an error."""
    return closed(holds, negate(Present(column)) if column in OPTIONAL else NONE)


def below(column: str, limit: int) -> Rows:
    if limit > LONG_MAX:
        return ALL
    return NONE if limit <= LONG_MIN else Below(column, limit)


def less(column: str, limit: int, env: Env) -> Rows:
    """Rows whose number is less than ``limit``."""
    unit = _UNITS.get(column)
    if unit is None:
        return below(column, limit)
    # now // unit - made // unit < limit  is  made >= (now // unit - limit + 1) * unit
    oldest = (env.asker.circumstances.now_us // unit - limit + 1) * unit
    return negate(below("created_us", oldest))


def equals(column: str, value: object, env: Env) -> Rows:
    if column in NUMBERS:
        if type(value) is not int:
            return NONE
        return every((negate(less(column, value, env)), less(column, value + 1, env)))
    return OneOf(column, frozenset({value})) if type(value) is str else NONE


def among(column: str, values: frozenset[Any], env: Env) -> Rows:
    if column in NUMBERS:
        return some(equals(column, value, env) for value in values)
    texts = frozenset(t for t in values if type(t) is str)
    return OneOf(column, texts) if texts else NONE


def memory_is(entity: Entity) -> Rows:
    """Rows of the memory that ``entity`` names; policies write its id as a UUID."""
    try:
        found = UUID(entity.id)
    except ValueError:
        return NONE
    return OneOf("memory_id", frozenset({found.bytes})) if str(found) == entity.id else NONE


def memory_in(entity: Entity, env: Env) -> Truth:
    """Cedar's ``resource in entity``."""
    if entity.type == "Namespace":
        return entity.id in env.above
    return closed(memory_is(entity)) if entity.type == "Memory" else False
