"""What the frontend asks for, how often, and when it stops asking."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.models.runs import RunStatus
from app.models.stages import RunType
from tests.contract.browser import Browser, check_moment
from tests.contract.conftest import browsing
from tests.contract.demo import make_demo
from tests.factories import make_moment, make_run, make_video
from tests.runs import claim_run, enqueue_run, finish_run

MOMENT = "7621a017eec7482f"
JOBS = {
    "generation-status": (RunType.MOMENTS, ""),
    f"refinement-status/{MOMENT}": (RunType.REFINEMENT, MOMENT),
    "clip-extraction-status": (RunType.CLIPS, ""),
    "audio-extraction-status": (RunType.AUDIO, ""),
    "transcription-status": (RunType.TRANSCRIPT, ""),
}
STOPS_A_RUN = {"completed", "failed", "cancelled", "not_running", "never_run"}

# What the frontend reads of each answer, and what it takes it for.
READ: dict[str, dict[str, type | tuple[type, ...]]] = {
    "/api/videos/{id}": {"id": str, "filename": str, "title": str, "has_audio": bool, "has_transcript": bool},
    "/api/videos/{id}/transcript": {"segment_timestamps": list},
    "/api/videos/{id}/moments/{moment}/video-availability": {
        "available": bool,
        "model_supports_video": bool,
        "warning": (str, type(None)),
        "clip_duration": (float, type(None)),
    },
    "/api/videos/{id}/generation-status": {"status": str},
    "/api/videos/{id}/refinement-status/{moment}": {"status": str},
    "/api/videos/{id}/clip-extraction-status": {"status": str, "processed_moments": int, "failed_moments": int},
    "/api/videos/{id}/audio-extraction-status": {"status": str, "error": str},
    "/api/videos/{id}/transcription-status": {"status": str, "error": str},
    "/api/pipeline/{id}/status": {
        "status": str,
        "request_id": str,
        "video_id": str,
        "model": str,
        "current_stage": (str, type(None)),
        "error_message": (str, type(None)),
        "total_duration_seconds": (float, type(None)),
        "stages": dict,
    },
    "/api/pipeline/{id}/history": {"runs": list, "count": int},
}


@pytest.mark.parametrize("path", READ)
async def test_an_answer_has_what_is_read_of_it(browser: Browser, conn: Connection, tmp_path: Path, path: str) -> None:
    await make_demo(conn, tmp_path / "library", "demo talk")
    answer = await browser.get_json(path.format(id="demo talk", moment=MOMENT))
    for name, kind in READ[path].items():
        assert isinstance(answer[name], kind), name


async def test_the_page_of_all_videos_and_the_player_find_all_they_show(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    await make_demo(conn, tmp_path / "library", "demo talk")
    (card,) = await browser.get_json("/api/videos")
    assert (await browser.load(card["thumbnail_url"])).headers["Content-Type"] == "image/jpeg"
    assert (await browser.load(f"/api/videos/{card['id']}/thumbnail")).headers["Content-Type"] == "image/jpeg"
    for moment in await browser.get_json(f"/api/videos/{card['id']}/moments"):
        check_moment(moment)
    video_file = await browser.load(f"/api/videos/{card['id']}/stream", Range="bytes=0-")
    assert (video_file.status_code, video_file.headers["Content-Type"]) == (206, "video/mp4")


async def test_a_moment_that_was_added_is_in_the_list_that_is_asked_for_next(
    browser: Browser, conn: Connection
) -> None:
    await make_video(conn, identifier="demo talk")
    added = await browser.send("POST", "/api/videos/demo talk/moments", '{"start_time":0,"end_time":5,"title":"Intro"}')
    assert added.status_code == 201
    assert await browser.get_json("/api/videos/demo talk/moments") == [added.json()]


@pytest.mark.parametrize("end", [RunStatus.COMPLETED, RunStatus.FAILED])
@pytest.mark.parametrize("status", JOBS)
async def test_a_job_is_asked_for_until_it_has_ended(
    browser: Browser, conn: Connection, status: str, end: RunStatus
) -> None:
    video = await make_video(conn, identifier="demo talk")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    path, (run_type, subject) = f"/api/videos/demo talk/{status}", JOBS[status]
    assert await browser.get_json(path) == {"status": "not_started", "started_at": None}
    identifier = await enqueue_run(conn, "demo talk", run_type, subject=subject)
    assert (await browser.get_json(path))["status"] == "processing"
    run = await claim_run(conn, identifier)
    assert (await browser.get_json(path))["status"] == "processing"
    await finish_run(conn, run, end)
    answer = await browser.get_json(path)
    assert answer["status"] == end
    assert isinstance(answer["started_at"], str)
    assert ("error" in answer) == (status in ("audio-extraction-status", "transcription-status"))
    assert "total_moments" not in answer


@pytest.mark.parametrize(
    ("stored", "is_asked_again"), [("running", True), ("completed", False), ("failed", False), ("cancelled", False)]
)
async def test_a_run_is_asked_for_until_it_has_ended(
    browser: Browser, conn: Connection, stored: str, is_asked_again: bool
) -> None:
    video = await make_video(conn, identifier="demo talk")
    await make_run(conn, video_id=video.id, status=stored)
    status = (await browser.get_json("/api/pipeline/demo talk/status"))["status"]
    assert (status not in STOPS_A_RUN) == is_asked_again


@pytest.mark.parametrize("identifier", ["demo talk", "nobody at all"])
async def test_what_never_ran_stops_the_asking(browser: Browser, conn: Connection, identifier: str) -> None:
    await make_video(conn, identifier="demo talk")
    answer = await browser.get_json(f"/api/pipeline/{identifier}/status")
    assert answer == {
        "request_id": "",
        "video_id": identifier,
        "status": "never_run",
        "model": "",
        "generation_model": "",
        "refinement_model": "",
        "started_at": 0.0,
        "completed_at": None,
        "total_duration_seconds": None,
        "current_stage": None,
        "stages": {},
        "error_stage": None,
        "error_message": None,
        "coarse_moments": [],
        "refined_moments": [],
    }


async def test_requests_that_arrive_in_pairs_get_the_same_answers(
    own_database_url: str, redis: Redis, tmp_path: Path
) -> None:
    settings = Settings(
        log_level="error",
        database_url=own_database_url,
        data_dir=tmp_path / "data",
        library_dirs=(tmp_path / "library",),
    )
    async with open_async_connection(settings) as conn:
        await make_demo(conn, tmp_path / "library", "demo talk")
    async with browsing(settings) as browser:
        for path in (*(path.format(id="demo talk", moment=MOMENT) for path in READ), "/api/videos"):
            first, second = await asyncio.gather(browser.get_json(path), browser.get_json(path))
            assert first == second, path
