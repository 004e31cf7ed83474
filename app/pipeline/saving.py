"""How a stage saves what was dear to make, and what models answered that cannot be used."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar

import psycopg

from app.ai.protocols import Usage
from app.core.errors import DatabaseUnavailable, ModelAnswerInvalid
from app.database import Connection
from app.database.errors import domain_error
from app.pipeline.context import RunContext
from app.repositories.work import WorkRepository

T = TypeVar("T")

_log = logging.getLogger(__name__)

# A minute in all: a PostgreSQL that is started again is back by then.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


async def save(context: RunContext, write: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `write` in one `context.commit()`, again while PostgreSQL is away: a model is not paid twice for that.

    A commit whose answer was lost is made again, too. Raises what `commit` and `write` raise.
    """
    for pause in _PAUSES:
        try:
            async with context.commit() as conn:
                return await write(conn)
        except (psycopg.Error, DatabaseUnavailable) as error:
            if not _may_pass(error):
                raise
            _log.warning("A result of run %s cannot be saved yet: %s", context.run.identifier, error)
        await asyncio.sleep(pause)
    async with context.commit() as conn:
        return await write(conn)


@asynccontextmanager
async def keeping_answers(context: RunContext) -> AsyncIterator[None]:
    """Keep with the run what a model answers in this block that cannot be used."""
    try:
        yield
    except ModelAnswerInvalid as error:
        raw = storable(error.raw)
        await save(context, lambda conn: WorkRepository(conn).keep_raw_answer(context.run, raw))
        raise


def storable(text: str) -> str:
    """Return a text without what PostgreSQL does not take: U+0000 and halves of surrogate pairs."""
    return text.replace("\0", "").encode(errors="ignore").decode()


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return what calls cost as it is kept with a stage."""
    return {**asdict(usage), "seconds": round(usage.seconds, 3)}


def _may_pass(error: psycopg.Error | DatabaseUnavailable) -> bool:
    return isinstance(error, DatabaseUnavailable) or isinstance(domain_error(error), DatabaseUnavailable)
