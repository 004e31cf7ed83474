"""Libraries of file systems that decompose letters: one video, however its files and JSON write its name."""

import unicodedata

from app.storage import find_audio_file
from tests.importer.importer import Importer, counts, entries
from tests.importer.legacy import LegacyLibrary, make_registry_entry, make_row, make_run

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
