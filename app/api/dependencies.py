"""Dependencies of endpoints; all are coroutines, because FastAPI calls a plain function in a thread."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from redis.asyncio import Redis
from starlette.responses import Response

from app.core.errors import MomentNotFound, RunNotFound, VideoNotFound
from app.core.text import is_valid_identifier, to_nfc
from app.database import Connection, Database, get_connection, get_db
from app.resources import Resources
from app.services.videos import BatchedVideoReader
from app.storage import Storage


async def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def get_database(request: Request) -> Database:
    return (await get_resources(request)).database


async def get_storage(request: Request) -> Storage:
    return (await get_resources(request)).storage


async def get_redis(request: Request) -> Redis:
    return (await get_resources(request)).redis


async def get_video_reader(request: Request) -> BatchedVideoReader:
    return (await get_resources(request)).reads


AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]
# Committed before the answer is sent; for a route whose answer needs no other connection.
TransactionConnection = Annotated[Connection, Depends(get_db, scope="function")]
DatabaseDep = Annotated[Database, Depends(get_database)]
StorageDep = Annotated[Storage, Depends(get_storage)]
RedisDep = Annotated[Redis, Depends(get_redis)]
VideoReaderDep = Annotated[BatchedVideoReader, Depends(get_video_reader)]


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
UnknownVideoId = Annotated[str, _VIDEO_ID, AfterValidator(to_nfc)]
MomentId = Annotated[
    str,
    Path(description="Identifier of the moment", examples=["7621a017eec7482f"]),
    AfterValidator(lambda text: normalize_identifier(text, MomentNotFound())),
]
RunIdentifier = Annotated[str, AfterValidator(lambda text: normalize_identifier(text, RunNotFound()))]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]


class FastReadRoute(APIRoute):
    """A GET route that calls its endpoint with request, video reader and video id, without FastAPI's slow solver."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(
                request=request,
                video_reader=await get_video_reader(request),
                video_id=normalize_video_id(request.path_params["video_id"]),
            )
            return response

        return handle


class OptionalQueryRoute(APIRoute):
    """A GET route whose query may be missing: then its endpoint takes `request` alone.

    Such a request skips FastAPI's dependency solver.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, handle_query = self.endpoint, super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await handle_query(request)
            response: Response = await endpoint(request)
            return response

        return handle
