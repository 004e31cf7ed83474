"""Colours of thumbnails and clips: those of the video, whatever it is tagged with, by both cutters alike."""

import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from app.media.clip import cut_clip
from tests.media.movies import BAR_WIDTH, YUV_WEIGHTS, make_bars
from tests.media.test_clip import WAYS, open_video
from tests.media.test_thumbnail import take_thumbnail

BT709, UNSPECIFIED, PAL, NTSC, BT2020, PQ, HLG = 1, 2, 5, 6, 9, 16, 18
BARS = [(102.0, 102.0, 102.0), (191.0, 191.0, 191.0), (180.0, 150.0, 60.0), (60.0, 140.0, 190.0), (170.0, 40.0, 40.0)]
GREY = 1
Colours = NDArray[np.float64]


def cut(video: Path, way: str) -> Path:
    clip = video.parent / f"{way}.mp4"
    with open_video(video, way) as file:
        cut_clip(file, 0, 0.5, clip, threading.Event())
    return clip


def colours_of(clip: Path) -> Colours:
    """Red, green and blue of each bar as a player computes them from numbers and tags."""
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    weights, is_full = YUV_WEIGHTS[frame.colorspace], frame.color_range == 2
    planes: list[Any] = [
        np.frombuffer(bytes(plane), "u1").reshape(-1, plane.line_size)[plane.height // 2, : plane.width].astype(float)
        for plane in frame.planes
    ]
    middles = np.arange(len(planes[0]) // BAR_WIDTH) * BAR_WIDTH + BAR_WIDTH // 2
    luma, blue_chroma, red_chroma = planes[0][middles], planes[1][middles // 2] - 128, planes[2][middles // 2] - 128
    if not is_full:
        luma, blue_chroma, red_chroma = (luma - 16) * 255 / 219, blue_chroma * 255 / 224, red_chroma * 255 / 224
    red, blue = luma + red_chroma * (2 - 2 * weights[0]), luma + blue_chroma * (2 - 2 * weights[1])
    green = (luma - weights[0] * red - weights[1] * blue) / (1 - sum(weights))
    return np.asarray(np.clip(np.stack([red, green, blue], axis=-1), 0, 255), float)


def tags_of(clip: Path) -> tuple[int, int, int, int]:
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    return int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), int(frame.color_range)


def colours_of_thumbnail(video: Path) -> Colours:
    pixels = take_thumbnail(video).to_ndarray()
    width = pixels.shape[1] / len(BARS)
    middles = [int((number + 0.5) * width) for number in range(len(BARS))]
    return np.asarray(pixels[pixels.shape[0] // 2, middles], float)


TAGGED = [
    pytest.param({"matrix": BT709, "primaries": BT709, "transfer": BT709}, (1, 1, 1, 1), id="bt709"),
    pytest.param(
        {"matrix": BT709, "primaries": BT709, "transfer": BT709, "is_full_range": True}, (1, 1, 1, 2), id="full"
    ),
    pytest.param({"matrix": NTSC, "primaries": NTSC, "transfer": NTSC}, (6, 6, 6, 1), id="ntsc"),
    pytest.param({"matrix": PAL, "primaries": PAL, "transfer": NTSC}, (5, 5, 6, 1), id="pal"),
    pytest.param({"matrix": NTSC, "primaries": BT709, "transfer": BT709}, (6, 1, 1, 1), id="old-phone"),
    pytest.param({"matrix": PAL}, (5, 6, 6, 1), id="only-a-matrix"),
    pytest.param({"numbers_of": NTSC}, (6, 6, 6, 1), id="untagged-sd"),
    pytest.param({"numbers_of": BT709, "height": 720}, (1, 1, 1, 1), id="untagged-hd"),
    pytest.param({"matrix": BT709, "primaries": BT709, "transfer": BT709, "pixels": "yuv444p"}, (1, 1, 1, 1), id="444"),
    pytest.param(
        {"matrix": BT709, "primaries": BT709, "transfer": BT709, "pixels": "yuv420p10le", "codec": "libx265"},
        (1, 1, 1, 1),
        id="10-bit",
    ),
    pytest.param({"matrix": 7, "primaries": 7, "transfer": 7}, (1, 7, 7, 1), id="smpte-240m"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "tags"), TAGGED)
def test_a_clip_has_the_colours_of_the_video_and_says_so(
    tmp_path: Path, kind: dict[str, Any], tags: tuple[int, ...], way: str
) -> None:
    clip = cut(make_bars(tmp_path / "video.mp4", BARS, **kind), way)
    assert colours_of(clip) == pytest.approx(np.array(BARS), abs=3)
    assert tags_of(clip) == tags


@pytest.mark.parametrize(("kind", "tags"), TAGGED)
def test_a_thumbnail_has_the_colours_of_the_video(tmp_path: Path, kind: dict[str, Any], tags: tuple[int, ...]) -> None:
    assert colours_of_thumbnail(make_bars(tmp_path / "video.mp4", BARS, **kind)) == pytest.approx(np.array(BARS), abs=5)


def hdr_numbers(nits: Colours, transfer: int) -> Colours:
    """What PQ or HLG makes of the light of a screen, 0 to 255."""
    if transfer == PQ:
        power = (nits / 10_000) ** 0.1593017578125
        return np.asarray(255 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)
    scene = (nits / 1000) ** (1 / 1.2)  # of grey
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(255 * np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm))


def make_hdr(path: Path, transfer: int, nits: list[float]) -> Path:
    greys = [(float(value),) * 3 for value in hdr_numbers(np.array(nits), transfer)]
    tags = {"matrix": BT2020, "primaries": BT2020, "transfer": transfer}
    return make_bars(path, greys, **tags, pixels="yuv420p10le", codec="libx265")  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_clip_of_hdr_is_sdr_as_bright_as_it(tmp_path: Path, transfer: int, way: str) -> None:
    # White of SDR is 203 nits in HDR; a grey of 191 has half the light of it. What is brighter is still told apart.
    clip = cut(make_hdr(tmp_path / "video.mp4", transfer, [0.01, 203 / 2, 203, 500, 1000]), way)
    assert tags_of(clip) == (BT709, BT709, BT709, 1)
    black, grey, white, bright, brightest = colours_of(clip)[:, 1]
    assert black < 8
    assert grey == pytest.approx(187, abs=8)
    assert grey + 20 < white < bright - 5 < brightest
    assert brightest > 250


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_thumbnail_of_hdr_is_as_bright_as_a_clip_of_it(tmp_path: Path, transfer: int) -> None:
    video = make_hdr(tmp_path / "video.mp4", transfer, [0.01, 203 / 2, 203, 500, 1000])
    assert colours_of_thumbnail(video) == pytest.approx(colours_of(cut(video, "PyAV")), abs=4)


@pytest.mark.parametrize("transfer", [PQ, HLG, BT709])
def test_both_cutters_show_wide_colours_alike(tmp_path: Path, transfer: int) -> None:
    tags = {"matrix": BT2020, "primaries": BT2020, "transfer": transfer}
    video = make_bars(tmp_path / "video.mp4", BARS, **tags, pixels="yuv420p10le", codec="libx265")  # type: ignore[arg-type]
    clips = [cut(video, way if isinstance(way, str) else "ffmpeg") for way in WAYS]
    assert colours_of(clips[0]) == pytest.approx(colours_of(clips[1]), abs=3)
    assert {tags_of(clip) for clip in clips} == {(BT709, BT709, BT709, 1)}


def test_colours_that_bt709_has_too_are_those_of_bt2020(tmp_path: Path) -> None:
    # Half of pure BT.709 red, as BT.2020 has it (ITU-R BT.2087): light of 0.6274, 0.0691 and 0.0164 of it.
    red = [255 * (0.5**2.4 * part) ** (1 / 2.4) for part in (0.6274, 0.0691, 0.0164)]
    bars = [(red[0], red[1], red[2])] * len(BARS)
    video = make_bars(tmp_path / "video.mp4", bars, matrix=BT2020, primaries=BT2020, transfer=14)
    assert colours_of(cut(video, "PyAV"))[2] == pytest.approx([127.5, 0, 0], abs=12)
