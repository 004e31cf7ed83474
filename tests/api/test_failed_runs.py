"""`/api/admin/pipeline/failed`: runs that failed, why, and another try."""

import re
import time

import pytest
from httpx import AsyncClient

from app.core import masking
from app.database import Connection
from app.models.runs import ClaimedRun, RunRequest, RunStatus, StageStatus
from app.models.stages import RunType, Stage
from app.repositories.stages import ClaimedRunRepository
from tests.conftest import Statements
from tests.factories import make_run, make_transcript, make_video
from tests.runs import begin_run, claim_run, enqueue_run, fail_run, finish_run, save_stage

FAILED = "/api/admin/pipeline/failed"


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def make_failed(conn: Connection, video: str = "talk", raw: str | None = None) -> ClaimedRun:
    await make_video(conn, identifier=video)
    run = await begin_run(conn, video, request=RunRequest(generation_prompt="The best jokes"))
    if raw is not None:
        await ClaimedRunRepository(conn).store_unusable_answer(run, raw)
    await fail_run(conn, run, Stage.GENERATION, "The model's answer holds no moment")
    return run


async def test_what_failed_is_listed_with_its_reason_and_without_the_answer(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    run = await make_failed(conn, raw="[{")
    for video, status in (("done", RunStatus.COMPLETED), ("stopped", RunStatus.CANCELLED), ("part", RunStatus.PARTIAL)):
        await make_video(conn, identifier=video)
        await finish_run(conn, await begin_run(conn, video), status)
    imported = await make_video(conn)
    await make_run(conn, video_id=imported.id, status="failed")
    with statements:
        answer = (await client.get(FAILED)).json()
    assert statements == 1
    (found,) = answer["runs"]
    assert abs(found.pop("completed_at") - time.time()) < 60
    assert abs(found.pop("started_at") - time.time()) < 60
    assert (found, answer["count"]) == (
        {
            "request_id": run.identifier,
            "video_id": "talk",
            "type": "full",
            "moment_id": None,
            "error_stage": "generation",
            "error_message": "The model's answer holds no moment",
            "attempts": 1,
            "raw_answer_length": 2,
        },
        1,
    )


async def test_pages_have_each_failed_run_once_the_last_first(client: AsyncClient, conn: Connection) -> None:
    made = [(await make_failed(conn, f"talk-{number}")).identifier for number in range(5)]
    path, seen = f"{FAILED}?limit=2", list[str]()
    while path and len(seen) <= 5:
        answer = await client.get(path)
        assert answer.json()["count"] <= 2
        seen += [run["request_id"] for run in answer.json()["runs"]]
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
    assert seen == made[::-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=0", "cursor=x", "cursor=2147483648"])
async def test_a_strange_page_is_422(client: AsyncClient, query: str) -> None:
    assert (await client.get(f"{FAILED}?{query}")).status_code == 422


async def test_one_is_shown_with_its_request_and_what_the_model_answered(client: AsyncClient, conn: Connection) -> None:
    run = await make_failed(conn, raw='[{"start_time": 1,')
    answer = (await client.get(f"{FAILED}/{run.identifier}")).json()
    assert (answer["raw_answer"], answer["raw_answer_length"]) == ('[{"start_time": 1,', 18)
    assert answer["request"]["generation_prompt"] == "The best jokes"
    assert answer["error_message"] == "The model's answer holds no moment"


async def test_what_has_not_failed_is_404(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    running = await enqueue_run(conn)
    for identifier in (running, "nothing", "a%00b"):
        for answer in (
            await client.get(f"{FAILED}/{identifier}"),
            await client.post(f"{FAILED}/{identifier}/retry"),
        ):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Run not found"})
    await finish_run(conn, await claim_run(conn, running))
    assert (await client.post(f"{FAILED}/{running}/retry")).status_code == 404


async def test_a_failed_run_is_tried_again_without_what_is_there(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    run = await begin_run(conn)
    for stage in (Stage.DOWNLOAD, Stage.AUDIO, Stage.AUDIO_UPLOAD, Stage.TRANSCRIPT):
        await save_stage(conn, run, stage, StageStatus.COMPLETED)
    await fail_run(conn, run, Stage.GENERATION, "No answer")
    answer = await client.post(f"{FAILED}/{run.identifier}/retry")
    assert (answer.status_code, answer.json()["video_id"]) == (200, "talk")
    again = await claim_run(conn, answer.json()["request_id"])
    assert (again.type, list(again.stages)) == (RunType.FULL, [Stage.TRANSCRIPT])
    twice = await client.post(f"{FAILED}/{run.identifier}/retry")
    assert (twice.status_code, twice.json()["detail"]) == (409, "Pipeline already running for video 'talk'")


async def test_secrets_that_an_earlier_version_has_stored_are_not_shown(
    client: AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "Canary0123456789abcdef"
    await client.patch("/api/admin/models/qwen", json={"base_url": "http://localhost:1", "api_key": key})
    monkeypatch.setattr(masking, "_known_secrets", ())  # as in a process that has never used the model
    run = await make_failed(conn, raw=f'{{"sent": "{key}", "authorization": "Basic x", "at": "https://u:p@h/?sig=y"}}')
    url = "https://user:pass@cdn.example/talk.mp4?X-Goog-Signature=z"
    await conn.execute(
        "UPDATE pipeline.runs SET request = request || jsonb_build_object('video_url', %(url)s::text)", {"url": url}
    )
    await conn.execute("UPDATE pipeline_history SET error_message = 'Wrong: Bearer abc12345'")
    answer = (await client.get(f"{FAILED}/{run.identifier}")).json()
    assert answer["raw_answer"] == '{"sent": "…", "authorization": "…", "at": "https://…@h/?sig=…"}'
    assert answer["request"]["video_url"] == "https://…@cdn.example/talk.mp4?X-Goog-Signature=…"
    listed = (await client.get(FAILED)).json()["runs"][0]
    assert answer["error_message"] == listed["error_message"] == "Wrong: Bearer …"
    for path in ("/api/pipeline/talk/history", "/api/videos/talk/lineage"):
        shown = (await client.get(path)).json()["runs"][0]
        assert shown["error_message"] == "Wrong: Bearer …"
