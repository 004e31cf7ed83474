"""What `python -m app run VIDEO` shows while it works, and at its end."""

import io
from datetime import datetime
from typing import Any

from rich.console import Console

from app.cli.run_output import open_run_progress, print_moments
from app.models import Clip, Moment
from app.models.runs import StageRecord, StageStatus
from app.models.stages import Stage

NOW = datetime(2026, 1, 1)
DONE = StageRecord(StageStatus.COMPLETED, 10.0, 12.5)
SKIPPED = StageRecord(StageStatus.SKIPPED, skip_reason="Audio file already exists")
HALF_DONE = StageRecord(StageStatus.PROCESSING, 12.5, progress={"total": 4, "processed": 2, "failed": 0})
IN_PART = StageRecord(StageStatus.COMPLETED, 10.0, 12.5, result={"moments": 0, "reason": "None fits the [limits]"})
FAILED = StageRecord(StageStatus.FAILED, 12.5, 13.0, error="The model says [no]")


def make_console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def make_moment(number: int, start: float, end: float, title: str, **fields: Any) -> Moment:
    values = {"is_refined": False, "parent_id": None} | fields
    return Moment(
        id=number, identifier=f"{number:016x}", video_id=1, start_time=start, end_time=end, title=title,
        generation_model=None, generation_config_id=None, score=None, scoring_model=None, scored_at=None,
        created_at=NOW, updated_at=NOW, **values,
    )  # fmt: skip


def make_clip(moment: Moment, url: str) -> Clip:
    return Clip(1, moment.id, 1, url, 0.0, 9.0, 0.0, 0.0, None, None, None, None, None, NOW)


def test_without_a_terminal_each_change_is_a_line() -> None:
    console = make_console(is_terminal=False)
    progress = open_run_progress(console)
    progress.show_upload(5, 10)
    progress.show_upload(10, 10)
    for clips in (HALF_DONE, HALF_DONE, DONE):
        progress.show_stages(
            {Stage.AUDIO: SKIPPED, Stage.CLIPS: clips, Stage.CLIP_UPLOAD: StageRecord(StageStatus.PENDING)}
        )
    progress.show_stages({Stage.GENERATION: IN_PART, Stage.REFINEMENT: FAILED})
    progress.close()
    assert written(console).splitlines() == [
        "Upload: done",
        "Audio: skipped: Audio file already exists",
        "Clips: begun",
        "Clips: done in 2.5 s",
        "Moments: done in 2.5 s: None fits the [limits]",
        "Refinement: failed: The model says [no]",
    ]


def test_a_terminal_gets_a_bar_for_each_stage_that_has_begun() -> None:
    console = make_console(is_terminal=True)
    progress = open_run_progress(console)
    progress.show_upload(5, 10)
    progress.show_stages(
        {Stage.AUDIO: DONE, Stage.CLIPS: HALF_DONE, Stage.REFINEMENT: StageRecord(StageStatus.PENDING)}
    )
    progress.close()
    last = written(console).split("Upload")[-1]
    assert "50%" in last.splitlines()[0]
    assert "done in 2.5 s" in last.splitlines()[1]
    assert last.splitlines()[2].startswith("Clips")
    assert "50%" in last.splitlines()[2]
    assert "Refinement" not in written(console)


def test_moments_stand_in_order_with_what_was_refined_from_them_below() -> None:
    late = make_moment(1, 3600.0, 3659.96, "Late [bold]")
    early = make_moment(2, 1.04, 59.0, "Early")
    refined = make_moment(3, 2.0, 58.0, "Early", is_refined=True, parent_id=2)
    console = make_console(is_terminal=False)
    print_moments([late, early, refined], [make_clip(late, "gs://bucket/clip.mp4")], console)
    assert written(console).splitlines() == [
        "0:00:01.0\t0:00:59.0\tEarly\t",
        "0:00:02.0\t0:00:58.0\trefined\t",
        "1:00:00.0\t1:01:00.0\tLate [bold]\tgs://bucket/clip.mp4",
    ]


def test_a_terminal_gets_a_table_with_titles_as_they_are() -> None:
    console = make_console(is_terminal=True)
    moment = make_moment(1, 1.0, 59.0, "Late [bold]")
    print_moments([moment], [make_clip(moment, "file:///srv/my%20media/clip.mp4")], console)
    header, row = written(console).splitlines()
    assert header.split() == ["start", "end", "moment", "clip"]
    assert "Late [bold]" in row
    assert "/srv/my media/clip.mp4" in row


def test_no_moment_is_said() -> None:
    console = make_console(is_terminal=False)
    print_moments([], [], console)
    assert written(console) == "No moments were found\n"
