"""Audio, transcripts and clips: what is there, and how far their making is."""

import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.database import Connection
from tests.contract.browser import Browser
from tests.contract.demo import TRANSCRIPT, make_demo, make_demo_transcript
from tests.factories import make_clip, make_moment, make_transcript, make_video

TALK = "/api/videos/demo-talk"


async def tell(redis: Redis, kind: str, **fields: str) -> None:
    mapping: dict[Any, Any] = {"job_type": kind, "video_id": "demo-talk", "completed_at": "", "error": ""} | fields
    await redis.hset(f"job:{kind}:demo-talk", mapping=mapping)


async def test_a_transcript_is_the_stored_document(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    await make_demo(conn, tmp_path / "library")
    assert await browser.get_json(f"{TALK}/transcript") == TRANSCRIPT


async def test_a_transcript_without_audio_has_captions_all_the_same(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    await make_demo_transcript(conn, video)
    (card,) = await browser.get_json("/api/videos")
    assert card["has_audio"] is False
    assert (await browser.get_json(f"{TALK}/transcript"))["segment_timestamps"] == TRANSCRIPT["segment_timestamps"]


async def test_a_transcript_in_which_nothing_is_said_has_empty_lists(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    await make_transcript(conn, video_id=video.id, full_text="", word_timestamps=[], segment_timestamps=[])
    answer = await browser.get_json(f"{TALK}/transcript")
    assert (answer["transcription"], answer["word_timestamps"], answer["segment_timestamps"]) == ("", [], [])


@pytest.mark.parametrize("path", ["transcript", "transcript.srt", "transcript.vtt", "transcript.txt"])
async def test_no_transcript_is_404(browser: Browser, conn: Connection, path: str) -> None:
    nobody = await browser.get(f"{TALK}/{path}")
    assert (nobody.status_code, nobody.json()) == (404, {"detail": "Video not found"})
    await make_video(conn, identifier="demo-talk")
    silent = await browser.get(f"{TALK}/{path}")
    assert (silent.status_code, silent.json()) == (404, {"detail": "Transcript not found for this video"})


@pytest.mark.parametrize(
    ("extension", "content_type", "text"),
    [
        ("srt", "application/x-subrip", "1\n00:00:05,760 --> 00:00:06,880\nOh, there we go.\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:05.760 --> 00:00:06.880\nOh, there we go.\n"),
        ("txt", "text/plain", "Oh, there we go.\n"),
    ],
)
async def test_a_transcript_is_exported(
    browser: Browser, conn: Connection, tmp_path: Path, extension: str, content_type: str, text: str
) -> None:
    await make_demo(conn, tmp_path / "library")
    answer = await browser.get(f"{TALK}/transcript.{extension}")
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.text == text


@pytest.mark.parametrize("kind", ["audio_extraction", "transcription"])
async def test_a_job_tells_how_long_it_has_taken_and_what_went_wrong(
    browser: Browser, conn: Connection, redis: Redis, kind: str
) -> None:
    await make_video(conn, identifier="demo-talk")
    path = f"{TALK}/{kind.replace('_', '-')}-status"
    started_at = str(time.time() - 2)
    await tell(redis, kind, status="processing", started_at=started_at)
    running = await browser.get_json(path)
    assert 2 <= running.pop("elapsed_seconds") < 60
    assert running == {"status": "processing", "started_at": started_at, "error": ""}
    ended = {"started_at": "1795346910.5", "completed_at": "1795346913.75"}
    await tell(redis, kind, status="failed", error="Audio extraction failed", **ended)
    assert await browser.get_json(path) == {
        "status": "failed",
        "started_at": "1795346910.5",
        "elapsed_seconds": 3.25,
        "error": "Audio extraction failed",
    }


@pytest.mark.parametrize("kind", ["audio_extraction", "transcription"])
async def test_a_job_that_has_died_ends_the_asking(browser: Browser, conn: Connection, redis: Redis, kind: str) -> None:
    await make_video(conn, identifier="demo-talk")
    await tell(redis, kind, status="processing", started_at=str(time.time() - 841))
    answer = await browser.get_json(f"{TALK}/{kind.replace('_', '-')}-status")
    assert (answer["status"], answer["error"]) == ("failed", "Not ended after 840 seconds")


@pytest.mark.parametrize("status", ["audio-extraction-status", "transcription-status", "clip-extraction-status"])
async def test_what_is_stored_has_been_made(browser: Browser, conn: Connection, tmp_path: Path, status: str) -> None:
    await make_demo(conn, tmp_path / "library")
    assert (await browser.get_json(f"{TALK}/{status}"))["status"] == "completed"


@pytest.mark.parametrize("status", ["audio-extraction-status", "transcription-status", "clip-extraction-status"])
async def test_what_nobody_began_has_not_started(browser: Browser, conn: Connection, status: str) -> None:
    await make_video(conn, identifier="demo-talk")
    assert await browser.get_json(f"{TALK}/{status}") == {"status": "not_started", "started_at": None}


async def test_clips_are_counted_as_soon_as_there_is_something_to_count(
    browser: Browser, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="demo-talk")
    path, started_at = f"{TALK}/clip-extraction-status", str(time.time())
    await tell(redis, "clip_extraction", status="processing", started_at=started_at)
    assert await browser.get_json(path) == {"status": "processing", "started_at": started_at}
    counts = {"total_moments": "5", "processed_moments": "2", "failed_moments": "0"}
    await tell(redis, "clip_extraction", status="processing", started_at=started_at, **counts)
    assert await browser.get_json(path) == {
        "status": "processing",
        "started_at": started_at,
        "total_moments": 5,
        "processed_moments": 2,
        "failed_moments": 0,
    }


async def test_clips_that_were_cut_are_counted_without_those_that_failed(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    for start in (0, 10, 20):
        moment = await make_moment(conn, video_id=video.id, start_time=start, end_time=start + 5)
        if start:
            await make_clip(conn, moment)
    answer = await browser.get_json(f"{TALK}/clip-extraction-status")
    assert (answer["status"], answer["total_moments"]) == ("completed", 3)
    # "Successfully extracted … clips (… failed)", as the frontend words it.
    assert (answer["processed_moments"] - answer["failed_moments"], answer["failed_moments"]) == (2, 0)
