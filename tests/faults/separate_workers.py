"""A server and workers for different kinds of work, each with a data folder of its own, over one store."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from app.embedded import EmbeddedValkey
from app.models.stages import STAGE_TABLE, Stage, WorkKind
from tests.ai.model_server import ModelServer, Received, Reply
from tests.end_to_end.frontend import Answer, Frontend
from tests.media.movies import make_movie
from tests.programs import Program
from tests.serving import serving
from tests.sites import Site, ranging

MEDIA, SPEECH = "download,audio,clips", "transcription"
MODELS = ",".join(kind for kind in WorkKind if kind not in f"{MEDIA},{SPEECH}".split(","))
STAGES_OF = {
    kinds: tuple(stage for stage, row in STAGE_TABLE.items() if row.kind in kinds.split(","))
    for kinds in (MEDIA, SPEECH, MODELS)
}
_PATIENCE_SECONDS = 120.0
_VIDEO_SECONDS = 30
_WORDS = [{"word": f"word{second}", "start": second, "end": second + 0.8} for second in range(_VIDEO_SECONDS - 1)]
TRANSCRIPT = {"text": " ".join(str(word["word"]) for word in _WORDS), "words": _WORDS, "segments": []}
_FOUND = [{"start_time": 2, "end_time": 12.8, "title": "One"}, {"start_time": 15, "end_time": 26.8, "title": "Two"}]
_REFINED = {"start_time": 4, "end_time": 10.8}


class KindWorker(Program):
    """`python -m app worker --stages KINDS` with a data folder of its own, which is empty at first."""

    def __init__(self, kinds: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.kinds = kinds
        folder.mkdir()
        self._log = folder / "log"
        arguments = ("worker", "--stages", kinds, "--concurrency", "2")
        values = {**settings, "data_dir": folder / "data"}
        super().__init__("app", *arguments, folder=folder, log=self._log, settings=values)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def completed(self) -> list[Stage]:
        """Return the stages that it has completed, by its log."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [Stage(line["stage"]) for line in lines if line.get("status") == "completed" and "stage" in line]


class SeparateWorkers:
    """A server, a web site with a video, services for speech and for moments, and one worker for each of `STAGES_OF`,
    to which `replace` adds others."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], site: Site, models: ModelServer, frontend: Frontend
    ) -> None:
        self.site = site
        self.models = models
        self.workers: list[KindWorker] = []
        self._folder = folder
        self._settings = settings
        self._frontend = frontend
        self._frontend.configure("parakeet", base_url=models.url, kind="transcription")
        self._frontend.configure("qwen3_vl_fp8", base_url=models.url)
        for kinds in STAGES_OF:
            self.start(kinds)

    def start(self, kinds: str) -> KindWorker:
        worker = KindWorker(kinds, self._folder / f"machine-{len(self.workers)}", self._settings)
        self.workers.append(worker)
        return worker

    def start_run(self) -> str:
        """Start a run over the video of the site, as the page of URLs does, and return the video's identifier."""
        body = {
            "video_url": f"{self.site.url}/video.mp4",
            "model": "qwen3_vl_fp8",
            "min_moment_length": 10,
            "max_moment_length": 30,
            "min_moments": 1,
            "include_video_refinement": True,
        }
        video: str = self._frontend.press("/api/generate_moments", json.dumps(body))["video_id"]
        return video

    def finish_run(self, video: str) -> Answer:
        """Wait for the end of a run and return its last status."""
        return self._frontend.poll_run(video)[-1]

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            logs = "\n".join(worker.log for worker in self.workers)
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{logs}"
            time.sleep(0.05)

    def replace(self, kinds: str) -> None:
        """Kill the worker for these kinds, start one on another machine, and have the look find the stage soon."""
        *_, killed = (worker for worker in self.workers if worker.kinds == kinds)
        killed.kill()
        self.start(kinds)
        with psycopg.connect(str(self._settings["database_url"]), autocommit=True) as conn:
            conn.execute(
                """
                UPDATE pipeline.runs
                SET heartbeat_at = heartbeat_at - interval '1 hour', notified_at = notified_at - interval '1 hour'
                WHERE owner LIKE %s
                """,
                (f"%-{killed.pid}-%",),
            )

    def count_completed(self) -> Counter[tuple[str, Stage]]:
        """Return how often the workers of which kinds have completed which stage."""
        return Counter((worker.kinds, stage) for worker in self.workers for stage in worker.completed())

    def dismiss(self) -> None:
        for worker in self.workers:
            worker.kill()


@contextmanager
def separate_workers(folder: Path, database_url: str, storage_url: str) -> Iterator[SeparateWorkers]:
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        site = stack.enter_context(Site())
        site.answers["/video.mp4"] = ranging(make_movie(folder / "video.mp4", _VIDEO_SECONDS).read_bytes())
        models = stack.enter_context(ModelServer())
        models.transcript(TRANSCRIPT)
        models.answer(_answer)
        settings = {
            "database_url": database_url,
            "redis_url": valkey.url,
            "storage_url": storage_url,
            "allowed_hosts": site.host,
        }
        (folder / "server").mkdir()
        server = stack.enter_context(serving(folder / "server", data_dir=folder / "server" / "data", **settings))
        frontend = stack.enter_context(Frontend(server.url))
        workers = SeparateWorkers(folder, settings, site, models, frontend)
        stack.callback(workers.dismiss)
        yield workers


def _answer(asked: Received) -> Reply:
    """Find and refine moments."""
    return Reply(json.dumps(_FOUND if '"title"' in asked.prompt else _REFINED))
