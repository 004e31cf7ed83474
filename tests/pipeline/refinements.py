"""A run over a video with moments to refine, for the tests of the stage."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.ai.protocols import RefineRequest, RefineResult
from app.core.errors import StageFailed
from app.database import Connection
from app.models import Moment
from app.pipeline.context import RunContext
from app.repositories import MomentRepository, RunRepository
from tests.factories import make_generation_config, make_moment, make_transcript
from tests.pipeline.contexts import make_context
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, refined, talk

SPANS = {"One": (60.0, 100.0), "Two": (120.0, 160.0), "Three": (180.0, 220.0)}


@asynccontextmanager
async def ready(
    url: str, folder: Path, finder: ScriptedFinder, *, moments: Sequence[str] = tuple(SPANS), **values: Any
) -> AsyncIterator[RunContext]:
    """A run over a video of 300 s in which something is said in each second, and moments that a model has found."""
    async with make_context(url, folder, models=ScriptedModels(finder=finder), **values) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, **talk(300))
            for title in moments:
                await make_found(conn, context.run.video_id, title)
        yield context


async def make_found(conn: Connection, video_id: int, title: str, **values: Any) -> Moment:
    start, end = SPANS.get(title, (10.0, 20.0))
    config = await make_generation_config(conn)
    defaults = {"title": title, "start_time": start, "end_time": end, "generation_config_id": config.id}
    return await make_moment(conn, video_id=video_id, **(defaults | values))


async def make_before(conn: Connection, title: str, parent: Moment, **values: Any) -> Moment:
    """A refined moment that is older than the run."""
    moment = await make_found(conn, parent.video_id, title, is_refined=True, parent_id=parent.id, **values)
    await conn.execute(
        "UPDATE moments SET created_at = created_at - interval '1 hour' WHERE id = %(id)s", {"id": moment.id}
    )
    return moment


async def list_moments(context: RunContext) -> list[Moment]:
    async with context.database.connect() as conn:
        return await MomentRepository(conn).list_by_video(context.run.video_id)


async def list_families(context: RunContext) -> dict[str, list[str]]:
    """The refined moments under each original, by titles."""
    moments = await list_moments(context)
    titles = {moment.id: moment.title for moment in moments if not moment.is_refined}
    groups: dict[str, list[str]] = {title: [] for title in titles.values()}
    for moment in moments:
        if moment.is_refined:
            groups[titles[moment.parent_id or 0]].append(moment.title)
    return groups


async def end_run(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await RunRepository(conn).update(context.run.id, status="completed")


def failing(*titles: str, error: Exception | None = None) -> ScriptedFinder:
    """A finder that refines all moments but these."""

    def answer(request: RefineRequest) -> RefineResult | Exception:
        if request.moment.title in titles:
            return error or StageFailed(f"{request.moment.title} is\0 too hard")
        return refined(request.moment.start + 1, request.moment.end - 1)

    return ScriptedFinder(refine_answer=answer)
