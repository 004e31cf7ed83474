"""The route of small reads: FastAPI's documentation and errors without its dependency solver."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.api.dependencies import get_resources, normalize_video_id
from app.services.videos import VideoReader


async def get_video_reader(request: Request) -> VideoReader:
    """Give the application's reads."""
    return (await get_resources(request)).reads


VideoReaderDep = Annotated[VideoReader, Depends(get_video_reader)]


class ReadRoute(APIRoute):
    """A GET whose endpoint takes `request`, `reads` and `video_id`.

    Solving the dependencies would cost more than the share of such an endpoint in a query.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(
                request=request,
                reads=await get_video_reader(request),
                video_id=normalize_video_id(request.path_params["video_id"]),
            )
            return response

        return handle
