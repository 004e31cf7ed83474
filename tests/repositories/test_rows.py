"""Each repository lists its columns once: those of the row and of the table, in one order."""

from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from app.database import Connection
from app.models import Clip, GenerationConfig, Moment, PipelineRun, Prompt, Thumbnail, Transcript, Video
from app.repositories import (
    clips,
    generation_configs,
    moments,
    pipeline_history,
    prompts,
    thumbnails,
    transcripts,
    videos,
)

_ROWS: list[tuple[ModuleType, type[Any]]] = [
    (clips, Clip),
    (generation_configs, GenerationConfig),
    (moments, Moment),
    (pipeline_history, PipelineRun),
    (prompts, Prompt),
    (thumbnails, Thumbnail),
    (transcripts, Transcript),
    (videos, Video),
]


@pytest.mark.parametrize(("repository", "row"), _ROWS)
async def test_columns_are_those_of_the_row_and_of_the_table(
    conn: Connection, repository: ModuleType, row: type[Any]
) -> None:
    columns = [column.strip() for column in repository.COLUMNS.split(",")]
    assert columns == [field.name for field in fields(row)]
    table = await conn.execute(
        """
        SELECT column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position
        """,
        (repository.__name__.rpartition(".")[2],),
    )
    assert columns == [name async for (name,) in table]


def test_a_summary_has_every_small_column_of_a_transcript() -> None:
    summary = [column.strip() for column in transcripts.SUMMARY_COLUMNS.split(",")]
    big = {"full_text", "word_timestamps", "segment_timestamps"}
    assert summary == [field.name for field in fields(transcripts.TranscriptSummary)]
    assert summary == [field.name for field in fields(Transcript) if field.name not in big]
