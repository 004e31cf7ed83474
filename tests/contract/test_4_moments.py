"""Moments: their form, the rules for new ones, and what a refinement can use."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from app.database import Connection
from app.models import Video
from app.repositories.runs import RunRepository
from tests.contract.browser import Browser, check_moment, group_cards
from tests.contract.demo import make_demo
from tests.factories import make_generation_config, make_moment, make_prompt, make_transcript, make_video
from tests.runs import claim_run, finish_run

TALK = "/api/videos/demo-talk"
MOMENTS = f"{TALK}/moments"


@pytest.fixture
async def talk(conn: Connection) -> Video:
    """The video `demo-talk`, of 300 seconds."""
    return await make_video(conn, identifier="demo-talk", duration_seconds=300.0)


async def add(browser: Browser, start: float, end: float, title: str = "Intro") -> tuple[int, Any]:
    answer = await browser.send("POST", MOMENTS, json.dumps({"start_time": start, "end_time": end, "title": title}))
    return answer.status_code, answer.json()


async def test_a_moment_that_a_model_found_has_its_form(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    await make_demo(conn, tmp_path / "library")
    found, _ = await browser.get_json(MOMENTS)
    assert found == {
        "id": "7621a017eec7482f",
        "start_time": 1.0,
        "end_time": 35.5,
        "title": "One",
        "is_refined": False,
        "parent_id": None,
        "model_name": "served/models/some-model",
        "generation_config": {
            "model": "minimax",
            "temperature": 0.7,
            "user_prompt": "Find the best moments.",
            "min_moment_length": 30,
            "max_moment_length": 90,
            "min_moments": 1,
            "max_moments": 10,
            "operation_type": "generation",
        },
    }


async def test_refined_moments_are_tabs_of_the_card_they_came_from(browser: Browser, conn: Connection) -> None:
    video = await make_video(conn, identifier="demo-talk")
    first = await make_moment(conn, video_id=video.id, start_time=50, end_time=60)
    second = await make_moment(conn, video_id=video.id, start_time=10, end_time=20)
    refined = [
        (await make_moment(conn, video_id=video.id, is_refined=True, parent_id=parent.id)).identifier
        for parent in (second, first, second)
    ]
    cards = group_cards(await browser.get_json(MOMENTS))
    assert list(cards.items()) == [(first.identifier, [refined[1]]), (second.identifier, [refined[0], refined[2]])]


@pytest.mark.parametrize("unknown", ["temperature", "min_moment_length", "max_moments", "user_prompt", "top_p"])
async def test_what_is_not_known_of_a_config_is_left_out(
    browser: Browser, conn: Connection, talk: Video, unknown: str
) -> None:
    prompt = await make_prompt(conn, user_prompt="")
    config = await make_generation_config(conn, prompt_id=prompt.id, temperature=None)
    await make_moment(conn, video_id=talk.id, generation_config_id=config.id)
    (moment,) = await browser.get_json(MOMENTS)
    assert unknown not in moment["generation_config"]
    check_moment(moment)


async def test_no_moments_are_an_empty_list(browser: Browser, talk: Video) -> None:
    assert await browser.get_json(MOMENTS) == []


async def test_a_moment_added_by_hand_has_its_form(browser: Browser, talk: Video) -> None:
    answer = await browser.send("POST", MOMENTS, '{"start_time":0,"end_time":5,"title":"Intro"}')
    assert answer.status_code == 201
    moment = answer.json()
    assert re.fullmatch("[0-9a-f]{16}", moment["id"])
    assert moment == {
        "id": moment["id"],
        "start_time": 0.0,
        "end_time": 5.0,
        "title": "Intro",
        "is_refined": False,
        "parent_id": None,
        "model_name": None,
        "generation_config": None,
    }


@pytest.mark.parametrize(
    "others",
    [
        '"id":"e9c23de1ab019551"',
        '"is_refined":true,"parent_id":"7621a017eec7482f"',
        '"model_name":"x","generation_config":{"model":"x"}',
        '"anything":[{}]',
    ],
)
async def test_other_fields_of_a_new_moment_have_no_effect(browser: Browser, talk: Video, others: str) -> None:
    body = f'{{"start_time":"0","end_time":"5.5","title":"Intro",{others}}}'
    moment = (await browser.send("POST", MOMENTS, body)).json()
    assert moment["id"] != "e9c23de1ab019551"
    del moment["id"]
    assert moment == {
        "start_time": 0.0,
        "end_time": 5.5,
        "title": "Intro",
        "is_refined": False,
        "parent_id": None,
        "model_name": None,
        "generation_config": None,
    }


async def test_equal_times_in_two_videos_get_two_ids(browser: Browser, conn: Connection, talk: Video) -> None:
    await make_video(conn, identifier="copy")
    body = '{"start_time":0,"end_time":5,"title":"Intro"}'
    ids = [
        (await browser.send("POST", f"/api/videos/{name}/moments", body)).json()["id"] for name in ("demo-talk", "copy")
    ]
    assert len(set(ids)) == 2


# What each row breaks beside its own rule is a later one, so that the order of the rules is seen.
@pytest.mark.parametrize(
    ("start", "end", "title", "detail"),
    [
        (-1, 999, "  ", "title must be a non-empty string"),
        (5, 4, "", "title must be a non-empty string"),
        (-0.01, 999, "x", "start_time must be >= 0"),
        (-5, -6, "x", "start_time must be >= 0"),
        (400, 300.01, "x", "end_time must be <= video duration (300.0 seconds)"),
        (0, 1e308, "x", "end_time must be <= video duration (300.0 seconds)"),
        (12, 12, "x", "end_time must be greater than start_time"),
        (13, 12, "x", "end_time must be greater than start_time"),
        (5, 135, "x", "Moment duration (130.0 seconds) exceeds maximum of 120 seconds (2 minutes)"),
        (0, 11, "x", "Moment overlaps with existing moment 'Intro' (10.0s - 20.0s)"),
        (11, 12, "x", "Moment overlaps with existing moment 'Intro' (10.0s - 20.0s)"),
        (25, 31, "x", "Moment overlaps with existing moment 'Refined' (30.0s - 40.0s)"),
    ],
)
async def test_the_first_rule_that_is_broken_is_reported(
    browser: Browser, conn: Connection, talk: Video, start: float, end: float, title: str, detail: str
) -> None:
    intro = await make_moment(conn, video_id=talk.id, start_time=10, end_time=20, title="Intro")
    times = {"start_time": 30, "end_time": 40}
    await make_moment(conn, video_id=talk.id, title="Refined", is_refined=True, parent_id=intro.id, **times)
    assert await add(browser, start, end, title) == (400, {"detail": detail})
    assert len(await browser.get_json(MOMENTS)) == 2


@pytest.mark.parametrize(("start", "end"), [(0, 10), (20, 140), (180, 300)])
async def test_a_moment_may_touch_others_and_reach_each_limit(
    browser: Browser, conn: Connection, talk: Video, start: float, end: float
) -> None:
    await make_moment(conn, video_id=talk.id, start_time=10, end_time=20)
    assert (await add(browser, start, end))[0] == 201


async def test_a_title_is_kept_untrimmed(browser: Browser, talk: Video) -> None:
    assert (await add(browser, 0, 5, "  Intro "))[1]["title"] == "  Intro "


async def test_moments_of_no_video_are_404(browser: Browser) -> None:
    assert await add(browser, 0, 5) == (404, {"detail": "Video not found"})
    assert (await browser.get(MOMENTS)).json() == {"detail": "Video not found"}


async def test_availability_of_a_clip_has_its_form(browser: Browser, conn: Connection, tmp_path: Path) -> None:
    demo = await make_demo(conn, tmp_path / "library")
    path = f"{MOMENTS}/{demo.coarse.identifier}/video-availability"
    answer = await browser.get_json(path)
    clip = answer.pop("clip_url")
    assert answer == {
        "available": True,
        "clip_duration": pytest.approx(1.12),
        "transcript_duration": pytest.approx(1.12),
        "duration_match": True,
        "warning": None,
        "model_supports_video": True,
    }
    assert (await browser.load(clip)).headers["Content-Type"] == "video/mp4"


async def test_availability_without_a_clip_says_so(browser: Browser, conn: Connection, talk: Video) -> None:
    await make_transcript(conn, video_id=talk.id)
    moment = await make_moment(conn, video_id=talk.id, start_time=0, end_time=5)
    answer = await browser.get_json(f"{MOMENTS}/{moment.identifier}/video-availability")
    assert answer["warning"].startswith("Video clip not available.")
    nothing = {"available": False, "clip_url": None, "clip_duration": None, "duration_match": False}
    assert {name: answer[name] for name in nothing} == nothing


async def test_a_clip_of_another_length_than_its_words_is_warned_of(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    demo = await make_demo(conn, tmp_path / "library")
    await conn.execute("UPDATE clips SET start_time = 0, end_time = 63.5")
    answer = await browser.get_json(f"{MOMENTS}/{demo.coarse.identifier}/video-availability")
    assert (answer["available"], answer["duration_match"]) == (True, False)
    assert answer["warning"] == "Duration mismatch: clip=63.50s, transcript=1.12s (diff=62.38s)"


@pytest.mark.parametrize("path", ["moments/{}/video-availability", "refinement-status/{}"])
async def test_a_moment_of_another_video_is_404(browser: Browser, conn: Connection, talk: Video, path: str) -> None:
    other = (await make_moment(conn)).identifier
    answer = await browser.get(f"/api/videos/demo-talk/{path.format(other)}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Moment not found"})


async def test_statuses_of_generation_and_refinement_tell_of_what_is_stored(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    demo = await make_demo(conn, tmp_path / "library")
    for path in ("generation-status", f"refinement-status/{demo.coarse.identifier}"):
        answer = await browser.get_json(f"/api/videos/demo-talk/{path}")
        assert answer.keys() == {"status", "started_at"}
        assert answer["status"] == "completed"
        assert float(answer["started_at"]) > 0
    untouched = await browser.get_json(f"/api/videos/demo-talk/refinement-status/{demo.refined.identifier}")
    assert untouched == {"status": "not_started", "started_at": None}


GENERATE = (
    '{"user_prompt":"The best jokes","min_moment_length":60,"max_moment_length":600,"min_moments":1,'
    '"max_moments":10,"model":"qwen3_vl_fp8","temperature":0.7}'
)
REFINE = '{"user_prompt":"Shorter","model":"qwen3_vl_fp8","temperature":0.7,"include_video":false}'


@pytest.mark.parametrize(
    ("button", "body", "status", "answered", "busy"),
    [
        (
            "generate-moments",
            GENERATE,
            "generation-status",
            {"message": "Moment generation started", "video_id": "demo-talk"},
            "Moment generation already in progress for this video",
        ),
        (
            "moments/7621a017eec7482f/refine",
            REFINE,
            "refinement-status/7621a017eec7482f",
            {
                "message": "Moment refinement started",
                "video_id": "demo-talk",
                "moment_id": "7621a017eec7482f",
                "include_video": False,
            },
            "Moment refinement already in progress",
        ),
    ],
    ids=["generate", "refine"],
)
async def test_a_dialog_starts_its_job_and_is_notified_when_it_has_ended(
    browser: Browser,
    conn: Connection,
    tmp_path: Path,
    button: str,
    body: str,
    status: str,
    answered: dict[str, Any],
    busy: str,
) -> None:
    await make_demo(conn, tmp_path / "library")
    started = await browser.send("POST", f"{TALK}/{button}", body)
    assert (started.status_code, started.json()) == (200, answered)
    assert (await browser.get_json(f"{TALK}/{status}"))["status"] == "processing"
    again = await browser.send("POST", f"{TALK}/{button}", body)
    assert (again.status_code, again.json()) == (409, {"detail": busy})
    (active,) = await RunRepository(conn).list_active_runs(2)
    run = await claim_run(conn, active.identifier)
    prompt = run.request.generation_prompt or run.request.refinement_prompt
    assert prompt in ("The best jokes", "Shorter")
    await finish_run(conn, run)
    assert (await browser.get_json(f"{TALK}/{status}"))["status"] == "completed"


@pytest.mark.parametrize("button", ["generate-moments", "moments/7621a017eec7482f/refine"])
async def test_what_a_job_needs_is_said_in_order(
    browser: Browser, conn: Connection, tmp_path: Path, button: str
) -> None:
    body = GENERATE if button == "generate-moments" else REFINE
    path = f"{TALK}/{button}"
    assert status_and_body(await browser.send("POST", path, body)) == (404, {"detail": "Video not found"})
    await make_demo(conn, tmp_path / "library")
    await conn.execute("DELETE FROM transcripts")
    no_transcript = {"detail": "Transcript not found. Please generate transcript first."}
    assert status_and_body(await browser.send("POST", path, body)) == (400, no_transcript)
    (tmp_path / "library" / "audios" / "demo-talk.wav").unlink()
    no_audio = {"detail": "Audio file not found. Please process audio first."}
    assert status_and_body(await browser.send("POST", path, body)) == (400, no_audio)


async def test_a_refinement_with_the_clip_needs_a_model_that_can_be_shown_it(
    browser: Browser, conn: Connection, tmp_path: Path
) -> None:
    await make_demo(conn, tmp_path / "library")
    with_clip = REFINE.replace('"include_video":false', '"include_video":true')
    path = f"{TALK}/moments/7621a017eec7482f/refine"
    blind = await browser.send("POST", path, with_clip.replace("qwen3_vl_fp8", "minimax"))
    assert status_and_body(blind) == (
        400,
        {"detail": "Model 'minimax' does not support video. Use 'qwen3_vl_fp8' for video refinement."},
    )
    of_refined = await browser.send("POST", f"{TALK}/moments/b02a2cdfa5275bb8/refine", with_clip)
    assert status_and_body(of_refined) == (
        400,
        {"detail": "Video clip not available. Extract clips first or disable video refinement."},
    )
    assert (await browser.send("POST", path, with_clip)).json()["include_video"] is True


def status_and_body(answer: Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()
