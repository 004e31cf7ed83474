"""The report of an import: rows per table, and an entry for everything that was not stored unchanged."""

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self

from app.core.text import escape_json

TABLES = (
    "videos",
    "transcripts",
    "prompts",
    "generation_configs",
    "moments",
    "clips",
    "thumbnails",
    "pipeline_history",
)
ROW_STATES = ("new", "changed", "unchanged")
RowCounts = Counter[tuple[str, str]]  # by table and state


class EntryKind(StrEnum):
    """What happened to something that was not stored unchanged."""

    FAILED = "failed"  # a whole video: nothing of it was written
    REFUSED = "refused"  # cannot enter its table
    RENAMED = "renamed"  # is stored under another id
    MERGED = "merged"  # says the same as another row
    CHANGED = "changed"  # is stored with a value that differs
    DROPPED = "dropped"  # values for which there is no column
    MISSING = "missing"  # a video without its file
    ORPHAN = "orphan"  # a file that belongs to nothing that is stored
    KEPT = "kept"  # rows of the database that the files do not account for


_LOSSES = (EntryKind.FAILED, EntryKind.REFUSED)


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One line of the report. `row` counts from 1 in its file, `content` is what would otherwise vanish."""

    kind: EntryKind
    reason: str
    file: str | None = None
    video: str | None = None
    row: int | None = None
    content: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the values that are not None; numbers that are not finite become text."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _replace_infinite_numbers(value) for name, value in values.items() if value is not None}


@dataclass(slots=True)
class FileReporter:
    """Collects the report entries about one file of a video."""

    file: str | None
    video: str | None
    entries: list[ReportEntry] = field(default_factory=list)

    def add_entry(self, kind: EntryKind, reason: str, content: Any = None, row: int | None = None) -> None:
        self.entries.append(ReportEntry(kind, reason, self.file, self.video, row, content))

    def for_file(self, file: Path | str | None) -> Self:
        """Return a reporter for another file of the same video, with the same list of entries."""
        name = f"{file.parent.name}/{file.name}" if isinstance(file, Path) else file
        return type(self)(name, self.video, self.entries)


@dataclass(slots=True)
class CopyCounts:
    """How many files, and bytes in them, were copied into storage and how many were there already."""

    new_files: int = 0
    new_bytes: int = 0
    old_files: int = 0
    old_bytes: int = 0

    def add_file(self, size: int, is_new: bool) -> None:
        if is_new:
            self.new_files, self.new_bytes = self.new_files + 1, self.new_bytes + size
        else:
            self.old_files, self.old_bytes = self.old_files + 1, self.old_bytes + size


class ImportReport:
    """Counts and entries of an import, to be closed: the entries, which may be many, are in a temporary file.

    `in_place` counts the files that are served from the library, in `folders`; `note_problem` says why those could not
    be registered. `elsewhere` counts the rows whose files are in a bucket or on another host.
    """

    def __init__(self, directory: Path, dry_run: bool, copy: bool = False) -> None:
        self.directory = directory
        self.dry_run = dry_run
        self.copy = copy
        self.copied = CopyCounts()
        self.in_place = 0
        self.elsewhere = 0
        self.folders: list[Path] = []
        self.note_problem: str | None = None
        self.seconds = 0.0
        self.videos = 0
        self.row_counts: RowCounts = Counter()
        self.counts: Counter[EntryKind] = Counter()
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the report
        self._blocks: list[tuple[str, int, int]] = []  # video, and where its entries begin and end in the file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def add_entries(self, entries: Iterable[ReportEntry]) -> None:
        video, content = "", b""
        for entry in entries:
            self.counts[entry.kind] += 1
            video = entry.video or ""
            content += _encode_entry(entry) + b"\n"
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(content)
        self._blocks.append((video, begin, begin + len(content)))

    @property
    def rows(self) -> int:
        """Return how many rows the files account for, whether written or unchanged."""
        return self.row_counts.total()

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def is_complete(self) -> bool:
        return not any(self.counts[kind] for kind in _LOSSES)

    def read_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries as JSON objects, ordered by video."""
        return map(json.loads, self._read_entry_lines())

    def write(self, path: Path) -> None:
        part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with part.open("wb") as file:
                file.write(_encode_json(self.summarize_without_entries())[:-1] + b', "entries": [')
                for number, line in enumerate(self._read_entry_lines()):
                    file.write((b",\n" if number else b"\n") + line)
                file.write(b"\n]}\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def summarize_without_entries(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "dry_run": self.dry_run,
            "complete": self.is_complete,
            "seconds": round(self.seconds, 3),
            "videos": self.videos,
            "rows": self.rows,
            "rows_per_second": round(self.rows_per_second, 1),
            "tables": {table: {state: self.row_counts[table, state] for state in ROW_STATES} for table in TABLES},
            "files": {
                "copied": self.copied.new_files,
                "copied_bytes": self.copied.new_bytes,
                "copied_before": self.copied.old_files,
                "copied_before_bytes": self.copied.old_bytes,
                "in_place": self.in_place,
                "elsewhere": self.elsewhere,
            },
            "counts": {kind.value: self.counts[kind] for kind in EntryKind if self.counts[kind]},
        }

    def _read_entry_lines(self) -> Iterator[bytes]:
        for _, begin, end in sorted(self._blocks):
            self._file.seek(begin)
            yield from self._file.read(end - begin).splitlines()


def _replace_infinite_numbers(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(name): _replace_infinite_numbers(item) for name, item in value.items()}
        case list() | tuple():
            return [_replace_infinite_numbers(item) for item in value]
        case _:
            return value


def _encode_entry(entry: ReportEntry) -> bytes:
    try:
        return _encode_json(entry.to_json())
    except RecursionError:
        return _encode_json(replace(entry, content="it is nested too deeply to be shown").to_json())


def _encode_json(value: Any) -> bytes:
    document = escape_json(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return document.encode("utf-8", "backslashreplace")
