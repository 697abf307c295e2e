"""Names of a statement and what stands behind them: lexical scopes, and where ``content`` comes from.

A function of meaning looks at a memory, not at a text, so its first argument must be the ``content`` of
some reference to ``memories``. A ``Trace`` is the way from a column back to that reference; ``provide``
walks it, and lays a hidden column with the score along the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from strongroom.recall.sql.tree import Tree, column

__all__ = ["Base", "Cte", "Narrow", "Output", "Relation", "Scope", "Score", "Select", "Text", "Trace"]

Kind = Literal["semantic", "keyword", "hybrid"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that the statement brings: a literal, or a parameter by its identifier."""

    literal: str | None = field(default=None, repr=False)
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A score of every memory for a text."""

    kind: Kind
    text: Text


@dataclass(frozen=True, slots=True)
class Narrow:
    """A condition ``column = text`` that every row of a reference must fulfil."""

    column: str
    text: Text


@dataclass(slots=True, eq=False)
class Base:
    """One reference to ``memories`` (or ``access_stats``): its node, and what it has to bring."""

    node: Tree
    alias: str
    relation: str
    number: int
    scores: dict[Score, str] = field(default_factory=dict)
    narrows: list[Narrow] = field(default_factory=list)

    def provide(self, score: Score, names: Iterator[str]) -> str:
        name = self.scores.get(score)
        if name is None:
            name = self.scores[score] = next(names)
        return name

    def hidden(self) -> set[str]:
        return set(self.scores.values())

    def root(self) -> Base:
        return self


@dataclass(slots=True, eq=False)
class Select:
    """One SELECT: its node, its relations, and hidden columns that pass through it."""

    node: Tree
    relations: list[Relation]
    passes: bool  # a hidden column can be added without changing the rows
    added: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Derived:
    """A column of a SELECT that is a column of one of its relations, unchanged."""

    select: Select
    relation: Relation
    inner: Trace

    def provide(self, score: Score, names: Iterator[str]) -> str:
        name = self.inner.provide(score, names)
        if name not in self.select.added:
            self.select.added[name] = None
            self.select.node["select_list"].append(column(self.relation.alias, name, alias=name))
        return name

    def root(self) -> Base:
        return self.inner.root()


Trace = Base | Derived


@dataclass(slots=True, eq=False)
class Relation:
    """Something in a FROM clause.

    ``traces``: its columns (lower case) that are some memory's content. ``columns``: all its columns
    when they are known.
    """

    alias: str
    traces: Mapping[str, Trace]
    columns: tuple[str, ...] | None
    source: Base | Select | None = None
    visible: bool = True
    types: Mapping[str, str] = field(default_factory=dict)

    def hidden(self) -> set[str]:
        if isinstance(self.source, Base):
            return self.source.hidden()
        return set(self.source.added) if self.source is not None else set()


@dataclass(slots=True, eq=False)
class Output:
    """What a query gives to whoever refers to it: columns in order (None: not known), and traces."""

    names: list[str] | None = None
    traces: dict[str, Trace] = field(default_factory=dict)
    select: Select | None = None


@dataclass(slots=True, eq=False)
class Cte:
    """A common table expression under the name that it has in the statement that runs.

    ``weight``: the queries and relations that a reference to it stands for.
    """

    name: str
    output: Output
    weight: int = 1


@dataclass(slots=True, eq=False)
class Scope:
    """What a place in the statement can name."""

    parent: Scope | None = None
    ctes: dict[str, Cte] = field(default_factory=dict)
    relations: list[Relation] = field(default_factory=list)
    aliases: dict[str, Tree] = field(default_factory=dict)
    opaque: bool = False  # inside a PIVOT: a hidden column would become a group

    def cte(self, name: str) -> Cte | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.ctes.get(name)
            if found is not None:
                return found
            scope = scope.parent
        return None
