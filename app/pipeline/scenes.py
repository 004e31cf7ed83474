"""Where the picture of a run's film changes."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app.media.scenes import find_scene_cuts
from app.storage.workers import Workers

_finders = Workers("scenes", 2)


async def find_cuts(film: Path | None) -> Sequence[float]:
    """Return seconds of the film; none where there is no file or it cannot be read."""
    if film is None:
        return ()
    stopping = threading.Event()
    try:
        return await _finders.run_in_turn(partial(_find, film, stopping), on_cancel=stopping.set)
    except OSError:
        return ()


def _find(film: Path, stopping: threading.Event) -> Sequence[float]:
    with film.open("rb") as file:
        return find_scene_cuts(file, stopping)
