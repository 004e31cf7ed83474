"""What a probe says of good files, of strange ones and of files that are no video."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from app.media import probe as probing
from app.media.container import ReadLimits
from app.media.probe import SIGNATURE_BYTES, NotMedia, detect_content_type, probe_media
from tests.media.movies import FRAME_RATE, HEIGHT, WIDTH, make_bomb, make_movie, peak_megabytes


def test_an_mp4_is_described(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "talk.mp4", seconds=2)
    info = probe_media(movie)
    assert info.duration_seconds == pytest.approx(2, abs=0.1)
    assert (info.video_codec, info.audio_codec, info.format) == ("h264", "aac", "mp4")
    assert (info.resolution, info.frame_rate) == (f"{WIDTH}x{HEIGHT}", FRAME_RATE)
    assert (info.file_size_kb - 1) * 1024 < movie.stat().st_size <= info.file_size_kb * 1024


def test_a_webm_is_described(tmp_path: Path) -> None:
    info = probe_media(make_movie(tmp_path / "talk.webm", video_codec="libvpx-vp9", audio_codec="libopus"))
    assert (info.video_codec, info.audio_codec, info.format) == ("vp9", "opus", "webm")


@pytest.mark.parametrize(("name", "expected"), [("talk.MP4", "mp4"), ("talk.mov", "mov"), ("talk.mkv", "mkv")])
def test_the_format_is_the_name_that_the_file_goes_by(tmp_path: Path, name: str, expected: str) -> None:
    container_format = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}[expected]
    assert probe_media(make_movie(tmp_path / name, container_format=container_format)).format == expected


def test_a_silent_video_has_no_audio_codec(tmp_path: Path) -> None:
    assert probe_media(make_movie(tmp_path / "silent.mp4", audio_codec=None)).audio_codec is None


def test_a_recording_that_does_not_know_its_length_is_measured(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "live.mkv", seconds=3, audio_codec=None, container_format="matroska")
    blank_out_duration(movie)
    assert probe_media(movie).duration_seconds == pytest.approx(3, abs=0.15)


def blank_out_duration(matroska: Path) -> None:
    content = matroska.read_bytes()
    position = content.index(b"\x44\x89\x88")  # the element Duration, eight bytes long
    void = b"\xec\x89" + bytes(9)
    matroska.write_bytes(content[:position] + void + content[position + 11 :])


@pytest.mark.parametrize(
    ("name", "codec", "container", "found"),
    [
        ("talk.m4a", "aac", "ipod", ("aac", "m4a", ".m4a")),
        ("talk.mp4", "aac", "mp4", ("aac", "m4a", ".m4a")),
        ("talk", "aac", "mp4", ("aac", "m4a", ".m4a")),
        ("talk.mp3", "libmp3lame", "mp3", ("mp3", "mp3", ".mp3")),
        ("talk.wav", "pcm_s16le", "wav", ("pcm_s16le", "wav", ".wav")),
        ("talk.flac", "flac", "flac", ("flac", "flac", ".flac")),
        ("talk.opus", "libopus", "ogg", ("opus", "ogg", ".ogg")),
        ("talk.aac", "aac", "adts", ("aac", "aac", ".aac")),
        ("talk.webm", "libopus", "webm", ("opus", "webm", ".webm")),
    ],
)
def test_audio_without_video_is_described(
    tmp_path: Path, name: str, codec: str, container: str, found: tuple[str, str, str]
) -> None:
    path = make_movie(tmp_path / name, 2.0, None, codec, container)
    info = probe_media(path)
    assert (info.audio_codec, info.format, info.extension) == found
    assert (info.video_codec, info.resolution, info.frame_rate) == (None, None, None)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.1)


def test_the_duration_of_audio_without_an_index_is_measured(tmp_path: Path) -> None:
    path = make_movie(tmp_path / "talk.mp3", 8.0, None, "libmp3lame", "mp3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe_media(path).duration_seconds == pytest.approx(4.0, abs=0.2)


def test_a_gif_that_does_not_move_is_an_image(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "still.gif"), "w") as output:
        stream: Any = output.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        output.mux(stream.encode(av.VideoFrame(64, 48, "rgb8")) + stream.encode(None))
    with pytest.raises(NotMedia, match=r"^the file is an image \(GIF\), no video and no audio$"):
        probe_media(tmp_path / "still.gif")


@pytest.mark.parametrize(("codec", "container"), [("gif", "gif"), ("mpeg2video", "mxf")])
def test_rare_kinds_of_videos_are_described(tmp_path: Path, codec: str, container: str) -> None:
    with av.open(str(tmp_path / "video"), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 10, np.uint8), "rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    info = probe_media(tmp_path / "video")
    assert (info.video_codec, info.resolution, info.extension) == (codec, "64x48", f".{container}")
    assert info.duration_seconds == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1", "an image (JPEG)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "an image (PNG)"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "an image (WebP)"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "an image (HEIC)"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an image (AVIF)"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"PK\x03\x04\x14\0\x06\0", "a ZIP archive or an office document"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        ("Notizen für heute\n".encode() * 40, "text"),
        ("\u00e9".encode() * 400, "text"),
    ],
)
def test_what_is_neither_video_nor_audio_is_named(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "talk.mp4").write_bytes(head)
    with pytest.raises(NotMedia) as caught:
        probe_media(tmp_path / "talk.mp4")
    assert str(caught.value) == f"the file is {kind}, no video and no audio"


def test_an_empty_file_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(NotMedia, match="empty"):
        probe_media(tmp_path / "empty.mp4")


def test_a_video_that_lost_its_end_is_no_video(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "cut.mp4")
    movie.write_bytes(movie.read_bytes()[:1000])
    with pytest.raises(NotMedia, match="damaged"):
        probe_media(movie)


def test_an_unknown_video_codec_is_no_video(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "odd.mp4")
    movie.write_bytes(movie.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzZ"))
    with pytest.raises(NotMedia, match="codec"):
        probe_media(movie)


def test_audio_of_an_unknown_codec_is_no_harm(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "odd.mkv")
    movie.write_bytes(movie.read_bytes().replace(b"A_AAC", b"A_ODD"))
    assert (probe_media(movie).video_codec, probe_media(movie).audio_codec) == ("h264", None)


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "talk.ts", container_format="mpegts")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{movie.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(NotMedia):
        probe_media(playlist)


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe_media(tmp_path / "nothing.mp4")
    with pytest.raises(OSError, match="directory"):
        probe_media(tmp_path)


def test_a_title_that_is_no_utf8_is_no_harm(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "old.mkv", container_format="matroska", title="Caf__")
    movie.write_bytes(movie.read_bytes().replace(b"Caf__", b"Caf\xe9!"))
    assert probe_media(movie).video_codec == "h264"


def make_movie_with_tracks(path: Path, audio: int, subtitles: int) -> Path:
    script = path.with_name("lines.srt")
    script.write_text("1\n00:00:00,100 --> 00:00:00,900\nHello\n")
    plain = make_movie(path.with_name("plain.mkv"))
    with av.open(str(plain)) as video, av.open(str(script)) as lines, av.open(str(path), "w") as container:
        tracks = {
            video.streams.video[0]: 1,
            video.streams.audio[0]: audio,
            lines.streams.subtitles[0]: subtitles,
        }
        copies: Any = {
            stream: [container.add_stream_from_template(stream) for _ in range(count)]
            for stream, count in tracks.items()
        }
        packets: Any = [*video.demux(), *lines.demux()]
        for packet in packets:
            for stream in copies[packet.stream] if packet.size else ():
                packet.stream = stream
                container.mux(packet)
    return path


def test_a_video_with_many_audio_and_subtitle_streams_is_described(tmp_path: Path) -> None:
    movie = make_movie_with_tracks(tmp_path / "film.mkv", audio=8, subtitles=40)
    with av.open(str(movie)) as container:
        assert len(container.streams) == 49
    info = probe_media(movie)
    assert (info.video_codec, info.audio_codec, info.resolution) == ("h264", "aac", f"{WIDTH}x{HEIGHT}")


@pytest.mark.parametrize(
    ("name", "codec", "said"),
    [
        ("talk.avi", "mpeg4", "mpeg4"),
        ("talk.3gp", "mpeg4", "mpeg4"),
        ("talk.flv", "flv", "flv1"),
        ("talk.flv", "libx264", "h264"),
        ("talk.ts", "libx264", "h264"),
        ("talk.ts", "libx265", "hevc"),
        ("talk.mpg", "mpeg2video", "mpeg2video"),
        ("talk.wmv", "wmv2", "wmv2"),
        ("talk.webm", "libvpx", "vp8"),
        ("talk.mp4", "libsvtav1", "av1"),
        ("talk.mov", "prores_ks", "prores"),
        ("talk.mkv", "mjpeg", "mjpeg"),
    ],
)
def test_resolution_and_duration_of_all_kinds_of_video_are_known(
    tmp_path: Path, name: str, codec: str, said: str
) -> None:
    pixels = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FRAME_RATE * 3)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        for number in range(FRAME_RATE * 6):
            frame = av.VideoFrame(128, 96, pixels)
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE * 3)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # It makes the thread that calls it a real-time one where it may, and then nothing else runs beside the tests.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    info = probe_media(path)
    assert (info.video_codec, info.resolution) == (said, "128x96")
    assert info.duration_seconds == pytest.approx(2, abs=0.3)
    assert info.frame_rate == pytest.approx(FRAME_RATE * 3, rel=0.01)


def test_a_video_of_unknown_resolution_is_no_video(tmp_path: Path) -> None:
    movie = make_movie(tmp_path / "odd.flv", video_codec="flv", audio_codec=None)
    content = bytearray(movie.read_bytes())
    with av.open(str(movie)) as container:
        packets: Any = container.demux(video=0)
        for packet in packets:
            if packet.size:
                start = content.index(bytes(packet))
                content[start : start + packet.size] = b"\xff" * packet.size
    movie.write_bytes(content)
    with pytest.raises(NotMedia, match="resolution"):
        probe_media(movie)


def test_a_video_of_too_many_pixels_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NotMedia, match="pixels"):
        probe_media(make_bomb(tmp_path / "large.mov", 100, streams=1, said_side=16_000))


@pytest.mark.parametrize("said_side", [8000, 16])
def test_many_large_frames_in_a_small_file_take_little_memory(tmp_path: Path, said_side: int) -> None:
    bomb = make_bomb(tmp_path / "bomb.mov", 8000, streams=8, said_side=said_side)
    code = "from pathlib import Path; from app.media.probe import probe_media; probe_media(Path(path))"
    assert peak_megabytes(code, bomb) < 150


def test_a_file_that_takes_too_long_to_open_is_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probing, "_LIMITS", ReadLimits(seconds=10, bytes=100))
    with pytest.raises(NotMedia, match="too long"):
        probe_media(make_movie(tmp_path / "talk.mp4", seconds=600, audio_codec=None))
    assert capfd.readouterr() == ("", "")


def test_a_duration_that_takes_too_long_to_find_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movie = make_movie(tmp_path / "live.mkv", seconds=600, container_format="matroska", audio_codec=None)
    blank_out_duration(movie)
    assert movie.stat().st_size > 70_000
    monkeypatch.setattr(probing, "_LIMITS", ReadLimits(seconds=10, bytes=movie.stat().st_size - 40_000))
    info = probe_media(movie)
    assert (info.duration_seconds, info.resolution) == (None, f"{WIDTH}x{HEIGHT}")


def test_a_large_video_with_its_index_at_the_end_is_read_at_both_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie = make_movie(tmp_path / "long.mp4", seconds=2, audio_codec=None)
    content = movie.read_bytes()
    index = content.index(b"moov") - 4
    hole = 3 * 1024**3
    with movie.open("wb") as file:  # with a hole before the index
        file.write(content[:index] + (8 + hole).to_bytes(4) + b"free")
        file.seek(hole, 1)
        file.write(content[index:])
    monkeypatch.setattr(probing, "_LIMITS", ReadLimits(seconds=10, bytes=10_000_000))
    assert probe_media(movie).duration_seconds == pytest.approx(2, abs=0.1)


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
