"""What `--copy` brings into storage, and which addresses the rows have then."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.importer import importing, locations
from app.importer.legacy_files import LegacyVideoFiles, LibraryContents
from app.importer.legacy_records import RegisteredSource
from app.importer.prepared_videos import PreparedVideo, prepare_video
from app.repositories import ClipRepository, ThumbnailRepository, VideoRepository
from app.storage import audio_folder_key, clip_folder_key, thumbnail_folder_key, video_folder_key
from tests.importer.importer import Importer, counts, entries
from tests.importer.legacy import LegacyLibrary, fill, make_registry_entry, make_row
from tests.retries import remove_waits
from tests.storage.stores import read_all

MEDIA = {"clips": 1, "thumbnails": 1, "videos": 1}


def fill_with_media(legacy: LegacyLibrary, video: str = "talk") -> dict[str, Path]:
    """A video with every kind of file; return where each lies, by the folder that its copy belongs into."""
    moment = make_row(2.0, 4.0)
    legacy.add_moments(video, moment)
    return {
        video_folder_key(video): legacy.add_video(f"{video}.mp4", seconds=2),
        thumbnail_folder_key(video): legacy.add_thumbnail(video),
        audio_folder_key(video): legacy.add(f"audios/{video}.wav", b"RIFF" + bytes(5000)),
        clip_folder_key(video): legacy.add_video(f"../moment_clips/{video}_{moment['id']}_clip.mp4").resolve(),
    }


async def read(importer: Importer, url: str) -> bytes:
    return await read_all(importer.storage, url)


async def addresses(importer: Importer) -> dict[str, str]:
    return {table: (await importer.row(table))["cloud_url"] for table in ("videos", "thumbnails", "clips")}


async def test_every_file_of_a_video_is_in_storage_and_its_rows_name_it_there(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    files = fill_with_media(legacy, "My talk")
    report = await importer.run(legacy, copy=True)
    for folder, source in files.items():
        (stored,) = await importer.storage.list_files(folder)
        assert await read(importer, stored.url) == source.read_bytes()
    video, thumbnail, _, clip = [(await importer.storage.list_files(folder))[0].url for folder in files]
    assert await addresses(importer) == {"videos": video, "thumbnails": thumbnail, "clips": clip}
    assert report["files"]["copied"] == 4
    assert report["files"]["copied_bytes"] == sum(path.stat().st_size for path in files.values())
    assert report["complete"] is True


async def test_a_copied_clip_keeps_the_name_that_old_links_have(importer: Importer, legacy: LegacyLibrary) -> None:
    clip = fill_with_media(legacy, "My talk")[clip_folder_key("My talk")]
    await importer.run(legacy, copy=True)
    assert Path((await importer.row("clips"))["cloud_url"]).name == clip.name.replace(" ", "%20")


async def test_copying_touches_nothing_of_the_library(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in legacy.root.rglob("*")}
    await importer.run(legacy, copy=True)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in legacy.root.rglob("*")} == before


async def test_copying_again_sends_nothing_and_changes_nothing(importer: Importer, legacy: LegacyLibrary) -> None:
    fill(legacy)
    fill_with_media(legacy, "other")
    first = await importer.run(legacy, copy=True)
    before = await importer.everything()
    second = await importer.run(legacy, copy=True)
    assert await importer.everything() == before
    assert (counts(second, "new"), counts(second, "changed")) == ({}, {})
    assert second["entries"] == first["entries"]
    assert (second["files"]["copied"], second["files"]["copied_before"]) == (0, first["files"]["copied"])


async def test_an_import_without_copying_keeps_the_copies(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    await importer.run(legacy, copy=True)
    before = await importer.everything()
    report = await importer.run(legacy)
    assert await importer.everything() == before
    assert (counts(report, "changed"), report["files"]["in_place"], entries(report, "kept")) == ({}, 0, [])


async def test_copying_after_an_import_moves_the_addresses(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    assert (await importer.run(legacy))["files"]["in_place"] == 4
    before = await importer.everything()
    report = await importer.run(legacy, copy=True)
    after = await importer.everything()
    assert counts(report, "changed") == MEDIA
    for table in MEDIA:
        assert importer.storage.owns(after[table][0]["cloud_url"])
        assert after[table][0] | {"cloud_url": ""} == before[table][0] | {"cloud_url": ""}


async def test_an_import_without_copying_replaces_a_copy_that_is_gone(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    files = fill_with_media(legacy)
    await importer.run(legacy, copy=True)
    for url in (await addresses(importer)).values():
        await importer.storage.delete(url)
    assert counts(await importer.run(legacy), "changed") == MEDIA
    assert (await addresses(importer))["videos"] == files[video_folder_key("talk")].as_uri()


async def test_a_clip_whose_copy_is_gone_lies_where_its_moment_says(importer: Importer, legacy: LegacyLibrary) -> None:
    clip = fill_with_media(legacy)[clip_folder_key("talk")]
    legacy.add_moments("talk", make_row(2.0, 4.0, gcs_clip_path="clips/c.mp4"))
    await importer.run(legacy, copy=True, bucket="films")
    await importer.storage.delete((await importer.row("clips"))["cloud_url"])
    clip.unlink()
    await importer.run(legacy, bucket="films")
    assert (await importer.row("clips"))["cloud_url"] == "gs://films/clips/c.mp4"


async def test_a_file_that_changed_in_the_library_is_sent_again(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    await importer.run(legacy, copy=True)
    before = await importer.row("videos")
    video_file = legacy.add_video("talk.mp4", seconds=4)
    report = await importer.run(legacy, copy=True)
    video = await importer.row("videos")
    assert await read(importer, video["cloud_url"]) == video_file.read_bytes()
    assert video["duration_seconds"] == pytest.approx(4, abs=0.2)
    assert video["cloud_url"] == before["cloud_url"]
    assert (report["files"]["copied"], report["files"]["copied_before"]) == (1, 3)


async def test_a_copy_that_stays_is_described_as_it_is(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    await importer.run(legacy, copy=True)
    before = await importer.row("videos")
    legacy.add_video("talk.mp4", seconds=4)
    await importer.run(legacy)
    assert await importer.row("videos") == before


@pytest.mark.parametrize("copy", [False, True])
async def test_what_was_uploaded_or_made_since_stays(importer: Importer, legacy: LegacyLibrary, copy: bool) -> None:
    fill_with_media(legacy)
    await importer.run(legacy)
    for table, folder in (("videos", "videos"), ("thumbnails", "thumbnails"), ("clips", "clips")):
        row = await importer.row(table)
        url = (await importer.storage.put(f"{folder}/talk/uploaded.mp4", legacy.root / "videos/talk.mp4")).url
        async with importer.connection() as conn:
            for repository in (VideoRepository, ThumbnailRepository, ClipRepository):
                if repository.__name__.lower().startswith(table[:-1]):
                    await repository(conn).update(row["id"], cloud_url=url)
    before = await importer.everything()
    report = await importer.run(legacy, copy=copy)
    assert await importer.everything() == before
    assert [entry["content"] for entry in entries(report, "kept")] == [before["videos"][0]["cloud_url"]]
    assert len(await importer.storage.list_files("videos")) == 1


async def test_a_dry_run_says_what_would_be_copied_and_writes_nothing(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    fill_with_media(legacy)
    rehearsal = await importer.run(legacy, dry_run=True, copy=True)
    assert not importer.settings.data_dir.exists()
    performance = await importer.run(legacy, copy=True)
    for name in ("tables", "entries", "files"):
        assert rehearsal[name] == performance[name]
    assert (await importer.run(legacy, dry_run=True, copy=True))["files"]["copied_before"] == 4


async def test_addresses_in_buckets_are_not_copied_and_counted(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(gcs_clip_path="clips/c.mp4"))
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4"))
    report = await importer.run(legacy, copy=True, bucket="films")
    assert (report["files"]["elsewhere"], report["files"]["copied"]) == (2, 0)
    assert (await importer.row("videos"))["cloud_url"] == "gs://films/talk.mp4"


async def test_a_clip_of_no_moment_is_not_copied(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    legacy.add_video("../moment_clips/talk_0000000000000000_clip.mp4")
    await importer.run(legacy, copy=True)
    assert len(await importer.storage.list_files("clips")) == 1


async def test_names_that_differ_only_in_their_case_have_folders_of_their_own(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    video_file = legacy.add_video("talk.mp4").read_bytes()
    for video in ("talk", "Talk", "TALK"):
        legacy.add(f"videos/{video}.mp4", video_file + video.encode())
    await importer.run(legacy, copy=True)
    urls = [row["cloud_url"] for row in await importer.rows("videos", 'identifier COLLATE "C"')]
    assert len({url.lower() for url in urls}) == 3
    assert [(await read(importer, url))[-4:] for url in urls] == [b"TALK", b"Talk", b"talk"]


@pytest.mark.parametrize(
    "video", ["a b", "ü", "talk%2F..", "a..", "x" * 220, "a\nb", "con", "?*#", "a\\b", "-", "Kevin_Hart_(2) & co."]
)
async def test_whatever_a_video_is_called_its_files_are_copied(
    importer: Importer, legacy: LegacyLibrary, video: str
) -> None:
    files = fill_with_media(legacy, video)
    assert (await importer.run(legacy, copy=True))["files"]["copied"] == 4
    for table, folder in (
        ("videos", video_folder_key),
        ("thumbnails", thumbnail_folder_key),
        ("clips", clip_folder_key),
    ):
        assert await read(importer, (await importer.row(table))["cloud_url"]) == files[folder(video)].read_bytes()


async def test_ten_imports_that_copy_at_once_leave_one_copy(importer: Importer, legacy: LegacyLibrary) -> None:
    files = fill_with_media(legacy)
    fill_with_media(legacy, "other")
    reports = await asyncio.gather(*(importer.run(legacy, copy=True) for _ in range(10)))
    assert [report["complete"] for report in reports] == [True] * 10
    for folder, source in files.items():
        (stored,) = await importer.storage.list_files(folder)
        assert await read(importer, stored.url) == source.read_bytes()
    assert counts(await importer.run(legacy, dry_run=True, copy=True), "changed") == {}


def vanish(monkeypatch: pytest.MonkeyPatch, *paths: Path, turn_into: Any = None) -> None:
    """Remove files when they have been looked at and are not copied yet, and leave what `turn_into` makes instead."""

    def prepare(files: LegacyVideoFiles, library: LibraryContents, source: RegisteredSource | None) -> PreparedVideo:
        prepared = prepare_video(files, library, source)
        for path in paths if files.identifier == "talk" else ():
            path.unlink()
            if turn_into:
                turn_into(path)
        return prepared

    monkeypatch.setattr(importing, "prepare_video", prepare)


async def test_files_that_vanish_lose_only_themselves(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fill_with_media(legacy)
    fill_with_media(legacy, "other")
    vanish(monkeypatch, *files.values())
    report = await importer.run(legacy, copy=True)
    assert {(entry["file"], entry["reason"]) for entry in entries(report, "refused")} == {
        (f"{path.parent.name}/{path.name}", "it cannot be read: No such file or directory") for path in files.values()
    }
    assert report["files"]["copied"] == 4
    video, other = sorted(await importer.rows("videos"), key=lambda row: row["identifier"] != "talk")
    assert (video["cloud_url"], video["file_size_kb"]) == (files[video_folder_key("talk")].as_uri(), None)
    for table in ("thumbnails", "clips"):
        assert (await importer.row(table))["video_id"] == other["id"]


@pytest.mark.parametrize(
    ("turn_into", "reason"),
    [
        (Path.mkdir, "it is no regular file any more"),
        (lambda path: path.symlink_to(path), "it cannot be read: Too many levels of symbolic links"),
    ],
)
async def test_a_file_that_becomes_something_else_loses_only_itself(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch, turn_into: Any, reason: str
) -> None:
    video_file = fill_with_media(legacy)[video_folder_key("talk")]
    vanish(monkeypatch, video_file, turn_into=turn_into)
    report = await importer.run(legacy, copy=True)
    assert [(entry["file"], entry["reason"]) for entry in entries(report, "refused")] == [("videos/talk.mp4", reason)]
    assert counts(report, "new") == {"videos": 1, "prompts": 1, "generation_configs": 1} | {
        "moments": 1,
        "clips": 1,
        "thumbnails": 1,
    }


async def test_a_video_whose_file_vanished_and_that_lies_in_a_bucket_too_lies_there(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_file = fill_with_media(legacy)[video_folder_key("talk")]
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4"))
    vanish(monkeypatch, video_file)
    await importer.run(legacy, copy=True)
    assert (await importer.row("videos"))["cloud_url"] == "gs://films/talk.mp4"


async def test_copies_that_are_deleted_before_their_rows_are_written_are_made_again(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_with_media(legacy)
    copy = locations.LibraryFileCopier.copy_files
    deleted: list[str] = []

    async def copy_and_delete(self: locations.LibraryFileCopier, *rest: Any) -> Any:
        places = await copy(self, *rest)
        if not deleted:
            deleted.extend(sorted(places.new_copies))
            await importer.storage.delete(deleted[0])
        return places

    monkeypatch.setattr(locations.LibraryFileCopier, "copy_files", copy_and_delete)
    assert (await importer.run(legacy, copy=True))["complete"] is True
    folders = ("audio", "clips", "thumbnails", "videos")
    assert [file.url for folder in folders for file in await importer.storage.list_files(folder)] == deleted


async def test_a_deletion_of_the_video_that_is_under_way_comes_first(importer: Importer, legacy: LegacyLibrary) -> None:
    fill_with_media(legacy)
    async with importer.connection() as conn, conn.transaction():
        await VideoRepository(conn).lock_video_identifier("talk")
        running = asyncio.create_task(importer.run(legacy, copy=True))
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not running.done() and (await conn.execute(waiting)).rowcount == 0:
            pass
        await importer.storage.delete((await importer.storage.list_files("videos"))[0].url)
    assert (await running)["complete"] is True
    assert len(await importer.storage.list_files("videos")) == 1


async def test_copies_that_somebody_deletes_again_and_again_fail_their_video(
    importer: Importer, legacy: LegacyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_with_media(legacy)
    remove_waits(monkeypatch, "app.importer.video_rows._WRITE_POLICY", calls=3)

    async def is_gone(*_: object) -> bool:
        return False

    monkeypatch.setattr(locations.LibraryFileCopier, "has_all_copies", is_gone)
    report = await importer.run(legacy, copy=True)
    assert [entry["reason"] for entry in entries(report, "failed")] == ["its files were deleted while they were copied"]
    assert await importer.rows("videos") == []
