"""Routes over memories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from strongroom.errors import (
    AccessDeniedError,
    LimitExceededError,
    MemoryNotFoundError,
    OperationTimeoutError,
)
from strongroom.servers.rest import _models as m
from strongroom.servers.rest._call import Caller, parser
from strongroom.servers.rest._spec import route
from strongroom.servers.wire import hits_out

if TYPE_CHECKING:
    from strongroom.engine import Session
    from strongroom.model import Memory

Namespace = Annotated[
    str,
    Query(
        description="The namespace of the memory.",
        json_schema_extra=m.NAME_RULE,
        examples=["company_a/support"],
    ),
]
_parse_one = parser(m.StoreOne)
_parse_many = parser(m.StoreMany)
_parse_search = parser(m.SearchQuestion)
_parse_list = parser(m.ListQuestion)
_parse_change = parser(m.MemoryChange)
_parse_reveal = parser(m.RevealOrder)


class _Segment(Convertor[str]):
    """A part of a path without a colon, behind which stands what is to be done."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("segment", _Segment())


class _Peek(msgspec.Struct):
    """What tells many from one, without reading the rest."""

    items: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_PEEK = msgspec.json.Decoder(_Peek)


class ListQuery(BaseModel):
    """Query parameters of a listing; lists are given by repeating the parameter."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    namespaces: Annotated[list[m.Pattern], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] = 50
    cursor: str | None = None
    where: str | None = None
    kinds: list[m.Text] = []
    tags_all: list[m.Text] = []
    tags_any: list[m.Text] = []
    subjects: list[m.Text] = []
    agent_ids: list[m.Text] = []
    session_ids: list[m.Text] = []
    importance_min: m.Importance | None = None
    created_after: m.Time | None = None
    created_before: m.Time | None = None

    def arguments(self) -> dict[str, Any]:
        """The parameters that were given, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def memories(caller: Caller) -> APIRouter:
    """The routes under ``/v1/memories``."""
    router = APIRouter(dependencies=caller.checks())
    items_max = caller.limits.batch_items_max

    def store_all(session: Session, order: m.StoreOne | m.StoreMany) -> object:
        if isinstance(order, m.StoreMany) and len(order.items) > items_max:
            raise LimitExceededError(f"{len(order.items)} items in one request", hint=f"at most {items_max}")
        return _store(session, order)

    @router.post(
        "/v1/memories",
        **route(
            m.MemoryOut | m.MemoriesOut, "Store one memory, or many", m.StoreOne, m.StoreMany, status=201
        ),
    )
    async def store(request: Request) -> Response:
        return await caller.call_with(request, _parse_store, store_all, status=201, waits=_may_wait)

    @router.post("/v1/memories:search", **route(m.HitsOut, "Search memories", m.SearchQuestion))
    async def search(request: Request) -> Response:
        return await caller.call_with(
            request, _parse_search, lambda s, q: hits_out(s.search(**q.arguments()))
        )

    @router.post("/v1/memories:list", **route(m.PageOut, "List memories by conditions", m.ListQuestion))
    async def list_by_body(request: Request) -> Response:
        return await caller.call_with(request, _parse_list, lambda s, q: s.list(**q.arguments()))

    @router.get("/v1/memories", **route(m.PageOut, "List memories"))
    async def list_by_query(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        return await caller.call(request, lambda s: s.list(**query.arguments()))

    @router.get("/v1/memories/{memory_id:segment}", **route(m.MemoryOut, "Read one memory"))
    async def get(request: Request, memory_id: UUID, namespace: Namespace) -> Response:
        return await caller.call(request, lambda s: s.get(memory_id, namespace=namespace))

    @router.post(
        "/v1/memories/{memory_id:segment}:reveal",
        **route(m.MemoryOut, "Open a memory that is answered redacted, for a purpose", m.RevealOrder),
    )
    async def reveal(request: Request, memory_id: UUID, namespace: Namespace) -> Response:
        return await caller.call_with(
            request, _parse_reveal, lambda s, o: s.reveal(memory_id, namespace=namespace, **o.arguments())
        )

    @router.patch(
        "/v1/memories/{memory_id:segment}",
        **route(m.MemoryOut, "Change some fields of a memory", m.MemoryChange),
    )
    async def update(request: Request, memory_id: UUID, namespace: Namespace) -> Response:
        return await caller.call_with(
            request, _parse_change, lambda s, c: s.update(memory_id, namespace=namespace, **c.arguments())
        )

    @router.delete(
        "/v1/memories/{memory_id:segment}", **route(m.DeletedOut, "Delete a memory; repeating it is harmless")
    )
    async def delete(request: Request, memory_id: UUID, namespace: Namespace) -> Response:
        return await caller.call(request, lambda s: {"deleted": s.delete(memory_id, namespace=namespace)})

    return router


def _parse_store(raw: bytes) -> m.StoreOne | m.StoreMany:
    try:
        many = _PEEK.decode(raw).items is not msgspec.UNSET
    except (msgspec.DecodeError, UnicodeDecodeError):
        many = False  # the parser says what is wrong
    return _parse_many(raw) if many else _parse_one(raw)


def _may_wait(raw: bytes) -> bool:
    """Whether the order may ask to wait: then it must not hold up a worker. Errs on that side."""
    return b'"wait"' in raw


def _store(session: Session, order: m.StoreOne | m.StoreMany) -> object:
    if isinstance(order, m.StoreMany):
        stored = session.store_many([item.arguments() for item in order.items])
        return {"memories": _waited(session, stored) if order.wait else stored}
    fields = order.arguments()
    fields.pop("wait", None)
    memory = session.store(**fields)
    return _waited(session, [memory])[0] if order.wait else memory


def _waited(session: Session, stored: list[Memory]) -> list[Memory]:
    """The memories once embedded. They are stored in any case, so running out of time is no error."""
    try:
        session.flush()
        return [session.get(s.memory_id, namespace=s.namespace) for s in stored]
    except (OperationTimeoutError, AccessDeniedError, MemoryNotFoundError):
        return stored  # it took too long, or who may store may not read
