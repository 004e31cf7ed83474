"""The names of stored files."""

import pytest

from app.storage import audio_folder_key, clip_folder_key, storable_name, thumbnail_folder_key, video_folder_key


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
