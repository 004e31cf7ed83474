"""Which folders the server may serve files from after an import."""

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ConfigurationError, FileMissing, StorageUnavailable
from app.storage import open_storage
from tests.importer.importer import Importer
from tests.importer.legacy import LegacyLibrary, make_registry_entry, make_row


async def test_a_running_server_can_read_the_files_of_an_imported_library(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    video_file = legacy.add_video("talk.mp4")
    server = open_storage(importer.settings)
    with pytest.raises(FileMissing):
        await server.stat(video_file.as_uri())
    await importer.run(legacy)
    assert (await server.stat((await importer.row("videos"))["cloud_url"])).size == video_file.stat().st_size
    await server.aclose()


async def test_what_lies_on_another_disk_and_is_linked_can_be_read_too(
    importer: Importer, legacy: LegacyLibrary, tmp_path: Path
) -> None:
    video_file = LegacyLibrary(tmp_path / "disk").add_video("talk.mp4")
    (legacy.root / "videos").symlink_to(video_file.parent)
    legacy.add_thumbnail("talk")
    await importer.run(legacy)
    assert (await importer.storage.stat((await importer.row("videos"))["cloud_url"])).size == video_file.stat().st_size
    assert importer.storage.libraries.list_folders() == (legacy.root, video_file.parent)


async def test_files_of_a_library_are_never_the_servers_own(importer: Importer, legacy: LegacyLibrary) -> None:
    video_file = legacy.add_video("talk.mp4")
    await importer.run(legacy)
    assert not importer.storage.owns((await importer.row("videos"))["cloud_url"])
    assert await importer.storage.delete((await importer.row("videos"))["cloud_url"]) is False
    assert video_file.exists()


async def test_a_video_file_that_may_come_later_is_expected_in_the_library(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_moments("talk", make_row())
    await importer.run(legacy)
    video_file = legacy.add_video("talk.mp4")
    assert (await importer.storage.stat((await importer.row("videos"))["cloud_url"])).size == video_file.stat().st_size


async def test_a_dry_run_notes_nothing(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_video("talk.mp4")
    assert (await importer.run(legacy, dry_run=True))["files"]["in_place"] == 1
    assert importer.storage.libraries.list_folders() == ()


async def test_a_library_of_which_no_row_names_a_file_is_not_noted(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4"))
    await importer.run(legacy)
    assert importer.storage.libraries.list_folders() == ()


async def test_a_library_that_is_copied_is_not_noted(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_video("talk.mp4")
    await importer.run(legacy, copy=True)
    assert importer.storage.libraries.list_folders() == ()


async def test_importing_twice_notes_a_library_once(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_video("talk.mp4")
    for _ in range(2):
        await importer.run(legacy)
    assert importer.storage.libraries.list_folders() == (legacy.root,)


@pytest.mark.parametrize("home", ["static", "static/media", "link"])
@pytest.mark.parametrize("how", [{}, {"dry_run": True}, {"copy": True}])
async def test_a_library_that_the_servers_own_files_lie_in_is_refused(
    own_database_url: str, legacy: LegacyLibrary, tmp_path: Path, home: str, how: dict[str, bool]
) -> None:
    video_file = legacy.add_video("talk.mp4")
    (tmp_path / "link").symlink_to(legacy.root)
    importer = Importer(own_database_url, tmp_path / "data", (tmp_path / home).as_uri())
    with pytest.raises(ConfigurationError, match=r"^STORAGE_URL must not lie in the library"):
        await importer.run(legacy, **how)
    assert await importer.rows("videos") == []
    assert not importer.settings.data_dir.exists()
    assert importer.storage.libraries.list_folders() == ()
    assert video_file.exists()


async def test_a_linked_folder_that_the_servers_own_files_lie_in_is_refused(
    own_database_url: str, legacy: LegacyLibrary, tmp_path: Path
) -> None:
    video_file = LegacyLibrary(tmp_path / "disk").add_video("talk.mp4")
    (legacy.root / "videos").symlink_to(video_file.parent)
    importer = Importer(own_database_url, tmp_path / "data", (video_file.parent / "media").as_uri())
    with pytest.raises(ConfigurationError, match=r"^STORAGE_URL must not lie in the library"):
        await importer.run(legacy)


@pytest.mark.parametrize("storage_url", ["gs://films", "gs://films/clips"])
@pytest.mark.parametrize("bucket", [None, "films"])
async def test_a_clip_that_would_be_the_servers_own_is_not_referred_to(
    own_database_url: str, legacy: LegacyLibrary, tmp_path: Path, storage_url: str, bucket: str | None
) -> None:
    path = "clips/talk/7621a017eec7482f_clip.mp4"
    named: dict[str, Any] = (
        {"gcs_clip_path": path} if bucket else {"clip_signed_url": f"https://storage.googleapis.com/films/{path}?x=1"}
    )
    legacy.add_moments("talk", make_row(**named))
    legacy.add("moments/broken.json", "no JSON")
    importer = Importer(own_database_url, tmp_path / "data", storage_url)
    with pytest.raises(ConfigurationError, match=f"^STORAGE_URL must name a folder .* gs://films/{path} is yours"):
        await importer.run(legacy, bucket=bucket)
    assert await importer.rows("videos") == []


async def test_a_video_file_that_would_be_the_servers_own_is_not_referred_to(
    own_database_url: str, legacy: LegacyLibrary, tmp_path: Path
) -> None:
    legacy.add_registry(make_registry_entry("talk", "gs://films/talk.mp4"))
    importer = Importer(own_database_url, tmp_path / "data", "gs://films")
    with pytest.raises(ConfigurationError, match=r"gs://films/talk\.mp4 is yours"):
        await importer.run(legacy)
    assert await importer.rows("videos") == []


async def test_a_library_within_the_home_that_cannot_be_noted_is_not_imported(
    own_database_url: str, tmp_path: Path
) -> None:
    legacy = LegacyLibrary(tmp_path / "media/static")
    legacy.add_video("talk.mp4")
    importer = Importer(own_database_url, tmp_path / "data", (tmp_path / "media").as_uri())
    importer.settings.data_dir.touch()
    with pytest.raises(StorageUnavailable, match="cannot be noted"):
        await importer.run(legacy)
    assert await importer.rows("videos") == []


async def test_a_note_that_cannot_be_written_stops_nothing(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_video("talk.mp4")
    importer.settings.data_dir.touch()
    assert (await importer.run(legacy))["complete"] is True
