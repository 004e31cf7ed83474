"""Which files of a folder belong to which video, and which are reported."""

import os
from pathlib import Path

import pytest

from app.importer.legacy_files import LibraryContents, NotALibrary, find_library_root, scan_library
from app.importer.report import EntryKind, FileReporter
from tests.importer.legacy import LegacyLibrary


def scan(legacy: LegacyLibrary, *registered: str) -> tuple[LibraryContents, dict[str | None, tuple[EntryKind, str]]]:
    """Return the library, and kind and reason of what was noted, by file."""
    reporter = FileReporter(None, None)
    library = scan_library(legacy.root, set(registered), reporter)
    return library, {entry.file: (entry.kind, entry.reason) for entry in reporter.entries}


def names(library: LibraryContents) -> list[str]:
    return [files.identifier for files in library.videos]


@pytest.mark.parametrize(
    "folder", ["videos", "transcripts", "moments", "thumbnails", "audios", "moment_clips", "pipeline_history"]
)
def test_a_library_is_known_by_any_of_its_folders(legacy: LegacyLibrary, folder: str) -> None:
    (legacy.root / folder).mkdir()
    assert find_library_root(legacy.root) == legacy.root


def test_a_library_may_be_named_by_the_folder_it_is_in(legacy: LegacyLibrary) -> None:
    legacy.add_registry()
    assert find_library_root(legacy.root.parent) == legacy.root


def test_a_folder_without_a_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotALibrary, match="no legacy library"):
        find_library_root(tmp_path)
    with pytest.raises(NotALibrary, match="does not exist"):
        find_library_root(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(NotALibrary, match="no folder"):
        find_library_root(tmp_path / "file")


def test_files_of_one_name_are_one_video(legacy: LegacyLibrary) -> None:
    paths = [
        legacy.add(f"{folder}/a talk.{extension}", "x")
        for folder, extension in (
            ("videos", "webm"),
            ("transcripts", "json"),
            ("moments", "json"),
            ("thumbnails", "jpg"),
            ("audios", "wav"),
        )
    ]
    library, noted = scan(legacy)
    (files,) = library.videos
    assert files.identifier == "a talk"
    assert [files.video, files.transcript, files.moments, files.thumbnail, files.audio] == paths
    assert noted == {}


def test_a_video_needs_no_video_file(legacy: LegacyLibrary) -> None:
    legacy.add("transcripts/a.json", "x")
    legacy.add("moments/b.json", "x")
    legacy.add("pipeline_history/c.json", "x")
    assert names(scan(legacy, "d")[0]) == ["a", "b", "c", "d"]


def test_of_two_video_files_with_one_name_the_first_extension_counts(legacy: LegacyLibrary) -> None:
    for extension in ("ogg", "webm", "mkv", "MP4"):
        legacy.add(f"videos/talk.{extension}", "x")
    library, noted = scan(legacy)
    assert library.videos[0].video == legacy.root / "videos/talk.MP4"
    assert noted["videos/talk.webm"] == (EntryKind.REFUSED, "talk.MP4 has the same id and comes first")
    assert len(noted) == 3


@pytest.mark.parametrize("extension", [".mp4", ".webm", ".mov", ".avi", ".mkv", ".ogg", ".MOV"])
def test_a_video_file_is_known_by_its_extension(legacy: LegacyLibrary, extension: str) -> None:
    legacy.add(f"videos/talk{extension}", "x")
    assert names(scan(legacy)[0]) == ["talk"]


def test_a_thumbnail_alone_is_an_orphan(legacy: LegacyLibrary) -> None:
    legacy.add_thumbnail("gone")
    library, noted = scan(legacy)
    assert library.videos == []
    assert noted["thumbnails/gone.jpg"][0] is EntryKind.ORPHAN


def test_the_audio_of_nothing_is_an_orphan(legacy: LegacyLibrary) -> None:
    legacy.add("audios/gone.wav", "x")
    library, noted = scan(legacy)
    assert library.videos == []
    assert noted["audios/gone.wav"] == (EntryKind.ORPHAN, "the audio of a video that has nothing else")


def test_by_products_are_passed_over_in_silence(legacy: LegacyLibrary) -> None:
    for path in ("moments/a.lock", "moments/a.tmp", "moments/a.json.bak", "videos/.DS_Store", "url_registry.lock"):
        legacy.add(path, "x")
    assert scan(legacy) == (LibraryContents(legacy.root, [], {}), {})


def test_everything_else_is_noted(legacy: LegacyLibrary) -> None:
    legacy.add("videos/notes.txt", "x")
    legacy.add("uploads/talk.mp4", "x")
    legacy.add("read.me", "x")
    _, noted = scan(legacy)
    assert {name: kind for name, (kind, _) in noted.items()} == dict.fromkeys(
        ("videos/notes.txt", "uploads", "read.me"), EntryKind.ORPHAN
    )


def test_a_folder_where_a_file_should_be_is_refused(legacy: LegacyLibrary) -> None:
    (legacy.root / "moments" / "talk.json").mkdir(parents=True)
    library, noted = scan(legacy)
    assert library.videos == []
    assert noted["moments/talk.json"] == (EntryKind.REFUSED, "a folder where a file should be")


def test_what_is_no_regular_file_is_refused(legacy: LegacyLibrary) -> None:
    legacy.add("moments/other.json", "[]")
    os.mkfifo(legacy.root / "moments" / "talk.json")
    assert scan(legacy)[1]["moments/talk.json"] == (EntryKind.REFUSED, "no regular file")


def test_a_link_is_followed_inside_the_library_and_not_out_of_it(legacy: LegacyLibrary, tmp_path: Path) -> None:
    legacy.add("moments/a.json", "[]")
    (tmp_path / "secret.json").write_text("[]")
    (legacy.root / "moments" / "b.json").symlink_to("a.json")
    (legacy.root / "moments" / "c.json").symlink_to(tmp_path / "secret.json")
    (legacy.root / "moments" / "d.json").symlink_to("d.json")
    library, noted = scan(legacy)
    assert names(library) == ["a", "b"]
    assert "leads out" in noted["moments/c.json"][1]
    assert "does not exist" in noted["moments/d.json"][1]


def test_a_folder_may_be_a_link_to_a_larger_disk(legacy: LegacyLibrary, tmp_path: Path) -> None:
    LegacyLibrary(tmp_path / "disk").add("videos/talk.mp4", "x")
    (legacy.root / "videos").symlink_to(tmp_path / "disk" / "videos")
    assert names(scan(legacy)[0]) == ["talk"]


def test_a_name_that_cannot_be_an_id_is_refused_with_the_name(legacy: LegacyLibrary) -> None:
    legacy.add("moments/good.json", "[]")
    (legacy.root / "moments" / os.fsdecode(b"caf\xe9.json")).write_text("[]")
    reporter = FileReporter(None, None)
    library = scan_library(legacy.root, set(), reporter)
    assert names(library) == ["good"]
    assert [(entry.kind, entry.content) for entry in reporter.entries] == [(EntryKind.REFUSED, os.fsdecode(b"caf\xe9"))]


def test_clip_files_are_listed(legacy: LegacyLibrary) -> None:
    legacy.add("moment_clips/talk_7621a017eec7482f_clip.mp4", "x")
    assert set(scan(legacy)[0].clips) == {"talk_7621a017eec7482f_clip.mp4"}
