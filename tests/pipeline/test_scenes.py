from pathlib import Path

from app.pipeline.stages.generation import find_cuts_in_file
from tests.media.movies import make_colour_movie


async def test_the_cuts_of_a_film_are_found(tmp_path: Path) -> None:
    film = make_colour_movie(tmp_path / "film.mp4", 4.0, [(200, 0, 0), (200, 0, 0), (0, 200, 0), (0, 200, 0)])
    assert len(await find_cuts_in_file(film)) == 1


async def test_a_film_that_is_not_there_has_no_cuts(tmp_path: Path) -> None:
    assert not await find_cuts_in_file(None)
    assert not await find_cuts_in_file(tmp_path / "film.mp4")
