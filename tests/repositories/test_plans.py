"""Which index each hot read uses, in tables with enough rows for the choice between two indexes to be the real one."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.database.queries import copy_rows
from app.repositories import (
    ClipRepository,
    GenerationConfigRepository,
    MomentRepository,
    PromptRepository,
    RunRepository,
    ThumbnailRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.jobs import JobRepository
from app.repositories.provenance import NewGenerationConfig, ProvenanceRepository, config_hash, prompt_hash
from app.repositories.search import AskedLexemes, PassagePosition, SearchRepository
from app.repositories.search_conditions import Conditions, SearchFilters
from app.repositories.search_index import SearchIndexRepository
from app.repositories.stage_queue import StageQueueRepository
from app.services.search_index import rebuild
from tests.conftest import Databases

_NOON = datetime(2026, 2, 8, 12)
_VIDEOS = 200
_EACH = 20  # moments, clips and runs of each video

_READS: dict[str, Callable[[Connection], Awaitable[object]]] = {
    "videos_pkey": lambda conn: VideoRepository(conn).get(7),
    "videos_identifier_key": lambda conn: VideoRepository(conn).get_by_identifier("video-7"),
    "prompts_pkey": lambda conn: PromptRepository(conn).list_prompt_summaries(5, after_id=7),
    "prompts_prompt_hash_key": lambda conn: PromptRepository(conn).get_or_create("Find 7", "JSON"),
    "generation_configs_pkey": lambda conn: GenerationConfigRepository(conn).list_configs(5, after_id=7),
    "generation_configs_config_hash_key": lambda conn: GenerationConfigRepository(conn).get_or_create(
        prompt_id=1, model="qwen3", operation_type="generation", top_k=7
    ),
    "idx_generation_configs_prompt_id": lambda conn: GenerationConfigRepository(conn).list_configs(50, prompt_id=1),
    "transcripts_video_id_key": lambda conn: TranscriptRepository(conn).get_by_video(7),
    "moments_pkey": lambda conn: MomentRepository(conn).get(7),
    "moments_identifier_key": lambda conn: MomentRepository(conn).get_by_identifier("7"),
    "idx_moments_video_id_start_time": lambda conn: MomentRepository(conn).list_by_video(7),
    "idx_moments_parent_id": lambda conn: MomentRepository(conn).list_refinements_of(7),
    "clips_pkey": lambda conn: ClipRepository(conn).get(7),
    "clips_moment_id_key": lambda conn: ClipRepository(conn).get_by_moment(7),
    "idx_clips_video_id": lambda conn: ClipRepository(conn).list_by_video(7),
    "thumbnails_pkey": lambda conn: ThumbnailRepository(conn).get(7),
    "idx_thumbnails_video_id": lambda conn: ThumbnailRepository(conn).get_by_video(7),
    "idx_thumbnails_clip_id": lambda conn: ThumbnailRepository(conn).get_by_clip(7),
    "pipeline_history_pkey": lambda conn: RunRepository(conn).get(7),
    "pipeline_history_identifier_key": lambda conn: RunRepository(conn).get_by_identifier("7"),
    "idx_pipeline_history_status": lambda conn: StageQueueRepository(conn).list_identifiers_of_running_runs(),
}


@pytest.fixture(scope="module")
async def library(databases: Databases, template_url: str) -> AsyncIterator[Connection]:
    """A connection to a database with some rows in each table; nothing but reads runs on it."""
    async with open_async_connection(Settings(database_url=databases.create(template_url))) as conn:
        async with conn.transaction():
            await _fill(conn)
        await rebuild(conn, lambda done, total: None)
        await conn.execute("ANALYZE")
        await conn.execute("SET enable_seqscan = off")
        conn.cursor_factory = _RecordingCursor
        yield conn


@pytest.mark.parametrize("index", _READS)
async def test_a_read_uses_its_index(library: Connection, index: str) -> None:
    plan = await _explain(library, _READS[index])
    assert f" {index} " in plan
    assert "Seq Scan" not in plan


async def test_an_overlap_is_sought_among_the_moments_that_begin_before_the_end(library: Connection) -> None:
    plan = await _explain(library, lambda conn: MomentRepository(conn).find_overlapping_moment(7, 30.0, 40.0))
    assert " idx_moments_video_id_start_time " in plan
    assert re.search(r"Index Cond: .*video_id = .* AND \(start_time < ", plan)


async def test_the_videos_of_a_source_are_found_through_indexes(library: Connection) -> None:
    plan = await _explain(
        library, lambda conn: VideoRepository(conn).list_videos_of_source(["https://host/7"], "video-7")
    )
    for index in ("idx_videos_source_url", "videos_identifier_key"):
        assert f" {index} " in plan
    assert "Seq Scan" not in plan


async def test_the_tree_of_a_moment_is_found_through_indexes(library: Connection) -> None:
    plan = await _explain(
        library, lambda conn: MomentRepository(conn).find_overlapping_moment(7, 30.0, 40.0, excluded_moment_id=130)
    )
    assert re.search(r"Index Cond: .*video_id = .* AND \(start_time < ", plan)
    assert "Index Cond: (parent_id = moment_tree.member)" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    "filters",
    [SearchFilters(), SearchFilters(video="video-7"), SearchFilters(language="en"), SearchFilters(min_score=10)],
    ids=str,
)
async def test_words_are_looked_up_whatever_the_filters(library: Connection, filters: SearchFilters) -> None:
    conditions = Conditions([("'hello'", 1.0)], "'hello'", ["'hello'"], ["'bye'"])
    asked = AskedLexemes(["hello"], [])
    said = await _explain(library, lambda conn: SearchRepository(conn).rank_passages(conditions, filters, [1, 2]))
    titled = await _explain(library, lambda conn: SearchRepository(conn).rank_titles(conditions, filters))
    assert " idx_passages_document " in said
    assert " idx_titles_document " in titled
    others = [
        await _explain(
            library, lambda conn: SearchRepository(conn).get_passages([PassagePosition(1), PassagePosition(2)], asked)
        ),
        await _explain(library, lambda conn: SearchRepository(conn).get_videos([1, 2], asked)),
        await _explain(library, lambda conn: SearchRepository(conn).get_moments([1, 2], asked)),
        await _explain(library, lambda conn: SearchIndexRepository(conn).list_lexemes([(0, "hello")], [(0, "hello")])),
        await _explain(library, lambda conn: SearchIndexRepository(conn).count_documents_with_prefixes(["hell"])),
        await _explain(library, lambda conn: SearchIndexRepository(conn).count_unindexed(200)),
        await _explain(library, lambda conn: SearchIndexRepository(conn).lock_unindexed_transcript()),
        await _explain(library, lambda conn: SearchIndexRepository(conn).lock_unindexed_titles(200)),
    ]
    for plan in (said, titled, *others):
        assert "Seq Scan" not in plan.replace("Seq Scan on state ", "")  # which has one row


async def test_a_lineage_is_read_through_indexes(library: Connection) -> None:
    plan = await _explain(library, lambda conn: ProvenanceRepository(conn).read_lineage_json("video-7"))
    for index in (
        "videos_identifier_key",
        "transcripts_video_id_key",
        "idx_generation_configs_transcript_id",
        "generation_configs_pkey",
        "prompts_pkey",
        "idx_moments_video_id_start_time",
        "clips_moment_id_key",
        "idx_thumbnails_clip_id",
        "idx_thumbnails_video_id",
        "idx_pipeline_history_video_id_started_at",
    ):
        assert f" {index} " in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("method", "index"),
    [
        (ProvenanceRepository.list_moments_of_prompt_or_config, "idx_moments_generation_config_id"),
        (ProvenanceRepository.list_runs_of_prompt_or_config, "idx_pipeline_history_generation_config_id"),
    ],
)
async def test_what_was_made_with_a_config_is_found_through_it(
    library: Connection, method: Callable[..., Awaitable[object]], index: str
) -> None:
    of_config = await _explain(library, lambda conn: method(ProvenanceRepository(conn), 50, config_id=7))
    of_prompt = await _explain(library, lambda conn: method(ProvenanceRepository(conn), 1000, prompt_id=7))
    for plan in (of_config, of_prompt):
        assert f" {index} " in plan
        assert "Seq Scan" not in plan
    assert " idx_generation_configs_prompt_id " in of_prompt


@pytest.mark.parametrize(
    ("read", "indexes"),
    [
        (lambda conn: JobRepository(conn).get_transcript_job("video-7"), ["transcripts_video_id_key"]),
        (lambda conn: JobRepository(conn).get_moments_job("video-7"), ["idx_moments_video_id_start_time"]),
        (lambda conn: JobRepository(conn).get_refinement_job("video-7", "130"), ["idx_moments_parent_id"]),
        (lambda conn: JobRepository(conn).get_clips_job("video-7"), ["clips_moment_id_key"]),
        (
            lambda conn: MomentRepository(conn).get_clip_and_speech_times("video-7", "130", 30.0),
            ["clips_moment_id_key"],
        ),
        (
            lambda conn: RunRepository(conn).list_run_summaries("video-7", 5, before=(_NOON, 7)),
            ["idx_pipeline_history_video_id_started_at", "idx_moments_video_id_start_time", "generation_configs_pkey"],
        ),
    ],
    ids=["transcript", "generated", "refinement", "clips", "availability", "runs"],
)
async def test_a_status_is_read_through_indexes(
    library: Connection, read: Callable[[Connection], Awaitable[object]], indexes: list[str]
) -> None:
    plan = await _explain(library, read)
    for index in ("videos_identifier_key", *indexes):
        assert f" {index} " in plan
    assert "Seq Scan" not in plan


class _RecordingCursor(AsyncCursor[TupleRow]):
    last: tuple[Any, Any]

    async def execute(self, query: Any, params: Any = None, **options: Any) -> "_RecordingCursor":
        _RecordingCursor.last = (query, params)
        await super().execute(query, params, **options)
        return self


async def _explain(conn: Connection, read: Callable[[Connection], Awaitable[object]]) -> str:
    await read(conn)
    query, params = _RecordingCursor.last
    text = query if isinstance(query, str) else query.as_string(conn)
    cursor = await conn.execute("EXPLAIN (COSTS OFF) " + text, params)
    return "\n".join([f"{line} " async for (line,) in cursor])


async def _fill(conn: Connection) -> None:
    numbers = range(1, _VIDEOS + 1)
    owned = [(video, number) for video in numbers for number in range(_EACH)]
    await copy_rows(
        conn,
        "videos",
        ("identifier", "cloud_url", "source_url"),
        ({"identifier": f"video-{n}", "cloud_url": "file:///v", "source_url": f"https://host/{n}"} for n in numbers),
    )
    await conn.execute("UPDATE videos SET created_at = created_at + id * interval '1 minute'")
    await copy_rows(
        conn,
        "transcripts",
        ("video_id", "full_text", "word_timestamps", "segment_timestamps", "language"),
        (
            {
                "video_id": n,
                "full_text": "Hello",
                "word_timestamps": Jsonb([]),
                "segment_timestamps": Jsonb([]),
                "language": "en",
            }
            for n in numbers
        ),
    )
    await copy_rows(
        conn,
        "prompts",
        ("user_prompt", "system_prompt", "prompt_hash"),
        (
            {"user_prompt": f"Find {n}", "system_prompt": "JSON", "prompt_hash": prompt_hash(f"Find {n}", "JSON")}
            for n in numbers
        ),
    )
    configs: list[NewGenerationConfig] = [
        {"prompt_id": 1 + n // 10, "model": "qwen3", "operation_type": "generation", "top_k": n} for n in range(200)
    ]
    await copy_rows(
        conn,
        "generation_configs",
        (*configs[0], "config_hash"),
        ({**config, "config_hash": config_hash(**config)} for config in configs),
    )
    moments = MomentRepository(conn)
    ids = await moments.reserve_moment_ids(len(owned))
    await moments.insert_many(
        {
            "id": moment_id,
            "identifier": str(moment_id),
            "video_id": video,
            "start_time": 10.0 * number,
            "end_time": 10.0 * number + 5,
            "title": "A moment",
            "parent_id": moment_id - 1 if moment_id % 10 == 0 else None,
            "generation_config_id": 1 + moment_id % 100,
            "score": 10 if moment_id % 50 == 0 else 5,
        }
        for moment_id, (video, number) in zip(ids, owned, strict=True)
    )
    await ClipRepository(conn).insert_many(
        {"moment_id": moment_id, "video_id": video, "cloud_url": "file:///c", "start_time": 0.0, "end_time": 1.0}
        for moment_id, (video, _) in zip(ids, owned, strict=True)
    )
    await copy_rows(
        conn, "thumbnails", ("video_id", "cloud_url"), ({"video_id": n, "cloud_url": "file:///t"} for n in numbers)
    )
    await copy_rows(
        conn,
        "thumbnails",
        ("clip_id", "cloud_url"),
        ({"clip_id": n, "cloud_url": "file:///t"} for n in range(1, len(owned) + 1)),
    )
    await copy_rows(
        conn,
        "pipeline_history",
        ("identifier", "video_id", "pipeline_type", "status", "started_at"),
        (
            {
                "identifier": f"{video}-{number}",
                "video_id": video,
                "pipeline_type": "full",
                "status": "running" if (video, number) == (7, 0) else "completed",
                "started_at": _NOON + timedelta(hours=number),
            }
            for video, number in owned
        ),
    )
