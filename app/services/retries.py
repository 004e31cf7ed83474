"""Running again what has ended, with the same request, and without paying again for what is still there."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from app.core.errors import FileMissing, NothingRuns, RunNotFound, VideoNotFound
from app.database import Database
from app.models.run import STAGES, RunStatus, Stage, StageRecord, StageStatus
from app.repositories import VideoRepository
from app.repositories.ended_runs import EndedRequest, EndedRunRepository, LeftBehind
from app.services.identifiers import findable
from app.services.starts import Starts
from app.storage import Storage, find_audio_file


@dataclass(frozen=True, slots=True)
class Retried:
    """The identifier of the new run, and of its video."""

    request_id: str
    video: str


class Retries:
    """Accepts ended runs again. Each raises `AlreadyRunning` too."""

    def __init__(self, database: Database, storage: Storage, starts: Starts) -> None:
        self._database = database
        self._storage = storage
        self._starts = starts

    async def retry(self, video: str, identifier: str | None = None) -> Retried:
        """Run one of the video's ended runs again: the one that is named, or the newest full one.

        Raises `VideoNotFound`, `RunNotFound`, and `NothingRuns` where no full run has ended.
        """
        async with self._database.connect() as conn:
            if await VideoRepository(conn).get_by_identifier(findable(video)) is None:
                raise VideoNotFound(video)
            named = None if identifier is None else findable(identifier)
            ended = await EndedRunRepository(conn).find(video=video, identifier=named)
        if ended is None:
            raise NothingRuns(f"No run to retry for video '{video}'") if identifier is None else RunNotFound
        return await self._run_again(ended)

    async def retry_failed(self, identifier: str) -> Retried:
        """Run a failed run again. Raises `RunNotFound`."""
        async with self._database.connect() as conn:
            ended = await EndedRunRepository(conn).find(identifier=findable(identifier))
        if ended is None or ended.status != RunStatus.FAILED:
            raise RunNotFound
        return await self._run_again(ended)

    async def _run_again(self, ended: EndedRequest) -> Retried:
        await self._starts.check_again(ended.video, ended.type, ended.request)
        stages = await self._list_done(ended)
        new = await self._starts.accept(
            ended.video, ended.type, ended.request, ended.subject, stages, retried=ended.identifier
        )
        return Retried(new, ended.video)

    async def _list_done(self, ended: EndedRequest) -> Mapping[Stage, StageRecord]:
        """Return the records of the stages that need not be done again."""
        finished = _finished_stages(ended)
        if not finished:
            return {}
        async with self._database.connect() as conn:
            left = await EndedRunRepository(conn).get_left_behind(ended.video)
        there = await self._find_results(ended.video, left) if left else frozenset()
        reason = f"Done by {ended.identifier}"
        return {stage: StageRecord(StageStatus.SKIPPED, skip_reason=reason) for stage in finished if stage in there}

    async def _find_results(self, video: str, left: LeftBehind) -> frozenset[Stage]:
        """Return the stages whose results a video has now."""
        has_audio = await self._is_there(find_audio_file(self._storage, video))
        there = {
            Stage.DOWNLOAD: await self._is_there(self._storage.stat(left.film_url)),
            Stage.AUDIO: has_audio,
            Stage.AUDIO_UPLOAD: has_audio,
            Stage.TRANSCRIPT: left.has_transcript,
            Stage.GENERATION: left.has_generated,
            Stage.CLIPS: left.has_all_clips,
            Stage.CLIP_UPLOAD: left.has_all_clips,
        }
        return frozenset(stage for stage, is_there in there.items() if is_there)

    @staticmethod
    async def _is_there(finding: Awaitable[object]) -> bool:
        try:
            await finding
        except FileMissing:
            return False
        return True


def _finished_stages(ended: EndedRequest) -> list[Stage]:
    """Return the stages before the one that the run ended in; none where it ended behind the last."""
    finished: list[Stage] = []
    for stage in STAGES[ended.type]:
        record = ended.stages.get(stage)
        if record is None or not record.is_done or record.is_undone or stage == ended.error_stage:
            return finished
        finished.append(stage)
    return []
