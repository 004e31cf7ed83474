import io
import threading
from pathlib import Path

import pytest

from app.media.opening import Stopped
from app.media.scenes import find_scene_cuts
from tests.media.movies import make_colour_movie, make_movie

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def find(path: Path) -> list[float]:
    with path.open("rb") as film:
        return find_scene_cuts(film, threading.Event())


def test_the_picture_changes_where_another_scene_begins(tmp_path: Path) -> None:
    film = make_colour_movie(tmp_path / "film.mp4", 8.0, [RED, RED, GREEN, GREEN, BLUE, BLUE])
    assert find(film) == pytest.approx([2.0, 4.0, 6.0], abs=0.11)


def test_a_picture_that_stays_the_same_has_no_cuts(tmp_path: Path) -> None:
    assert find(make_movie(tmp_path / "film.mp4", 8.0)) == []


def test_a_film_without_a_picture_has_no_cuts(tmp_path: Path) -> None:
    assert find(make_movie(tmp_path / "film.mp4", video_codec=None)) == []


@pytest.mark.parametrize("content", [b"", b"no film" * 1000])
def test_what_is_no_film_has_no_cuts(content: bytes) -> None:
    assert find_scene_cuts(io.BytesIO(content), threading.Event()) == []


def test_the_search_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with make_movie(tmp_path / "film.mp4").open("rb") as film, pytest.raises(Stopped):
        find_scene_cuts(film, stopping)
