"""Runs: their status for clients, cancelling them, and failed runs."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from redis.asyncio import Redis

from app.ai.registry import is_local_model_name
from app.core.errors import FileMissing, NoMatchingRun, RunNotFound, VideoNotFound, require_found
from app.core.masking import mask_values
from app.core.text import is_valid_identifier
from app.database import Connection, Database
from app.database.queries import LARGEST_ID
from app.models.runs import (
    RunStatus,
    StageRecord,
    StageStatus,
    convert_stage_record_for_clients,
    find_last_reached_stage,
)
from app.models.stages import STAGE_TABLE, ExistingResults, RunType, Stage, list_stages
from app.repositories import VideoRepository
from app.repositories.ended_runs import EndedRun, EndedRunRepository, FailedRun, FailedRunDetails
from app.repositories.runs import ActiveRun, RunRepository, RunSummary
from app.services.cursors import decode_cursor, encode_cursor, make_invalid_cursor_error
from app.services.live_runs import read_live_stage_progress
from app.services.media import has_audio_file
from app.services.models import register_api_keys_to_mask
from app.services.run_requests import RunStarter
from app.storage import Storage

ReportedStatus = Literal["pending", "processing", "completed", "failed", "cancelled", "unknown"]

# Stored status -> status in the API. A partial run counts as completed, with an error for its failed part.
_STATUSES: Mapping[str, ReportedStatus] = {
    "pending": "pending",
    "running": "processing",
    "completed": "completed",
    "partial": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_PENDING = StageRecord(StageStatus.PENDING)
_CANCELLED = "Cancelled"  # error of cancelled stages in records of earlier versions


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, newest first; `next_cursor` is None on the last page."""

    runs: list[RunSummary]
    next_cursor: str | None


async def find_newest_full_run(database: Database, redis: Redis, video: str) -> RunSummary | None:
    """Return the newest full run of a video with its live progress; None also for an unknown video."""
    if not is_valid_identifier(video):
        return None
    async with database.connect() as conn:
        runs = await RunRepository(conn).list_run_summaries(video, 1, run_type=RunType.FULL)
    return await _add_live_progress_of_stage(redis, video, runs[0]) if runs else None


async def list_runs(conn: Connection, video: str, limit: int, cursor: str, run_type: RunType | None) -> RunPage:
    """Return a page of a video's runs, newest first, of one type or all. Raises `InvalidInput` for a wrong cursor."""
    if not is_valid_identifier(video):
        return RunPage([], None)
    list_key = ["runs", video, run_type]
    before = _parse_run_list_cursor(decode_cursor(list_key, cursor)) if cursor else None
    runs = await RunRepository(conn).list_run_summaries(video, limit + 1, before, run_type)
    if len(runs) <= limit:
        return RunPage(runs, None)
    last = runs[limit - 1]
    return RunPage(runs[:limit], encode_cursor(list_key, [last.started_at.isoformat(), last.id]))


async def list_active_runs(conn: Connection, limit: int, after_id: int) -> list[ActiveRun]:
    return await RunRepository(conn).list_active_runs(limit, after_id)


def get_reported_status(run: RunSummary) -> ReportedStatus:
    """Return the status of a run in the API, such as `processing` for a running one."""
    if run.status == RunStatus.RUNNING and run.details and run.details.is_waiting:
        return "pending"
    return _STATUSES.get(run.status, "unknown")


def has_run_ended(run: RunSummary) -> bool:
    return get_reported_status(run) not in ("pending", "processing")


def get_seconds_of_completed_run(run: RunSummary) -> float | None:
    if get_reported_status(run) != "completed":
        return None
    if run.duration_seconds is None and run.completed_at is not None:
        return (run.completed_at - run.started_at).total_seconds()
    return run.duration_seconds


def requested_models(run: RunSummary) -> tuple[str, str]:
    """Return the keys of the run's generation model and refinement model; '' for what is unknown or not run."""
    if run.details is None:
        model = run.model or ""
        return ("", model) if run.operation_type == "refinement" else (model, "")
    stages = _list_stages_of_type(run.type)
    return (
        run.details.generation_model if Stage.GENERATION in stages else "",
        run.details.refinement_model if Stage.REFINEMENT in stages else "",
    )


def displayed_model(run: RunSummary) -> str:
    """Return the key of the run's model, or the name of the local model if that answered for it; '' if unknown."""
    generation, refinement = requested_models(run)
    answers, of_config = models_by_stage(run), run.model or ""
    of_generation = answers.get(Stage.GENERATION) or (of_config if run.operation_type == "generation" else "")
    answered = of_generation or answers.get(Stage.REFINEMENT) or of_config
    return answered if is_local_model_name(answered) else generation or refinement


def models_by_stage(run: RunSummary) -> dict[str, str]:
    """Return by stage the name that the model or service which answered gave itself."""
    records = run.details.stages if run.details else {}
    names = {stage: record.result.get("service") or record.result.get("model") for stage, record in records.items()}
    return {stage.value: str(name) for stage, name in names.items() if name}


def make_reported_stage_records(run: RunSummary) -> dict[Stage, StageRecord]:
    if run.details is None:
        return _infer_stage_records(run)
    records = run.details.stages
    settled = {
        stage: _settle_stage_of_ended_run(stage, records.get(stage, _PENDING), run)
        for stage in _list_stages_of_type(run.type)
    }
    return {stage: convert_stage_record_for_clients(stage, record) for stage, record in settled.items()}


def _list_stages_of_type(run_type: str) -> tuple[Stage, ...]:
    return list_stages(RunType(run_type)) if run_type in set(RunType) else ()


def get_reported_current_stage(run: RunSummary) -> str | None:
    if run.details is not None:
        return find_last_reached_stage(run.details.stages)
    stages = _infer_stage_records(run)
    return run.error_stage if run.error_stage in stages else next(reversed(stages), None)


def _infer_stage_records(run: RunSummary) -> dict[Stage, StageRecord]:
    """Infer stage records without times from the counts and the error in a run's row of an earlier version."""
    counts = {Stage.GENERATION: run.total_moments_generated, Stage.CLIPS: run.total_clips_created}
    records = {stage: StageRecord(StageStatus.COMPLETED) for stage, count in counts.items() if count}
    records |= {
        stage: StageRecord(StageStatus.FAILED, error=run.error_message) for stage in Stage if stage == run.error_stage
    }
    return {stage: records[stage] for stage in Stage if stage in records}


def _settle_stage_of_ended_run(stage: Stage, record: StageRecord, run: RunSummary) -> StageRecord:
    """Return the record, changed to failed, cancelled or pending if the run has ended while the stage was not done."""
    if run.status == RunStatus.RUNNING or record.is_completed_or_skipped:
        return record
    if stage == run.error_stage:
        return replace(record, status=StageStatus.FAILED, error=record.error or run.error_message)
    if run.status == RunStatus.CANCELLED and (record.is_waiting_or_processing or record.error == _CANCELLED):
        return replace(record, status=StageStatus.CANCELLED)
    return replace(record, status=StageStatus.PENDING) if record.is_waiting_or_processing else record


async def _add_live_progress_of_stage(redis: Redis, video: str, run: RunSummary) -> RunSummary:
    details = run.details
    if details is None or run.status != RunStatus.RUNNING or details.is_waiting:
        return run
    stage = next((stage for stage, record in details.stages.items() if record.status is StageStatus.PROCESSING), None)
    if stage is None or not (progress := await read_live_stage_progress(redis, run.identifier, video, stage)):
        return run
    stages = {**details.stages, stage: replace(details.stages[stage], progress=progress)}
    return replace(run, details=replace(details, stages=stages))


def utc_to_unix_seconds(naive_utc: datetime) -> float:
    return naive_utc.replace(tzinfo=UTC).timestamp()


def _parse_run_list_cursor(position: Any) -> tuple[datetime, int]:
    match position:
        case [str(text), int(run_id)] if 0 < run_id <= LARGEST_ID and run_id is not True:
            try:
                started_at = datetime.fromisoformat(text)
            except ValueError:
                raise make_invalid_cursor_error() from None
            if started_at.tzinfo is None:
                return started_at, run_id
    raise make_invalid_cursor_error()


async def list_failed_runs(conn: Connection, limit: int, before_id: int | None) -> list[FailedRun]:
    return await EndedRunRepository(conn).list_failed_runs(limit, before_id)


async def get_failed_run(database: Database, redis: Redis, run_identifier: str) -> FailedRunDetails:
    """Return a failed run with secrets masked, which earlier versions may have stored. Raises `RunNotFound`."""
    async with database.connect() as conn:
        failed = require_found(await EndedRunRepository(conn).get_failed_run(run_identifier), RunNotFound)
    await register_api_keys_to_mask(redis)
    raw_answer = await asyncio.to_thread(mask_values, failed.raw_answer)
    return replace(failed, request=mask_values(failed.request), raw_answer=raw_answer)


@dataclass(frozen=True, slots=True)
class RetriedRun:
    """The identifier of the new run that retries another one, and its video."""

    request_id: str
    video: str


class RunRetrier:
    """Enqueues an ended run again as a new run, which skips the stages whose results still exist."""

    def __init__(self, database: Database, storage: Storage, run_starter: RunStarter) -> None:
        self._database = database
        self._storage = storage
        self._run_starter = run_starter

    async def retry_run_of_video(self, video: str, run_identifier: str | None = None) -> RetriedRun:
        """Retry a run of the video, by default the newest full one. Raises `RunNotFound` and `NoMatchingRun`."""
        async with self._database.connect() as conn:
            if await VideoRepository(conn).get_by_identifier(video) is None:
                raise VideoNotFound(video)
            ended_run = await EndedRunRepository(conn).find_ended_run(
                video_identifier=video, run_identifier=run_identifier
            )
        if ended_run is None:
            raise NoMatchingRun(f"No run to retry for video '{video}'") if run_identifier is None else RunNotFound
        return await self._enqueue_retry(ended_run)

    async def retry_failed_run(self, run_identifier: str) -> RetriedRun:
        async with self._database.connect() as conn:
            ended_run = await EndedRunRepository(conn).find_ended_run(run_identifier=run_identifier)
        if ended_run is None or ended_run.status != RunStatus.FAILED:
            raise RunNotFound
        return await self._enqueue_retry(ended_run)

    async def _enqueue_retry(self, ended_run: EndedRun) -> RetriedRun:
        await self._run_starter.check_inputs(ended_run.video, ended_run.type, ended_run.request)
        stages = await self._make_records_of_skipped_stages(ended_run)
        new = await self._run_starter.enqueue_unchecked(
            ended_run.video, ended_run.type, ended_run.request, ended_run.subject, stages, retried=ended_run.identifier
        )
        return RetriedRun(new, ended_run.video)

    async def _make_records_of_skipped_stages(self, ended_run: EndedRun) -> Mapping[Stage, StageRecord]:
        """Return records with status skipped for the finished stages of an ended run whose results still exist."""
        finished = _list_finished_stages(ended_run)
        if not finished:
            return {}
        async with self._database.connect() as conn:
            stored = await EndedRunRepository(conn).get_stored_results(ended_run.video)
        if stored is None:
            return {}
        existing = ExistingResults(
            has_video_file=await self._stored_file_exists(stored.video_file_url),
            has_audio=await has_audio_file(self._storage, ended_run.video),
            has_transcript=stored.has_transcript,
            has_moments=stored.has_moments,
            has_all_clips=stored.has_all_clips,
        )
        return {
            stage: StageRecord(StageStatus.SKIPPED, skip_reason=f"Done by {ended_run.identifier}")
            for stage in finished
            if (has_results := STAGE_TABLE[stage].has_results) and has_results(existing)
        }

    async def _stored_file_exists(self, url: str) -> bool:
        try:
            await self._storage.stat(url)
        except FileMissing:
            return False
        return True


def _list_finished_stages(ended_run: EndedRun) -> list[Stage]:
    """Return the stages that were done before the run ended; none if all were, so that a retry repeats them."""
    finished: list[Stage] = []
    for stage in list_stages(ended_run.type):
        record = ended_run.stages.get(stage)
        if record is None or not record.is_completed_or_skipped or record.are_results_rolled_back:
            return finished
        if stage == ended_run.error_stage:
            return finished
        finished.append(stage)
    return []
