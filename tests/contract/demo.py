"""One video with everything that the frontend can show."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.database import Connection
from app.models import Moment, Video
from tests.factories import (
    make_clip,
    make_generation_config,
    make_moment,
    make_prompt,
    make_run,
    make_thumbnail,
    make_transcript,
    make_video,
)
from tests.media.movies import make_movie

TRANSCRIPT: dict[str, Any] = {
    "transcription": "Oh, there we go.",
    "processing_time": 2.59,
    "word_timestamps": [
        {"word": "Oh,", "start": 5.76, "end": 5.92},
        {"word": "there", "start": 6.0, "end": 6.16},
        {"word": "we", "start": 6.24, "end": 6.4},
        {"word": "go.", "start": 6.48, "end": 6.88},
    ],
    "segment_timestamps": [{"text": "Oh, there we go.", "start": 5.76, "end": 6.88, "word_count": 4}],
    "metadata": {"total_segments": 1, "total_words": 4, "duration": 6.88},
}


@dataclass(frozen=True, slots=True)
class Demo:
    """The video, a moment that a model found in it, and what was refined from that."""

    video: Video
    coarse: Moment
    refined: Moment


async def make_demo(conn: Connection, library: Path, identifier: str = "demo-talk") -> Demo:
    """Make it with its files, in an imported library."""
    movie = make_movie(library / "videos" / f"{identifier}.mp4", seconds=2.0)
    video = await make_video(conn, identifier=identifier, cloud_url=movie.as_uri(), duration_seconds=300.0)
    _write(library / "audios" / f"{identifier}.wav", b"RIFF\0\0\0\0WAVE")
    thumbnail = _write(library / "thumbnails" / f"{identifier}.jpg", b"\xff\xd8 a picture")
    await make_thumbnail(conn, video_id=video.id, cloud_url=thumbnail.as_uri())
    await make_demo_transcript(conn, video)
    demo = await _make_moments(conn, video)
    clip = make_movie(library / "moment_clips" / f"{identifier}_{demo.coarse.identifier}_clip.mp4")
    await make_clip(conn, demo.coarse, cloud_url=clip.as_uri(), start_time=5.76, end_time=6.88)
    times = {"started_at": datetime(2026, 11, 22, 11), "completed_at": datetime(2026, 11, 22, 11, 0, 3)}
    found = {"total_moments_generated": 1, "total_clips_created": 1}
    await make_run(
        conn, video_id=video.id, identifier=f"pipeline:{identifier}:1795347063363", status="completed",
        generation_config_id=demo.coarse.generation_config_id, **times, **found,
    )  # fmt: skip
    return demo


async def make_demo_transcript(conn: Connection, video: Video) -> None:
    await make_transcript(
        conn,
        video_id=video.id,
        full_text=TRANSCRIPT["transcription"],
        word_timestamps=TRANSCRIPT["word_timestamps"],
        segment_timestamps=TRANSCRIPT["segment_timestamps"],
        processing_time_seconds=TRANSCRIPT["processing_time"],
        number_of_words=4,
        number_of_segments=1,
    )


async def _make_moments(conn: Connection, video: Video) -> Demo:
    prompt = await make_prompt(conn, user_prompt="Find the best moments.")
    asked = {"min_moment_length": 30.0, "max_moment_length": 90.0, "min_moments": 1, "max_moments": 10}
    found_with = await make_generation_config(conn, prompt_id=prompt.id, model="minimax", **asked)
    refined_with = await make_generation_config(conn, model="qwen3_vl_fp8", operation_type="refinement")
    model = "served/models/some-model"
    coarse = await make_moment(
        conn, video_id=video.id, identifier="7621a017eec7482f", start_time=1.0, end_time=35.5, title="One",
        generation_model=model, generation_config_id=found_with.id,
    )  # fmt: skip
    refined = await make_moment(
        conn, video_id=video.id, identifier="b02a2cdfa5275bb8", start_time=10.16, end_time=25.66, title="One",
        is_refined=True, parent_id=coarse.id, generation_model=model, generation_config_id=refined_with.id,
    )  # fmt: skip
    return Demo(video, coarse, refined)


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
