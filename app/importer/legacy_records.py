"""The other JSON files of a legacy library: the URL registry, transcripts and the history of pipeline runs."""

import json
import reprlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.core.text import to_nfc
from app.importer.legacy_files import (
    JsonDocument,
    UnreadableFile,
    explain_invalid_identifier,
    find_unstorable_value,
    to_finite_number,
    to_storable_text,
)
from app.importer.report import EntryKind, FileReporter

_NO_COLUMN = "the table has no column for this"
_REGISTRY_COLUMNS = frozenset({"url", "video_id"})


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """The URL that a video was downloaded from, and the size of the downloaded file in bytes."""

    url: str
    file_size: int | None


def parse_url_registry(document: JsonDocument, reporter: FileReporter) -> dict[str, RegisteredSource]:
    """Return each video's newest source by identifier, and report the rest. Raises `UnreadableFile`."""
    registry = document.value
    if not isinstance(registry, dict) or not isinstance(registry.get("entries"), list):
        raise UnreadableFile("it holds no object with a list of entries")
    newest_sources: dict[str, tuple[str, RegisteredSource]] = {}
    for row, entry in enumerate(registry["entries"], start=1):
        if problem := _explain_refused_registry_entry(entry):
            reporter.add_entry(EntryKind.REFUSED, problem, entry, row)
        else:
            _keep_newest_source(newest_sources, entry, row, reporter)
    if dropped := _find_unstored_registry_values(registry):
        reporter.add_entry(EntryKind.DROPPED, "the entries say nothing of this", dropped)
    return {identifier: source for identifier, (_, source) in newest_sources.items()}


def _explain_refused_registry_entry(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "no object"
    if not isinstance(entry.get("video_id"), str):
        return "no video_id"
    if problem := explain_invalid_identifier(entry["video_id"]):
        return f"video_id cannot be a video's id: {problem}"
    return None if to_storable_text(entry.get("url")) else "url is no text that can be stored"


def _keep_newest_source(
    newest_sources: dict[str, tuple[str, RegisteredSource]], entry: dict[str, Any], row: int, reporter: FileReporter
) -> None:
    """Add an entry's source, replacing an older one of its video; `newest_sources` has (download time, source)."""
    identifier, downloaded_at = to_nfc(entry["video_id"]), str(entry.get("downloaded_at") or "")
    size = entry.get("file_size")
    source = RegisteredSource(entry["url"], size if isinstance(size, int) and 0 <= size < 2**62 else None)
    older = newest_sources.get(identifier)
    if older is None or downloaded_at >= older[0]:
        newest_sources[identifier] = (downloaded_at, source)
    if older is not None:
        newest_url = newest_sources[identifier][1].url
        older_url = older[1].url if newest_sources[identifier][1] is source else source.url
        if older_url != newest_url:
            reason = f"{identifier} was downloaded from here before {newest_url}"
            reporter.add_entry(EntryKind.DROPPED, reason, older_url, row)
    if dropped := {name: value for name, value in entry.items() if name not in _REGISTRY_COLUMNS}:
        reporter.add_entry(EntryKind.DROPPED, _NO_COLUMN, {"video_id": identifier, **dropped}, row)


def _find_unstored_registry_values(registry: dict[str, Any]) -> dict[str, Any]:
    dropped = {name: item for name, item in registry.items() if name not in ("entries", "url_to_latest_video_id")}
    latest = registry.get("url_to_latest_video_id")
    known = {(entry.get("url_hash"), entry.get("video_id")) for entry in registry["entries"] if isinstance(entry, dict)}
    if not isinstance(latest, dict):
        dropped |= {"url_to_latest_video_id": latest} if latest is not None else {}
    elif others := {name: video for name, video in latest.items() if (name, video) not in known}:
        dropped["url_to_latest_video_id"] = others
    return dropped


# The previous backend had one transcription service and named it nowhere in its files.
TRANSCRIPTION_SERVICE = "parakeet"
_TRANSCRIPT_COLUMNS = frozenset(
    {"transcription", "processing_time", "word_timestamps", "segment_timestamps", "metadata"}
)


@dataclass(frozen=True, slots=True)
class LegacyTranscript:
    """A transcript: words are `{"word", "start", "end"}`, segments `{"text", "start", "end"}`, times in seconds."""

    full_text: str
    words: list[dict[str, Any]]
    segments: list[dict[str, Any]]
    processing_time_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "transcription": self.full_text,
            "word_timestamps": self.words,
            "segment_timestamps": self.segments,
            "processing_time": self.processing_time_seconds,
        }


def parse_transcript(document: JsonDocument, reporter: FileReporter) -> LegacyTranscript:
    """Return the transcript, and report values without a column. Raises `UnreadableFile`."""
    value = document.value
    if not isinstance(value, dict):
        raise UnreadableFile("it holds no object")
    full_text = value.get("transcription")
    if not isinstance(full_text, str):
        raise UnreadableFile("its transcription is no text")
    words = _get_list_of_objects(value, "word_timestamps")
    segments = _get_list_of_objects(value, "segment_timestamps")
    stored = {"transcription": full_text, "word_timestamps": words, "segment_timestamps": segments}
    if not document.is_storable and (flaw := find_unstorable_value(stored)):
        raise UnreadableFile(f"{flaw.json_path}: {flaw.problem}: {reprlib.repr(flaw.content)}")
    transcript = LegacyTranscript(
        to_nfc(full_text),
        _normalize_unicode_of_items(words, "word"),
        _normalize_unicode_of_items(segments, "text"),
        to_finite_number(value.get("processing_time")),
    )
    if dropped := _find_unstored_transcript_values(value, transcript):
        reporter.add_entry(EntryKind.DROPPED, _NO_COLUMN, dropped)
    return transcript


def _get_list_of_objects(transcript: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = transcript.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnreadableFile(f"its {name} is no list of objects")
    return items


def _normalize_unicode_of_items(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {**item, name: to_nfc(text)} if isinstance(text := item.get(name), str) and not text.isascii() else item
        for item in items
    ]


def _find_unstored_transcript_values(value: dict[str, Any], transcript: LegacyTranscript) -> dict[str, Any]:
    dropped = {name: item for name, item in value.items() if name not in _TRANSCRIPT_COLUMNS}
    if transcript.processing_time_seconds is None and value.get("processing_time") is not None:
        dropped["processing_time"] = value["processing_time"]
    if (metadata := value.get("metadata")) is not None and not _repeats_transcript(metadata, transcript):
        dropped["metadata"] = metadata
    return dropped


def _repeats_transcript(metadata: Any, transcript: LegacyTranscript) -> bool:
    """Return whether a transcript's metadata are only the lengths of its lists and their last end."""
    ends = [items[-1].get("end") for items in (transcript.words, transcript.segments) if items] or [0]
    return isinstance(metadata, dict) and metadata in [
        {"total_segments": len(transcript.segments), "total_words": len(transcript.words), "duration": end}
        for end in ends
    ]


_MAX_RUN_IDENTIFIER_LENGTH = 100
_MAX_STAGE_LENGTH = 50
_RUN_TIMES = ("started_at", "completed_at", "total_duration_seconds")
_RUN_COLUMNS = ("request_id", "video_id", "status", *_RUN_TIMES, "error_stage", "error_message")
_STATUSES = ("completed", "failed")
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """A pipeline run that can be stored; times are naive UTC, `row` counts from 1 in its file."""

    row: int
    legacy_id: str | None
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    error_stage: str | None
    error_message: str | None


def parse_runs(document: JsonDocument, reporter: FileReporter) -> list[LegacyRun]:
    """Return the pipeline runs that can be stored; report the others, and values without a column.

    Raises `UnreadableFile`.
    """
    if not isinstance(document.value, list):
        raise UnreadableFile("it holds no list")
    runs: list[LegacyRun] = []
    rows_by_content: dict[str, int] = {}
    for row, value in enumerate(document.value, start=1):
        content = json.dumps(value, sort_keys=True)
        if content in rows_by_content:
            reporter.add_entry(EntryKind.MERGED, f"says the same as row {rows_by_content[content]}", value, row)
        elif isinstance(run := _parse_run(value, row, document.is_storable), LegacyRun):
            rows_by_content[content] = row
            runs.append(run)
            _report_run_changes(value, run, reporter)
        else:
            reporter.add_entry(EntryKind.REFUSED, run, value, row)
    return runs


def _parse_run(value: Any, row: int, is_storable: bool) -> LegacyRun | str:
    """Return the run, or the reason why it cannot be stored."""
    if not isinstance(value, dict):
        return "no object"
    if not is_storable and (flaw := find_unstorable_value({name: value.get(name) for name in _RUN_COLUMNS})):
        return f"{flaw.json_path}: {flaw.problem}"
    completed_at, status = _parse_unix_time(value.get("completed_at")), value.get("status")
    started_at = _parse_unix_time(value.get("started_at"))
    started_at = started_at or _find_earliest_stage_start(value.get("stages")) or completed_at
    if started_at is None:
        return "nothing in it says when it began"
    return LegacyRun(
        row=row,
        legacy_id=to_nfc(to_storable_text(value.get("request_id"), _MAX_RUN_IDENTIFIER_LENGTH) or "") or None,
        status=status if status in _STATUSES else "failed",
        started_at=started_at,
        completed_at=completed_at,
        duration_seconds=to_finite_number(value.get("total_duration_seconds")),
        error_stage=to_storable_text(value.get("error_stage"), _MAX_STAGE_LENGTH),
        error_message=to_storable_text(value.get("error_message")),
    )


def _parse_unix_time(value: Any) -> datetime | None:
    seconds = to_finite_number(value)
    if seconds is None or not 0 < seconds < _LATEST:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _find_earliest_stage_start(stages: Any) -> datetime | None:
    if not isinstance(stages, dict):
        return None
    times = [_parse_unix_time(stage.get("started_at")) for stage in stages.values() if isinstance(stage, dict)]
    return min((time for time in times if time is not None), default=None)


def _report_run_changes(value: dict[str, Any], run: LegacyRun, reporter: FileReporter) -> None:
    if value.get("status") != run.status:
        reason = "a run that neither completed nor failed is stored as failed"
        reporter.add_entry(EntryKind.CHANGED, reason, {"status": value.get("status")}, run.row)
    if _parse_unix_time(value.get("started_at")) is None:
        reason = "its start was lost: the first time in it is stored"
        reporter.add_entry(EntryKind.CHANGED, reason, {"started_at": value.get("started_at")}, run.row)
    dropped = {name: item for name, item in value.items() if name not in _RUN_COLUMNS}
    stored = {
        "request_id": run.legacy_id,
        "completed_at": run.completed_at,
        "total_duration_seconds": run.duration_seconds,
        "error_stage": run.error_stage,
        "error_message": run.error_message,
    }
    dropped |= {name: value[name] for name in stored if stored[name] is None and value.get(name) not in (None, "")}
    if dropped:
        reporter.add_entry(EntryKind.DROPPED, _NO_COLUMN, dropped, run.row)
