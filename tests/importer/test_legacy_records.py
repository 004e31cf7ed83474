"""JSON of every quality, transcripts, the URL registry and the history of runs."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.importer import legacy_files
from app.importer.legacy_files import JsonDocument, UnreadableFile, read_json_file
from app.importer.legacy_records import LegacyRun, RegisteredSource, parse_runs, parse_transcript, parse_url_registry
from app.importer.report import EntryKind, FileReporter
from tests.importer.legacy import SEGMENTS, TEXT, WORDS, LegacyLibrary, make_registry_entry, make_run, make_transcript


@pytest.fixture
def reporter() -> FileReporter:
    return FileReporter("a/talk.json", "talk")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[1,]", "no JSON"),
        (b'"\xff"', "no UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_file_is_unreadable(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = LegacyLibrary(tmp_path).add("a.json", content)
    with pytest.raises(UnreadableFile, match=reason):
        read_json_file(path)


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        read_json_file(tmp_path / "gone.json")


def test_a_file_that_is_too_large_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy_files, "MAX_JSON_BYTES", 10)
    with pytest.raises(UnreadableFile, match="larger than"):
        read_json_file(LegacyLibrary(tmp_path).add("a.json", "[1, 2, 3, 4, 5]"))


def test_what_the_system_does_not_let_us_read_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="cannot be read: Is a directory"):
        read_json_file(tmp_path)


@pytest.mark.parametrize("content", ["[NaN]", '["\\ud800"]', "[1e999]"])
def test_json_that_only_python_reads_is_read_and_looked_at_twice(tmp_path: Path, content: str) -> None:
    assert read_json_file(LegacyLibrary(tmp_path).add("a.json", content)).is_storable is False


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    assert read_json_file(LegacyLibrary(tmp_path).add("a.json", b"\xef\xbb\xbf[1]")).value == [1]


def test_a_transcript_is_read(reporter: FileReporter) -> None:
    transcript = parse_transcript(JsonDocument(make_transcript(), True), reporter)
    assert (transcript.full_text, transcript.words, transcript.segments) == (TEXT, WORDS, SEGMENTS)
    assert transcript.processing_time_seconds == 2.59
    assert reporter.entries == []


def test_a_transcript_may_be_empty(reporter: FileReporter) -> None:
    empty = make_transcript(transcription="", word_timestamps=[], segment_timestamps=[])
    transcript = parse_transcript(JsonDocument(empty, True), reporter)
    assert (transcript.full_text, transcript.words, transcript.segments, reporter.entries) == ("", [], [], [])


def test_words_that_run_backwards_stay_in_their_order(reporter: FileReporter) -> None:
    words = [{"word": "b", "start": 590.0, "end": 590.4}, {"word": "a", "start": 585.0, "end": 585.4}]
    assert parse_transcript(JsonDocument(make_transcript(word_timestamps=words), True), reporter).words == words


def test_what_a_transcript_says_beyond_its_columns_is_in_the_report(reporter: FileReporter) -> None:
    value = make_transcript(speaker="A", processing_time="long", metadata={"total_segments": 99})
    parse_transcript(JsonDocument(value, True), reporter)
    assert reporter.entries[0].content == {
        "speaker": "A",
        "processing_time": "long",
        "metadata": {"total_segments": 99},
    }


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"word_timestamps": [*WORDS, {"word": "x", "start": float("nan"), "end": 1.0}]},
            r"word_timestamps\[14\].start",
        ),
        ({"transcription": "a\0"}, "U\\+0000"),
        ({"segment_timestamps": [{"text": "\ud800"}]}, "surrogate"),
        ({"transcription": None}, "no text"),
        ({"word_timestamps": None}, "word_timestamps is no list of objects"),
        ({"segment_timestamps": ["text"]}, "segment_timestamps is no list of objects"),
    ],
)
def test_a_transcript_that_cannot_be_stored_is_refused(
    reporter: FileReporter, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        parse_transcript(JsonDocument(make_transcript() | {"metadata": None} | values, False), reporter)


def test_a_transcript_is_an_object(reporter: FileReporter) -> None:
    with pytest.raises(UnreadableFile, match="no object"):
        parse_transcript(JsonDocument([], True), reporter)


def read_registry(reporter: FileReporter, *entries: Any, **others: Any) -> dict[str, RegisteredSource]:
    return parse_url_registry(JsonDocument({"entries": list(entries)} | others, True), reporter)


def test_the_newest_url_of_a_video_counts_and_the_others_are_in_the_report(reporter: FileReporter) -> None:
    entries = [
        make_registry_entry("talk", f"https://host/{name}.mp4", downloaded_at=f"2026-01-{day}T00:00:00Z")
        for name, day in (("a", "10"), ("b", "30"), ("c", "20"))
    ]
    assert read_registry(reporter, *entries)["talk"].url == "https://host/b.mp4"
    assert {"https://host/a.mp4", "https://host/c.mp4"} <= {str(entry.content) for entry in reporter.entries}


def test_registry_values_without_a_column_are_in_the_report(reporter: FileReporter) -> None:
    read_registry(reporter, make_registry_entry("talk", "https://host/a.mp4"))
    assert set(reporter.entries[0].content) == {
        "video_id",
        "url_hash",
        "file_size",
        "downloaded_at",
        "force_downloaded",
    }


def test_the_map_of_a_registry_is_noted_where_it_says_more_than_the_entries(reporter: FileReporter) -> None:
    read_registry(reporter, url_to_latest_video_id={"00ff": "talk"})
    assert reporter.entries[0].content == {"url_to_latest_video_id": {"00ff": "talk"}}


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        {"url": "https://host/a.mp4"},
        {"url": None, "video_id": "talk"},
        {"url": "https://host/a.mp4", "video_id": ""},
        {"url": "https://host/a.mp4", "video_id": "../talk"},
        {"url": "https://host/a.mp4", "video_id": "x" * 256},
        {"url": "https://host/\0", "video_id": "talk"},
    ],
)
def test_a_registry_entry_that_names_no_video_or_no_url_is_refused(reporter: FileReporter, entry: Any) -> None:
    assert read_registry(reporter, entry) == {}
    assert [(each.kind, each.content) for each in reporter.entries] == [(EntryKind.REFUSED, entry)]


@pytest.mark.parametrize("value", [[], {"entries": None}, "text"])
def test_a_registry_without_entries_is_unreadable(reporter: FileReporter, value: Any) -> None:
    with pytest.raises(UnreadableFile, match="list of entries"):
        parse_url_registry(JsonDocument(value, True), reporter)


def read_runs(reporter: FileReporter, *runs: Any) -> list[LegacyRun]:
    return parse_runs(JsonDocument(list(runs), False), reporter)


def test_a_run_is_read(reporter: FileReporter) -> None:
    (run,) = read_runs(reporter, make_run(status="failed", error_stage="audio", error_message="no sound"))
    assert run.legacy_id == "pipeline:talk:1769000000000"
    assert (run.status, run.error_stage, run.error_message) == ("failed", "audio", "no sound")
    assert run.started_at == datetime(2026, 1, 21, 12, 53, 20, 500_000)
    assert (run.completed_at, run.duration_seconds) == (datetime(2026, 1, 21, 12, 54, 20, 500_000), 60.0)


def test_a_run_that_lost_its_start_has_the_first_time_in_it(reporter: FileReporter) -> None:
    (run,) = read_runs(reporter, make_run(request_id="", started_at=0, total_duration_seconds=None))
    assert (run.legacy_id, run.started_at) == (None, datetime(2026, 1, 21, 12, 53, 21))
    assert (EntryKind.CHANGED, {"started_at": 0}) in [(entry.kind, entry.content) for entry in reporter.entries]


def test_a_run_without_any_time_is_refused(reporter: FileReporter) -> None:
    run = make_run(started_at=0, completed_at=float("nan"), stages={})
    assert read_runs(reporter, run) == []
    assert reporter.entries[0].kind is EntryKind.REFUSED


def test_a_run_that_never_ended_is_a_failed_one(reporter: FileReporter) -> None:
    (run,) = read_runs(reporter, make_run(status="processing", completed_at=None))
    assert (run.status, run.completed_at) == ("failed", None)
    assert reporter.entries[0].content == {"status": "processing"}


def test_the_same_run_twice_is_one(reporter: FileReporter) -> None:
    assert len(read_runs(reporter, make_run(), make_run())) == 1
    assert EntryKind.MERGED in [entry.kind for entry in reporter.entries]


def test_what_has_no_column_in_a_run_is_in_the_report(reporter: FileReporter) -> None:
    read_runs(reporter, make_run(error_stage="x" * 51))
    assert set(reporter.entries[0].content) == {"model", "stages", "result", "error_stage"}
