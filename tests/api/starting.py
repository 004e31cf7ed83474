"""The bodies that the frontend starts jobs and pipelines with, and a video that they can start over."""

from pathlib import Path
from typing import Any

from httpx import AsyncClient, Response

from app.database import Connection
from app.models.runs import ClaimedRun
from app.repositories.runs import RunRepository
from app.storage import audio_folder_key
from tests.factories import make_moment, make_transcript, make_video
from tests.runs import claim_run

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


async def start(client: AsyncClient, job: str, body: dict[str, Any] | None, video: str = "talk") -> Response:
    path = f"/api/videos/{video}/{job}"
    return await (client.post(path) if body is None else client.post(path, json=body))


async def start_full(client: AsyncClient, video: str = "talk", **changes: Any) -> Response:
    return await client.post(f"/api/pipeline/{video}/start", json=START | changes)


def outcome(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


async def find_run(conn: Connection) -> ClaimedRun:
    """Take the one run that is active, as a worker would."""
    (run,) = await RunRepository(conn).list_active_runs(10)
    return await claim_run(conn, run.identifier)


def add_audio(folder: Path) -> None:
    path = folder / "media" / audio_folder_key("talk") / "talk.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")


async def make_talk(conn: Connection, folder: Path) -> None:
    """A video of which all jobs but those that make its audio and its transcript can start."""
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)
    await make_transcript(conn, video_id=video.id)
    add_audio(folder)
