"""The data that is measured over: a library of 1,000 videos, the same as a legacy folder, 20,000 bare videos, and
4,000 short ones with files."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

from app.core.config import Settings
from app.database import open_async_connection
from app.services.search_index import rebuild
from tests.media.movies import make_movie
from tests.performance.text import Speech

WORDS = 3000
SEGMENTS = 250
ORIGINALS = 14
REFINED = 6
# Moments are found in the first 1,500 seconds; those that the measurement adds lie behind, where all is free.
FREE_FROM_SECONDS = 2000
DURATION_SECONDS = 7200.0
_SHORT_SECONDS = 0.2

_ROOT = Path(__file__).resolve().parents[2]
_TICK_SECONDS = 0.08  # of the speech model; its times are sums of these, with the noise of floats
_USER_PROMPT = "Analyze the following video transcript and identify the most interesting or important moments."
_MODEL_NAME = "/srv/models/qwen3-vl-235b-thinking-fp8"


@dataclass(frozen=True)
class Recording:
    """One video with all that belongs to it, its documents in the legacy form."""

    identifier: str
    title: str | None
    transcript: dict[str, Any]
    moments: list[dict[str, Any]]


def record_library(speech: Speech, videos: int) -> Iterator[Recording]:
    """Yield `videos` recordings, always the same ones for the same seed."""
    for number in range(videos):
        identifier = f"talk-{number:05d}-{speech.random.getrandbits(32):08x}"
        title = speech.title() if number % 2 else None
        transcript = _transcribe(speech)
        yield Recording(identifier, title, transcript, list(_find_moments(speech, identifier, transcript)))


def _transcribe(speech: Speech) -> dict[str, Any]:
    said = speech.say(WORDS)
    clock = 0.16
    words = []
    for word in said:
        end = clock + speech.random.randint(1, 6) * _TICK_SECONDS
        words.append({"word": word, "start": clock, "end": end})
        clock = end + speech.random.randint(0, 4) * _TICK_SECONDS
    segments = [_segment(words[at : at + WORDS // SEGMENTS]) for at in range(0, WORDS, WORDS // SEGMENTS)]
    return {
        "transcription": " ".join(said),
        "processing_time": round(speech.random.uniform(5, 60), 2),
        "word_timestamps": words,
        "segment_timestamps": segments,
        "metadata": {"total_segments": len(segments), "total_words": len(words), "duration": words[-1]["end"]},
    }


def _segment(words: list[dict[str, Any]]) -> dict[str, Any]:
    text = " ".join(word["word"] for word in words)
    return {"text": text, "start": words[0]["start"], "end": words[-1]["end"], "word_count": len(words)}


def _find_moments(speech: Speech, identifier: str, transcript: dict[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = (
        f"You MUST output ONLY a JSON array.\n\n{_USER_PROMPT}\n\n{identifier}\n{transcript['transcription'][:4000]}"
    )
    originals = []
    for number in range(ORIGINALS):
        start = number * 100 + speech.random.randint(0, 4000) / 100
        originals.append(_moment(speech, start, 30.0, prompt))
        yield originals[-1]
    for original in originals[:REFINED]:
        start = original["start_time"] + speech.random.randint(1, 300) / 100
        yield _moment(speech, start, 20.0, prompt, parent=original["id"])


def _moment(speech: Speech, start: float, shortest: float, prompt: str, parent: str | None = None) -> dict[str, Any]:
    end = start + shortest + speech.random.randint(0, 2000) / 100
    lengths = {"min_moment_length": 30.0, "max_moment_length": 90.0, "min_moments": 1, "max_moments": 14}
    return {
        "start_time": start,
        "end_time": end,
        "title": speech.title(),
        "id": hashlib.sha256(f"{start:.2f}_{end:.2f}".encode()).hexdigest()[:16],
        "is_refined": parent is not None,
        "parent_id": parent,
        "model_name": _MODEL_NAME,
        "generation_config": {
            "model": "qwen3_vl_fp8",
            "temperature": 0.7,
            "user_prompt": _USER_PROMPT,
            "complete_prompt": prompt,
            **({} if parent else lengths),
            "operation_type": "refinement" if parent else "generation",
        },
    }


def migrate(url: str) -> None:
    """Bring the database at `url` to this project's schema."""
    upgrade = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=_ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stderr=subprocess.PIPE,
        check=False,
    )
    if upgrade.returncode != 0:
        raise SystemExit(upgrade.stderr.decode())


def load_library(url: str, recordings: Iterable[Recording]) -> None:
    """Write recordings into a migrated, empty database, straight into its tables."""
    with psycopg.connect(url) as conn:
        numbers = random.Random(1)  # noqa: S311  data, not keys
        for video_id, recording in enumerate(recordings, start=1):
            _insert_video(conn, video_id, recording)
            _insert_moments(conn, video_id, recording.moments, numbers)
        conn.execute("SELECT setval('videos_id_seq', (SELECT max(id) FROM videos))")
        _insert_what_was_made(conn)


async def index_library(url: str) -> None:
    """Index all transcripts and titles for searching."""
    async with open_async_connection(Settings(database_url=url)) as conn:
        await rebuild(conn, lambda done, total: None)


def load_bare_videos(url: str, count: int) -> None:
    """Write `count` videos without anything else."""
    with psycopg.connect(url) as conn:
        conn.execute(
            """
            INSERT INTO videos (identifier, cloud_url, title, duration_seconds, audio_codec)
            SELECT md5(number::text), format('file:///library/videos/%%s.mp4', md5(number::text)),
                   format('Talk %%s', number), 600, 'aac'
            FROM generate_series(1, %s) AS number
            """,
            [count],
        )


def load_short_videos(url: str, media: Path, count: int) -> None:
    """Write `count` videos of 0.2 seconds with audio, whose files, links to a single one, are all that `media` holds.

    Their codecs are not known, so that no worker looks at the files before a run does.
    """
    shutil.rmtree(media, ignore_errors=True)
    movie = make_movie(media / "videos" / "0.mp4", _SHORT_SECONDS)
    paths = [media / "videos" / f"{number}.mp4" for number in range(1, count + 1)]
    for path in paths:
        path.hardlink_to(movie)
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO videos (identifier, cloud_url, duration_seconds) VALUES (%s, %s, %s)",
            [(f"short-{path.stem}", path.as_uri(), _SHORT_SECONDS) for path in paths],
        )


def write_legacy_folder(folder: Path, recordings: Iterable[Recording]) -> None:
    """Write recordings as the previous backend kept them: one file for each transcript and for each video's moments."""
    for name in ("videos", "transcripts", "moments"):
        (folder / name).mkdir(parents=True)
    for recording in recordings:
        name = f"{recording.identifier}.json"
        (folder / "transcripts" / name).write_bytes(orjson.dumps(recording.transcript, option=orjson.OPT_INDENT_2))
        (folder / "moments" / name).write_bytes(orjson.dumps(recording.moments, option=orjson.OPT_INDENT_2))


def _insert_video(conn: psycopg.Connection[Any], video_id: int, recording: Recording) -> None:
    transcript = recording.transcript
    conn.execute(
        """
        INSERT INTO videos (id, identifier, source_url, cloud_url, title, duration_seconds, file_size_kb, video_codec,
                            audio_codec, resolution, frame_rate)
        VALUES (%s, %s, %s, %s, %s, %s, 250000, 'h264', 'aac', '1920x1080', 30)
        """,
        [
            video_id,
            recording.identifier,
            f"https://cdn.example/talks/{recording.identifier}.mp4",
            f"file:///library/videos/{recording.identifier}.mp4",
            recording.title,
            DURATION_SECONDS,
        ],
    )
    if video_id % 4:
        conn.execute(
            "INSERT INTO thumbnails (video_id, cloud_url) VALUES (%s, %s)",
            [video_id, f"file:///library/thumbnails/{recording.identifier}.jpg"],
        )
    conn.execute(
        """
        INSERT INTO transcripts (id, video_id, full_text, word_timestamps, segment_timestamps, number_of_words,
                                 number_of_segments, transcription_service, processing_time_seconds)
        VALUES (%(id)s, %(id)s, %(text)s, %(words)s, %(segments)s, %(word_count)s, %(segment_count)s, 'parakeet',
                %(seconds)s)
        """,
        {
            "id": video_id,
            "text": transcript["transcription"],
            "words": Jsonb(transcript["word_timestamps"], orjson.dumps),
            "segments": Jsonb(transcript["segment_timestamps"], orjson.dumps),
            "word_count": transcript["metadata"]["total_words"],
            "segment_count": transcript["metadata"]["total_segments"],
            "seconds": transcript["processing_time"],
        },
    )


def _insert_moments(
    conn: psycopg.Connection[Any], video_id: int, moments: list[dict[str, Any]], numbers: random.Random
) -> None:
    prompt = moments[0]["generation_config"]["complete_prompt"]
    conn.execute(
        "INSERT INTO prompts (id, user_prompt, system_prompt, prompt_hash) VALUES (%s, %s, %s, %s)",
        [video_id, _USER_PROMPT, prompt, hashlib.sha256((_USER_PROMPT + prompt).encode()).hexdigest()],
    )
    identifiers = {moment["id"]: f"{numbers.getrandbits(64):016x}" for moment in moments}
    rows: dict[str, int] = {}
    configs: dict[str, int] = {}
    for moment in moments:
        operation = moment["generation_config"]["operation_type"]
        if operation not in configs:
            configs[operation] = _insert_config(conn, video_id, moment["generation_config"])
        cursor = conn.execute(
            """
            INSERT INTO moments (identifier, video_id, start_time, end_time, title, is_refined, parent_id,
                                 generation_model, generation_config_id)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
            """,
            [
                identifiers[moment["id"]],
                video_id,
                moment["start_time"],
                moment["end_time"],
                moment["title"],
                moment["is_refined"],
                rows.get(moment["parent_id"]),
                moment["model_name"],
                configs[operation],
            ],
        )
        (rows[moment["id"]],) = next(cursor)


def _insert_config(conn: psycopg.Connection[Any], prompt_id: int, config: dict[str, Any]) -> int:
    names = ("model", "operation_type", "temperature")
    limits = ("min_moment_length", "max_moment_length", "min_moments", "max_moments")
    values = [config.get(name) for name in (*names, *limits)]
    cursor = conn.execute(
        f"""
        INSERT INTO generation_configs (prompt_id, transcript_id, config_hash, {", ".join((*names, *limits))})
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        [prompt_id, prompt_id, hashlib.sha256(repr((prompt_id, values)).encode()).hexdigest(), *values],
    )
    (config_id,) = next(cursor)
    return int(config_id)


def _insert_what_was_made(conn: psycopg.Connection[Any]) -> None:
    """Give each original moment a clip with its thumbnail, and each video the run that made them."""
    conn.execute(
        """
        INSERT INTO clips (moment_id, video_id, cloud_url, start_time, end_time, file_size_kb, format, video_codec,
                           audio_codec, resolution)
        SELECT id, video_id, format('file:///library/clips/%s.mp4', identifier), start_time, end_time, 9000, 'mp4',
               'h264', 'aac', '1920x1080'
        FROM moments WHERE NOT is_refined ORDER BY id
        """
    )
    conn.execute(
        """
        INSERT INTO thumbnails (clip_id, cloud_url, file_size_kb)
        SELECT id, format('file:///library/thumbnails/clip-%s.jpg', id), 40 FROM clips ORDER BY id
        """
    )
    conn.execute(
        """
        INSERT INTO pipeline_history (identifier, video_id, generation_config_id, pipeline_type, status, started_at,
                                      completed_at, duration_seconds, total_moments_generated, total_clips_created)
        SELECT format('run-%s', video_id), video_id, min(generation_config_id), 'full', 'completed', '2026-01-01',
               '2026-01-01 00:05', 300, count(*), count(*) FILTER (WHERE NOT is_refined)
        FROM moments GROUP BY video_id ORDER BY video_id
        """
    )
