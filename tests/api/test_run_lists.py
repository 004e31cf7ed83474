"""`GET /api/pipeline/{id}/history` and `GET /api/pipeline/active`."""

import re
import time

import pytest
from httpx import AsyncClient
from psycopg.types.json import Jsonb

from app.database import Connection
from app.models.runs import StageStatus
from app.models.stages import RunType, Stage
from tests.api.test_run_status import STAGES, get_status
from tests.conftest import Statements
from tests.factories import make_run, make_video
from tests.runs import begin_run, enqueue_run, finish_run, save_stage


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def test_the_history_has_all_types_or_one(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_run(conn, video_id=video.id, identifier="imported", status="completed")
    full = await begin_run(conn)
    await finish_run(conn, full)
    audio = await enqueue_run(conn, run_type=RunType.AUDIO)
    refined = await enqueue_run(conn, run_type=RunType.REFINEMENT, subject="7621a017eec7482f")
    runs = (await client.get("/api/pipeline/talk/history")).json()["runs"]
    assert [(run["request_id"], run["type"], list(run["stages"])) for run in runs] == [
        (refined, "refinement_only", ["refinement"]),
        (audio, "audio_only", ["audio", "audio_upload"]),
        (full.identifier, "full", STAGES),
        ("imported", "full", []),
    ]
    assert [(run["moment_id"], run["generation_model"], run["refinement_model"]) for run in runs[:2]] == [
        ("7621a017eec7482f", "", "qwen3_vl_fp8"),
        (None, "", ""),
    ]
    of_type = (await client.get("/api/pipeline/talk/history?type=audio_only")).json()["runs"]
    assert [run["request_id"] for run in of_type] == [audio]
    assert (await client.get("/api/pipeline/talk/history?type=odd")).status_code == 422


async def test_a_page_of_one_type_leads_to_the_next_of_that_type(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    for _ in range(3):
        await finish_run(conn, await begin_run(conn))
        await finish_run(conn, await begin_run(conn, run_type=RunType.AUDIO))
    path, seen = "/api/pipeline/talk/history?type=audio_only&limit=2", list[str]()
    while path and len(seen) < 10:
        answer = await client.get(path)
        seen += [run["type"] for run in answer.json()["runs"]]
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
    assert seen == ["audio_only"] * 3


async def test_active_runs_are_listed_over_all_videos(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    for video in ("one", "two", "three"):
        await make_video(conn, identifier=video)
    await finish_run(conn, await begin_run(conn, "three"))
    working = await begin_run(conn, "one")
    await save_stage(conn, working, Stage.AUDIO, StageStatus.PROCESSING)
    waiting = await enqueue_run(conn, "two", RunType.REFINEMENT, subject="7621a017eec7482f")
    with statements:
        answer = (await client.get("/api/pipeline/active")).json()
    assert statements == 1
    for run in answer["runs"]:
        assert abs(run.pop("started_at") - time.time()) < 60
    assert answer == {
        "runs": [
            {
                "request_id": working.identifier,
                "video_id": "one",
                "type": "full",
                "moment_id": None,
                "status": "processing",
                "current_stage": "audio",
                "attempts": 1,
            },
            {
                "request_id": waiting,
                "video_id": "two",
                "type": "refinement_only",
                "moment_id": "7621a017eec7482f",
                "status": "pending",
                "current_stage": None,
                "attempts": 0,
            },
        ],
        "count": 2,
    }
    first = await client.get("/api/pipeline/active?limit=1")
    assert [run["video_id"] for run in first.json()["runs"]] == ["one"]
    link = re.fullmatch(r'<(.+)>; rel="next"', first.headers["Link"])
    assert link
    assert [run["video_id"] for run in (await client.get(link[1])).json()["runs"]] == ["two"]


@pytest.mark.parametrize(
    ("owner", "records", "status", "current_stage"),
    [
        (None, {"download": "skipped", "audio": "pending"}, "pending", None),
        ("worker", {"download": "skipped"}, "processing", None),
        (None, {"download": "skipped", "audio": "waiting"}, "processing", "audio"),
        (None, {"audio": "completed", "audio_upload": "completed"}, "processing", "audio_upload"),
        (None, {"transcript": "processing", "audio": "completed"}, "processing", "transcript"),
        (None, {"audio": "completed", "generation": "skipped", "clips": "pending"}, "processing", "audio"),
    ],
)
async def test_a_run_is_pending_until_its_first_stage_has_begun(
    client: AsyncClient,
    conn: Connection,
    owner: str | None,
    records: dict[str, str],
    status: str,
    current_stage: str | None,
) -> None:
    await make_video(conn, identifier="talk")
    await enqueue_run(conn)
    stages = {stage: {"status": text} for stage, text in records.items()}
    await conn.execute("UPDATE pipeline.runs SET owner = %s, stages = %s", (owner, Jsonb(stages)))
    (active,) = (await client.get("/api/pipeline/active")).json()["runs"]
    for answer in (active, await get_status(client)):
        assert (answer["status"], answer["current_stage"]) == (status, current_stage)
    refused = await client.delete("/api/videos/talk")
    assert f"(status: {status})" in refused.text
