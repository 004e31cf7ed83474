"""How far a run is: a bar for each stage on a terminal, a line for each change elsewhere."""

from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.models.runs import StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, Stage

Records = Mapping[Stage, StageRecord]


class RunProgress(Protocol):
    """Told again and again how a file arrives and how far the stages are, until it is ended."""

    def say(self, line: str) -> None: ...

    def receive(self, done: int, size: int) -> None: ...

    def show(self, records: Records) -> None: ...

    def end(self) -> None: ...


class StageBars:
    """A bar for each stage that has begun."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bar.start()

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False)

    def receive(self, done: int, size: int) -> None:
        self._update("Upload", done / size if size else 1.0, f"{done / size if size else 1:.0%}")

    def show(self, records: Records) -> None:
        for stage, record in records.items():
            if record.status is not StageStatus.PENDING:
                self._update(STAGE_TABLE[stage].title, _fraction(record), _note(record))
        self._bar.refresh()

    def end(self) -> None:
        self._bar.stop()

    def _update(self, name: str, fraction: float | None, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=None, note="")
        total = None if fraction is None else 1.0
        self._bar.update(self._tasks[name], total=total, completed=fraction or 0.0, note=note)


class StageLines:
    """A line where a stage begins and where it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[Stage, StageStatus] = {}
        self._has_arrived = False

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def receive(self, done: int, size: int) -> None:
        if done >= size and not self._has_arrived:
            self._has_arrived = True
            self.say("Upload: done")

    def show(self, records: Records) -> None:
        for stage, record in records.items():
            if record.status is not StageStatus.PENDING and self._told.get(stage) is not record.status:
                self._told[stage] = record.status
                note = "begun" if record.status is StageStatus.PROCESSING else _note(record)
                self.say(f"{STAGE_TABLE[stage].title}: {note}")

    def end(self) -> None:
        pass


def open_progress(console: Console) -> RunProgress:
    """Return bars where there is a terminal, and lines where there is none."""
    return StageBars(console) if console.is_terminal else StageLines(console)


def _fraction(record: StageRecord) -> float | None:
    """Return how much of a stage is done, from 0 to 1, or None where it does not say."""
    if record.status is not StageStatus.PROCESSING:
        return 1.0 if record.is_completed_or_skipped else 0.0
    progress = record.progress or {}
    if "percentage" in progress:
        return progress["percentage"] / 100
    return progress["processed"] / progress["total"] if progress.get("total") else None


def _note(record: StageRecord) -> str:
    match record.status:
        case StageStatus.WAITING:
            return "waits for its turn"
        case StageStatus.SKIPPED:
            return f"skipped: {record.skip_reason}"
        case StageStatus.FAILED:
            return f"failed: {record.error}"
        case StageStatus.COMPLETED:
            reason = record.result.get("reason")
            return f"done{_time_of(record)}: {reason}" if reason else f"done{_time_of(record)}"
    fraction = _fraction(record)
    return "" if fraction is None else f"{fraction:.0%}"


def _time_of(record: StageRecord) -> str:
    if record.started_at is None or record.completed_at is None:
        return ""
    return f" in {record.completed_at - record.started_at:.1f} s"
