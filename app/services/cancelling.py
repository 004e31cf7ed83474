"""Ending what works on a video before it is done."""

from app.core.errors import NothingRuns, VideoNotFound
from app.database import Connection
from app.repositories.active_runs import ActiveRunRepository
from app.repositories.work import WorkRepository
from app.services.identifiers import findable


async def cancel_runs(conn: Connection, video: str) -> int:
    """Have the active runs of a video end and return how many there are, in the caller's transaction.

    One that no worker has ends at once. Raises `VideoNotFound`.
    """
    active = await ActiveRunRepository(conn).list_ids(findable(video))
    if active is None:
        raise VideoNotFound
    for run_id in active:
        await WorkRepository(conn).cancel(run_id)
    return len(active)


async def cancel_pipeline(conn: Connection, video: str) -> None:
    """Cancel whatever runs over a video. Raises `VideoNotFound` and `NothingRuns`."""
    async with conn.transaction():
        if not await cancel_runs(conn, video):
            raise NothingRuns(f"No pipeline running for video '{video}'")
