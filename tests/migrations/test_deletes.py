"""What goes with a row that is deleted, and what stays."""

import pytest

from app.database import Connection
from tests.migrations.rows import count_rows, delete, fetch, insert

_TABLES = (
    "videos",
    "transcripts",
    "prompts",
    "generation_configs",
    "moments",
    "clips",
    "thumbnails",
    "pipeline_history",
)


@pytest.fixture
async def family(conn: Connection) -> dict[str, int]:
    """One row in each table, each belonging to the others in every way it can; the thumbnail is the clip's."""
    video = await insert(conn, "videos")
    transcript = await insert(conn, "transcripts", video_id=video)
    prompt = await insert(conn, "prompts")
    config = await insert(conn, "generation_configs", prompt_id=prompt, transcript_id=transcript)
    moment = await insert(conn, "moments", video_id=video, generation_config_id=config)
    clip = await insert(conn, "clips", video_id=video, moment_id=moment)
    thumbnail = await insert(conn, "thumbnails", clip_id=clip)
    run = await insert(conn, "pipeline_history", video_id=video, generation_config_id=config)
    return dict(zip(_TABLES, (video, transcript, prompt, config, moment, clip, thumbnail, run), strict=True))


@pytest.mark.parametrize(
    ("table", "survivors"),
    [
        ("videos", {"prompts"}),
        ("transcripts", {"videos", "prompts"}),
        ("prompts", {"videos", "transcripts"}),
        ("generation_configs", {"videos", "transcripts", "prompts"}),
        ("moments", {"videos", "transcripts", "prompts", "generation_configs", "pipeline_history"}),
        ("clips", {"videos", "transcripts", "prompts", "generation_configs", "moments", "pipeline_history"}),
        ("thumbnails", set(_TABLES) - {"thumbnails"}),
        ("pipeline_history", set(_TABLES) - {"pipeline_history"}),
    ],
)
async def test_a_row_takes_with_it_what_belongs_to_it(
    table: str, survivors: set[str], family: dict[str, int], conn: Connection
) -> None:
    strangers = await insert(conn, "thumbnails", clip_id=await insert(conn, "clips"))
    await delete(conn, table, family[table])
    left = {name for name in _TABLES if await fetch(conn, f"SELECT FROM {name} WHERE id = %s", family[name])}
    assert left == survivors
    assert await fetch(conn, "SELECT id FROM thumbnails WHERE id = %s", strangers) == [(strangers,)]


async def test_a_video_takes_its_own_thumbnail_with_it(conn: Connection) -> None:
    video = await insert(conn, "videos")
    await insert(conn, "thumbnails", video_id=video)
    await delete(conn, "videos", video)
    assert await count_rows(conn, "thumbnails") == 0


async def test_a_video_takes_clips_of_other_videos_moments_with_it(conn: Connection) -> None:
    video = await insert(conn, "videos")
    await insert(conn, "clips", video_id=video)
    await delete(conn, "videos", video)
    assert (await count_rows(conn, "clips"), await count_rows(conn, "moments")) == (0, 1)


async def test_a_refined_moment_outlives_its_parent(conn: Connection) -> None:
    parent = await insert(conn, "moments")
    child = await insert(conn, "moments", parent_id=parent, is_refined=True)
    await delete(conn, "moments", parent)
    assert await fetch(conn, "SELECT id, parent_id, is_refined FROM moments") == [(child, None, True)]


async def test_a_config_without_a_transcript_stays_when_a_transcript_goes(conn: Connection) -> None:
    transcript = await insert(conn, "transcripts")
    await insert(conn, "generation_configs")
    await delete(conn, "transcripts", transcript)
    assert await count_rows(conn, "generation_configs") == 1


async def test_rows_without_a_config_stay_when_a_config_goes(conn: Connection) -> None:
    config = await insert(conn, "generation_configs")
    await insert(conn, "moments")
    await insert(conn, "pipeline_history")
    await delete(conn, "generation_configs", config)
    assert (await count_rows(conn, "moments"), await count_rows(conn, "pipeline_history")) == (1, 1)
