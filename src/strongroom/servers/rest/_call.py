"""One REST request on its way to the engine and back.

The key's form is checked before the body is read, and a body of more than 64 KiB is read only after the
key itself was found good. Parsing, authentication, the operation and the encoding of the answer then
share one hop to a worker thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from strongroom.config import LimitsConfig
from strongroom.errors import (
    InvalidFilterError,
    InvalidInputError,
    InvalidNamespaceError,
    InvalidVectorError,
    StrongroomError,
    UnauthenticatedError,
)
from strongroom.servers.http import (
    Log,
    Presented,
    WorkerPool,
    error_response,
    http_status,
    presented,
    request_id_of,
    sign_in,
)
from strongroom.servers.rest._models import Input
from strongroom.servers.wire import to_json

if TYPE_CHECKING:
    from strongroom.engine import Engine, Session

M = TypeVar("M")
T = TypeVar("T")
InputT = TypeVar("InputT", bound=Input)
_UNCHECKED_BODY_BYTES_MAX = 64 * 1024
_PROBLEMS_SHOWN_MAX = 3
# In place of the library's words, which quote the value.
_WORDS = {"uuid_parsing": "a UUID is wanted, for example 123e4567-e89b-42d3-a456-426614174000"}
_SURFACE = "rest"

# A field of the input whose malformation has an error class of its own.
_CLASS_OF_FIELD: dict[str, type[InvalidInputError]] = {
    "embedding": InvalidVectorError,
    "where": InvalidFilterError,
    "namespace": InvalidNamespaceError,
    "namespaces": InvalidNamespaceError,
    "grants": InvalidNamespaceError,
}


class Caller:
    """Carries requests to the engine: ``workers`` for operations, ``waiters`` for those that wait."""

    def __init__(
        self, engine: Engine, limits: LimitsConfig, workers: WorkerPool, waiters: WorkerPool, log: Log
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.workers = workers
        self.waiters = waiters
        self._log = log

    async def run(self, request: Request, work: Callable[[Session], T], *, waits: bool = False) -> T:
        """The result of an operation, made in a worker thread for the caller that the key stands for.

        ``waits``: on a thread of those that are free when all workers are busy.
        """
        shown = _presented(request)
        pool = self.waiters if waits else self.workers
        return await pool.run(lambda: work(self._session(request, shown)))

    async def call(
        self, request: Request, work: Callable[[Session], object], *, waits: bool = False
    ) -> Response:
        """The answer to an operation that takes no body."""
        raw = await self.run(request, lambda s: to_json(work(s)), waits=waits)
        return Response(raw, media_type="application/json")

    async def text(self, request: Request, work: Callable[[Session], str]) -> Response:
        """The answer to an operation that takes no body and makes its JSON itself."""
        return Response(await self.run(request, work), media_type="application/json")

    async def call_with(
        self,
        request: Request,
        model: Callable[[bytes], M],
        work: Callable[[Session, M], object],
        *,
        status: int = 200,
        waits: Callable[[bytes], bool] | None = None,
        encode: Callable[[object], bytes] = to_json,
        media_type: str = "application/json",
    ) -> Response:
        """The answer to an operation whose body ``model`` parses; ``waits`` tells those that take long."""
        shown = _presented(request)
        raw = await self._body(request, shown)

        def hop() -> bytes:
            session = self._session(request, shown)
            return encode(work(session, model(raw)))

        pool = self.waiters if waits is not None and waits(raw) else self.workers
        return Response(await pool.run(hop), status, media_type=media_type)

    async def opened(self, request: Request, model: Callable[[bytes], M]) -> tuple[Session, M]:
        """The caller's session and the parsed body, for an answer that is streamed."""
        shown = _presented(request)
        raw = await self._body(request, shown)
        return await self.workers.run(lambda: (self._session(request, shown), model(raw)))

    async def _body(self, request: Request, shown: Presented) -> bytes:
        kind, length = b"", None
        for name, value in request.scope["headers"]:
            if name == b"content-type":
                kind = kind or value
            elif name == b"content-length":
                length = value if length is None else length
        _check_content_type(kind)
        if length is None or int(length) > _UNCHECKED_BODY_BYTES_MAX:
            await self.workers.run(lambda: self._session(request, shown))
        return await _read(request)

    def _session(self, request: Request, shown: Presented) -> Session:
        return sign_in(self.engine, shown, request.scope, _SURFACE)

    def checks(self) -> list[Any]:
        """What a route with a key depends on, in this order: a key of the right form, known parameters."""
        return [Depends(self.require_key), known_parameters]

    async def require_key(self, request: Request) -> None:
        """As ``take_key``, in the form that FastAPI wants."""
        self.take_key(request)

    def take_key(self, request: Request) -> None:
        """Take the credential from the header or the connection.

        Raises:
            UnauthenticatedError: there is none of the right form.
        """
        request.scope["state"]["presented"] = presented(request.scope, self._log, self.engine, _SURFACE)


def _presented(request: Request) -> Presented:
    shown = request.scope["state"].get("presented")
    if not isinstance(shown, Presented):
        raise UnauthenticatedError
    return shown


async def _refuse_unknown_parameters(request: Request) -> None:
    """A mistyped parameter must not silently mean the default, nor a second value the first.

    Raises:
        InvalidInputError: the route has no parameter of that name, or one of its values is given twice.
    """
    if not request.scope["query_string"]:
        return
    declared = request.scope["route"].dependant.query_params
    models = [
        k for p in declared if isinstance(k := p.field_info.annotation, type) and issubclass(k, BaseModel)
    ]
    kinds = {p.alias: p.field_info.annotation for p in declared}
    kinds.update({f.alias or n: f.annotation for k in models for n, f in k.model_fields.items()})
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in given.items():
        if count > 1 and name in kinds and not _takes_many(kinds[name]):
            raise InvalidInputError(
                "a parameter that takes one value is given twice", hint=f"give {name} once"
            )
    if models:
        return  # the model of the parameters refuses unknown ones itself
    unknown = set(request.query_params) - {p.alias for p in declared}
    if unknown:
        known = ", ".join(sorted(p.alias for p in declared)) or "none"
        raise InvalidInputError("this route has no such parameter", hint=f"known: {known}")


def _takes_many(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple) or any(_takes_many(part) for part in get_args(kind))


known_parameters = Depends(_refuse_unknown_parameters)


def parser(model: type[InputT]) -> Callable[[bytes], InputT]:
    """Reads ``model`` from the bytes of a body; every mistake is one typed error without the value."""

    def parse(raw: bytes) -> InputT:
        try:
            return model.model_validate_json(raw)
        except ValidationError as e:
            raise input_error(
                [(d["loc"], d["msg"], d["type"]) for d in e.errors(include_url=False)]
            ) from None

    return parse


def input_error(problems: list[tuple[tuple[int | str, ...], str, str]]) -> InvalidInputError:
    """One error for what a model found: where and what, never the value."""
    first = problems[0]
    if first[2] == "json_invalid":
        return InvalidInputError("the body is not JSON in UTF-8")
    shown = "; ".join(
        f"{_place(loc)}: {_WORDS.get(kind, text)}" for loc, text, kind in problems[:_PROBLEMS_SHOWN_MAX]
    )
    names = [part for part in first[0] if isinstance(part, str)]
    cls = next((_CLASS_OF_FIELD[n] for n in names if n in _CLASS_OF_FIELD), InvalidInputError)
    return cls("the request is not of the form that the operation takes", hint=shown[:500])


def error_to_response(request: Request, error: StrongroomError, log: Log) -> Response:
    """The answer to a typed error; faults of the server are logged with their own message."""
    if http_status(error) >= 500:
        log.error("operation_failed", code=error.code, request_id=request_id_of(request.scope))
    status, headers, body = error_response(error)
    response = Response(body, status)
    response.raw_headers.extend(headers)
    return response


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:40] for part in loc[:6]) or "body"


async def _read(request: Request) -> bytes:
    """The whole body; the guard has bounded it."""
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise InvalidInputError("the request ended before its body was complete")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_content_type(value: bytes) -> None:
    if value.partition(b";")[0].strip().lower() != b"application/json":
        raise InvalidInputError("the body must be JSON", hint="send Content-Type: application/json")


def as_errors(found: Any) -> list[tuple[tuple[int | str, ...], str, str]]:
    """The problems of FastAPI's own validation in the form that ``input_error`` takes."""
    return [(tuple(d["loc"]), str(d["msg"]), str(d["type"])) for d in found]
