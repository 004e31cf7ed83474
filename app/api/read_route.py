"""The route of small reads: FastAPI's documentation and errors without its dependency solver."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.services.videos import Reads


async def get_reads(request: Request) -> Reads:
    """Give the application's reads."""
    reads: Reads = request.app.state.reads
    return reads


SharedReads = Annotated[Reads, Depends(get_reads)]


class ReadRoute(APIRoute):
    """A GET whose endpoint takes `request`, `reads`, and its path parameters, which are strings.

    There is nothing to validate in those, and solving the dependencies costs more than the share of such an endpoint
    in a query.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(request=request, reads=await get_reads(request), **request.path_params)
            return response

        return handle
