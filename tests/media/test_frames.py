"""Frames of rotated videos, and the times at which scenes change."""

import io
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from app.media.clip import cut_clip
from app.media.container import ProcessingStopped
from app.media.probe import probe_media
from app.media.scene_cuts import find_scene_cuts
from tests.media.movies import make_colour_movie, make_movie
from tests.media.test_clip import WAYS, open_video
from tests.media.test_thumbnail import take_thumbnail, turn

WIDTH, HEIGHT = 96, 64
CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
ONE = 65536
# What a matrix makes of the corners, from left to right and top to bottom, that are red, green, blue, white before.
MATRICES = [
    pytest.param((ONE, 0, 0, ONE), "red green blue white", id="upright"),
    pytest.param((-ONE, 0, 0, ONE), "green red white blue", id="mirrored"),
    pytest.param((ONE, 0, 0, -ONE), "blue white red green", id="upside-down-mirrored"),
    pytest.param((-ONE, 0, 0, -ONE), "white blue green red", id="upside-down"),
    pytest.param((0, ONE, -ONE, 0), "blue red white green", id="clockwise"),
    pytest.param((0, -ONE, ONE, 0), "green white red blue", id="counterclockwise"),
    pytest.param((0, ONE, ONE, 0), "red blue green white", id="transposed"),
    pytest.param((0, -ONE, -ONE, 0), "white green blue red", id="transposed-upside-down"),
]


def make_corners(path: Path) -> Path:
    red, green, blue, white = (np.full((HEIGHT // 2, WIDTH // 2, 3), colour, np.uint8) for colour in CORNERS.values())
    return write_frame(path, np.vstack([np.hstack([red, green]), np.hstack([blue, white])]))


def write_frame(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", codec: str = "libx264") -> Path:
    flags = {"flags": "+ildct+ilme", "b": "4000000"} if codec == "mpeg2video" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=flags)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
        frame = VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
        for number in range(25):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(video: Path, way: str) -> VideoFrame:
    clip = video.parent / "clip.mp4"
    with open_video(video, way) as file:
        cut_clip(file, 0, 0.5, clip, threading.Event())
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    assert frame.rotation == 0
    return frame


def corners_of(frame: VideoFrame) -> str:
    pixels = frame.to_ndarray(format="rgb24").astype(int)
    height, width = pixels.shape[:2]
    found = [pixels[y, x] for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return " ".join(min(CORNERS, key=lambda name: np.abs(pixel - CORNERS[name]).sum()) for pixel in found)


def turned(folder: Path, matrix: tuple[int, int, int, int]) -> Path:
    a, b, c, d = matrix
    return turn(make_corners(folder / "video.mp4"), (a, b, 0, c, d, 0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("matrix", "corners"), MATRICES)
def test_a_clip_is_shown_as_players_show_the_video(
    tmp_path: Path, matrix: tuple[int, int, int, int], corners: str, way: str
) -> None:
    frame = cut(turned(tmp_path, matrix), way)
    assert corners_of(frame) == corners
    assert (frame.width, frame.height) == ((WIDTH, HEIGHT) if matrix[0] else (HEIGHT, WIDTH))


@pytest.mark.parametrize(("matrix", "corners"), MATRICES)
def test_a_thumbnail_is_shown_as_players_show_the_video(
    tmp_path: Path, matrix: tuple[int, int, int, int], corners: str
) -> None:
    frame = take_thumbnail(turned(tmp_path, matrix))
    assert corners_of(frame) == corners
    assert (frame.width, frame.height) == ((WIDTH, HEIGHT) if matrix[0] else (HEIGHT, WIDTH))


@pytest.mark.parametrize(("matrix", "corners"), MATRICES)
def test_the_resolution_is_that_which_players_show(
    tmp_path: Path, matrix: tuple[int, int, int, int], corners: str
) -> None:
    shown = f"{WIDTH}x{HEIGHT}" if matrix[0] else f"{HEIGHT}x{WIDTH}"
    assert probe_media(turned(tmp_path, matrix)).resolution == shown


def make_interlaced(path: Path) -> Path:
    """Write a video whose two fields show a white bar in two places, as of something that moves."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[0::2, 16:48] = 255
    pixels[1::2, 40:72] = 255
    return write_frame(path, pixels, "mpeg2video")


def combs_of(frame: VideoFrame) -> float:
    """How much the lines of a frame differ from the ones above and below them, of 255."""
    lines = frame.to_ndarray(format="gray").astype(float)[4:-4]
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_of_interlaced_video_has_no_combs(tmp_path: Path, way: str) -> None:
    video = make_interlaced(tmp_path / "video.ts")
    with av.open(str(video)) as container:
        frame = next(container.decode(video=0))
        assert frame.interlaced_frame
        assert combs_of(frame) > 50
    assert combs_of(cut(video, way)) < 10


def test_a_thumbnail_of_interlaced_video_has_no_combs(tmp_path: Path) -> None:
    thumbnail = take_thumbnail(make_interlaced(tmp_path / "video.ts"))
    assert combs_of(thumbnail) < 10
    assert (thumbnail.width, thumbnail.height) == (WIDTH, HEIGHT)


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def find(path: Path) -> list[float]:
    with path.open("rb") as video:
        return find_scene_cuts(video, threading.Event())


def test_a_scene_cut_is_where_another_scene_begins(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "film.mp4", 8.0, [RED, RED, GREEN, GREEN, BLUE, BLUE])
    assert find(video) == pytest.approx([2.0, 4.0, 6.0], abs=0.11)


def test_a_static_video_has_no_cuts(tmp_path: Path) -> None:
    assert find(make_movie(tmp_path / "film.mp4", 8.0)) == []


def test_a_file_without_video_has_no_cuts(tmp_path: Path) -> None:
    assert find(make_movie(tmp_path / "film.mp4", video_codec=None)) == []


@pytest.mark.parametrize("content", [b"", b"no film" * 1000])
def test_what_is_no_video_has_no_cuts(content: bytes) -> None:
    assert find_scene_cuts(io.BytesIO(content), threading.Event()) == []


def test_the_search_ends_when_it_is_stopped(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with make_movie(tmp_path / "film.mp4").open("rb") as video, pytest.raises(ProcessingStopped):
        find_scene_cuts(video, stopping)
