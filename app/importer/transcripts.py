"""A legacy transcript file: one object with the text, its words, its segments and three counts."""

import reprlib
from dataclasses import dataclass
from typing import Any

from app.core.text import to_nfc
from app.importer.reading import Document, Flaw, Unreadable, find_flaw, read_number
from app.importer.report import Kind, Notes

# The previous backend had one transcription service and named it nowhere in its files.
SERVICE = "parakeet"
_COLUMNS = frozenset({"transcription", "processing_time", "word_timestamps", "segment_timestamps", "metadata"})


@dataclass(frozen=True, slots=True)
class LegacyTranscript:
    """What is said in a video: words are `{"word", "start", "end"}`, segments `{"text", "start", "end"}`, seconds."""

    full_text: str
    words: list[dict[str, Any]]
    segments: list[dict[str, Any]]
    processing_time_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return it under the names of its file."""
        return {
            "transcription": self.full_text,
            "word_timestamps": self.words,
            "segment_timestamps": self.segments,
            "processing_time": self.processing_time_seconds,
        }


def parse_transcript(document: Document, notes: Notes) -> LegacyTranscript:
    """Return the transcript; values without a column go into `notes`. Raises `Unreadable`."""
    value = document.value
    if not isinstance(value, dict):
        raise Unreadable("it holds no object")
    full_text = value.get("transcription")
    if not isinstance(full_text, str):
        raise Unreadable("its transcription is no text")
    words, segments = _read_objects(value, "word_timestamps"), _read_objects(value, "segment_timestamps")
    if not document.strict:
        _refuse_flaws({"transcription": full_text, "word_timestamps": words, "segment_timestamps": segments})
    full_text, words, segments = to_nfc(full_text), _compose(words, "word"), _compose(segments, "text")
    transcript = LegacyTranscript(full_text, words, segments, read_number(value.get("processing_time")))
    if dropped := _dropped(value, transcript):
        notes.add(Kind.DROPPED, "the table has no column for this", dropped)
    return transcript


def _read_objects(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = value.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Unreadable(f"its {name} is no list of objects")
    return items


def _compose(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the items with the text called `name` in NFC."""
    return [
        {**item, name: to_nfc(text)} if isinstance(text := item.get(name), str) and not text.isascii() else item
        for item in items
    ]


def _refuse_flaws(value: dict[str, Any]) -> None:
    flaw: Flaw | None = find_flaw(value)
    if flaw is not None:
        raise Unreadable(f"{flaw.place}: {flaw.problem}: {reprlib.repr(flaw.content)}")


def _dropped(value: dict[str, Any], transcript: LegacyTranscript) -> dict[str, Any]:
    dropped = {name: item for name, item in value.items() if name not in _COLUMNS}
    if transcript.processing_time_seconds is None and value.get("processing_time") is not None:
        dropped["processing_time"] = value["processing_time"]
    if (metadata := value.get("metadata")) is not None and not _is_derived(metadata, transcript):
        dropped["metadata"] = metadata
    return dropped


def _is_derived(metadata: Any, transcript: LegacyTranscript) -> bool:
    """Whether the counts are the lists' own and the duration is a last end: then the lists say it all."""
    ends = [items[-1].get("end") for items in (transcript.words, transcript.segments) if items] or [0]
    return isinstance(metadata, dict) and metadata in [
        {"total_segments": len(transcript.segments), "total_words": len(transcript.words), "duration": end}
        for end in ends
    ]
