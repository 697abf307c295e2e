"""The FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from strongroom.config import Config
from strongroom.errors import InternalError, InvalidInputError, NotFoundError, StrongroomError
from strongroom.servers.http import Log, WorkerPool, make_log, request_id_of
from strongroom.servers.rest._admin import administration, store
from strongroom.servers.rest._audit import audit_log
from strongroom.servers.rest._call import Caller, as_errors, error_to_response, input_error
from strongroom.servers.rest._direct import Direct
from strongroom.servers.rest._elevations import elevations
from strongroom.servers.rest._health import health, metadata
from strongroom.servers.rest._identity import identity
from strongroom.servers.rest._memories import memories
from strongroom.servers.rest._policy import policies
from strongroom.servers.rest._rotation import rotation
from strongroom.servers.rest._spec import describe
from strongroom.servers.rest._sql import statements

if TYPE_CHECKING:
    from strongroom.engine import Engine

Lifespan = Callable[[], AbstractAsyncContextManager[None]]
_DESCRIPTION = (
    "The encrypted memory store for AI agents. Authenticate with an API key as bearer token. Any request may "
    "say what it is for in the headers Strongroom-Purpose and Strongroom-Reason, at most 256 printable "
    "characters each in UTF-8; policies may ask for them, and the audit log has them."
)
_WAITERS = 8  # threads for orders that wait for embeddings


def _operation(route: APIRoute) -> str:
    """The name of an operation, from which generators of clients make that of a function."""
    tag = str(route.tags[0]) if route.tags else ""
    return route.name if not tag or tag in route.name else f"{tag}_{route.name}"


def create_app(
    engine: Engine,
    config: Config,
    *,
    workers: WorkerPool | None = None,
    log: Log | None = None,
    metrics_on_loopback: bool = False,
    version: str = "0",
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The REST application, without the guard: ``serve`` puts it in front.

    ``state.direct`` is the same application with a short way to the busiest routes.

    ``metrics_on_loopback`` gives ``/metrics`` to loopback addresses without a credential. ``lifespan`` is
    entered when the application starts and left when it stops.
    """
    log = log if log is not None else make_log(config.log)
    workers = workers if workers is not None else WorkerPool(config.server.workers_max, "strongroom-worker")
    waiters = WorkerPool(_WAITERS, "strongroom-waiter")
    caller = Caller(engine, config.limits, workers, waiters, log)
    app = FastAPI(
        title="Strongroom",
        description=_DESCRIPTION,
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(waiters, lifespan),
        generate_unique_id_function=_operation,
    )
    routers = [
        memories(caller),
        statements(caller),
        store(caller),
        administration(caller),
        audit_log(caller),
        identity(caller),
        policies(caller),
        rotation(caller),
        elevations(caller),
        health(caller, metrics_on_loopback=metrics_on_loopback),
        metadata(config.oidc.issuer),
    ]
    for router in routers:
        app.include_router(router)
    routes = [r for router in routers for r in router.routes if isinstance(r, APIRoute)]
    _handle_errors(app, routes, log)
    app.state.direct = Direct(app, routes, caller, log)
    description: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not description:
            description.append(describe(app))
        return description[0]

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to change the description
    return app


def _lifespan(
    waiters: WorkerPool, inner: Lifespan | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, waiters.close)
            if inner is not None:
                await stack.enter_async_context(inner())
            yield

    return run


def _methods_at(routes: Sequence[APIRoute], path: str) -> list[str]:
    """The methods that some route takes at this path."""
    return sorted({m for r in routes if r.path_regex.match(path) for m in r.methods or ()})


def _handle_errors(app: FastAPI, routes: Sequence[APIRoute], log: Log) -> None:
    async def typed(request: Request, error: Exception) -> Response:
        assert isinstance(error, StrongroomError)
        return error_to_response(request, error, log)

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = [
            (loc[1:] if loc[:1] in (("query",), ("path",)) else loc, text, kind)
            for loc, text, kind in as_errors(error.errors())
        ]
        return error_to_response(request, input_error(problems), log)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        found: StrongroomError
        if error.status_code == 404:
            found = NotFoundError("there is no such route")
        elif error.status_code == 405:
            found = InvalidInputError("this route does not take this method")
        else:
            found = InvalidInputError("the request is malformed")
        response = error_to_response(request, found, log)
        response.status_code = error.status_code
        if error.status_code == 405:
            response.headers["allow"] = ", ".join(_methods_at(routes, request.url.path))
        return response

    async def unexpected(request: Request, error: Exception) -> Response:
        # Starlette raises the error again behind this answer; the guard logs it by type alone.
        assert request_id_of(request.scope)
        return error_to_response(request, InternalError(), log)

    app.add_exception_handler(StrongroomError, typed)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
