"""How copies that browsers play are written: what is copied, what is encoded, and a disk without room."""

import threading
from pathlib import Path

import pytest

from app.core.errors import StageFailed
from app.media import playable_copy
from app.media.playable_copy import make_playable_copy, plan_playable_copy
from tests.media.movies import make_movie, make_slides, make_sparse_audio
from tests.media.test_truncation import cut_off, make_noise


@pytest.fixture
def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_clip(*_: object) -> None:
        raise AssertionError("the video was encoded")

    monkeypatch.setattr(playable_copy, "cut_clip", cut_clip)


@pytest.mark.usefixtures("no_encoding")
def test_a_copy_for_which_there_is_no_room_is_not_encoded_instead(tmp_path: Path) -> None:
    target = tmp_path / "copy.mp4"
    target.symlink_to("/dev/full")
    with make_movie(tmp_path / "talk.mkv").open("rb") as file:
        plan = plan_playable_copy(file, threading.Event())
        assert plan is not None
        with pytest.raises(OSError, match="No space left on device"):
            make_playable_copy(file, plan, target, threading.Event())


@pytest.mark.usefixtures("no_encoding")
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_what_is_left_of_a_video_that_was_cut_off_is_copied(tmp_path: Path, container: str) -> None:
    path = make_noise(tmp_path / "talk", "libx264", "aac", container)
    cut_off(path)
    with path.open("rb") as file:
        plan = plan_playable_copy(file, threading.Event(), overstates_duration=True)
        assert plan is not None
        make_playable_copy(file, plan, tmp_path / "copy.mp4", threading.Event())


@pytest.mark.parametrize(("step_seconds", "sentence"), [(1000.0, "its file is too small"), (2000.0, "12 hours")])
def test_no_copy_is_made_of_what_time_stamps_alone_make_long(
    tmp_path: Path, step_seconds: float, sentence: str
) -> None:
    video = make_sparse_audio(tmp_path / "talk.mka", step_seconds)
    with video.open("rb") as file, pytest.raises(StageFailed, match=f"^No playable copy can be made: .*{sentence}"):
        plan_playable_copy(file, threading.Event())


def test_a_slow_video_that_is_only_copied_is_not_measured_by_its_bytes(tmp_path: Path) -> None:
    video = make_slides(tmp_path / "slides.mkv", [(0, (255, 0, 0)), (1500, (0, 255, 0)), (3000, (0, 0, 255))])
    with video.open("rb") as file:
        plan = plan_playable_copy(file, threading.Event())
        assert plan is not None
        assert plan.copies_video
        make_playable_copy(file, plan, tmp_path / "copy.mp4", threading.Event())
