"""The short way to the busiest routes: those at one fixed path whose function takes nothing but the request.

FastAPI looks for the route, resolves its dependencies and wraps the function in stacks of context managers
and handlers, which takes longer than the whole way into the engine and back. For a route without parameters
none of that decides anything. Everything else goes to FastAPI: a query string, another method, a path with
a part that varies; and the description of a route is always FastAPI's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from strongroom.errors import StrongroomError
from strongroom.servers.http import Log
from strongroom.servers.rest._call import Caller, error_to_response

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Direct:
    """The ASGI application in front of ``app``, made of ``routes``; ``caller`` checks credentials."""

    def __init__(self, app: App, routes: Iterable[APIRoute], caller: Caller, log: Log) -> None:
        self._app = app
        self._caller = caller
        self._log = log
        self._routes = {
            (method, route.path_format): route
            for route in routes
            if _takes_request_alone(route, caller)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        route = None
        if scope["type"] == "http" and not scope["query_string"]:
            route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            self._caller.take_key(request)
            response: Response = await route.endpoint(request)
        except StrongroomError as e:
            response = error_to_response(request, e, self._log)
        await response(scope, receive, send)


def _takes_request_alone(route: APIRoute, caller: Caller) -> bool:
    """Whether nothing but the credential has to be looked at before the function of the route is called."""
    takes = route.dependant
    return (
        "{" not in route.path_format
        and [d.dependency for d in route.dependencies] == [d.dependency for d in caller.checks()]
        and takes.request_param_name is not None
        and not (
            takes.path_params
            or takes.query_params
            or takes.header_params
            or takes.cookie_params
            or takes.body_params
        )
    )
