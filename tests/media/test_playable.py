"""How copies that browsers play are written: what is copied, what is encoded, and a disk without room."""

import threading
from pathlib import Path

import pytest

from app.media import playable
from app.media.playable import make_playable, plan_playable
from tests.media.movies import make_movie
from tests.media.test_early_end import cut_off, make_noise


@pytest.fixture
def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_clip(*_: object) -> None:
        raise AssertionError("the video was encoded")

    monkeypatch.setattr(playable, "cut_clip", cut_clip)


@pytest.mark.usefixtures("no_encoding")
def test_a_copy_for_which_there_is_no_room_is_not_encoded_instead(tmp_path: Path) -> None:
    target = tmp_path / "copy.mp4"
    target.symlink_to("/dev/full")
    with make_movie(tmp_path / "talk.mkv").open("rb") as file:
        plan = plan_playable(file, threading.Event())
        assert plan is not None
        with pytest.raises(OSError, match="No space left on device"):
            make_playable(file, plan, target, threading.Event())


@pytest.mark.usefixtures("no_encoding")
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_what_is_left_of_a_video_that_was_cut_off_is_copied(tmp_path: Path, container: str) -> None:
    path = make_noise(tmp_path / "talk", "libx264", "aac", container)
    cut_off(path)
    with path.open("rb") as file:
        plan = plan_playable(file, threading.Event(), declares_more=True)
        assert plan is not None
        make_playable(file, plan, tmp_path / "copy.mp4", threading.Event())
