"""`GET /api/pipeline/{id}/status` and `/history`."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.repositories import MomentRepository, RunRepository
from app.services.cursors import encode_cursor
from tests.conftest import Statements
from tests.factories import make_generation_config, make_moment, make_run, make_video


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


NOON = datetime(2026, 2, 8, 12)
NOON_SECONDS = 1770552000.0
NEVER_RUN = {
    "request_id": "",
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


async def get_status(client: AsyncClient, video: str = "talk") -> dict[str, Any]:
    answer = await client.get(f"/api/pipeline/{video}/status")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def make_talk(conn: Connection, **run: Any) -> int:
    video = await make_video(conn, identifier="talk")
    await make_run(conn, video_id=video.id, **run)
    return video.id


async def test_a_video_without_a_run_has_never_run_and_neither_has_one_that_does_not_exist(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    for video in ("talk", "nobody"):
        assert await get_status(client, video) == {**NEVER_RUN, "video_id": video}
    assert await get_status(client, "a%00b") == {**NEVER_RUN, "video_id": "a\0b"}


async def test_the_newest_run_is_reported_with_its_times_and_models(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    config = await make_generation_config(conn, model="minimax")
    video_id = await make_talk(conn, identifier="old", status="failed", started_at=NOON - timedelta(hours=1))
    ends = {"completed_at": NOON + timedelta(seconds=2.5), "duration_seconds": 2.25}
    await make_run(
        conn, video_id=video_id, identifier="new", status="completed", started_at=NOON,
        generation_config_id=config.id, **ends,
    )  # fmt: skip
    with statements:
        answer = await get_status(client)
    assert statements == 1
    assert answer == NEVER_RUN | {
        "request_id": "new",
        "video_id": "talk",
        "type": "full",
        "moment_id": None,
        "answered_by": {},
        "status": "completed",
        "model": "minimax",
        "generation_model": "minimax",
        "started_at": NOON_SECONDS,
        "completed_at": NOON_SECONDS + 2.5,
        "total_duration_seconds": 2.25,
    }


async def test_the_model_of_a_refinement_is_reported_as_that(client: AsyncClient, conn: Connection) -> None:
    config = await make_generation_config(conn, model="qwen3_vl_fp8", operation_type="refinement")
    await make_talk(conn, generation_config_id=config.id)
    answer = await get_status(client)
    assert (answer["model"], answer["generation_model"], answer["refinement_model"]) == (
        "qwen3_vl_fp8",
        "",
        "qwen3_vl_fp8",
    )


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("running", "processing"),
        ("completed", "completed"),
        ("partial", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("pending", "pending"),
        ("odd", "unknown"),
    ],
)
async def test_a_status_is_a_word_that_the_frontend_knows(
    client: AsyncClient, conn: Connection, stored: str, shown: str
) -> None:
    await make_talk(conn, status=stored)
    assert (await get_status(client))["status"] == shown


async def test_only_a_completed_run_has_a_duration_worked_out_where_it_was_not_stored(
    client: AsyncClient, conn: Connection
) -> None:
    video_id = await make_talk(conn, status="completed", started_at=NOON, completed_at=NOON + timedelta(seconds=9))
    assert (await get_status(client))["total_duration_seconds"] == 9.0
    times = {"started_at": NOON + timedelta(days=1), "duration_seconds": 5.0}
    await make_run(conn, video_id=video_id, status="failed", **times)
    assert (await get_status(client))["total_duration_seconds"] is None


async def test_a_failed_run_says_in_which_stage_and_why(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, status="failed", error_stage="clips", error_message="No room", total_moments_generated=3)
    answer = await get_status(client)
    assert (answer["current_stage"], answer["error_stage"], answer["error_message"]) == ("clips", "clips", "No room")
    assert list(answer["stages"]) == ["generation", "clips"]
    nothing = dict.fromkeys(("started_at", "completed_at", "duration_seconds", "skip_reason", "reason", "progress"))
    assert answer["stages"]["generation"] == {**nothing, "status": "completed", "skipped": False, "error": None}
    assert answer["stages"]["clips"] == {**nothing, "status": "failed", "skipped": False, "error": "No room"}


async def test_a_run_without_an_error_is_in_the_last_stage_that_is_known(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, status="completed", total_moments_generated=3, total_clips_created=2)
    answer = await get_status(client)
    assert (answer["current_stage"], list(answer["stages"])) == ("clips", ["generation", "clips"])


@pytest.mark.parametrize(
    ("moments", "clips", "stages"), [(3, 2, ["generation", "clips"]), (3, 0, ["generation"]), (None, 2, ["clips"])]
)
async def test_a_stage_that_made_something_has_completed(
    client: AsyncClient, conn: Connection, moments: int | None, clips: int, stages: list[str]
) -> None:
    await make_talk(conn, status="partial", total_moments_generated=moments, total_clips_created=clips)
    reports = (await get_status(client))["stages"]
    assert {name: stage["status"] for name, stage in reports.items()} == dict.fromkeys(stages, "completed")


async def test_a_stage_that_nobody_knows_is_no_stage(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn, status="failed", error_stage="scp_upload", error_message="Gone")
    answer = await get_status(client)
    assert (answer["current_stage"], answer["stages"], answer["error_stage"]) == (None, {}, "scp_upload")


async def test_the_moments_are_those_that_the_video_has_now(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    second = await make_moment(conn, video_id=video_id, title="Two", start_time=40.0, end_time=50.0)
    first = await make_moment(conn, video_id=video_id, title="One", start_time=1.0, end_time=35.5)
    refined = await make_moment(conn, video_id=video_id, title="“One”", parent_id=first.id, is_refined=True)
    again = await make_moment(conn, video_id=video_id, title="Two!", parent_id=second.id, is_refined=True)
    await MomentRepository(conn).update(refined.id, score=5)  # it is now the last in the table
    await make_moment(conn)
    answer = await get_status(client)
    assert answer["coarse_moments"] == [
        {"id": second.identifier, "title": "Two", "start_time": 40.0, "end_time": 50.0},
        {"id": first.identifier, "title": "One", "start_time": 1.0, "end_time": 35.5},
    ]
    assert answer["refined_moments"] == [
        {"id": refined.identifier, "title": "“One”", "start_time": 10.0, "end_time": 20.0},
        {"id": again.identifier, "title": "Two!", "start_time": 10.0, "end_time": 20.0},
    ]


async def test_without_runs_the_history_is_empty(client: AsyncClient, conn: Connection) -> None:
    for video in ("nobody", "a%00b"):
        answer = await client.get(f"/api/pipeline/{video}/history")
        assert answer.status_code == 200
        assert (answer.json()["runs"], answer.json()["count"]) == ([], 0)
        assert "Link" not in answer.headers


async def test_the_history_is_what_the_status_said_newest_first(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn, identifier="old", started_at=NOON)
    await make_run(conn)
    first = await get_status(client)
    await make_run(conn, video_id=video_id, identifier="new", started_at=NOON + timedelta(hours=1))
    second = await get_status(client)
    assert (await client.get("/api/pipeline/talk/history")).json() == {
        "video_id": "talk",
        "runs": [second, first],
        "count": 2,
    }


async def test_pages_of_the_history_together_have_each_run_once(client: AsyncClient, conn: Connection) -> None:
    video, made = await make_video(conn, identifier="a 100% talk"), []
    for hour in (2, 0, 1, 1, 0, 1, 0):
        started_at = NOON + timedelta(hours=hour)
        made.append(await make_run(conn, video_id=video.id, started_at=started_at))
    for run in reversed(made):  # so that the index has those that began together the other way round
        await RunRepository(conn).update(run.id, status="failed")
    order = [made[number].identifier for number in (0, 5, 3, 2, 6, 4, 1)]
    for limit in (1, 2, 3, 7):
        path = f"/api/pipeline/a 100%25 talk/history?limit={limit}"
        seen: list[str] = []
        while path and len(seen) <= len(made):
            answer = await client.get(path)
            assert answer.json()["count"] <= limit
            seen += [run["request_id"] for run in answer.json()["runs"]]
            link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
            path = link[1] if link else ""
        assert seen == order


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=99999999999999999999", "cursor=x"])
async def test_a_strange_page_is_422(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/pipeline/talk/history?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    "place",
    [None, [], ["x", 1], [1, 1], ["2026-02-08T12:00:00+01:00", 1], ["2026-02-08", 0], ["2026-02-08", 2**31]],
    ids=str,
)
async def test_a_place_that_no_history_gave_is_422(client: AsyncClient, place: Any) -> None:
    cursor = encode_cursor(["runs", "talk", None], place)
    answer = await client.get("/api/pipeline/talk/history", params={"cursor": cursor})
    assert (answer.status_code, answer.json()) == (422, {"detail": "cursor: is not one that an answer gave"})


async def test_a_cursor_of_another_video_is_422(client: AsyncClient) -> None:
    cursor = encode_cursor(["runs", "talk", None], ["2026-02-08T12:00:00", 1])
    answer = await client.get("/api/pipeline/other/history", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["detail"]) == (422, "cursor: belongs to another list or to other filters")
