"""Runs that failed, for those who look after a server."""

from app.core.errors import RunNotFound
from app.database import Connection
from app.repositories.ended_runs import EndedRunRepository, FailedRun, FailedRunDetails
from app.services.identifiers import findable


async def list_failed(conn: Connection, limit: int, before: int | None) -> list[FailedRun]:
    """Return at most `limit` failed runs whose ids are below `before`, the last accepted first."""
    return await EndedRunRepository(conn).list_failed(limit, before)


async def get_failed(conn: Connection, identifier: str) -> FailedRunDetails:
    """Raises `RunNotFound`."""
    failed = await EndedRunRepository(conn).get_failed(findable(identifier))
    if failed is None:
        raise RunNotFound
    return failed
