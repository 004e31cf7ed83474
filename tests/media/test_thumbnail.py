"""Thumbnails of videos, black ones and odd shapes among them, and waveforms of audio."""

import io
import struct
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.video.frame import VideoFrame

from app.media import container, thumbnail
from app.media.container import ReadLimits
from app.media.thumbnail import NoThumbnail, draw_waveform, make_thumbnail
from tests.media.movies import HEIGHT, WIDTH, make_audio, make_bomb, make_colour_movie, make_movie, peak_megabytes

BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
Colour = tuple[int, int, int]


def make_video(
    path: Path,
    width: int = 64,
    height: int = 48,
    colours: tuple[Colour, ...] = (RED, RED),
    aspect: Fraction | None = None,
    codec: str = "mjpeg",
    white: float = 0.5,
) -> Path:
    """Write a video of one frame for each second, in the colour and, for a share of its width on the right, white."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, colour in enumerate(colours):
            frame = VideoFrame(width, height, "rgb24")
            plane = frame.planes[0]
            row = bytes(colour) * (width - int(width * white)) + b"\xff" * int(width * white) * 3
            plane.update(row.ljust(plane.line_size, b"\0") * height)
            frame.pts, frame.time_base = number, Fraction(1)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def take_thumbnail(path: Path) -> VideoFrame:
    with path.open("rb") as file:
        return open_frame(make_thumbnail(file))


def open_frame(jpeg: bytes) -> VideoFrame:
    with av.open(io.BytesIO(jpeg), "r") as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
        return next(container.decode(video=0)).reformat(format="rgb24")


def size(frame: VideoFrame) -> tuple[int, int]:
    return frame.width, frame.height


def is_coloured(frame: VideoFrame, colour: Colour, x: float = 0.25, y: float = 0.5) -> bool:
    """Whether the pixel at these shares of width and height has the colour, near enough for a JPEG."""
    plane = frame.planes[0]
    at = int(y * frame.height) * plane.line_size + int(x * frame.width) * 3
    return all(abs(a - b) < 40 for a, b in zip(bytes(plane)[at : at + 3], colour, strict=True))


def turn(path: Path, matrix: tuple[int, ...]) -> Path:
    """Write the matrix by which players turn the frame into an MP4, where the one that does not turn it was."""
    content = path.read_bytes()
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:at] + struct.pack(">9i", *matrix, 0, 0, 1 << 30) + content[at + len(upright) :])
    return path


def damage(path: Path, until_seconds: float) -> Path:
    """Overwrite the frames up to a time with what no decoder takes."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets: Any = container.demux(video=0)
        for packet in packets:
            if packet.size and packet.pts * packet.time_base < until_seconds:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film.mkv", "film.mov"])
def test_a_thumbnail_is_a_jpeg_of_the_video(tmp_path: Path, name: str) -> None:
    frame = take_thumbnail(make_video(tmp_path / name))
    assert is_coloured(frame, RED)
    assert is_coloured(frame, (255, 255, 255), x=0.75)


def test_a_small_video_keeps_its_size(tmp_path: Path) -> None:
    assert size(take_thumbnail(make_video(tmp_path / "film.mp4"))) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, (640, 360)),
        (1440, 1080, (480, 360)),
        (1080, 1920, (202, 360)),
        (2000, 100, (640, 32)),
        (16, 2000, (2, 360)),
        (2000, 16, (640, 6)),
        (33, 17, (32, 16)),
    ],
)
def test_a_thumbnail_fits_into_640_by_360_and_is_never_stretched(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    assert size(take_thumbnail(make_video(tmp_path / "film.mkv", width, height))) == expected


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_pixels_that_are_not_square_are_shown_as_the_player_shows_them(tmp_path: Path, name: str) -> None:
    video = make_video(tmp_path / name, 720, 576, aspect=Fraction(64, 45), codec="libx264")
    assert size(take_thumbnail(video)) == (640, 360)


@pytest.mark.parametrize(
    ("matrix", "expected", "red_at"),
    [
        ((0, 65536, 0, -65536, 0, 0), (180, 320), (0.5, 0.25)),
        ((-65536, 0, 0, 0, -65536, 0), (320, 180), (0.75, 0.5)),
        ((0, -65536, 0, 65536, 0, 0), (180, 320), (0.5, 0.75)),
    ],
)
def test_a_video_that_was_taken_on_its_side_is_upright(
    tmp_path: Path, matrix: tuple[int, ...], expected: tuple[int, int], red_at: tuple[float, float]
) -> None:
    frame = take_thumbnail(turn(make_video(tmp_path / "film.mp4", 320, 180, codec="libx264"), matrix))
    assert size(frame) == expected
    assert is_coloured(frame, RED, *red_at)
    assert is_coloured(frame, (255, 255, 255), 1 - red_at[0], 1 - red_at[1])


def test_the_thumbnail_is_the_frame_at_one_second_of_a_long_video(tmp_path: Path) -> None:
    assert is_coloured(take_thumbnail(make_colour_movie(tmp_path / "film.mp4", 20, [RED, GREEN, BLUE])), GREEN)


def test_the_thumbnail_is_the_frame_at_a_tenth_of_a_short_video(tmp_path: Path) -> None:
    assert is_coloured(take_thumbnail(make_colour_movie(tmp_path / "film.mp4", 5, [RED, GREEN, BLUE])), RED)


def test_a_video_that_begins_black_shows_what_comes_later(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [*[BLACK] * 9, *[BLUE] * 11])
    assert is_coloured(take_thumbnail(video), BLUE)


def test_a_video_that_is_all_dark_shows_its_least_dark_frame(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [*[BLACK] * 9, *[(12, 12, 12)] * 11])
    frame = take_thumbnail(video)
    assert max(bytes(frame.planes[0])[:3]) > 5


def test_a_black_video_has_a_black_thumbnail(tmp_path: Path) -> None:
    assert is_coloured(take_thumbnail(make_colour_movie(tmp_path / "film.mp4", 3, [BLACK])), BLACK)


def test_white_letters_on_black_are_not_black(tmp_path: Path) -> None:
    video = make_video(tmp_path / "film.mkv", colours=(BLACK, RED), white=1 / 16)
    assert is_coloured(take_thumbnail(video), BLACK)


def test_one_frame_is_enough(tmp_path: Path) -> None:
    assert is_coloured(take_thumbnail(make_video(tmp_path / "film.mp4", colours=(GREEN,))), GREEN)


def test_a_recording_that_does_not_know_its_length_shows_what_comes_after_the_black(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [*[BLACK] * 5, *[GREEN] * 15])
    with av.open(str(video)) as source, av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"}) as live:
        stream = live.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                live.mux(packet)
    with av.open(str(tmp_path / "live.mkv")) as container:
        assert not container.duration
    assert is_coloured(take_thumbnail(tmp_path / "live.mkv"), GREEN)


def test_frames_that_cannot_be_decoded_are_passed_over(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 12, [RED, RED, RED, RED, GREEN, GREEN, GREEN, GREEN])
    assert is_coloured(take_thumbnail(damage(video, until_seconds=4)), GREEN)


def test_one_good_frame_at_the_end_is_enough(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [GREEN])
    assert is_coloured(take_thumbnail(damage(video, until_seconds=18)), GREEN)


def test_a_video_without_one_good_frame_has_no_thumbnail(tmp_path: Path) -> None:
    video = damage(make_colour_movie(tmp_path / "film.mp4", 3, [RED]), until_seconds=10)
    with pytest.raises(NoThumbnail, match="no frame"):
        take_thumbnail(video)


def test_a_video_that_was_cut_off_shows_what_there_is(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [RED, GREEN])
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 2 // 3])
    assert is_coloured(take_thumbnail(video), GREEN)


def test_audio_alone_has_no_thumbnail(tmp_path: Path) -> None:
    with pytest.raises(NoThumbnail, match="no video stream"):
        take_thumbnail(make_movie(tmp_path / "sound.mp4", video_codec=None))


def test_the_cover_of_a_recording_is_not_its_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        container.mux(cover.encode(VideoFrame(64, 48, "yuvj420p")) + cover.encode(None))
        container.mux(audio.encode(None))
    with pytest.raises(NoThumbnail, match="no video stream"):
        take_thumbnail(path)


@pytest.mark.parametrize("content", [b"", b"not a film", b"\0" * 5000, b"#EXTM3U\nfile:///etc/passwd\n"])
def test_a_file_that_is_no_video_has_no_thumbnail(content: bytes) -> None:
    with pytest.raises(NoThumbnail):
        make_thumbnail(io.BytesIO(content))


@pytest.mark.parametrize(("codec", "name"), [("mjpeg", "film.mkv"), ("libx264", "film.mp4"), ("libvpx", "film.webm")])
def test_a_video_of_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, name: str
) -> None:
    video = make_video(tmp_path / name, 128, 96, codec=codec)
    assert size(take_thumbnail(video)) == (128, 96)
    monkeypatch.setattr(container, "MAX_PIXELS", 10_000)
    with pytest.raises(NoThumbnail):
        take_thumbnail(video)


def test_a_video_that_takes_too_long_to_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            time.sleep(0.02)
            return super().read(min(size or 0, 100))

    monkeypatch.setattr(thumbnail, "_FRAME_LIMITS", ReadLimits(seconds=0.1, bytes=1024**3))
    video = make_colour_movie(tmp_path / "film.mp4", 20, [BLACK]).read_bytes()
    slow = Slow(video)
    with pytest.raises(NoThumbnail, match="too long"):
        make_thumbnail(slow)
    assert slow.reads < 20


def test_a_video_that_takes_too_long_to_decode_shows_what_was_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 20, [RED, BLUE])
    seconds = iter(range(1000))
    monkeypatch.setattr(thumbnail, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert is_coloured(take_thumbnail(video), RED)


def test_a_video_is_read_no_further_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "film.mp4", 640, 360, (RED,) * 20)
    monkeypatch.setattr(thumbnail, "_FRAME_LIMITS", ReadLimits(seconds=10, bytes=100))
    with pytest.raises(NoThumbnail, match="too long"):
        take_thumbnail(video)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_breaks_off_while_it_is_read_leaves_nothing_for_the_next_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise OSError("the disk is broken")
            return super().read(min(size or 0, 1000))

    video = make_colour_movie(tmp_path / "film.mp4", 20, [GREEN])
    with pytest.raises(OSError, match="the disk is broken"):
        make_thumbnail(Broken(video.read_bytes()))
    assert is_coloured(take_thumbnail(video), GREEN)
    assert capfd.readouterr() == ("", "")


def test_many_large_frames_in_a_small_file_take_little_memory(tmp_path: Path) -> None:
    for side in (5700, 8000):
        bomb = make_bomb(tmp_path / "bomb.mov", side, streams=8)
        assert (
            peak_megabytes("from app.media.thumbnail import make_thumbnail; make_thumbnail(open(path, 'rb'))", bomb)
            < 300
        )


def test_what_reading_the_file_raises_is_passed_on() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is broken")

    with pytest.raises(OSError, match="the disk is broken"):
        make_thumbnail(Broken())


_WIDTH, _HEIGHT = 640, 360


def drawn_height(jpeg: bytes, share: float) -> int:
    """Return how many pixels of the brightest of the columns around a share of the width are not background."""
    pixels = open_frame(jpeg).to_ndarray()
    middle = round(share * _WIDTH)
    return int((pixels[:, middle - 8 : middle + 8, 1] > 100).sum(axis=0).max())


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
@pytest.mark.parametrize(
    ("name", "codec"), [("talk.m4a", "aac"), ("talk.mp3", "libmp3lame"), ("talk.wav", "pcm_s16le")]
)
def test_bars_are_tall_where_it_is_loud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, whole_seconds: float
) -> None:
    monkeypatch.setattr(thumbnail, "_MAX_DECODED_SECONDS", whole_seconds)
    path = make_audio(tmp_path / name, 8, [(0, 4)], codec)
    with path.open("rb") as file:
        jpeg = draw_waveform(file)
    assert size(open_frame(jpeg)) == (_WIDTH, _HEIGHT)
    assert (drawn_height(jpeg, 0.3) > 200, drawn_height(jpeg, 0.7) < 20) == (True, True)


def test_silence_is_a_line(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "talk.flac", 0.01, [(5, 6)], "flac")
    with path.open("rb") as file:
        assert drawn_height(draw_waveform(file), 0.5) < 20


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
def test_channels_do_not_cancel_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_seconds: float
) -> None:
    monkeypatch.setattr(thumbnail, "_MAX_DECODED_SECONDS", whole_seconds)
    path = make_audio(tmp_path / "talk.flac", 8, [(0, 4)], "flac", gains=(1.0, -1.0))
    with path.open("rb") as file:
        jpeg = draw_waveform(file)
    assert (drawn_height(jpeg, 0.3) > 200, drawn_height(jpeg, 0.7) < 20) == (True, True)


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
def test_audio_whose_channels_and_rate_change_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_seconds: float
) -> None:
    monkeypatch.setattr(thumbnail, "_MAX_DECODED_SECONDS", whole_seconds)
    mono = make_audio(tmp_path / "mono.mp3", 4, [(0, 4)], "libmp3lame")
    stereo = make_audio(tmp_path / "stereo.mp3", 4, [(3.9, 4)], "libmp3lame", gains=(1.0, 1.0), rate=32_000)
    jpeg = draw_waveform(io.BytesIO(mono.read_bytes() + stereo.read_bytes()))
    assert (drawn_height(jpeg, 0.2) > 200, drawn_height(jpeg, 0.8) < 20) == (True, True)


def test_what_has_no_audio_is_not_drawn() -> None:
    with pytest.raises(NoThumbnail):
        draw_waveform(io.BytesIO(b"no audio at all"))
