"""Every stage by its name."""

from collections.abc import Mapping
from importlib import import_module

from app.models.run import Stage
from app.pipeline.stage import StageWork


def load_works() -> Mapping[Stage, StageWork]:
    """Import the stages, and with them what only a worker needs."""
    return {stage: import_module(f"app.pipeline.stages.{stage}").WORK for stage in Stage}
