"""The fields of each row class are the columns of its table, in one order."""

from typing import Any

import pytest

from app.database import Connection
from app.database.queries import list_columns
from app.models import Clip, GenerationConfig, Moment, PipelineRun, Prompt, Thumbnail, Transcript, Video

_ROWS: list[tuple[str, type[Any]]] = [
    ("clips", Clip),
    ("generation_configs", GenerationConfig),
    ("moments", Moment),
    ("pipeline_history", PipelineRun),
    ("prompts", Prompt),
    ("thumbnails", Thumbnail),
    ("transcripts", Transcript),
    ("videos", Video),
]


@pytest.mark.parametrize(("table", "row_class"), _ROWS)
async def test_columns_are_those_of_the_row_and_of_the_table(
    conn: Connection, table: str, row_class: type[Any]
) -> None:
    stored = await conn.execute(
        """
        SELECT column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position
        """,
        (table,),
    )
    assert list_columns(row_class).split(", ") == [name async for (name,) in stored]
