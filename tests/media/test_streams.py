"""One choice of streams for what is reported of a video and for what is made of it."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from av.video.frame import VideoFrame

from app.media.clip import cut_clip
from app.media.probe import probe
from tests.media.movies import SAMPLE_RATE, make_colour_movie, make_sounding_movie
from tests.media.test_audio import assert_beeps, extract
from tests.media.test_clip import WAYS, loud_from_to, open_film
from tests.media.test_still import is_coloured, take_still

RED = (255, 0, 0)


def join(path: Path, parts: Sequence[tuple[Path, str, Disposition | None]], cover: str | None = None) -> Path:
    """Write a file of streams of others, each of a kind and with a disposition, and a cover as its first stream."""
    with av.open(str(path), "w") as target:
        picture: Any = target.add_stream(cover, rate=1) if cover else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 32, 24, "rgb24" if cover == "png" else "yuvj420p"
        sources = [av.open(str(part)) for part, _, _ in parts]
        packets: list[Any] = []
        for source, (_, kind, disposition) in zip(sources, parts, strict=True):
            stream = getattr(source.streams, kind)[0]
            copy = target.add_stream_from_template(stream)
            if disposition is not None:
                copy.disposition = disposition
            packets += [(packet, copy) for packet in source.demux(stream) if packet.size]
        if picture:
            frame = VideoFrame(32, 24, picture.pix_fmt)
            for packet in picture.encode(frame) + picture.encode(None):
                target.mux(packet)
        for packet, copy in sorted(packets, key=lambda each: each[0].dts * each[0].time_base):
            packet.stream = copy
            target.mux(packet)
        for source in sources:
            source.close()
    return path


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return make_sounding_movie(tmp_path / "parts" / "talk.mp4", 4, [(1, 2)])


@pytest.fixture
def other_audio(tmp_path: Path) -> Path:
    return make_sounding_movie(tmp_path / "parts" / "other.mkv", 4, [(3, 3.5)], "flac", layout="mono")


@pytest.mark.parametrize(("cover", "name"), [("mjpeg", "video.mp4"), ("mjpeg", "video.mkv"), ("png", "video.mov")])
def test_a_cover_that_comes_first_is_not_the_video(tmp_path: Path, talk: Path, cover: str, name: str) -> None:
    red = make_colour_movie(tmp_path / "parts" / "red.mp4", 4, [RED])
    video = join(tmp_path / name, [(red, "video", Disposition(0)), (talk, "audio", None)], cover)
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name == cover
    info = probe(video)
    assert (info.video_codec, info.audio_codec, info.resolution) == ("h264", "aac", "64x48")
    assert info.duration_seconds == pytest.approx(4, abs=0.1)
    assert is_coloured(take_still(video), RED)


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_of_a_video_whose_cover_comes_first_shows_the_video(tmp_path: Path, talk: Path, way: str) -> None:
    red = make_colour_movie(tmp_path / "parts" / "red.mp4", 4, [RED])
    video = join(tmp_path / "video.mp4", [(red, "video", Disposition(0)), (talk, "audio", None)], "mjpeg")
    with open_film(video, way) as file:
        cut_clip(file, 1, 2, tmp_path / "clip.mp4", threading.Event())
    assert is_coloured(take_still(tmp_path / "clip.mp4"), RED)


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (Disposition(0), Disposition.default, "flac"),
        (Disposition.default, Disposition(0), "aac"),
        (Disposition.default, Disposition.default, "aac"),
        (Disposition.default | Disposition.visual_impaired, Disposition(0), "flac"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_the_audio_that_is_reported_is_extracted_and_cut(
    tmp_path: Path, talk: Path, other_audio: Path, first: Disposition, second: Disposition, chosen: str, way: str
) -> None:
    parts = [(talk, "video", None), (talk, "audio", first), (other_audio, "audio", second)]
    video = join(tmp_path / "video.mkv", parts)
    beep = {"aac": (1.0, 2.0), "flac": (3.0, 3.5)}[chosen]
    assert probe(video).audio_codec == chosen
    assert_beeps(extract(video), beep)
    with open_film(video, way) as file:
        cut_clip(file, 0.5, 4, tmp_path / "clip.mp4", threading.Event())
    assert loud_from_to(tmp_path / "clip.mp4") == pytest.approx([time - 0.5 for time in beep], abs=0.03)


@pytest.mark.parametrize(
    ("first", "second"), [(Disposition(0), Disposition.default), (Disposition.default, Disposition(0))]
)
def test_of_two_videos_the_default_is_taken(tmp_path: Path, first: Disposition, second: Disposition) -> None:
    large = make_sounding_movie(tmp_path / "parts" / "large.mp4", 2, [(0, 2)])
    small = make_colour_movie(tmp_path / "parts" / "small.mp4", 2, [RED])
    video = join(tmp_path / "video.mkv", [(large, "video", first), (small, "video", second)])
    assert is_coloured(take_still(video), RED) == (second == Disposition.default)


def change_of_audio(path: Path, first: tuple[int, str], second: tuple[int, str]) -> Path:
    """Write a video whose audio has another sample rate or other channels after three seconds."""
    content = b""
    for number, (rate, layout) in enumerate((first, second)):
        beep, options = (number, number + 0.5), {"output_ts_offset": str(3.2 * number)}
        content += make_sounding_movie(path, 3, [beep], "mp2", rate, layout, options=options).read_bytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("first", "second"),
    [((SAMPLE_RATE, "stereo"), (44_100, "stereo")), ((SAMPLE_RATE, "mono"), (32_000, "stereo"))],
)
def test_audio_that_changes_inside_a_video_goes_on_in_its_clip(
    tmp_path: Path, first: tuple[int, str], second: tuple[int, str], way: str
) -> None:
    video = change_of_audio(tmp_path / "video.ts", first, second)
    with open_film(video, way) as file:
        cut_clip(file, 1, 6, tmp_path / "clip.mp4", threading.Event())
    assert loud_from_to(tmp_path / "clip.mp4") == pytest.approx((3, 3.5), abs=0.05)
