"""Stages that do what files in a folder tell them, in whatever process they are."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from app.models.stages import STAGE_TABLE, RetryRule, Stage, TimeLimit
from app.pipeline.context import LoadedStage, RunContext
from app.worker.timings import WorkerTimings

# No worker is taken for dead, however long it has to wait for a processor.
STEADY = WorkerTimings(
    heartbeat_interval=0.2,
    stalled_after=60.0,
    status_interval=0.1,
    poll_interval=1.0,
    notify_again_after=0.5,
    drain_timeout=0.5,
    shutdown_timeout=2.0,
)
RESULTS = "CREATE TABLE results (id serial, run text NOT NULL, stage text NOT NULL)"
_POLL_SECONDS = 0.02


def make_stages(folder: Path) -> Mapping[Stage, LoadedStage]:
    """Return stages that each leave one row in `results`, and a line in the run's journal when they begin."""
    return {stage: _make_stage(folder, stage) for stage in Stage}


def hold(folder: Path, stage: Stage) -> None:
    """Have the stage wait, in every run, before it saves what it has made."""
    (folder / f"hold-{stage}").touch()


def let_go(folder: Path, stage: Stage) -> None:
    (folder / f"hold-{stage}").unlink()


def hold_saved(folder: Path, stage: Stage) -> None:
    """Have the stage wait, in every run, after it has saved what it has made and before its worker records that."""
    (folder / f"hold-saved-{stage}").touch()


def let_go_saved(folder: Path, stage: Stage) -> None:
    (folder / f"hold-saved-{stage}").unlink()


def slow_down(folder: Path, seconds: float) -> None:
    """Have every stage take a while before it saves what it has made."""
    (folder / "seconds").write_text(str(seconds))


def fill_disk(folder: Path, stage: Stage) -> None:
    """Have the stage write to a device that has no room."""
    (folder / f"fill-{stage}").touch()


def read_journal(folder: Path, run: str) -> list[tuple[Stage, int]]:
    """Return which stages were begun by which processes."""
    path = folder / f"{run}.journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(Stage(stage), int(pid)) for stage, pid in (line.split() for line in lines)]


def _make_stage(folder: Path, stage: Stage) -> LoadedStage:
    seconds = 3600.0 if stage is Stage.TRANSCRIPT else 60.0  # one of them may work while PostgreSQL is away for long
    definition = replace(
        STAGE_TABLE[stage], time_limit=TimeLimit(seconds), limit_setting=None, retry=RetryRule(retries_failures=False)
    )
    return LoadedStage(definition, _never, partial(_run_stage, folder, stage))


async def _never(context: RunContext) -> str | None:
    return None


async def _run_stage(folder: Path, stage: Stage, context: RunContext) -> Mapping[str, Any]:
    with (folder / f"{context.run.identifier}.journal").open("a") as journal:
        journal.write(f"{stage} {os.getpid()}\n")
    context.report_progress(percentage=50)
    if (folder / "seconds").exists():
        await asyncio.sleep(float((folder / "seconds").read_text()))
    await _wait_while(folder, f"hold-{stage}")
    if (folder / f"fill-{stage}").exists():
        await asyncio.to_thread(Path("/dev/full").write_text, "bytes")
    async with context.claim_transaction() as conn:
        await conn.execute("INSERT INTO results (run, stage) VALUES (%s, %s)", (context.run.identifier, stage.value))
    await _wait_while(folder, f"hold-saved-{stage}")
    return {"pid": os.getpid()}


async def _wait_while(folder: Path, name: str) -> None:
    while (folder / name).exists():  # noqa: ASYNC110  another process removes it
        await asyncio.sleep(_POLL_SECONDS)
