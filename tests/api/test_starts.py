"""What each button of the frontend starts, and why it may not."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from redis.asyncio import Redis

from app.ai.registry import ModelConfig, ModelRegistry
from app.core.config import Settings
from app.core.doorbell import RUN_STREAM, close_doorbell, init_doorbell
from app.core.redis import close_redis, init_redis
from app.database import Connection, close_db, connect, init_db
from app.main import create_app
from app.models.run import ClaimedRun, RunRequest, RunType, Stage
from app.repositories.active_runs import ActiveRunRepository
from app.storage import audio_folder, clip_folder
from tests.api.conftest import open_client
from tests.conftest import Statements
from tests.factories import make_clip, make_moment, make_transcript, make_video
from tests.runs import accept_run, begin_run, claim_run, fail_run, finish_run

MOMENT = "7621a017eec7482f"
START = {
    "model": "minimax",
    "temperature": 0.7,
    "min_moment_length": 60,
    "max_moment_length": 120,
    "min_moments": 3,
    "max_moments": 10,
    "refinement_parallel_workers": 2,
    "include_video_refinement": True,
    "generation_prompt": None,
    "refinement_prompt": None,
    "override_existing_moments": False,
    "override_existing_refinement": False,
}
GENERATE = {
    "user_prompt": "The best jokes",
    "min_moment_length": 60,
    "max_moment_length": 600,
    "min_moments": 1,
    "max_moments": 10,
    "model": "qwen3_vl_fp8",
    "temperature": 0.7,
}
REFINE = {"user_prompt": "Shorter", "model": "qwen3_vl_fp8", "temperature": 0.3, "include_video": False}
JOBS: dict[str, dict[str, Any] | None] = {
    "process-audio": None,
    "process-transcript": None,
    "generate-moments": GENERATE,
    f"moments/{MOMENT}/refine": REFINE,
    "extract-clips": {"override_existing": True},
}
NO_AUDIO = "Audio file not found. Please process audio first."
NO_TRANSCRIPT = "Transcript not found. Please generate transcript first."
BUSY = "Pipeline already running for video 'talk'"


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def start(client: AsyncClient, job: str, body: dict[str, Any] | None, video: str = "talk") -> Response:
    path = f"/api/videos/{video}/{job}"
    return await (client.post(path) if body is None else client.post(path, json=body))


async def start_full(client: AsyncClient, video: str = "talk", **changes: Any) -> Response:
    return await client.post(f"/api/pipeline/{video}/start", json=START | changes)


def told(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


async def find_run(conn: Connection) -> ClaimedRun:
    """Take the one run that is active, as a worker would."""
    (run,) = await ActiveRunRepository(conn).list_active(10)
    return await claim_run(conn, run.identifier)


def add_audio(folder: Path) -> None:
    path = folder / "media" / audio_folder("talk") / "talk.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")


async def make_talk(conn: Connection, folder: Path) -> None:
    """A video of which all jobs but those that make its sound and its transcript can start."""
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    await make_transcript(conn, video_id=video.id)
    add_audio(folder)


@pytest.mark.parametrize(("job", "body"), JOBS.items())
async def test_a_video_that_does_not_exist_is_404(client: AsyncClient, job: str, body: dict[str, Any] | None) -> None:
    for video in ("nobody", "a%00b"):
        assert told(await start(client, job, body, video)) == (404, "Video not found")


async def test_the_sound_is_extracted_once(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="talk")
    answer = await start(client, "process-audio", None)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Audio processing started", "video_id": "talk"},
    )
    add_audio(tmp_path)
    assert told(await start(client, "process-audio", None)) == (
        409,
        "Audio processing already in progress for this video",
    )
    run = await find_run(conn)
    assert (run.video, run.type, run.subject) == ("talk", RunType.AUDIO, "")
    await finish_run(conn, run)
    assert told(await start(client, "process-audio", None)) == (400, "Audio file already exists for this video")


async def test_a_transcript_needs_sound_and_is_made_once(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    video = await make_video(conn, identifier="talk")
    assert told(await start(client, "process-transcript", None)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    answer = await start(client, "process-transcript", None)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Transcript generation started", "video_id": "talk"},
    )
    await make_transcript(conn, video_id=video.id)
    assert told(await start(client, "process-transcript", None)) == (
        409,
        "Transcript generation already in progress for this video",
    )
    run = await find_run(conn)
    assert (run.type, run.request.transcription_model) == (RunType.TRANSCRIPT, "parakeet")
    await finish_run(conn, run)
    assert told(await start(client, "process-transcript", None)) == (400, "Transcript already exists for this video")


async def test_moments_are_looked_for_in_a_transcript(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    video = await make_video(conn, identifier="talk")
    assert told(await start(client, "generate-moments", GENERATE)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    assert told(await start(client, "generate-moments", GENERATE)) == (400, NO_TRANSCRIPT)
    await make_transcript(conn, video_id=video.id)
    answer = await start(client, "generate-moments", GENERATE)
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Moment generation started", "video_id": "talk"},
    )
    assert told(await start(client, "generate-moments", GENERATE)) == (
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
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (
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


async def test_a_refinement_needs_its_moment_sound_and_a_transcript(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video = await make_video(conn, identifier="talk")
    other = await make_moment(conn)
    assert told(await start(client, f"moments/{other.identifier}/refine", REFINE)) == (404, "Moment not found")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, NO_AUDIO)
    add_audio(tmp_path)
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, NO_TRANSCRIPT)


async def test_a_refinement_with_the_clip_needs_a_model_that_sees_and_a_clip(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await make_talk(conn, tmp_path)
    path, with_clip = f"moments/{MOMENT}/refine", REFINE | {"include_video": True}
    assert told(await start(client, path, with_clip | {"model": "minimax"})) == (
        400,
        "Model 'minimax' does not support video. Use 'qwen3_vl_fp8' for video refinement.",
    )
    missing = (400, "Video clip not available. Extract clips first or disable video refinement.")
    assert told(await start(client, path, with_clip)) == missing
    file = tmp_path / "media" / clip_folder("talk") / f"{MOMENT}.mp4"
    moment = await make_moment(conn, identifier="1" * 16)
    clip = await make_clip(conn, moment, cloud_url=file.as_uri())
    await conn.execute(
        "UPDATE clips SET moment_id = (SELECT id FROM moments WHERE identifier = %s) WHERE id = %s", [MOMENT, clip.id]
    )
    assert told(await start(client, path, with_clip)) == missing  # its file is gone
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
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE)) == (400, reason)
    assert told(await start(client, "extract-clips", {"override_existing": True})) == (400, reason)
    await make_moment(conn, video_id=video.id, start_time=5, end_time=10)
    assert (await start(client, "extract-clips", {"override_existing": True})).status_code == 200


async def test_clips_are_cut_of_moments(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    assert told(await start(client, "extract-clips", {})) == (400, "No moments found for this video")
    await make_moment(conn, video_id=video.id)
    answer = await start(client, "extract-clips", {"override_existing": False})
    assert answer.json() == {"message": "Clip extraction started", "video_id": "talk"}
    assert told(await start(client, "extract-clips", {})) == (
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
        assert told(await start(client, job, None)) == (422, "The body is missing")


async def test_jobs_that_do_not_meet_run_together(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_talk(conn, tmp_path)
    for job in ("generate-moments", "extract-clips", f"moments/{MOMENT}/refine"):
        assert (await start(client, job, JOBS[job])).status_code == 200


@pytest.mark.parametrize(("job", "body"), JOBS.items())
async def test_no_job_starts_beside_a_pipeline(
    client: AsyncClient, conn: Connection, tmp_path: Path, job: str, body: dict[str, Any] | None
) -> None:
    await make_talk(conn, tmp_path)
    await accept_run(conn)
    assert told(await start(client, job, body)) == (409, BUSY)


async def test_a_pipeline_starts_with_what_was_asked(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_video(conn, identifier="talk")
    answer = await start_full(client, refinement_prompt="Shorter")
    assert answer.status_code == 200
    identifier = answer.json()["request_id"]
    assert answer.json() == {
        "request_id": identifier,
        "video_id": "talk",
        "status": "queued",
        "message": "Pipeline started successfully",
    }
    assert identifier.startswith("pipeline:talk:")
    assert told(await start_full(client)) == (409, BUSY)
    run = await find_run(conn)
    assert (run.identifier, run.type) == (identifier, RunType.FULL)
    assert run.request == RunRequest(
        generation_model="minimax",
        refinement_model="minimax",
        refinement_prompt="Shorter",
        override_existing_moments=False,
        override_existing_refinement=False,
        override_existing_clips=False,
    )


async def test_each_model_and_temperature_can_be_said_by_itself(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    mixed: dict[str, Any] = {"refinement_model": "qwen", "generation_temperature": 0, "temperature": 1.5}
    assert (await start_full(client, **mixed)).status_code == 200
    asked = (await find_run(conn)).request
    assert (asked.generation_model, asked.refinement_model) == ("minimax", "qwen")
    assert (asked.generation_temperature, asked.refinement_temperature) == (0, 1.5)


async def test_of_a_pipeline_nothing_need_be_said(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.post("/api/pipeline/talk/start", json={})).status_code == 200
    assert (await find_run(conn)).request == RunRequest()


async def test_a_pipeline_over_a_video_that_does_not_exist_is_404(client: AsyncClient) -> None:
    assert told(await start_full(client, "nobody")) == (404, "Video not found: nobody")
    assert told(await start_full(client, "a%00b")) == (404, "Video not found: a\0b")


async def test_a_pipeline_does_not_start_beside_a_job_and_says_beside_which(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await accept_run(conn, run_type=RunType.CLIPS)
    assert told(await start_full(client)) == (409, "Clip extraction already in progress for this video")


async def test_a_run_gets_an_identifier_of_its_own_where_that_of_its_millisecond_is_taken(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    await conn.execute(
        """
        INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
        SELECT 'pipeline:talk:' || ms, %(video)s, 'full', 'completed', now() AT TIME ZONE 'utc'
        FROM generate_series(%(from)s::bigint, %(from)s + 400) AS ms
        """,
        {"video": video.id, "from": int(time.time() * 1000)},
    )
    assert (await start_full(client)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"min_moment_length": None}, "min_moment_length must be a number, not null"),
        ({"max_moments": None}, "max_moments must be a whole number, not null"),
        ({"temperature": None}, "temperature must be a number, not null"),
        ({"min_moments": True}, "min_moments must be a whole number, not true"),
        ({"min_moment_length": 9.5}, "min_moment_length must be 10 or more, not 9.5"),
        ({"min_moment_length": 301}, "min_moment_length must be 300 or less, not 301"),
        ({"max_moment_length": 601}, "max_moment_length must be 600 or less, not 601"),
        ({"min_moments": 0}, "min_moments must be more than 0, not 0"),
        ({"min_moments": 51}, "min_moments must be 50 or less, not 51"),
        ({"max_moments": 101}, "max_moments must be 100 or less, not 101"),
        ({"refinement_parallel_workers": 6}, "refinement_parallel_workers must be 5 or less, not 6"),
        ({"temperature": 2.1}, "temperature must be 2 or less, not 2.1"),
        ({"refinement_temperature": -1}, "refinement_temperature must be 0 or more, not -1"),
        (
            {"min_moment_length": 100, "max_moment_length": 90},
            "min_moment_length must not be greater than max_moment_length",
        ),
        ({"min_moments": 5, "max_moments": 4}, "min_moments must not be greater than max_moments"),
        ({"generation_prompt": "a\0b"}, "generation_prompt must not hold the character U+0000"),
    ],
    ids=str,
)
async def test_what_no_pipeline_can_do_is_one_sentence(
    client: AsyncClient, conn: Connection, changes: dict[str, Any], detail: str
) -> None:
    await make_video(conn, identifier="talk")
    assert told(await start_full(client, **changes)) == (422, detail)
    assert await ActiveRunRepository(conn).list_active(1) == []


@pytest.mark.parametrize("field", ["model", "generation_model", "generation_prompt", "callback_url"])
async def test_half_a_surrogate_pair_is_refused(client: AsyncClient, conn: Connection, field: str) -> None:
    await make_video(conn, identifier="talk")
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/pipeline/talk/start", content=f'{{"{field}": "\\ud800"}}', headers=headers)
    assert told(answer) == (422, f"{field} must be text that UTF-8 can hold")


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
    assert told(await start(client, "generate-moments", crossed)) == (
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
    assert told(await start_full(client, model="x")) == unknown
    assert told(await start_full(client, refinement_model="x")) == unknown
    assert told(await start(client, "generate-moments", GENERATE | {"model": "x"})) == unknown
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE | {"model": "x"})) == unknown
    assert await ActiveRunRepository(conn).list_active(1) == []


async def test_a_model_that_is_added_can_be_used_and_one_that_only_transcribes_cannot(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    assert told(await start_full(client, model="parakeet")) == (422, "Model 'parakeet' can only transcribe")
    await ModelRegistry(redis).put("mine", ModelConfig("Mine"))
    assert (await start_full(client, model="mine")).status_code == 200


async def test_without_a_transcriber_a_transcript_is_503(
    client: AsyncClient, conn: Connection, redis: Redis, tmp_path: Path
) -> None:
    await make_video(conn, identifier="talk")
    add_audio(tmp_path)
    await ModelRegistry(redis).seed()
    await ModelRegistry(redis).delete("parakeet")
    answer = await start(client, "process-transcript", None)
    assert told(answer)[0] == 503
    assert told(answer)[1].startswith("Model 'parakeet' is not configured; there are: local, ")


async def test_without_redis_runs_are_accepted_all_the_same(app: FastAPI, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    settings = Settings(redis_url="redis://127.0.0.1:1/0")
    init_redis(settings)
    init_doorbell(settings)
    try:
        async with open_client(app) as client:
            assert told(await start_full(client, model="mine")) == (503, "Redis is not available")
            assert (await start_full(client)).status_code == 200
            assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    finally:
        await close_doorbell()
        await close_redis()


@pytest.fixture
async def doorbell(redis_url: str, redis: Redis) -> AsyncIterator[Redis]:
    init_doorbell(Settings(redis_url=redis_url))
    yield redis
    await close_doorbell()


async def test_workers_are_told_of_a_run(app: FastAPI, conn: Connection, doorbell: Redis) -> None:
    await make_video(conn, identifier="talk")
    async with open_client(app) as client:
        identifier = (await start_full(client)).json()["request_id"]
    assert identifier in str(await doorbell.xrange(RUN_STREAM))


CALLBACK = "https://hooks.example/run?id=1"


async def test_callbacks_are_off_without_a_secret(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert told(await start_full(client, callback_url=CALLBACK)) == (
        422,
        "callback_url: this server sends no callbacks, because CALLBACK_SECRET is not set",
    )
    assert (await start_full(client, callback_url=None)).status_code == 200


async def test_a_callback_goes_to_a_web_address(redis: Redis, conn: Connection, app: FastAPI) -> None:
    await make_video(conn, identifier="talk")
    app.state.settings = app.state.settings.model_copy(update={"callback_secret": "whsec_c2VjcmV0"})
    async with open_client(app) as client:
        for url in ("ftp://x/y", "https://", "x", "https://a b/", "https://a:b/", "https://ü.example/", "//x"):
            assert told(await start_full(client, callback_url=url)) == (
                422,
                "callback_url: must be an http:// or https:// address",
            )
        status, detail = told(await start_full(client, callback_url="http://10.0.0.1/run"))
        assert (status, detail.startswith("callback_url: the host of the URL is not a public one")) == (422, True)
        assert (await start_full(client, callback_url=CALLBACK)).status_code == 200
    assert (await find_run(conn)).request.callback_url == CALLBACK


async def test_of_fifty_starts_at_once_one_is_accepted(own_database_url: str, redis: Redis) -> None:
    settings = Settings(database_url=own_database_url, log_level="error")
    async with connect(settings) as conn:
        await make_video(conn, identifier="talk")
    await init_db(settings)
    try:
        async with open_client(create_app(settings)) as client:
            answers = await asyncio.gather(*(start_full(client) for _ in range(50)))
    finally:
        await close_db()
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 49]
    async with connect(settings) as conn:
        (run,) = await ActiveRunRepository(conn).list_active(100)
        cursor = await conn.execute("SELECT count(*) FROM pipeline_history")
        assert await cursor.fetchone() == (1,)
    (accepted,) = (answer for answer in answers if answer.status_code == 200)
    assert accepted.json()["request_id"] == run.identifier


async def test_nothing_runs_is_400(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    for video in ("talk", "nobody"):
        answer = await client.post(f"/api/pipeline/{video}/cancel")
        assert told(answer) == (400, f"No pipeline running for video '{video}'")


async def test_a_run_that_waits_is_cancelled_at_once(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    await start_full(client)
    answer = await client.post("/api/pipeline/talk/cancel")
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Cancellation requested", "video_id": "talk"},
    )
    assert (await client.get("/api/pipeline/talk/status")).json()["status"] == "cancelled"
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 400


async def test_the_worker_of_a_run_is_told_that_it_is_cancelled(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    assert (await client.get("/api/pipeline/talk/status")).json()["status"] == "processing"
    assert await redis.exists(f"pipeline:run:{run.identifier}:cancel")
    cursor = await conn.execute("SELECT is_cancelled FROM pipeline.work")
    assert await cursor.fetchone() == (True,)


async def test_all_that_runs_over_a_video_is_cancelled_and_nothing_else(client: AsyncClient, conn: Connection) -> None:
    for video in ("talk", "other"):
        await make_video(conn, identifier=video)
        await accept_run(conn, video, RunType.CLIPS)
        await accept_run(conn, video, RunType.MOMENTS)
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    assert {run.video for run in await ActiveRunRepository(conn).list_active(10)} == {"other"}


async def test_a_video_that_a_run_works_on_is_deleted_with_force_and_the_run_with_it(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await accept_run(conn)
    words = "Cannot delete video while pipeline is active (status: {}). Use force=true to delete anyway."
    assert told(await client.delete("/api/videos/talk")) == (400, words.format("pending"))
    await find_run(conn)
    assert told(await client.delete("/api/videos/talk")) == (400, words.format("processing"))
    assert (await client.delete("/api/videos/talk?force=true")).status_code == 200
    assert await ActiveRunRepository(conn).list_active(1) == []


async def test_a_run_over_a_video_of_which_only_a_part_is_deleted_with_force_is_cancelled(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await accept_run(conn, run_type=RunType.AUDIO)
    await fail_run(conn, await begin_run(conn, run_type=RunType.CLIPS), Stage.CLIPS, "No room")
    part = "/api/videos/talk?skip_local_video=true"
    assert (await client.delete(part)).status_code == 400
    assert (await client.delete(f"{part}&force=true")).status_code == 200
    assert (await client.get("/api/videos/talk")).status_code == 200
    assert await ActiveRunRepository(conn).list_active(1) == []


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
    assert told(await start_full(client)) == (400, f"{MISSING}and there is no URL to download it from")
    named = await client.post("/api/generate_moments", json={"video_id": "talk"})
    assert told(named) == (400, f"{MISSING}and there is no URL to download it from")
    assert told(await start(client, "process-audio", None)) == (400, f"{MISSING}so its audio cannot be extracted")
    assert told(await start(client, "extract-clips", {})) == (400, f"{MISSING}so no clips can be cut")
    assert await ActiveRunRepository(conn).list_active(1) == []
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
    assert told(await start(client, f"moments/{MOMENT}/refine", REFINE | {"include_video": True})) == (400, refused)
    assert (await start(client, f"moments/{MOMENT}/refine", REFINE)).status_code == 200


async def test_a_run_whose_video_file_is_gone_is_not_retried(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", duration_seconds=None)
    await fail_run(conn, await begin_run(conn), Stage.DOWNLOAD, "No file")
    refused = (400, f"{MISSING}and there is no URL to download it from")
    assert told(await client.post("/api/pipeline/talk/retry")) == refused
    (failed,) = (await client.get("/api/admin/pipeline/failed")).json()["runs"]
    again = await client.post(f"/api/admin/pipeline/failed/{failed['request_id']}/retry")
    assert told(again) == refused


async def test_nothing_is_started_that_needs_the_audio_of_a_video_without_any(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    film = tmp_path / "library" / "talk.mp4"
    film.parent.mkdir()
    film.write_bytes(b"a video")
    video = await make_video(conn, identifier="talk", cloud_url=film.as_uri(), video_codec="h264")
    assert told(await start(client, "process-audio", None)) == (400, "The video has no audio")
    assert told(await client.post("/api/pipeline/talk/start", json={})) == (400, "The video has no audio")
    await make_transcript(conn, video_id=video.id)
    assert (await client.post("/api/pipeline/talk/start", json={})).status_code == 200
