"""Running again what has ended, with the same request, and without paying again for what is still there."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from app.core.errors import FileMissing, NothingRuns, RunNotFound, VideoNotFound
from app.database import Database
from app.models.run import RunStatus, StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, ExistingResults, Stage, list_stages
from app.repositories import VideoRepository
from app.repositories.ended_runs import EndedRequest, EndedRunRepository, StoredResults
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
            stored = await EndedRunRepository(conn).get_stored_results(ended.video)
        if stored is None:
            return {}
        existing = await self._find_results(ended.video, stored)
        return {
            stage: StageRecord(StageStatus.SKIPPED, skip_reason=f"Done by {ended.identifier}")
            for stage in finished
            if (has_results := STAGE_TABLE[stage].has_results) and has_results(existing)
        }

    async def _find_results(self, video: str, stored: StoredResults) -> ExistingResults:
        return ExistingResults(
            has_video_file=await self._is_there(self._storage.stat(stored.video_file_url)),
            has_audio=await self._is_there(find_audio_file(self._storage, video)),
            has_transcript=stored.has_transcript,
            has_moments=stored.has_moments,
            has_all_clips=stored.has_all_clips,
        )

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
    for stage in list_stages(ended.type):
        record = ended.stages.get(stage)
        if record is None or not record.is_done or record.is_undone or stage == ended.error_stage:
            return finished
        finished.append(stage)
    return []
