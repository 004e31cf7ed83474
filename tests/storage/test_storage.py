"""Which storage URLs are accepted, and the keys of stored files."""

from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.storage import (
    audio_folder_key,
    clip_folder_key,
    open_storage,
    storable_name,
    thumbnail_folder_key,
    video_folder_key,
)
from tests.storage.stores import open_files


@pytest.mark.parametrize(
    "url",
    [
        "file://relative",
        "file://relative/folder",
        "file:relative",
        "file:///",
        "file://",
        "file:///folder?x=1",
        "file:///folder#part",
        "file:///folder/../other",
        "file:///folder/%2e%2e/other",
        "file:///folder%00",
        "gs://",
        "gs:///prefix",
        "gs://Bucket",
        "gs://bucket/../other",
        "gs://bucket/a//b",
        "gs://bucket/prefix?x=1",
        "gs://bucket/prefix#part",
        "gs://user:password@bucket/prefix",
        "gs:bucket",
        "s3://bucket/prefix",
        "https://storage.googleapis.com/bucket",
        "/folder",
        "folder",
    ],
)
def test_an_address_that_cannot_work_is_refused_in_one_sentence(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^STORAGE_URL must [^\n]{10,200}$"):
        open_storage(Settings(storage_url=url, data_dir=tmp_path))


@pytest.mark.parametrize(
    "url", ["file:///folder", "file:///folder/", "file://localhost/a%20b/c", "gs://bucket", "gs://b.c/d/"]
)
def test_an_address_that_can_work_is_taken_and_not_used_yet(url: str, tmp_path: Path) -> None:
    open_storage(Settings(storage_url=url, data_dir=tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_media_lies_in_the_data_folder_where_nothing_else_is_said(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path))
    assert storage.url_of("a/b") == (tmp_path / "media" / "a" / "b").as_uri()


def test_a_prefix_is_a_folder_of_the_bucket(tmp_path: Path) -> None:
    storage = open_storage(Settings(storage_url="gs://bucket/media/", data_dir=tmp_path))
    assert storage.url_of("a/b") == "gs://bucket/media/a/b"
    assert storage.owns("gs://bucket/media/a")
    assert not storage.owns("gs://bucket/media-beside/a")
    assert not storage.owns("gs://bucket/media/")
    assert not storage.owns("file:///media/a")


@pytest.mark.parametrize("library", [".", "media", "link"])
def test_a_library_that_the_own_files_lie_in_is_refused(tmp_path: Path, library: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^LIBRARY_DIRS must not name "):
        open_files(tmp_path, library_dirs=(tmp_path / library,))


def test_a_library_within_or_beside_the_own_files_is_taken(tmp_path: Path) -> None:
    open_files(tmp_path, library_dirs=(tmp_path / "media/library", tmp_path / "media-beside"))


@pytest.mark.parametrize("identifier", ["motivation", "a", "talk-2024_b", "7621a017eec7482f"])
def test_a_plain_identifier_is_its_own_name(identifier: str) -> None:
    assert storable_name(identifier) == identifier


@pytest.mark.parametrize("identifier", ["Motivation", "a b", "../a", "..", "", "ä", "a--b", "a" * 300, "a\0b", ".a"])
def test_any_other_identifier_has_a_plain_name(identifier: str) -> None:
    name = storable_name(identifier)
    assert name != identifier
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert len(name) < 100


def test_two_identifiers_never_share_a_name() -> None:
    identifiers = ["a b", "a-b", "A b", "a  b", "a_b", "a--b", storable_name("a b")]
    assert len({storable_name(each) for each in identifiers}) == len(identifiers)


def test_each_kind_of_file_has_its_folder() -> None:
    folders = [
        folder("motivation") for folder in (video_folder_key, audio_folder_key, clip_folder_key, thumbnail_folder_key)
    ]
    assert folders == ["videos/motivation", "audio/motivation", "clips/motivation", "thumbnails/motivation"]
