"""What the React frontend does with a video, over real HTTP: literal bodies, and polls until there is an end."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.media.talks import Talk

Answer = dict[str, Any]

JOB_ENDS = ("completed", "failed")
RUN_ENDS = ("completed", "failed", "cancelled", "not_running", "never_run")
PATIENCE_SECONDS = 900.0
_SECONDS_BETWEEN_POLLS = 0.2


def rocket_body(min_length: int, max_length: int, min_moments: int = 3, *, override: bool = False) -> str:
    """What the rocket button sends, with lengths that somebody has typed, and both overrides checked or not."""
    override_text = str(override).lower()
    return (
        f'{{"model":"minimax","temperature":0.7,"min_moment_length":{min_length},"max_moment_length":{max_length},'
        f'"min_moments":{min_moments},"max_moments":10,"refinement_parallel_workers":2,'
        '"include_video_refinement":true,"generation_prompt":null,"refinement_prompt":null,'
        f'"override_existing_moments":{override_text},"override_existing_refinement":{override_text}}}'
    )


class Frontend:
    """A page that shows one library."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, headers={"Origin": "http://localhost:3005"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def is_answered(self) -> bool:
        try:
            return self._client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def upload(self, path: Path, name: str) -> str:
        """Send the file and return the identifier of the video."""
        with path.open("rb") as file:
            answer = self._client.post("/api/videos", files={"file": (name, file, "video/mp4")})
        assert answer.status_code == 201, answer.text
        identifier: str = answer.json()["id"]
        return identifier

    def load(self, path: str) -> httpx.Response:
        """Load what an `<img>` or a `<video>` shows."""
        answer = self._client.get(path, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return answer

    def get(self, path: str) -> Any:
        return self.load(path).json()

    def post(self, path: str, body: str | None = None) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._client.post(path, content=body, headers=headers)

    def press(self, path: str, body: str | None = None) -> Answer:
        """Start something, which must be accepted."""
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        started: Answer = answer.json()
        return started

    def configure(self, model: str, **changes: str) -> None:
        """Say where a model is served."""
        answer = self._client.patch(f"/api/admin/models/{model}", json=changes)
        assert answer.status_code == 200, answer.text

    def poll(self, path: str, ends: Collection[str]) -> list[Answer]:
        """Ask for a status until it is one of `ends`, and return all answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        answers: list[Answer] = []
        while True:
            answers.append(self.get(path))
            if answers[-1]["status"] in ends:
                return answers
            assert time.monotonic() < deadline, answers[-1]
            time.sleep(_SECONDS_BETWEEN_POLLS)

    def poll_run(self, video: str) -> list[Answer]:
        return self.poll(f"/api/pipeline/{video}/status", RUN_ENDS)

    def finish_job(self, path: str) -> Answer:
        """Wait until a job has succeeded, and return its last status."""
        last = self.poll(path, JOB_ENDS)[-1]
        assert last["status"] == "completed", last
        return last


@dataclass(frozen=True)
class Finished:
    """A run that has ended: the video it was over, what its start answered, and each status that was polled."""

    frontend: Frontend
    talk: Talk
    video: str
    started: Answer
    polls: list[Answer]

    @property
    def last(self) -> Answer:
        return self.polls[-1]

    def get(self, part: str) -> Any:
        """Return a part of the video: `moments`, `transcript`, `lineage` …"""
        return self.frontend.get(f"/api/videos/{self.video}/{part}")

    @property
    def originals(self) -> list[Answer]:
        return sorted((each for each in self.get("moments") if not each["is_refined"]), key=lambda x: x["start_time"])

    @property
    def refined(self) -> list[Answer]:
        return [each for each in self.get("moments") if each["is_refined"]]


def fly_rocket(
    frontend: Frontend, talk: Talk, min_length: int, max_length: int, min_moments: int = 3, name: str = "talk.mp4"
) -> Finished:
    """Upload a talk, press the rocket button, and wait for the end."""
    video = frontend.upload(talk.path, name)
    started = frontend.press(f"/api/pipeline/{video}/start", rocket_body(min_length, max_length, min_moments))
    return Finished(frontend, talk, video, started, frontend.poll_run(video))
