"""The code of the stages: what `STAGE_TABLE` says of each, with the two functions of its module."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from app.models.stages import STAGE_TABLE, Stage, StageDefinition, WorkKind
from app.pipeline.context import RunContext


@dataclass(frozen=True, slots=True)
class StageCode:
    """A stage with its code; `StageDefinition` says what its functions return."""

    definition: StageDefinition
    skip_reason: Callable[[RunContext], Awaitable[str | None]]
    run_stage: Callable[[RunContext], Awaitable[Mapping[str, Any]]]


def load_stages(kinds: Collection[WorkKind] = tuple(WorkKind)) -> Mapping[Stage, StageCode]:
    """Import the stages of some kinds of work, and with them what only a worker needs."""
    return {stage: _load_stage(row) for stage, row in STAGE_TABLE.items() if row.kind in kinds}


def _load_stage(definition: StageDefinition) -> StageCode:
    module = import_module(definition.module)
    return StageCode(definition, module.skip_reason, module.run_stage)
