"""What an import leaves in the tables."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database import Connection, connect
from app.library import ImportOptions, NoLibrary, import_library, importing, preparing
from app.library.layout import Library, VideoFiles
from app.library.preparing import PreparedVideo
from app.library.report import Kind
from app.library.writing import write_video
from app.library.written import Written
from app.repositories import ClipRepository, MomentRepository, PromptRepository, VideoRepository
from tests.conftest import Databases
from tests.library.importer import Importer, Silence, counts, entries
from tests.library.legacy import (
    SEGMENTS,
    TEXT,
    WORDS,
    LegacyLibrary,
    legacy_id,
    make_config,
    make_refined,
    make_registry_entry,
    make_row,
    make_run,
    make_transcript,
)
from tests.media.movies import FRAME_RATE, HEIGHT, WIDTH


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes | None]]:
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


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


async def test_every_part_of_a_library_finds_its_table(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    report = await importer.run(legacy)
    assert counts(report, "new") == {
        "videos": 4,
        "transcripts": 2,
        "prompts": 2,
        "generation_configs": 2,
        "moments": 5,
        "clips": 1,
        "thumbnails": 1,
        "pipeline_history": 2,
    }
    for table, rows in (await importer.everything()).items():
        assert len(rows) == report["tables"][table]["new"], table
    assert report["complete"] is True


async def test_importing_again_changes_nothing(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    first = await importer.run(legacy)
    before = await importer.everything()
    second = await importer.run(legacy)
    assert await importer.everything() == before
    assert (counts(second, "new"), counts(second, "changed")) == ({}, {})
    assert counts(second, "unchanged") == counts(first, "new")
    assert second["entries"] == first["entries"]


async def test_the_library_is_not_touched(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    before = snapshot(legacy.root)
    await importer.run(legacy)
    assert snapshot(legacy.root) == before


async def test_a_dry_run_writes_nothing_and_says_what_it_would_write(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    rehearsal = await importer.run(legacy, dry_run=True)
    assert not any((await importer.everything()).values())
    performance = await importer.run(legacy)
    assert rehearsal["tables"] == performance["tables"]
    assert rehearsal["entries"] == performance["entries"]


async def test_ten_imports_at_once_leave_one_copy(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    reports = await asyncio.gather(*(importer.run(legacy) for _ in range(10)))
    assert [report["complete"] for report in reports] == [True] * 10
    before = await importer.everything()
    assert counts(await importer.run(legacy, dry_run=True), "unchanged") == {
        table: len(rows) for table, rows in before.items()
    }


async def test_a_film_is_described_by_itself(importer: Importer, legacy: LegacyLibrary) -> None:
    path = legacy.add_video("a talk.mp4", seconds=2)
    await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["identifier"], video["cloud_url"]) == ("a talk", path.as_uri())
    assert (video["video_codec"], video["audio_codec"]) == ("h264", None)
    assert (video["resolution"], video["frame_rate"]) == (f"{WIDTH}x{HEIGHT}", FRAME_RATE)
    assert video["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert (video["title"], video["source_url"]) == (None, None)


async def test_a_film_that_is_none_is_reported_and_its_video_is_imported(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add("videos/talk.mp4", "not a film")
    legacy.add_transcript("talk")
    report = await importer.run(legacy)
    assert counts(report, "new") == {"videos": 1, "transcripts": 1}
    assert [(entry["file"], entry["kind"]) for entry in report["entries"]] == [("videos/talk.mp4", "refused")]


@pytest.mark.parametrize(
    ("reader", "lost"),
    [
        ("probe", "videos/talk.mp4"),
        ("parse_transcript", "transcripts/talk.json"),
        ("parse_moments", "moments/talk.json"),
        ("parse_runs", "pipeline_history/talk.json"),
    ],
)
async def test_a_file_that_nobody_foresaw_loses_only_itself(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, reader: str, lost: str
) -> None:
    fill(legacy)
    whole = counts(await importer.run(legacy, dry_run=True), "new")

    def fail(*_: object) -> None:
        raise LookupError("out of luck")

    monkeypatch.setattr(preparing, reader, fail)
    report = await importer.run(legacy)
    refused = [entry for entry in entries(report, "refused") if entry["video"] == "talk"]
    assert [(entry["file"], entry["reason"]) for entry in refused] == [(lost, "LookupError: out of luck")]
    assert counts(report, "new")["videos"] == whole["videos"]
    assert entries(report, "failed") == []


def test_a_picture_that_is_gone_by_now_loses_only_itself(legacy: LegacyLibrary) -> None:
    files = VideoFiles("talk", thumbnail=legacy.root / "thumbnails" / "talk.jpg")
    prepared = preparing.prepare_video(files, Library(legacy.root, [files], frozenset()), None)
    refused = [entry for entry in prepared.notes.entries if entry.kind is Kind.REFUSED]
    assert [(entry.file, entry.reason) for entry in refused] == [
        ("thumbnails/talk.jpg", "it cannot be read: No such file or directory")
    ]


async def test_a_video_without_a_film_lies_where_the_registry_says(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4", file_size=5 * 1024 * 1024))
    await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["cloud_url"], video["source_url"]) == ("gs://films/talk.mp4", "gs://films/talk.mp4")
    assert video["file_size_kb"] == 5 * 1024


async def test_a_video_without_a_film_or_an_address_lies_where_its_film_would_be(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row())
    report = await importer.run(legacy)
    expected = (legacy.root / "videos" / "talk.mp4").as_uri()
    assert (await importer.row("videos"))["cloud_url"] == expected
    assert [entry["content"] for entry in entries(report, "missing")] == [expected]


async def test_a_film_that_is_gone_takes_nothing_with_it(importer: Importer, legacy: LegacyLibrary) -> None:
    path = legacy.add_video("talk.mkv")
    legacy.add_transcript("talk")
    await importer.run(legacy)
    before = await importer.everything()
    path.unlink()
    await importer.run(legacy)
    assert await importer.everything() == before


async def test_a_film_that_comes_later_is_found(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    await importer.run(legacy)
    path = legacy.add_video("talk.mov")
    report = await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["cloud_url"], video["video_codec"]) == (path.as_uri(), "h264")
    assert counts(report, "changed") == {"videos": 1}


async def test_an_address_of_the_registry_replaces_an_assumed_one(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    await importer.run(legacy)
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4"))
    await importer.run(legacy)
    assert (await importer.row("videos"))["cloud_url"] == "gs://films/talk.mp4"


async def test_an_address_of_the_registry_replaces_no_bucket_that_somebody_else_named(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk")
    async with importer.connection() as conn:
        await VideoRepository(conn).create(
            identifier="talk", cloud_url="gs://uploads/talk.mp4", source_url="gs://films/talk.mp4"
        )
    legacy.add_registry(make_registry_entry("talk", "gs://other/talk.mp4"))
    await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["cloud_url"], video["source_url"]) == ("gs://uploads/talk.mp4", "gs://other/talk.mp4")


async def test_a_new_address_of_the_registry_replaces_the_one_that_came_from_there(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk")
    for bucket in ("films", "other"):
        legacy.add_registry(make_registry_entry("talk", f"gs://{bucket}/talk.mp4"))
        report = await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["cloud_url"], video["source_url"]) == ("gs://other/talk.mp4", "gs://other/talk.mp4")
    assert counts(report, "changed") == {"videos": 1}


async def test_a_transcript_is_stored_with_its_words_and_segments(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    await importer.run(legacy)
    transcript = await importer.row("transcripts")
    assert (transcript["full_text"], transcript["word_timestamps"]) == (TEXT, WORDS)
    assert transcript["segment_timestamps"] == SEGMENTS
    assert (transcript["number_of_words"], transcript["number_of_segments"]) == (len(WORDS), len(SEGMENTS))
    assert (transcript["transcription_service"], transcript["processing_time_seconds"]) == ("parakeet", 2.59)


async def test_a_new_transcription_replaces_the_old_one_and_no_moment_goes_with_it(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk")
    legacy.add_moments("talk", make_row(), make_row(40.0, 70.0))
    await importer.run(legacy)
    before = await importer.everything()
    legacy.add_transcript("talk", transcription="Something else.")
    report = await importer.run(legacy)
    after = await importer.everything()
    assert counts(report, "changed") == {"transcripts": 1}
    assert after["transcripts"][0]["full_text"] == "Something else."
    assert after["moments"] == before["moments"]
    assert after["generation_configs"][0]["transcript_id"] == after["transcripts"][0]["id"]


async def test_a_transcript_that_cannot_be_stored_loses_only_itself_and_is_in_the_report(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    words = [*WORDS, {"word": "x", "start": float("inf"), "end": 1.0}]
    legacy.add_transcript("talk", word_timestamps=words, metadata=None)
    legacy.add_moments("talk", make_row())
    report = await importer.run(legacy)
    assert counts(report, "new") == {"videos": 1, "prompts": 1, "generation_configs": 1, "moments": 1}
    (refused,) = entries(report, "refused")
    assert refused["file"] == "transcripts/talk.json"
    assert refused["content"] == make_transcript(
        word_timestamps=[*WORDS, {"word": "x", "start": "inf", "end": 1.0}], metadata=None
    )


async def test_a_transcript_with_too_many_words_for_the_search_loses_only_itself_and_is_in_the_report(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    text = " ".join(f"word{number}x" for number in range(120_000))
    legacy.add_transcript("talk", transcription=text)
    legacy.add_moments("talk", make_row())
    report = await importer.run(legacy)
    assert counts(report, "new")["moments"] == 1
    (refused,) = entries(report, "refused")
    assert (refused["file"], "too long" in refused["reason"]) == ("transcripts/talk.json", True)
    assert refused["content"] == {
        "transcription": text,
        "word_timestamps": WORDS,
        "segment_timestamps": SEGMENTS,
        "processing_time": 2.59,
    }


async def test_a_long_text_that_is_refused_is_in_the_report_once(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk", transcription="a" * 10_000 + "\0", metadata=None)
    (refused,) = entries(await importer.run(legacy), "refused")
    assert refused["content"]["transcription"] == "a" * 10_000 + "\0"
    assert len(refused["reason"]) < 200


async def test_moments_are_stored_in_the_order_of_their_file(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(50.0, 80.0), make_row(0.0, 30.0), make_row(20.0, 50.0))
    await importer.run(legacy)
    assert [row["start_time"] for row in await importer.rows("moments")] == [50.0, 0.0, 20.0]


async def test_a_moment_is_stored_as_it_was(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(26.639999999999997, 54.56, title=" Ein „Titel“ "))
    await importer.run(legacy)
    moment = await importer.row("moments")
    assert (moment["start_time"], moment["end_time"]) == (26.639999999999997, 54.56)
    assert (moment["title"], moment["generation_model"]) == (" Ein „Titel“ ", "/srv/models/large")
    assert moment["identifier"] == legacy_id(26.639999999999997, 54.56)


async def test_refined_moments_name_their_parents_rows(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    refined = make_refined(original, 12.0, 38.0)
    legacy.add_moments("talk", original, refined, make_refined(refined, 13.0, 37.0), make_refined(original, 10.0, 40.0))
    await importer.run(legacy)
    rows = await importer.rows("moments")
    first = rows[0]["id"]
    assert [row["parent_id"] for row in rows] == [None, first, rows[1]["id"], first]


async def test_an_id_of_two_videos_stays_with_the_first_by_name(importer: Importer, legacy: LegacyLibrary) -> None:
    row = make_row()
    for video in ("c", "a", "b"):
        legacy.add_moments(video, row)
    report = await importer.run(legacy)
    async with importer.connection() as conn:
        first = await VideoRepository(conn).get_by_identifier("a")
        holder = await MomentRepository(conn).get_by_identifier(row["id"])
    assert first is not None
    assert holder is not None
    assert holder.video_id == first.id
    assert [(entry["video"], entry["content"]["from"]) for entry in entries(report, "renamed")] == [
        ("b", row["id"]),
        ("c", row["id"]),
    ]


async def test_an_id_of_another_library_is_not_taken_from_it(
    importer: Importer, legacy: LegacyLibrary, tmp_path: Path
) -> None:
    other = LegacyLibrary(tmp_path / "other")
    other.add_moments("z", make_row())
    legacy.add_moments("a", make_row())
    await importer.run(other)
    report = await importer.run(legacy)
    before = await importer.everything()
    assert [entry["reason"] for entry in entries(report, "renamed")] == ["a moment of another video has its id"]
    await importer.run(other)
    await importer.run(legacy)
    assert await importer.everything() == before


async def test_a_changed_row_is_changed_and_an_appended_one_added(importer: Importer, legacy: LegacyLibrary) -> None:
    rows = [make_row(10.0, 40.0), make_row(40.0, 70.0)]
    legacy.add_moments("talk", *rows)
    await importer.run(legacy)
    before = await importer.rows("moments")
    legacy.add_moments("talk", rows[0] | {"title": "Better"}, rows[1], make_row(70.0, 90.0))
    report = await importer.run(legacy)
    after = await importer.rows("moments")
    assert (counts(report, "new"), counts(report, "changed")) == ({"moments": 1}, {"moments": 1})
    assert [row["title"] for row in after] == ["Better", "A question", "A question"]
    assert after[1] == before[1]
    assert after[0]["id"] == before[0]["id"]


async def test_a_moment_that_no_row_accounts_for_stays_and_is_reported(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row(10.0, 40.0), make_row(40.0, 70.0))
    await importer.run(legacy)
    async with importer.connection() as conn:
        video = await VideoRepository(conn).get_by_identifier("talk")
        assert video is not None
        await MomentRepository(conn).create(
            identifier="by-hand", video_id=video.id, start_time=100, end_time=110, title="By hand"
        )
    before = await importer.rows("moments")
    legacy.add_moments("talk", make_row(10.0, 40.0))
    report = await importer.run(legacy)
    assert await importer.rows("moments") == before
    assert [entry["content"] for entry in entries(report, "kept")] == [[legacy_id(40.0, 70.0), "by-hand"]]


async def test_what_cannot_be_stored_is_refused_and_everything_else_is_in(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row(0, 30), make_row(30, 60) | {"end_time": float("nan")}, make_row(60, 90))
    legacy.add("moments/broken.json", "[{")
    legacy.add("moments/object.json", {"moments": ["mine"]})
    report = await importer.run(legacy)
    assert report["complete"] is False
    assert counts(report, "new")["moments"] == 2
    refused: dict[Any, Any] = {
        (entry["file"], entry.get("row")): entry.get("content") for entry in entries(report, "refused")
    }
    assert set(refused) == {("moments/talk.json", 2), ("moments/broken.json", None), ("moments/object.json", None)}
    assert refused["moments/talk.json", 2]["end_time"] == "nan"
    assert refused["moments/object.json", None] == {"moments": ["mine"]}


@pytest.mark.parametrize("writers", [1, 4])
async def test_one_prompt_and_one_config_serve_every_video(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, writers: int
) -> None:
    monkeypatch.setattr(importing, "_WRITERS", writers)
    for video in range(12):
        legacy.add_transcript(f"v{video}")
        legacy.add_moments(f"v{video}", make_row(10.0, 40.0), make_row(40.0, 70.0))
    report = await importer.run(legacy)
    prompt, config = await importer.row("prompts"), await importer.row("generation_configs")
    assert prompt["user_prompt"] == "Find what people will talk about."
    assert "{transcript}" in prompt["system_prompt"]
    assert TEXT[:20] not in prompt["system_prompt"]
    assert (config["prompt_id"], config["transcript_id"], config["model"]) == (prompt["id"], None, "large_fp8")
    assert (config["temperature"], config["min_moments"], config["operation_type"]) == (0.7, 1, "generation")
    assert {row["generation_config_id"] for row in await importer.rows("moments")} == {config["id"]}
    assert counts(report, "new")["prompts"] == 1


async def test_a_config_of_one_video_belongs_to_its_transcript(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    legacy.add_moments("talk", make_row())
    await importer.run(legacy)
    transcript, config = await importer.row("transcripts"), await importer.row("generation_configs")
    assert config["transcript_id"] == transcript["id"]


async def test_a_prompt_whose_hash_is_taken_leaves_its_moments_without_a_config(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    async with importer.connection() as conn:
        await PromptRepository(conn).get_or_create("A", "B")
    legacy.add_moments("talk", make_row(generation_config=make_config(user_prompt="", complete_prompt="AB")))
    report = await importer.run(legacy)
    assert (await importer.row("moments"))["generation_config_id"] is None
    assert entries(report, "refused")[0]["content"]["system_prompt"] == "AB"


async def test_a_transcript_that_only_prompts_remember_is_in_the_report(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk", segment_timestamps=SEGMENTS[:1])
    original = make_row()
    legacy.add_moments("talk", original, make_row(40, 70), make_refined(original, 12.0, 38.0))
    report = await importer.run(legacy)
    (lost,) = (entry for entry in entries(report, "dropped") if "transcript" in entry["content"])
    assert lost["content"]["rows"] == [1, 2]
    assert SEGMENTS[1]["text"] in lost["content"]["transcript"]


async def test_the_transcript_in_prompts_is_not_reported_where_it_is_stored(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk")
    legacy.add_moments("talk", make_row(), make_refined(make_row(), 12.0, 38.0))
    report = await importer.run(legacy)
    assert not [entry for entry in entries(report, "dropped") if "transcript" in entry["content"]]


async def test_a_clip_file_is_the_clip_of_its_moment(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(2.0, 4.0)
    legacy.add_moments("talk", original, make_refined(original, 2.5, 3.5))
    legacy.add_video(f"../moment_clips/talk_{original['id']}_clip.mp4", seconds=2)
    report = await importer.run(legacy)
    assert entries(report, "orphan") == []
    clip, moment = await importer.row("clips"), (await importer.rows("moments"))[0]
    assert clip["moment_id"] == moment["id"]
    assert clip["cloud_url"] == (legacy.root / "moment_clips" / f"talk_{original['id']}_clip.mp4").as_uri()
    assert (clip["format"], clip["video_codec"], clip["resolution"]) == ("mp4", "h264", f"{WIDTH}x{HEIGHT}")
    assert (clip["start_time"], clip["end_time"]) == (0.0, 6.9)
    assert (clip["padding_left"], clip["padding_right"]) == (2.0, pytest.approx(2.9))


async def test_a_clip_in_the_bucket_needs_the_buckets_name(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(gcs_clip_path="clips/talk/c.mp4"))
    report = await importer.run(legacy)
    assert await importer.rows("clips") == []
    (refused,) = entries(report, "refused")
    assert "--bucket" in refused["reason"]
    assert refused["content"] == {"gcs_clip_path": "clips/talk/c.mp4"}
    await importer.run(legacy, bucket="films")
    assert (await importer.row("clips"))["cloud_url"] == "gs://films/clips/talk/c.mp4"


async def test_a_clip_that_a_refined_row_names_under_its_originals_id_is_the_originals(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    original = make_row(2.0, 4.0)
    legacy.add_moments("talk", original, make_refined(original, 2.0, 4.0, gcs_clip_path="clips/c.mp4"))
    await importer.run(legacy, bucket="films")
    assert (await importer.row("clips"))["moment_id"] == (await importer.rows("moments"))[0]["id"]


async def test_a_window_that_was_worked_out_does_not_move_with_a_new_transcript(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row(100.0, 160.0, gcs_clip_path="clips/c.mp4"))
    await importer.run(legacy, bucket="films")
    before = await importer.rows("clips")
    legacy.add_transcript("talk", word_timestamps=[{"word": "a", "start": 75.0, "end": 180.0}])
    await importer.run(legacy, bucket="films")
    assert await importer.rows("clips") == before


async def test_a_clip_that_was_cut_since_is_not_replaced_by_one_in_a_bucket(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row())
    await importer.run(legacy)
    moment = await importer.row("moments")
    async with importer.connection() as conn:
        await ClipRepository(conn).create(
            moment_id=moment["id"], video_id=moment["video_id"], cloud_url="file:///cut.mp4", start_time=0, end_time=50
        )
    before = await importer.rows("clips")
    legacy.add_moments("talk", make_row(gcs_clip_path="clips/c.mp4"))
    await importer.run(legacy, bucket="films")
    assert await importer.rows("clips") == before


async def test_a_clip_file_of_no_moment_is_an_orphan(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    legacy.add("moment_clips/talk_0000000000000000_clip.mp4", "x")
    report = await importer.run(legacy)
    assert [entry["file"] for entry in entries(report, "orphan")] == ["moment_clips/talk_0000000000000000_clip.mp4"]


async def test_a_thumbnail_is_stored_and_changes_with_its_file(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    path = legacy.add_thumbnail("talk", size=3000)
    await importer.run(legacy)
    thumbnail, video = await importer.row("thumbnails"), await importer.row("videos")
    assert (thumbnail["video_id"], thumbnail["cloud_url"], thumbnail["file_size_kb"]) == (video["id"], path.as_uri(), 3)
    legacy.add_thumbnail("talk", size=9000)
    await importer.run(legacy)
    assert (await importer.row("thumbnails"))["file_size_kb"] == 9


async def test_runs_keep_their_ids_and_those_without_get_one(importer: Importer, legacy: LegacyLibrary) -> None:
    lost = {"request_id": "", "video_id": "", "started_at": 0, "total_duration_seconds": None}
    legacy.add("pipeline_history/talk.json", [make_run(), make_run(**lost), make_run(**lost, status="failed")])
    legacy.add("pipeline_history/copy.json", [make_run()])
    report = await importer.run(legacy)
    names = {row["identifier"] for row in await importer.rows("pipeline_history")}
    assert len(names) == 4
    assert "pipeline:talk:1769000000000" in names
    assert len(entries(report, "renamed")) == 3
    assert {row["pipeline_type"] for row in await importer.rows("pipeline_history")} == {"full"}


async def test_a_video_that_fails_is_lost_alone(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for video in ("a", "b", "c"):
        legacy.add_transcript(video)
        legacy.add_moments(video, make_row(0, 30, title=video))
    copy = MomentRepository.copy

    async def fail(self: MomentRepository, moments: Any) -> int:
        rows = list(moments)
        if any(row["title"] == "b" for row in rows):
            raise RuntimeError("out of luck")
        return await copy(self, rows)

    monkeypatch.setattr(MomentRepository, "copy", fail)
    report = await importer.run(legacy)
    assert [row["identifier"] for row in await importer.rows("videos", "identifier")] == ["a", "c"]
    assert [(entry["video"], entry["reason"]) for entry in entries(report, "failed")] == [("b", "out of luck")]
    assert (report["complete"], counts(report, "new")["transcripts"]) == (False, 2)


async def test_a_connection_that_breaks_costs_nothing(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        legacy.add_moments(f"v{number}", make_row(number, number + 30.0))
    copy = MomentRepository.copy
    broken: list[bool] = []

    async def break_once(self: MomentRepository, moments: Any) -> int:
        if not broken:
            broken.append(True)
            async with importer.connection() as other:
                pid = self._conn.info.backend_pid
                await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        return await copy(self, moments)

    monkeypatch.setattr(MomentRepository, "copy", break_once)
    report = await importer.run(legacy)
    assert broken
    assert report["complete"] is True
    assert len(await importer.rows("moments")) == 6


async def test_without_a_database_there_is_one_sentence(legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable, match="Cannot connect"):
        await import_library(settings, legacy.root, ImportOptions(), Silence())


async def test_without_tables_there_is_one_sentence(legacy: LegacyLibrary, databases: Databases) -> None:
    legacy.add_moments("talk", make_row())
    with pytest.raises(DatabaseUnavailable, match="not migrated"):
        await import_library(Settings(database_url=databases.create()), legacy.root, ImportOptions(), Silence())


async def test_a_folder_that_is_no_library_is_refused(importer: Importer, tmp_path: Path) -> None:
    with pytest.raises(NoLibrary):
        await import_library(importer.settings, tmp_path / "gone", ImportOptions(), Silence())


def add_thirty(legacy: LegacyLibrary) -> list[str]:
    names = [f"v{number:02}" for number in range(30)]
    for number, name in enumerate(names):
        legacy.add_moments(name, make_row(number, number + 30.0))
    return names


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [psycopg.errors.AdminShutdown, psycopg.errors.DiskFull])
async def test_a_database_that_goes_away_for_good_fails_every_video_that_is_left(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    names = add_thirty(legacy)
    tries: list[str] = []

    async def fail(conn: Connection, prepared: PreparedVideo, *_: object) -> None:
        tries.append(prepared.identifier)
        raise error("out of luck")

    monkeypatch.setattr(importing, "write_video", fail)
    report = await importer.run(legacy)
    assert [entry["video"] for entry in entries(report, "failed")] == names
    assert {entry["reason"] for entry in entries(report, "failed")} == {"The database is not available: out of luck"}
    assert len(set(tries)) < 30


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_lets_nobody_in_fails_every_video_and_says_why(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = add_thirty(legacy)
    opened: list[Settings] = []

    def let_one_in(settings: Settings) -> AbstractAsyncContextManager[Connection]:
        opened.append(settings)
        return connect(settings if len(opened) == 1 else Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))

    monkeypatch.setattr(importing, "connect", let_one_in)
    report = await importer.run(legacy)
    assert [entry["video"] for entry in entries(report, "failed")] == names
    assert all("Connection refused" in entry["reason"] for entry in entries(report, "failed"))
    assert len(opened) < 30


@pytest.mark.usefixtures("impatient")
async def test_a_video_whose_row_is_locked_is_lost_alone(importer: Importer, legacy: LegacyLibrary) -> None:
    names = add_thirty(legacy)
    importer.settings = importer.settings.model_copy(update={"database_lock_timeout": 0.05})
    async with importer.connection() as conn, conn.transaction(force_rollback=True):
        await VideoRepository(conn).create(identifier="v03", cloud_url="gs://films/v03.mp4")
        report = await importer.run(legacy)
    (failed,) = entries(report, "failed")
    assert failed["video"] == "v03"
    assert failed["reason"].startswith("another transaction held its rows for too long")
    assert [row["identifier"] for row in await importer.rows("videos", "identifier")] == [
        name for name in names if name != "v03"
    ]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (psycopg.errors.QueryCanceled, "PostgreSQL stopped one of its statements: out of luck"),
        (psycopg.errors.DeadlockDetected, "another transaction and its own waited for each other: out of luck"),
        (psycopg.errors.SerializationFailure, "another transaction changed its rows at the same time: out of luck"),
        (psycopg.OperationalError, "the connection broke while it was written: out of luck"),
    ],
)
async def test_a_video_that_the_database_gives_up_is_lost_alone_and_the_report_says_why(
    importer: Importer,
    legacy: LegacyLibrary,
    monkeypatch: pytest.MonkeyPatch,
    error: type[psycopg.Error],
    reason: str,
) -> None:
    add_thirty(legacy)

    async def fail(conn: Connection, prepared: PreparedVideo, *rest: Any) -> Written:
        if prepared.identifier == "v03":
            raise error("out of luck")
        return await write_video(conn, prepared, *rest)

    monkeypatch.setattr(importing, "write_video", fail)
    report = await importer.run(legacy)
    assert [(entry["video"], entry["reason"]) for entry in entries(report, "failed")] == [("v03", reason)]
    assert counts(report, "new")["videos"] == 29


@pytest.mark.usefixtures("impatient")
async def test_a_video_may_take_longer_than_a_statement_of_the_application(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy.add_moments("talk", make_row())
    url = f"{importer.settings.database_url.get_secret_value()}?options=-c%20statement_timeout%3D100"
    importer.settings = Settings(database_url=url)

    async def write_slowly(conn: Connection, *rest: Any) -> Written:
        await conn.execute("SELECT pg_sleep(0.2)")
        return await write_video(conn, *rest)

    monkeypatch.setattr(importing, "write_video", write_slowly)
    assert (await importer.run(legacy))["complete"] is True


async def test_a_registry_that_cannot_be_read_loses_only_itself(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    legacy.add("url_registry.json", "{")
    report = await importer.run(legacy)
    assert [entry["file"] for entry in entries(report, "refused")] == ["url_registry.json"]
    assert counts(report, "new")["moments"] == 1


async def test_a_registry_that_is_none_is_in_the_report(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add("url_registry.json", {"entries": "mine"})
    assert [entry["content"] for entry in entries(await importer.run(legacy), "refused")] == [{"entries": "mine"}]
