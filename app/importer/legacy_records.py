"""The other JSON files of a legacy library: the URL registry, transcripts and the history of pipeline runs."""

import json
import reprlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.core.text import to_nfc
from app.importer.legacy_files import (
    JsonDocument,
    JsonFlaw,
    UnreadableFile,
    describe_identifier_problem,
    find_flaw,
    read_number,
    read_text,
)
from app.importer.report import EntryKind, ReportNotes

_REGISTRY_COLUMNS = frozenset({"url", "video_id"})


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Where a video came from, and the size of what was downloaded, in bytes."""

    url: str
    file_size: int | None


def parse_registry(document: JsonDocument, notes: ReportNotes) -> dict[str, VideoSource]:
    """Return each video's newest source, and note the rest. Raises `UnreadableFile`."""
    if not isinstance(document.value, dict) or not isinstance(document.value.get("entries"), list):
        raise UnreadableFile("it holds no object with a list of entries")
    sources: dict[str, tuple[str, VideoSource]] = {}
    for number, entry in enumerate(document.value["entries"], start=1):
        if problem := _registry_entry_problem(entry):
            notes.add(EntryKind.REFUSED, problem, entry, row=number)
            continue
        _keep_newest_source(sources, entry, number, notes)
    _note_unknown_columns(document.value, notes)
    return {identifier: source for identifier, (_, source) in sources.items()}


def _registry_entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "no object"
    if not isinstance(entry.get("video_id"), str):
        return "no video_id"
    if problem := describe_identifier_problem(entry["video_id"]):
        return f"video_id cannot be a video's id: {problem}"
    return None if read_text(entry.get("url")) else "url is no text that can be stored"


def _keep_newest_source(
    sources: dict[str, tuple[str, VideoSource]], entry: dict[str, Any], number: int, notes: ReportNotes
) -> None:
    identifier, downloaded_at = to_nfc(entry["video_id"]), str(entry.get("downloaded_at") or "")
    known = sources.get(identifier)
    source = VideoSource(entry["url"], _registered_file_size(entry))
    if known is None or downloaded_at >= known[0]:
        sources[identifier] = (downloaded_at, source)
    if known is not None:
        older = known[1] if sources[identifier][1] is source else source
        if older.url != sources[identifier][1].url:
            reason = f"{identifier} was downloaded from here before {sources[identifier][1].url}"
            notes.add(EntryKind.DROPPED, reason, older.url, row=number)
    if dropped := {name: value for name, value in entry.items() if name not in _REGISTRY_COLUMNS}:
        notes.add(
            EntryKind.DROPPED, "the table has no column for this", {"video_id": identifier, **dropped}, row=number
        )


def _registered_file_size(entry: dict[str, Any]) -> int | None:
    size = entry.get("file_size")
    return size if isinstance(size, int) and 0 <= size < 2**62 else None


def _note_unknown_columns(value: dict[str, Any], notes: ReportNotes) -> None:
    dropped = {name: item for name, item in value.items() if name not in ("entries", "url_to_latest_video_id")}
    latest = value.get("url_to_latest_video_id")
    known = {(entry.get("url_hash"), entry.get("video_id")) for entry in value["entries"] if isinstance(entry, dict)}
    if not isinstance(latest, dict):
        dropped |= {"url_to_latest_video_id": latest} if latest is not None else {}
    elif others := {name: video for name, video in latest.items() if (name, video) not in known}:
        dropped["url_to_latest_video_id"] = others
    if dropped:
        notes.add(EntryKind.DROPPED, "the entries say nothing of this", dropped)


# The previous backend had one transcription service and named it nowhere in its files.
TRANSCRIPTION_SERVICE = "parakeet"
_TRANSCRIPT_COLUMNS = frozenset(
    {"transcription", "processing_time", "word_timestamps", "segment_timestamps", "metadata"}
)


@dataclass(frozen=True, slots=True)
class LegacyTranscript:
    """What is said in a video: words are `{"word", "start", "end"}`, segments `{"text", "start", "end"}`, seconds."""

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


def parse_transcript(document: JsonDocument, notes: ReportNotes) -> LegacyTranscript:
    """Return the transcript, and note values without a column. Raises `UnreadableFile`."""
    value = document.value
    if not isinstance(value, dict):
        raise UnreadableFile("it holds no object")
    full_text = value.get("transcription")
    if not isinstance(full_text, str):
        raise UnreadableFile("its transcription is no text")
    words, segments = (
        _read_transcript_objects(value, "word_timestamps"),
        _read_transcript_objects(value, "segment_timestamps"),
    )
    if not document.strict:
        _refuse_transcript_flaws({"transcription": full_text, "word_timestamps": words, "segment_timestamps": segments})
    full_text, words, segments = to_nfc(full_text), _to_nfc_deeply(words, "word"), _to_nfc_deeply(segments, "text")
    transcript = LegacyTranscript(full_text, words, segments, read_number(value.get("processing_time")))
    if dropped := _dropped_columns(value, transcript):
        notes.add(EntryKind.DROPPED, "the table has no column for this", dropped)
    return transcript


def _read_transcript_objects(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = value.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnreadableFile(f"its {name} is no list of objects")
    return items


def _to_nfc_deeply(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {**item, name: to_nfc(text)} if isinstance(text := item.get(name), str) and not text.isascii() else item
        for item in items
    ]


def _refuse_transcript_flaws(value: dict[str, Any]) -> None:
    flaw: JsonFlaw | None = find_flaw(value)
    if flaw is not None:
        raise UnreadableFile(f"{flaw.json_path}: {flaw.problem}: {reprlib.repr(flaw.content)}")


def _dropped_columns(value: dict[str, Any], transcript: LegacyTranscript) -> dict[str, Any]:
    dropped = {name: item for name, item in value.items() if name not in _TRANSCRIPT_COLUMNS}
    if transcript.processing_time_seconds is None and value.get("processing_time") is not None:
        dropped["processing_time"] = value["processing_time"]
    if (metadata := value.get("metadata")) is not None and not _is_derived(metadata, transcript):
        dropped["metadata"] = metadata
    return dropped


def _is_derived(metadata: Any, transcript: LegacyTranscript) -> bool:
    """Return whether the metadata only repeats the lengths and the last end of the lists."""
    ends = [items[-1].get("end") for items in (transcript.words, transcript.segments) if items] or [0]
    return isinstance(metadata, dict) and metadata in [
        {"total_segments": len(transcript.segments), "total_words": len(transcript.words), "duration": end}
        for end in ends
    ]


_LONGEST_RUN_IDENTIFIER = 100
_LONGEST_STAGE = 50
_RUN_COLUMNS = frozenset(
    (
        *("request_id", "video_id", "status", "started_at", "completed_at"),
        *("total_duration_seconds", "error_stage", "error_message"),
    )
)
_STATUSES = ("completed", "failed")
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """A run that can be stored; times are naive UTC."""

    row: int
    legacy_id: str | None
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    error_stage: str | None
    error_message: str | None

    @property
    def started_at_ms(self) -> int:
        return round(self.started_at.replace(tzinfo=UTC).timestamp() * 1000)


def parse_runs(document: JsonDocument, notes: ReportNotes) -> list[LegacyRun]:
    """Return the runs that can be stored; note the others, and what has no column. Raises `UnreadableFile`."""
    if not isinstance(document.value, list):
        raise UnreadableFile("it holds no list")
    runs: list[LegacyRun] = []
    seen: dict[str, int] = {}
    for number, value in enumerate(document.value, start=1):
        text = json.dumps(value, sort_keys=True)
        if text in seen:
            notes.add(EntryKind.MERGED, f"says the same as row {seen[text]}", value, row=number)
        elif isinstance(run := _read_run(value, number, document.strict), LegacyRun):
            seen[text] = number
            runs.append(run)
            _note_run_changes(value, run, notes)
        else:
            notes.add(EntryKind.REFUSED, run, value, row=number)
    return runs


def _read_run(value: Any, number: int, strict: bool) -> LegacyRun | str:
    """Return the run, or the reason why it cannot be stored."""
    if not isinstance(value, dict):
        return "no object"
    if not strict and (flaw := find_flaw({name: value.get(name) for name in _RUN_COLUMNS})):
        return f"{flaw.json_path}: {flaw.problem}"
    started_at = (
        _run_time(value.get("started_at"))
        or _first_run_time(value.get("stages"))
        or _run_time(value.get("completed_at"))
    )
    if started_at is None:
        return "nothing in it says when it began"
    status = value.get("status")
    return LegacyRun(
        row=number,
        legacy_id=to_nfc(read_text(value.get("request_id"), _LONGEST_RUN_IDENTIFIER) or "") or None,
        status=status if status in _STATUSES else "failed",
        started_at=started_at,
        completed_at=_run_time(value.get("completed_at")),
        duration_seconds=read_number(value.get("total_duration_seconds")),
        error_stage=read_text(value.get("error_stage"), _LONGEST_STAGE),
        error_message=read_text(value.get("error_message")),
    )


def _run_time(value: Any) -> datetime | None:
    """Return a time as naive UTC; 0 means unknown."""
    seconds = read_number(value)
    if seconds is None or not 0 < seconds < _LATEST:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _first_run_time(stages: Any) -> datetime | None:
    if not isinstance(stages, dict):
        return None
    times = [_run_time(stage.get("started_at")) for stage in stages.values() if isinstance(stage, dict)]
    return min((time for time in times if time is not None), default=None)


def _note_run_changes(value: dict[str, Any], run: LegacyRun, notes: ReportNotes) -> None:
    if value.get("status") != run.status:
        reason = "a run that neither completed nor failed is stored as failed"
        notes.add(EntryKind.CHANGED, reason, {"status": value.get("status")}, row=run.row)
    if _run_time(value.get("started_at")) is None:
        reason = "its start was lost: the first time in it is stored"
        notes.add(EntryKind.CHANGED, reason, {"started_at": value.get("started_at")}, row=run.row)
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
        notes.add(EntryKind.DROPPED, "the table has no column for this", dropped, row=run.row)
