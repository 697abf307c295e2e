"""What goes in and out of the routes for SQL statements, as typed models."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, JsonValue

from strongroom.servers.rest._models import Input, NoticeOut, Output, Pattern, Text


class SqlStatement(Input):
    """One SELECT over the memories that the key may read; docs/sql.md describes the language."""

    statement: Annotated[
        Text,
        Field(
            description="One SELECT; ? or $1, $2, ... stand for parameters.",
            examples=["SELECT kind, count(*) FROM memories GROUP BY kind"],
        ),
    ]
    parameters: list[JsonValue] = []
    namespaces: Annotated[list[Pattern], Field(min_length=1)] | None = None
    rows_max: Annotated[int, Field(ge=1)] | None = None
    statement_id: (
        Annotated[UUID, Field(description="A name of the caller's choice, by which it can be stopped.")]
        | None
    ) = None


class SqlQuestion(Input):
    """A statement to be described without running it."""

    statement: Text
    parameter_types: Annotated[
        list[Text],
        Field(description="Types of parameters that are known; an empty text for one that is not."),
    ] = []


class SqlColumnOut(Output):
    """A column of an answer."""

    name: str
    type: Annotated[str, Field(description="A type of DuckDB.", examples=["VARCHAR"])]


class SqlOut(Output):
    """The answer to a statement. ``plan`` tells whether the vector index answered (``index``, ``exact``)."""

    columns: list[SqlColumnOut]
    rows: list[list[JsonValue]]
    row_count: int
    plan: str
    notices: list[NoticeOut]


class SqlDescriptionOut(Output):
    """What a statement takes and gives. ``UNKNOWN``: nothing tells the type of a parameter."""

    parameter_types: list[str]
    columns: list[SqlColumnOut]


class SqlCancelOut(Output):
    """Whether there was a statement to stop."""

    cancelled: bool
