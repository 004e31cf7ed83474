"""A library of the previous backend, written for a test: every file in the form that backend gave it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.media.movies import make_movie

SEGMENTS: list[dict[str, Any]] = [
    {"text": "we begin with a question", "start": 0.0, "end": 2.4, "word_count": 5},
    {"text": "and we end with an answer that nobody had", "start": 2.5, "end": 6.9, "word_count": 9},
]
TEXT = " ".join(segment["text"] for segment in SEGMENTS)
WORDS: list[dict[str, Any]] = [
    {"word": word, "start": number * 0.5, "end": number * 0.5 + 0.4} for number, word in enumerate(TEXT.split())
]


def legacy_id(start: float, end: float) -> str:
    """The previous backend's id: a hash of the two times."""
    return hashlib.sha256(f"{start:.2f}_{end:.2f}".encode()).hexdigest()[:16]


def make_row(start: float = 10.0, end: float = 40.0, **values: Any) -> dict[str, Any]:
    """An original, found by a model; `values` replace fields, and `...` leaves one out."""
    row = {
        "start_time": start,
        "end_time": end,
        "title": "A question",
        "id": legacy_id(start, end),
        "is_refined": False,
        "parent_id": None,
        "model_name": "/srv/models/large",
        "generation_config": make_config(),
    }
    return {name: value for name, value in (row | values).items() if value is not ...}


def make_refined(parent: dict[str, Any], start: float, end: float, **values: Any) -> dict[str, Any]:
    """A row refined from `parent`."""
    defaults = {"is_refined": True, "parent_id": parent["id"], "generation_config": make_refinement_config(parent)}
    return make_row(start, end, **(defaults | values))


def make_config(**values: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": "large_fp8",
        "temperature": 0.7,
        "user_prompt": "Find what people will talk about.",
        "min_moment_length": 30.0,
        "max_moment_length": 90.0,
        "min_moments": 1,
        "max_moments": 3,
        "operation_type": "generation",
    } | values
    config.setdefault("complete_prompt", generation_prompt(config["user_prompt"]))
    return config


def make_refinement_config(parent: dict[str, Any], **values: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": "large_fp8",
        "temperature": 0.7,
        "user_prompt": "Find the exact start and end.",
        "padding": 30.0,
        "clip_start": 0.0,
        "clip_end": 6.9,
        "timestamp_offset": 0.0,
        "operation_type": "refinement",
        "video_included": False,
        "video_clip_url": None,
    } | values
    config.setdefault("complete_prompt", refinement_prompt(config["user_prompt"], parent))
    return config


def generation_prompt(user_prompt: str | None, segments: Sequence[dict[str, Any]] = SEGMENTS) -> str:
    """A prompt in the layout of the previous backend, in other words."""
    lines = "\n".join(f"[{segment['start']:.2f}] {segment['text']}" for segment in segments)
    return f"""ANSWER WITH A LIST AND WITH NOTHING ELSE: [ ... ]

{user_prompt}

HOW TO READ IT:
Format: [seconds] text

Example:
[1.00] This is how it looks
[2.50] and so it goes on

Transcript segments:
{lines}

THE ANSWER:
[{{"start_time": 0.5, "end_time": 1.5, "title": "{{title:.10}}"}}]

CONSTRAINTS:
- Video duration: 67.73 seconds
- Moment length: Between 30.00 and 90.00 seconds
- Number of moments: Between 1 and 3
- All end_time values must be <= 67.73"""


def refinement_prompt(user_prompt: str | None, parent: dict[str, Any], words: Sequence[dict[str, Any]] = WORDS) -> str:
    """As `generation_prompt`; a missing user prompt became the word None."""
    lines = "\n".join(f"[{word['start']:.2f}-{word['end']:.2f}] {word['word']}" for word in words)
    return f"""ANSWER WITH AN OBJECT AND WITH NOTHING ELSE: {{ ... }}

THE TASK:
- Title: "{parent["title"]}"
- Current start time: {parent["start_time"]:.2f} seconds
- Current end time: {parent["end_time"]:.2f} seconds

- The clip starts at 0.00 seconds
- The clip ends at 6.90 seconds
- Answer in the same coordinate system (0.00 to 6.90)

{user_prompt}

Example:
[5.12-5.48] rather
[5.50-5.60] than

Word-level transcript:
{lines}

THE ANSWER:
- The end_time must be <= {{clip_end:.2f}}
Only {{{{ ... }}}}."""


def make_transcript(**values: Any) -> dict[str, Any]:
    transcript: dict[str, Any] = {
        "transcription": TEXT,
        "processing_time": 2.59,
        "word_timestamps": WORDS,
        "segment_timestamps": SEGMENTS,
    } | values
    words, segments = transcript["word_timestamps"], transcript["segment_timestamps"]
    transcript.setdefault(
        "metadata",
        {"total_segments": len(segments), "total_words": len(words), "duration": words[-1]["end"] if words else 0},
    )
    return transcript


class LegacyLibrary:
    """A `static/` folder to be filled."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def add(self, path: str, content: str | bytes | list[Any] | dict[str, Any]) -> Path:
        """Write a file: lists and objects as the JSON of the previous backend, NaN and all."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
            target.write_bytes(text.encode(errors="surrogatepass"))
        return target

    def add_moments(self, video: str, *rows: Any) -> Path:
        return self.add(f"moments/{video}.json", list(rows))

    def add_transcript(self, video: str, **values: Any) -> Path:
        return self.add(f"transcripts/{video}.json", make_transcript(**values))

    def add_video(self, name: str, seconds: float = 1.0) -> Path:
        return make_movie(self.root / "videos" / name, seconds=seconds, audio_codec=None)

    def add_thumbnail(self, video: str, size: int = 3000) -> Path:
        return self.add(f"thumbnails/{video}.jpg", b"\xff\xd8" + bytes(size - 2))

    def add_registry(self, *entries: dict[str, Any], **others: Any) -> Path:
        latest = {entry["url_hash"]: entry["video_id"] for entry in entries if "url_hash" in entry}
        return self.add("url_registry.json", {"entries": entries, "url_to_latest_video_id": latest} | others)


def make_registry_entry(video: str, url: str, **values: Any) -> dict[str, Any]:
    return {
        "url": url,
        "url_hash": hashlib.sha256(url.encode()).hexdigest(),
        "video_id": video,
        "file_size": 31_256_307,
        "downloaded_at": "2026-01-20T18:19:22Z",
        "force_downloaded": False,
    } | values


def make_run(**values: Any) -> dict[str, Any]:
    return {
        "request_id": "pipeline:talk:1769000000000",
        "video_id": "talk",
        "status": "completed",
        "model": "large_fp8",
        "started_at": 1769000000.5,
        "completed_at": 1769000060.5,
        "total_duration_seconds": 60.0,
        "stages": {"audio": {"status": "completed", "skipped": False, "started_at": 1769000001.0}},
        "result": {},
        "error_stage": None,
        "error_message": None,
    } | values


def fill(legacy: LegacyLibrary) -> None:
    """One video with everything, one with only a transcript, one with only moments, one with only an address."""
    original = make_row(10.0, 40.0, clip_signed_url="https://storage.googleapis.com/films/clips/talk/c.mp4?X-Goog-S=1")
    refined = make_refined(original, 12.0, 38.0)
    legacy.add_video("talk.mp4")
    legacy.add_transcript("talk")
    legacy.add_moments(
        "talk",
        original,
        refined,
        refined,
        make_refined(original, 10.0, 40.0),
        {"start_time": 1, "end_time": 2, "title": "B"},
    )
    legacy.add_thumbnail("talk")
    legacy.add("pipeline_history/talk.json", [make_run(), make_run(request_id="", started_at=0)])
    legacy.add_transcript("silent", transcription="", word_timestamps=[], segment_timestamps=[])
    legacy.add_moments("Kevin Hart", make_row(10.0, 40.0, generation_config=None))
    legacy.add_registry(make_registry_entry("far", "gs://films/videos/far.mp4"))
