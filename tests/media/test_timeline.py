"""One 0:00 and one end of a video for its duration, its audio and its clips, whatever its time stamps are."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from app.media.clip import cut_clip
from app.media.container import ReadLimitedFile, ReadLimits
from app.media.playable_copy import make_playable_copy, plan_playable_copy
from app.media.probe import probe_media
from app.media.scene_cuts import find_scene_cuts
from app.media.timeline import Timeline, read_timeline
from tests.media.movies import make_colour_movie, make_flashing_movie, make_movie_with_audio
from tests.media.test_audio import assert_beeps, extract
from tests.media.test_clip import WAYS, open_video

RED, BLUE = (255, 0, 0), (0, 0, 255)
FLASHES = [(2.0, 2.3), (5.0, 5.3)]
OFFSET = {"output_ts_offset": "3600"}


def recorded_live_with_an_offset(folder: Path) -> Path:
    return make_flashing_movie(folder / "video.webm", 7, FLASHES, "libvpx", "libopus", options={**OFFSET, "live": "1"})


def webm_with_an_offset(folder: Path) -> Path:
    return make_flashing_movie(folder / "video.webm", 7, FLASHES, "libvpx", "libopus", options=OFFSET)


def matroska_with_an_offset(folder: Path) -> Path:
    return make_flashing_movie(folder / "video.mkv", 7, FLASHES, options={"output_ts_offset": "5"})


def wmv_with_an_offset(folder: Path) -> Path:
    options = {"output_ts_offset": "5"}
    return make_flashing_movie(folder / "video.wmv", 7, FLASHES, "wmv2", "libmp3lame", options=options)


def mp4_with_an_offset(folder: Path) -> Path:
    return make_flashing_movie(folder / "video.mp4", 7, FLASHES, options=OFFSET)


def audio_that_begins_late(folder: Path) -> Path:
    return make_flashing_movie(folder / "video.mp4", 7, FLASHES, audio_from=0.5)


def audio_that_ends_after_the_video(folder: Path) -> Path:
    return make_flashing_movie(
        folder / "video.webm", 6, FLASHES, "libvpx", "libopus", audio_seconds=7, options={"live": "1"}
    )


def two_recordings_in_one_file(folder: Path, name: str = "video.ts", video_codec: str = "libx264") -> Path:
    video = folder / name
    first = make_flashing_movie(video, 3, [(2, 2.3)], video_codec, "mp2").read_bytes()
    video.write_bytes(first + make_flashing_movie(video, 4, [(2, 2.3)], video_codec, "mp2").read_bytes())
    return video


def two_recordings_of_another_time(folder: Path) -> Path:
    video = folder / "video.ts"
    first = make_flashing_movie(video, 3, [(2, 2.3)], audio_codec="mp2").read_bytes()
    later = make_flashing_movie(video, 4, [(2, 2.3)], audio_codec="mp2", options=OFFSET).read_bytes()
    video.write_bytes(first + later)
    return video


def two_program_streams(folder: Path) -> Path:
    return two_recordings_in_one_file(folder, "video.mpg", "mpeg2video")


MAKERS = [
    recorded_live_with_an_offset,
    webm_with_an_offset,
    matroska_with_an_offset,
    wmv_with_an_offset,
    mp4_with_an_offset,
    audio_that_begins_late,
    audio_that_ends_after_the_video,
    two_recordings_in_one_file,
    two_recordings_of_another_time,
    two_program_streams,
]
by_maker = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def timeline_of(video: Path) -> Timeline:
    with video.open("rb") as file:
        return read_timeline(ReadLimitedFile(file, ReadLimits(20.0, 1024**3)))


def white_from(clip: Path) -> float:
    with av.open(str(clip)) as container:
        return next(frame.time for frame in container.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128)


def loud_from(clip: Path) -> float:
    with av.open(str(clip)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        return float(np.flatnonzero(np.abs(samples) > 0.1)[0] / container.streams.audio[0].rate)


@by_maker
def test_the_duration_is_that_of_what_is_seen_and_heard(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    info = probe_media(make(tmp_path))
    assert info.duration_seconds == pytest.approx(7, abs=0.15)
    assert info.declared_seconds is None


@by_maker
def test_audio_lies_at_the_times_of_the_video(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert_beeps(extract(make(tmp_path)), *FLASHES, within=0.06)


@pytest.mark.parametrize("way", WAYS)
@by_maker
def test_a_clip_has_the_frames_and_the_audio_of_its_times(
    tmp_path: Path, make: Callable[[Path], Path], way: str
) -> None:
    clip = tmp_path / "clip.mp4"
    with open_video(make(tmp_path), way) as file:
        cut_clip(file, 4.5, 6, clip, threading.Event())
    assert white_from(clip) == pytest.approx(0.5, abs=0.05)
    assert loud_from(clip) == pytest.approx(white_from(clip), abs=0.02)


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_that_begins_between_two_frames_keeps_audio_and_video_together(tmp_path: Path, way: str) -> None:
    clip = tmp_path / "clip.mp4"
    with open_video(make_flashing_movie(tmp_path / "video.mp4", 7, FLASHES, frame_rate=25), way) as file:
        cut_clip(file, 4.501, 6, clip, threading.Event())
    assert white_from(clip) == pytest.approx(0.5, abs=0.03)
    assert loud_from(clip) == pytest.approx(white_from(clip), abs=0.005)


@pytest.mark.parametrize("make", [webm_with_an_offset, mp4_with_an_offset], ids=lambda make: make.__name__)
def test_a_video_that_browsers_do_not_show_from_zero_on_gets_a_copy_that_they_do(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    copy = tmp_path / "copy.mp4"
    with make(tmp_path).open("rb") as file:
        plan = plan_playable_copy(file, threading.Event())
        assert plan is not None
        make_playable_copy(file, plan, copy, threading.Event())
    assert timeline_of(copy).origin == pytest.approx(0, abs=0.001)
    assert white_from(copy) == pytest.approx(2, abs=0.05)
    with copy.open("rb") as file:
        assert plan_playable_copy(file, threading.Event()) is None


def test_scenes_change_at_the_times_of_the_video(tmp_path: Path) -> None:
    video = make_colour_movie(tmp_path / "video.ts", 4, [RED, RED, BLUE, BLUE])
    video.write_bytes(video.read_bytes() * 2)
    with video.open("rb") as file:
        assert find_scene_cuts(file, threading.Event()) == pytest.approx([2, 4, 6], abs=0.2)


def test_samples_that_only_start_a_decoder_up_are_not_the_beginning(tmp_path: Path) -> None:
    assert timeline_of(
        make_flashing_movie(tmp_path / "video.webm", 1, [], "libvpx", "libopus")
    ).origin == pytest.approx(0, abs=0.001)
    assert timeline_of(make_flashing_movie(tmp_path / "video.mp4", 1, [])).origin == 0


def test_a_stream_that_pauses_has_no_other_clock(tmp_path: Path) -> None:
    video = make_flashing_movie(tmp_path / "video.ts", 4, [], audio_codec="mp2", audio_from=3)
    assert timeline_of(video).restarts == []


def test_key_frames_lead_into_a_video_whose_clock_starts_over(tmp_path: Path) -> None:
    recording = make_flashing_movie(tmp_path / "video.ts", 10, [], audio_codec="mp2")
    length = recording.stat().st_size
    recording.write_bytes(recording.read_bytes() * 2)
    timeline = timeline_of(recording)
    assert [restart.position for restart in timeline.restarts] == [pytest.approx(length, abs=1000)]
    assert [key.time - timeline.origin for key in timeline.key_frames] == pytest.approx(list(range(20)), abs=0.7)
    assert [key.position < length for key in timeline.key_frames] == [True] * 10 + [False] * 10


def test_a_file_whose_clock_may_start_over_is_read_to_its_end_once(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(size)
            self.count += len(chunk)
            return chunk

    video = make_movie_with_audio(tmp_path / "video.ts", 90, [(0, 90)], "mp2").read_bytes()
    first, second = Counting(video), Counting(video)
    timelines = [read_timeline(ReadLimitedFile(file, ReadLimits(20.0, 1024**3))) for file in (first, second)]
    assert timelines[0] == timelines[1]
    assert first.count > len(video)
    assert second.count < len(video) / 2
