"""How a stage saves what was dear to make, and what models answered that cannot be used."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from app.ai.protocols import Usage
from app.core.errors import ModelAnswerInvalid
from app.core.masking import mask_secrets
from app.database import Connection
from app.pipeline.context import RunContext
from app.pipeline.outages import through_outages
from app.repositories.claimed_runs import ClaimedRunRepository

T = TypeVar("T")


async def save(context: RunContext, write: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `write` in one `context.commit()`, again while PostgreSQL is away: a model is not paid twice for that.

    A commit whose answer was lost is made again, too. Raises what `commit` and `write` raise.
    """

    async def commit() -> T:
        async with context.commit() as conn:
            return await write(conn)

    return await through_outages(f"A result of run {context.run.identifier}", commit)


@asynccontextmanager
async def keeping_answers(context: RunContext) -> AsyncIterator[None]:
    """Keep with the run what a model answers in this block that cannot be used."""
    try:
        yield
    except ModelAnswerInvalid as error:
        raw = mask_secrets(storable(error.raw))
        await save(context, lambda conn: ClaimedRunRepository(conn).keep_raw_answer(context.run, raw))
        raise


def storable(text: str) -> str:
    """Return a text without what PostgreSQL does not take: U+0000 and halves of surrogate pairs."""
    return text.replace("\0", "").encode(errors="ignore").decode()


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return what calls cost as it is kept with a stage."""
    return {**asdict(usage), "seconds": round(usage.seconds, 3)}
