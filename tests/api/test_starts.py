"""What each button of the frontend starts, and why it may not."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis.asyncio import Redis

from app.ai.registry import ModelConfig, ModelRegistry
from app.database import Connection
from app.models.runs import RunRequest
from app.models.stages import RunType, Stage
from app.repositories.runs import RunRepository
from app.storage import clip_folder_key
from tests.api.conftest import open_client, without_redis
from tests.api.starting import (
    BUSY,
    GENERATE,
    JOBS,
    MOMENT,
    NO_AUDIO,
    NO_TRANSCRIPT,
    REFINE,
    add_audio,
    find_run,
    make_talk,
    outcome,
    start,
    start_full,
)
from tests.factories import make_clip, make_moment, make_transcript, make_video
from tests.runs import begin_run, enqueue_run, fail_run, finish_run


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


@pytest.mark.parametrize(("job", "body"), JOBS.items())
async def test_a_video_that_does_not_exist_is_404(client: AsyncClient, job: str, body: dict[str, Any] | None) -> None:
    for video in ("nobody", "a%00b"):
        assert outcome(await start(client, job, body, video)) == (404, "Video not found")


async def test_the_audio_is_extracted_once(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="talk")
    answer = await start(client, "process-audio", None)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Audio processing started", "video_id": "talk"},
    )
    add_audio(tmp_path)
    assert outcome(await start(client, "process-audio", None)) == (
        409,
        "Audio processing already in progress for this video",
    )
    run = await find_run(conn)
    assert (run.video, run.type, run.subject) == ("talk", RunType.AUDIO, "")
    await finish_run(conn, run)
    assert outcome(await start(client, "process-audio", None)) == (400, "Audio file already exists for this video")


async def test_a_transcript_needs_audio_and_is_made_once(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    video = await make_video(conn, identifier="talk")
    assert outcome(await start(client, "process-transcript", None)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    answer = await start(client, "process-transcript", None)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Transcript generation started", "video_id": "talk"},
    )
    await make_transcript(conn, video_id=video.id)
    assert outcome(await start(client, "process-transcript", None)) == (
        409,
        "Transcript generation already in progress for this video",
    )
    run = await find_run(conn)
    assert (run.type, run.request.transcription_model) == (RunType.TRANSCRIPT, "parakeet")
    await finish_run(conn, run)
    assert outcome(await start(client, "process-transcript", None)) == (400, "Transcript already exists for this video")


async def test_moments_are_looked_for_in_a_transcript(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    video = await make_video(conn, identifier="talk")
    assert outcome(await start(client, "generate-moments", GENERATE)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    assert outcome(await start(client, "generate-moments", GENERATE)) == (400, NO_TRANSCRIPT)
    await make_transcript(conn, video_id=video.id)
    answer = await start(client, "generate-moments", GENERATE)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Moment generation started", "video_id": "talk"},
    )
    assert outcome(await start(client, "generate-moments", GENERATE)) == (
        409,
        "Moment generation already in progress for this video",
    )
    run = await find_run(conn)
    assert run.type is RunType.MOMENTS
    assert run.request == RunRequest(
        generation_model="qwen3_vl_fp8",
        generation_temperature=0.7,
        generation_prompt="The best jokes",
        min_moment_length=60,
        max_moment_length=600,
        min_moments=1,
        max_moments=10,
    )


async def test_of_a_generation_nothing_need_be_said(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    assert (await start(client, "generate-moments", {"user_prompt": None})).status_code == 200
    asked = (await find_run(conn)).request
    assert (asked.generation_model, asked.generation_prompt, asked.max_moment_length) == ("minimax", "", 600)


async def test_a_moment_is_refined_with_what_was_asked(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    answer = await start(client, f"moments/{MOMENT}/refine", REFINE)
    assert answer.json() == {
        "message": "Moment refinement started",
        "video_id": "talk",
        "moment_id": MOMENT,
        "include_video": False,
    }
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (
        409,
        "Moment refinement already in progress",
    )
    run = await find_run(conn)
    assert (run.type, run.subject, run.request.refinement_prompt) == (RunType.REFINEMENT, MOMENT, "Shorter")
    assert (run.request.refinement_model, run.request.refinement_temperature) == ("qwen3_vl_fp8", 0.3)
    assert run.request.include_video_refinement is False


async def test_moments_of_one_video_are_refined_at_the_same_time(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video = await make_video(conn, identifier="talk")
    moments = [await make_moment(conn, video_id=video.id, start_time=10.0 * n, end_time=10.0 * n + 9) for n in (1, 2)]
    await make_transcript(conn, video_id=video.id)
    add_audio(tmp_path)
    for moment in moments:
        assert (await start(client, f"moments/{moment.identifier}/refine", REFINE)).status_code == 200


async def test_a_refinement_needs_its_moment_audio_and_a_transcript(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video = await make_video(conn, identifier="talk")
    other = await make_moment(conn)
    assert outcome(await start(client, f"moments/{other.identifier}/refine", REFINE)) == (404, "Moment not found")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, NO_TRANSCRIPT)


async def test_a_refinement_with_the_clip_needs_a_model_that_sees_and_a_clip(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    path, with_clip = f"moments/{MOMENT}/refine", REFINE | {"include_video": True}
    assert outcome(await start(client, path, with_clip | {"model": "minimax"})) == (
        400,
        "Model 'minimax' does not support video. Use 'qwen3_vl_fp8' for video refinement.",
    )
    missing = (400, "Video clip not available. Extract clips first or disable video refinement.")
    assert outcome(await start(client, path, with_clip)) == missing
    file = tmp_path / "media" / clip_folder_key("talk") / f"{MOMENT}.mp4"
    moment = await make_moment(conn, identifier="1" * 16)
    clip = await make_clip(conn, moment, cloud_url=file.as_uri())
    await conn.execute(
        "UPDATE clips SET moment_id = (SELECT id FROM moments WHERE identifier = %s) WHERE id = %s", [MOMENT, clip.id]
    )
    assert outcome(await start(client, path, with_clip)) == missing  # its file is gone
    file.parent.mkdir(parents=True)
    file.write_bytes(b"clip")
    assert (await start(client, path, with_clip)).json()["include_video"] is True
    assert (await find_run(conn)).request.include_video_refinement is True


async def test_a_moment_that_ends_after_its_video_is_neither_refined_nor_cut(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=20.0)
    await make_moment(conn, video_id=video.id, identifier=MOMENT, start_time=25, end_time=30)
    await make_transcript(conn, video_id=video.id)
    add_audio(tmp_path)
    reason = "The moment ends at 30.0 seconds, after the end of the video at 20.0 seconds"
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, reason)
    assert outcome(await start(client, "extract-clips", {"override_existing": True})) == (400, reason)
    await make_moment(conn, video_id=video.id, start_time=5, end_time=10)
    assert (await start(client, "extract-clips", {"override_existing": True})).status_code == 200


async def test_clips_are_cut_of_moments(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    assert outcome(await start(client, "extract-clips", {})) == (400, "No moments found for this video")
    await make_moment(conn, video_id=video.id)
    answer = await start(client, "extract-clips", {"override_existing": False})
    assert answer.json() == {"message": "Clip extraction started", "video_id": "talk"}
    assert outcome(await start(client, "extract-clips", {})) == (
        409,
        "Clip extraction already in progress for this video",
    )
    run = await find_run(conn)
    assert (run.type, run.request.override_existing_clips) == (RunType.CLIPS, False)
    await finish_run(conn, run)
    assert (await start(client, "extract-clips", {})).status_code == 200
    assert (await find_run(conn)).request.override_existing_clips is True


async def test_a_body_is_required_where_there_is_something_to_say(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    for job in ("extract-clips", "generate-moments", f"moments/{MOMENT}/refine"):
        assert outcome(await start(client, job, None)) == (422, "The body is missing")


async def test_jobs_that_do_not_meet_run_together(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    for job in ("generate-moments", "extract-clips", f"moments/{MOMENT}/refine"):
        assert (await start(client, job, JOBS[job])).status_code == 200


@pytest.mark.parametrize(("job", "body"), JOBS.items())
async def test_no_job_starts_beside_a_pipeline(
    client: AsyncClient, conn: Connection, tmp_path: Path, job: str, body: dict[str, Any] | None
) -> None:
    await make_talk(conn, tmp_path)
    await enqueue_run(conn)
    assert outcome(await start(client, job, body)) == (409, BUSY)


@pytest.mark.parametrize("text", ["3.5", "NaN", "Infinity", "1e999", '"x"'])
async def test_a_number_that_is_none_is_one_sentence(client: AsyncClient, conn: Connection, text: str) -> None:
    await make_video(conn, identifier="talk")
    for path, field in (("pipeline/talk/start", "min_moments"), ("videos/talk/generate-moments", "max_moments")):
        headers = {"Content-Type": "application/json"}
        answer = await client.post(f"/api/{path}", content=f'{{"{field}": {text}}}', headers=headers)
        assert answer.status_code == 422
        assert isinstance(answer.json()["detail"], str)


async def test_half_a_surrogate_is_422(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    headers = {"Content-Type": "application/json"}
    body = '{"user_prompt": "\\ud800"}'
    answer = await client.post("/api/videos/talk/generate-moments", content=body, headers=headers)
    assert answer.status_code == 422


async def test_a_generation_between_limits_that_cross_is_422(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    crossed = GENERATE | {"min_moment_length": 700}
    assert outcome(await start(client, "generate-moments", crossed)) == (
        422,
        "min_moment_length must not be greater than max_moment_length",
    )


async def test_an_unknown_model_is_503_and_names_those_there_are(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    unknown = (
        503,
        "Model 'x' is not configured; there are: local, minimax, parakeet, qwen, qwen3_omni, qwen3_vl_fp8",
    )
    assert outcome(await start_full(client, model="x")) == unknown
    assert outcome(await start_full(client, refinement_model="x")) == unknown
    assert outcome(await start(client, "generate-moments", GENERATE | {"model": "x"})) == unknown
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE | {"model": "x"})) == unknown
    assert await RunRepository(conn).list_active_runs(1) == []


async def test_a_model_that_is_added_can_be_used_and_one_that_only_transcribes_cannot(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    assert outcome(await start_full(client, model="parakeet")) == (422, "Model 'parakeet' can only transcribe")
    await ModelRegistry(redis).put_model("mine", ModelConfig("Mine"))
    assert (await start_full(client, model="mine")).status_code == 200


async def test_without_a_transcriber_a_transcript_is_503(
    client: AsyncClient, conn: Connection, redis: Redis, tmp_path: Path
) -> None:
    await make_video(conn, identifier="talk")
    add_audio(tmp_path)
    await ModelRegistry(redis).seed_defaults()
    await ModelRegistry(redis).delete_model("parakeet")
    answer = await start(client, "process-transcript", None)
    assert outcome(answer)[0] == 503
    assert outcome(answer)[1].startswith("Model 'parakeet' is not configured; there are: local, ")


async def test_without_redis_runs_are_accepted_all_the_same(app: FastAPI, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    async with open_client(without_redis(app)) as client:
        assert outcome(await start_full(client, model="mine")) == (503, "Redis is not available")
        assert (await start_full(client)).status_code == 200
        assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200


async def test_workers_get_a_message_of_a_run(app: FastAPI, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="talk")
    async with open_client(app) as client:
        identifier = (await start_full(client)).json()["request_id"]
    assert identifier in str(await redis.xrange("videomoments:stages:download"))


MISSING = "The video file is missing, "


@pytest.mark.parametrize("place", ["imported without a file", "library", "media"])
async def test_what_needs_the_file_of_a_video_that_has_none_is_refused_at_once(
    client: AsyncClient, conn: Connection, tmp_path: Path, place: str
) -> None:
    url = (tmp_path / ("media" if place == "media" else "library") / "videos" / "talk.mp4").as_uri()
    facts: dict[str, Any] = {}
    if place == "imported without a file":
        url, facts = "file:///elsewhere/videos/talk.mp4", {"duration_seconds": None}
    video = await make_video(conn, identifier="talk", cloud_url=url, **facts)
    await make_moment(conn, video_id=video.id)
    assert outcome(await start_full(client)) == (400, f"{MISSING}and there is no URL to download it from")
    named = await client.post("/api/generate_moments", json={"video_id": "talk"})
    assert outcome(named) == (400, f"{MISSING}and there is no URL to download it from")
    assert outcome(await start(client, "process-audio", None)) == (400, f"{MISSING}so its audio cannot be extracted")
    assert outcome(await start(client, "extract-clips", {})) == (400, f"{MISSING}so no clips can be cut")
    assert await RunRepository(conn).list_active_runs(1) == []
    await conn.execute("UPDATE videos SET source_url = 'https://cdn.example/talk.mp4'")
    assert (await start_full(client)).status_code == 200  # which downloads it


async def test_a_refinement_with_a_clip_that_cannot_be_cut_says_so(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video = await make_video(conn, identifier="talk", duration_seconds=None)
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    await make_transcript(conn, video_id=video.id)
    add_audio(tmp_path)
    refused = "Video clip not available, and the video file is missing. Disable video refinement."
    assert outcome(await start(client, f"moments/{MOMENT}/refine", REFINE | {"include_video": True})) == (400, refused)
    assert (await start(client, f"moments/{MOMENT}/refine", REFINE)).status_code == 200


async def test_a_run_whose_video_file_is_gone_is_not_retried(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=None)
    await fail_run(conn, await begin_run(conn), Stage.DOWNLOAD, "No file")
    refused = (400, f"{MISSING}and there is no URL to download it from")
    assert outcome(await client.post("/api/pipeline/talk/retry")) == refused
    (failed,) = (await client.get("/api/admin/pipeline/failed")).json()["runs"]
    again = await client.post(f"/api/admin/pipeline/failed/{failed['request_id']}/retry")
    assert outcome(again) == refused


async def test_nothing_is_started_that_needs_the_audio_of_a_video_without_any(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video_file = tmp_path / "library" / "talk.mp4"
    video_file.parent.mkdir()
    video_file.write_bytes(b"a video")
    video = await make_video(conn, identifier="talk", cloud_url=video_file.as_uri(), video_codec="h264")
    assert outcome(await start(client, "process-audio", None)) == (400, "The video has no audio")
    assert outcome(await client.post("/api/pipeline/talk/start", json={})) == (400, "The video has no audio")
    await make_transcript(conn, video_id=video.id)
    assert (await client.post("/api/pipeline/talk/start", json={})).status_code == 200
