"""Tools for assistants, used by the official client: over HTTP beside the API, and over standard input and output."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from httpx import ASGITransport, AsyncClient, Response
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from app.api import mcp_tools
from app.api.mcp import McpEndpoint
from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.database import open_async_connection
from app.main import create_app
from app.services.search_index import index_if_little
from tests.cli.test_command_line import environment
from tests.factories import make_clip, make_moment, make_transcript, make_video
from tests.media.movies import make_movie
from tests.migrations.running import fetch
from tests.serving import serving

_TEXT = "Good morning. Today we bake bread with a sourdough starter. The dough rests overnight."
_READS = ["get_clip_address", "get_run_status", "list_moments", "list_videos", "read_transcript", "search_library"]
_CHANGES = ["make_clips", "propose_moment", "start_run"]
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture
async def library_url(own_database_url: str) -> str:
    """The address of a database with a talk in which a word is said each second."""
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        video = await make_video(conn, identifier="talk", title="Bread", duration_seconds=60.0)
        words = [{"word": word, "start": float(at), "end": at + 0.8} for at, word in enumerate(_TEXT.split())]
        segments = [
            {"text": text, "start": start, "end": end, "word_count": 1}
            for text, start, end in (("Good morning.", 0.0, 1.8), ("Today we bake bread.", 2.0, 9.8))
        ]
        await make_transcript(
            conn, video_id=video.id, full_text=_TEXT, word_timestamps=words, segment_timestamps=segments
        )
        await index_if_little(conn)
    return own_database_url


@asynccontextmanager
async def open_client(url: str, key: str | None = None, **more_headers: str) -> AsyncIterator[Client]:
    headers = more_headers | ({"Authorization": f"Bearer {key}"} if key else {})
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http_client,
        Client(streamable_http_client(f"{url}/mcp", http_client=http_client)) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    answer = result.structured_content
    return answer["result"] if answer is not None and list(answer) == ["result"] else answer


async def call_in_vain(client: Client, tool: str, **arguments: Any) -> str:
    """Return the sentence with which a call is refused."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]  # text is all that tools answer


async def _use_all_tools(client: Client) -> None:
    tools = (await client.list_tools()).tools
    assert sorted(tool.name for tool in tools) == sorted(_READS + _CHANGES)
    assert all(tool.description for tool in tools)
    assert sorted(tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint) == _READS
    (video,) = await call(client, "list_videos")
    assert (video["id"], video["title"]) == ("talk", "Bread")
    (hit,) = (await call(client, "search_library", query="sourdough"))["hits"]
    assert hit["segments"] == [{"start_time": 8.0, "end_time": 8.8}]
    assert [each["text"] for each in await call(client, "read_transcript", video_id="talk", time=0.5, seconds=2)] == [
        "Good morning."
    ]
    moment = await call(client, "propose_moment", video_id="talk", start_time=20, end_time=30, title="Rest")
    assert moment["title"] == "Rest"
    made = await call(client, "make_clips", clips=[hit["clip"]])
    assert made["moments"][0]["title"] == "Today we bake bread with a sourdough starter."
    assert len(await call(client, "list_moments", video_id="talk")) == 2
    assert (await call(client, "get_run_status", video_id="talk"))["status"]
    assert "Clip" in await call_in_vain(client, "get_clip_address", video_id="talk", moment_id=moment["id"])
    assert "Video not found" in await call_in_vain(client, "list_moments", video_id="other")
    assert "overlaps" in await call_in_vain(
        client, "propose_moment", video_id="talk", start_time=25, end_time=35, title="Other"
    )


async def test_an_assistant_searches_reads_and_proposes_over_http(
    library_url: str, redis_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, database_url=library_url, redis_url=redis_url) as server:
        async with open_client(server.url) as client:
            await _use_all_tools(client)


async def test_an_assistant_may_do_what_its_key_may(library_url: str, redis_url: str, tmp_path: Path) -> None:
    read, read_key = make_api_key("reader", "read")
    write, write_key = make_api_key("writer", "write")
    keys = f"{read_key},{write_key}"
    with serving(tmp_path, database_url=library_url, redis_url=redis_url, api_keys=keys) as server:
        async with httpx2.AsyncClient() as http_client:
            assert (await http_client.post(f"{server.url}/mcp", json={})).status_code == 401
        moment = {"video_id": "talk", "start_time": 20, "end_time": 30, "title": "Rest"}
        async with open_client(server.url, read) as client:
            assert len(await call(client, "list_videos")) == 1
            assert "This API key may only read" in await call_in_vain(client, "propose_moment", **moment)
        async with open_client(server.url, write) as client:
            assert (await call(client, "propose_moment", **moment))["title"] == "Rest"
    assert fetch(library_url, "SELECT title FROM moments") == [("Rest",)]


@pytest.fixture
async def clip(library_url: str, tmp_path: Path) -> dict[str, str]:
    """The arguments for the address of a clip, which is in the folder `library`."""
    clip_file = make_movie(tmp_path / "library" / "clip.mp4")
    async with open_async_connection(Settings(database_url=library_url)) as conn:
        video = await make_video(conn, identifier="clipped", cloud_url=clip_file.as_uri(), duration_seconds=60.0)
        moment = await make_moment(conn, video_id=video.id, start_time=1.0, end_time=2.0)
        await make_clip(conn, moment, cloud_url=clip_file.as_uri())
    return {"video_id": "clipped", "moment_id": moment.identifier}


async def test_a_clip_has_the_address_by_which_its_caller_reaches_the_server(
    library_url: str, clip: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    path = f"/api/videos/clipped/moments/{clip['moment_id']}/clip"
    with serving(tmp_path, database_url=library_url, redis_url=redis_url, library_dirs=tmp_path / "library") as server:
        async with open_client(server.url) as client:
            assert await call(client, "get_clip_address", **clip) == {"url": server.url + path}
        other_url = server.url.replace("127.0.0.1", "localhost")
        async with open_client(other_url, **{"X-Forwarded-Proto": "https"}) as client:
            found = await call(client, "get_clip_address", **clip)
        assert found == {"url": other_url.replace("http://", "https://") + path}


async def test_a_clip_has_the_public_address_where_there_is_one(
    library_url: str, clip: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    settings = {"library_dirs": tmp_path / "library", "public_url": "https://videos.example/"}
    with serving(tmp_path, database_url=library_url, redis_url=redis_url, **settings) as server:
        async with open_client(server.url) as client:
            found = await call(client, "get_clip_address", **clip)
    assert found == {"url": f"https://videos.example/api/videos/clipped/moments/{clip['moment_id']}/clip"}


async def test_a_run_keeps_what_was_found_before(
    library_url: str, clip: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    settings = {"library_dirs": tmp_path / "library", "run_pipeline_worker": False}
    with serving(tmp_path, database_url=library_url, redis_url=redis_url, **settings) as server:
        async with open_client(server.url) as client:
            await call(client, "start_run", video_id="clipped")
    ((request,),) = fetch(library_url, "SELECT request FROM pipeline.runs")
    assert [name for name in request if name.startswith("override_") and request[name]] == []


async def test_a_server_opens_no_stream_and_ends_at_once_while_a_client_is_connected(
    library_url: str, redis_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, database_url=library_url, redis_url=redis_url) as server:
        async with open_client(server.url) as client, AsyncClient(base_url=server.url, timeout=5) as other:
            assert len(await call(client, "list_videos")) == 1
            answer = await other.get("/mcp", headers={"Accept": "text/event-stream"})
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 10)
        assert "Traceback" not in server.output


@pytest.fixture
async def endpoint() -> AsyncIterator[McpEndpoint]:
    """The endpoint of an application in this process that has no servers."""
    endpoint: McpEndpoint = create_app(Settings(log_level="error")).state.mcp
    yield endpoint
    await endpoint.aclose()


async def _initialize(endpoint: McpEndpoint) -> Response:
    transport = ASGITransport(endpoint, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post("/mcp", json=_INITIALIZE, headers={"Accept": "application/json, text/event-stream"})


async def test_without_the_package_there_are_no_tools(endpoint: McpEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.mcp.is_mcp_installed", lambda: False)
    answer = await _initialize(endpoint)
    assert (answer.status_code, answer.json()) == (404, {"detail": "The package mcp is not installed on this server"})


async def test_a_start_that_fails_is_tried_again_by_the_next_request(
    endpoint: McpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mcp_tools, "open_mcp_server", lambda *_: (_ for _ in ()).throw(OSError("No tools today")))
        assert (await _initialize(endpoint)).status_code == 500
    answer = await _initialize(endpoint)
    assert answer.json()["result"]["serverInfo"]["name"] == "VideoMoments"


async def test_tools_that_fail_at_their_end_are_reported_in_the_log(
    endpoint: McpEndpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_mcp_server = mcp_tools.open_mcp_server

    @asynccontextmanager
    async def open_for_a_while(*arguments: Any) -> AsyncIterator[Any]:
        async with open_mcp_server(*arguments) as server:
            yield server
        raise OSError("No end today")

    monkeypatch.setattr(mcp_tools, "open_mcp_server", open_for_a_while)
    assert (await _initialize(endpoint)).status_code == 200
    await endpoint.aclose()
    (record,) = [record for record in caplog.records if record.name == "app.api.mcp"]
    assert record.exc_info
    assert str(record.exc_info[1]) == "No end today"


async def test_an_assistant_on_this_machine_needs_no_server_and_no_key(
    library_url: str, redis_url: str, tmp_path: Path
) -> None:
    _, key = make_api_key("writer", "write")
    variables = environment(
        tmp_path / "data", DATABASE_URL=library_url, REDIS_URL=redis_url, API_KEYS=str(key), LOG_LEVEL="debug"
    )
    command = StdioServerParameters(command=sys.executable, args=["-m", "app", "mcp"], env=variables, cwd=tmp_path)
    async with Client(command) as client:
        await _use_all_tools(client)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:7005"), ("::", "http://127.0.0.1:7005"), ("::1", "http://[::1]:7005")],  # noqa: S104
)
async def test_a_clip_has_the_address_of_the_settings_where_the_caller_uses_none(
    library_url: str, clip: dict[str, str], redis_url: str, tmp_path: Path, host: str, url: str
) -> None:
    settings = Settings(
        log_level="error",
        database_url=library_url,
        redis_url=redis_url,
        data_dir=tmp_path,
        library_dirs=(tmp_path / "library",),
        host=host,
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        mcp_tools.open_mcp_server(app, settings) as server,
        Client(server) as client,
    ):
        found = await call(client, "get_clip_address", **clip)
    assert found == {"url": f"{url}/api/videos/clipped/moments/{clip['moment_id']}/clip"}
