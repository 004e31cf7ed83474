"""`POST /api/videos`: what is accepted, and that nothing is left of what is not."""

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from starlette.types import Message, Scope

from app.core.config import Settings
from app.database import Connection
from tests.api.conftest import change_settings, open_client
from tests.api.upload_forms import FORM_TYPE, count_videos, find_video, form, in_pieces, part, send_form
from tests.factories import make_video
from tests.media.movies import make_bomb, make_movie
from tests.media.test_truncation import cut_off, make_noise
from tests.storage.stores import files_in


async def test_a_form_becomes_a_video(client: AsyncClient, conn: Connection, movie: bytes, media: Path) -> None:
    answer = await client.post("/api/videos", files={"file": ("Demo Talk.MP4", movie, "video/mp4")})
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "id": "demo-talk",
        "filename": "demo-talk.mp4",
        "title": "Demo Talk",
        "thumbnail_url": None,
        "has_audio": answer.json()["has_audio"],
        "has_transcript": False,
    }
    assert answer.headers["Location"] == "/api/videos/demo-talk"
    assert (await client.get(answer.headers["Location"])).json() == answer.json()
    (stored,) = files_in(media)
    assert stored.startswith("videos/demo-talk/")
    assert (media / stored).read_bytes() == movie


async def test_a_video_can_be_played_as_soon_as_it_is_there(client: AsyncClient, movie: bytes) -> None:
    await client.post("/api/videos", content=movie, params={"id": "talk"})
    assert (await client.get("/api/videos/talk/stream")).content == movie


async def test_the_row_says_what_is_in_the_file(client: AsyncClient, conn: Connection, movie: bytes) -> None:
    await client.post("/api/videos", content=movie, params={"id": "talk", "source_url": "https://cdn.example/A b.mp4"})
    video = await find_video(conn, "talk")
    assert video.duration_seconds == pytest.approx(1, abs=0.1)
    assert (video.video_codec, video.audio_codec, video.resolution) == ("h264", "aac", "64x48")
    assert video.file_size_kb == -(-len(movie) // 1024)
    assert video.source_url == "https://cdn.example/A b.mp4"


async def test_the_body_may_be_the_file_itself(client: AsyncClient, movie: bytes, media: Path) -> None:
    headers = {"Content-Type": "video/mp4"}
    params = {"filename": "Über uns – 2026.mov", "title": "About"}
    answer = await client.post("/api/videos", content=in_pieces(movie), params=params, headers=headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["title"]) == (201, "uber-uns-2026", "About")
    assert answer.json()["filename"] == "uber-uns-2026.mov"
    assert [(media / name).read_bytes() for name in files_in(media)] == [movie]


@pytest.mark.parametrize("is_form", [True, False])
async def test_a_video_for_which_the_disk_has_no_room_is_refused_before_it_arrives(
    client: AsyncClient, movie: bytes, media: Path, monkeypatch: pytest.MonkeyPatch, is_form: bool
) -> None:
    monkeypatch.setattr("app.storage.file_system.measure_disk", lambda folder: (1000, 1000))
    large = movie + bytes(100_000)  # more than the envelope of a form may have
    content: dict[str, Any] = {"files": {"file": ("talk.mp4", large)}} if is_form else {"content": large}
    answer = await client.post("/api/videos", params={"id": "talk"}, **content)
    assert answer.status_code == 507
    assert answer.json()["detail"].startswith("There is no room for the video: ")
    assert files_in(media) == []


async def test_a_video_that_is_longer_than_the_setting_allows_is_refused(
    app: FastAPI, settings: Settings, movie: bytes, media: Path
) -> None:
    async with open_client(change_settings(app, max_video_hours=0.0001)) as client:
        answer = await client.post("/api/videos", content=movie, params={"id": "talk"})
    sentence = "The video is longer than 0.0001 hours, the limit that MAX_VIDEO_HOURS sets"
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)
    assert files_in(media) == []


@pytest.mark.parametrize(
    ("filename", "identifier"),
    [
        ("My Video_File.MP4", "my-video-file"),
        ("C:\\films\\Talk (1).mp4", "talk-1"),
        ("films/2026/talk.webm", "talk"),
        ("a%20b.mp4", "a-20b"),
        ("x" * 80 + ".mp4", "x" * 50),
        ("y" * 49 + " tail.mp4", "y" * 49),
        ("no extension", "no-extension"),
    ],
)
async def test_the_id_is_made_from_the_name_of_the_file(
    client: AsyncClient, movie: bytes, filename: str, identifier: str
) -> None:
    answer = await client.post("/api/videos", content=movie, params={"filename": filename})
    assert (answer.status_code, answer.json()["id"]) == (201, identifier)


@pytest.mark.parametrize("filename", ["", ".mp4", "…?!.mp4", "---.mp4"])
async def test_a_file_without_a_telling_name_gets_an_invented_id(
    client: AsyncClient, movie: bytes, filename: str
) -> None:
    names = {
        (await client.post("/api/videos", content=movie, params={"filename": filename})).json()["id"] for _ in range(2)
    }
    assert len(names) == 2
    assert all(name.startswith("video-") and len(name) == 14 for name in names)


@pytest.mark.parametrize(
    ("container", "codec", "filename", "extension"),
    [
        ("mp4", "libx264", "talk", ".mp4"),
        ("mp4", "libx264", "talk.exe", ".mp4"),
        ("webm", "libvpx", "talk.bin", ".webm"),
        ("matroska", "libx264", "talk.bin", ".mkv"),
        ("mpegts", "libx264", "talk.m2ts", ".ts"),
        ("matroska", "libx264", "talk.MKV", ".mkv"),
    ],
)
async def test_the_extension_is_that_of_the_name_or_else_of_the_content(
    client: AsyncClient, tmp_path: Path, container: str, codec: str, filename: str, extension: str
) -> None:
    video_file = make_movie(tmp_path / "film", video_codec=codec, audio_codec=None, container_format=container)
    answer = await client.post(
        "/api/videos", content=video_file.read_bytes(), params={"filename": filename, "id": "talk"}
    )
    assert (answer.status_code, answer.json()["filename"]) == (201, f"talk{extension}")


@pytest.mark.parametrize(
    "identifier",
    ["a/b", "a\\b", "a?b", "a#b", "a%b", ".", "..", " a", "a ", "a\nb", "a\0b", "a\u202eb", "a\u2028b", "x" * 256],
)
async def test_an_id_that_no_address_can_hold_is_refused(
    client: AsyncClient, conn: Connection, movie: bytes, media: Path, identifier: str
) -> None:
    raw = await client.post("/api/videos", content=movie, params={"id": identifier})
    fields = await send_form(client, part("file", movie, "talk.mp4"), part("id", identifier.encode()))
    for answer in (raw, fields):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("id")
    assert (await count_videos(conn), files_in(media)) == (0, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", "x" * 501),
        ("title", "a\0b"),
        ("title", " "),
        ("source_url", "ftp://host/file"),
        ("source_url", "javascript:alert(1)"),
        ("source_url", "https://"),
        ("source_url", "https://host/\nx"),
        ("source_url", "http://[::1/x"),
        ("source_url", "https://host/" + "x" * 4096),
    ],
)
async def test_a_title_or_a_source_that_cannot_be_stored_is_refused(
    client: AsyncClient, conn: Connection, movie: bytes, media: Path, name: str, value: str
) -> None:
    raw = await client.post("/api/videos", content=movie, params={"id": "talk", name: value})
    fields = await send_form(client, part("file", movie, "talk.mp4"), part(name, value.encode()))
    for answer in (raw, fields):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(name)
    assert (await count_videos(conn), files_in(media)) == (0, [])


async def test_a_name_of_a_file_that_cannot_be_stored_is_refused(client: AsyncClient, movie: bytes) -> None:
    nul = await client.post("/api/videos", content=movie, params={"filename": "a\0b.mp4"})
    surrogate = await client.post(
        "/api/videos",
        content=form(part("file", movie, "x.mp4").replace(b"x.mp4", b"\xed\xa0\x80.mp4")),
        headers=FORM_TYPE,
    )
    assert (nul.status_code, surrogate.status_code) == (422, 422)
    assert surrogate.json() == {"detail": "The file's name is not UTF-8"}


async def test_a_taken_id_is_refused_before_a_byte_is_read(client: AsyncClient, conn: Connection, media: Path) -> None:
    await make_video(conn, identifier="talk")

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("The body was read")
        yield b""

    answer = await client.post("/api/videos", content=never(), params={"id": "talk"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "A video with this id exists already"})
    assert files_in(media) == []


async def test_a_name_that_is_taken_while_the_file_arrives_leaves_nothing(
    client: AsyncClient, conn: Connection, movie: bytes, media: Path
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield movie[:1000]
        await make_video(conn, identifier="talk")
        yield movie[1000:]

    answer = await client.post("/api/videos", content=pieces(), params={"id": "talk"})
    assert answer.status_code == 409
    assert files_in(media) == []


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "The file is empty"),
        (b"\x01\x02\x03no film at all " * 100, "The file is no video, or it is damaged"),
        (b"no film at all " * 100, "The file is text, no video and no audio"),
        (b"#EXTM3U\n#EXTINF:10\nfile:///etc/passwd\n", "The file is text, no video and no audio"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1", "The file is an image (JPEG), no video and no audio"),
    ],
)
async def test_a_file_that_is_no_video_is_refused(
    client: AsyncClient, conn: Connection, media: Path, content: bytes, detail: str
) -> None:
    raw = await client.post("/api/videos", content=content, params={"filename": "talk.mp4"})
    fields = await send_form(client, part("file", content, "talk.mp4"))
    assert (raw.status_code, raw.json()) == (fields.status_code, fields.json()) == (422, {"detail": detail})
    assert (await count_videos(conn), files_in(media)) == (0, [])


async def test_a_file_that_was_cut_off_and_does_not_know_its_length_says_so(
    client: AsyncClient, tmp_path: Path, media: Path
) -> None:
    path = make_noise(tmp_path / "talk", None, "libopus", "ogg")
    cut_off(path)
    video = (await client.post("/api/videos", content=path.read_bytes(), params={"filename": "talk.ogg"})).json()
    problem = r"The file ends early, in the middle of a packet: [67]\.\d seconds can be played"
    assert re.fullmatch(problem, video["file_problem"])
    assert (await client.get("/api/videos/talk")).json() == video


async def test_a_file_that_was_cut_off_says_so(client: AsyncClient, tmp_path: Path, media: Path) -> None:
    path = make_noise(tmp_path / "talk", "libx264", "aac", "mp4")
    seconds = cut_off(path)
    video = (await client.post("/api/videos", content=path.read_bytes(), params={"filename": "talk.mp4"})).json()
    assert re.fullmatch(r"The file ends early: [67]\.\d of 12\.0 seconds can be played", video["file_problem"])
    assert (await client.get("/api/videos/talk")).json() == video
    moment = {"start_time": seconds - 1, "end_time": seconds + 1, "title": "x"}
    answer = await client.post("/api/videos/talk/moments", json=moment)
    assert answer.json()["detail"].startswith("end_time must be <= video duration (")


@pytest.mark.parametrize(
    ("name", "codec", "container", "kind"),
    [("Folge 1.mp3", "libmp3lame", "mp3", "audio/mpeg"), ("talk.m4a", "aac", "ipod", "audio/mp4")],
)
async def test_audio_without_a_picture_is_a_video_like_any_other(
    client: AsyncClient, tmp_path: Path, media: Path, name: str, codec: str, container: str, kind: str
) -> None:
    audio = make_movie(tmp_path / "audio", 1.0, None, codec, container).read_bytes()
    video = (await client.post("/api/videos", content=audio, params={"filename": name, "id": "talk"})).json()
    assert video["filename"] == f"talk{Path(name).suffix}"
    stream = await client.get("/api/videos/talk/stream", headers={"Range": "bytes=0-99"})
    assert (stream.status_code, stream.headers["content-type"], stream.content) == (206, kind, audio[:100])
    thumbnail = await client.get("/api/videos/talk/thumbnail")
    assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg")


@pytest.mark.parametrize("kept", [100, 700, 1500])
async def test_a_video_file_that_was_cut_off_is_a_video_or_refused_and_never_an_error(
    client: AsyncClient, movie: bytes, kept: int
) -> None:
    answer = await client.post("/api/videos", content=movie[:kept], params={"filename": "talk.mp4"})
    assert answer.status_code in (201, 422)


async def test_frames_of_too_many_pixels_are_rejected(client: AsyncClient, tmp_path: Path, media: Path) -> None:
    video_file = make_bomb(tmp_path / "large.mov", 100, streams=6, said_side=16_000).read_bytes()
    answer = await client.post("/api/videos", content=video_file, params={"id": "large"})
    assert (answer.status_code, answer.json()) == (
        422,
        {"detail": "Its frames have more than 7680 times 4320 pixels"},
    )
    assert files_in(media) == []


async def test_an_upload_waits_for_no_thread_that_others_use(client: AsyncClient, movie: bytes) -> None:
    go_on = threading.Event()
    others = [asyncio.create_task(asyncio.to_thread(go_on.wait)) for _ in range(40)]
    try:
        async with asyncio.timeout(60):
            answer = await client.post("/api/videos", content=movie, params={"id": "talk"})
    finally:
        go_on.set()
        await asyncio.gather(*others)
    assert answer.status_code == 201


async def test_the_address_of_a_file_is_reported_before_it_is_stored(
    client: AsyncClient, movie: bytes, media: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[bool] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reports.append(any(name.startswith("videos/") for name in files_in(media)))

    logger = logging.getLogger("app.services.uploads")
    listener = Listener()
    logger.addHandler(listener)
    try:
        with caplog.at_level(logging.INFO, "app.services.uploads"):
            await client.post("/api/videos", content=movie)
    finally:
        logger.removeHandler(listener)
    (stored,) = files_in(media)
    assert (reports, (media / stored).as_uri() in caplog.text) == ([False], True)


async def post_with_limit(app: FastAPI, settings: Settings, limit: int, **request: object) -> Response:
    async with open_client(change_settings(app, max_upload_bytes=limit)) as client:
        return await client.post("/api/videos", **request)  # type: ignore[arg-type]


async def test_a_file_above_the_limit_is_refused_before_it_is_read(
    app: FastAPI, settings: Settings, media: Path
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("The body was read")
        yield b""

    headers = {"Content-Length": "1001", "Content-Type": "video/mp4"}
    answer = await post_with_limit(app, settings, 1000, content=never(), headers=headers)
    assert (answer.status_code, answer.json()) == (413, {"detail": "A video may have at most 1000 bytes"})


async def test_a_file_that_grows_above_the_limit_is_refused_and_not_kept(
    app: FastAPI, settings: Settings, conn: Connection, media: Path, movie: bytes
) -> None:
    raw = await post_with_limit(app, settings, len(movie) - 1, content=in_pieces(movie))
    body = in_pieces(form(part("file", movie, "talk.mp4")))
    fields = await post_with_limit(app, settings, len(movie) - 1, content=body, headers=FORM_TYPE)
    assert (raw.status_code, fields.status_code) == (413, 413)
    assert (await count_videos(conn), files_in(media)) == (0, [])


async def test_a_file_of_exactly_the_limit_is_accepted(app: FastAPI, settings: Settings, movie: bytes) -> None:
    body = form(part("id", b"talk"), part("file", movie, "talk.mp4"))
    answer = await post_with_limit(app, settings, len(movie), content=body, headers=FORM_TYPE)
    assert answer.status_code == 201


async def test_a_client_that_goes_away_leaves_nothing(
    app: FastAPI, conn: Connection, media: Path, movie: bytes
) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": movie[:1000], "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/videos",
        "raw_path": b"/api/videos",
        "query_string": b"id=talk",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "state": {},
    }
    await app(scope, receive, send)
    assert answers[0]["status"] == 422
    assert (await count_videos(conn), files_in(media)) == (0, [])
