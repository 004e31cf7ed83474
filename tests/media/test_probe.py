"""What a probe says of good files, of strange ones and of files that are no video."""

from pathlib import Path

import pytest

from app.media.probe import NotAVideo, probe
from tests.media.movies import FRAME_RATE, HEIGHT, WIDTH, make_movie


def test_an_mp4_is_described(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "talk.mp4", seconds=2)
    info = probe(movie)
    assert info.duration_seconds == pytest.approx(2, abs=0.1)
    assert (info.video_codec, info.audio_codec, info.format) == ("h264", "aac", "mp4")
    assert (info.resolution, info.frame_rate) == (f"{WIDTH}x{HEIGHT}", FRAME_RATE)
    assert (info.file_size_kb - 1) * 1024 < movie.stat().st_size <= info.file_size_kb * 1024


def test_a_webm_is_described(tmp_path: Path) -> None:
    info = probe(make_movie(tmp_path / "talk.webm", video_codec="libvpx-vp9", audio_codec="libopus"))
    assert (info.video_codec, info.audio_codec, info.format) == ("vp9", "opus", "webm")


@pytest.mark.parametrize(("name", "expected"), [("talk.MP4", "mp4"), ("talk.mov", "mov"), ("talk.mkv", "mkv")])
def test_the_format_is_the_name_that_the_file_goes_by(tmp_path: Path, name: str, expected: str) -> None:
    container_format = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}[expected]
    assert probe(make_movie(tmp_path / name, container_format=container_format)).format == expected


def test_a_silent_film_has_no_audio_codec(tmp_path: Path) -> None:
    assert probe(make_movie(tmp_path / "silent.mp4", audio_codec=None)).audio_codec is None


def test_a_recording_that_does_not_know_its_length_is_measured(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "live.mkv", seconds=3, audio_codec=None, container_format="matroska")
    blank_out_duration(movie)
    assert probe(movie).duration_seconds == pytest.approx(3, abs=0.15)


def blank_out_duration(matroska: Path) -> None:
    content = matroska.read_bytes()
    position = content.index(b"\x44\x89\x88")  # the element Duration, eight bytes long
    void = b"\xec\x89" + bytes(9)
    matroska.write_bytes(content[:position] + void + content[position + 11 :])


def test_a_film_with_nothing_but_sound_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NotAVideo, match="no picture"):
        probe(make_movie(tmp_path / "song.mp4", video_codec=None))


def test_an_empty_file_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(NotAVideo, match="empty"):
        probe(tmp_path / "empty.mp4")


def test_a_text_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not at all a film")
    with pytest.raises(NotAVideo, match="no video"):
        probe(tmp_path / "notes.mp4")


def test_a_film_that_lost_its_end_is_no_video(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "cut.mp4")
    movie.write_bytes(movie.read_bytes()[:1000])
    with pytest.raises(NotAVideo, match="damaged"):
        probe(movie)


def test_a_picture_of_an_unknown_codec_is_no_video(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "odd.mp4")
    movie.write_bytes(movie.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzZ"))
    with pytest.raises(NotAVideo, match="codec"):
        probe(movie)


def test_a_sound_of_an_unknown_codec_is_no_harm(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "odd.mkv")
    movie.write_bytes(movie.read_bytes().replace(b"A_AAC", b"A_ODD"))
    assert (probe(movie).video_codec, probe(movie).audio_codec) == ("h264", None)


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "talk.ts", container_format="mpegts")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{movie.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(NotAVideo):
        probe(playlist)


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(OSError, match="directory"):
        probe(tmp_path)


def test_a_title_that_is_no_utf8_is_no_harm(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "old.mkv", container_format="matroska", title="Caf__")
    movie.write_bytes(movie.read_bytes().replace(b"Caf__", b"Caf\xe9!"))
    assert probe(movie).video_codec == "h264"
