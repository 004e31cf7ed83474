"""The list of all videos, which is kept as JSON: never an old one, and nothing where the client has it."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, LiteralString

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.main import create_app
from app.repositories import VideoRepository
from app.storage import audio_folder_key
from tests.api.conftest import open_client
from tests.factories import make_clip, make_moment, make_thumbnail, make_transcript, make_video
from tests.serving import serving

_LIST_QUERY = "FROM videos"


@pytest.fixture
def own_settings(own_database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        log_level="error",
        database_url=own_database_url,
        database_echo=True,
        database_pool_size=1,  # a connection that is opened later would be set up while statements are counted
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        storage_url=(tmp_path / "media").as_uri(),
    )


@pytest.fixture
async def own_client(own_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client of an application with a pool of its own, which lists the extracted audio for each request."""
    monkeypatch.setattr("app.services.media._FRESH_SECONDS", 0.0)
    app: FastAPI = create_app(own_settings)
    async with app.router.lifespan_context(app), open_client(app) as client:
        yield client


@pytest.fixture
async def library(own_settings: Settings) -> AsyncIterator[Connection]:
    """A connection in autocommit mode to a library: a video with everything, two without facts, and a pending one."""
    async with open_async_connection(own_settings) as conn:
        whole = await make_video(conn, identifier="whole")
        await make_transcript(conn, video_id=whole.id)
        await make_thumbnail(conn, video_id=whole.id)
        await make_video(conn, identifier="unknown", duration_seconds=None)
        await make_video(conn, identifier="linked", duration_seconds=None, file_size_kb=7, source_url="https://a/b.mp4")
        waiting = await make_video(conn, identifier="waiting", source_url="https://a/c.mp4")
        await conn.execute("INSERT INTO pipeline.pending_videos VALUES (%s)", [waiting.id])
        await make_clip(conn, await make_moment(conn, video_id=whole.id), video_id=whole.id)
        yield conn


async def _list(client: AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/api/videos")
    assert answer.status_code == 200
    videos: list[dict[str, Any]] = answer.json()
    return videos


async def test_an_unchanged_list_is_not_read_again(
    own_client: AsyncClient, library: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    first = await own_client.get("/api/videos")
    with caplog.at_level(logging.INFO, logger="app.database.statements"):
        answers = [await own_client.get("/api/videos") for _ in range(3)]
    statements = [record.getMessage() for record in caplog.records if record.name == "app.database.statements"]
    assert len(statements) == 3
    assert not any(_LIST_QUERY in statement for statement in statements)
    assert [answer.content for answer in answers] == [first.content] * 3


async def test_the_first_requests_share_the_list(
    own_client: AsyncClient, library: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="app.database.statements"):
        answers = await asyncio.gather(*(_list(own_client) for _ in range(20)))
    assert [[video["id"] for video in answer] for answer in answers] == [["linked", "unknown", "whole"]] * 20
    assert sum(_LIST_QUERY in record.getMessage() for record in caplog.records) <= 2


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE videos SET title = 'Other' WHERE identifier = 'whole'",
        "UPDATE videos SET identifier = 'part' WHERE identifier = 'whole'",
        "UPDATE videos SET cloud_url = 'file:///library/videos/whole.webm' WHERE identifier = 'whole'",
        "UPDATE videos SET duration_seconds = 5 WHERE identifier = 'unknown'",
        "UPDATE videos SET video_codec = 'h264' WHERE identifier = 'unknown'",
        "UPDATE videos SET audio_codec = 'aac' WHERE identifier = 'unknown'",
        "UPDATE videos SET file_size_kb = 7 WHERE identifier = 'unknown'",
        "UPDATE videos SET source_url = NULL WHERE identifier = 'linked'",
        "INSERT INTO videos (identifier, cloud_url) VALUES ('new', 'file:///new.mp4')",
        "DELETE FROM videos WHERE identifier = 'whole'",
        "TRUNCATE videos CASCADE",
        "DELETE FROM transcripts",
        "TRUNCATE transcripts CASCADE",
        "UPDATE transcripts SET video_id = (SELECT id FROM videos WHERE identifier = 'unknown')",
        "INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps) "
        "SELECT id, '', '[]', '[]' FROM videos WHERE identifier = 'unknown'",
        "DELETE FROM thumbnails WHERE video_id IS NOT NULL",
        "TRUNCATE thumbnails",
        "UPDATE thumbnails SET video_id = (SELECT id FROM videos WHERE identifier = 'unknown')",
        "UPDATE thumbnails SET video_id = NULL, clip_id = (SELECT id FROM clips)",
        "INSERT INTO thumbnails (video_id, cloud_url) SELECT id, 'file:///t' FROM videos WHERE identifier = 'unknown'",
        "DELETE FROM pipeline.pending_videos",
        "TRUNCATE pipeline.pending_videos",
        "INSERT INTO pipeline.pending_videos SELECT id FROM videos WHERE identifier = 'unknown'",
        "UPDATE pipeline.pending_videos SET video_id = (SELECT id FROM videos WHERE identifier = 'unknown')",
    ],
)
async def test_each_change_of_what_the_list_shows_is_seen_at_once(
    own_client: AsyncClient, library: Connection, own_settings: Settings, write: LiteralString
) -> None:
    before = await own_client.get("/api/videos")
    await library.execute(write)
    after = await own_client.get("/api/videos")
    assert after.json() != before.json()
    assert after.headers["ETag"] != before.headers["ETag"]
    other = create_app(own_settings)
    async with other.router.lifespan_context(other), open_client(other) as client:
        assert (await client.get("/api/videos")).content == after.content


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE moments SET title = 'Other', end_time = 21",
        "DELETE FROM moments",
        "DELETE FROM clips",
        "INSERT INTO thumbnails (clip_id, cloud_url) SELECT id, 'file:///t' FROM clips",
        "UPDATE videos SET resolution = '1920x1080', frame_rate = 25",
        "DELETE FROM pipeline.pending_videos WHERE video_id < 0",
    ],
)
async def test_a_change_of_what_the_list_does_not_show_keeps_its_version(
    library: Connection, write: LiteralString
) -> None:
    videos = VideoRepository(library)
    before = await videos.get_list_version()
    await library.execute(write)
    assert await videos.get_list_version() == before


async def test_a_write_that_is_rolled_back_keeps_the_version(library: Connection) -> None:
    videos = VideoRepository(library)
    before = await videos.get_list_version()
    async with library.transaction(force_rollback=True):
        await make_video(library)
        assert await videos.get_list_version() is None
    assert await videos.get_list_version() == before


async def test_a_write_after_one_that_was_rolled_back_to_a_savepoint_is_counted(library: Connection) -> None:
    videos = VideoRepository(library)
    before = await videos.get_list_version()
    async with library.transaction():
        async with library.transaction(force_rollback=True):
            await make_video(library)
        await make_video(library)
    assert await videos.get_list_version() != before


async def test_a_transaction_that_has_written_sees_its_own_list(library: Connection) -> None:
    async with library.transaction(force_rollback=True):
        for identifier in ("x", "y"):
            await make_video(library, identifier=identifier)
            version, cards = await VideoRepository(library).list_cards(after="whole")
            assert (version, cards[-1].identifier) == (None, identifier)


async def test_equal_versions_have_equal_lists_while_many_write(own_settings: Settings, library: Connection) -> None:
    seen: dict[str | None, list[str]] = {}
    is_over = asyncio.Event()

    async def write(number: int) -> None:
        async with open_async_connection(own_settings) as conn:
            for turn in range(40):
                async with conn.transaction(force_rollback=turn % 5 == 4):
                    video = await make_video(conn, identifier=f"v-{number}-{turn}")
                    async with conn.transaction(force_rollback=turn % 3 == 2):
                        await VideoRepository(conn).update(video.id, title="Other")
                    await asyncio.sleep(0.001)
                    await make_transcript(conn, video_id=video.id)

    async def read() -> None:
        async with open_async_connection(own_settings) as conn:
            while not is_over.is_set():
                version, cards = await VideoRepository(conn).list_cards()
                assert seen.setdefault(version, list(map(repr, cards))) == list(map(repr, cards))

    async def write_all() -> None:
        await asyncio.gather(*(write(number) for number in range(6)))
        is_over.set()

    await asyncio.gather(write_all(), read(), read())
    assert len(seen) > 2
    rows = await (await library.execute("SELECT count(*) FROM library.video_list_changes")).fetchone()
    assert rows is not None
    assert rows[0] <= 7


async def test_nobody_waits_for_a_writer_that_does_not_end(own_settings: Settings, library: Connection) -> None:
    settings = own_settings.model_copy(update={"database_lock_timeout": 0.1})
    async with open_async_connection(settings) as slow, open_async_connection(settings) as other, slow.transaction():
        await make_video(slow)
        await make_video(other)
        await other.execute("SET default_transaction_isolation TO 'repeatable read'")
        async with other.transaction():
            await other.execute("SELECT FROM videos")
            await make_video(library)
            await make_video(other)


async def test_a_count_that_begins_anew_is_another_version(own_client: AsyncClient, library: Connection) -> None:
    count: LiteralString = "SELECT sum(transactions) FROM library.video_list_changes"
    before = (await _list(own_client))[0]["title"]
    counted = await (await library.execute(count)).fetchone()
    async with library.transaction():
        await library.execute("TRUNCATE library.video_list_changes")
        await library.execute("UPDATE videos SET title = 'Other'")
        await library.execute("UPDATE library.video_list_changes SET transactions = %s", counted)
    assert await (await library.execute(count)).fetchone() == counted
    assert (await _list(own_client))[0]["title"] == "Other" != before


async def test_audio_that_appears_and_disappears_is_shown(
    own_client: AsyncClient, library: Connection, tmp_path: Path
) -> None:
    async def audio_of_whole() -> object:
        return {video["id"]: video["has_audio"] for video in await _list(own_client)}["whole"]

    path = tmp_path / "media" / audio_folder_key("whole") / "audio.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")
    assert await audio_of_whole() is True
    path.unlink()
    path.parent.rmdir()
    assert await audio_of_whole() is False


def test_a_write_through_one_server_is_seen_through_another(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"database_url": own_database_url, "redis_url": redis_url, "data_dir": tmp_path / "data"}

    async def add_video() -> None:
        async with open_async_connection(Settings(database_url=own_database_url)) as conn:
            await make_video(conn, identifier="talk")

    asyncio.run(add_video())
    with serving(tmp_path, **settings) as first, serving(tmp_path, **settings) as second:
        for title in ("One", "Two", "Three"):
            httpx.patch(f"{first.url}/api/videos/talk", json={"title": title}).raise_for_status()
            answers = [httpx.get(f"{server.url}/api/videos") for server in (second, first)]
            assert [answer.json()[0]["title"] for answer in answers] == [title] * 2
            assert answers[0].headers["ETag"] == answers[1].headers["ETag"]


async def test_the_client_that_has_the_list_gets_nothing(own_client: AsyncClient, library: Connection) -> None:
    first = await own_client.get("/api/videos")
    etag = first.headers["ETag"]
    for condition in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        answer = await own_client.get("/api/videos", headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
        assert {name: answer.headers[name] for name in ("ETag", "Cache-Control")} == {
            "ETag": etag,
            "Cache-Control": "no-cache",
        }
    await library.execute("UPDATE videos SET title = 'Other'")
    answer = await own_client.get("/api/videos", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()[0]["title"]) == (200, "Other")
    refused = await own_client.get("/api/videos", headers={"If-Match": etag})
    assert refused.status_code == 412


async def test_the_list_is_compressed_for_a_client_that_reads_gzip(
    own_client: AsyncClient, library: Connection
) -> None:
    plain = await own_client.get("/api/videos", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    async with own_client.stream("GET", "/api/videos", headers={"Accept-Encoding": "gzip"}) as compressed:
        raw = b"".join([piece async for piece in compressed.aiter_raw()])
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert compressed.headers["ETag"] != plain.headers["ETag"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert "Accept-Encoding" in compressed.headers["Vary"]


@pytest.mark.parametrize("query", [{"limit": 2}, {"limit": 2, "cursor": "linked"}, {"cursor": "linked"}])
async def test_a_page_is_kept_until_the_list_changes(
    own_client: AsyncClient, library: Connection, caplog: pytest.LogCaptureFixture, query: dict[str, str | int]
) -> None:
    first = await own_client.get("/api/videos", params=query)
    with caplog.at_level(logging.INFO, logger="app.database.statements"):
        again = await own_client.get("/api/videos", params=query)
    assert not any(_LIST_QUERY in record.getMessage() for record in caplog.records)
    assert (again.content, again.headers.get("Link")) == (first.content, first.headers.get("Link"))
    unchanged = await own_client.get("/api/videos", params=query, headers={"If-None-Match": first.headers["ETag"]})
    assert unchanged.status_code == 304
    await library.execute("UPDATE videos SET title = 'Other'")
    changed = await own_client.get("/api/videos", params=query)
    assert [video["title"] for video in changed.json()] == ["Other"] * len(first.json())


async def test_pages_that_arrive_together_are_not_mixed_up(own_client: AsyncClient, library: Connection) -> None:
    whole = await _list(own_client)
    queries: list[dict[str, str | int]] = [{"limit": 1}, {"limit": 2}, {"limit": 1, "cursor": "linked"}, {}]
    answers = await asyncio.gather(*(own_client.get("/api/videos", params=query) for query in queries * 5))
    assert [answer.json() for answer in answers] == [whole[:1], whole[:2], whole[1:2], whole] * 5


async def test_a_cursor_that_no_identifier_can_be_fails_alone(own_client: AsyncClient, library: Connection) -> None:
    queries: list[dict[str, str | int]] = [{"limit": 1}, {"limit": 1, "cursor": "\x00"}, {"limit": 2}]
    answers = await asyncio.gather(*(own_client.get("/api/videos", params=query) for query in queries))
    assert [answer.status_code for answer in answers] == [200, 422, 200]


@pytest.fixture
def _room_for_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.videos._MAX_CACHED_VIDEOS", 2 * 8)  # each of one video


@pytest.mark.usefixtures("_room_for_two_pages")
async def test_pages_that_were_not_asked_for_lately_are_forgotten(
    own_client: AsyncClient, library: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    pages: list[dict[str, str | int]] = [{"limit": 1}, {"limit": 1, "cursor": "linked"}, {"limit": 1, "cursor": "v"}]
    for query in pages:
        await own_client.get("/api/videos", params=query)
    reads: list[bool] = []
    for query in reversed(pages):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="app.database.statements"):
            await own_client.get("/api/videos", params=query)
        reads.append(any(_LIST_QUERY in record.getMessage() for record in caplog.records))
    assert reads == [False, False, True]


async def test_pages_without_videos_take_no_room(own_settings: Settings, library: Connection) -> None:
    app = create_app(own_settings)
    async with app.router.lifespan_context(app), open_client(app) as client:
        for number in range(3):
            answer = await client.get("/api/videos", params={"limit": 5, "cursor": f"z{number}"})
            assert (answer.status_code, answer.json()) == (200, [])
        assert not app.state.resources.video_list._pages
