"""`python -m app worker`: a worker in a process of its own."""

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.servers import open_migrated_servers
from app.models.stages import WorkKind

if TYPE_CHECKING:
    from app.core.config import Settings


def _parse_work_kinds(text: str) -> tuple[WorkKind, ...]:
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(WorkKind):
        needed = f"one or more of {', '.join(WorkKind)} are needed, with commas between them"
        raise typer.BadParameter(needed, param_hint="'--stages'")
    return tuple(kind for kind in WorkKind if kind in names)


def run_worker_until_signal(
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=100, help="stages to execute at once, instead of PIPELINE_CONCURRENCY"),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help=f"kinds of work to do, instead of all: {', '.join(WorkKind)}"),
    ] = None,
) -> int:
    """Execute the stages of runs, beside the server or on another machine.

    There may be as many workers as you like, each for every kind of work or for some. All of them need the same
    DATABASE_URL, REDIS_URL and STORAGE_URL. Ctrl-C or SIGTERM ends it, as a rule within eight seconds, and another
    worker goes on with what it had claimed.
    """
    kinds = tuple(WorkKind) if stages is None else _parse_work_kinds(stages)
    with open_migrated_servers(redis=True) as settings:
        if concurrency is not None:
            settings = settings.model_copy(update={"pipeline_concurrency": concurrency})
        asyncio.run(_run_worker_until_signal(settings, kinds))
    return 0


async def _run_worker_until_signal(settings: "Settings", kinds: Sequence[WorkKind]) -> None:
    from app.resources import make_resources, open_resources  # half a second of imports
    from app.worker.metrics import load_metrics_middleware
    from app.worker.worker import run_worker

    load_metrics_middleware(settings)
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    async with open_resources(make_resources(settings)) as resources, run_worker(resources, kinds):
        await signalled.wait()
