"""What an import leaves in the tables."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.importer import importing, prepared_videos
from app.importer.legacy_files import LegacyVideoFiles, LibraryContents
from app.importer.report import EntryKind
from app.repositories import MomentRepository, PromptRepository, VideoRepository
from app.repositories.media import PlayableCopyRepository
from tests.importer.importer import Importer, counts, entries
from tests.importer.legacy import (
    SEGMENTS,
    TEXT,
    WORDS,
    LegacyLibrary,
    fill,
    legacy_id,
    make_config,
    make_refined,
    make_registry_entry,
    make_row,
    make_run,
    make_transcript,
)
from tests.media.movies import FRAME_RATE, HEIGHT, WIDTH, make_bomb
from tests.media.test_truncation import cut_off, make_noise


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes | None]]:
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


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


async def test_a_video_file_is_described_by_itself(importer: Importer, legacy: LegacyLibrary) -> None:
    path = legacy.add_video("a talk.mp4", seconds=2)
    await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["identifier"], video["cloud_url"]) == ("a talk", path.as_uri())
    assert (video["video_codec"], video["audio_codec"]) == ("h264", None)
    assert (video["resolution"], video["frame_rate"]) == (f"{WIDTH}x{HEIGHT}", FRAME_RATE)
    assert video["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert (video["title"], video["source_url"]) == (None, None)


async def test_a_file_that_was_cut_off_is_imported_as_long_as_it_is(importer: Importer, legacy: LegacyLibrary) -> None:
    path = make_noise(legacy.add("videos/talk.mp4", ""), "libx264", None, "mp4")
    seconds = cut_off(path)
    legacy.add_moments("talk", make_row(90.0, 95.0))
    for _ in range(2):
        await importer.run(legacy)
        video = await importer.row("videos")
        assert video["duration_seconds"] == pytest.approx(seconds, abs=0.25)
        assert (await importer.row("moments"))["end_time"] == 95.0
        async with importer.connection() as conn:
            ends_early, declared = await PlayableCopyRepository(conn).get_early_end(video["id"])
            assert ends_early
            assert declared == pytest.approx(12.0, abs=0.1)


async def test_a_video_file_that_is_none_is_reported_and_its_video_is_imported(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add("videos/talk.mp4", "not a film")
    legacy.add_transcript("talk")
    report = await importer.run(legacy)
    assert counts(report, "new") == {"videos": 1, "transcripts": 1}
    assert [(entry["file"], entry["kind"]) for entry in report["entries"]] == [("videos/talk.mp4", "refused")]


async def test_a_video_file_of_too_many_pixels_is_reported_and_its_video_is_imported(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    make_bomb(legacy.add("videos/talk.mp4", ""), 100, streams=6, said_side=16_000, container_format="mov")
    report = await importer.run(legacy)
    assert counts(report, "new") == {"videos": 1}
    (entry,) = report["entries"]
    assert (entry["file"], entry["kind"]) == ("videos/talk.mp4", "refused")
    assert "pixels" in entry["reason"]


@pytest.mark.parametrize(
    ("reader", "lost"),
    [
        ("probe_media", "videos/talk.mp4"),
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

    monkeypatch.setattr(prepared_videos, reader, fail)
    report = await importer.run(legacy)
    refused = [entry for entry in entries(report, "refused") if entry["video"] == "talk"]
    assert [(entry["file"], entry["reason"]) for entry in refused] == [(lost, "LookupError: out of luck")]
    assert counts(report, "new")["videos"] == whole["videos"]
    assert entries(report, "failed") == []


def test_a_picture_that_is_gone_by_now_loses_only_itself(legacy: LegacyLibrary) -> None:
    files = LegacyVideoFiles("talk", thumbnail=legacy.root / "thumbnails" / "talk.jpg")
    prepared = prepared_videos.prepare_video(files, LibraryContents(legacy.root, [files], {}), None)
    refused = [entry for entry in prepared.reporter.entries if entry.kind is EntryKind.REFUSED]
    assert [(entry.file, entry.reason) for entry in refused] == [
        ("thumbnails/talk.jpg", "it cannot be read: No such file or directory")
    ]


async def test_a_video_without_a_video_file_lies_where_the_registry_says(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4", file_size=5 * 1024 * 1024))
    await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["cloud_url"], video["source_url"]) == ("gs://films/talk.mp4", "gs://films/talk.mp4")
    assert video["file_size_kb"] == 5 * 1024


async def test_a_video_without_a_video_file_or_an_address_lies_where_its_video_file_would_be(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row())
    report = await importer.run(legacy)
    expected = (legacy.root / "videos" / "talk.mp4").as_uri()
    assert (await importer.row("videos"))["cloud_url"] == expected
    assert [entry["content"] for entry in entries(report, "missing")] == [expected]


async def test_a_transcript_is_stored_with_its_words_and_segments(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_transcript("talk")
    await importer.run(legacy)
    transcript = await importer.row("transcripts")
    assert (transcript["full_text"], transcript["word_timestamps"]) == (TEXT, WORDS)
    assert transcript["segment_timestamps"] == SEGMENTS
    assert (transcript["number_of_words"], transcript["number_of_segments"]) == (len(WORDS), len(SEGMENTS))
    assert (transcript["transcription_service"], transcript["processing_time_seconds"]) == ("parakeet", 2.59)


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


async def test_a_clip_file_of_no_moment_is_an_orphan(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    legacy.add("moment_clips/talk_0000000000000000_clip.mp4", "x")
    report = await importer.run(legacy)
    assert [entry["file"] for entry in entries(report, "orphan")] == ["moment_clips/talk_0000000000000000_clip.mp4"]


async def test_an_id_that_leads_elsewhere_finds_no_clip(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(id="x/../other"))
    legacy.add_video("../moment_clips/other_clip.mp4")
    (legacy.root / "moment_clips" / "talk_x").mkdir()
    report = await importer.run(legacy)
    assert await importer.rows("clips") == []
    assert [entry["file"] for entry in entries(report, "orphan")] == ["moment_clips/other_clip.mp4"]


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


async def test_a_registry_that_cannot_be_read_loses_only_itself(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row())
    legacy.add("url_registry.json", "{")
    report = await importer.run(legacy)
    assert [entry["file"] for entry in entries(report, "refused")] == ["url_registry.json"]
    assert counts(report, "new")["moments"] == 1


async def test_a_registry_that_is_none_is_in_the_report(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add("url_registry.json", {"entries": "mine"})
    assert [entry["content"] for entry in entries(await importer.run(legacy), "refused")] == [{"entries": "mine"}]
