"""Runs that failed, for those who look after a server."""

import asyncio
from dataclasses import replace

from redis.asyncio import Redis

from app.core.errors import RunNotFound
from app.core.masking import mask_values
from app.database import Connection, Database
from app.repositories.ended_runs import EndedRunRepository, FailedRun, FailedRunDetails
from app.services.identifiers import findable
from app.services.known_models import remember_model_keys


async def list_failed(conn: Connection, limit: int, before: int | None) -> list[FailedRun]:
    """Return at most `limit` failed runs whose ids are below `before`, the last accepted first."""
    return await EndedRunRepository(conn).list_failed(limit, before)


async def get_failed(database: Database, redis: Redis, identifier: str) -> FailedRunDetails:
    """Return a failed run without the secrets that an earlier version may have stored. Raises `RunNotFound`."""
    async with database.connect() as conn:
        failed = await EndedRunRepository(conn).get_failed(findable(identifier))
    if failed is None:
        raise RunNotFound
    await remember_model_keys(redis)
    raw_answer = await asyncio.to_thread(mask_values, failed.raw_answer)
    return replace(failed, request=mask_values(failed.request), raw_answer=raw_answer)
