"""A project with one stage more, made as a person would add it: a member, a row and a module."""

import shutil
from pathlib import Path

NAME = "scoring"
_ROOT = Path(__file__).resolve().parents[2]
_MEMBER = f'    {NAME.upper()} = "{NAME}"\n'
_ROW = f"""\
    Stage.{NAME.upper()}: StageDefinition(
        title="Scoring",
        kind=WorkKind.REFINEMENT,
        time_limit=TimeLimit(60.0),
        counters={{"scored": "{NAME}_moments"}},
        has_results=lambda existing: existing.has_moments,
    ),
"""
_MODULE = '''\
"""Scores the moments of a video."""

from collections.abc import Mapping
from typing import Any

from app.pipeline.context import RunContext


async def skip_reason(context: RunContext) -> str | None:
    return None


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    context.report_progress(scored=2)
    return {"scores": 2}
'''


def copy_project(folder: Path) -> None:
    """Copy the application and give it a stage before the refinement."""
    shutil.copytree(_ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "db"):
        (folder / name).symlink_to(_ROOT / name)
    table = folder / "app" / "models" / "stages.py"
    text = table.read_text()
    for before, addition in (('    REFINEMENT = "refinement"\n', _MEMBER), ("    Stage.REFINEMENT: ", _ROW)):
        assert before in text
        text = text.replace(before, addition + before, 1)
    table.write_text(text)
    (folder / "app" / "pipeline" / "stages" / f"{NAME}.py").write_text(_MODULE)
