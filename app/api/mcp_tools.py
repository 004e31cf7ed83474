"""The tools for assistants (Model Context Protocol), each of which calls a route of this server.

This module needs the package mcp.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from app import __version__
from app.core.config import Settings

_INSTRUCTIONS = (
    "A library of videos with transcripts and moments, which are titled parts of a video. Search it for what is said, "
    "read around the time of a hit, propose moments, and start runs that find moments and cut clips. Times are seconds."
)
_FORWARDED_HEADERS = ("authorization", "x-api-key", "x-request-id")
_INNER_ADDRESS = "http://localhost"
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 (a server that listens there is reached by the loopback address too)

VideoId = Annotated[str, Field(description="Identifier of the video, as lists and hits have it")]
MomentId = Annotated[str, Field(description="Identifier of the moment")]


class ClipSpan(BaseModel):
    """A span to make a clip of: the `clip` of a hit, or one of its `segments` with the `video_id`."""

    video_id: str
    start_time: float
    end_time: float


class RouteCaller:
    """Calls routes of the application in this process, with the API key that its own caller has sent."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(
        self,
        context: Context[Any, Any],
        method: str,
        path: str,
        more_headers: Mapping[str, str] = {},
        **options: Any,
    ) -> Any:
        """Return the JSON of the answer, None for a file. Raises `ToolError` with the sentence of a refusal."""
        sent = context.headers or {}
        headers = {name: sent[name] for name in _FORWARDED_HEADERS if name in sent} | dict(more_headers)
        response = await self._client.request(method, path, headers=headers, **options)
        if response.is_error:
            raise ToolError(_get_error_sentence(response))
        return response.json() if response.headers.get("Content-Type") == "application/json" else None


def _get_error_sentence(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {response.status_code}"


@asynccontextmanager
async def open_mcp_server(app: ASGIApp, settings: Settings) -> AsyncIterator[MCPServer[Any]]:
    """Yield a server whose tools call routes of `app`, which has these settings."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=_INNER_ADDRESS) as client:
        yield _make_mcp_server(RouteCaller(client), settings)


def _make_mcp_server(caller: RouteCaller, settings: Settings) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("VideoMoments", instructions=_INSTRUCTIONS, version=__version__)
    reads, changes = ToolAnnotations(read_only_hint=True), ToolAnnotations(read_only_hint=False)
    tools = LibraryTools(caller, settings)
    for read in (
        tools.search_library,
        tools.list_videos,
        tools.read_transcript,
        tools.list_moments,
        tools.get_run_status,
        tools.get_clip_address,
    ):
        server.add_tool(read, annotations=reads)
    for change in (tools.propose_moment, tools.make_clips, tools.start_run):
        server.add_tool(change, annotations=changes)
    return server


class LibraryTools:
    """The tools. Their docstrings are what an assistant reads."""

    def __init__(self, caller: RouteCaller, settings: Settings) -> None:
        self._caller = caller
        self._settings = settings

    async def search_library(
        self,
        context: Context[Any, Any],
        query: Annotated[str, Field(description='Words, "a phrase", +needed, -without, or')],
        mode: Annotated[Literal["hybrid", "text", "semantic"], Field(description="By words, by meaning, or both")] = (
            "hybrid"
        ),
        video_id: Annotated[str | None, Field(description="Search this video only")] = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        """Find where something is said, in all videos: the best ones with the times to jump to, and titled moments."""
        parameters = {"q": query, "mode": mode, "limit": limit, **({"video": video_id} if video_id else {})}
        found: dict[str, Any] = await self._caller.call(context, "GET", "/api/search", params=parameters)
        return found

    async def list_videos(
        self,
        context: Context[Any, Any],
        limit: Annotated[int, Field(ge=1, le=1000)] = 100,
    ) -> list[dict[str, Any]]:
        """List videos by their identifiers, with their titles."""
        listed: list[dict[str, Any]] = await self._caller.call(context, "GET", "/api/videos", params={"limit": limit})
        return listed

    async def read_transcript(
        self,
        context: Context[Any, Any],
        video_id: VideoId,
        time: Annotated[float, Field(ge=0, description="Seconds of the video")] = 0.0,
        seconds: Annotated[float, Field(gt=0, le=3600, description="How much around that time")] = 120.0,
    ) -> list[dict[str, Any]]:
        """Read what is said around a time of a video, by segments with their times."""
        path = f"/api/videos/{_quote(video_id)}/transcript"
        transcript = await self._caller.call(context, "GET", path)
        return _select_segments(transcript["segment_timestamps"], time - seconds / 2, time + seconds / 2)

    async def list_moments(self, context: Context[Any, Any], video_id: VideoId) -> list[dict[str, Any]]:
        """List the moments of a video: found by a model, refined, or added by hand."""
        path = f"/api/videos/{_quote(video_id)}/moments"
        moments: list[dict[str, Any]] = await self._caller.call(context, "GET", path)
        return moments

    async def propose_moment(
        self, context: Context[Any, Any], video_id: VideoId, start_time: float, end_time: float, title: str
    ) -> dict[str, Any]:
        """Add a moment: at most 120 seconds, inside the video, and over no other moment."""
        body = {"start_time": start_time, "end_time": end_time, "title": title}
        path = f"/api/videos/{_quote(video_id)}/moments"
        moment: dict[str, Any] = await self._caller.call(context, "POST", path, json=body)
        return moment

    async def make_clips(
        self,
        context: Context[Any, Any],
        clips: Annotated[list[ClipSpan], Field(min_length=1, max_length=100)],
    ) -> dict[str, Any]:
        """Make moments of the sentences around spans that a search has found, and start to cut their clips."""
        body = {"clips": [clip.model_dump() for clip in clips]}
        made: dict[str, Any] = await self._caller.call(context, "POST", "/api/search/clips", json=body)
        return made

    async def start_run(
        self,
        context: Context[Any, Any],
        video_id: VideoId,
        prompt: Annotated[str | None, Field(description="Which moments to find; empty: the best ones")] = None,
        max_moments: Annotated[int, Field(ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        """Start a run that transcribes a video where needed, finds its moments, refines them and cuts their clips.

        Moments that were found or refined before are kept.
        """
        body = {
            "generation_prompt": prompt,
            "max_moments": max_moments,
            "min_moments": min(3, max_moments),
            "override_existing_moments": False,
            "override_existing_refinement": False,
        }
        path = f"/api/pipeline/{_quote(video_id)}/start"
        started: dict[str, Any] = await self._caller.call(context, "POST", path, json=body)
        return started

    async def get_run_status(self, context: Context[Any, Any], video_id: VideoId) -> dict[str, Any]:
        """Return how far the newest run of a video is, or how it has ended."""
        path = f"/api/pipeline/{_quote(video_id)}/status"
        status: dict[str, Any] = await self._caller.call(context, "GET", path)
        return status

    async def get_clip_address(
        self, context: Context[Any, Any], video_id: VideoId, moment_id: MomentId
    ) -> dict[str, str]:
        """Return the address of a moment's clip, to be opened in a browser or downloaded.

        A server with API keys wants one for it, in the header Authorization or X-API-Key.
        """
        path = f"/api/videos/{_quote(video_id)}/moments/{_quote(moment_id)}/clip"
        await self._caller.call(context, "GET", path, more_headers={"Range": "bytes=0-0"})
        return {"url": _find_server_url(self._settings, context.headers) + path}


def _find_server_url(settings: Settings, headers: Mapping[str, str] | None) -> str:
    """Return the public address of the server, or the one by which its caller has reached it, without a slash."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    if headers and (host := headers.get("host")):
        return f"{'https' if headers.get('x-forwarded-proto') == 'https' else 'http'}://{host}"
    host = "127.0.0.1" if settings.host in _ALL_ADDRESSES else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _quote(identifier: str) -> str:
    return quote(identifier, safe="")


def _select_segments(segments: Sequence[Mapping[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    return [
        {"text": segment["text"], "start": segment["start"], "end": segment["end"]}
        for segment in segments
        if segment["end"] >= start and segment["start"] <= end
    ]
