"""The rocket button, the page of URLs and the page of the history: what is sent, and what is read of the answers."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.database import Connection
from app.models.runs import StageStatus
from app.models.stages import RunType, Stage
from app.repositories.runs import RunRepository
from app.repositories.stages import ClaimedRunRepository
from tests.contract.browser import Browser, detail_of
from tests.contract.demo import make_demo
from tests.factories import make_video
from tests.runs import claim_run, enqueue_run, fail_run, finish_run, save_stage

START = (
    '{"model":"minimax","temperature":0.7,"min_moment_length":60,"max_moment_length":120,"min_moments":3,'
    '"max_moments":10,"refinement_parallel_workers":2,"include_video_refinement":true,"generation_prompt":null,'
    '"refinement_prompt":null,"override_existing_moments":false,"override_existing_refinement":false}'
)
URL = (
    '{"video_url":"https://cdn.example/a/My Video_File.MP4?x=1","force_download":false,"model":"qwen3_vl_fp8",'
    '"temperature":0.7,"min_moment_length":60,"max_moment_length":120,"min_moments":3,"max_moments":10,'
    '"refinement_parallel_workers":2,"include_video_refinement":true}'
)
STAGES = ["download", "audio", "audio_upload", "transcript", "generation", "clips", "clip_upload", "refinement"]
TALK = "/api/pipeline/demo-talk"


def list_known_stages(status: dict[str, Any]) -> list[str]:
    """Return the stages that the frontend reads by name; its history page also lists any other."""
    return [stage for stage in status["stages"] if stage in STAGES]


async def test_the_rocket_button_starts_a_run_that_is_followed_to_its_end(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    await make_demo(conn, tmp_path / "library")
    started = await browser.send("POST", f"{TALK}/start", START)
    identifier = started.json()["request_id"]
    assert re.fullmatch(r"pipeline:demo-talk:\d{13}", identifier)
    assert (started.status_code, started.json()) == (
        200,
        {
            "request_id": identifier,
            "video_id": "demo-talk",
            "status": "queued",
            "message": "Pipeline started successfully",
        },
    )
    waiting = await browser.get_json(f"{TALK}/status")
    assert (waiting["status"], waiting["model"], waiting["request_id"]) == ("pending", "minimax", identifier)
    assert list_known_stages(waiting) == STAGES
    run = await claim_run(conn, identifier)
    for stage in Stage:
        await save_stage(conn, run, stage, StageStatus.PROCESSING)
        working = await browser.get_json(f"{TALK}/status")
        assert (working["status"], working["current_stage"]) == ("processing", stage)
        # "progress.total && …" would show a stray 0.
        assert working["stages"]["refinement"]["progress"] is None
        await save_stage(conn, run, stage, StageStatus.COMPLETED)
    await finish_run(conn, run, moments=1, clips=1)
    ended = await browser.get_json(f"{TALK}/status")
    assert (ended["status"], ended["current_stage"], ended["stages"]["generation"]["status"]) == (
        "completed",
        "refinement",
        "completed",
    )
    assert isinstance(ended["total_duration_seconds"], float)
    assert ended["coarse_moments"] == [{"id": "7621a017eec7482f", "title": "One", "start_time": 1.0, "end_time": 35.5}]


async def test_what_the_page_chose_is_what_the_run_is_asked_for(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    chosen = START.replace('"temperature":0.7', '"temperature":0.2').replace(
        '"refinement_prompt":null', '"refinement_prompt":"Shorter"'
    )
    started = await browser.send("POST", f"{TALK}/start", chosen)
    asked = (await claim_run(conn, started.json()["request_id"])).request
    assert (asked.generation_model, asked.refinement_model) == ("minimax", "minimax")
    assert (asked.generation_temperature, asked.refinement_temperature) == (0.2, 0.2)
    assert (asked.refinement_prompt, asked.override_existing_moments) == ("Shorter", False)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ('"min_moment_length":60', '"min_moment_length":5'),
        ('"max_moments":10', '"max_moments":1000'),
        ('"min_moments":3', '"min_moments":3.5'),
        ('"min_moments":3', '"min_moments":null'),
        ('"temperature":0.7', '"temperature":NaN'),
        ('"max_moment_length":120', '"max_moment_length":50'),
    ],
)
async def test_numbers_that_a_form_lets_through_are_refused_in_one_text(
    browser: Browser, conn: Connection, text: str, instead: str
) -> None:
    await make_video(conn, identifier="demo-talk")
    for path, body in ((f"{TALK}/start", START), ("/api/generate_moments", URL)):
        answer = await browser.send("POST", path, body.replace(text, instead))
        assert answer.status_code == 422
        assert text.split('"')[1] in detail_of(answer)
    assert await RunRepository(conn).list_active_runs(1) == []


async def test_a_video_has_one_run_at_a_time(browser: Browser, conn: Connection) -> None:
    missing = await browser.send("POST", f"{TALK}/start", START)
    assert (missing.status_code, detail_of(missing)) == (404, "Video not found: demo-talk")
    await make_video(conn, identifier="demo-talk", cloud_url="file:///library/videos/demo-talk.webm")
    assert (await browser.send("POST", f"{TALK}/start", START)).status_code == 200
    again = await browser.send("POST", f"{TALK}/start", START)
    assert (again.status_code, detail_of(again)) == (409, "Pipeline already running for video 'demo-talk'")


async def test_a_run_is_cancelled_although_no_worker_has_it(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    nothing = await browser.send("POST", f"{TALK}/cancel")
    assert (nothing.status_code, detail_of(nothing)) == (400, "No pipeline running for video 'demo-talk'")
    await browser.send("POST", f"{TALK}/start", START)
    cancelled = await browser.send("POST", f"{TALK}/cancel")
    assert (cancelled.status_code, cancelled.json()) == (
        200,
        {"message": "Cancellation requested", "video_id": "demo-talk"},
    )
    status = await browser.get_json(f"{TALK}/status")
    assert (status["status"], status["error_message"]) == ("cancelled", None)
    assert isinstance(status["completed_at"], float)
    assert {stage["status"] for stage in status["stages"].values()} == {"pending"}


async def test_a_run_that_failed_says_where_and_why(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    run = await claim_run(conn, await enqueue_run(conn, "demo-talk"))
    await save_stage(conn, run, Stage.DOWNLOAD, StageStatus.SKIPPED, skip_reason="Video already exists locally")
    await fail_run(conn, run, Stage.AUDIO, "The video has no audio")
    status = await browser.get_json(f"{TALK}/status")
    assert (status["status"], status["error_stage"], status["error_message"]) == (
        "failed",
        "audio",
        "The video has no audio",
    )
    stages = status["stages"]
    assert (stages["audio"]["status"], stages["audio"]["error"]) == ("failed", "The video has no audio")
    assert (stages["download"]["skipped"], stages["download"]["skip_reason"]) == (True, "Video already exists locally")
    assert (stages["transcript"]["status"], stages["transcript"]["error"]) == ("pending", None)


async def test_the_page_of_urls_gets_what_it_reads(browser: Browser, conn: Connection) -> None:
    answer = await browser.send("POST", "/api/generate_moments", URL)
    assert answer.status_code == 200
    reports: dict[str, Any] = answer.json()
    assert re.fullmatch(r"pipeline:my-video-file:\d{13}", reports.pop("request_id"))
    assert reports == {
        "video_id": "my-video-file",
        "status": "queued",
        "message": "Pipeline started successfully",
        "download_required": True,
        "source_url": "https://cdn.example/a/My Video_File.MP4?x=1",
        "is_cached": False,
    }
    status = await browser.get_json("/api/pipeline/my-video-file/status")
    assert (status["status"], list_known_stages(status)) == ("pending", STAGES)
    assert await browser.get_json("/api/videos/my-video-file/moments") == []
    (active,) = await RunRepository(conn).list_active_runs(2)
    assert (await claim_run(conn, active.identifier)).request.override_existing_moments is True


@pytest.mark.parametrize(
    "url", ["ftp://cdn.example/film.mp4", "https://cdn.example", "https://cdn.example/", "gs:///film.mp4", "film.mp4"]
)
async def test_an_address_of_no_video_file_is_one_text(browser: Browser, url: str) -> None:
    answer = await browser.send("POST", "/api/generate_moments", f'{{"video_url":"{url}"}}')
    assert answer.status_code == 422
    assert detail_of(answer).startswith("video_url")


async def test_the_history_has_every_run_newest_first(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    assert await browser.get_json(f"{TALK}/history") == {"video_id": "demo-talk", "runs": [], "count": 0}
    await make_demo(conn, tmp_path / "library")
    run = await claim_run(conn, await enqueue_run(conn, "demo-talk"))
    await finish_run(conn, run)
    await enqueue_run(conn, "demo-talk", RunType.CLIPS)
    history = await browser.get_json(f"{TALK}/history")
    assert [(run["type"], run["status"]) for run in history["runs"]] == [
        ("clips_only", "pending"),
        ("full", "completed"),
        ("full", "completed"),
    ]
    assert history["count"] == 3
    assert history["runs"][1] == await browser.get_json(f"{TALK}/status")


async def test_who_has_really_answered_is_reported(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    run = await claim_run(conn, await enqueue_run(conn, "demo-talk"))
    await save_stage(conn, run, Stage.TRANSCRIPT, StageStatus.COMPLETED, result={"service": "whisper-tiny.en"})
    await save_stage(conn, run, Stage.GENERATION, StageStatus.COMPLETED, result={"model": "local", "moments": 3})
    await ClaimedRunRepository(conn).release_stage(run)
    status = await browser.get_json(f"{TALK}/status")
    assert (status["generation_model"], status["answered_by"]) == (
        "qwen3_vl_fp8",
        {"transcript": "whisper-tiny.en", "generation": "local"},
    )
