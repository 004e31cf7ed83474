"""What PostgreSQL itself refuses, and what it fills in."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from app.database import Connection
from tests.migrations.rows import fetch, insert

_NAN, _INFINITY = float("nan"), float("inf")


async def refusal(conn: Connection, table: str, **values: Any) -> str | None:
    """Return the name of the constraint that refuses such a row."""
    with pytest.raises(psycopg.IntegrityError) as raised:
        await insert(conn, table, **values)
    return raised.value.diag.constraint_name


@pytest.mark.parametrize("table", ["moments", "clips"])
@pytest.mark.parametrize(
    ("start", "end", "rule"),
    [
        (2.0, 2.0, "times"),
        (3.0, 2.0, "times"),
        (_NAN, 2.0, "times"),
        (_INFINITY, 2.0, "times"),
        (1.0, _NAN, "times_finite"),
        (1.0, _INFINITY, "times_finite"),
        (-_INFINITY, 2.0, "times_finite"),
    ],
)
async def test_times_are_finite_and_in_order(table: str, start: float, end: float, rule: str, conn: Connection) -> None:
    assert await refusal(conn, table, start_time=start, end_time=end) == f"{table}_{rule}_check"


@pytest.mark.parametrize("table", ["moments", "clips"])
async def test_times_that_are_both_out_of_this_world_are_refused(table: str, conn: Connection) -> None:
    name = await refusal(conn, table, start_time=_NAN, end_time=_NAN)
    assert name in {f"{table}_times_check", f"{table}_times_finite_check"}


@pytest.mark.parametrize("score", [-1, 11])
async def test_a_score_beyond_ten_is_refused(score: int, conn: Connection) -> None:
    assert await refusal(conn, "moments", score=score) == "moments_score_check"


@pytest.mark.parametrize("score", [0, 10, None])
async def test_a_score_from_0_to_10_or_none_is_stored(score: int | None, conn: Connection) -> None:
    moment = await insert(conn, "moments", score=score)
    assert await fetch(conn, "SELECT score FROM moments WHERE id = %s", moment) == [(score,)]


@pytest.mark.parametrize("column", ["duration_seconds", "frame_rate"])
@pytest.mark.parametrize("value", [-0.1, _NAN, _INFINITY])
async def test_a_measure_of_a_video_is_a_finite_number(column: str, value: float, conn: Connection) -> None:
    assert await refusal(conn, "videos", **{column: value}) == f"videos_{column}_check"


async def test_a_thumbnail_has_exactly_one_owner(conn: Connection) -> None:
    async with conn.transaction(force_rollback=True):
        assert await refusal(conn, "thumbnails") == "thumbnails_owner_check"
    both = {"video_id": await insert(conn, "videos"), "clip_id": await insert(conn, "clips")}
    assert await refusal(conn, "thumbnails", **both) == "thumbnails_owner_check"


@pytest.mark.parametrize(("column", "owner"), [("video_id", "videos"), ("clip_id", "clips")])
async def test_an_owner_has_one_thumbnail(column: str, owner: str, conn: Connection) -> None:
    owners = [await insert(conn, owner) for _ in range(2)]
    for owner_id in owners:
        await insert(conn, "thumbnails", **{column: owner_id})
    assert await refusal(conn, "thumbnails", **{column: owners[0]}) == f"idx_thumbnails_{column}"


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("videos", "identifier"),
        ("moments", "identifier"),
        ("prompts", "prompt_hash"),
        ("generation_configs", "config_hash"),
        ("pipeline_history", "identifier"),
    ],
)
async def test_a_name_is_taken_once(table: str, column: str, conn: Connection) -> None:
    await insert(conn, table, **{column: "same"})
    assert await refusal(conn, table, **{column: "same"}) == f"{table}_{column}_key"


async def test_a_video_has_one_transcript(conn: Connection) -> None:
    video = await insert(conn, "videos")
    await insert(conn, "transcripts", video_id=video)
    assert await refusal(conn, "transcripts", video_id=video) == "transcripts_video_id_key"


async def test_a_moment_has_one_clip(conn: Connection) -> None:
    moment = await insert(conn, "moments")
    await insert(conn, "clips", moment_id=moment)
    assert await refusal(conn, "clips", moment_id=moment) == "clips_moment_id_key"


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("transcripts", "video_id"),
        ("generation_configs", "prompt_id"),
        ("generation_configs", "transcript_id"),
        ("moments", "video_id"),
        ("moments", "parent_id"),
        ("moments", "generation_config_id"),
        ("clips", "moment_id"),
        ("clips", "video_id"),
        ("thumbnails", "video_id"),
        ("thumbnails", "clip_id"),
        ("pipeline_history", "video_id"),
        ("pipeline_history", "generation_config_id"),
    ],
)
async def test_what_a_key_names_exists(table: str, column: str, conn: Connection) -> None:
    assert await refusal(conn, table, **{column: 0}) == f"{table}_{column}_fkey"


async def test_defaults_are_filled_in(conn: Connection) -> None:
    await insert(conn, "moments")
    assert await fetch(conn, "SELECT is_refined, parent_id, generation_config_id FROM moments") == [(False, None, None)]
    await insert(conn, "transcripts")
    assert await fetch(conn, "SELECT language FROM transcripts") == [("en",)]
    await insert(conn, "clips")
    assert await fetch(conn, "SELECT padding_left, padding_right FROM clips") == [(0.0, 0.0)]


_TABLES = ["videos", "transcripts", "prompts", "generation_configs", "moments", "clips", "pipeline_history"]


@pytest.mark.parametrize("table", [*_TABLES, "thumbnails"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
async def test_created_at_is_utc_whatever_the_time_zone(table: str, zone: str, conn: Connection) -> None:
    await fetch(conn, "SELECT set_config('TimeZone', %s, true)", zone)
    row = await insert(conn, table, **({"video_id": await insert(conn, "videos")} if table == "thumbnails" else {}))
    ((age,),) = await fetch(conn, f"SELECT (now() AT TIME ZONE 'utc') - created_at FROM {table} WHERE id = %s", row)
    assert age == timedelta(0)


async def test_updated_at_is_set_whoever_writes(conn: Connection) -> None:
    long_ago = datetime(2020, 1, 1)
    moment = await insert(conn, "moments", updated_at=long_ago)
    assert await fetch(conn, "SELECT updated_at FROM moments") == [(long_ago,)]
    await fetch(conn, "UPDATE moments SET title = 'new', updated_at = %s WHERE id = %s RETURNING 1", long_ago, moment)
    assert await fetch(conn, "SELECT updated_at = now() AT TIME ZONE 'utc' FROM moments") == [(True,)]


async def test_a_very_long_address_can_be_stored_and_found(conn: Connection) -> None:
    long_url = "https://host/" + "x" * 2_000_000
    video = await insert(conn, "videos", source_url=long_url)
    assert await fetch(conn, "SELECT id FROM videos WHERE source_url = %s", long_url) == [(video,)]
