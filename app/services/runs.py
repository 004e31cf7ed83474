"""Runs of the pipeline as their status is told: from what is stored of them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.database import Connection
from app.repositories.runs import RunRepository, ShownRun
from app.repositories.statements import LARGEST_ID
from app.services.cursors import broken_cursor, read_cursor, write_cursor
from app.services.identifiers import findable

STAGES = ("download", "audio", "audio_upload", "transcript", "generation", "clips", "clip_upload", "refinement")

# What the table says of a run, in the words of clients. A run of which a part succeeded has ended, and its error tells
# what did not; a word that nobody knows is told as that.
_STATUSES = {
    "pending": "pending",
    "running": "processing",
    "completed": "completed",
    "partial": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, newest first; no cursor where there are no older ones."""

    runs: list[ShownRun]
    next_cursor: str | None


async def find_latest_run(conn: Connection, video: str) -> ShownRun | None:
    """Return the newest run of a video, or None, also for a video that does not exist."""
    runs = await RunRepository(conn).list_runs(findable(video), 1)
    return runs[0] if runs else None


async def list_runs(conn: Connection, video: str, limit: int, cursor: str) -> RunPage:
    """Return at most `limit` runs behind a cursor. Raises `InvalidInput` for a cursor of another list."""
    of = ["runs", video]
    before = _read_place(read_cursor(of, cursor)) if cursor else None
    runs = await RunRepository(conn).list_runs(findable(video), limit + 1, before)
    if len(runs) <= limit:
        return RunPage(runs, None)
    last = runs[limit - 1]
    return RunPage(runs[:limit], write_cursor(of, [last.started_at.isoformat(), last.id]))


def status_of(run: ShownRun) -> str:
    """Return the status in the words of clients."""
    return _STATUSES.get(run.status, _UNKNOWN)


def duration_of(run: ShownRun) -> float | None:
    """Return the seconds that a completed run took."""
    if status_of(run) != "completed":
        return None
    if run.duration_seconds is None and run.completed_at is not None:
        return (run.completed_at - run.started_at).total_seconds()
    return run.duration_seconds


def models_of(run: ShownRun) -> tuple[str, str]:
    """Return the model that moments were sought with and the one they were refined with; '' where it is not known."""
    model = run.model or ""
    return ("", model) if run.operation_type == "refinement" else (model, "")


def stages_of(run: ShownRun) -> dict[str, str]:
    """Return the status of each stage that the row tells of, in the order of the pipeline."""
    made = {"generation": run.total_moments_generated, "clips": run.total_clips_created}
    states = {stage: "completed" for stage, count in made.items() if count}
    if run.error_stage:
        states[run.error_stage] = "failed"
    return {stage: states[stage] for stage in STAGES if stage in states}


def unix_seconds(time: datetime) -> float:
    return time.replace(tzinfo=UTC).timestamp()


def _read_place(place: Any) -> tuple[datetime, int]:
    match place:
        case [str(text), int(run_id)] if 0 < run_id <= LARGEST_ID and run_id is not True:
            try:
                started_at = datetime.fromisoformat(text)
            except ValueError:
                raise broken_cursor() from None
            if started_at.tzinfo is None:
                return started_at, run_id
    raise broken_cursor()
