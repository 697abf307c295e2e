"""The route for SQL statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from strongroom.servers.rest import _models_sql as m
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.sql_rows import ARROW_STREAM, to_arrow_stream, to_plain_rows
from strongroom.servers.wire import to_json

if TYPE_CHECKING:
    from strongroom.engine import Session
    from strongroom.model import SqlDescription, SqlResult

_parse = parser(m.SqlStatement)
_parse_question = parser(m.SqlQuestion)


def statements(caller: Caller) -> APIRouter:
    """The route ``/v1/sql``."""
    router = APIRouter(dependencies=caller.checks())

    @router.post("/v1/sql", **route(m.SqlOut, "Answer one SELECT", m.SqlStatement, tag="sql"))
    async def sql(request: Request) -> Response:
        """Rows as JSON, or an Arrow stream for ``Accept: application/vnd.apache.arrow.stream``."""
        arrow = _wants_arrow(request)
        return await caller.call_with(
            request,
            _parse,
            _answer,
            encode=to_arrow_stream if arrow else _to_json,  # type: ignore[arg-type]  # what _answer gives
            media_type=ARROW_STREAM if arrow else "application/json",
        )

    @router.post(
        "/v1/sql:describe", **route(m.SqlDescriptionOut, "Describe one SELECT", m.SqlQuestion, tag="sql")
    )
    async def sql_describe(request: Request) -> Response:
        """Parameters and columns of a statement, which is not run."""
        return await caller.call_with(request, _parse_question, _describe)

    @router.delete("/v1/sql/{statement_id}", **route(m.SqlCancelOut, "Stop a statement", tag="sql"))
    async def sql_cancel(request: Request, statement_id: UUID) -> Response:
        """Stop the statement that the same credential runs under this name."""
        return await caller.call(request, lambda s: {"cancelled": s.sql_cancel(statement_id)}, waits=True)

    return router


def _answer(session: Session, order: m.SqlStatement) -> SqlResult:
    fields: dict[str, Any] = order.arguments()
    return session.sql(fields.pop("statement"), fields.pop("parameters", ()), **fields)


def _describe(session: Session, question: m.SqlQuestion) -> SqlDescription:
    return session.sql_describe(question.statement, question.parameter_types)


def _to_json(result: SqlResult) -> bytes:
    return to_json(to_plain_rows(result))


def _wants_arrow(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return any(part.partition(";")[0].strip().lower() == ARROW_STREAM for part in accepted.split(","))
