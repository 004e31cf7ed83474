"""What was made of a video, by five plain statements over asyncpg."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import asyncpg

_VIDEO = """
    SELECT id, identifier, title, source_url, duration_seconds, file_size_kb, video_codec, audio_codec, resolution,
           frame_rate, created_at
    FROM videos WHERE identifier = $1
    """
_TRANSCRIPT = """
    SELECT id, language, number_of_words, number_of_segments, transcription_service, processing_time_seconds,
           created_at
    FROM transcripts WHERE video_id = $1
    """
_THUMBNAIL = "SELECT id, file_size_kb, created_at FROM thumbnails WHERE video_id = $1"
_MOMENTS = """
    SELECT moments.id, moments.identifier, moments.parent_id, moments.start_time, moments.end_time, moments.title,
           moments.is_refined, moments.generation_model, moments.generation_config_id, moments.score,
           moments.scoring_model, moments.scored_at, moments.created_at, moments.updated_at,
           clips.id AS clip_id, clips.start_time AS clip_start_time, clips.end_time AS clip_end_time,
           clips.padding_left, clips.padding_right, clips.file_size_kb, clips.format, clips.video_codec,
           clips.audio_codec, clips.resolution, clips.created_at AS clip_created_at, thumbnails.id AS thumbnail_id,
           thumbnails.file_size_kb AS thumbnail_size_kb, thumbnails.created_at AS thumbnail_created_at
    FROM moments
    LEFT JOIN clips ON clips.moment_id = moments.id
    LEFT JOIN thumbnails ON thumbnails.clip_id = clips.id
    WHERE moments.video_id = $1
    ORDER BY moments.id
    """
_RUNS = """
    SELECT identifier, generation_config_id, pipeline_type, status, started_at, completed_at, duration_seconds,
           total_moments_generated, total_clips_created, error_stage, error_message, created_at
    FROM pipeline_history WHERE video_id = $1 ORDER BY started_at, identifier
    """
_CONFIGS = """
    SELECT configs.id, configs.transcript_id, configs.model, configs.operation_type, configs.temperature,
           configs.top_p, configs.top_k, configs.min_moment_length, configs.max_moment_length, configs.min_moments,
           configs.max_moments, configs.created_at, configs.prompt_id, prompts.user_prompt, prompts.system_prompt,
           prompts.created_at AS prompt_created_at
    FROM generation_configs AS configs JOIN prompts ON prompts.id = configs.prompt_id
    WHERE configs.id = ANY ($1) OR configs.transcript_id = $2
    ORDER BY configs.prompt_id, configs.id
    """

_OF_VIDEO = (
    "title",
    "source_url",
    "duration_seconds",
    "file_size_kb",
    "video_codec",
    "audio_codec",
    "resolution",
    "frame_rate",
)
_OF_MOMENT = (
    "start_time",
    "end_time",
    "title",
    "is_refined",
    "generation_config_id",
    "score",
    "scoring_model",
)
_OF_CLIP = ("padding_left", "padding_right", "file_size_kb", "format", "video_codec", "audio_codec", "resolution")
_OF_RUN = (
    "generation_config_id",
    "pipeline_type",
    "status",
    "duration_seconds",
    "total_moments_generated",
    "total_clips_created",
    "error_stage",
    "error_message",
)
_OF_CONFIG = (
    "id",
    "transcript_id",
    "model",
    "operation_type",
    "temperature",
    "top_p",
    "top_k",
    "min_moment_length",
    "max_moment_length",
    "min_moments",
    "max_moments",
)


async def read_lineage(conn: asyncpg.Connection, identifier: str) -> dict[str, Any] | None:
    video = await conn.fetchrow(_VIDEO, identifier)
    if video is None:
        return None
    transcript = await conn.fetchrow(_TRANSCRIPT, video["id"])
    thumbnail = await conn.fetchrow(_THUMBNAIL, video["id"])
    moments = await conn.fetch(_MOMENTS, video["id"])
    runs = await conn.fetch(_RUNS, video["id"])
    used = {row["generation_config_id"] for row in (*moments, *runs)} - {None}
    configs = await conn.fetch(_CONFIGS, list(used), transcript and transcript["id"])
    tops = _build_trees(moments)
    return {
        "id": identifier,
        **_pick(video, _OF_VIDEO),
        "created_at": _utc(video["created_at"]),
        "thumbnail": thumbnail and {**thumbnail, "created_at": _utc(thumbnail["created_at"])},
        "transcript": transcript and {**transcript, "created_at": _utc(transcript["created_at"])},
        "prompts": _group(configs, tops),
        "by_hand": tops.get(None, []),
        "runs": [_show_run(run) for run in runs],
    }


def _build_trees(rows: Iterable[asyncpg.Record]) -> dict[int | None, list[dict[str, Any]]]:
    """Return the moments that refine no other one, by config, each with its refinements below it."""
    rows = list(rows)
    identifiers = {row["id"]: row["identifier"] for row in rows}
    shown = {row["id"]: _show_moment(row, identifiers) for row in rows}
    tops: dict[int | None, list[dict[str, Any]]] = {}
    for row in rows:
        if row["parent_id"] is None:
            tops.setdefault(row["generation_config_id"], []).append(shown[row["id"]])
        else:
            shown[row["parent_id"]]["refinements"].append(shown[row["id"]])
    return tops


def _group(rows: Iterable[asyncpg.Record], tops: dict[int | None, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    prompts: dict[int, dict[str, Any]] = {}
    for row in rows:
        prompt = prompts.setdefault(
            row["prompt_id"],
            {
                "id": row["prompt_id"],
                "user_prompt": row["user_prompt"],
                "system_prompt": row["system_prompt"],
                "created_at": _utc(row["prompt_created_at"]),
                "configs": [],
            },
        )
        config = {**_pick(row, _OF_CONFIG), "created_at": _utc(row["created_at"]), "moments": tops.get(row["id"], [])}
        prompt["configs"].append(config)
    return list(prompts.values())


def _show_moment(row: asyncpg.Record, identifiers: dict[int, str]) -> dict[str, Any]:
    return {
        "id": row["identifier"],
        "parent_id": identifiers.get(row["parent_id"]),
        **_pick(row, _OF_MOMENT),
        "model_name": row["generation_model"],
        "scored_at": _utc(row["scored_at"]),
        "created_at": _utc(row["created_at"]),
        "updated_at": _utc(row["updated_at"]),
        "clip": None if row["clip_id"] is None else _show_clip(row),
        "refinements": [],
    }


def _show_clip(row: asyncpg.Record) -> dict[str, Any]:
    thumbnail = {
        "id": row["thumbnail_id"],
        "file_size_kb": row["thumbnail_size_kb"],
        "created_at": _utc(row["thumbnail_created_at"]),
    }
    return {
        "id": row["clip_id"],
        "start_time": row["clip_start_time"],
        "end_time": row["clip_end_time"],
        **_pick(row, _OF_CLIP),
        "created_at": _utc(row["clip_created_at"]),
        "thumbnail": None if row["thumbnail_id"] is None else thumbnail,
    }


def _show_run(row: asyncpg.Record) -> dict[str, Any]:
    times = {name: _utc(row[name]) for name in ("started_at", "completed_at", "created_at")}
    return {"id": row["identifier"], **_pick(row, _OF_RUN), **times}


def _pick(row: asyncpg.Record, names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
