"""What `run VIDEO` prints: the progress of its stages, and at the end the moments of the video."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from app.core.console import print_table
from app.models import Clip, Moment
from app.models.runs import StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, Stage
from app.storage.file_system import path_from_url

StageRecords = Mapping[Stage, StageRecord]


class RunProgressBars:
    """A progress bar on a terminal for the upload and for each stage that has begun."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def print_line(self, line: str) -> None:
        self._bars.console.print(line, markup=False)

    def show_upload(self, received_bytes: int, total_bytes: int) -> None:
        share = received_bytes / total_bytes if total_bytes else 1.0
        self._update_bar("Upload", share, f"{share:.0%}")

    def show_stages(self, records: StageRecords) -> None:
        for stage, record in records.items():
            if record.status is not StageStatus.PENDING:
                self._update_bar(STAGE_TABLE[stage].title, _completed_share(record), _describe_progress(record))
        self._bars.refresh()

    def close(self) -> None:
        self._bars.stop()

    def _update_bar(self, name: str, share: float | None, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, note="")
        self._bars.update(self._tasks[name], total=None if share is None else 1.0, completed=share or 0.0, note=note)


class RunProgressLines:
    """A line of text when the upload is done, and when a stage begins and ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[Stage, StageStatus] = {}
        self._is_uploaded = False

    def print_line(self, line: str) -> None:
        self._console.print(line, markup=False)

    def show_upload(self, received_bytes: int, total_bytes: int) -> None:
        if received_bytes >= total_bytes and not self._is_uploaded:
            self._is_uploaded = True
            self.print_line("Upload: done")

    def show_stages(self, records: StageRecords) -> None:
        for stage, record in records.items():
            if record.status is not StageStatus.PENDING and self._printed.get(stage) is not record.status:
                self._printed[stage] = record.status
                note = "begun" if record.status is StageStatus.PROCESSING else _describe_progress(record)
                self.print_line(f"{STAGE_TABLE[stage].title}: {note}")

    def close(self) -> None:
        pass


RunProgress = RunProgressBars | RunProgressLines


def open_run_progress(console: Console) -> RunProgress:
    return RunProgressBars(console) if console.is_terminal else RunProgressLines(console)


def _completed_share(record: StageRecord) -> float | None:
    """Return how much of a stage is done, from 0 to 1, or None where it reports no counters."""
    if record.status is not StageStatus.PROCESSING:
        return 1.0 if record.is_completed_or_skipped else 0.0
    progress = record.progress or {}
    if "percentage" in progress:
        return progress["percentage"] / 100
    return progress["processed"] / progress["total"] if progress.get("total") else None


def _describe_progress(record: StageRecord) -> str:
    match record.status:
        case StageStatus.WAITING:
            return "waits for its turn"
        case StageStatus.SKIPPED:
            return f"skipped: {record.skip_reason}"
        case StageStatus.FAILED:
            return f"failed: {record.error}"
        case StageStatus.COMPLETED:
            begun, ended, reason = record.started_at, record.completed_at, record.result.get("reason")
            seconds = "" if begun is None or ended is None else f" in {ended - begun:.1f} s"
            return f"done{seconds}: {reason}" if reason else f"done{seconds}"
    share = _completed_share(record)
    return "" if share is None else f"{share:.0%}"


def print_moments(moments: Sequence[Moment], clips: Sequence[Clip], console: Console) -> None:
    """Print the original moments in order of time, each followed by its refinements, with the paths of their clips."""
    rows = list(_make_moment_rows(moments, {clip.moment_id: clip for clip in clips}))
    if not rows:
        console.print("No moments were found", markup=False)
        return
    start, end = Column("start", justify="right"), Column("end", justify="right")
    print_table(console, [start, end, Column("moment"), Column("clip", overflow="fold")], rows)


def _make_moment_rows(moments: Sequence[Moment], clips: Mapping[int, Clip]) -> Iterator[Sequence[str]]:
    by_time = sorted(moments, key=lambda moment: (moment.start_time, moment.id))
    for original in by_time:
        if not original.is_refined:
            yield _make_moment_row(original, original.title, clips)
            for moment in by_time:
                if moment.is_refined and moment.parent_id == original.id:
                    yield _make_moment_row(moment, "refined", clips)


def _make_moment_row(moment: Moment, title: str, clips: Mapping[int, Clip]) -> Sequence[str]:
    clip = clips.get(moment.id)
    location = _describe_file_location(clip.cloud_url) if clip else ""
    return _format_time(moment.start_time), _format_time(moment.end_time), title, location


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:04.1f}"


def _describe_file_location(url: str) -> str:
    if not url.startswith("file:"):
        return url
    path = path_from_url(url)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
