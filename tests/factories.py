"""Rows for tests, with defaults for whatever a test does not care about; owners are made where none is named."""

from datetime import datetime
from itertools import count
from typing import Any, LiteralString

from psycopg import sql

from app.database import Connection
from app.database.queries import fetch_value, insert_row
from app.models import Clip, GenerationConfig, Moment, PipelineRun, Prompt, Thumbnail, Transcript, Video
from app.repositories import (
    ClipRepository,
    GenerationConfigRepository,
    PromptRepository,
    RunRepository,
    ThumbnailRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.moments import make_random_moment_identifier

_numbers = count(1)


async def make_video(conn: Connection, **values: Any) -> Video:
    identifier = values.pop("identifier", f"video-{next(_numbers)}")
    defaults: dict[str, Any] = {"cloud_url": f"file:///library/videos/{identifier}.mp4", "duration_seconds": 300.0}
    return await VideoRepository(conn).create(identifier=identifier, **(defaults | values))


async def make_transcript(conn: Connection, **values: Any) -> Transcript:
    defaults: dict[str, Any] = {
        "full_text": "Hello there.",
        "word_timestamps": [
            {"word": "Hello", "start": 0.0, "end": 0.4},
            {"word": "there.", "start": 0.4, "end": 0.9},
        ],
        "segment_timestamps": [{"text": "Hello there.", "start": 0.0, "end": 0.9, "word_count": 2}],
    }
    return await TranscriptRepository(conn).create(**(defaults | await _with_video(conn, values)))


async def make_prompt(conn: Connection, **values: Any) -> Prompt:
    defaults = {"user_prompt": f"Find moments {next(_numbers)}", "system_prompt": "You answer in JSON."}
    return await PromptRepository(conn).get_or_create(**(defaults | values))


async def make_generation_config(conn: Connection, **values: Any) -> GenerationConfig:
    if "prompt_id" not in values:
        values["prompt_id"] = (await make_prompt(conn)).id
    defaults: dict[str, Any] = {"model": "qwen3", "operation_type": "generation", "temperature": 0.7}
    return await GenerationConfigRepository(conn).get_or_create(**(defaults | values))


async def make_moment(conn: Connection, **values: Any) -> Moment:
    defaults: dict[str, Any] = {
        "identifier": make_random_moment_identifier(),
        "start_time": 10.0,
        "end_time": 20.0,
        "title": "A moment",
    }
    values = defaults | await _with_video(conn, values)
    return await insert_row(conn, Moment, "moments", values)


async def count_rows(conn: Connection, table: LiteralString) -> int:
    return int(await fetch_value(conn, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))) or 0)


async def make_clip(conn: Connection, moment: Moment | None = None, **values: Any) -> Clip:
    """The moment's times and video unless `values` say otherwise."""
    moment = moment or await make_moment(conn)
    defaults: dict[str, Any] = {
        "moment_id": moment.id,
        "video_id": moment.video_id,
        "cloud_url": f"file:///library/clips/{moment.identifier}.mp4",
        "start_time": moment.start_time,
        "end_time": moment.end_time,
    }
    return await ClipRepository(conn).create(**(defaults | values))


async def make_thumbnail(conn: Connection, **values: Any) -> Thumbnail:
    """A new video's thumbnail unless `values` name a `video_id` or a `clip_id`."""
    if "clip_id" not in values:
        values = await _with_video(conn, values)
    return await ThumbnailRepository(conn).create(
        **({"cloud_url": f"file:///library/thumbnails/{next(_numbers)}.jpg"} | values)
    )


async def make_run(conn: Connection, **values: Any) -> PipelineRun:
    defaults: dict[str, Any] = {
        "identifier": f"pipeline:video:{next(_numbers)}",
        "pipeline_type": "full",
        "status": "running",
        "started_at": datetime(2026, 2, 8, 12),
    }
    return await RunRepository(conn).create(**(defaults | await _with_video(conn, values)))


async def _with_video(conn: Connection, values: dict[str, Any]) -> dict[str, Any]:
    return values if "video_id" in values else {**values, "video_id": (await make_video(conn)).id}
