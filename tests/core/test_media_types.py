"""What file names say."""

import pytest

from app.core.media_types import VIDEO_EXTENSIONS, guess_media_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("film.mp4", "video/mp4"),
        ("gs://bucket/a.mp4/FILM.WEBM", "video/webm"),
        ("still.jpg", "image/jpeg"),
        ("film.mp4.part", "application/octet-stream"),
        ("film.", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_an_extension_tells_the_media_type(name: str, expected: str) -> None:
    assert guess_media_type(name) == expected


def test_every_extension_of_a_video_has_a_media_type_of_one() -> None:
    assert all(guess_media_type(f"film{extension}").startswith("video/") for extension in VIDEO_EXTENSIONS)
