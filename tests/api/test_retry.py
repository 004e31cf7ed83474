"""`POST /api/pipeline/{id}/retry`: an ended run again, with its request, and without what is still there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from httpx import AsyncClient, Response

from app.database import Connection
from app.models.runs import ClaimedRun, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage, list_stages
from app.repositories.stages import ModelAnswerRepository
from app.storage import audio_folder_key
from tests.factories import make_clip, make_generation_config, make_moment, make_run, make_transcript, make_video
from tests.runs import begin_run, claim_run, enqueue_run, fail_run, finish_run, save_stage

MOMENT = "7621a017eec7482f"
ASKED = RunRequest(generation_model="minimax", generation_prompt="The best jokes", max_moments=4)


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def retry(client: AsyncClient, query: str = "") -> Response:
    return await client.post(f"/api/pipeline/talk/retry{query}")


async def take_retry(client: AsyncClient, conn: Connection, query: str = "") -> ClaimedRun:
    answer = await retry(client, query)
    assert answer.status_code == 200, answer.text
    return await claim_run(conn, answer.json()["request_id"])


async def end_in(
    conn: Connection, stage: Stage, status: RunStatus = RunStatus.FAILED, run_type: RunType = RunType.FULL
) -> ClaimedRun:
    """A run that has done all before a stage, and then ended."""
    run = await begin_run(conn, run_type=run_type, request=ASKED)
    for each in list_stages(run_type):
        if each is stage:
            break
        await save_stage(conn, run, each, StageStatus.COMPLETED)
    await save_stage(conn, run, stage, StageStatus.FAILED)
    error_stage = None if status is RunStatus.CANCELLED else stage.value
    await finish_run(conn, run, status, error_stage=error_stage)
    return run


def add_file(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"bytes")
    return path.as_uri()


async def make_talk(conn: Connection, folder: Path) -> None:
    """A video with everything that a run makes before it refines."""
    video = await make_video(conn, identifier="talk", cloud_url=add_file(folder / "media" / "talk.mp4"))
    add_file(folder / "media" / audio_folder_key("talk") / "talk.wav")
    await make_transcript(conn, video_id=video.id)
    config = await make_generation_config(conn)
    moment = await make_moment(conn, video_id=video.id, identifier=MOMENT, generation_config_id=config.id)
    await make_clip(conn, moment)


def skipped(run: ClaimedRun, *stages: Stage) -> dict[Stage, StageRecord]:
    return dict.fromkeys(stages, StageRecord(StageStatus.SKIPPED, skip_reason=f"Done by {run.identifier}"))


async def test_a_failed_run_is_tried_again_as_it_was_asked_for(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    failed = await begin_run(conn, request=ASKED)
    await fail_run(conn, failed, Stage.DOWNLOAD, "No such file")
    answer = await retry(client)
    identifier = answer.json()["request_id"]
    assert identifier != failed.identifier
    assert answer.json() == {
        "request_id": identifier,
        "video_id": "talk",
        "status": "queued",
        "message": "Pipeline started successfully",
    }
    run = await claim_run(conn, identifier)
    assert (run.type, run.request, run.stages) == (RunType.FULL, ASKED, {})
    assert (await client.get("/api/pipeline/talk/status")).json()["request_id"] == identifier


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.PARTIAL])
async def test_what_a_run_has_finished_is_not_paid_for_again(
    client: AsyncClient, conn: Connection, tmp_path: Path, status: RunStatus
) -> None:
    await make_talk(conn, tmp_path)
    ended = await end_in(conn, Stage.REFINEMENT, status)
    run = await take_retry(client, conn)
    assert run.stages == skipped(ended, *(stage for stage in Stage if stage is not Stage.REFINEMENT))
    reports = (await client.get("/api/pipeline/talk/status")).json()["stages"]
    assert (reports["transcript"]["status"], reports["transcript"]["skip_reason"]) == (
        "skipped",
        f"Done by {ended.identifier}",
    )


async def test_a_retry_has_the_answers_that_models_gave_to_the_run(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    ended, question, answer = await begin_run(conn, request=ASKED), {"config_id": 1}, {"model": "scripted"}
    await ModelAnswerRepository(conn).store_answer(ended.id, question, answer)
    await fail_run(conn, ended, Stage.CLIPS, "No room")
    run = await take_retry(client, conn)
    assert await ModelAnswerRepository(conn).find_answer(run.id, question) == answer


async def test_of_a_run_of_which_a_part_failed_that_part_is_done_again(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    run = await begin_run(conn, request=ASKED)
    for stage in Stage:
        await save_stage(conn, run, stage, StageStatus.COMPLETED)
    await finish_run(conn, run, RunStatus.PARTIAL, error_stage="clips", error_message="1 of 5 failed")
    again = await take_retry(client, conn)
    assert again.stages == skipped(
        run, Stage.DOWNLOAD, Stage.AUDIO, Stage.AUDIO_UPLOAD, Stage.TRANSCRIPT, Stage.GENERATION
    )


async def test_only_stages_before_the_end_count_as_finished(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    ended = await end_in(conn, Stage.TRANSCRIPT)
    run = await take_retry(client, conn)
    assert run.stages == skipped(ended, Stage.DOWNLOAD, Stage.AUDIO, Stage.AUDIO_UPLOAD)


async def test_what_is_not_there_any_more_is_made_again(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    ended = await end_in(conn, Stage.REFINEMENT)
    await conn.execute("DELETE FROM clips")
    await conn.execute("DELETE FROM transcripts")
    (tmp_path / "media" / "talk.mp4").unlink()
    await conn.execute("UPDATE videos SET source_url = 'https://cdn.example/talk.mp4'")
    run = await take_retry(client, conn)
    assert run.stages.items() >= skipped(ended, Stage.AUDIO, Stage.AUDIO_UPLOAD, Stage.GENERATION).items()
    assert run.stages.keys().isdisjoint({Stage.DOWNLOAD, Stage.TRANSCRIPT, Stage.CLIPS, Stage.CLIP_UPLOAD})


async def test_moments_of_a_user_are_not_those_that_a_run_has_found(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    ended = await end_in(conn, Stage.CLIPS)
    await conn.execute("UPDATE moments SET generation_config_id = NULL")
    run = await take_retry(client, conn)
    assert run.stages == skipped(ended, Stage.DOWNLOAD, Stage.AUDIO, Stage.AUDIO_UPLOAD, Stage.TRANSCRIPT)


async def test_a_run_that_has_completed_is_simply_run_again(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    run = await begin_run(conn, request=ASKED)
    for stage in Stage:
        await save_stage(conn, run, stage, StageStatus.COMPLETED)
    await finish_run(conn, run)
    again = await take_retry(client, conn)
    assert (again.request, again.stages) == (ASKED, {})


async def test_without_a_name_the_newest_full_run_is_meant(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    now = datetime.now(UTC).replace(tzinfo=None)
    for number, ago in ((1, 3), (2, 1), (3, 2)):
        asked, started_at = RunRequest(max_moments=number), now - timedelta(hours=ago)
        await finish_run(conn, await begin_run(conn, request=asked, started_at=started_at), RunStatus.CANCELLED)
    await finish_run(conn, await begin_run(conn, run_type=RunType.AUDIO, request=RunRequest(max_moments=9)))
    assert (await take_retry(client, conn)).request.max_moments == 2


async def test_any_run_of_the_video_can_be_named(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    run = await begin_run(conn, run_type=RunType.REFINEMENT, subject=MOMENT, request=ASKED)
    await fail_run(conn, run, Stage.REFINEMENT, "No answer")
    await finish_run(conn, await begin_run(conn))
    again = await take_retry(client, conn, f"?request_id={run.identifier}")
    assert (again.type, again.subject, again.request) == (RunType.REFINEMENT, MOMENT, ASKED)


async def test_a_run_of_another_video_is_404(client: AsyncClient, conn: Connection) -> None:
    for video in ("talk", "other"):
        await make_video(conn, identifier=video)
    other = await begin_run(conn, "other")
    await finish_run(conn, other)
    for name in (other.identifier, "nothing", "a%00b"):
        answer = await retry(client, f"?request_id={name}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Run not found"})


async def test_where_nothing_has_ended_there_is_nothing_to_retry(client: AsyncClient, conn: Connection) -> None:
    answer = await retry(client)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found: talk"})
    video = await make_video(conn, identifier="talk")
    await make_run(conn, video_id=video.id, status="completed")  # nobody knows what it was asked for
    answer = await retry(client)
    assert (answer.status_code, answer.json()) == (400, {"detail": "No run to retry for video 'talk'"})


async def test_what_still_runs_is_in_its_own_way(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    await finish_run(conn, await begin_run(conn))
    identifier = await enqueue_run(conn)
    for query in ("", f"?request_id={identifier}"):
        answer = await retry(client, query)
        assert (answer.status_code, answer.json()) == (
            409,
            {"detail": "Pipeline already running for video 'talk'"},
        )
