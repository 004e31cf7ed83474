"""Importing again changes nothing, also with names in other Unicode forms."""

import unicodedata
from pathlib import Path

from app.repositories import ClipRepository, VideoRepository
from app.storage import find_audio_file
from tests.factories import make_moment
from tests.importer.importer import Importer, counts, entries
from tests.importer.legacy import (
    LegacyLibrary,
    fill,
    legacy_id,
    make_registry_entry,
    make_row,
    make_run,
)


async def test_importing_again_changes_nothing(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    first = await importer.run(legacy)
    before = await importer.everything()
    second = await importer.run(legacy)
    assert await importer.everything() == before
    assert (counts(second, "new"), counts(second, "changed")) == ({}, {})
    assert counts(second, "unchanged") == counts(first, "new")
    assert second["entries"] == first["entries"]


async def test_a_video_file_that_is_gone_takes_nothing_with_it(importer: Importer, legacy: LegacyLibrary) -> None:
    path = legacy.add_video("talk.mkv")
    legacy.add_transcript("talk")
    await importer.run(legacy)
    before = await importer.everything()
    path.unlink()
    await importer.run(legacy)
    assert await importer.everything() == before


async def test_a_video_file_that_comes_later_is_found(importer: Importer, legacy: LegacyLibrary) -> None:
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
        await make_moment(conn, identifier="by-hand", video_id=video.id, start_time=100, end_time=110, title="By hand")
    before = await importer.rows("moments")
    legacy.add_moments("talk", make_row(10.0, 40.0))
    report = await importer.run(legacy)
    assert await importer.rows("moments") == before
    assert [entry["content"] for entry in entries(report, "kept")] == [[legacy_id(40.0, 70.0), "by-hand"]]


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


NFC = "Crème brûlée"
NFD = unicodedata.normalize("NFD", NFC)


def fill_decomposed(legacy: LegacyLibrary) -> None:
    """The media as macOS names them, the JSON as another system does."""
    row = make_row(10.0, 40.0, title=f"The {NFD}\u202e of the house")
    legacy.add_video(f"{NFD}.mp4")
    legacy.add_thumbnail(NFD)
    legacy.add(f"audios/{NFD}.wav", b"RIFF")
    legacy.add(f"moment_clips/{NFD}_{row['id']}_clip.mp4", (legacy.root / f"videos/{NFD}.mp4").read_bytes())
    legacy.add_transcript(
        NFC,
        transcription=f"a {NFD} please",
        word_timestamps=[{"word": NFD, "start": 0.0, "end": 1.0}],
        segment_timestamps=[{"text": f"a {NFD} please", "start": 0.0, "end": 1.0, "word_count": 4}],
    )
    legacy.add_moments(NFC, row)
    legacy.add(f"pipeline_history/{NFC}.json", [make_run(video_id=NFD, request_id=f"pipeline:{NFD}:1769000000000")])
    legacy.add_registry(make_registry_entry(NFD, "https://cdn.example/creme.mp4"))


async def test_files_and_json_of_one_name_are_one_video(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_decomposed(legacy)
    report = await importer.run(legacy)
    video = await importer.row("videos")
    assert (video["identifier"], video["source_url"]) == (NFC, "https://cdn.example/creme.mp4")
    assert (await importer.storage.stat(video["cloud_url"])).size > 0
    assert (await importer.row("moments"))["title"] == f"The {NFC} of the house"
    transcript = await importer.row("transcripts")
    assert transcript["full_text"] == f"a {NFC} please"
    assert transcript["word_timestamps"][0]["word"] == NFC
    assert transcript["segment_timestamps"][0]["text"] == f"a {NFC} please"
    for table in ("clips", "thumbnails"):
        assert (await importer.storage.stat((await importer.row(table))["cloud_url"])).size > 0
    assert (await find_audio_file(importer.storage, NFC)).endswith(".wav")
    assert (await importer.row("pipeline_history"))["identifier"] == f"pipeline:{NFC}:1769000000000"
    assert not entries(report, "orphan")


async def test_importing_again_changes_nothing_with_or_without_copies(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    fill_decomposed(legacy)
    await importer.run(legacy)
    again = await importer.run(legacy)
    assert (counts(again, "new"), counts(again, "changed")) == ({}, {})
    await importer.run(legacy, copy=True)
    assert (await importer.row("videos"))["cloud_url"].startswith(importer.storage.url_of("videos"))
    assert (await find_audio_file(importer.storage, NFC)).startswith(importer.storage.url_of("audio"))
