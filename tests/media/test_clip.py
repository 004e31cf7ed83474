"""Clips: what they show, for how long, of videos of every kind, cut by the system's ffmpeg and by PyAV alike."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from av.stream import Stream

from app.core.errors import StageFailed, StorageUnavailable
from app.media import clip_encoding
from app.media.clip import cut_clip
from app.media.clip_encoding import find_ffmpeg
from app.media.container import ProcessingStopped
from app.media.probe import SIGNATURE_BYTES, detect_content_type, probe_media
from tests.media.movies import FRAME_RATE, make_audio, make_colour_movie, make_movie, make_movie_with_audio, make_slides
from tests.media.test_thumbnail import turn

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
Colour = tuple[int, int, int]
# What a local file is cut by, and what any other: a way of the name opens a video like that.
WAYS = [
    pytest.param("ffmpeg", marks=pytest.mark.skipif(find_ffmpeg() is None, reason="there is no ffmpeg here")),
    "PyAV",
]


def open_video(video: Path, way: str) -> BinaryIO:
    return video.open("rb") if way == "ffmpeg" else io.BytesIO(video.read_bytes())


def cut(video: Path, start: float, end: float, way: str) -> Path:
    clip = video.parent / "clip.mp4"
    with open_video(video, way) as file:
        cut_clip(file, start, end, clip, threading.Event())
    assert sorted(path.name for path in video.parent.iterdir()) == sorted(["clip.mp4", video.name])
    return clip


def lengths_of(clip: Path) -> tuple[object, object]:
    """Seconds that the frame and the audio play."""
    with av.open(str(clip)) as container:
        assert all(stream.start_time == 0 for stream in container.streams)
        video, audio = container.streams.video[0], container.streams.best("audio")
        return seconds_of(video), audio and seconds_of(audio)


def seconds_of(stream: Stream) -> float:
    return float((stream.duration or 0) * (stream.time_base or 0))


def colours_of(clip: Path) -> list[Colour]:
    """The colour of the middle of each frame."""
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    middles = [frame[frame.shape[0] // 2, frame.shape[1] // 2] for frame in frames]
    return [(int(red), int(green), int(blue)) for red, green, blue in middles]


def runs_of(colours: Sequence[Colour], *known: Colour) -> list[tuple[Colour, int]]:
    """The colours one after the other, each with the number of frames that show it."""
    runs: list[tuple[Colour, int]] = []
    for colour in colours:
        near = min(known, key=lambda each: sum(abs(a - b) for a, b in zip(each, colour, strict=True)))
        runs = [*runs[:-1], (near, runs[-1][1] + 1)] if runs and runs[-1][0] == near else [*runs, (near, 1)]
    return runs


def loud_from_to(clip: Path) -> tuple[float, float]:
    with av.open(str(clip)) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    loud = np.flatnonzero(np.abs(np.concatenate(parts)) > 0.1)
    return loud[0] / rate, loud[-1] / rate


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "codec"), [("film.mp4", "aac"), ("film.mkv", "flac"), ("film.ts", "mp2"), ("film.avi", "mp3")]
)
@pytest.mark.parametrize(("start", "end"), [(0, 4), (3.37, 7.81), (6, 10)])
def test_a_clip_plays_for_exactly_its_length(
    tmp_path: Path, way: str, name: str, codec: str, start: float, end: float
) -> None:
    clip = cut(make_movie_with_audio(tmp_path / name, 10, [(0, 10)], codec), start, end, way)
    frame, audio = pytest.approx(end - start, abs=1 / FRAME_RATE), pytest.approx(end - start, abs=1e-4)
    assert lengths_of(clip) == (frame, audio)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_a_clip_begins_with_the_very_frame_and_not_with_a_key_frame(tmp_path: Path, way: str, name: str) -> None:
    video = make_colour_movie(tmp_path / name, 12, [RED, GREEN, BLUE])
    colours = colours_of(cut(video, 4.7, 9.2, way))
    assert runs_of(colours, RED, GREEN, BLUE) == [(GREEN, 3), (BLUE, 10), (RED, 10), (GREEN, 10), (BLUE, 10), (RED, 2)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("beep", "heard"), [((5, 7), (1.7, 3.7)), ((0, 5), (0, 1.7))])
def test_the_audio_of_a_clip_matches_its_frames(
    tmp_path: Path, way: str, beep: tuple[float, float], heard: tuple[float, float]
) -> None:
    clip = cut(make_movie_with_audio(tmp_path / "film.mp4", 12, [beep]), 3.3, 9.3, way)
    assert loud_from_to(clip) == pytest.approx(heard, abs=0.03)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [16_000, 44_100, 96_000])
def test_the_audio_of_a_clip_matches_its_frames_at_any_rate(tmp_path: Path, way: str, rate: int) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 32, [(25, 27)], sample_rate=rate)
    assert loud_from_to(cut(video, 23.3, 29.3, way)) == pytest.approx((1.7, 3.7), abs=0.03)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "codec"), [("film.mkv", "flac"), ("film.ts", "mp2")])
def test_audio_that_begins_late_or_ends_early_is_silence_there(tmp_path: Path, way: str, name: str, codec: str) -> None:
    video = make_movie_with_audio(tmp_path / name, 12, [(5, 7)], codec)
    clip = cut(video, 4, 10, way)
    assert loud_from_to(clip) == pytest.approx((1, 3), abs=0.03)
    assert lengths_of(clip)[1] == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_part_without_audio_is_silent(tmp_path: Path, way: str) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 12, [(0, 2)], "flac")
    assert lengths_of(cut(video, 6, 10, way)) == (4, pytest.approx(4, abs=1e-4))


@pytest.mark.parametrize("way", WAYS)
def test_a_video_without_audio_gives_a_clip_without_audio(tmp_path: Path, way: str) -> None:
    assert lengths_of(cut(make_movie(tmp_path / "film.mp4", 4, audio_codec=None), 1, 3, way)) == (2, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 2)])
def test_a_clip_is_mono_or_stereo(tmp_path: Path, way: str, layout: str, channels: int) -> None:
    clip = cut(make_movie_with_audio(tmp_path / "film.mp4", 3, [(0, 3)], "aac", 44_100, layout), 1, 2, way)
    with av.open(str(clip)) as container:
        assert container.streams.audio[0].channels == channels


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_is_an_mp4_of_h264_and_aac_that_begins_with_its_index(tmp_path: Path, way: str) -> None:
    clip = cut(make_movie_with_audio(tmp_path / "film.mkv", 3, [(0, 3)], "flac"), 1, 2, way)
    info = probe_media(clip)
    assert (info.format, info.video_codec, info.audio_codec) == ("mp4", "h264", "aac")
    content = clip.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(clip)) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p"


@pytest.mark.parametrize("way", WAYS)
def test_odd_sizes_become_even(tmp_path: Path, way: str) -> None:
    video = make_slides(tmp_path / "film.mp4", [(second / 5, RED) for second in range(10)], 63, 47)
    assert probe_media(cut(video, 0.5, 1.5, way)).resolution == "62x46"


@pytest.mark.parametrize("way", WAYS)
def test_a_video_of_slides_shows_each_for_its_time(tmp_path: Path, way: str) -> None:
    video = make_slides(tmp_path / "film.mp4", [(0, RED), (7, GREEN), (8.2, BLUE), (15, WHITE), (20, WHITE)])
    clip = cut(video, 5, 17, way)
    runs = runs_of(colours_of(clip), RED, GREEN, BLUE, WHITE)
    rate = len(colours_of(clip)) / 12
    assert [colour for colour, _ in runs] == [RED, GREEN, BLUE, WHITE]
    assert [count / rate for _, count in runs] == pytest.approx([2, 1.2, 6.8, 2], abs=1.5 / rate)


@pytest.mark.parametrize("way", WAYS)
def test_a_video_that_ends_before_its_clip_stays_at_its_last_frame(tmp_path: Path, way: str) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 3, [RED, GREEN, BLUE])
    assert runs_of(colours_of(cut(video, 1, 5, way)), RED, GREEN, BLUE) == [(GREEN, 10), (BLUE, 30)]


@pytest.mark.parametrize("way", WAYS)
def test_a_part_behind_the_last_frame_shows_that_frame(tmp_path: Path, way: str) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 3, [RED, GREEN, BLUE])
    assert runs_of(colours_of(cut(video, 4, 6, way)), RED, GREEN, BLUE) == [(BLUE, 20)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "matrix", [(0, 65536, 0, -65536, 0, 0), (0, -65536, 0, 65536, 0, 0)], ids=["clockwise", "counterclockwise"]
)
def test_a_video_that_was_taken_on_its_side_is_upright(tmp_path: Path, way: str, matrix: tuple[int, ...]) -> None:
    clip = cut(turn(make_colour_movie(tmp_path / "film.mp4", 3, [RED]), matrix), 1, 2, way)
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (48, 64, 0)


@pytest.mark.parametrize("way", WAYS)
def test_pixels_that_are_not_square_stay_as_they_are(tmp_path: Path, way: str) -> None:
    video = tmp_path / "film.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = 72, 58, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for number in range(20):
            frame = av.VideoFrame(72, 58, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(cut(video, 0.5, 1.5, way))) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)


@pytest.mark.parametrize("way", WAYS)
def test_damaged_frames_do_not_spoil_a_clip(tmp_path: Path, way: str) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 8, [(0, 8)])
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        for packet in container.demux(video=0):
            if packet.size and packet.pts is not None and packet.pos and 3 < packet.pts * packet.time_base < 4:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    video.write_bytes(content)
    assert lengths_of(cut(video, 2, 6, way)) == (4, pytest.approx(4, abs=1e-4))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_video_is_reported(tmp_path: Path, way: str) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(b"this is no film" * 1000)
    with open_video(video, way) as file, pytest.raises(StageFailed, match="damaged"):
        cut_clip(file, 0, 1, tmp_path / "clip.mp4", threading.Event())
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("talk.m4a", "aac"),
        ("talk.mp3", "libmp3lame"),
        ("talk.flac", "flac"),
        ("talk.ogg", "libopus"),
        ("talk.wav", "adpcm_ms"),
    ],
)
def test_a_clip_of_audio_is_exact(tmp_path: Path, way: str, name: str, codec: str) -> None:
    video = make_audio(tmp_path / name, 6, [(0, 1), (4, 6)], codec)
    assert probe_media(video).duration_seconds == pytest.approx(6.0, abs=0.1)
    clip = tmp_path / "clip.m4a"
    with open_video(video, way) as file:
        cut_clip(file, 3.5, 5.5, clip, threading.Event())
    info = probe_media(clip)
    assert (info.video_codec, info.audio_codec, info.format) == (None, "aac", "m4a")
    assert info.duration_seconds == pytest.approx(2.0, abs=0.001)
    assert detect_content_type(clip.read_bytes()[:SIGNATURE_BYTES], "") == "audio/mp4"
    silent, loud = loudness(clip, 0.1, 0.4), loudness(clip, 0.6, 1.9)
    assert (silent < 0.01, loud > 0.1) == (True, True)


def loudness(path: Path, start: float, end: float) -> float:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples = np.concatenate(frames, axis=1)[0]
    return float(np.abs(samples[round(start * 48_000) : round(end * 48_000)]).max())


@pytest.mark.parametrize("way", WAYS)
def test_a_gap_of_hours_behind_a_clip_is_not_filled(tmp_path: Path, way: str) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 4, [(0, 1), (20_000, 20_001)])
    clip = cut(video, 0, 3, way)
    assert lengths_of(clip) == (3, pytest.approx(3, abs=1e-4))
    assert loud_from_to(clip) == pytest.approx((0, 1), abs=0.05)


@pytest.mark.skipif(find_ffmpeg() is None or sys.platform != "linux", reason="there is no ffmpeg here")
def test_a_gap_of_hours_behind_a_clip_takes_no_memory(tmp_path: Path) -> None:
    video = make_movie_with_audio(tmp_path / "film.mkv", 4, [(0, 1), (20_000, 20_001)])
    code = """
import resource, sys, threading
from pathlib import Path
from app.media.clip import cut_clip
cut_clip(open(sys.argv[1], "rb"), 0, 3, Path(sys.argv[2]), threading.Event())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    command = [sys.executable, "-c", code, str(video), str(tmp_path / "clip.mp4")]
    kilobytes = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert kilobytes < 200 * 1024


@pytest.mark.parametrize("way", WAYS)
def test_cutting_ends_where_somebody_stops_it(tmp_path: Path, way: str) -> None:
    stopping = threading.Event()
    video = make_slides(tmp_path / "film.mp4", [(second, RED) for second in range(4)], 1280, 720)
    timer = threading.Timer(0.5, stopping.set)
    timer.start()
    with open_video(video, way) as file, pytest.raises(ProcessingStopped):
        cut_clip(file, 0, 3000, tmp_path / "clip.mp4", stopping)
    timer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_that_takes_too_long_is_reported(tmp_path: Path, way: str) -> None:
    video = make_slides(tmp_path / "film.mp4", [(second, RED) for second in range(4)], 1280, 720)
    with open_video(video, way) as file, pytest.raises(StageFailed, match=r"takes longer to cut than 0\.5 seconds"):
        cut_clip(file, 0, 3000, tmp_path / "clip.mp4", threading.Event(), limit_seconds=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def install_program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a shell script be the ffmpeg of the system."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert clip_encoding.find_ffmpeg() == str(program)


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has all of the limits")
def test_the_program_has_limits_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_program(tmp_path, monkeypatch, 'ulimit -v >&2; ulimit -t >&2; ulimit -c >&2; echo "<$SECRET>" >&2; exit 1')
    monkeypatch.setenv("SECRET", "swordfish")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    cut(make_movie_with_audio(tmp_path / "videos" / "film.mp4", 4, [(0, 4)]), 1, 3, "ffmpeg")
    memory, seconds, core, secret = caplog.messages[0].split()[-4:]
    assert 1024**2 <= int(memory) < 1.5 * 1024**2  # of 1024 bytes
    assert 500 < int(seconds) <= 600
    assert (core, secret) == ("0", "<>")


@pytest.mark.parametrize(
    "script", ["kill -SEGV $$", "kill -XCPU $$", "echo 'x264: Cannot allocate memory' >&2; exit 1"]
)
def test_what_ends_the_program_does_not_end_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    install_program(tmp_path, monkeypatch, script)
    monkeypatch.setattr("app.media.clip.encode_clip_with_pyav", lambda *_: pytest.fail("The video was cut here"))
    video = make_movie_with_audio(tmp_path / "videos" / "film.mp4", 4, [(0, 4)])
    with video.open("rb") as file, pytest.raises(StageFailed, match="more memory or computing time to cut than it may"):
        cut_clip(file, 1, 3, video.parent / "clip.mp4", threading.Event())
    assert [path.name for path in video.parent.iterdir()] == ["film.mp4"]


def test_a_program_that_fails_leaves_it_to_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_program(tmp_path, monkeypatch, "echo 'Unknown encoder libx264' >&2; exit 1")
    video = make_movie_with_audio(tmp_path / "videos" / "film.mp4", 4, [(0, 4)])
    assert lengths_of(cut(video, 1, 3, "ffmpeg")) == (2, pytest.approx(2, abs=1e-4))


def test_a_storage_that_fails_in_the_middle_is_reported(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(self.getvalue()) // 2:
                raise StorageUnavailable("The bucket does not answer")
            return super().read(size)

    video = make_movie_with_audio(tmp_path / "film.mkv", 8, [(0, 8)], "pcm_s16le")
    with pytest.raises(StorageUnavailable):
        cut_clip(Failing(video.read_bytes()), 0, 8, tmp_path / "clip.mp4", threading.Event())
    assert [path.name for path in tmp_path.iterdir()] == ["film.mkv"]


def test_only_what_a_clip_needs_is_read(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(size)
            self.count += len(chunk)
            return chunk

    video = make_movie_with_audio(tmp_path / "film.mkv", 60, [(0, 60)], "pcm_s16le")
    file = Counting(video.read_bytes())
    cut_clip(file, 40, 42, tmp_path / "clip.mp4", threading.Event())
    assert file.count < video.stat().st_size / 2  # the part lies behind


@pytest.mark.skipif(os.name != "posix", reason="no limit for the size of files here")
@pytest.mark.parametrize("way", WAYS)
def test_a_disk_without_room_is_reported(tmp_path: Path, way: str) -> None:
    video = make_movie_with_audio(tmp_path / "film.mp4", 8, [(0, 8)])
    program = f"""
import io, pathlib, resource, sys, threading
from app.media.clip import cut_clip
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
film, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
file = film.open("rb") if {way == "ffmpeg"} else io.BytesIO(film.read_bytes())
try:
    cut_clip(file, 0, 8, folder / "clip.mp4", threading.Event())
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(video), str(tmp_path)], stdout=subprocess.PIPE, check=True, text=True
    )
    assert done.stdout == "File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
