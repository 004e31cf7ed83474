"""Dependencies of endpoints; all are coroutines, because FastAPI calls a plain function in a thread."""

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.openapi import make_operation_id
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


class _DirectRoute(APIRoute):
    """A GET route whose endpoint is called without FastAPI's slow solver, and which its router need not be asked for.

    Its endpoint has no dependencies, so that `app.router.routes` can hold the route itself.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "generate_unique_id_function": make_operation_id})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # 405
            return
        response = await self.call_endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    async def call_endpoint(self, request: Request) -> Response:
        response: Response = await self.endpoint(request)
        return response


class FastReadRoute(_DirectRoute):
    """A GET route that calls its endpoint with request, resources and video id, without FastAPI's slow solver."""

    async def call_endpoint(self, request: Request) -> Response:
        response: Response = await self.endpoint(
            request=request,
            resources=request.app.state.resources,
            video_id=normalize_video_id(request.path_params["video_id"]),
        )
        return response


class OptionalQueryRoute(_DirectRoute):
    """A GET route that calls its endpoint with the request alone, without FastAPI's slow solver, if it has no query."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = APIRoute.handle if scope["query_string"] else _DirectRoute.handle
        await handle(self, scope, receive, send)
