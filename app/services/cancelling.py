"""Ending what works on a video before it is done."""

from dataclasses import dataclass, field

from redis.asyncio import Redis

from app.core.errors import NothingRuns
from app.database import Connection, Database
from app.models.stages import STALLED_AFTER
from app.repositories import VideoRepository
from app.repositories.runs import RunRepository
from app.repositories.stage_queue import StageQueueRepository
from app.services.identifiers import findable
from app.services.live_runs import LiveRuns


@dataclass(slots=True)
class Cancelled:
    """Identifiers of runs that have ended, and of those that end as soon as their workers see it."""

    ended: list[str] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)


async def cancel_runs(conn: Connection, video: str) -> Cancelled:
    """Have the active runs of a video end, in the caller's transaction; those that no living worker has end
    at once."""
    cancelled = Cancelled()
    await VideoRepository(conn).lock(findable(video))  # before its runs, as a worker does
    for run_id, identifier in await RunRepository(conn).list_active_of_video(findable(video)):
        has_ended = await StageQueueRepository(conn).request_cancel(run_id, STALLED_AFTER)
        (cancelled.ended if has_ended else cancelled.ending).append(identifier)
    return cancelled


async def cancel_pipeline(database: Database, redis: Redis, video: str) -> None:
    """Cancel whatever runs over a video. Raises `NothingRuns`."""
    async with database.connect() as conn, conn.transaction():
        cancelled = await cancel_runs(conn, video)
    if not (cancelled.ended or cancelled.ending):
        raise NothingRuns(f"No pipeline running for video '{video}'")
    live = LiveRuns(redis)
    for identifier in cancelled.ended:
        await live.delete_status(identifier, video)
