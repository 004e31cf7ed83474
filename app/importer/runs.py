"""The legacy history of pipeline runs: one array of runs for each video."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.core.text import to_nfc
from app.importer.reading import Document, Unreadable, find_flaw, read_number, read_text
from app.importer.report import Kind, Notes

_LONGEST_IDENTIFIER = 100
_LONGEST_STAGE = 50
_COLUMNS = frozenset(
    (
        *("request_id", "video_id", "status", "started_at", "completed_at"),
        *("total_duration_seconds", "error_stage", "error_message"),
    )
)
_STATUSES = ("completed", "failed")
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """A run that can be stored; times are naive UTC."""

    row: int
    legacy_id: str | None
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    error_stage: str | None
    error_message: str | None

    @property
    def started_at_ms(self) -> int:
        return round(self.started_at.replace(tzinfo=UTC).timestamp() * 1000)


def parse_runs(document: Document, notes: Notes) -> list[LegacyRun]:
    """Return the runs that can be stored; the others and what has no column go into `notes`. Raises `Unreadable`."""
    if not isinstance(document.value, list):
        raise Unreadable("it holds no list")
    runs: list[LegacyRun] = []
    seen: dict[str, int] = {}
    for number, value in enumerate(document.value, start=1):
        text = json.dumps(value, sort_keys=True)
        if text in seen:
            notes.add(Kind.MERGED, f"says the same as row {seen[text]}", value, row=number)
        elif isinstance(run := _read_run(value, number, document.strict), LegacyRun):
            seen[text] = number
            runs.append(run)
            _note_changes(value, run, notes)
        else:
            notes.add(Kind.REFUSED, run, value, row=number)
    return runs


def _read_run(value: Any, number: int, strict: bool) -> LegacyRun | str:
    """Return the run, or why it cannot be stored."""
    if not isinstance(value, dict):
        return "no object"
    if not strict and (flaw := find_flaw({name: value.get(name) for name in _COLUMNS})):
        return f"{flaw.place}: {flaw.problem}"
    started_at = _time(value.get("started_at")) or _first_time(value.get("stages")) or _time(value.get("completed_at"))
    if started_at is None:
        return "nothing in it says when it began"
    status = value.get("status")
    return LegacyRun(
        row=number,
        legacy_id=to_nfc(read_text(value.get("request_id"), _LONGEST_IDENTIFIER) or "") or None,
        status=status if status in _STATUSES else "failed",
        started_at=started_at,
        completed_at=_time(value.get("completed_at")),
        duration_seconds=read_number(value.get("total_duration_seconds")),
        error_stage=read_text(value.get("error_stage"), _LONGEST_STAGE),
        error_message=read_text(value.get("error_message")),
    )


def _time(value: Any) -> datetime | None:
    """Return a time as naive UTC; 0 stands for one that was lost."""
    seconds = read_number(value)
    if seconds is None or not 0 < seconds < _LATEST:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _first_time(stages: Any) -> datetime | None:
    if not isinstance(stages, dict):
        return None
    times = [_time(stage.get("started_at")) for stage in stages.values() if isinstance(stage, dict)]
    return min((time for time in times if time is not None), default=None)


def _note_changes(value: dict[str, Any], run: LegacyRun, notes: Notes) -> None:
    if value.get("status") != run.status:
        reason = "a run that neither completed nor failed is stored as failed"
        notes.add(Kind.CHANGED, reason, {"status": value.get("status")}, row=run.row)
    if _time(value.get("started_at")) is None:
        reason = "its start was lost: the first time in it is stored"
        notes.add(Kind.CHANGED, reason, {"started_at": value.get("started_at")}, row=run.row)
    dropped = {name: item for name, item in value.items() if name not in _COLUMNS}
    stored = {
        "request_id": run.legacy_id,
        "completed_at": run.completed_at,
        "total_duration_seconds": run.duration_seconds,
        "error_stage": run.error_stage,
        "error_message": run.error_message,
    }
    dropped |= {name: value[name] for name in stored if stored[name] is None and value.get(name) not in (None, "")}
    if dropped:
        notes.add(Kind.DROPPED, "the table has no column for this", dropped, row=run.row)
