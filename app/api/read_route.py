"""The route of small reads: FastAPI's documentation and errors without its dependency solver."""

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.database import get_reader


class ReadRoute(APIRoute):
    """A GET whose endpoint takes the request, a reader `conn`, and its path parameters, which are strings.

    There is nothing to validate in those, and solving the dependencies costs more than the query of such an endpoint.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            provide = request.app.dependency_overrides.get(get_reader, get_reader)
            async with aclosing(provide()) as connections:
                conn = await anext(connections)
                response: Response = await endpoint(request=request, conn=conn, **request.path_params)
                return response

        return handle
