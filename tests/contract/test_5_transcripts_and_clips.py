"""Audio, transcripts and clips: what is there, and how far their making is."""

import time
from pathlib import Path

import pytest

from app.database import Connection
from app.models.runs import RunStatus, StageStatus
from app.models.stages import Stage
from app.repositories.runs import RunRepository
from tests.contract.browser import Browser, detail_of
from tests.contract.demo import TRANSCRIPT, make_demo, make_demo_transcript
from tests.factories import make_clip, make_moment, make_transcript, make_video
from tests.runs import claim_run, fail_run, finish_run, save_stage

TALK = "/api/videos/demo-talk"


def add_audio(folder: Path) -> None:
    path = folder / "library" / "audios" / "demo-talk.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")


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


@pytest.mark.parametrize(
    ("button", "message", "status"),
    [
        ("process-audio", "Audio processing started", "audio-extraction-status"),
        ("process-transcript", "Transcript generation started", "transcription-status"),
    ],
)
async def test_a_button_without_a_body_answers_at_once_and_its_status_tells_the_rest(
    browser: Browser, conn: Connection, tmp_path: Path, button: str, message: str, status: str
) -> None:
    await make_video(conn, identifier="demo-talk")
    if button == "process-transcript":
        add_audio(tmp_path)
    begun = time.time()
    started = await browser.send("POST", f"{TALK}/{button}")
    assert (started.status_code, started.json()) == (200, {"message": message, "video_id": "demo-talk"})
    running = await browser.get_json(f"{TALK}/{status}")
    assert 0 <= running.pop("elapsed_seconds") <= time.time() - begun + 1
    assert begun - 1 <= float(running.pop("started_at")) <= time.time() + 1
    assert running == {"status": "processing", "error": ""}
    again = await browser.send("POST", f"{TALK}/{button}")
    assert again.status_code == 409
    (active,) = await RunRepository(conn).list_active_runs(2)
    await fail_run(conn, await claim_run(conn, active.identifier), Stage.AUDIO, "Audio extraction failed")
    failed = await browser.get_json(f"{TALK}/{status}")
    assert (failed["status"], failed["error"]) == ("failed", "Audio extraction failed")
    assert (await browser.send("POST", f"{TALK}/{button}")).status_code == 200


async def test_audio_and_transcript_are_not_made_twice(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    await make_demo(conn, tmp_path / "library")
    for button, detail in (
        ("process-audio", "Audio file already exists for this video"),
        ("process-transcript", "Transcript already exists for this video"),
    ):
        answer = await browser.send("POST", f"{TALK}/{button}")
        assert (answer.status_code, answer.json()) == (400, {"detail": detail})


async def test_a_transcript_needs_audio(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.send("POST", f"{TALK}/process-transcript")
    assert (answer.status_code, detail_of(answer)) == (400, "Audio file not found. Please process audio first.")


@pytest.mark.parametrize("status", ["audio-extraction-status", "transcription-status", "clip-extraction-status"])
async def test_what_is_stored_has_been_made(browser: Browser, conn: Connection, tmp_path: Path, status: str) -> None:
    await make_demo(conn, tmp_path / "library")
    assert (await browser.get_json(f"{TALK}/{status}"))["status"] == "completed"


@pytest.mark.parametrize("status", ["audio-extraction-status", "transcription-status", "clip-extraction-status"])
async def test_what_nobody_began_has_not_started(browser: Browser, conn: Connection, status: str) -> None:
    await make_video(conn, identifier="demo-talk")
    assert await browser.get_json(f"{TALK}/{status}") == {"status": "not_started", "started_at": None}


@pytest.mark.parametrize("body", ['{"override_existing":true}', "{}"])
async def test_clips_are_counted_as_soon_as_there_is_something_to_count(
    browser: Browser, conn: Connection, body: str
) -> None:
    video = await make_video(conn, identifier="demo-talk")
    nothing = await browser.send("POST", f"{TALK}/extract-clips", body)
    assert (nothing.status_code, detail_of(nothing)) == (400, "No moments found for this video")
    await make_moment(conn, video_id=video.id)
    started = await browser.send("POST", f"{TALK}/extract-clips", body)
    assert started.json() == {"message": "Clip extraction started", "video_id": "demo-talk"}
    path = f"{TALK}/clip-extraction-status"
    first = await browser.get_json(path)
    assert (first.keys(), first["status"]) == ({"status", "started_at"}, "processing")
    (active,) = await RunRepository(conn).list_active_runs(2)
    run = await claim_run(conn, active.identifier)
    counts = {"total": 5, "processed": 5, "failed": 1}
    await save_stage(conn, run, Stage.CLIPS, StageStatus.COMPLETED, progress=counts)
    await finish_run(conn, run, RunStatus.PARTIAL)
    ended = await browser.get_json(path)
    assert ended == {
        "status": "completed",
        "started_at": first["started_at"],
        "total_moments": 5,
        "processed_moments": 5,
        "failed_moments": 1,
    }


async def test_clips_need_a_body(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.send("POST", f"{TALK}/extract-clips")
    assert (answer.status_code, detail_of(answer)) == (422, "The body is missing")


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
