"""What a driver alone can do: the same answers from hand-written SQL over asyncpg, put into bytes by orjson.

The pool is as it comes: it resets a connection that is given back, which is four of the statements that are counted.
A run is one row in one statement, and after it one entry in a Redis stream; nothing keeps two from starting at once.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from redis.asyncio import Redis

from tests.performance.peer_raw_lineage import read_lineage

_VIDEOS = """
    SELECT identifier, cloud_url, title,
           EXISTS (SELECT FROM transcripts WHERE video_id = videos.id) AS has_transcript,
           EXISTS (SELECT FROM thumbnails WHERE video_id = videos.id) AS has_thumbnail
    FROM videos
    """
_MOMENTS = """
    SELECT moments.identifier, moments.start_time, moments.end_time, moments.title, moments.is_refined,
           parents.identifier AS parent_id, moments.generation_model, moments.generation_config_id, model, temperature,
           top_p, top_k, operation_type, user_prompt, min_moment_length, max_moment_length, min_moments, max_moments
    FROM videos
    JOIN moments ON moments.video_id = videos.id
    LEFT JOIN moments AS parents ON parents.id = moments.parent_id
    LEFT JOIN generation_configs ON generation_configs.id = moments.generation_config_id
    LEFT JOIN prompts ON prompts.id = prompt_id
    WHERE videos.identifier = $1
    ORDER BY moments.id
    """
_CONFIG = (
    "model",
    "temperature",
    "top_p",
    "top_k",
    "operation_type",
    "user_prompt",
    "min_moment_length",
    "max_moment_length",
    "min_moments",
    "max_moments",
)
_TRANSCRIPT = """
    SELECT full_text, processing_time_seconds, word_timestamps, segment_timestamps, number_of_words,
           number_of_segments, (segment_timestamps -> -1 -> 'end')::float8 AS duration
    FROM transcripts WHERE video_id = (SELECT id FROM videos WHERE identifier = $1)
    """
_SEARCH = """
    SELECT identifier, title, ts_rank(to_tsvector('english', full_text), query) AS rank,
           ts_headline('english', full_text, query) AS snippet
    FROM transcripts JOIN videos ON videos.id = video_id, websearch_to_tsquery('english', $1) AS query
    WHERE to_tsvector('english', full_text) @@ query
    ORDER BY rank DESC, transcripts.id
    LIMIT $2
    """
_OVERLAP = """
    SELECT title, start_time, end_time FROM moments
    WHERE video_id = $1 AND start_time < $3 AND end_time > $2 ORDER BY id LIMIT 1
    """
_RUN_MATERIAL = """
    SELECT id, cloud_url,
           EXISTS (SELECT FROM pipeline_history WHERE video_id = videos.id AND status = 'running'
                   AND pipeline_type IN ('full', 'audio_only')) AS is_running
    FROM videos WHERE identifier = $1
    """
_INSERT_RUN = """
    INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
    VALUES ($1, $2, 'audio_only', 'running', $3)
    """
_INSERT = "INSERT INTO moments (identifier, video_id, start_time, end_time, title) VALUES ($1, $2, $3, $4, $5)"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=5, max_size=15) as pool:
        app.state.pool = pool
        app.state.redis = Redis.from_url(os.environ["REDIS_URL"])
        yield
        await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/api/videos")
async def list_videos(request: Request, limit: int | None = None, cursor: str = "") -> Response:
    rows = await request.app.state.pool.fetch(
        _VIDEOS + "WHERE identifier > $1 ORDER BY identifier LIMIT $2", cursor, limit
    )
    headers = {}
    if limit is not None and len(rows) == limit:
        headers["Link"] = f'</api/videos?limit={limit}&cursor={rows[-1]["identifier"]}>; rel="next"'
    return answer([show_video(row) for row in rows], headers=headers)


@app.get("/api/videos/{identifier}")
async def get_video(request: Request, identifier: str) -> Response:
    row = await request.app.state.pool.fetchrow(_VIDEOS + "WHERE identifier = $1", identifier)
    if row is None:
        raise HTTPException(404, "Video not found")
    return answer(show_video(row))


@app.get("/api/videos/{identifier}/moments")
async def list_moments(request: Request, identifier: str) -> Response:
    rows = await request.app.state.pool.fetch(_MOMENTS, identifier)
    if not rows:
        await get_video(request, identifier)
    return answer([show_moment(row) for row in rows])


@app.post("/api/videos/{identifier}/moments")
async def add_moment(request: Request, identifier: str) -> Response:
    body = orjson.loads(await request.body())
    start, end, title = float(body["start_time"]), float(body["end_time"]), str(body["title"])
    moment_id = secrets.token_hex(8)
    async with request.app.state.pool.acquire() as conn, conn.transaction():
        video = await conn.fetchrow(
            "SELECT id, duration_seconds FROM videos WHERE identifier = $1 FOR NO KEY UPDATE", identifier
        )
        if video is None:
            raise HTTPException(404, "Video not found")
        check_moment(start, end, title, video["duration_seconds"])
        other = await conn.fetchrow(_OVERLAP, video["id"], start, end)
        if other is not None:
            times = f"({other['start_time']}s - {other['end_time']}s)"
            raise HTTPException(400, f"Moment overlaps with existing moment '{other['title']}' {times}")
        await conn.execute(_INSERT, moment_id, video["id"], start, end, title)
    return answer(
        {
            "id": moment_id,
            "start_time": start,
            "end_time": end,
            "title": title,
            "is_refined": False,
            "parent_id": None,
            "model_name": None,
            "generation_config": None,
        },
        status=201,
    )


@app.post("/api/videos/{identifier}/process-audio")
async def process_audio(request: Request, identifier: str) -> Response:
    async with request.app.state.pool.acquire() as conn:
        video = await conn.fetchrow(_RUN_MATERIAL, identifier)
        if video is None:
            raise HTTPException(404, "Video not found")
        if video["is_running"]:
            raise HTTPException(409, "Audio processing already in progress for this video")
        check_files(identifier, Path(urlsplit(video["cloud_url"]).path))
        now = datetime.now(UTC)
        run = f"pipeline:{identifier}:{int(now.timestamp() * 1000)}"
        await conn.execute(_INSERT_RUN, run, video["id"], now.replace(tzinfo=None))
    await request.app.state.redis.xadd("peer:raw", {"run": run}, maxlen=10_000)
    return answer({"message": "Audio processing started", "video_id": identifier})


@app.get("/api/videos/{identifier}/transcript")
async def get_transcript(request: Request, identifier: str) -> Response:
    row = await request.app.state.pool.fetchrow(_TRANSCRIPT, identifier)
    if row is None:
        await get_video(request, identifier)
        raise HTTPException(404, "Transcript not found for this video")
    return answer(
        {
            "transcription": row["full_text"],
            "processing_time": row["processing_time_seconds"],
            "word_timestamps": orjson.Fragment(row["word_timestamps"]),
            "segment_timestamps": orjson.Fragment(row["segment_timestamps"]),
            "metadata": {
                "total_segments": row["number_of_segments"],
                "total_words": row["number_of_words"],
                "duration": row["duration"],
            },
        }
    )


@app.get("/api/videos/{identifier}/lineage")
async def get_lineage(request: Request, identifier: str) -> Response:
    async with request.app.state.pool.acquire() as conn:
        lineage = await read_lineage(conn, identifier)
    if lineage is None:
        raise HTTPException(404, "Video not found")
    return answer(lineage)


@app.get("/api/search")
async def search(request: Request, q: str, limit: int = 20) -> Response:
    rows = await request.app.state.pool.fetch(_SEARCH, q, limit)
    hits = [
        {
            "video_id": row["identifier"],
            "video_title": row["title"] or derive_title(row["identifier"]),
            "rank": row["rank"],
            "snippet": row["snippet"],
        }
        for row in rows
    ]
    return answer({"query": q, "hits": hits})


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def show_video(row: asyncpg.Record) -> dict[str, Any]:
    identifier = row["identifier"]
    return {
        "id": identifier,
        "filename": PurePosixPath(row["cloud_url"]).name,
        "title": row["title"] or derive_title(identifier),
        "thumbnail_url": f"/static/thumbnails/{identifier}.jpg" if row["has_thumbnail"] else None,
        "has_audio": False,  # no audio is extracted in the data that is measured over
        "has_transcript": row["has_transcript"],
    }


def show_moment(row: asyncpg.Record) -> dict[str, Any]:
    config = {name: row[name] for name in _CONFIG if row[name] is not None}
    return {
        "id": row["identifier"],
        "start_time": row["start_time"],
        "end_time": row["end_time"],
        "title": row["title"],
        "is_refined": row["is_refined"],
        "parent_id": row["parent_id"],
        "model_name": row["generation_model"],
        "generation_config": config if row["generation_config_id"] is not None else None,
    }


def derive_title(identifier: str) -> str:
    return identifier.replace("-", " ").replace("_", " ").title()


def check_files(identifier: str, file: Path) -> None:
    if (file.parents[1] / "audio" / f"{identifier}.wav").exists():
        raise HTTPException(400, "Audio file already exists for this video")
    if not file.exists():
        raise HTTPException(400, "The video file is missing, so its audio cannot be extracted")


def check_moment(start: float, end: float, title: str, duration: float | None) -> None:
    if not title.strip():
        raise HTTPException(400, "title must be a non-empty string")
    if start < 0:
        raise HTTPException(400, "start_time must be >= 0")
    if duration is not None and end > duration:
        raise HTTPException(400, f"end_time must be <= video duration ({duration} seconds)")
    if end <= start:
        raise HTTPException(400, "end_time must be greater than start_time")
    if end - start > 120:
        raise HTTPException(400, f"Moment duration ({end - start} seconds) exceeds maximum of 120 seconds (2 minutes)")
