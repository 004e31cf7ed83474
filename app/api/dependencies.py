"""Dependencies of endpoints; all are coroutines, because FastAPI calls a plain function in a thread."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.responses import Response

from app.core.errors import MomentNotFound, RunNotFound, VideoNotFound
from app.core.text import is_valid_identifier, to_nfc
from app.database import Connection, get_connection, get_db
from app.resources import Resources


async def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]
# Committed before the answer is sent; for a route whose answer needs no other connection.
TransactionConnection = Annotated[Connection, Depends(get_db, scope="function")]


def normalize_identifier(identifier: str, not_found: Exception) -> str:
    """Return an identifier in its stored form (NFC). Raises the given error for one that no row can have."""
    if not is_valid_identifier(identifier):
        raise not_found
    return to_nfc(identifier)


def normalize_video_id(identifier: str) -> str:
    return normalize_identifier(identifier, VideoNotFound())


_VIDEO_ID = Path(description="Identifier of the video", examples=["motivation"])
VideoId = Annotated[str, _VIDEO_ID, AfterValidator(normalize_video_id)]
# For a route whose error names the video, and for one that answers for a missing video too.
NamedVideoId = Annotated[str, _VIDEO_ID, AfterValidator(lambda text: normalize_identifier(text, VideoNotFound(text)))]
AnyVideoId = Annotated[str, _VIDEO_ID, AfterValidator(to_nfc)]
MomentId = Annotated[
    str,
    Path(description="Identifier of the moment", examples=["7621a017eec7482f"]),
    AfterValidator(lambda text: normalize_identifier(text, MomentNotFound())),
]
RunIdentifier = Annotated[str, AfterValidator(lambda text: normalize_identifier(text, RunNotFound()))]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]


class FastReadRoute(APIRoute):
    """A GET route that calls its endpoint with request, resources and video id, without FastAPI's slow solver."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def call_endpoint(request: Request) -> Response:
            response: Response = await endpoint(
                request=request,
                resources=await get_resources(request),
                video_id=normalize_video_id(request.path_params["video_id"]),
            )
            return response

        return call_endpoint


class OptionalQueryRoute(APIRoute):
    """A GET route that calls its endpoint with the request alone, without FastAPI's slow solver, if it has no query."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, handle_query = self.endpoint, super().get_route_handler()

        async def call_endpoint_or_solver(request: Request) -> Response:
            if request.scope["query_string"]:
                return await handle_query(request)
            response: Response = await endpoint(request)
            return response

        return call_endpoint_or_solver
