"""`python -m app worker`: a worker in a process of its own."""

import argparse
import asyncio
import signal
from collections.abc import Sequence

from app.core.config import Settings
from app.models.stages import WorkKind

_DESCRIPTION = """Execute the stages of runs, beside the server or on another machine: as many workers as you like, each
for every kind of work or for some. All of them need the same DATABASE_URL, REDIS_URL and STORAGE_URL. Ctrl-C or SIGTERM
ends it, as a rule within eight seconds, and another worker goes on with what it had claimed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to `parser`."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--concurrency", metavar="N", type=_count, help="stages to execute at once, instead of PIPELINE_CONCURRENCY"
    )
    parser.add_argument(
        "--stages",
        metavar="KIND,…",
        type=_kinds,
        default=tuple(WorkKind),
        help=f"kinds of work to do, instead of all: {', '.join(WorkKind)}",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, and return the exit status."""
    if options.concurrency is not None:
        settings = settings.model_copy(update={"pipeline_concurrency": options.concurrency})
    asyncio.run(_work(settings, options.stages))
    return 0


async def _work(settings: Settings, kinds: Sequence[WorkKind]) -> None:
    from app.resources import make_resources, open_resources  # half a second of imports
    from app.worker.metrics import load_metrics
    from app.worker.worker import run_worker

    load_metrics(settings)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with open_resources(make_resources(settings)) as resources, run_worker(resources, kinds):
        await ending.wait()


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError("a number from 1 to 100 is needed")
    return number


def _kinds(text: str) -> tuple[WorkKind, ...]:
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(WorkKind):
        raise argparse.ArgumentTypeError(f"one or more of {', '.join(WorkKind)} are needed, with commas between them")
    return tuple(kind for kind in WorkKind if kind in names)
