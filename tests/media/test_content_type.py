"""What a file is by its first bytes, with files as FFmpeg writes them."""

from pathlib import Path

import pytest

from app.media.content_type import SIGNATURE_BYTES, detect_content_type
from tests.media.movies import make_movie


def type_of(path: Path, name: str = "misleading.txt") -> str:
    return detect_content_type(path.read_bytes()[:SIGNATURE_BYTES], name)


@pytest.mark.parametrize(
    ("container", "video", "audio", "expected"),
    [
        ("mp4", "libx264", "aac", "video/mp4"),
        ("mov", "libx264", "aac", "video/quicktime"),
        ("ipod", None, "aac", "audio/mp4"),
        ("3gp", "libx264", "aac", "video/3gpp"),
        ("webm", "libvpx", "libopus", "video/webm"),
        ("matroska", "libx264", "aac", "video/x-matroska"),
        ("avi", "mpeg4", "mp3", "video/x-msvideo"),
        ("ogg", "libvpx", "libopus", "video/ogg"),
        ("ogg", None, "libopus", "audio/ogg"),
        ("mpegts", "libx264", "aac", "video/mp2t"),
        ("mpeg", "libx264", "mp2", "video/mpeg"),
        ("flv", "libx264", "aac", "video/x-flv"),
        ("asf", "mpeg4", "mp3", "video/x-ms-wmv"),
        ("wav", None, "pcm_s16le", "audio/wav"),
    ],
)
def test_a_file_is_what_it_begins_with(
    tmp_path: Path, container: str, video: str | None, audio: str, expected: str
) -> None:
    path = make_movie(tmp_path / "video", 0.5, video, audio, container)
    assert type_of(path) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav"),
        (b"OggS\0\x02" + bytes(22) + b"\x80theora\x03\x02", "video/ogg"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\x1a\x45\xdf\xa3 of another kind", "application/octet-stream"),
    ],
)
def test_rare_beginnings(head: bytes, expected: str) -> None:
    assert detect_content_type(head, "x") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("file:///films/a%20talk.MP4", "video/mp4"),
        ("gs://bucket/talk.webm", "video/webm"),
        ("talk.html", "application/octet-stream"),
        ("mp4", "video/mp4"),
        ("", "application/octet-stream"),
    ],
)
def test_a_file_that_begins_with_nothing_known_is_what_its_name_says(name: str, expected: str) -> None:
    assert detect_content_type(b"", name) == expected
    assert detect_content_type(b"\0\1\2 no film at all", name) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"\xef\xbb\xbf\n <HTML>\xff",
        b'<?xml version="1.0"?><svg onload="x()"/>',
        b"alert(1)",
        b"%PDF-1.7\n\xff",
        b"PK\x03\x04\xff",
    ],
)
@pytest.mark.parametrize("name", ["talk.mp4", "talk.jpg", "talk.wav", "talk.html", "talk.svg"])
def test_what_is_neither_video_nor_audio_nor_an_image_is_only_bytes(head: bytes, name: str) -> None:
    assert detect_content_type(head, name) == "application/octet-stream"
