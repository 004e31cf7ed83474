"""The checklist: what a server must keep to, so that the frontend runs on it as it is."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from psycopg_pool import PoolTimeout

from app.database import Connection, get_connection
from tests.contract.browser import Browser, check_moment, detail_of
from tests.contract.demo import make_demo
from tests.factories import make_generation_config, make_moment, make_run, make_transcript, make_video

TALK = "/api/videos/demo-talk"
RUN = "/api/pipeline/demo-talk/status"
GETS = (
    *("/api/videos", TALK, f"{TALK}/stream", f"{TALK}/thumbnail", f"{TALK}/moments", f"{TALK}/transcript", RUN),
    *(f"{TALK}/generation-status", f"{TALK}/refinement-status/7621a017eec7482f", f"{TALK}/clip-extraction-status"),
    *(f"{TALK}/audio-extraction-status", f"{TALK}/transcription-status"),
    f"{TALK}/moments/7621a017eec7482f/video-availability",
)
FAILURES = (RuntimeError("the reason"), PoolTimeout("the reason"))


def break_database(app: FastAPI, error: Exception) -> None:
    async def fail() -> AsyncIterator[Connection]:
        raise error
        yield

    app.dependency_overrides[get_connection] = fail


async def test_1_a_new_moment_is_taken_in_the_form_it_is_sent(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.send("POST", f"{TALK}/moments", '{"start_time":0,"end_time":5,"title":"Intro"}')
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("operation", "generation_model", "refinement_model"),
    [("generation", "minimax", ""), ("refinement", "", "minimax")],
)
async def test_1_the_status_of_a_run_names_its_model(
    browser: Browser, conn: Connection, operation: str, generation_model: str, refinement_model: str
) -> None:
    video = await make_video(conn, identifier="demo-talk")
    config = await make_generation_config(conn, model="minimax", operation_type=operation)
    await make_run(conn, video_id=video.id, generation_config_id=config.id)
    status = await browser.get_json(RUN)
    reports = (status["model"], status["generation_model"], status["refinement_model"])
    assert reports == ("minimax", generation_model, refinement_model)


@pytest.mark.parametrize("path", GETS)
async def test_3_what_is_not_there_is_one_short_text(browser: Browser, path: str) -> None:
    answer = await browser.get(path)
    if path in ("/api/videos", RUN):
        assert answer.status_code == 200
    else:
        assert (answer.status_code, detail_of(answer)) == (404, "Video not found")


@pytest.mark.parametrize("error", FAILURES, ids=["unexpected", "no connection"])
@pytest.mark.parametrize("path", GETS)
async def test_3_and_9_a_failure_can_be_read_and_is_one_short_text(
    app: FastAPI, browser: Browser, path: str, error: Exception
) -> None:
    break_database(app, error)
    answer = await browser.get(path)
    assert answer.status_code == (503 if isinstance(error, PoolTimeout) else 500)
    assert "the reason" not in detail_of(answer)


@pytest.mark.parametrize(
    "body",
    [
        *("", "null", "[]", "5", '"x"', "{}", "{", "[" * 5000, '{"start_time":' + "9" * 5000 + "}"),
        *('{"start_time":null,"end_time":null,"title":null}', '{"start_time":{},"end_time":[],"title":{}}'),
        '{"start_time":NaN,"end_time":Infinity,"title":"x"}',
        '{"start_time":1e999,"end_time":-1e999,"title":"x"}',
        *('{"start_time":0,"end_time":5,"title":"\\u0000"}', '{"start_time":0,"end_time":5,"title":"\\ud800"}'),
        '{"start_time":0,"end_time":5,"title":"' + "x" * 5000 + '"}',
    ],
    ids=range(16),
)
async def test_3_whatever_is_sent_the_refusal_is_one_short_text(browser: Browser, conn: Connection, body: str) -> None:
    await make_video(conn, identifier="demo-talk")
    answer = await browser.send("POST", f"{TALK}/moments", body)
    assert answer.status_code == 422
    assert detail_of(answer)


async def test_4_every_moment_can_be_shown_in_the_drawer(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    parameters = ("temperature", "top_p", "top_k", "min_moment_length", "max_moment_length", "min_moments")
    for start, unknown in enumerate(parameters):
        values = {"temperature": 0.0, "top_p": 0.5, "top_k": 1, "min_moment_length": 30.0, "min_moments": 1}
        config = await make_generation_config(conn, **(values | {unknown: None}))
        times = {"start_time": start, "end_time": start + 1}
        await make_moment(conn, video_id=video.id, generation_config_id=config.id, **times)
    await make_moment(conn, video_id=video.id)
    moments = await browser.get_json(f"{TALK}/moments")
    assert len(moments) == len(parameters) + 1
    for moment in moments:
        check_moment(moment)
    for moment, unknown in zip(moments, parameters, strict=False):
        assert unknown not in moment["generation_config"]
    assert moments[1]["generation_config"]["temperature"] == 0.0


@pytest.mark.parametrize("identifier", ["demo-talk", "Kevin Hart", "éa"])
async def test_5_a_thumbnail_is_a_path_of_this_server_that_leads_to_a_picture(
    browser: Browser, conn: Connection, tmp_path: Path, identifier: str
) -> None:
    await make_demo(conn, tmp_path / "library", identifier)
    (card,) = await browser.get_json("/api/videos")
    assert re.match("/[^/]", card["thumbnail_url"])
    for path in (card["thumbnail_url"], f"/api/videos/{identifier}/thumbnail"):
        answer = await browser.load(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")


async def test_5_no_thumbnail_is_null_and_404(browser: Browser, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk")
    assert (await browser.get_json(TALK))["thumbnail_url"] is None
    assert (await browser.load(f"{TALK}/thumbnail")).status_code == 404


async def test_6_a_video_file_seeks(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    await make_demo(conn, tmp_path / "library")
    whole = await browser.load(f"{TALK}/stream")
    size = len(whole.content)
    part = await browser.load(f"{TALK}/stream", Range=f"bytes={size // 2}-")
    assert (whole.status_code, part.status_code) == (200, 206)
    assert part.headers["Content-Range"] == f"bytes {size // 2}-{size - 1}/{size}"
    assert part.content == whole.content[size // 2 :]


async def test_7_captions_need_a_transcript_and_no_audio(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    assert (await browser.get(f"{TALK}/transcript")).status_code == 404
    await make_transcript(conn, video_id=video.id)
    (segment,) = (await browser.get_json(f"{TALK}/transcript"))["segment_timestamps"]
    assert (segment["text"], segment["start"], segment["end"]) == ("Hello there.", 0.0, 0.9)


async def test_8_a_run_has_its_stages_in_their_order_and_the_moments_there_are(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    await make_demo(conn, tmp_path / "library")
    status = await browser.get_json(RUN)
    stages = status.pop("stages")
    assert status == {
        "request_id": "pipeline:demo-talk:1795347063363",
        "video_id": "demo-talk",
        "type": "full",
        "moment_id": None,
        "status": "completed",
        "model": "minimax",
        "generation_model": "minimax",
        "refinement_model": "",
        "answered_by": {},
        "started_at": 1795345200.0,
        "completed_at": 1795345203.0,
        "total_duration_seconds": 3.0,
        "current_stage": "clips",
        "error_stage": None,
        "error_message": None,
        "coarse_moments": [{"id": "7621a017eec7482f", "title": "One", "start_time": 1.0, "end_time": 35.5}],
        "refined_moments": [{"id": "b02a2cdfa5275bb8", "title": "One", "start_time": 10.16, "end_time": 25.66}],
    }
    assert list(stages) == ["generation", "clips"]
    assert stages["generation"] == {
        "status": "completed",
        "started_at": None,
        "completed_at": None,
        "duration_seconds": None,
        "skipped": False,
        "skip_reason": None,
        "reason": None,
        "error": None,
        "progress": None,
    }


async def test_8_a_run_that_failed_says_where_and_why(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    error = {"error_stage": "transcript", "error_message": "The service does not answer"}
    await make_run(conn, video_id=video.id, status="failed", completed_at=datetime(2026, 2, 8, 13), **error)
    status = await browser.get_json(RUN)
    assert (status["status"], status["total_duration_seconds"]) == ("failed", None)
    assert {name: status[name] for name in error} == error
    assert (status["current_stage"], status["stages"]["transcript"]["status"]) == ("transcript", "failed")
    assert status["stages"]["transcript"]["error"] == "The service does not answer"


@pytest.mark.parametrize("identifier", ["nobody", "no body", "%00", "100%25", "é" * 200])
async def test_8_the_status_of_a_run_is_there_for_any_id(browser: Browser, identifier: str) -> None:
    answer = await browser.get_json(f"/api/pipeline/{identifier}/status")
    assert (answer["status"], answer["stages"]) == ("never_run", {})


async def test_8_the_history_of_runs_has_its_form(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    path = "/api/pipeline/demo-talk/history"
    assert await browser.get_json(path) == {"video_id": "demo-talk", "runs": [], "count": 0}
    await make_demo(conn, tmp_path / "library")
    answer = await browser.get_json(path)
    assert (answer["count"], answer["runs"]) == (1, [await browser.get_json(RUN)])


async def test_10_a_list_of_moments_does_not_repeat_the_complete_prompt(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    await make_demo(conn, tmp_path / "library")
    for moment in await browser.get_json(f"{TALK}/moments"):
        assert "complete_prompt" not in moment["generation_config"]
