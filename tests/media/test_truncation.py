"""Files that were cut off: how long what is left of them plays, and how long they say they are."""

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from app.media.clip import cut_clip
from app.media.probe import NotMedia, probe_media
from tests.media.movies import make_audio

SECONDS, SAMPLES = 12, 48_000


class Pipe:
    """A file whose header stays as it is once written, as that of a recording of a live stream."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def make_noise(path: Path, video: str | None, audio: str | None, container: str, is_live: bool = False) -> Path:
    """Write a file of noise, which takes about as many bytes for each second; what it needs to be read comes first."""
    random = np.random.default_rng(1)
    rate = 25 if container == "mxf" else 10
    movflags = "+frag_keyframe+empty_moov" if is_live else "+faststart"
    options = {"movflags": movflags} if container in ("mp4", "mov", "ipod") else {}
    file: Any = Pipe(path) if is_live else str(path)
    with av.open(file, "w", format=container, options=options) as output:
        picture: Any = (
            output.add_stream(video, rate=rate, options={"g": "10", "deadline": "realtime", "cpu-used": "8"})
            if video
            else None
        )
        audio_stream: Any = output.add_stream(audio, rate=SAMPLES, layout="mono") if audio else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for number in range(SECONDS * rate):
            if picture:
                frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (48, 64, 3), np.uint8), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                output.mux(picture.encode(frame.reformat(format="yuv420p")))
            if audio_stream:
                samples = random.uniform(-0.5, 0.5, (1, SAMPLES // rate)).astype(np.float32)
                heard = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
                heard.pts, heard.sample_rate, heard.time_base = number * SAMPLES // rate, SAMPLES, Fraction(1, SAMPLES)
                output.mux(audio_stream.encode(heard))
        for stream in (picture, audio_stream):
            if stream:
                output.mux(stream.encode(None))
    if is_live:
        file.close()
    return path


def cut_off(path: Path) -> float:
    """Take the last two fifths of a file away, and return when the last packet ends that is left."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5 | 1])  # not where a packet of MPEG-TS ends
    first, last = float(SECONDS), 0.0
    with av.open(str(path)) as container:
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    first = min(first, float(packet.pts * packet.time_base))
                    last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.FFmpegError:
            pass
    return last - max(first, 0.0)


@pytest.mark.parametrize(
    ("container", "video", "audio", "says_its_length"),
    [
        ("mp4", "libx264", "aac", True),
        ("mov", "mpeg4", "aac", True),
        ("ipod", None, "aac", True),
        ("matroska", "libx264", "aac", True),
        ("webm", "libvpx", "libopus", True),
        ("flv", "libx264", "aac", True),
        ("avi", "mpeg4", "libmp3lame", True),
        ("asf", "wmv2", "libmp3lame", True),
        ("mxf", "mpeg2video", "pcm_s16le", True),
        ("wav", None, "pcm_s16le", True),
        ("w64", None, "pcm_s16le", True),
        ("caf", None, "pcm_s16le", True),
        ("flac", None, "flac", True),
        ("mp3", None, "libmp3lame", True),
        ("mpegts", "libx264", "aac", False),
        ("mpeg", "mpeg2video", "mp2", False),
        ("ogg", None, "libopus", False),
        ("adts", None, "aac", False),
        ("ac3", None, "ac3", False),
    ],
)
def test_a_file_that_was_cut_off_is_as_long_as_what_is_left(
    tmp_path: Path, container: str, video: str | None, audio: str | None, says_its_length: bool
) -> None:
    check_cut_off(make_noise(tmp_path / "talk", video, audio, container), says_its_length)


@pytest.mark.parametrize(
    ("container", "video", "audio"),
    [
        ("mp4", "libx264", "aac"),
        ("matroska", "libx264", "aac"),
        ("webm", "libvpx", "libopus"),
        ("flv", "libx264", "aac"),
        ("avi", "mpeg4", "libmp3lame"),
        ("asf", "wmv2", "libmp3lame"),
        ("mxf", "mpeg2video", "pcm_s16le"),
        ("ogg", None, "libopus"),
    ],
)
def test_a_recording_of_a_live_stream_is_whole_unless_it_ends_in_a_packet(
    tmp_path: Path, container: str, video: str | None, audio: str
) -> None:
    check_cut_off(make_noise(tmp_path / "talk", video, audio, container, is_live=True), says_its_length=False)


def check_cut_off(path: Path, says_its_length: bool) -> None:
    info = probe_media(path)
    assert info.duration_seconds == pytest.approx(SECONDS, abs=0.2)
    assert (info.ends_early, info.declared_seconds) == (False, None)
    left = cut_off(path)
    info = probe_media(path)
    assert left < SECONDS * 0.75
    assert info.duration_seconds == pytest.approx(left, abs=0.25)
    assert info.ends_early
    assert info.declared_seconds == (pytest.approx(SECONDS, rel=0.05) if says_its_length else None)


@pytest.mark.parametrize(
    ("container", "audio", "packet_start_seconds"), [("ogg", "libopus", b"OggS"), ("adts", "aac", b"\xff\xf1")]
)
def test_a_file_that_ends_between_two_packets_may_be_whole(
    tmp_path: Path, container: str, audio: str, packet_start_seconds: bytes
) -> None:
    path = make_noise(tmp_path / "talk", None, audio, container)
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(packet_start_seconds)])
    assert not probe_media(path).ends_early


def test_a_clip_of_what_is_left_of_an_mxf_file_begins_where_it_should(tmp_path: Path) -> None:
    path = make_noise(tmp_path / "talk", "mpeg2video", "pcm_s16le", "mxf")
    whole = decode_frames(path)
    cut_off(path)
    with path.open("rb") as file:
        cut_clip(file, 5, 6, tmp_path / "clip.mp4", threading.Event())
    first = decode_frames(tmp_path / "clip.mp4")[0]
    nearest = int(np.argmin([np.abs(frame - first).mean() for frame in whole]))
    assert abs(nearest - 5 * 25) <= 1  # the order of frames is not known without the index


def decode_frames(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["talk.mp4", "talk.mov", "talk.m4a"])
def test_a_file_that_has_lost_its_index_says_so(tmp_path: Path, name: str) -> None:
    path = make_audio(tmp_path / name, 3, [(0, 3)], "aac")
    cut_off_end(path)
    with pytest.raises(NotMedia, match="damaged: its end is missing"):
        probe_media(path)


def cut_off_end(path: Path) -> None:
    """Take the last half of a file away, in which it has its index."""
    content = path.read_bytes()
    assert content.find(b"moov") > len(content) // 2
    path.write_bytes(content[: len(content) // 2])
