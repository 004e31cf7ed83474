"""The root, health, static addresses and videos."""

import asyncio
import os
from pathlib import Path

import av
import pytest

from app.database import Connection
from tests.contract.browser import Browser
from tests.contract.demo import make_demo
from tests.factories import make_transcript, make_video
from tests.media.movies import make_colour_movie, make_movie

STREAM = "/api/videos/demo-talk/stream"
SIZE = 319_366


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder of an imported library."""
    return tmp_path / "library"


async def test_the_root_names_the_service(browser: Browser) -> None:
    answer = await browser.get_json("/")
    assert answer["message"] == "Video Moments API"
    assert isinstance(answer["version"], str)


async def test_health_tells_of_redis(browser: Browser) -> None:
    answer = await browser.get_json("/health")
    assert (answer["status"], answer["redis"]) == ("healthy", "connected")


async def test_a_list_is_what_its_page_shows(browser: Browser, conn: Connection, library: Path) -> None:
    await make_video(conn, identifier="fresh_one-x", cloud_url=(library / "videos" / "fresh_one-x.webm").as_uri())
    await make_demo(conn, library)
    assert await browser.get_json("/api/videos") == [
        {
            "id": "demo-talk",
            "filename": "demo-talk.mp4",
            "title": "Demo Talk",
            "thumbnail_url": "/static/thumbnails/demo-talk.jpg",
            "has_audio": True,
            "has_transcript": True,
        },
        {
            "id": "fresh_one-x",
            "filename": "fresh_one-x.webm",
            "title": "Fresh One X",
            "thumbnail_url": None,
            "has_audio": False,
            "has_transcript": False,
        },
    ]


async def test_one_video_has_the_form_of_its_card(browser: Browser, conn: Connection, library: Path) -> None:
    await make_demo(conn, library)
    assert [await browser.get_json("/api/videos/demo-talk")] == await browser.get_json("/api/videos")


async def test_no_videos_are_an_empty_list(browser: Browser) -> None:
    assert await browser.get_json("/api/videos") == []


async def test_videos_are_in_the_order_of_their_bytes(browser: Browser, conn: Connection) -> None:
    for identifier in ("rumble-01-clip", "afgsz-caa", "éa", "rumble-01", "The-Jump", "Kevin Hart", "2-min-rule", "_a"):
        await make_video(conn, identifier=identifier)
    assert [card["id"] for card in await browser.get_json("/api/videos")] == [
        *("2-min-rule", "Kevin Hart", "The-Jump", "_a", "afgsz-caa", "rumble-01", "rumble-01-clip", "éa")
    ]


@pytest.mark.parametrize(
    ("identifier", "title"),
    [
        ("2-min-rule", "2 Min Rule"),
        ("Kevin_Hart_How_To Become_A_Millionaire", "Kevin Hart How To Become A Millionaire"),
        ("BillGates", "Billgates"),
        ("mfioz-aaa-rec-1769382989", "Mfioz Aaa Rec 1769382989"),
    ],
)
async def test_a_title_is_the_words_of_the_id(browser: Browser, conn: Connection, identifier: str, title: str) -> None:
    await make_video(conn, identifier=identifier)
    assert (await browser.get_json(f"/api/videos/{identifier}"))["title"] == title


@pytest.mark.parametrize("extension", ["mp4", "webm", "mov", "avi", "mkv", "ogg", "MP4"])
async def test_a_filename_has_the_extension_of_its_file(browser: Browser, conn: Connection, extension: str) -> None:
    await make_video(conn, identifier="talk", cloud_url=f"file:///library/videos/talk.{extension}")
    assert (await browser.get_json("/api/videos"))[0]["filename"] == f"talk.{extension}"


async def test_a_transcript_is_registered_without_audio(browser: Browser, conn: Connection) -> None:
    await make_transcript(conn, video_id=(await make_video(conn)).id)
    (card,) = await browser.get_json("/api/videos")
    assert (card["has_audio"], card["has_transcript"]) == (False, True)


@pytest.fixture
def file(library: Path) -> Path:
    library.mkdir()
    (library / "demo-talk.mp4").write_bytes(os.urandom(SIZE))
    return library / "demo-talk.mp4"


@pytest.fixture
async def video_file(conn: Connection, file: Path) -> bytes:
    """The video of `demo-talk`."""
    await make_video(conn, identifier="demo-talk", cloud_url=file.as_uri())
    return await asyncio.to_thread(file.read_bytes)


async def test_a_video_file_without_a_range_is_sent_whole(browser: Browser, video_file: bytes) -> None:
    answer = await browser.load(STREAM)
    assert (answer.status_code, answer.content) == (200, video_file)
    assert (answer.headers["Accept-Ranges"], answer.headers["Content-Length"]) == ("bytes", str(SIZE))
    assert {"etag", "last-modified"} <= set(answer.headers)


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-", 0, 319_365),
        ("bytes=0-99", 0, 99),
        ("bytes=319365-", 319_365, 319_365),
        ("bytes=0-999999999", 0, 319_365),
        ("bytes=-500", 318_866, 319_365),
    ],
)
async def test_a_player_gets_the_range_it_asks_for(
    browser: Browser, video_file: bytes, wanted: str, first: int, last: int
) -> None:
    answer = await browser.load(STREAM, Range=wanted)
    assert (answer.status_code, answer.content) == (206, video_file[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)
    assert answer.headers["Accept-Ranges"] == "bytes"


async def test_a_range_behind_the_end_is_416_with_the_size(browser: Browser, video_file: bytes) -> None:
    answer = await browser.load(STREAM, Range="bytes=319366-")
    assert (answer.status_code, answer.json()) == (416, {"detail": "Range not satisfiable"})
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=100-50"])
async def test_a_range_that_is_none_is_ignored(browser: Browser, video_file: bytes, wanted: str) -> None:
    answer = await browser.load(STREAM, Range=wanted)
    assert (answer.status_code, answer.content) == (200, video_file)


async def test_several_ranges_come_in_parts(browser: Browser, video_file: bytes) -> None:
    answer = await browser.load(STREAM, Range="bytes=0-9,20-29")
    assert answer.status_code == 206
    assert answer.headers["Content-Type"].startswith("multipart/byteranges")
    assert video_file[:10] in answer.content
    assert video_file[20:30] in answer.content


@pytest.mark.parametrize("path", ["stream", "thumbnail"])
async def test_a_video_file_that_is_gone_is_404(browser: Browser, conn: Connection, path: str) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.get(f"/api/videos/demo-talk/{path}")
    assert answer.status_code == 404


async def test_a_thumbnail_is_made_when_it_is_first_asked_for_and_listed_from_then_on(
    browser: Browser, conn: Connection, library: Path
) -> None:
    movie = make_colour_movie(library / "demo talk.mp4", 2, [(200, 40, 40)])
    await make_video(conn, identifier="demo talk", cloud_url=movie.as_uri())
    (card,) = await browser.get_json("/api/videos")
    assert card["thumbnail_url"] is None
    made = await browser.load("/api/videos/demo talk/thumbnail")
    assert (made.status_code, made.headers["Content-Type"]) == (200, "image/jpeg")
    assert av.CodecContext.create("mjpeg", "r").decode(av.Packet(made.content))
    (card,) = await browser.get_json("/api/videos")
    assert card["thumbnail_url"].startswith("/static/thumbnails/")
    assert (await browser.load(card["thumbnail_url"])).content == made.content


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/static/thumbnails/demo talk.jpg", "image/jpeg"),
        ("/static/audios/demo talk.wav", "audio/wav"),
        ("/static/transcripts/demo talk.json", "application/json"),
        ("/moment_clips/demo talk_7621a017eec7482f_clip.mp4", "video/mp4"),
    ],
)
async def test_a_static_address_leads_to_its_file_and_to_304(
    browser: Browser, conn: Connection, library: Path, path: str, content_type: str
) -> None:
    await make_demo(conn, library, "demo talk")
    answer = await browser.load(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    again = await browser.load(path, **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/static/thumbnails", "/static/thumbnails/", "/moment_clips/", "/static/videos/demo-talk.mp4"),
        *("/static/moments/demo-talk.json", "/static/moment_clips/demo-talk_7621a017eec7482f_clip.mp4"),
    ],
)
async def test_folders_and_files_that_were_never_served_are_404(
    browser: Browser, conn: Connection, library: Path, path: str
) -> None:
    await make_demo(conn, library)
    assert (await browser.load(path)).status_code == 404


async def test_every_kind_of_video_file_is_reported_by_its_own_type(
    browser: Browser, conn: Connection, library: Path
) -> None:
    for extension, content_type in (("mp4", "video/mp4"), ("webm", "video/webm"), ("mkv", "video/x-matroska")):
        codec = "libvpx" if extension == "webm" else "libx264"
        movie = make_movie(library / f"{extension}.{extension}", video_codec=codec, audio_codec=None)
        await make_video(conn, identifier=extension, cloud_url=movie.as_uri())
        answer = await browser.load(f"/api/videos/{extension}/stream", Range="bytes=0-")
        assert (answer.status_code, answer.headers["Content-Type"]) == (206, content_type)
