"""Each repository lists its columns once: those of the row and of the table, in one order."""

from dataclasses import fields
from typing import Any

import pytest

from app.database import Connection
from app.models import Clip, GenerationConfig, Moment, PipelineRun, Prompt, Thumbnail, Transcript, Video
from app.repositories.clips import CLIP_COLUMNS
from app.repositories.moments import MOMENT_COLUMNS
from app.repositories.provenance import CONFIG_COLUMNS, PROMPT_COLUMNS
from app.repositories.runs import RUN_COLUMNS
from app.repositories.thumbnails import THUMBNAIL_COLUMNS
from app.repositories.transcripts import TRANSCRIPT_COLUMNS
from app.repositories.videos import VIDEO_COLUMNS

_ROWS: list[tuple[str, str, type[Any]]] = [
    ("clips", CLIP_COLUMNS, Clip),
    ("generation_configs", CONFIG_COLUMNS, GenerationConfig),
    ("moments", MOMENT_COLUMNS, Moment),
    ("pipeline_history", RUN_COLUMNS, PipelineRun),
    ("prompts", PROMPT_COLUMNS, Prompt),
    ("thumbnails", THUMBNAIL_COLUMNS, Thumbnail),
    ("transcripts", TRANSCRIPT_COLUMNS, Transcript),
    ("videos", VIDEO_COLUMNS, Video),
]


@pytest.mark.parametrize(("table", "listed", "row"), _ROWS)
async def test_columns_are_those_of_the_row_and_of_the_table(
    conn: Connection, table: str, listed: str, row: type[Any]
) -> None:
    columns = [column.strip() for column in listed.split(",")]
    assert columns == [field.name for field in fields(row)]
    stored = await conn.execute(
        """
        SELECT column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position
        """,
        (table,),
    )
    assert columns == [name async for (name,) in stored]
